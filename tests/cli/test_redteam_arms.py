"""Crafting: what is attacked, what is kept, and that a killed run goes on."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import pytest
import torch

from sg_guardrails.attacks.objectives import Expectation
from sg_guardrails.cli import redteam_arms as arms
from sg_guardrails.core.errors import GuardError, SamplingError
from sg_guardrails.core.policy import ImageNoise, Policy
from sg_guardrails.evals.redteam import Cell
from sg_guardrails.models.hf import load

CELL = Cell("hijack", "32")
NOISE = ImageNoise(space="pixel", sigma=0.3)


@pytest.fixture(scope="module")
def handle():
    torch.set_num_threads(1)
    return load("builtin:shapes", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def kept(handle, tmp_path_factory):
    out = tmp_path_factory.mktemp("campaign")
    goals = arms.targets(handle, "hijack", 3, out)
    made = arms.craft(handle, CELL, goals, out / CELL.name, noise=NOISE, steps=5)
    return out, goals, made


def test_only_what_the_model_gets_right_is_attacked(kept):
    out, goals, _ = kept
    assert len(goals) == 3
    assert all(goal.case.sound(goal.answer) for goal in goals)
    assert len(json.loads((out / "clean-hijack.json").read_text())["answers"]) >= 3


def test_right_answers_of_another_model_are_none_of_this_one(handle, tmp_path):
    (tmp_path / "clean-hijack.json").write_text(json.dumps({"model": "shapes (weights 0123)", "answers": {}}))
    with pytest.raises(GuardError, match="another model"):
        arms.targets(handle, "hijack", 1, tmp_path)
    (tmp_path / "clean-hijack.json").write_text(json.dumps({"hijack-0000": "It is red."}))
    with pytest.raises(GuardError, match="another model"):
        arms.targets(handle, "hijack", 1, tmp_path)


def test_what_changes_an_answer_changes_a_runs_identity(handle):
    rules = Policy.load("builtin")
    own = arms.identity_of_run(handle, rules)
    assert own["model"].startswith("shapes (weights ")
    shorter = rules.model_copy(update={"model": rules.model.model_copy(update={"max_new_tokens": 3})})
    image = rules.smoothing.image.model_copy(update={"space": "model"})
    elsewhere = rules.model_copy(update={"smoothing": rules.smoothing.model_copy(update={"image": image})})
    slower = rules.model_copy(update={"model": rules.model.model_copy(update={"copies_per_batch": 1})})
    assert own != arms.identity_of_run(handle, shorter)
    assert own != arms.identity_of_run(handle, elsewhere)
    assert own == arms.identity_of_run(handle, slower)


def test_a_wrong_answers_target_is_the_right_one_with_its_word_exchanged(handle, kept):
    (goal,) = arms.targets(handle, "wrong", 1, kept[0])
    (text,) = goal.objective.targets
    assert text != goal.answer
    assert goal.case.goal in text.lower()
    assert goal.case.reached(text)


def test_a_late_payload_lies_behind_the_draft(handle, kept, monkeypatch):
    split = handle.processor.tokenizer.tokenize
    goals = arms.targets(handle, "late", 3, kept[0])
    assert len(goals) == 3
    for goal in goals:
        right, wanted = split(goal.answer), split(goal.objective.targets[0])
        assert right[: arms.DRAFT] == wanted[: arms.DRAFT]
        assert right[arms.DRAFT :] != wanted[arms.DRAFT :]
    monkeypatch.setattr(arms, "candidates", lambda _: [goal.case for goal in goals])
    assert arms.targets(handle, "late", 3, kept[0], tokens=40) == [], "no answer is so long"


def test_pictures_and_lines_stand_in_the_cells_folder(kept):
    out, goals, made = kept
    assert [one.key for one in made] == [goal.case.key for goal in goals]
    assert arms.crafted(out / CELL.name) == made
    assert all(arms.picture(out / CELL.name, one.key).pixels.shape == (64, 64, 3) for one in made)
    early = next(one for one in made if one.first_step is not None)
    assert arms.picture(out / CELL.name, early.key, first=True)


def test_what_is_there_is_not_made_again_and_a_torn_line_is(handle, kept, monkeypatch):
    out, goals, made = kept
    journal = out / CELL.name / arms.JOURNAL
    whole = journal.read_bytes()
    journal.write_bytes(whole[: whole.rstrip(b"\n").rfind(b"\n") + 9])  # killed while it wrote the third line
    asked = []
    attack = arms.attack_many

    def counting(handle, prompts, *rest, **more):
        asked.append(len(prompts))
        return attack(handle, prompts, *rest, **more)

    monkeypatch.setattr(arms, "attack_many", counting)
    again = arms.craft(handle, CELL, goals, out / CELL.name, noise=NOISE, steps=5)
    assert asked == [1]
    assert [one.key for one in again] == [one.key for one in made]
    assert len(arms.crafted(out / CELL.name)) == 3
    arms.craft(handle, CELL, goals, out / CELL.name, noise=NOISE, steps=5)
    assert asked == [1]


def test_pictures_of_another_attack_are_never_taken_for_this_one(handle, kept, tmp_path, monkeypatch):
    attack = arms.attack_many

    def short(handle, prompts, objectives, settings, **more):
        return attack(handle, prompts, objectives, replace(settings, steps=1), **{**more, "expectation": None})

    monkeypatch.setattr(arms, "attack_many", short)
    cell, some = Cell("hijack", "32", "adaptive"), kept[1][:1]
    arms.craft(handle, cell, some, tmp_path, noise=NOISE)
    arms.craft(handle, cell, some, tmp_path, noise=NOISE)
    for other in ({"noise": NOISE.model_copy(update={"shift": 0.1})}, {"noise": NOISE, "steps": 3}):
        with pytest.raises(GuardError, match="another attack"):
            arms.craft(handle, cell, some, tmp_path, **other)
    (tmp_path / arms.ATTACK).unlink()
    with pytest.raises(GuardError, match="another attack"):
        arms.craft(handle, cell, some, tmp_path, noise=NOISE)


def test_workers_make_the_same_pictures_and_lines(handle, kept, tmp_path):
    out, goals, made = kept
    packed = []

    def each(make, tasks):
        """What workers do, here: what would travel is packed and unpacked, and the last batch comes first."""
        job = make()
        for task in reversed(list(tasks)):
            packed.append(len(pickle.dumps(task)))
            yield task, pickle.loads(pickle.dumps(job(task)))

    crafters = arms.Crafters(each, lambda: handle)
    again = arms.craft(handle, CELL, goals, tmp_path, noise=NOISE, steps=5, crafters=crafters)
    assert again == made
    assert packed
    for one in made:
        assert arms.picture(tmp_path, one.key).digest == arms.picture(out / CELL.name, one.key).digest


def test_a_workers_error_ends_the_crafting(handle, kept, tmp_path):
    def each(make, tasks):
        for task in tasks:
            yield task, SamplingError("3 workers died of it")

    with pytest.raises(SamplingError, match="3 workers died"):
        arms.craft(handle, CELL, kept[1], tmp_path, noise=NOISE, crafters=arms.Crafters(each, lambda: handle))
    assert arms.crafted(tmp_path) == []


def test_budgets_become_settings():
    assert arms.settings(Cell("wrong", "64")).eps == pytest.approx(64 / 255)
    assert arms.settings(Cell("wrong", "unconstrained")).norm == "unconstrained"
    assert arms.settings(Cell("wrong", "patch"), 3).patch.size == 20
    assert arms.settings(Cell("wrong", "8", "adaptive")).steps == arms.STEPS["adaptive"]


def test_noisy_copies_are_shown_as_the_model_sees_them(handle, kept):
    prompt = kept[1][0].case.prompt()
    first, second = arms.noisy_views(handle, Policy.load("builtin").smoothing, prompt, 2)
    assert first.pixels.shape == (64, 64, 3)
    assert (first.pixels != second.pixels).mean() > 0.5
    assert abs(float((first.pixels - prompt.media[0].pixels).mean())) < 0.2


def test_an_attacker_who_knows_more_averages_over_what_he_knows(handle, kept, tmp_path, monkeypatch):
    expected = []

    def noting(handle, prompts, objectives, settings, **more):
        expected.append(more["expectation"])
        return attack(handle, prompts, objectives, replace(settings, steps=1), **{**more, "expectation": None})

    attack = arms.attack_many
    monkeypatch.setattr(arms, "attack_many", noting)
    mine = Expectation(noise=(ImageNoise(space="pixel", sigma=0), NOISE), draws=2)
    cell = Cell("hijack", "32", "adaptive")
    arms.craft(handle, cell, kept[1][:1], tmp_path / "usual", noise=NOISE)
    arms.craft(handle, cell, kept[1][:1], tmp_path / "mine", noise=NOISE, expectation=mine)
    assert expected == [Expectation(noise=(NOISE,), draws=arms.DRAWS), mine]
