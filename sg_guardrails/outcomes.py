"""Outcomes: what a policy makes of an error, and the stamp and the record that every outcome gets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from sg_guardrails.asking import Poll
from sg_guardrails.core import judge, noise
from sg_guardrails.core.errors import DeadlineError, GuardError, ModelError, PolicyError
from sg_guardrails.core.policy import Policy
from sg_guardrails.core.types import Answer, Outcome, Prompt, Status, Verdict


class Outcomes:
    """Finishes the outcomes of one guard.

    Args:
        key: The secret that seeds the noise.
        emit: What takes each outcome's record.
    """

    def __init__(self, key: noise.Key, emit: Callable[..., None]) -> None:
        self._key, self._emit = key, emit
        self._named: tuple[Policy, str] | None = None

    def policy_id(self, policy: Policy) -> str:
        """``name@hash``; kept, since hashing the policy for each outcome would cost more than judging a text."""
        named = self._named
        if named is None or named[0] is not policy:
            named = self._named = (policy, policy.id)
        return named[1]

    @staticmethod
    def behaviour(policy: Policy, error: GuardError) -> Literal["block", "allow", "raise"]:
        """What the policy says of such an error."""
        return policy.on_timeout if isinstance(error, DeadlineError) else policy.on_error

    def refused(self, policy: Policy, error: GuardError, poll: Poll) -> Outcome:
        """What the policy makes of `error`: an outcome of status ``error``, or the error raised."""
        behaviour = self.behaviour(policy, error)
        given = poll.candidate
        observing = policy.mode == "observe"
        if observing and given is None and not poll.draft:
            given = poll.unperturbed  # the model's own answer goes on whatever fails while the policy only observes
        if behaviour == "raise" and not (observing and given is not None):
            raise error
        allowed = given if behaviour == "allow" or observing else None
        text = policy.texts.error if allowed is None else allowed.text
        outcome = Outcome(text, "error", allowed, error=error, asked=poll.asked, candidate=poll.candidate)
        return self.finished(policy, poll.prompt, outcome)

    def finished(self, policy: Policy, prompt: Prompt, outcome: Outcome) -> Outcome:
        """Stamp policy and seed on the outcome and record it."""
        done = replace(outcome, policy=self.policy_id(policy), seed_id=noise.seed_id(prompt, self._key))
        try:
            self._emit(done, prompt=prompt, policy=policy)
        except Exception as error:  # noqa: BLE001 - a record that fails must not turn one verdict into another
            return replace(done, degraded=f"recording failed: {type(error).__name__}")
        return done


def handed_on(policy: Policy, verdict: Verdict, case: judge.Case) -> tuple[Status, Answer | None, str]:
    """`judge.hand_on`; where other words for an answer at fault cannot be had or judged, it is blocked.

    An error after that verdict must not be ``on_error``'s to allow: the answer is known to be at fault.
    """
    try:
        return judge.hand_on(policy, verdict, case)
    except (PolicyError, ModelError):
        raise
    except Exception:
        if verdict.action in ("allow", "flag"):
            raise
        return "blocked", None, policy.texts.blocked
