"""Recorded answers to POPE: the join, and that every line is scored or named."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sg_guardrails.evals.pope import Pope
from sg_guardrails.evals.pope_answers import recorded


def test_order_extra_fields_ids_as_text_and_blank_lines_change_nothing(answers):
    pope, plain, _ = answers()

    def shuffle(rows):
        return ["\n", *({**row, "question_id": str(row["question_id"]), "extra": [1]} for row in rows[::-1]), "  \n"]

    _, rows, troubles = answers(shuffle)
    assert pope.scores(rows) == pope.scores(plain)
    assert troubles == []


def test_missing_rows_are_named_and_the_rest_is_scored(answers):
    pope, rows, troubles = answers(lambda rows: rows[3:])
    assert [trouble.kind for trouble in troubles] == ["unanswered"] * 3
    assert "COCO_val2014_1.jpg" in str(troubles[0])
    assert "'dog'" in str(troubles[0])
    assert pope.scores(rows)["random"]["accuracy"].n == 5


def test_broken_lines_and_duplicates_are_named_and_the_first_answer_counts(answers):
    def spoil(rows):
        again = {**rows[0], "text": "No"}
        return [
            *rows,
            again,
            '{"question_id": 2, "tex\n',
            "[1, 2]\n",
            json.dumps({"question_id": 3, "text": None}) + "\n",
        ]

    pope, rows, troubles = answers(spoil)
    assert sorted(trouble.kind for trouble in troubles) == ["broken lines"] * 3 + ["duplicates"]
    assert "another answer" in next(str(trouble) for trouble in troubles if trouble.kind == "duplicates")
    assert pope.scores(rows)["random"]["accuracy"].value == 1.0


def test_answers_to_other_questions_are_unmatched_not_scored(answers):
    def foreign(rows):
        rows[0] |= {"prompt": "Is there a zebra in the image?"}
        rows[1] |= {"image": "COCO_val2014_9.jpg"}
        rows[2] |= {"question_id": 999}
        rows[3].pop("question_id")
        return rows

    pope, rows, troubles = answers(foreign)
    unmatched = [str(trouble) for trouble in troubles if trouble.kind == "unmatched"]
    assert len(unmatched) == 4
    assert "'zebra'" in unmatched[0]
    assert "COCO_val2014_9.jpg" in unmatched[1]
    assert "999" in unmatched[2]
    assert sum(trouble.kind == "unanswered" for trouble in troubles) == 4
    assert pope.scores(rows)["random"]["accuracy"].n == 4


def test_ids_that_repeat_between_splits_are_told_apart(pope_data, answers):
    lines = [json.loads(line) for line in (pope_data / "llava_pope_test.jsonl").read_text().splitlines()]
    renumbered = [{**line, "question_id": index % 8 + 1} for index, line in enumerate(lines)]
    (pope_data / "llava_pope_test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in renumbered))
    _, rows, troubles = answers()
    assert ({row.group for row in rows}, len(rows), troubles) == ({"random", "popular", "adversarial"}, 24, [])
    named = [{"question_id": 1, "text": "No", "category": "popular"}, {"question_id": 1, "text": "Yes"}]
    _, rows, _ = answers(lambda _: named)
    assert [(row.group, row.text) for row in rows] == [("popular", "No"), ("random", "Yes")]


def test_an_empty_answer_is_read_as_the_rule_says_and_reported(answers):
    _, rows, troubles = answers(lambda rows: [{**rows[0], "text": " "}, *rows[1:]])
    assert [trouble.kind for trouble in troubles] == ["empty answers"]
    assert len(rows) == 24


@pytest.mark.parametrize("said", ["NO", "No!", "no\nThere is none.", "**No**", "No;none"])
def test_a_no_that_the_official_rule_reads_as_yes_is_scored_so_and_named(answers, said):
    pope, rows, troubles = answers(lambda rows: [{**row, "text": said} for row in rows])
    assert pope.scores(rows)["popular"]["yes_ratio"].value == 1.0
    assert Counter((trouble.kind, trouble.group) for trouble in troubles)["no read as yes", "popular"] == 8


@pytest.mark.parametrize("said", ["No", "no, none", "Nothing", "Yes", "There is no dog!"])
def test_other_answers_are_not(answers, said):
    assert answers(lambda rows: [{**row, "text": said} for row in rows])[2] == []


@pytest.mark.parametrize(
    "layout",
    [
        lambda row: {"question_id": row["question_id"], "question": row["prompt"], "answer": row["text"]},
        lambda row: {"question_id": row["question_id"], "text": row["prompt"], "answer": row["text"]},
        lambda row: {"question_id": row["question_id"], "text": None, "answer": row["text"]},
        lambda row: {**row, "answer": "Never mind"},
    ],
)
def test_answers_under_other_names_are_read_and_questions_are_not_taken_for_them(answers, layout):
    pope, rows, troubles = answers(lambda rows: [layout(row) for row in rows])
    assert (len(rows), troubles) == (24, [])
    assert {split: five["accuracy"].value for split, five in pope.scores(rows).items()} == {
        "random": 1.0, "popular": 1.0, "adversarial": 1.0,
    }  # fmt: skip


def test_answers_of_splits_that_were_not_chosen_are_no_loss(answers):
    def with_pictures(rows):
        return [{**row, "image": f"COCO_val2014_{1 + i // 4 % 2}.jpg"} for i, row in enumerate(rows)]

    for change in (lambda rows: rows, with_pictures):
        _, rows, troubles = answers(change, splits=["popular"])
        assert ({row.group for row in rows}, len(rows), troubles) == ({"popular"}, 8, [])


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
def test_whatever_stands_in_a_file_every_line_is_scored_or_named(pope_data, lines):
    raw = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    raw = [line.replace(b"\n", b" ") for line in raw]
    (pope_data / "any.jsonl").write_bytes(b"\n".join(raw))
    pope = Pope.read(pope_data)
    rows, troubles = recorded(pope, pope_data / "any.jsonl")
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


def read_back(folder, lines, tmp_path, **options):
    file = tmp_path / "answers.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    pope = Pope.read(folder, **options)
    rows, troubles = recorded(pope, file)
    return Counter(row.group for row in rows), Counter((trouble.kind, trouble.group) for trouble in troubles)


def test_ids_of_another_numbering_never_score_another_split(shared, tmp_path):
    folder, lines = lines_of(shared)
    popular = [line for line in lines if line["category"] == "popular"]
    renumbered = [{**line, "question_id": number} for number, line in enumerate(popular, start=1)]
    found, wrong = read_back(folder, renumbered, tmp_path)
    assert (found["popular"], wrong["unmatched", "popular"]) == (3000, 0)
    without = [{key: value for key, value in line.items() if key != "category"} for line in renumbered]
    # All of it is asked in one split alone.
    found, wrong = read_back(folder, without, tmp_path)
    assert (found, wrong["unmatched", ""]) == ({"popular": 3000}, 0)
    labels = [json.loads(line) for line in (folder / "coco_pope_random.json").read_text().splitlines()]
    # What is there is asked in all three.
    there = [{**row, "answer": "yes", "question_id": None} for row in labels if row["label"] == "yes"]
    found, wrong = read_back(folder, there, tmp_path)
    assert (found, wrong["unmatched", ""]) == ({}, len(there))
    # Where the split was chosen, a question that stands in several is that split's.
    found, wrong = read_back(folder, without, tmp_path, splits=["popular"])
    assert (found, wrong) == ({"popular": 3000}, {})


def test_pictures_are_joined_however_they_are_spelt_and_losses_counted_by_split(shared, tmp_path):
    folder, lines = lines_of(shared)
    spelt = [{**line, "image": f"val/{int(line['image'][-16:-4])}", "question_id": None} for line in lines]
    kept = [line for number, line in enumerate(spelt) if number % 10]
    gone = Counter(line["category"] for number, line in enumerate(spelt) if not number % 10)
    found, wrong = read_back(folder, kept, tmp_path)
    for split, count in gone.items():
        assert wrong["unanswered", split] == count
        assert found[split] + count == sum(line["category"] == split for line in lines)
