"""The panel: a policy's voters and judges for one call of the guard, each text embedded and scored once."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from sg_guardrails.core import certify, judge, vote
from sg_guardrails.core.errors import GuardError, SamplingError
from sg_guardrails.core.inquiry import Judge
from sg_guardrails.core.media import Image
from sg_guardrails.core.nearness import near_scorer
from sg_guardrails.core.policy import Policy
from sg_guardrails.core.rules import Near, parts
from sg_guardrails.core.types import ACTIONS, Answer, Embedder, Finding, Prompt, Scorer, Sentiment, Verdict, Vote

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
    ) -> None:
        self.policy = policy
        self._embedder, self._sentiment = once(embedder), once(sentiment)
        near = {part.key: part for rule in policy.rules for part in parts(rule.when) if isinstance(part, Near)}
        by_example = {key: near_scorer(part.near, embedder) for key, part in near.items()}
        self._scorers = {name: once(scorer) for name, scorer in {**scorers, **by_example}.items()}
        self._judges = {name: once(judge) for name, judge in (judges or {}).items()}
        self._reader, self._rewriter = reader, rewriter
        self._read: dict[str, str] = {}

    def elect(self, answers: Sequence[Answer], timings: dict[str, float] | None = None) -> Vote:
        """The vote among the answers. Raises SamplingError where the majority says nothing at all."""
        spent = {} if timings is None else timings

        def embed(texts: Sequence[str]) -> NDArray[np.float32]:
            begin = time.perf_counter()
            vectors = self._embedder(texts)
            spent["embed"] = spent.get("embed", 0.0) + (time.perf_counter() - begin) * 1000
            return vectors

        began = time.perf_counter()
        elected = vote.elect(
            answers, self.policy.voting, embed=embed, sentiment=self._sentiment, refusal=self._scorers["refusal"]
        )
        spent["vote"] = (time.perf_counter() - began) * 1000
        if not answers[elected.choice].text.strip() and not answers[elected.choice].tool_calls:
            raise SamplingError("the model gave no answer to most copies")
        return elected

    def read_ahead(self, answers: Iterable[Answer]) -> None:
        """Embed the answers of many requests in one call; what fails here fails again where it is needed."""
        with suppress(Exception):
            self._embedder(sorted({vote.wording(answer)[0] for answer in answers}))

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
            voting, refusal = self.policy.voting, self._scorers["refusal"]
            return vote.contradicts(other, answers[elected.choice], voting, embed=self._embedder, refusal=refusal)

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
            self._rewriter,
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
            said = self._reader(new)
            self._read |= {picture.digest: text for picture, text in zip(new, said, strict=True)}
        return [self._read[picture.digest] for picture in pictures]

    def found(
        self, prompt: Prompt, leader: Answer, *, candidate: Answer | None, clean: Answer | None
    ) -> tuple[Finding, ...]:
        """What the rules find where `leader` is all that the copies said."""
        if not leader.text.strip() and not leader.tool_calls:
            raise SamplingError("an empty answer leads")
        return judge.judge(self.policy, self.case(prompt, [leader], _ALONE, candidate=candidate, clean=clean)).findings

    def safe(self, prompt: Prompt, answer: Answer) -> bool:
        """Whether no rule, enforced or observing, finds fault with an answer that stands alone; silence is not safe."""
        if not answer.text.strip() and not answer.tool_calls:
            return False
        found = self.found(prompt, answer, candidate=None, clean=None)
        return all(finding.action in ("allow", "flag") for finding in found)

    def agreeing(self, anchor: Answer, answers: Sequence[Answer]) -> int:
        """How many answers say what the anchor says, each compared with it alone."""
        voting, refusal = self.policy.voting, self._scorers["refusal"]
        return int(certify.agreeing(anchor, answers, voting, embed=self._embedder, refusal=refusal).sum())


def once(ask: Rows[_Item]) -> Rows[_Item]:
    """`ask`, called for texts that it was not yet asked for, each of them once."""
    known: dict[_Item, Any] = {}

    def rows(texts: Sequence[_Item]) -> NDArray[np.float32]:
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new or not texts:
            given = np.asarray(ask(new))
            if given.ndim == 0 or len(given) != len(new):
                raise GuardError(f"an embedder or scorer must return one row for each of {len(new)} texts")
            known.update(zip(new, given, strict=True))
        return np.array([known[text] for text in texts]) if texts else given

    return rows
