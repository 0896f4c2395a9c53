"""POPE (Li et al. 2023, arXiv 2305.10355): is the object in the picture? Questions, labels, and the official rule."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sg_guardrails.core.media import DEFAULT_LIMITS, MediaLimits
from sg_guardrails.core.types import Prompt
from sg_guardrails.evals.base import Figure, Item, Row, Scores, Trouble, open_picture, plain_id, present, read_lines
from sg_guardrails.evals.files import shown

SPLITS = ("random", "popular", "adversarial")
LABELS_SOURCE = "https://github.com/AoiDragon/POPE/tree/main/output/coco"
QUESTIONS_SOURCE = "https://github.com/haotian-liu/LLaVA/blob/main/docs/Evaluation.md (eval.zip, pope/)"
IMAGES_SOURCE = "http://images.cocodataset.org/zips/val2014.zip"
QUESTIONS = "llava_pope_test.jsonl"

# The data hold "imange", and "a" beside "an": the object alone identifies a question about a picture.
_OBJECT = re.compile(
    r"\bis\s+there\s+(?:(?:an?|the|any)\s+)?(.+?)\s+in\s+(?:the|this)\s+(?:image|imange|picture|photo)\b", re.I
)

Place = tuple[str, str]
"""A picture's file name and the object asked about."""


def asked_object(question: str) -> str | None:
    """The object that a question is about, in lower case with single spaces; None where it is no POPE question."""
    found = _OBJECT.search(question)
    return " ".join(found[1].lower().split()) if found else None


def worded(question: str, suffix: str | None) -> str:
    """The question with `suffix` in the place of whatever follows its question mark; as it is where that is None."""
    if suffix is None:
        return question
    return f"{question.split('?', maxsplit=1)[0]}?\n{suffix}".rstrip()


def says_yes(answer: str) -> bool:
    """The official reading of an answer: no if its first sentence has the word No, no or not; else yes.

    Source: https://github.com/AoiDragon/POPE/blob/main/evaluate.py
    """
    words = answer.split(".", maxsplit=1)[0].replace(",", "").split(" ")
    return not {"No", "not", "no"} & set(words)


@dataclass(frozen=True, slots=True)
class Question:
    """One question of one split."""

    key: str
    """``<split>:<question_id>``: ids repeat between the splits' own files."""
    id: str
    split: str
    image: str
    text: str
    object: str
    yes: bool
    """Its label; says nothing in a split whose labels were not read."""


@dataclass(frozen=True)
class Pope:
    """The questions asked, each with its label.

    Rows of the question file that match no label, and lines that cannot be read, are troubles.
    """

    questions: tuple[Question, ...]
    troubles: tuple[Trouble, ...]
    images: Path | None = None
    """The folder of COCO val2014's pictures; None where answers are recorded."""
    elsewhere: tuple[Question, ...] = ()
    """The questions of splits that were not chosen: answers to them are no loss."""
    suffix: str | None = None
    """What is asked of the answer's form, in the place of the file's own words; None leaves those."""
    limits: MediaLimits = DEFAULT_LIMITS
    name: str = "pope"
    headline: str = "accuracy"
    outcome: str = "right"

    @classmethod
    def read(
        cls,
        data: Path,
        *,
        images: Path | None = None,
        splits: Sequence[str] = SPLITS,
        suffix: str | None = None,
        limits: MediaLimits = DEFAULT_LIMITS,
    ) -> Pope:
        """Read `data`: ``coco_pope_<split>.json`` and ``llava_pope_test.jsonl``, both JSON lines, as published.

        Args:
            data: The folder of the questions and labels.
            images: The folder of the pictures, where a model is asked.
            splits: Which of the three.
            suffix: Asked after the question in the place of the file's "Answer the question using a single word or
                phrase."; "" asks the question alone, None leaves the official words.
            limits: Bounds on pictures.

        Raises:
            GuardError: If a file is missing, or the folder of pictures holds none that is asked about; names where
                its owners publish it.
        """
        if images is not None:
            present(images, source=IMAGES_SOURCE)
        troubles: list[Trouble] = []
        labels: dict[str, dict[Place, bool]] = {}
        for split in splits:
            labels[split], wrong = _labels(data / f"coco_pope_{split}.json")
            troubles += wrong
        asked, wrong = read_lines(data / QUESTIONS, source=QUESTIONS_SOURCE)
        troubles += wrong
        questions: dict[str, Question] = {}
        elsewhere: list[Question] = []
        for number, row in asked:
            where = f"{QUESTIONS}:{number}"
            made = _question(row, where, labels)
            if isinstance(made, Question) and made.split not in splits:
                elsewhere.append(made)
                continue
            if isinstance(made, Question) and made.key in questions:
                made = Trouble(where, f"question {made.id} stands twice, the first counts", "duplicate questions")
            if isinstance(made, Trouble):
                troubles.append(made)
            else:
                questions[made.key] = made
        if images is not None:
            shown(images, (images / question.image for question in questions.values()), source=IMAGES_SOURCE)
        return cls(tuple(questions.values()), tuple(troubles), images, tuple(elsewhere), suffix, limits)

    @cached_property
    def items(self) -> list[Item]:
        """Every question as an item; its picture is opened when it is asked."""
        return [self._item(asked) for asked in self.questions]

    def _item(self, asked: Question) -> Item:
        text, limits = worded(asked.text, self.suffix), self.limits
        path = (self.images or Path()) / asked.image
        right = "yes" if asked.yes else "no"
        return Item(
            asked.key,
            asked.split,
            lambda: Prompt.ask(text, open_picture(path, limits)),
            right,
            text,
            None if self.images is None else path,
        )

    @cached_property
    def _labels(self) -> dict[str, bool]:
        return {asked.key: asked.yes for asked in self.questions}

    def hit(self, row: Row) -> bool | None:
        """Whether the answer is right. A stopped answer says neither yes nor no, so it is not."""
        return _right(row, self._labels) if row.counts and row.key in self._labels else None

    def scores(self, rows: Sequence[Row]) -> Scores:
        """The five figures by split, over the rows that were answered or stopped.

        A stopped answer is not right and claims nothing: it lowers accuracy, recall and yes ratio, not precision.
        """
        splits = [split for split in SPLITS if any(asked.split == split for asked in self.questions)]
        counted = [row for row in rows if row.counts and row.key in self._labels]
        return {split: _five([row for row in counted if row.group == split], self._labels) for split in splits}


