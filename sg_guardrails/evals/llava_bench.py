"""LLaVA-Bench in the wild (Liu et al. 2023, arXiv 2304.08485): open questions that a judge scores against GPT-4's."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sg_guardrails.core.errors import GuardError
from sg_guardrails.core.media import DEFAULT_LIMITS, MediaLimits
from sg_guardrails.core.types import Prompt
from sg_guardrails.evals.base import Figure, Item, Row, Scores, Trouble, open_picture, present, read_lines

CATEGORIES = ("conv", "detail", "complex")
SOURCE = "https://huggingface.co/datasets/liuhaotian/llava-bench-in-the-wild"
RULE_SOURCE = "https://github.com/haotian-liu/LLaVA/blob/main/llava/eval/table/rule.json"
JUDGE = "You are a helpful and precise assistant for checking the quality of the answer."
"""The official judge's system message."""
SWAPPED = ":swapped"


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
            GuardError: If one of them or the folder of pictures is missing; names where its owners publish it.
        """
        folder = present(images or data / "images", source=SOURCE)
        rules = _rules(present(data / "rule.json", source=RULE_SOURCE))
        contexts, wrong = read_lines(data / "context.jsonl", source=SOURCE)
        answers, worse = read_lines(data / "answers_gpt4.jsonl", source=SOURCE)
        captions = {str(row.get("image")): _joined(row.get("caption")) for _, row in contexts}
        references = {str(row.get("question_id")): row.get("text") for _, row in answers}
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
        return cls(tuple(questions), tuple(troubles), folder, rules, limits)

    @cached_property
    def items(self) -> list[Item]:
        """Every question as an item; its picture is opened when it is asked."""
        return [Item(asked.id, asked.category, self._prompt(asked)) for asked in self.questions]

    def _prompt(self, asked: Question) -> Callable[[], Prompt]:
        path, limits = self.images / Path(asked.image).name, self.limits
        return lambda: Prompt.ask(asked.text, open_picture(path, limits))

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
            items.append(Item(row.key, row.group, self._review(question, question.reference, row.text)))
            if swapped:
                turned = self._review(question, row.text, question.reference)
                items.append(Item(row.key + SWAPPED, row.group, turned))
        return Reviews(tuple(items))

    def _review(self, asked: Question, first: str, second: str) -> Callable[[], Prompt]:
        role, rule = self.rules[f"llava_bench_{asked.category}"]
        # The layout of llava/eval/eval_gpt_review_bench.py, character by character: scores depend on it.
        text = (
            f"[Context]\n{asked.caption}\n\n[Question]\n{asked.text}\n\n"
            f"[{role} 1]\n{first}\n\n[End of {role} 1]\n\n[{role} 2]\n{second}\n\n[End of {role} 2]\n\n"
            f"[System]\n{rule}\n\n"
        )
        return lambda: Prompt.ask(text, system=JUDGE)


@dataclass(frozen=True)
class Reviews:
    """A judge's reviews: each begins with a line of two scores, the reference's and the candidate's."""

    items: tuple[Item, ...] = ()
    troubles: tuple[Trouble, ...] = ()
    name: str = "llava-bench"
    headline: str = "relative"
    outcome: str = "judged as good as the reference"

    def hit(self, row: Row) -> bool | None:
        """Whether the candidate's score is at least the reference's; None where the review holds no scores."""
        pair = _pair(row)
        return None if pair is None else pair[1] >= pair[0]

    def scores(self, rows: Sequence[Row]) -> Scores:
        """100 x mean candidate / mean reference, overall and per category, over the reviews that hold scores.

        Where a question was judged in both orders, its scores are the means of both.
        """
        pairs: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for row in rows:
            pair = _pair(row)
            if pair is not None:
                pairs.setdefault((row.group, row.key.removesuffix(SWAPPED)), []).append(pair)
        means = [
            (group, (sum(one for one, _ in found) / len(found), sum(two for _, two in found) / len(found)))
            for (group, _), found in pairs.items()
        ]
        groups = [name for name in CATEGORIES if any(group == name for group, _ in means)]
        scores = {"all": _relative([pair for _, pair in means])}
        return scores | {name: _relative([pair for group, pair in means if group == name]) for name in groups}


