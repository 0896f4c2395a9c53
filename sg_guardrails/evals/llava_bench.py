"""LLaVA-Bench in the wild (Liu et al. 2023, arXiv 2304.08485): open questions that a judge scores against GPT-4's."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from sg_guardrails.core.errors import GuardError
from sg_guardrails.core.media import DEFAULT_LIMITS, MediaLimits
from sg_guardrails.core.types import Prompt
from sg_guardrails.evals.base import Item, Row, Scores, Trouble, open_picture, plain_id, present, read_lines
from sg_guardrails.evals.files import shown
from sg_guardrails.evals.llava_reviews import CATEGORIES, SWAPPED, Reviews, failed, review_text, scores_of

SOURCE = "https://huggingface.co/datasets/liuhaotian/llava-bench-in-the-wild"
RULE_SOURCE = "https://github.com/haotian-liu/LLaVA/blob/main/llava/eval/table/rule.json"
JUDGE = "You are a helpful and precise assistant for checking the quality of the answer."
"""The official judge's system message."""


@dataclass(frozen=True, slots=True)
class Question:
    """One of the 60 questions."""

    id: str
    image: str
    text: str
    category: str
    caption: str = ""
    """What the judge is told of the picture."""
    reference: str = ""
    """GPT-4's answer from the caption alone."""


@dataclass(frozen=True)
class LlavaBench:
    """The questions; `reviews` makes the judge's questions out of the answers."""

    questions: tuple[Question, ...]
    troubles: tuple[Trouble, ...]
    images: Path
    rules: Mapping[str, tuple[str, str]]
    """By category: the assistants' role name and the judge's instruction, from the official rule file."""
    limits: MediaLimits = DEFAULT_LIMITS
    name: str = "llava-bench"
    headline: str = "relative"
    outcome: str = "judged as good as the reference"

    @classmethod
    def read(cls, data: Path, *, images: Path | None = None, limits: MediaLimits = DEFAULT_LIMITS) -> LlavaBench:
        """Read ``questions.jsonl``, ``context.jsonl``, ``rule.json`` and ``answers_gpt4.jsonl`` of `data`.

        Raises:
            GuardError: If one of them is missing, or the folder of pictures holds none of theirs; names where its
                owners publish it.
        """
        folder = present(images or data / "images", source=SOURCE)
        rules = _rules(present(data / "rule.json", source=RULE_SOURCE))
        contexts, wrong = read_lines(data / "context.jsonl", source=SOURCE)
        answers, worse = read_lines(data / "answers_gpt4.jsonl", source=SOURCE)
        captions = {Path(str(row.get("image"))).name: _joined(row.get("caption")) for _, row in contexts}
        references = {plain_id(row.get("question_id")): row.get("text") for _, row in answers}
        asked, troubles = _questions(data / "questions.jsonl")
        troubles += [*wrong, *worse]
        questions = []
        for where, question in asked:
            caption, reference = captions.get(question.image), references.get(question.id)
            if f"llava_bench_{question.category}" not in rules or not caption or not isinstance(reference, str):
                what = f"question {question.id} lacks its caption, GPT-4's answer or its category's rule"
                troubles.append(Trouble(where, what, "unmatched"))
                continue
            questions.append(
                Question(question.id, question.image, question.text, question.category, caption, reference)
            )
        shown(folder, (folder / question.image for question in questions), source=SOURCE)
        return cls(tuple(questions), tuple(troubles), folder, rules, limits)

    @cached_property
    def items(self) -> list[Item]:
        """Every question as an item; its picture is opened when it is asked."""
        return [self._item(asked) for asked in self.questions]

    def _item(self, asked: Question) -> Item:
        path, limits = self.images / asked.image, self.limits
        return Item(
            asked.id,
            asked.category,
            lambda: Prompt.ask(asked.text, open_picture(path, limits)),
            text=asked.text,
            media=path,
        )

    def scores(self, rows: Sequence[Row]) -> Scores:  # noqa: ARG002 - the protocol's shape
        """None: only a judge can score these answers."""
        return {}

    def hit(self, row: Row) -> bool | None:  # noqa: ARG002 - the protocol's shape
        """None: only a judge can tell."""
        return None

    def reviews(self, rows: Sequence[Row], *, swapped: bool = False) -> Reviews:
        """The judge's questions about the answers of one arm.

        Args:
            rows: What the arm answered; rows without an answer are not judged.
            swapped: Also ask with the candidate in the first place: judges favour a place, the mean over both does not.
        """
        asked = {question.id: question for question in self.questions}
        items = []
        for row in rows:
            if not row.counts:
                continue
            question = asked[row.key]
            items.append(self._review(row.key, question, question.reference, row.text))
            if swapped:
                items.append(self._review(row.key + SWAPPED, question, row.text, question.reference))
        return Reviews(tuple(items))

    def _review(self, key: str, asked: Question, first: str, second: str) -> Item:
        role, rule = self.rules[f"llava_bench_{asked.category}"]
        # The layout of llava/eval/eval_gpt_review_bench.py, character by character: scores depend on it.
        text = (
            f"[Context]\n{asked.caption}\n\n[Question]\n{asked.text}\n\n"
            f"[{role} 1]\n{first}\n\n[End of {role} 1]\n\n[{role} 2]\n{second}\n\n[End of {role} 2]\n\n"
            f"[System]\n{rule}\n\n"
        )
        return Item(key, asked.category, lambda: Prompt.ask(text, system=JUDGE), text=text)


