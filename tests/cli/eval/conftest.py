"""The command line of the evaluations, called in this process, and POPE about drawn pictures."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from PIL import Image as pillow
from PIL import ImageDraw

from sg_guardrails.cli import main

SHAPES, COLOURS = ("circle", "rectangle", "triangle"), {"red": (220, 30, 30), "blue": (40, 40, 220), "black": (9, 9, 9)}
SPLITS = ("random", "popular", "adversarial")


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command line: (exit code, stdout, stderr)."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sg-guardrails", "eval", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        captured = capsys.readouterr()
        return int(stopped.value.code or 0), captured.out, captured.err

    return call


def draw(path: Path, shape: str, colour: tuple[int, int, int]) -> None:
    picture = pillow.new("RGB", (64, 64), (245, 240, 240))
    pen = ImageDraw.Draw(picture)
    if shape == "circle":
        pen.ellipse((18, 20, 42, 44), fill=colour)
    elif shape == "rectangle":
        pen.rectangle((16, 22, 46, 40), fill=colour)
    else:
        pen.polygon([(18, 44), (44, 44), (31, 18)], fill=colour)
    picture.save(path)


@pytest.fixture
def drawn(tmp_path):
    """POPE's files about drawn pictures: in each split two of each shape, asked about it and about another."""
    folder, asked = tmp_path / "pope", []
    (folder / "images").mkdir(parents=True)
    for split in SPLITS:
        labels = []
        for index in range(6):
            shape, colour = SHAPES[index % 3], list(COLOURS.values())[index // 2]
            name = f"COCO_val2014_{split}_{index}.png"
            draw(folder / "images" / name, shape, colour)
            for thing in (shape, SHAPES[(index + 1) % 3]):
                text = f"Is there a {thing} in the image?"
                label = "yes" if thing == shape else "no"
                labels.append({"question_id": len(labels) + 1, "image": name, "text": text, "label": label})
                asked.append({"question_id": len(asked) + 1, "image": name, "text": text, "category": split})
        (folder / f"coco_pope_{split}.json").write_text("".join(json.dumps(row) + "\n" for row in labels))
    (folder / "llava_pope_test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    return folder


@pytest.fixture
def bench(drawn, tmp_path):
    """LLaVA-Bench's files with one question about a drawn picture."""
    folder, picture = tmp_path / "bench", "COCO_val2014_random_0.png"
    (folder / "images").mkdir(parents=True)
    (folder / "images" / picture).write_bytes((drawn / "images" / picture).read_bytes())
    files = {
        "questions.jsonl": {"question_id": 0, "image": picture, "text": "What shape is it?", "category": "conv"},
        "context.jsonl": {"image": picture, "caption": "A red circle."},
        "answers_gpt4.jsonl": {"question_id": 0, "text": "A circle."},
        "rule.json": {"llava_bench_conv": {"role": "Assistant", "prompt": "Rate them."}},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content) + "\n")
    return folder
