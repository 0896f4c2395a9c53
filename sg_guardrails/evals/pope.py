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
from sg_guardrails.evals.base import Figure, Item, Row, Scores, Trouble, open_picture, present, read_lines

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


@dataclass(frozen=True)
class Pope:
    """The questions asked, each with its label.

    Rows of the question file that match no label, and lines that cannot be read, are troubles.
    """

    questions: tuple[Question, ...]
    troubles: tuple[Trouble, ...]
    images: Path | None = None
    """The folder of COCO val2014's pictures; None where answers are recorded."""
    elsewhere: frozenset[str] = frozenset()
    """Ids of the questions of splits that were not chosen: answers to them are no loss."""
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
        limits: MediaLimits = DEFAULT_LIMITS,
    ) -> Pope:
        """Read `data`: ``coco_pope_<split>.json`` and ``llava_pope_test.jsonl``, both JSON lines, as published.

        Raises:
            GuardError: If a file or the folder of pictures is missing; names where its owners publish it.
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
        elsewhere: set[str] = set()
        for number, row in asked:
            where = f"{QUESTIONS}:{number}"
            if row.get("category") in SPLITS and row["category"] not in splits:
                elsewhere.add(_id(row.get("question_id")) or "")
                continue
            made = _question(row, where, labels)
            if isinstance(made, Question) and made.key in questions:
                made = Trouble(where, f"question {made.id} stands twice, the first counts", "duplicate questions")
            if isinstance(made, Trouble):
                troubles.append(made)
            else:
                questions[made.key] = made
        mine = {question.id for question in questions.values()}
        return cls(tuple(questions.values()), tuple(troubles), images, frozenset(elsewhere - mine), limits)

    @cached_property
    def items(self) -> list[Item]:
        """Every question as an item; its picture is opened when it is asked."""
        return [
            Item(asked.key, asked.split, self._prompt(asked), "yes" if asked.yes else "no") for asked in self.questions
        ]

    def _prompt(self, asked: Question) -> Any:
        folder, limits = self.images or Path(), self.limits
        return lambda: Prompt.ask(asked.text, open_picture(folder / Path(asked.image).name, limits))

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


def recorded(pope: Pope, file: Path) -> tuple[list[Row], list[Trouble]]:
    """The answers of a file in LLaVA's layout (``question_id``, ``prompt``, ``text``) as rows of a run.

    An answer that carries picture and question is joined by picture and object, any other by its id; what it carries
    beside must agree, else it is unmatched. Questions without an answer are troubles too.

    Raises:
        GuardError: If the file is missing.
    """
    lines, troubles = read_lines(file, source="whoever ran the model (LLaVA's model_vqa_loader writes this layout)")
    index = _Index.of(pope.questions, [line for _, line in lines])
    rows: dict[str, Row] = {}
    for number, line in lines:
        where = f"{file.name}:{number}"
        text = line.get("text", line.get("answer"))
        if _id(line.get("question_id")) in pope.elsewhere:
            continue
        if not isinstance(text, str):
            troubles.append(Trouble(where, "has no answer text", "broken lines"))
            continue
        matching = _belongs(line, index, rows)
        if isinstance(matching, str):
            troubles.append(Trouble(where, matching, "unmatched", index.split_of(line)))
            continue
        if not text.strip():
            troubles.append(Trouble(where, "is empty; the official rule reads it as yes", "empty answers"))
        if matching.key in rows:
            same = "the same answer" if rows[matching.key].text == text else "another answer"
            what = f"question {matching.id} is answered twice ({same}), the first counts"
            troubles.append(Trouble(where, what, "duplicates"))
            continue
        rows[matching.key] = Row(matching.key, matching.split, "answered", text)
    for asked in pope.questions:
        if asked.key not in rows:
            what = f"{asked.image}, {asked.object!r} has no answer"
            troubles.append(Trouble(f"{asked.split} question {asked.id}", what, "unanswered", asked.split))
    return list(rows.values()), troubles


@dataclass(frozen=True, slots=True)
class _Index:
    """The questions by what an answer may say of its own."""

    by_id: Mapping[str, list[Question]]
    by_place: Mapping[tuple[str, str], list[Question]]
    ids_count: bool
    """Whether the file's ids are those of the questions; other numberings would name questions of other splits."""

    @classmethod
    def of(cls, questions: Sequence[Question], lines: Sequence[Mapping[str, Any]]) -> _Index:
        """Index `questions`, and find out whether the ids of `lines` agree with the pictures that they name."""
        by_id: dict[str, list[Question]] = {}
        by_place: dict[tuple[str, str], list[Question]] = {}
        for asked in questions:
            by_id.setdefault(asked.id, []).append(asked)
            by_place.setdefault((_picture(asked.image), asked.object), []).append(asked)
        placed = [(number, place) for line in lines for number, place, _ in (_says(line),) if place in by_place]
        agree = sum(
            any((_picture(q.image), q.object) == place for q in by_id.get(number or "", [])) for number, place in placed
        )
        return cls(by_id, by_place, agree >= TRUSTED * len(placed))

    def split_of(self, line: Mapping[str, Any]) -> str:
        """The split that an answer without a question speaks of, or "" where it does not tell."""
        named = self.by_id.get(_id(line.get("question_id")) or "", []) if self.ids_count else []
        split = line.get("category")
        return str(split) if split in SPLITS else named[0].split if named else ""


