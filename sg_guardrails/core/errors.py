"""The typed errors of the guard: every one says what was wrong and what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sg_guardrails.core.types import Outcome


class GuardError(Exception):
    """Base of every error that this package raises on purpose."""


class PolicyError(GuardError):
    """A policy file or value is wrong; the message names the file, the line and the field.

    Attributes:
        mistakes: The same, one line for each mistake.
    """

    def __init__(self, message: str, mistakes: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.mistakes = mistakes or (message,)


class MediaError(GuardError):
    """An image or a clip is broken, too large, of an unknown kind, or not one that the model can take."""


class ModelError(GuardError):
    """A model cannot be loaded or run as asked; the message says which one and what to try."""


class SamplingError(GuardError):
    """Asking the model failed while it ran. Never a pass: the policy's ``on_error`` decides."""


class DeadlineError(GuardError, TimeoutError):
    """The policy's ``limits.deadline_seconds`` passed before the vote was settled: its ``on_timeout`` decides."""


class UnsafeOutputError(GuardError):
    """The guard refused to hand on an answer.

    Attributes:
        outcome: The whole outcome: verdict, vote, status and timings. The refused answer is not in the message.
    """

    def __init__(self, message: str, outcome: Outcome) -> None:
        super().__init__(message)
        self.outcome = outcome

    def __reduce__(self) -> tuple[type[UnsafeOutputError], tuple[str, Outcome]]:
        return type(self), (str(self), self.outcome)
