"""Rounds: which copies of a request are asked next, until its vote is settled or the time is up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

from sg_guardrails.asking import Asking, Poll
from sg_guardrails.core import early, noise
from sg_guardrails.core.policy import Smoothing
from sg_guardrails.core.stages import Stages
from sg_guardrails.core.terms import Disagrees, parts
from sg_guardrails.core.types import Answer, Copy, Prompt, Vote
from sg_guardrails.core.vote import wording
from sg_guardrails.panel import Panel

_PART = 4
"""After the first round, at least this part of the copies is asked at once: each round costs a call of the model."""


@dataclass(frozen=True, slots=True)
class Cast:
    """The votes of a request, as the cache keeps them."""

    smoothing: Smoothing
    answers: tuple[Answer, ...]
    vote: Vote
    finished: Answer | None


@dataclass(frozen=True, slots=True)
class Rounds:
    """Leads polls through their rounds by one policy."""

    panel: Panel
    key: noise.Key
    asking: Asking

    @property
    def stages(self) -> Stages:
        """What this call's time is spent on."""
        return self.panel.stages

    def open(self, prompt: Prompt, candidate: Answer | None, cast: Cast | None) -> Poll:
        """A poll with its first copies due, or with the votes that were cast when the same was asked before."""
        smoothing = self.panel.policy.smoothing
        poll = Poll(prompt, candidate, smoothing)
        if cast is not None:
            poll = self._planned(poll, cast.smoothing, draft=False)
            poll.answers, poll.finished = list(cast.answers), cast.finished
            # What settled the vote with one answer under review need not settle it with another.
            poll.due = 0 if cast.finished is not None else self._more(poll)
            poll.vote = None if poll.due else cast.vote
            return poll
        if (adaptive := smoothing.adaptive) is not None and prompt.media:
            smoothing = noise.scaled(smoothing, adaptive.start_scale, adaptive.start_copies)
        return self._planned(poll, smoothing)

    def run(self, polls: Sequence[Poll]) -> None:
        """Ask until nothing is due."""
        while due := [poll for poll in polls if poll.due and poll.error is None]:
            self.asking.ask(due)
            self.panel.read_ahead([(poll.prompt, poll.answers) for poll in due if poll.error is None])
            for poll in due:
                poll.due = 0 if poll.error is not None else self._more(poll)
        if drafted := [poll for poll in polls if poll.draft and poll.error is None and poll.vote is None]:
            self._finish(drafted)

    def settled(self, poll: Poll) -> bool:
        """Whether no answer that is still out could change the verdict, were an adversary to give it."""
        if not poll.answers or poll.draft or poll.vote is not None:
            return False
        return not self._lacks_clean(poll) and self._wanted(poll, alpha=0.0) == 0

    def lacks(self, poll: Poll) -> bool:
        """Whether the policy would have more copies asked than were answered."""
        return poll.left > 0 and (not poll.answers or self._lacks_clean(poll) or self._more(poll) > 0)

    def _lacks_clean(self, poll: Poll) -> bool:
        """Whether a rule looks at the clean copy's answer and that one is out."""
        out = poll.clean is None and len(poll.plan) > 1 and poll.plan[0].seed is None
        conditions = (part for rule in self.panel.policy.rules for part in parts(rule.when))
        return out and any(isinstance(part, Disagrees) and part.disagrees == "clean" for part in conditions)

    def next_copies(self, prompt: Prompt, answers: Sequence[Answer], candidate: Answer | None) -> Sequence[Copy]:
        """What a caller who asks by itself asks next, on one level of noise; nothing once the vote is settled."""
        poll = self._planned(Poll(prompt, candidate, self.panel.policy.smoothing), self.panel.policy.smoothing)
        if answers:
            poll.answers = list(answers)
            poll.due = self._more(poll)
        return poll.next

    # Which copies -----------------------------------------------------------------------------------------------

    def _planned(self, poll: Poll, smoothing: Smoothing, *, draft: bool = True) -> Poll:
        # The copies of the first level have noise of their own, so that what fooled them tells nothing of the second.
        first = self.panel.policy.smoothing.copies if self._starting(smoothing) else 0
        plan = noise.copies_of(poll.prompt, smoothing, self.key, first=first)
        several = len(plan) > 1
        planned = replace(
            poll,
            smoothing=smoothing,
            plan=plan,
            answers=[],
            clean=0 if several and plan[0].seed is None else None,
            draft=draft and several and self.asking.drafter is not None,
            vote=None,
        )
        planned.due = self._first(planned)
        return planned

    def _first(self, poll: Poll) -> int:
        """The fewest copies that could settle the vote; all where the policy asks for all and has the time."""
        smoothing, total = self.panel.policy.smoothing, len(poll.plan)
        staged = smoothing.early != "off" or self.asking.is_pressed
        if not staged or self._starting(poll.smoothing) or total == 1:
            return total
        fewest = early.enough(self.panel.policy, total)
        if smoothing.early != "sequential":
            return fewest
        clean = 0 if poll.clean is None else 1
        return clean + early.fewest(0, 0, total - clean, fewest - clean, smoothing.alpha)

    def _starting(self, smoothing: Smoothing) -> bool:
        """Whether that is the first of two levels of noise."""
        whole = self.panel.policy.smoothing
        return whole.adaptive is not None and smoothing.copies < whole.copies

    def _more(self, poll: Poll) -> int:
        """How many copies are asked next. Where that cannot be told, all: what is broken comes out at the judging."""
        smoothing = self.panel.policy.smoothing
        if not poll.left:
            return self._escalated(poll) if self._starting(poll.smoothing) else 0
        if smoothing.early == "off":
            return poll.left
        wanted = self._wanted(poll, alpha=smoothing.alpha if smoothing.early == "sequential" else 0.0)
        return wanted and min(poll.left, max(wanted, ceil(len(poll.plan) / _PART)))

    def _wanted(self, poll: Poll, *, alpha: float) -> int:
        """The fewest further copies that could settle the vote up to a risk of `alpha`; 0 where it is settled."""
        try:
            leader, votes, noisy = self._leader(poll, whole=alpha > 0)
            asked = len(poll.answers) - (poll.clean is not None)
            total = len(poll.plan)
            lacking = early.enough(self.panel.policy, total) - votes
            wanted = early.fewest(noisy, asked, poll.left, lacking, alpha)
            if wanted:
                return wanted
            found = self.panel.found(poll.prompt, leader, candidate=poll.candidate, clean=poll.cleanly)
            lacking = early.enough(self.panel.policy, total, found) - votes
            return early.fewest(noisy, asked, poll.left, lacking, alpha)
        except Exception:  # noqa: BLE001 - no decision is no early decision; conclude meets the same error
            return poll.left

    def _leader(self, poll: Poll, *, whole: bool) -> tuple[Answer, int, int]:
        """The leading answer, its votes, and those of them that perturbed copies gave.

        Exactly settled is only what one wording carries, since later answers could part a cluster of several; the
        chance of it is told by the whole cluster. The clean copy is the attacker's own: it says nothing of the others.
        """
        if whole:
            elected = self.panel.elect(poll.answers)
            voters, leader = elected.members, poll.answers[elected.choice]
        else:
            said = [wording(answer) for answer in poll.answers]
            most = Counter(said).most_common(1)[0][0]
            voters = tuple(index for index, words in enumerate(said) if words == most)
            leader = poll.answers[voters[0]]
        return leader, len(voters), len(voters) - (poll.clean in voters)

    def _escalated(self, poll: Poll) -> int:
        """0 where the first level leaves no doubt; else the poll goes on to the second, and this is its first round."""
        if self._unanimous(poll):
            return 0
        smoothing = self.panel.policy.smoothing
        adaptive = smoothing.adaptive
        assert adaptive is not None  # noqa: S101 - only then is there a first level
        louder = noise.scaled(smoothing, adaptive.max_scale, smoothing.copies)
        self._restart(poll, self._planned(poll, louder, draft=poll.draft))
        return poll.due

    def _unanimous(self, poll: Poll) -> bool:
        try:
            return len(self.panel.elect(poll.answers).weights) == 1
        except Exception:  # noqa: BLE001 - what cannot be told is doubt
            return False

    # Drafts -----------------------------------------------------------------------------------------------------

    def _finish(self, polls: Sequence[Poll]) -> None:
        """Let each winner's representative finish; where its beginning no longer carries the vote, ask all in full."""
        finishing: list[tuple[Poll, Vote, Poll]] = []
        again: list[Poll] = []
        for poll in polls:
            try:
                elected = _by_a_noisy_copy(poll, self.panel.elect(poll.answers))
            except Exception:  # noqa: BLE001 - drafts that cannot be counted decide nothing
                again.append(poll)
                continue
            alone = Poll(poll.prompt, None, poll.smoothing, plan=(poll.plan[elected.choice],), due=1)
            finishing.append((poll, elected, alone))
        self.asking.ask([alone for _, _, alone in finishing])
        for poll, elected, alone in finishing:
            poll.asked += alone.asked
            poll.error = alone.error
            if alone.error is None and self._backed(poll, elected, alone.answers[0]):
                poll.vote, poll.finished = elected, alone.answers[0]
            elif alone.error is None:
                again.append(poll)
        for poll in again:
            self._restart(poll, self._planned(poll, poll.smoothing, draft=False))
        if again:
            self.run(again)

    def _backed(self, poll: Poll, elected: Vote, whole: Answer) -> bool:
        """Whether the whole answer's beginning, in its draft's place, wins the same votes."""
        beginning = replace(whole, text=whole.text[: len(poll.answers[elected.choice].text)])
        drafts = [*poll.answers]
        drafts[elected.choice] = beginning
        try:
            return self.panel.elect(drafts).members == elected.members
        except Exception:  # noqa: BLE001 - what cannot be compared is not backed
            return False

    @staticmethod
    def _restart(poll: Poll, planned: Poll) -> None:
        poll.smoothing, poll.plan, poll.answers = planned.smoothing, planned.plan, planned.answers
        poll.clean, poll.draft, poll.due = planned.clean, planned.draft, planned.due


def _by_a_noisy_copy(poll: Poll, elected: Vote) -> Vote:
    """The vote with a noisy copy as its representative, where one has the clean copy's very words.

    What follows the draft is not voted on, and the clean copy is the one that an attacker knows to the bit.
    """
    if elected.choice != poll.clean:
        return elected
    words = wording(poll.answers[elected.choice])
    alike = (index for index in elected.members if index != poll.clean and wording(poll.answers[index]) == words)
    return replace(elected, choice=next(alike, elected.choice))