def _labels(path: Path) -> tuple[dict[Place, bool], list[Trouble]]:
    lines, troubles = read_lines(path, source=LABELS_SOURCE)
    labels: dict[Place, bool] = {}
    for number, row in lines:
        where, place, label = f"{path.name}:{number}", _place(row), row.get("label")
        if place is None or label not in ("yes", "no"):
            troubles.append(Trouble(where, "has no picture, POPE question or yes/no label", "broken lines"))
        elif labels.setdefault(place, label == "yes") != (label == "yes"):
            troubles.append(
                Trouble(where, f"{place[0]}, {place[1]!r} is labelled both ways, the first counts", "labels")
            )
    return labels, troubles


def _place(row: Mapping[str, Any]) -> Place | None:
    image, text = row.get("image"), row.get("text")
    thing = asked_object(text) if isinstance(text, str) else None
    return (Path(image).name, thing) if isinstance(image, str) and thing else None


def _question(row: Mapping[str, Any], where: str, labels: Mapping[str, Mapping[Place, bool]]) -> Question | Trouble:
    number, split, place = plain_id(row.get("question_id")), row.get("category"), _place(row)
    if number is None or place is None or split not in SPLITS:
        return Trouble(where, "has no question_id, picture, POPE question or known category", "broken lines")
    if split in labels and place not in labels[split]:
        return Trouble(where, f"{split}: {place[0]}, {place[1]!r} has no label", "unmatched", split)
    label = split in labels and labels[split][place]
    return Question(f"{split}:{number}", number, split, place[0], row["text"], place[1], label)


def _right(row: Row, labels: Mapping[str, bool]) -> bool:
    return row.status == "answered" and says_yes(row.text) == labels[row.key]


def _five(rows: Sequence[Row], labels: Mapping[str, bool]) -> dict[str, Figure]:
    yes = [row.status == "answered" and says_yes(row.text) for row in rows]
    true = [labels[row.key] for row in rows]
    hits, said, there = sum(a and b for a, b in zip(yes, true, strict=True)), sum(yes), sum(true)
    # F1 = 2 TP / (said yes + is yes)
    table = [(float(a and b), float(a) + float(b)) for a, b in zip(yes, true, strict=True)]
    return {
        "accuracy": Figure.rate(sum(_right(row, labels) for row in rows), len(rows)),
        "precision": _or_zero(Figure.rate(hits, said), rows),
        "recall": _or_zero(Figure.rate(hits, there), rows),
        "f1": _or_zero(Figure.resampled(table, lambda means: 2 * means[..., 0] / means[..., 1]), rows),
        "yes_ratio": Figure.rate(said, len(rows)),
    }


def _or_zero(figure: Figure, rows: Sequence[Row]) -> Figure:
    """0 where a model never says yes (0 / 0), as scikit-learn has it; undefined only without any row."""
    return Figure(0.0, figure.n) if figure.value is None and rows else figure
