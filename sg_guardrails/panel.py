"""The panel: a policy's voters and judges for one call of the guard, each text embedded and scored once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from sg_guardrails.core import certify, judge, vote
from sg_guardrails.core.errors import GuardError, PolicyError, SamplingError
from sg_guardrails.core.fold import readable
from sg_guardrails.core.inquiry import Judge
from sg_guardrails.core.media import Image
from sg_guardrails.core.nearness import near_scorer
from sg_guardrails.core.policy import Policy
from sg_guardrails.core.stages import Stages
from sg_guardrails.core.terms import All, AnyOf, Condition, Near, Not, Scored, parts
from sg_guardrails.core.types import ACTIONS, Answer, Embedder, Finding, Prompt, Scorer, Sentiment, Verdict, Vote
from sg_guardrails.core.waiting import NEVER, Deadline

_Item = TypeVar("_Item", bound=Hashable)
Rows = Callable[[Sequence[_Item]], NDArray[np.float32]]
Reader = Callable[[Sequence[Image]], Sequence[str]]
"""Says what stands in pictures, a text each."""
_ALONE = Vote(labels=(0,), winner=0, choice=0, agreement=1.0, abstained=False, weights=(1.0,))


class Panel:
    """Elects and judges by one policy. It remembers texts while one call of the guard lasts, and is then dropped.

    Args:
        policy: The policy of the call: one that is reloaded meanwhile changes nothing here.
        embedder: Texts to vectors.
        sentiment: Tone in [-1, 1].
        scorers: By name; ``refusal`` among them.
        judges: LLM judges by name.
        reader: Reads the text in pictures.
        rewriter: Has the policy's model write a text anew.
        deadline: Of every call of one of these.
        stages: Where their time is counted: ``embed``, ``vote``, ``judge``.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        embedder: Embedder,
        sentiment: Sentiment,
        scorers: Mapping[str, Scorer],
        judges: Mapping[str, Judge] | None = None,
        reader: Reader | None = None,
        rewriter: Callable[[str], str] | None = None,
        deadline: Deadline = NEVER,
        stages: Stages | None = None,
    ) -> None:
        self.policy, self.stages = policy, stages or Stages()
        near = {part.key: part for rule in policy.rules for part in parts(rule.when) if isinstance(part, Near)}
        by_example = {key: near_scorer(part.near, embedder) for key, part in near.items()}
        self._vectors, self._sentiment = once(embedder, deadline), once(sentiment, deadline)
        self._scorers = {name: once(scorer, deadline) for name, scorer in {**scorers, **by_example}.items()}
        self._judges = {name: once(judge, deadline) for name, judge in (judges or {}).items()}
        # Heads that embed with this very embedder, and that a rule asks whatever else it asks.
        heads = {name: scorer for name, scorer in scorers.items() if getattr(scorer, "embedder", None) is embedder}
        asked, said = set[str](), set[str]()
        for rule in policy.rules:
            if isinstance(part := _first(rule.when), Scored):
                (asked if part.of == "user" or rule.where == "user" else said).add(part.scorer)
        self._of_asked = [head for name, head in heads.items() if name in asked]
        self._of_said = [head for name, head in heads.items() if name in said]
        self._of_torn = [head for name, head in heads.items() if name in said | {"refusal"}]
        self._reader, self._rewriter, self._deadline = reader, rewriter, deadline
        self._read: dict[str, str] = {}

    def elect(self, answers: Sequence[Answer]) -> Vote:
        """The vote among the answers. Raises SamplingError where the majority says nothing at all."""
        with self.stages.of("vote"):
            elected = vote.elect(
                answers,
                self.policy.voting,
                embed=self._embedder,
                sentiment=self._sentiment,
                refusal=self._scorers["refusal"],
            )
        if not answers[elected.choice].text.strip() and not answers[elected.choice].tool_calls:
            raise SamplingError("the model gave no answer to most copies")
        return elected

    def _embedder(self, texts: Sequence[str]) -> NDArray[np.float32]:
        with self.stages.of("embed"):
            return self._vectors(texts)

    def read_ahead(self, cases: Sequence[tuple[Prompt, Sequence[Answer]]]) -> None:
        """Embed in one call what votes and heads will ask for piece by piece; what fails here fails again there.

        A vote on one wording needs neither its vector nor, as a rule, its stance.
        """
        texts: set[str] = set()
        for prompt, answers in cases:
            with suppress(Exception):
                said = sorted({vote.wording(answer)[0] for answer in answers})
                texts.update(_pieces(self._of_asked, [readable(text) for text in prompt.asked]))
                texts.update(_pieces(self._of_said if len(said) == 1 else self._of_torn, said))
                texts.update(said if len(said) > 1 else ())
        if texts:
            with suppress(Exception):
                self._embedder(sorted(texts))

    def case(
        self,
        prompt: Prompt,
        answers: Sequence[Answer],
        elected: Vote | None,
        *,
        candidate: Answer | None,
        clean: Answer | None,
    ) -> judge.Case:
        """All that the rules may look at."""

        @cache
        def disagrees(kind: Literal["candidate", "clean"]) -> bool:
            other = candidate if kind == "candidate" else clean
            if elected is None or other is None:
                return False
            if elected.abstained:
                return kind == "candidate"  # what no majority backs is not verified
            elect = answers[elected.choice]
            if vote.wording(other) == vote.wording(elect):
                return False
            voting, refusal = self.policy.voting, self._scorers["refusal"]
            return vote.contradicts(other, elect, voting, embed=self._embedder, refusal=refusal)

        return judge.Case(
            prompt.asked,
            answers,
            elected,
            candidate,
            clean,
            disagrees,
            self._scorers,
            self._judges,
            lambda: self._pictured(prompt),
            self._rewritten,
        )

    def judged(
        self,
        prompt: Prompt,
        answers: Sequence[Answer],
        elected: Vote | None,
        *,
        candidate: Answer | None,
        clean: int | None,
        finished: Answer | None,
    ) -> tuple[Verdict, judge.Case]:
        """The verdict; after a draft vote the stricter of that on the drafts and that on the finished answer."""

        def held(said: Sequence[Answer]) -> tuple[Verdict, judge.Case]:
            unperturbed = None if clean is None else said[clean]
            case = self.case(prompt, said, elected, candidate=candidate, clean=unperturbed)
            return judge.judge(self.policy, case), case

        drafted, case = held(answers)
        if finished is None or elected is None:
            return drafted, case
        # The finished answer stands for all whose drafts agreed with its own: were it one of many, it could not be
        # blocked for what it says after the draft.
        members = {*elected.members}
        whole, case = held([finished if index in members else said for index, said in enumerate(answers)])
        return max(whole, drafted, key=lambda verdict: ACTIONS.index(verdict.action)), case

    def _pictured(self, prompt: Prompt) -> list[str]:
        """What each picture of the prompt says; each is read once."""
        pictures = [part for part in prompt.media if isinstance(part, Image)]
        new = [picture for picture in pictures if picture.digest not in self._read]
        if new and self._reader is not None:
            said = self._deadline.within(partial(self._reader, new))
            self._read |= {picture.digest: text for picture, text in zip(new, said, strict=True)}
        return [self._read[picture.digest] for picture in pictures]

    def _rewritten(self, text: str) -> str:
        return "" if self._rewriter is None else self._deadline.within(partial(self._rewriter, text))

    def found(
        self, prompt: Prompt, leader: Answer, *, candidate: Answer | None, clean: Answer | None
    ) -> tuple[Finding, ...]:
        """What the rules find where `leader` is all that the copies said."""
        if not leader.text.strip() and not leader.tool_calls:
            raise SamplingError("an empty answer leads")
        with self.stages.of("judge"):
            verdict = judge.judge(self.policy, self.case(prompt, [leader], _ALONE, candidate=candidate, clean=clean))
        if verdict.untold:
            raise SamplingError(f"the rule {verdict.untold[0]} could not be told")
        return verdict.findings

    def safe(self, prompt: Prompt, answer: Answer) -> bool:
        """Whether no rule, enforced or observing, finds fault with an answer that stands alone; silence is not safe."""
        if not answer.text.strip() and not answer.tool_calls:
            return False
        found = self.found(prompt, answer, candidate=None, clean=None)
        return all(finding.action in ("allow", "flag") for finding in found)

    def agreeing(self, anchor: Answer, answers: Sequence[Answer]) -> int:
        """How many answers say what the anchor says, each compared with it alone."""
        voting, refusal = self.policy.voting, self._scorers["refusal"]
        with self.stages.of("vote"):
            return int(certify.agreeing(anchor, answers, voting, embed=self._embedder, refusal=refusal).sum())


