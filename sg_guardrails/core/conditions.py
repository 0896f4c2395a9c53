"""What a rule's condition holds for: texts, tool calls and the vote of one case, each looked at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sg_guardrails.core.calls import disorderly, wording
from sg_guardrails.core.errors import GuardError, PolicyError
from sg_guardrails.core.fold import bare, readable
from sg_guardrails.core.inquiry import Judge, inquiry
from sg_guardrails.core.language import not_english
from sg_guardrails.core.patterns import folded, found, occurrences
from sg_guardrails.core.policy import Policy
from sg_guardrails.core.terms import (
    AgreementBelow,
    All,
    AnyOf,
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
_ROUNDING = 1e-6
"""What float32 may add to a number at the end of its range."""
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
    written: str
    """As it is written, line breaks and all."""
    by: Literal["answer", "user", "picture"] = "answer"
    """Whose it is: a judge is told."""
    calls: tuple[ToolCall, ...] = ()

    @classmethod
    def of(cls, answer: Answer) -> Seen:
        """An answer: its text and each of its tool calls."""
        return cls._said([answer.text], answer.tool_calls)

    @classmethod
    def calls_of(cls, answer: Answer) -> Seen:
        """An answer's tool calls alone."""
        return cls._said([], answer.tool_calls)

    @classmethod
    def given(cls, text: str, by: Literal["user", "picture"]) -> Seen:
        """A user turn, or what a picture says."""
        return cls(readable(text), text, by)

    @classmethod
    def _said(cls, texts: list[str], calls: tuple[ToolCall, ...]) -> Seen:
        whole = "\n".join((*texts, *(line for call in calls for line in wording(call))))
        return cls(readable(whole), whole, calls=calls)


def matches(when: Condition, seen: Sequence[Seen], case: Case) -> Bools:
    """``(len(seen),)``: which texts the condition holds for. Conditions on the whole case hold for all or none.

    Raises:
        PolicyError: If the case lacks a scorer or judge that the condition names.
        GuardError: If a scorer or judge gives anything but one number a text, in its range. An error is never a pass.
    """
    match when:
        case All():
            return _folded(when.all, seen, case, settles=False)
        case AnyOf():
            return _folded(when.any, seen, case, settles=True)
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
            return np.array([disorderly(item.calls, when.tool_calls) or (torn and bool(item.calls)) for item in seen])
        case _ if when.of == "answer":
            return _read(when, seen, case)
        case _:
            texts = case.asked if when.of == "user" else case.pictured()
            given = [Seen.given(text, when.of) for text in texts]
            return np.full(len(seen), bool(given) and bool(_read(when, given, case).any()))


def _folded(conditions: Sequence[Condition], seen: Sequence[Seen], case: Case, *, settles: bool) -> Bools:
    """Where all conditions hold, or any does; once that is settled for every text, no further one is looked at."""
    found = np.full(len(seen), not settles)
    for part in conditions:
        if (found == settles).all():
            break
        held = matches(part, seen, case)
        found = found | held if settles else found & held
    return found


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
    named = {part.judge.key for part in conditions if isinstance(part, Judged)}
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


def _read(when: Reads, seen: Sequence[Seen], case: Case) -> Bools:
    match when:
        case Words():
            words = [folded(word) for word in when.words]
            return np.array([any(occurrences(bare(item.text), words)) for item in seen], dtype=np.bool_)
        case Regex():
            return np.array([found(when.regex, item.written) for item in seen], dtype=np.bool_)
        case Language():
            return np.array([not_english(item.text) for item in seen], dtype=np.bool_)
        case Judged() | Scored() | Near() | Classified():
            return _numbers(when, seen, case) >= when.above
    raise GuardError(f"no way to tell {type(when).__name__}")


def _numbers(when: Weighed | Judged, seen: Sequence[Seen], case: Case) -> NDArray[np.float64]:
    """``(N,)`` scores or probabilities, finite and in [0, 1]; of likeness to examples in [-1, 1]."""
    name = f"judge {when.judge.key!r}" if isinstance(when, Judged) else f"scorer {when.key!r}"
    given = _judged(when, seen, case) if isinstance(when, Judged) else _scored(when, seen, case)
    low = -1.0 if isinstance(when, Near) else 0.0
    scores = np.asarray(given, dtype=np.float64)
    if scores.shape != (len(seen),) or not np.isfinite(scores).all():
        raise GuardError(f"{name} must give one finite number a text")
    if not ((scores >= low - _ROUNDING) & (scores <= 1 + _ROUNDING)).all():
        raise GuardError(f"{name} must give numbers in [{low:.0f}, 1]")
    return scores


def _scored(when: Weighed, seen: Sequence[Seen], case: Case) -> object:
    scorer = case.scorers.get(when.key)
    if scorer is None:
        raise PolicyError(f"no scorer {when.key!r}: known are {', '.join(sorted(case.scorers)) or 'none'}")
    return scorer([item.text for item in seen])


def _judged(when: Judged, seen: Sequence[Seen], case: Case) -> object:
    judge = case.judges.get(when.judge.key)
    if judge is None:
        raise PolicyError(f"no judge {when.judge.key!r}: known are {', '.join(sorted(case.judges)) or 'none'}")
    asked = readable("\n".join(case.asked))
    # What stands in a picture is the user's too: nobody answered it.
    return judge([inquiry(when.judge, item.text, asked if item.by == "answer" else None) for item in seen])


def _torn(case: Case) -> bool:
    """Whether the copies did not all make the same calls, or the candidate makes others than they."""
    made = {tuple(sorted(call.canonical for call in answer.tool_calls)) for answer in case.answers}
    if made and case.candidate is not None:
        made.add(tuple(sorted(call.canonical for call in case.candidate.tool_calls)))
    return len(made) > 1
