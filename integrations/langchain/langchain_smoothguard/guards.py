"""The guard behind a step: shared by policy and model, and what becomes of an answer that it withholds."""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import Literal

from langchain_smoothguard.messages import UnresolvableMediaError, is_handed_on
from sg_guardrails import Answer, GuardError, Outcome, Policy, SmoothGuard, UnsafeOutputError

OnUnsafe = Literal["policy", "raise", "replace"]
OnMissing = Literal["error", "judge_text", "pass"]
_guards: dict[tuple[str, str | None, str], SmoothGuard] = {}
_guards_lock = Lock()


def shared_guard(policy: str | Path | Policy, model: str | None = None, device: str = "auto") -> SmoothGuard:
    """The process's guard for this policy, model and device: two steps with the same share one loaded model."""
    from sg_guardrails.local import local_guard  # noqa: PLC0415 - brings torch; a guard of the user's own needs none

    loaded = Policy.load(policy)
    key = (loaded.id, model, device)
    with _guards_lock:
        if key not in _guards:
            _guards[key] = local_guard(loaded, model=model, device=device)
        return _guards[key]


def refused(guard: SmoothGuard, error: GuardError, answer: Answer | None) -> Outcome:
    """What the policy makes of media that cannot be seen, or are broken."""
    if isinstance(error, UnresolvableMediaError):
        if guard.policy.unresolvable_media == "error":
            raise error
        # "block" holds whatever on_error allows; observing alone lets the answer through.
        answer = answer if guard.policy.mode == "observe" else None
    return guard.refuse(error, candidate=answer)


def missing(guard: SmoothGuard, answer: Answer, setting: OnMissing | None) -> Outcome:
    """What the setting, else the policy, makes of an answer whose context was not found.

    Raises:
        GuardError: Under ``error``.
    """
    match setting or guard.policy.on_missing_context:
        case "judge_text":
            return guard.judge_text(answer)
        case "pass":
            return guard.skip(answer, reason="the messages behind this answer were not found")
        case _:
            raise GuardError(
                "the messages that the model received cannot be told for certain; use SmoothGuardRunnable.wrap("
                'chain), pass {"messages": [...], "output": ...}, or set on_missing_context to judge_text or pass'
            )


def withhold(outcome: Outcome, on_unsafe: OnUnsafe) -> None:
    """Raise UnsafeOutputError where the answer is not handed on and the setting, or the policy's action, says raise."""
    asked = outcome.verdict is not None and outcome.verdict.action == "raise"
    if not is_handed_on(outcome) and (on_unsafe == "raise" or (on_unsafe == "policy" and asked)):
        raise UnsafeOutputError(f"the answer was {outcome.status} by policy {outcome.policy}", outcome)