def refuse_incomplete(
    policy: Policy, scorers: Iterable[str], judges: Iterable[str], *, reads_pictures: bool, drafts: bool
) -> None:
    """Raise PolicyError where the policy needs a part that a guard has not got."""
    known = set(scorers)
    missing = judge.missing_parts(policy, known, judges, reads_pictures=reads_pictures)
    if missing or "refusal" not in known:
        needed = ", ".join(missing) or "the scorer 'refusal'"
        raise PolicyError(f"policy {policy.name} needs {needed}: pass it to SmoothGuard")
    if policy.voting.draft_tokens is not None and not drafts:
        raise PolicyError(f"policy {policy.name} votes on drafts: pass a sampler for them, SmoothGuard(draft=...)")


def _first(when: Condition) -> Condition:
    """The condition that is looked at whatever the others give."""
    match when:
        case All():
            return _first(when.all[0])
        case AnyOf():
            return _first(when.any[0])
        case Not():
            return _first(when.not_)
        case _:
            return when


def _pieces(heads: Iterable[Any], texts: Sequence[str]) -> Iterator[str]:
    for head in heads:
        for pieces in head.reads(texts):
            yield from pieces


def once(ask: Rows[_Item], deadline: Deadline = NEVER) -> Rows[_Item]:
    """`ask`, called for texts that it was not yet asked for, each of them once, within the deadline."""
    known: dict[_Item, Any] = {}

    def rows(texts: Sequence[_Item]) -> NDArray[np.float32]:
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new or not texts:
            given = np.asarray(deadline.within(partial(ask, new)))
            if given.ndim == 0 or len(given) != len(new):
                raise GuardError(f"an embedder or scorer must return one row for each of {len(new)} texts")
            known.update(zip(new, given, strict=True))
        return np.array([known[text] for text in texts]) if texts else given

    return rows
