"""Recorded requests decided again under two policies: which decisions change, and which could not be made again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from sg_guardrails.core.errors import GuardError
from sg_guardrails.core.policy import Policy
from sg_guardrails.core.terms import Reads, parts
from sg_guardrails.guard import SmoothGuard
from sg_guardrails.record.recorded import Decision, Recorded


@dataclass(frozen=True, slots=True)
class Replayed:
    """One request under both policies."""

    line: int
    """In the file of records."""
    old: Decision
    new: Decision
    same_text: bool
    """Whether both hand on the same text."""
    recorded: Decision | None = None
    """What was decided when it was recorded, where that is known."""
    exact: bool | None = None
    """Whether the policy that decided then decides the same now. False: something that decided is not in the record, so
    no more can be said of the other policy either. None: that policy is none of the two, or not known."""
    redacted: bool = False
    """Whether something was taken out of the texts before they were written."""
    few: bool = False
    """Whether a policy that did not decide then would have asked for more answers than were recorded."""

    @property
    def changed(self) -> bool:
        """Whether anything differs: status, rules, would-have, or the text handed on."""
        return self.old != self.new or not self.same_text


def replay(records: Iterable[tuple[int, Recorded]], old: SmoothGuard, new: SmoothGuard) -> Iterator[Replayed]:
    """Each record under both guards. No model is asked: the recorded answers are voted on and judged again."""
    for line, record in records:
        before, text_before = _decide(record, old)
        after, text_after = _decide(record, new)
        again = {new.policy.id: after, old.policy.id: before}.get(record.policy)
        exact = None if again is None or record.decision is None else again == record.decision
        same = text_before == text_after
        few = any(_asks_more(each.policy, record) for each in (old, new))
        yield Replayed(line, before, after, same, record.decision, exact, record.redacted, few)


def unread(policy: Policy) -> list[str]:
    """The rules that read pictures, sorted: records hold no pictures, so a replay can't say what these would find."""
    return sorted(
        rule.id
        for rule in policy.rules
        if rule.where == "picture" or any(isinstance(part, Reads) and part.of == "picture" for part in parts(rule.when))
    )


def told(replayed: Sequence[Replayed], where: str) -> Iterator[str]:
    """A line for each change and for each decision that could not be made again, then the moves between statuses."""
    for item in replayed:
        if item.exact is False and item.recorded is not None:
            again = item.old if item.old != item.recorded else item.new
            yield f"{where}:{item.line}: NOT REPLAYED EXACTLY: recorded {_said(item.recorded)}, replayed {_said(again)}"
        if item.changed:
            other = "" if item.same_text else ", other text"
            yield f"{where}:{item.line}: {_said(item.old)} -> {_said(item.new)}{other}"
    for (was, now), count in sorted(Counter((item.old.status, item.new.status) for item in replayed).items()):
        yield f"{was} -> {now}: {count}"


def counted(replayed: Sequence[Replayed]) -> str:
    """How many decisions change."""
    inexact = sum(item.exact is False for item in replayed)
    lost = f", {inexact} could not be replayed exactly" if inexact else ""
    return f"{sum(item.changed for item in replayed)} of {len(replayed)} decisions change{lost}"


def doubts(replayed: Sequence[Replayed], blind: Sequence[str]) -> Iterator[str]:
    """What the figures can't be relied on for. `blind` names the rules that read pictures, where requests had some."""
    total = len(replayed)
    if inexact := sum(item.exact is False for item in replayed):
        masked = sum(item.exact is False and item.redacted for item in replayed)
        yield (
            f"{inexact} of {total} decisions could not be replayed exactly ({masked} of them had something redacted): "
            "what is said of these, change or none, is not to be relied on"
        )
    if unknown := sum(item.exact is None and item.recorded is not None for item in replayed):
        yield f"{unknown} of {total} were decided by neither policy: whether the replay is exact is not known"
    if few := sum(item.few for item in replayed):
        yield f"{few} of {total} hold fewer answers than one of the policies asks: the rest might decide otherwise"
    if redacted := sum(item.redacted for item in replayed):
        yield f"{redacted} of {total} were redacted before they were written: a rule about that may find nothing"
    if blind:
        yield f"records hold no pictures, so these rules find nothing here: {'; '.join(blind)}"


def _said(decision: Decision) -> str:
    rules = f" ({', '.join(decision.rules)})" if decision.rules else ""
    error = f" {decision.error}" if decision.error else ""
    return f"{decision.status}{error}{rules}{f', would {decision.would_have}' if decision.would_have else ''}"


def _asks_more(policy: Policy, record: Recorded) -> bool:
    """Whether a vote that was settled early, say, was recorded with fewer answers than this other policy waits for."""
    smoothing = policy.smoothing
    waits = smoothing.early == "off" and smoothing.adaptive is None
    wanted = smoothing.copies + smoothing.include_clean
    return waits and record.media > 0 and policy.id != record.policy and 0 < len(record.answers) < wanted


def _decide(record: Recorded, guard: SmoothGuard) -> tuple[Decision, str]:
    try:
        outcome = guard.decide(record.prompt, record.answers, clean=record.clean, candidate=record.candidate)
    except GuardError as error:  # under `on_error: raise`
        return Decision("error", (), None, abstained=False, error=type(error).__name__), ""
    return Decision.of(outcome), outcome.text
