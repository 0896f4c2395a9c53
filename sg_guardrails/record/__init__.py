"""One structlog event per Outcome: digests and figures, never pixels, prompts or answers unless the policy opts in."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sg_guardrails.core.policy import Policy
from sg_guardrails.core.types import Answer, Certificate, Finding, Outcome, Prompt
from sg_guardrails.record.redaction import redact, redact_within

if TYPE_CHECKING:
    import structlog

# Without a handler of its own the standard library prints a library's warnings to standard error.
logging.getLogger("sg_guardrails").addHandler(logging.NullHandler())
LEVELS = {"passed": logging.INFO, "skipped": logging.INFO, "error": logging.ERROR}
Emit = Callable[..., None]
"""What takes a record: called as ``emit(outcome, prompt=..., policy=...)``."""


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """A policy file was read again while a guard was in service."""

    file: str
    old: str
    """The policy in force before, ``name@hash``."""
    new: str | None
    """The policy in force now (`old` itself where a refused file is in order again), or None where the file was refused
    and the old one stays."""
    error: str | None = None
    """Why it was refused: file, line and key. No policy's content stands in it beyond a wrong key's name."""


def emit(outcome: Outcome, *, prompt: Prompt, policy: Policy) -> None:
    """Log `outcome` as the event ``guard.outcome``.

    Goes through structlog as the application configured it, else into the standard logger ``sg_guardrails``, which
    prints nothing until the application asks for it.
    """
    _logger().log(LEVELS.get(outcome.status, logging.WARNING), "guard.outcome", **event(outcome, prompt, policy))


def each(*emits: Emit) -> Emit:
    """One `emit` out of several, called in turn. One that fails keeps no other from its record; its error is raised."""

    def all_of_them(outcome: Outcome, *, prompt: Prompt, policy: Policy) -> None:
        with ExitStack() as stack:
            for emit_one in reversed(emits):
                stack.callback(emit_one, outcome, prompt=prompt, policy=policy)

    return all_of_them


def policy_changed(change: PolicyChange) -> None:
    """Log `change` as the event ``policy.changed``, or as ``policy.refused`` at the level of an error."""
    name, level = ("policy.refused", logging.ERROR) if change.new is None else ("policy.changed", logging.WARNING)
    _logger().log(level, name, **asdict(change))


def event(outcome: Outcome, prompt: Prompt, policy: Policy) -> dict[str, Any]:
    """The event's fields, ready for JSON."""
    vote, verdict, smoothing = outcome.vote, outcome.verdict, policy.smoothing
    fields: dict[str, Any] = {
        "status": outcome.status,
        "policy": outcome.policy,
        "model": policy.model.id,
        "seed_id": outcome.seed_id,
        "prompt": prompt.digest,
        "media": [part.digest for part in prompt.media],
        "copies": len(outcome.answers),
        "asked": outcome.asked,
        "sigma_image": f"{smoothing.image.sigma:g} {smoothing.image.space}",
        "second_sigma_image": smoothing.image.second_sigma,
        "shift_image": smoothing.image.shift,
        "noise_audio": smoothing.audio.model_dump(exclude_none=True),
        "answer": None
        if outcome.answer is None
        else hashlib.sha256(outcome.answer.text.encode("utf-8", "surrogatepass")).hexdigest(),
        "agreement": None if vote is None else round(vote.agreement, 4),
        "clusters": None if vote is None else len(vote.weights),
        "abstained": outcome.abstained,
        "certificate": None if vote is None else _certificate(vote.certificate),
        "action": None if verdict is None else verdict.action,
        "would_have": None if verdict is None else verdict.would_have,
        "findings": [] if verdict is None else [_finding(finding) for finding in verdict.findings],
        "degraded": outcome.degraded,
        # The type alone: an error's message may quote what a user or an attacker wrote.
        "error": None if outcome.error is None else type(outcome.error).__name__,
        "ms": {stage: round(value, 2) for stage, value in outcome.timings.items()},
    }
    if policy.record.include_text:
        kept = _contents(outcome, prompt, policy.record.redact)
        fields["text"] = {**kept, "redacted": kept != _contents(outcome, prompt, ())}
    return fields


def _contents(outcome: Outcome, prompt: Prompt, patterns: Sequence[str]) -> dict[str, Any]:
    """What `sg-guardrails policy diff` replays. Texts only: media stay digests."""

    def told(answer: Answer) -> str | dict[str, Any]:
        if not answer.tool_calls:
            return redact(answer.text, patterns)
        calls = [
            {"name": call.name, "arguments": redact_within(call.arguments, patterns)} for call in answer.tool_calls
        ]
        return {"text": redact(answer.text, patterns), "tool_calls": calls}

    return {
        "asked": [redact(turn, patterns) for turn in prompt.asked],
        "answers": [told(answer) for answer in outcome.answers],
        "clean": outcome.clean,
        "candidate": None if outcome.candidate is None else told(outcome.candidate),
        "handed_on": redact(outcome.text, patterns),
    }


def _certificate(proof: Certificate | None) -> dict[str, Any] | None:
    """Its figures; what it was compared with is an answer's text."""
    if proof is None:
        return None
    told = {name: getattr(proof, name) for name in ("sigma", "values", "confidence", "judge_error")}
    return told | {held.statement: asdict(held) for held in (proof.answer, proof.verdict)}


def _finding(finding: Finding) -> dict[str, Any]:
    return {name: getattr(finding, name) for name in finding.__slots__}


def _logger() -> structlog.stdlib.BoundLogger:
    import structlog  # noqa: PLC0415 - a fifth of a second that only those who record should pay

    if structlog.is_configured():
        configured: structlog.stdlib.BoundLogger = structlog.get_logger("sg_guardrails")
        return configured
    logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger("sg_guardrails"),
        wrapper_class=structlog.stdlib.BoundLogger,
        processors=[structlog.stdlib.filter_by_level, structlog.processors.JSONRenderer()],
    )
    return logger
