"""POPE's files in small, and recorded answers to them."""

from __future__ import annotations

import json

import pytest

from sg_guardrails.evals.pope import Pope
from sg_guardrails.evals.pope_answers import recorded

OBJECTS = ("dog", "dining table", "orange", "tv")


@pytest.fixture
def pope_data(tmp_path):
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


@pytest.fixture
def answers(pope_data):
    """Score a file of right answers, changed: the questions, the rows, the troubles."""

    def scored(change=lambda rows: rows, **options):
        pope = Pope.read(pope_data, **options)
        rows = [
            {"question_id": int(q.id), "prompt": q.text, "text": "Yes" if q.yes else "No", "metadata": {"x": 1}}
            for q in Pope.read(pope_data).questions
        ]
        file = pope_data / "answers.jsonl"
        file.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in change(rows)))
        return pope, *recorded(pope, file)

    return scored
