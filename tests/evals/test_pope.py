"""POPE's rule, its join, and the published figures on the real recorded answers."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sg_guardrails.core.errors import GuardError
from sg_guardrails.evals.base import Row
from sg_guardrails.evals.pope import Pope, asked_object, recorded, says_yes

OBJECTS = ("dog", "dining table", "orange", "tv")


@pytest.fixture
def data(tmp_path):
    """Two pictures, four objects, three splits, in the official layout; the first of each picture is there."""
    asked = []
    for split in ("random", "popular", "adversarial"):
        lines = []
        for picture in ("COCO_val2014_1.jpg", "COCO_val2014_2.jpg"):
            for index, thing in enumerate(OBJECTS):
                label = "yes" if index % 2 == 0 else "no"
                text = f"Is there a {thing} in the image?"
                lines.append({"question_id": len(lines) + 1, "image": picture, "text": text, "label": label})
                written = f"Is there {'an' if thing == 'orange' else 'a'} {thing} in the imange?\nAnswer in a word."
                asked.append({"question_id": len(asked) + 1, "image": picture, "text": written, "category": split})
        (tmp_path / f"coco_pope_{split}.json").write_text("\n".join(map(json.dumps, lines)) + "\n")
    (tmp_path / "llava_pope_test.jsonl").write_text("\n".join(map(json.dumps, asked)) + "\n")
    return tmp_path


def answers(data, change=lambda rows: rows):
    """A file of right answers, changed."""
    pope = Pope.read(data)
    rows = [
        {"question_id": int(q.id), "prompt": q.text, "text": "Yes" if q.yes else "No", "metadata": {"x": 1}}
        for q in pope.questions
    ]
    file = data / "answers.jsonl"
    file.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in change(rows)))
    return pope, *recorded(pope, file)


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
        ("NO", True),  # the official rule knows No and no
        ("", True),
    ],
)
def test_the_official_rule(text, yes):
    assert says_yes(text) is yes


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


def test_five_figures_by_hand(data):
    def say_yes_to_tv_and_no_to_oranges(rows):
        for row in rows:
            row["text"] = "Yes" if " tv " in row["prompt"] else "No" if "orange" in row["prompt"] else row["text"]
        return rows

    pope, rows, troubles = answers(data, say_yes_to_tv_and_no_to_oranges)
    five = {name: figure.value for name, figure in pope.scores(rows)["popular"].items()}
    # Of 8: dog right yes x2, table right no x2, orange missed x2, tv claimed x2.
    assert five == {"accuracy": 0.5, "precision": 0.5, "recall": 0.5, "f1": 0.5, "yes_ratio": 0.5}
    assert troubles == []


def test_a_model_that_never_says_yes_has_precision_0(data):
    pope, rows, _ = answers(data, lambda rows: [{**row, "text": "No"} for row in rows])
    figures = pope.scores(rows)["random"]
    assert [figures[name].value for name in ("precision", "recall", "f1")] == [0.0, 0.0, 0.0]


def test_order_extra_fields_ids_as_text_and_blank_lines_change_nothing(data):
    pope, plain, _ = answers(data)

    def shuffle(rows):
        return ["\n", *({**row, "question_id": str(row["question_id"]), "extra": [1]} for row in rows[::-1]), "  \n"]

    _, rows, troubles = answers(data, shuffle)
    assert pope.scores(rows) == pope.scores(plain)
    assert troubles == []


def test_missing_rows_are_named_and_the_rest_is_scored(data):
    pope, rows, troubles = answers(data, lambda rows: rows[3:])
    assert [trouble.kind for trouble in troubles] == ["unanswered"] * 3
    assert "COCO_val2014_1.jpg" in str(troubles[0])
    assert "'dog'" in str(troubles[0])
    assert pope.scores(rows)["random"]["accuracy"].n == 5


def test_broken_lines_and_duplicates_are_named_and_the_first_answer_counts(data):
    def spoil(rows):
        again = {**rows[0], "text": "No"}
        return [
            *rows,
            again,
            '{"question_id": 2, "tex\n',
            "[1, 2]\n",
            json.dumps({"question_id": 3, "text": None}) + "\n",
        ]

    pope, rows, troubles = answers(data, spoil)
    assert sorted(trouble.kind for trouble in troubles) == ["broken lines"] * 3 + ["duplicates"]
    assert "another answer" in next(str(trouble) for trouble in troubles if trouble.kind == "duplicates")
    assert pope.scores(rows)["random"]["accuracy"].value == 1.0


def test_answers_to_other_questions_are_unmatched_not_scored(data):
    def foreign(rows):
        rows[0] |= {"prompt": "Is there a zebra in the image?"}
        rows[1] |= {"image": "COCO_val2014_9.jpg"}
        rows[2] |= {"question_id": 999}
        rows[3].pop("question_id")
        return rows

    pope, rows, troubles = answers(data, foreign)
    unmatched = [str(trouble) for trouble in troubles if trouble.kind == "unmatched"]
    assert len(unmatched) == 4
    assert "'zebra'" in unmatched[0]
    assert "COCO_val2014_9.jpg" in unmatched[1]
    assert "999" in unmatched[2]
    assert sum(trouble.kind == "unanswered" for trouble in troubles) == 4
    assert pope.scores(rows)["random"]["accuracy"].n == 4


def test_ids_that_repeat_between_splits_are_told_apart(data):
    lines = [json.loads(line) for line in (data / "llava_pope_test.jsonl").read_text().splitlines()]
    renumbered = [{**line, "question_id": index % 8 + 1} for index, line in enumerate(lines)]
    (data / "llava_pope_test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in renumbered))
    _, rows, troubles = answers(data)
    assert ({row.group for row in rows}, len(rows), troubles) == ({"random", "popular", "adversarial"}, 24, [])
    named = [{"question_id": 1, "text": "No", "category": "popular"}, {"question_id": 1, "text": "Yes"}]
    _, rows, _ = answers(data, lambda _: named)
    assert [(row.group, row.text) for row in rows] == [("popular", "No"), ("random", "Yes")]


def test_an_empty_answer_is_read_as_the_rule_says_and_reported(data):
    _, rows, troubles = answers(data, lambda rows: [{**rows[0], "text": " "}, *rows[1:]])
    assert [trouble.kind for trouble in troubles] == ["empty answers"]
    assert len(rows) == 24


def test_questions_without_a_label_and_broken_labels_are_named(data):
    with (data / "llava_pope_test.jsonl").open("a") as file:
        question = {"image": "COCO_val2014_1.jpg", "text": "Is there a yak in the image?", "category": "popular"}
        file.write(json.dumps({"question_id": 90, **question}) + "\n")
        file.write(json.dumps({"question_id": 91, "image": "x.jpg", "text": "What?", "category": "popular"}) + "\n")
    with (data / "coco_pope_random.json").open("a") as file:
        file.write(json.dumps({"image": "x.jpg", "text": "Is there a dog in the image?", "label": "maybe"}) + "\n")
    troubles = Pope.read(data).troubles
    assert sorted(trouble.kind for trouble in troubles) == ["broken lines", "broken lines", "unmatched"]
    assert "'yak'" in next(str(trouble) for trouble in troubles if trouble.kind == "unmatched")


def test_a_missing_file_says_where_it_is_published(data):
    (data / "coco_pope_popular.json").unlink()
    with pytest.raises(GuardError, match=r"coco_pope_popular\.json is missing.*AoiDragon/POPE"):
        Pope.read(data)
    assert len(Pope.read(data, splits=["random"]).questions) == 8
    with pytest.raises(GuardError, match="val2014"):
        Pope.read(data, images=data / "no", splits=["random"])


def test_a_stopped_answer_claims_nothing(data):
    pope, rows, _ = answers(data)
    stopped = [Row(row.key, row.group, "stopped", "I can't give that answer.") for row in rows]
    five = {name: figure.value for name, figure in pope.scores(stopped)["popular"].items()}
    assert five == {"accuracy": 0.0, "precision": 0.0, "recall": 0.0, "f1": 0.0, "yes_ratio": 0.0}
    assert pope.hit(stopped[0]) is False
    assert pope.hit(Row(rows[0].key, "random", "failed")) is None
    assert pope.scores([Row(row.key, row.group, "unreadable") for row in rows])["popular"]["accuracy"].value is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
LINES = st.fixed_dictionaries(
    {},
    optional={
        "question_id": st.integers(1, 30) | JSON,
        "text": st.sampled_from(["Yes", "No", ""]) | JSON,
        "prompt": st.sampled_from(["Is there a dog in the image?", "Is there a yak in the image?"]) | JSON,
        "image": st.just("COCO_val2014_1.jpg") | JSON,
        "category": st.sampled_from(["popular", "random"]) | JSON,
    },
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(lines=st.lists(LINES | JSON | st.binary(max_size=12), max_size=12))
def test_whatever_stands_in_a_file_every_line_is_scored_or_named(data, lines):
    raw = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    raw = [line.replace(b"\n", b" ") for line in raw]
    (data / "any.jsonl").write_bytes(b"\n".join(raw))
    pope = Pope.read(data)
    rows, troubles = recorded(pope, data / "any.jsonl")
    held = sum(bool(line.decode("utf-8", "replace").strip().strip("\ufeff")) for line in raw)
    named = [trouble.where for trouble in troubles if trouble.kind in ("broken lines", "unmatched", "duplicates")]
    assert len(rows) + len(named) == held
    assert len(rows) + sum(trouble.kind == "unanswered" for trouble in troubles) == len(pope.questions)
    pope.scores(rows)


def lines_of(shared):
    folder = shared / "data" / "pope"
    questions = [json.loads(line) for line in (folder / "llava_pope_test.jsonl").read_text().splitlines()]
    return folder, [
        {
            "question_id": row["question_id"],
            "image": row["image"],
            "prompt": row["text"],
            "category": row["category"],
            "text": "Yes",
        }
        for row in questions
    ]


def read_back(folder, lines, tmp_path):
    file = tmp_path / "answers.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    pope = Pope.read(folder)
    rows, troubles = recorded(pope, file)
    return Counter(row.group for row in rows), Counter((trouble.kind, trouble.group) for trouble in troubles)


def test_ids_of_another_numbering_never_score_another_split(shared, tmp_path):
    folder, lines = lines_of(shared)
    popular = [line for line in lines if line["category"] == "popular"]
    renumbered = [{**line, "question_id": number} for number, line in enumerate(popular, start=1)]
    found, wrong = read_back(folder, renumbered, tmp_path)
    assert (found["popular"], wrong["unmatched", "popular"]) == (3000, 0)
    without = [{key: value for key, value in line.items() if key != "category"} for line in renumbered]
    found, wrong = read_back(folder, without, tmp_path)
    assert found["adversarial"] == 0
    assert found["popular"] + wrong["unmatched", ""] == 3000


def test_pictures_are_joined_however_they_are_spelt_and_losses_counted_by_split(shared, tmp_path):
    folder, lines = lines_of(shared)
    spelt = [{**line, "image": f"val/{int(line['image'][-16:-4])}", "question_id": None} for line in lines]
    kept = [line for number, line in enumerate(spelt) if number % 10]
    gone = Counter(line["category"] for number, line in enumerate(spelt) if not number % 10)
    found, wrong = read_back(folder, kept, tmp_path)
    for split, count in gone.items():
        assert wrong["unanswered", split] == count
        assert found[split] + count == sum(line["category"] == split for line in lines)
