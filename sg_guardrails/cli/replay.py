"""Recorded requests decided again under two policies: which decisions change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sg_guardrails.core.errors import GuardError
from sg_guardrails.core.types import Action, Status
from sg_guardrails.guard import SmoothGuard
from sg_guardrails.record.recorded import Recorded


@dataclass(frozen=True, slots=True)
class Decision:
    """What one policy makes of one request; contents left out."""

    status: Status
    rules: tuple[str, ...]
    """The rules that matched, sorted."""
    would_have: Action | None
    abstained: bool
    error: str | None = None
    """The type of the error, where there was one."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """One request under both policies."""

    line: int
    """In the file of records."""
    old: Decision
    new: Decision
    same_text: bool
    """Whether both hand on the same text."""
    recorded: Status | None = None
    """What was decided when it was recorded, where that is known."""

    @property
    def changed(self) -> bool:
        """Whether anything differs: status, rules, would-have, or the text handed on."""
        return self.old != self.new or not self.same_text


def replay(records: Iterable[tuple[int, Recorded]], old: SmoothGuard, new: SmoothGuard) -> Iterator[Replayed]:
    """Each record under both guards. No model is asked: the recorded answers are voted on and judged again."""
    for line, record in records:
        before, text_before = _decide(record, old)
        after, text_after = _decide(record, new)
        yield Replayed(line, before, after, text_before == text_after, record.status)


def _decide(record: Recorded, guard: SmoothGuard) -> tuple[Decision, str]:
    try:
        outcome = guard.decide(record.prompt, record.answers, clean=record.clean, candidate=record.candidate)
    except GuardError as error:  # under `on_error: raise`
        return Decision("error", (), None, abstained=False, error=type(error).__name__), ""
    verdict = outcome.verdict
    rules = () if verdict is None else tuple(sorted({finding.rule for finding in verdict.findings}))
    error_type = None if outcome.error is None else type(outcome.error).__name__
    would = None if verdict is None else verdict.would_have
    return Decision(outcome.status, rules, would, outcome.abstained, error_type), outcome.text