def recorded_reviews(file: Path, *, data: Path | None = None) -> tuple[list[Row], list[Trouble]]:
    """The rows of a file of reviews in the official layout (``question_id``, ``category``, ``content``, ``tuple``).

    Reviews are counted as the official summary counts them: one without a category, or with none that is known, under
    ``all`` alone, one without a question_id by its scores, one in which its parser found no scores as the -1 -1 that
    it wrote (`Reviews.official`); all are named. Other reviews without two scores are left out.

    Args:
        file: JSON lines.
        data: The benchmark's folder: where it has ``questions.jsonl``, questions without a review are named.

    Raises:
        GuardError: If the file or the folder is missing.
    """
    lines, troubles = read_lines(file)
    known, wrong = ({}, []) if data is None else _known(present(data, source=SOURCE))
    troubles += wrong
    rows: dict[str, Row] = {}
    for number, line in lines:
        where, named = f"{file.name}:{number}", plain_id(line.get("question_id"))
        key = named or where
        row = Row(key, _category(line) or known.get(key, ""), "answered", review_text(line))
        if named and known and named not in known:
            troubles.append(Trouble(where, f"no question {named!r}", "unmatched"))
        elif key in rows:
            troubles.append(Trouble(where, f"question {key} is reviewed twice, the first counts", "duplicates"))
        elif scores_of(row) is None and not failed(row):
            troubles.append(Trouble(where, f"question {named}: the review holds no two scores", "undecided"))
        else:
            rows[key] = row if row.group in CATEGORIES else replace(row, group="")
            troubles += _counted_all_the_same(where, line, named, rows[key])
    for key in (key for key in known if key not in rows):
        troubles.append(Trouble(f"question {key}", f"{known[key]}: has no scored review", "unanswered"))
    return list(rows.values()), troubles


def _known(data: Path) -> tuple[dict[str, str], list[Trouble]]:
    """The categories of the questions by id."""
    path = data / "questions.jsonl"
    if not path.exists():
        what = f"is not in {data}: whether every question has its review is not known; it is published at {SOURCE}"
        return {}, [Trouble(path.name, what, "unchecked")]
    asked, troubles = _questions(path)
    return {question.id: question.category for _, question in asked}, troubles


def _category(line: Mapping[str, Any]) -> str:
    category = line.get("category")
    return category.removeprefix("llava_bench_") if isinstance(category, str) else ""


def _counted_all_the_same(where: str, line: Mapping[str, Any], named: str | None, row: Row) -> list[Trouble]:
    found = []
    if failed(row):
        found.append(Trouble(where, f"question {named}: no two scores were found; -1 -1 counts", "undecided"))
    if not named:
        found.append(Trouble(where, "has no question_id; its scores count", "without id"))
    if not row.group:
        what = f"category {str(line.get('category'))[:40]!r} is none of {', '.join(CATEGORIES)}; it counts under all"
        found.append(Trouble(where, what, "without category"))
    return found


def _rules(path: Path) -> dict[str, tuple[str, str]]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return {name: (rule["role"], rule["prompt"]) for name, rule in data.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise GuardError(f"{path} is not LLaVA's rule file; its owners publish it at {RULE_SOURCE}") from error


def _questions(path: Path) -> tuple[list[tuple[str, Question]], list[Trouble]]:
    lines, troubles = read_lines(path, source=SOURCE)
    questions: list[tuple[str, Question]] = []
    for number, row in lines:
        where = f"{path.name}:{number}"
        image, text, category = row.get("image"), row.get("text"), row.get("category")
        key = plain_id(row.get("question_id"))
        if not (key and isinstance(image, str) and isinstance(text, str) and isinstance(category, str)):
            troubles.append(Trouble(where, "has no question_id, image, text or category", "broken lines"))
            continue
        questions.append((where, Question(key, Path(image).name, text, category)))
    return questions, troubles


def _joined(caption: object) -> str:
    return "\n".join(map(str, caption)) if isinstance(caption, list) else str(caption or "")
