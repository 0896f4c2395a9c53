"""What a rule's condition holds for: texts, tool calls and the vote of one case, each looked at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, reduce
from operator import and_, or_
from typing import Literal

import numpy as np
import re2
from numpy.typing import NDArray

from sg_guardrails.core.errors import GuardError, PolicyError
from sg_guardrails.core.fold import bare, plain, readable, unmarked
from sg_guardrails.core.inquiry import Judge, inquiry
from sg_guardrails.core.language import not_english
from sg_guardrails.core.policy import Policy
from sg_guardrails.core.rules import (
    AgreementBelow,
    All,
    AnyOf,
    Calls,
    Classified,
    Condition,
    Disagrees,
    Judged,
    Language,
    Near,
    Not,
    Reads,
    Regex,
    Scored,
    ToolCalls,
    Words,
    parts,
)
from sg_guardrails.core.types import Answer, Scorer, ToolCall, Vote

Bools = NDArray[np.bool_]
Weighed = Scored | Near | Classified
"""The conditions that a scorer decides, found under the condition's ``key``."""


@dataclass(frozen=True, slots=True)
class Case:
    """All that the rules may look at."""

    asked: Sequence[str] = ()
    """The text of each user turn."""
    answers: Sequence[Answer] = ()
    vote: Vote | None = None
    """Over `answers`; None where nothing was sampled."""
    candidate: Answer | None = None
    """The answer under review, where someone else produced it."""
    clean: Answer | None = None
    """The answer to the unperturbed prompt, where there are others beside it."""
    disagrees: Callable[[Literal["candidate", "clean"]], bool] = lambda _kind: False
    """Whether that answer contradicts the majority. Called only for rules that ask."""
    scorers: Mapping[str, Scorer] = field(default_factory=dict)
    judges: Mapping[str, Judge] = field(default_factory=dict)
    """The LLM judges, by the names that rules use."""
    pictured: Callable[[], Sequence[str]] = lambda: ()
    """What each picture of the prompt says. Called only for rules that ask."""
    rewriter: Callable[[str], str] | None = None
    """Asks the policy's model to write a text anew, for ``rewrite: model``."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One text that a rule looks at."""

    text: str
    """As `readable` makes it."""
    calls: tuple[ToolCall, ...] = ()

    @classmethod
    def of(cls, answer: Answer) -> Seen:
        """An answer: its text and each of its tool calls."""
        calls = [call.canonical for call in answer.tool_calls]
        return cls(readable("\n".join((answer.text, *calls))), answer.tool_calls)

    @classmethod
    def calls_of(cls, answer: Answer) -> Seen:
        """An answer's tool calls alone."""
        return cls(readable("\n".join(call.canonical for call in answer.tool_calls)), answer.tool_calls)


def matches(when: Condition, seen: Sequence[Seen], case: Case) -> Bools:
    """``(len(seen),)``: which texts the condition holds for. Conditions on the whole case hold for all or none.

    Raises:
        PolicyError: If the case lacks a scorer or judge that the condition names.
        GuardError: If a scorer or judge gives anything but one finite number a text. An error is never a pass.
    """
    match when:
        case All():
            return reduce(and_, (matches(part, seen, case) for part in when.all))
        case AnyOf():
            return reduce(or_, (matches(part, seen, case) for part in when.any))
        case Not():
            return ~matches(when.not_, seen, case)
        case AgreementBelow():
            vote = case.vote
            low = vote is not None and (vote.abstained or vote.agreement < when.agreement_below)
            return np.full(len(seen), low)
        case Disagrees():
            return np.full(len(seen), case.disagrees(when.disagrees))
        case ToolCalls():
            torn = when.tool_calls.unanimous and _torn(case)
            return np.array([_disorderly(item.calls, when.tool_calls) or (torn and bool(item.calls)) for item in seen])
        case _ if when.of == "answer":
            return _read(when, [item.text for item in seen], case)
        case _:
            texts = [readable(text) for text in (case.asked if when.of == "user" else case.pictured())]
            return np.full(len(seen), bool(texts) and bool(_read(when, texts, case).any()))


def about_the_text(when: Condition) -> bool:
    """Whether the condition depends on what an answer itself says or calls."""
    return any(isinstance(part, ToolCalls) or (isinstance(part, Reads) and part.of == "answer") for part in parts(when))


def missing_scorers(policy: Policy, known: Iterable[str]) -> list[str]:
    """The scorers that the policy's rules name and `known` lacks, sorted. Checkpoints and examples need no name."""
    named = {part.scorer for rule in policy.rules for part in parts(rule.when) if isinstance(part, Scored)}
    return sorted(named - set(known))


