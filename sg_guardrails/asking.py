"""Asking: what is due of several polls goes to the model together, within the time that is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sg_guardrails.core.errors import DeadlineError, GuardError, ModelError, PolicyError, SamplingError
from sg_guardrails.core.policy import Smoothing
from sg_guardrails.core.types import Answer, Copy, Prompt, Sampler, Vote
from sg_guardrails.core.waiting import NEVER, Deadline, nobody_waits


@dataclass(slots=True)
class Poll:
    """One request while its copies are asked: the one thing that changes on the way."""

    prompt: Prompt
    candidate: Answer | None
    smoothing: Smoothing
    """Noise of the level that `plan` is on."""
    plan: Sequence[Copy] = ()
    """Every copy of this level."""
    answers: list[Answer] = field(default_factory=list)
    """To the first copies of `plan`."""
    clean: int | None = None
    """Index of the unperturbed copy among several; a lone copy has no others to differ from."""
    due: int = 0
    """How many copies are asked next; 0 where the vote stands."""
    asked: int = 0
    draft: bool = False
    """Whether the answers are drafts."""
    vote: Vote | None = None
    """The vote, where it is known already: over drafts, or from the cache."""
    finished: Answer | None = None
    """The representative's whole answer after a draft vote."""
    error: GuardError | None = None

    @property
    def left(self) -> int:
        """Copies of the plan not yet asked."""
        return len(self.plan) - len(self.answers)

    @property
    def next(self) -> Sequence[Copy]:
        """The copies that are due."""
        return self.plan[len(self.answers) :][: self.due]

    @property
    def cleanly(self) -> Answer | None:
        """The answer to the unperturbed copy."""
        return None if self.clean is None or not self.answers else self.answers[self.clean]

    @property
    def unperturbed(self) -> Answer | None:
        """The model's own answer: the clean copy's, or that of a lone copy without noise."""
        if len(self.plan) == len(self.answers) == 1 and self.plan[0].seed is None:
            return self.answers[0]
        return self.cleanly

    def whole(self, elected: Vote | None) -> tuple[Answer, ...]:
        """The answers, the representative's in full where it was finished after a draft vote."""
        if self.finished is None or elected is None:
            return tuple(self.answers)
        return tuple(self.finished if index == elected.choice else said for index, said in enumerate(self.answers))


@dataclass(frozen=True, slots=True)
class Asking:
    """Asks the model."""

    sampler: Sampler
    drafter: Sampler | None = None
    """Asked in the sampler's place where a poll is about drafts."""
    deadline: Deadline = NEVER
    """Of the sampler's calls."""

    def ask(self, polls: Sequence[Poll]) -> None:
        """Ask all that is due, in one call for each strength of noise; a failure becomes its poll's error.

        Raises:
            ModelError, PolicyError: What is wrong for every request alike.
        """
        for smoothing, draft in dict.fromkeys((poll.smoothing, poll.draft) for poll in polls):
            self._ask([poll for poll in polls if poll.smoothing == smoothing and poll.draft == draft])

    def _ask(self, polls: Sequence[Poll]) -> None:
        """Ask what is due, together; where that fails, one by one: one bad request sinks no other."""
        due = [poll.next for poll in polls]
        try:
            answers = iter(self._answers([copy for copies in due for copy in copies], polls[0]))
        except (PolicyError, ModelError):
            raise
        except GuardError as error:
            if len(polls) > 1 and not isinstance(error, DeadlineError):
                for poll in polls:
                    self._ask([poll])
                return
            for poll in polls:
                poll.error = error
            return
        for poll, copies in zip(polls, due, strict=True):
            poll.answers += [next(answers) for _ in copies]
            poll.asked += len(copies)

    def _answers(self, copies: Sequence[Copy], poll: Poll) -> list[Answer]:
        sampler = self.drafter if poll.draft and self.drafter is not None else self.sampler
        if nobody_waits():
            raise SamplingError("the request was cancelled before it was asked")
        try:
            answers = self.deadline.within(lambda: sampler(copies, poll.smoothing))
        except GuardError:
            raise
        except Exception as error:  # whatever a model raises, it is no answer
            raise SamplingError(f"asking the model failed: {type(error).__name__}") from error
        if len(answers) != len(copies):
            raise SamplingError(f"the sampler gave {len(answers)} answers to {len(copies)} copies")
        return answers