TRUSTED = 0.95
"""Share of the lines with picture and question whose ids must agree with them, for ids to decide."""


def _says(line: Mapping[str, Any]) -> tuple[str | None, tuple[str, str] | None, str | None]:
    """An answer's id, its picture and object where it gives both, and its object."""
    said = next((line[name] for name in ("prompt", "question") if isinstance(line.get(name), str)), "")
    about, image = asked_object(said), line.get("image")
    place = (_picture(image), about) if isinstance(image, str) and about is not None else None
    return _id(line.get("question_id")), place, about


def _picture(name: str) -> str:
    """A picture's number: files spell one picture with and without folder, prefix and extension."""
    number = re.search(r"(\d+)(?:\.\w+)?$", name)
    return number[1].lstrip("0") if number else Path(name).name


def _belongs(line: Mapping[str, Any], index: _Index, answered: Mapping[str, Row]) -> Question | str:
    """The question that an answer was given to, or why there is none.

    Picture and object decide where the answer carries both, its split where it carries it; the id decides among what
    is left, and alone where there is no picture.
    """
    number, place, about = _says(line)
    named = index.by_id.get(number or "", [])
    image, split = line.get("image"), line.get("category")
    if place is None and not named:
        return f"no question {number!r}" if number is not None else "has no question_id"
    candidates = index.by_place.get(place, []) if place is not None else named
    fitting = [
        question
        for question in candidates
        if about in (None, question.object)
        and (not isinstance(image, str) or _picture(image) == _picture(question.image))
        and (split not in SPLITS or split == question.split)
    ]
    if not fitting:
        other = f"question {number} is about {named[0].image}, {named[0].object!r}; " if named else ""
        return f"{other}the answer is about {image or ''} {about!r}, {split or 'no split named'}: no such question"
    by_number = [question for question in fitting if question.id == number] if index.ids_count else []
    chosen = by_number or fitting
    if not by_number and len({question.split for question in chosen}) > 1:
        return f"{image} with {about!r} is asked in several splits, and neither id nor category says in which"
    return next((question for question in chosen if question.key not in answered), chosen[0])


def _id(value: object) -> str | None:
    """Ids are numbers in some files and strings in others."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


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
    number, split, place = _id(row.get("question_id")), row.get("category"), _place(row)
    if number is None or place is None or not isinstance(split, str) or split not in labels:
        return Trouble(where, "has no question_id, picture, POPE question or known category", "broken lines")
    if place not in labels[split]:
        return Trouble(where, f"{split}: {place[0]}, {place[1]!r} has no label", "unmatched", split)
    return Question(f"{split}:{number}", number, split, place[0], row["text"], place[1], labels[split][place])


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