def missing_parts(policy: Policy, scorers: Iterable[str], judges: Iterable[str], *, reads_pictures: bool) -> list[str]:
    """In words, what the policy's rules need and a guard with these parts has not got, sorted."""
    conditions = [part for rule in policy.rules for part in parts(rule.when)]
    held = set(scorers)
    lacking = {f"the scorer {name!r}" for name in missing_scorers(policy, held)}
    lacking |= {f"the {part.key}" for part in conditions if isinstance(part, Classified) and part.key not in held}
    named = {part.judge.model for part in conditions if isinstance(part, Judged)}
    lacking |= {f"the judge {name!r}" for name in named - set(judges)}
    if looks_at_pictures(policy) and not reads_pictures:
        lacking.add("a reader of text in pictures (pip install 'sg-guardrails[ocr]')")
    return sorted(lacking)


def looks_at_pictures(policy: Policy) -> bool:
    """Whether a rule reads the text in pictures."""
    return any(
        rule.where == "picture" or any(isinstance(part, Reads) and part.of == "picture" for part in parts(rule.when))
        for rule in policy.rules
    )


def _read(when: Condition, texts: list[str], case: Case) -> Bools:
    match when:
        case Words():
            pattern, _ = word_pattern(when.words)
            return np.array([bool(pattern.search(bare(text))) for text in texts], dtype=np.bool_)
        case Regex():
            return np.array([_found(when.regex, text) for text in texts], dtype=np.bool_)
        case Language():
            return np.array([not_english(text) for text in texts], dtype=np.bool_)
        case Judged():
            return _numbers(when, texts, case) >= when.above
        case Scored() | Near() | Classified():
            return _numbers(when, texts, case) >= when.above
    raise GuardError(f"no way to tell {type(when).__name__}")


def _found(patterns: Sequence[str], text: str) -> bool:
    """As written, or with look-alike letters made plain, or without marks on the letters."""
    spelled = {text, plain(text), unmarked(plain(text))}
    return any(compiled(pattern).search(variant) for pattern in patterns for variant in spelled)


def _numbers(when: Weighed | Judged, texts: list[str], case: Case) -> NDArray[np.float64]:
    """``(N,)`` scores or probabilities, finite."""
    judged = isinstance(when, Judged)
    name = f"judge {when.judge.model!r}" if isinstance(when, Judged) else f"scorer {when.key!r}"
    given = _judged(when, texts, case) if isinstance(when, Judged) else _scored(when, texts, case)
    scores = np.asarray(given, dtype=np.float64)
    if scores.shape != (len(texts),) or not np.isfinite(scores).all():
        raise GuardError(f"{name} must give one finite number a text")
    if judged and not ((scores >= 0) & (scores <= 1)).all():
        raise GuardError(f"{name} must give probabilities, in [0, 1]")
    return scores


def _scored(when: Weighed, texts: list[str], case: Case) -> object:
    scorer = case.scorers.get(when.key)
    if scorer is None:
        raise PolicyError(f"no scorer {when.key!r}: known are {', '.join(sorted(case.scorers)) or 'none'}")
    return scorer(texts)


def _judged(when: Judged, texts: list[str], case: Case) -> object:
    judge = case.judges.get(when.judge.model)
    if judge is None:
        raise PolicyError(f"no judge {when.judge.model!r}: known are {', '.join(sorted(case.judges)) or 'none'}")
    asked = None if when.of == "user" else readable("\n".join(case.asked))
    return judge([inquiry(when.judge, text, asked) for text in texts])


def _disorderly(calls: Sequence[ToolCall], rules: Calls) -> bool:
    """Whether a call is not allowed, is denied, or has an argument that its pattern does not match as a whole."""
    denied = {bare(readable(name)) for name in rules.denied}
    return any(
        (rules.allowed is not None and call.name not in rules.allowed)
        or bare(readable(call.name)) in denied
        or any(
            name in call.arguments and not compiled(pattern).fullmatch(_said(call.arguments[name]))
            for name, pattern in rules.arguments.get(call.name, {}).items()
        )
        for call in calls
    )


def _said(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return text.encode("utf-8", "replace").decode("utf-8")


def _torn(case: Case) -> bool:
    """Whether the copies did not all make the same calls, or the candidate makes others than they."""
    made = {tuple(sorted(call.canonical for call in answer.tool_calls)) for answer in case.answers}
    if made and case.candidate is not None:
        made.add(tuple(sorted(call.canonical for call in case.candidate.tool_calls)))
    return len(made) > 1


@lru_cache(maxsize=512)
def word_pattern(words: tuple[str, ...]) -> tuple[re2._Regexp, int]:
    """One pattern for all words, and how many: whole words, where they begin or end with an ASCII letter or digit.

    Each word is a group of its own, without the letters around it that tell that it is whole.
    """
    alternatives = []
    for word in words:
        letters = bare(readable(word))
        left = r"(?:^|[^\pL\pN])" if letters[:1].isalnum() and letters[:1].isascii() else ""
        right = r"(?:$|[^\pL\pN])" if letters[-1:].isalnum() and letters[-1:].isascii() else ""
        alternatives.append(f"{left}({re2.escape(letters)}){right}")
    return re2.compile("(?:" + "|".join(alternatives) + ")"), len(alternatives)


@lru_cache(maxsize=2048)
def compiled(pattern: str) -> re2._Regexp:
    """A policy's pattern, compiled once."""
    return re2.compile(pattern)
