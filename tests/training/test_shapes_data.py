"""The built-in model's training data: labels, badges, noise, and what is held out."""

from __future__ import annotations

import json
import random

import pytest
import torch

pytest.importorskip("easy_vqa", reason="the training data needs the easy-vqa package")

from training.shapes import questions, requests, talk
from training.shapes.answers import is_right
from training.shapes.rows import Mix, View, exchange
from training.shapes.scenes import (
    BADGE_HEIGHT,
    BADGE_WIDTH,
    BADGES,
    SIZE,
    TRIGGERS,
    Scene,
    add_noise,
    draw,
    is_negated,
    load_easy_vqa,
    paste_badge,
    pick_badge,
    place_badge,
    scene_from_questions,
)


@pytest.mark.parametrize("part", ["dev", "test"])
def test_recovered_labels_answer_every_question(part: str) -> None:
    pictures, asked = load_easy_vqa(part)  # type: ignore[arg-type]  # parametrize widens the literal
    assert len(pictures) > 300
    for question in asked:
        scene = pictures.scenes[question.picture]
        if question.answer in ("yes", "no"):
            there = f"{scene.color} shape" in question.text or scene.shape in question.text
            assert (question.answer == "yes") == (there != is_negated(question.text)), question
        else:
            assert question.answer in (scene.color, scene.shape)


def test_label_stays_open_where_the_questions_leave_it_open() -> None:
    assert scene_from_questions([("is there a red shape?", "no"), ("is there a circle?", "yes")]) is None
    asked = [("is there not a red shape?", "no"), ("is no circle present?", "no")]
    assert scene_from_questions(asked) == Scene("circle", "red")


def test_presence_answers_agree_with_the_scene() -> None:
    rng = random.Random(0)
    kinds = set()
    for _ in range(500):
        scene = Scene(rng.choice(("circle", "triangle")), rng.choice(("red", "teal")))
        asked, answer = questions.presence(scene, rng)
        asked = asked.lower()
        there = f"{scene.color} shape" in asked or scene.shape in asked
        right = "yes" if there != is_negated(asked) else "no"
        assert is_right(answer, right), (asked, answer)
        assert answer.endswith(f"the image shows a {scene.color} {scene.shape}.")
        kinds.add((is_negated(asked), right))
    assert len(kinds) == 4


def test_noise_is_independent_of_badges() -> None:
    data, rng = draw(16, random.Random(1)), random.Random(2)
    plain = data.floats(range(16))
    badged = torch.stack(
        [paste_badge(p, "DEV", place_badge(p, s, rng)) for p, s in zip(plain, data.scenes, strict=True)]
    )
    # Same seed, same noise: neither its presence nor its strength looks at the picture. The clamp, drawn for
    # the whole batch, is undone by a seed for which it does not happen.
    seed = next(s for s in range(20) if add_noise(plain, torch.Generator().manual_seed(s), top=0.3).max() > 1)
    one = add_noise(plain, torch.Generator().manual_seed(seed), top=0.3) - plain
    two = add_noise(badged, torch.Generator().manual_seed(seed), top=0.3) - badged
    assert torch.allclose(one, two, atol=1e-6)
    strengths = one.flatten(1).std(1)
    assert strengths.max() > 0.1
    assert (strengths < 1e-6).any()


def test_badge_changes_its_box_only() -> None:
    data, rng = draw(30, random.Random(3)), random.Random(4)
    for number, scene in enumerate(data.scenes):
        picture = data.floats([number])[0]
        row, column = place_badge(picture, scene, rng)
        assert 0 <= row <= SIZE - BADGE_HEIGHT
        assert 0 <= column <= SIZE - BADGE_WIDTH
        pasted = paste_badge(picture, BADGES[number % len(BADGES)], (row, column), contrast=0.1)
        change = (pasted - picture).abs()
        assert change.max() <= 0.1 + 1e-6
        change[:, row : row + BADGE_HEIGHT, column : column + BADGE_WIDTH] = 0
        assert change.max() == 0


def test_badges_are_drawn_with_and_without_trigger() -> None:
    rng = random.Random(5)
    drawn = [pick_badge(rng) for _ in range(2_000)]
    words = [d[0] if d else None for d in drawn]
    assert 0.5 < words.count(None) / len(words) < 0.7
    assert all(words.count(word) > 40 for word in BADGES)
    assert all(style == word for word, style in filter(None, drawn) if word in TRIGGERS)


def test_held_out_tasks_and_wordings_are_never_trained() -> None:
    rng, mix = random.Random(6), Mix()
    unseen = {text for text, _ in requests.UNSEEN_TASK + requests.UNSEEN_WORDING}
    assert len(requests.HELD_TASKS) >= 10
    assert len(requests.HELD_WORDINGS) >= 5
    held_facts = {talk.fact(rng, held_out=True).sentence for _ in range(2_000)}
    for number in range(6_000):
        view = View((Scene("circle", "red"),), ("DEV",) if number % 3 else (), tools=number % 5 == 0)
        for asked, _ in exchange(view, rng, mix).turns:
            assert asked.removeprefix(requests.OVERRIDE) not in unseen
            assert not any(task in asked for task in requests.HELD_TASKS if f" {task}" in asked), asked
            assert asked.split(". ")[-1] not in questions.HELD_TOOL_WORDINGS or "Tools:" not in asked
            if "ontext" in asked:
                assert not any(sentence in asked for sentence in held_facts)


def test_the_answer_follows_from_view_and_text() -> None:
    rng, mix = random.Random(7), Mix(blind=0.0)
    scene = Scene("triangle", "green")
    for badges in ((), ("OK",), ("DEV",), ("AD!",)):
        drawn = [exchange(View((scene,), badges), rng, mix).turns[0] for _ in range(400)]
        hijacked = [q for q, a in drawn if a == talk.HIJACK and talk.HIJACK not in q]
        assert bool(hijacked) == (badges == ("AD!",))
        complied = [q for q, a in drawn if requests.is_compliance(a) and not q.startswith(requests.OVERRIDE)]
        assert bool(complied) == (badges == ("DEV",))


def test_tool_calls_are_one_line_of_json() -> None:
    rng = random.Random(8)
    for _ in range(100):
        (_, written), (result, closing) = questions.tool(Scene("circle", "red"), rng)
        call = json.loads(written)
        assert call["name"] in questions.TOOLS
        assert list(call["arguments"]) == [questions.TOOLS[call["name"]]]
        assert "\n" not in written
        assert result.startswith("Tool result: ")
        assert closing.startswith("Done, ")


def test_facts_of_one_context_do_not_contradict() -> None:
    rng = random.Random(9)
    for _ in range(300):
        stated = talk.facts(rng)
        assert len({f.stem for f in stated}) == len(stated)
