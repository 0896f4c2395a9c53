"""One structlog event per Outcome: digests and figures, never pixels, prompts or answers unless the policy opts in."""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING, Any

from sg_guardrails.core.policy import Policy
from sg_guardrails.core.types import Finding, Outcome, Prompt

if TYPE_CHECKING:
    import structlog

# Without a handler of its own the standard library prints a library's warnings to standard error.
logging.getLogger("sg_guardrails").addHandler(logging.NullHandler())
LEVELS = {"passed": logging.INFO, "skipped": logging.INFO, "error": logging.ERROR}


def emit(outcome: Outcome, *, prompt: Prompt, policy: Policy) -> None:
    """Log `outcome` as the event ``guard.outcome``.

    Goes through structlog as the application configured it, else into the standard logger ``sg_guardrails``, which
    prints nothing until the application asks for it.
    """
    _logger().log(LEVELS.get(outcome.status, logging.WARNING), "guard.outcome", **event(outcome, prompt, policy))


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
        "sigma_image": f"{smoothing.image.sigma:g} {smoothing.image.space}",
        "noise_audio": smoothing.audio.model_dump(exclude_none=True),
        "answer": None
        if outcome.answer is None
        else hashlib.sha256(outcome.answer.text.encode("utf-8", "surrogatepass")).hexdigest(),
        "agreement": None if vote is None else round(vote.agreement, 4),
        "clusters": None if vote is None else len(vote.weights),
        "abstained": outcome.abstained,
        "action": None if verdict is None else verdict.action,
        "would_have": None if verdict is None else verdict.would_have,
        "findings": [] if verdict is None else [_finding(finding) for finding in verdict.findings],
        "degraded": outcome.degraded,
        # The type alone: an error's message may quote what a user or an attacker wrote.
        "error": None if outcome.error is None else type(outcome.error).__name__,
        "ms": {stage: round(value, 2) for stage, value in outcome.timings.items()},
    }
    if policy.record.include_text:
        fields["text"] = {
            "question": prompt.question,
            "answers": [answer.text for answer in outcome.answers],
            "handed_on": outcome.text,
        }
    return fields


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