def recorded_reviews(file: Path, *, data: Path | None = None) -> tuple[list[Row], list[Trouble]]:
    """The rows of a file of reviews in the official layout (``question_id``, ``category``, ``content``, ``tuple``).

    Args:
        file: JSON lines.
        data: The benchmark's folder: where it has ``questions.jsonl``, questions without a review are named.

    Raises:
        GuardError: If the file is missing.
    """
    lines, troubles = read_lines(file, source="whoever judged (LLaVA's eval_gpt_review_bench.py writes this layout)")
    known: dict[str, str] = {}
    if data is not None and (data / "questions.jsonl").exists():
        asked, wrong = _questions(data / "questions.jsonl")
        known = {question.id: question.category for _, question in asked}
        troubles += wrong
    rows: dict[str, Row] = {}
    for number, line in lines:
        where, key = f"{file.name}:{number}", str(line.get("question_id", "")).strip()
        category = str(line.get("category") or known.get(key, "")).removeprefix("llava_bench_")
        row = Row(key, category, "answered", _review_text(line))
        if not key or (known and key not in known):
            troubles.append(Trouble(where, f"no question {key!r}", "unmatched"))
        elif category not in CATEGORIES:
            troubles.append(Trouble(where, f"question {key} has no known category", "broken lines"))
        elif key in rows:
            troubles.append(Trouble(where, f"question {key} is reviewed twice, the first counts", "duplicates"))
        elif _pair(row) is None:
            troubles.append(Trouble(where, f"question {key}: the review holds no two scores", "undecided"))
        else:
            rows[key] = row
    for key in known.keys() - rows.keys():
        troubles.append(Trouble(f"question {key}", f"{known[key]}: has no scored review", "unanswered"))
    return list(rows.values()), troubles


def _review_text(line: Mapping[str, Any]) -> str:
    """The two scores of ``tuple``, which the official summary counts, before the judge's own words."""
    pair = line.get("tuple")
    content = line.get("content") if isinstance(line.get("content"), str) else ""
    if isinstance(pair, list) and len(pair) == 2 and all(isinstance(part, int | float) for part in pair):
        return f"{pair[0]} {pair[1]}\n{content}"
    return str(content)


def _pair(row: Row) -> tuple[float, float] | None:
    """(reference, candidate) from the first line, as the official parser reads it; None where it holds no scores."""
    parts = row.text.split("\n", maxsplit=1)[0].replace(",", " ").split()
    try:
        one, two = (float(part) for part in parts)
    except ValueError:
        return None
    if not row.counts or not (0 <= one <= 10 and 0 <= two <= 10):  # the official parser writes -1 -1 for no scores
        return None
    return (two, one) if row.key.endswith(SWAPPED) else (one, two)


def _relative(pairs: Sequence[tuple[float, float]]) -> dict[str, Figure]:
    return {
        "relative": Figure.resampled(pairs, lambda means: 100 * means[..., 1] / means[..., 0]),
        "reference": Figure.resampled(pairs, lambda means: means[..., 0]),
        "candidate": Figure.resampled(pairs, lambda means: means[..., 1]),
    }


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
        if not (
            isinstance(image, str) and isinstance(text, str) and isinstance(category, str) and "question_id" in row
        ):
            troubles.append(Trouble(where, "has no question_id, image, text or category", "broken lines"))
            continue
        questions.append((where, Question(str(row["question_id"]), image, text, category)))
    return questions, troubles


def _joined(caption: object) -> str:
    return "\n".join(map(str, caption)) if isinstance(caption, list) else str(caption or "")
