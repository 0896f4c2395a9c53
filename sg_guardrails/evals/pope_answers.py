"""Recorded answers to POPE: a file's lines are joined to the questions by picture and object, each loss named."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sg_guardrails.evals.base import Row, Trouble, plain_id, read_lines
from sg_guardrails.evals.pope import SPLITS, Pope, Question, asked_object, says_yes

TRUSTED = 0.95
"""Share of the lines with picture and question whose ids must agree with them, for ids to decide."""
_NO = re.compile(r"\W*no\b", re.I)


def recorded(pope: Pope, file: Path) -> tuple[list[Row], list[Trouble]]:
    """The answers of a file in LLaVA's layout (``question_id``, ``prompt``, ``text``) as rows of a run.

    Also read: ``question`` for ``prompt``, ``answer`` for ``text``, and questions (``text``) with an ``answer`` added.

    An answer that carries picture and question is joined by picture and object, any other by its id; what it carries
    beside must agree, else it is unmatched. Questions without an answer are troubles too.

    Raises:
        GuardError: If the file is missing.
    """
    lines, troubles = read_lines(file)
    index = _Index.of(pope, [line for _, line in lines])
    rows: dict[str, Row] = {}
    for number, line in lines:
        where = f"{file.name}:{number}"
        text = _answer(line)
        matching = _belongs(line, index, rows)
        if isinstance(matching, Question) and matching.key in index.elsewhere:
            continue
        if not isinstance(text, str):
            troubles.append(Trouble(where, "has no answer text", "broken lines"))
            continue
        if isinstance(matching, str):
            troubles.append(Trouble(where, matching, "unmatched", index.split_of(line)))
            continue
        if matching.key in rows:
            same = "the same answer" if rows[matching.key].text == text else "another answer"
            what = f"question {matching.id} is answered twice ({same}), the first counts"
            troubles.append(Trouble(where, what, "duplicates"))
            continue
        if odd := _misread(text):
            troubles.append(Trouble(where, odd[0], odd[1], matching.split))
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
    elsewhere: frozenset[str]
    """Keys of the questions of splits that were not chosen."""
    home: str
    """The one split that asks all that the file answers, "" where several do or none."""

    @classmethod
    def of(cls, pope: Pope, lines: Sequence[Mapping[str, Any]]) -> _Index:
        """Index all questions, and find out whether the ids of `lines` agree with the pictures that they name."""
        by_id: dict[str, list[Question]] = {}
        by_place: dict[tuple[str, str], list[Question]] = {}
        for asked in (*pope.questions, *pope.elsewhere):
            by_id.setdefault(asked.id, []).append(asked)
            by_place.setdefault((_picture(asked.image), asked.object), []).append(asked)
        placed = [(number, place) for line in lines for number, place, _ in (_says(line),) if place in by_place]
        agree = sum(
            any((_picture(q.image), q.object) == place for q in by_id.get(number or "", [])) for number, place in placed
        )
        elsewhere = frozenset(asked.key for asked in pope.elsewhere)
        homes = [split for split in SPLITS if all(_asks(by_place[place], split) for _, place in placed)]
        home = homes[0] if len(homes) == 1 else ""
        return cls(by_id, by_place, agree >= TRUSTED * len(placed), elsewhere, home)

    def split_of(self, line: Mapping[str, Any]) -> str:
        """The split that an answer without a question speaks of, or "" where it does not tell."""
        named = self.by_id.get(plain_id(line.get("question_id")) or "", []) if self.ids_count else []
        split = line.get("category")
        return str(split) if split in SPLITS else named[0].split if named else ""


def _asks(questions: Sequence[Question], split: str) -> bool:
    return any(question.split == split for question in questions)


def _answer(line: Mapping[str, Any]) -> object:
    """What was answered: ``text``; ``answer`` where there is no text, or the text is the question's."""
    text, answer = line.get("text"), line.get("answer")
    return answer if isinstance(answer, str) and (not isinstance(text, str) or asked_object(text)) else text


def _says(line: Mapping[str, Any]) -> tuple[str | None, tuple[str, str] | None, str | None]:
    """An answer's id, its picture and object where it gives both, and its object."""
    names = ("prompt", "question", "text") if isinstance(line.get("answer"), str) else ("prompt", "question")
    said = next((line[name] for name in names if isinstance(line.get(name), str)), "")
    about, image = asked_object(said), line.get("image")
    place = (_picture(image), about) if isinstance(image, str) and about is not None else None
    return plain_id(line.get("question_id")), place, about


def _misread(text: str) -> tuple[str, str] | None:
    """Why an answer that the official rule reads as yes may mean none, and what it is counted under; it is scored."""
    if not text.strip():
        return "is empty; the official rule reads it as yes", "empty answers"
    if _NO.match(text) and says_yes(text):
        return f"begins with no, and the official rule reads it as yes: {text[:20]!r}", "no read as yes"
    return None


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
    # The same question about the same picture stands in several splits: it is the chosen split's where one was chosen.
    chosen = by_number or [question for question in fitting if question.key not in index.elsewhere] or fitting
    if not by_number and len({question.split for question in chosen}) > 1:
        chosen = [question for question in chosen if question.split == index.home]
    if not chosen:
        several = "is asked in several splits, and neither id nor category says in which"
        return f"{image} with {about!r} {several}; --split names one"
    return next((question for question in chosen if question.key not in answered), chosen[0])
