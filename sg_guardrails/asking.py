"""Asking: what is due of several polls goes to the model together, within the time that is left."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import inf

from sg_guardrails.core.errors import DeadlineError, GuardError, ModelError, PolicyError, SamplingError
from sg_guardrails.core.policy import Smoothing
from sg_guardrails.core.stages import Stages
from sg_guardrails.core.types import Answer, Certificate, Copy, Prompt, Sampler, Vote
from sg_guardrails.core.waiting import NEVER, Deadline, refuse_unwanted

MOST_TOGETHER = 256
"""Copies of several requests in one call of the sampler; those of one request stay together whatever their number."""
_ROOMY = 4
"""A call of all copies takes at most about twice as long as one of just over half, and that twice over is room."""
_RECENT = 8


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
    certificate: Certificate | None = None
    """What was proven beside the vote, on other copies."""
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


class Pace:
    """How long the last calls of the model under a deadline took. Any number of threads may use it."""

    def __init__(self) -> None:
        self._took: deque[float] = deque(maxlen=_RECENT)

    def note(self, seconds: float) -> None:
        """A call took so long; infinity where it came too late."""
        self._took.append(seconds)

    def has_room_in(self, seconds: float) -> bool:
        """Whether a call of all copies is sure enough to end within so many seconds; not before one was seen."""
        took = tuple(self._took)
        return bool(took) and _ROOMY * max(took) <= seconds


@dataclass(frozen=True, slots=True)
class Asking:
    """Asks the model."""

    sampler: Sampler
    drafter: Sampler | None = None
    """Asked in the sampler's place where a poll is about drafts."""
    deadline: Deadline = NEVER
    """Of the sampler's calls."""
    stages: Stages = field(default_factory=Stages)
    """Where these calls are counted as ``sample``."""
    pace: Pace = field(default_factory=Pace)
    """Of the guard's calls under a deadline."""

    @property
    def is_pressed(self) -> bool:
        """Whether the deadline could pass before a call of all copies ends: with some in hand, these may decide."""
        left = self.deadline.left
        return left is not None and not self.pace.has_room_in(left)

    def ask(self, polls: Sequence[Poll]) -> None:
        """Ask all that is due, each strength of noise apart and `MOST_TOGETHER` at once; a failure is its poll's error.

        Raises:
            ModelError, PolicyError: What is wrong for every request alike.
        """
        for smoothing, draft in dict.fromkeys((poll.smoothing, poll.draft) for poll in polls):
            for some in _together([poll for poll in polls if poll.smoothing == smoothing and poll.draft == draft]):
                self._ask(some)

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
        refuse_unwanted()
        began = self.deadline.clock()
        try:
            with self.stages.of("sample"):
                answers = self.deadline.within(lambda: sampler(copies, poll.smoothing))
        except GuardError as error:
            if isinstance(error, DeadlineError):
                self.pace.note(inf)
            raise
        except Exception as error:  # whatever a model raises, it is no answer
            raise SamplingError(f"asking the model failed: {type(error).__name__}") from error
        if self.deadline.until is not None:
            self.pace.note(self.deadline.clock() - began)
        return _checked(answers, len(copies))


def _checked(answers: object, count: int) -> list[Answer]:
    """What a sampler returned, where it is so many answers. Raises SamplingError for anything else."""
    if not isinstance(answers, list | tuple):
        raise SamplingError(f"the sampler gave a {type(answers).__name__} in place of a list of answers")
    if len(answers) != count:
        raise SamplingError(f"the sampler gave {len(answers)} answers to {count} copies")
    if strangers := [type(answer).__name__ for answer in answers if not isinstance(answer, Answer)]:
        raise SamplingError(f"the sampler gave a {strangers[0]} in place of an Answer")
    try:
        return [Answer.parse(answer) for answer in answers]
    except GuardError as error:
        raise SamplingError(f"the sampler gave a broken answer: {error}") from error


def _together(polls: Sequence[Poll]) -> Iterator[list[Poll]]:
    """The polls in order, so many at a time as one call takes: memory and the deadline are those of one call."""
    some, copies = list[Poll](), 0
    for poll in polls:
        if some and copies + poll.due > MOST_TOGETHER:
            yield some
            some, copies = [], 0
        some.append(poll)
        copies += poll.due
    if some:
        yield some
