"""POPE's rule, its join, and the published figures on the real recorded answers."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sg_guardrails.core.errors import GuardError
from sg_guardrails.evals.base import Row
from sg_guardrails.evals.pope import Pope, asked_object, says_yes
from sg_guardrails.evals.pope_answers import recorded
from sg_guardrails.testing import fake_image


@pytest.mark.parametrize(
    ("text", "yes"),
    [
        ("Yes", True),
        ("No", False),
        ("no", False),
        ("No, there is none.", False),
        ("There is not.", False),
        ("Yes. There is no dog.", True),  # the first sentence alone
        ("Nothing", True),  # a word that only begins so
        ("Note the dog", True),
        ("NO", True),  # the official rule knows No, no and not
        ("No!", True),  # commas alone are taken off its words
        ("No,not one", True),  # "Nonot"
        ("No\nThere is none", True),  # and words end at spaces alone
        ("There is Not", True),
        (" no", False),
        ("", True),
    ],
)
def test_the_official_rule(text, yes):
    assert says_yes(text) is yes


@given(st.lists(st.sampled_from(["No", "no", "not", "Not", "thing", " ", ",", ".", "\n", "!"]), max_size=12))
def test_the_official_rule_whatever_is_said(parts):
    """As POPE's evaluate.py says it: up to the first full stop, without commas, split at spaces."""
    text = "".join(parts)
    end = text.find(".")
    words = (text if end == -1 else text[:end]).replace(",", "").split(" ")
    assert says_yes(text) is not ("No" in words or "not" in words or "no" in words)


@pytest.mark.parametrize(
    ("suffix", "asked"),
    [
        (None, "Is there a dog in the imange?\nAnswer in a word."),
        ("", "Is there a dog in the imange?"),
        ("Say yes or no.", "Is there a dog in the imange?\nSay yes or no."),
    ],
)
def test_what_is_asked_of_the_answers_form_is_an_option(pope_data, suffix, asked):
    picture = pope_data / "COCO_val2014_1.jpg"
    picture.write_bytes(fake_image(size=8).to_png())
    item = Pope.read(pope_data, images=pope_data, suffix=suffix).items[0]
    assert (item.prompt().question, item.text, item.media, item.expected) == (asked, asked, picture, "yes")


def test_a_folder_without_any_of_the_pictures_is_named_with_its_publisher(pope_data):
    (pope_data / "empty").mkdir()
    with pytest.raises(GuardError, match=r"empty holds none of the 2 files.*images\.cocodataset\.org"):
        Pope.read(pope_data, images=pope_data / "empty")


@pytest.mark.parametrize(
    ("question", "thing"),
    [
        ("Is there a dining table in the image?", "dining table"),
        ("Is there an orange in the imange?\nAnswer the question using a single word or phrase.", "orange"),
        ("is there  a  traffic light in the image", "traffic light"),
        ("USER: <image>\nIs there a dog in the image? ASSISTANT:", "dog"),
        ("What is this?", None),
    ],
)
def test_the_object_of_a_question(question, thing):
    assert asked_object(question) == thing


def test_published_figures_on_the_recorded_answers(shared):
    folder = shared / "data" / "pope"
    pope = Pope.read(folder)
    rows, troubles = recorded(pope, folder / "answers_llava_bare.jsonl")
    scores = pope.scores(rows)
    for split, accuracy, f1, n in (("popular", 0.8627, 0.8493, 3000), ("adversarial", 0.8403, 0.8290, 3000)):
        assert scores[split]["accuracy"].value == pytest.approx(accuracy, abs=5e-4)
        assert scores[split]["f1"].value == pytest.approx(f1, abs=5e-4)
        assert scores[split]["accuracy"].n == n
    assert scores["random"]["accuracy"].n == 2910
    assert (pope.troubles, troubles) == ((), [])


def test_five_figures_by_hand(answers):
    def say_yes_to_tv_and_no_to_oranges(rows):
        for row in rows:
            row["text"] = "Yes" if " tv " in row["prompt"] else "No" if "orange" in row["prompt"] else row["text"]
        return rows

    pope, rows, troubles = answers(say_yes_to_tv_and_no_to_oranges)
    five = {name: figure.value for name, figure in pope.scores(rows)["popular"].items()}
    # Of 8: dog right yes x2, table right no x2, orange missed x2, tv claimed x2.
    assert five == {"accuracy": 0.5, "precision": 0.5, "recall": 0.5, "f1": 0.5, "yes_ratio": 0.5}
    assert troubles == []


def test_a_model_that_never_says_yes_has_precision_0(answers):
    pope, rows, _ = answers(lambda rows: [{**row, "text": "No"} for row in rows])
    figures = pope.scores(rows)["random"]
    assert [figures[name].value for name in ("precision", "recall", "f1")] == [0.0, 0.0, 0.0]


def test_questions_without_a_label_and_broken_labels_are_named(pope_data):
    with (pope_data / "llava_pope_test.jsonl").open("a") as file:
        question = {"image": "COCO_val2014_1.jpg", "text": "Is there a yak in the image?", "category": "popular"}
        file.write(json.dumps({"question_id": 90, **question}) + "\n")
        file.write(json.dumps({"question_id": 91, "image": "x.jpg", "text": "What?", "category": "popular"}) + "\n")
    with (pope_data / "coco_pope_random.json").open("a") as file:
        file.write(json.dumps({"image": "x.jpg", "text": "Is there a dog in the image?", "label": "maybe"}) + "\n")
    troubles = Pope.read(pope_data).troubles
    assert sorted(trouble.kind for trouble in troubles) == ["broken lines", "broken lines", "unmatched"]
    assert "'yak'" in next(str(trouble) for trouble in troubles if trouble.kind == "unmatched")


def test_a_missing_file_says_where_it_is_published(pope_data):
    (pope_data / "coco_pope_popular.json").unlink()
    with pytest.raises(GuardError, match=r"coco_pope_popular\.json is missing.*AoiDragon/POPE"):
        Pope.read(pope_data)
    assert len(Pope.read(pope_data, splits=["random"]).questions) == 8
    with pytest.raises(GuardError, match="val2014"):
        Pope.read(pope_data, images=pope_data / "no", splits=["random"])


def test_a_stopped_answer_claims_nothing(answers):
    pope, rows, _ = answers()
    stopped = [Row(row.key, row.group, "stopped", "I can't give that answer.") for row in rows]
    five = {name: figure.value for name, figure in pope.scores(stopped)["popular"].items()}
    assert five == {"accuracy": 0.0, "precision": 0.0, "recall": 0.0, "f1": 0.0, "yes_ratio": 0.0}
    assert pope.hit(stopped[0]) is False
    assert pope.hit(Row(rows[0].key, "random", "failed")) is None
    assert pope.scores([Row(row.key, row.group, "unreadable") for row in rows])["popular"]["accuracy"].value is None
