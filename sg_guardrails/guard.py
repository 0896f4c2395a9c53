"""SmoothGuard: a prompt becomes copies, these become answers, a vote, a verdict, an outcome."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sg_guardrails.core import judge, noise, vote
from sg_guardrails.core.errors import GuardError, MediaError, ModelError, PolicyError, SamplingError
from sg_guardrails.core.policy import Policy
from sg_guardrails.core.types import Answer, Copy, Embedder, Outcome, Prompt, Sampler, Scorer, Sentiment, Vote
from sg_guardrails.record import emit as record

Request = tuple[Prompt, Answer | None]
"""A prompt, and the answer under review where someone else produced one."""


class SmoothGuard:
    """Re-asks a model under noise, elects the majority answer and holds it against a policy.

    A guard holds no state between calls and may be used from any number of threads. It is built from callables;
    `sg_guardrails.local.local_guard` builds one from a policy's model ids.

    Args:
        policy: A Policy, a shipped name or a path.
        sampler: Asks the model; owns where noise enters.
        embedder: Texts to vectors.
        sentiment: Tone of each answer, in [-1, 1].
        scorers: By name; ``refusal`` must be among them, and every scorer that the policy's rules name.
        key: The secret that seeds the noise; by default that of the process (SG_GUARDRAILS_KEY, else random).
        emit: What takes each outcome's record; by default one structlog event.

    Raises:
        PolicyError: If a rule names a scorer that is not given.
    """

    def __init__(
        self,
        policy: Policy | str,
        *,
        sampler: Sampler,
        embedder: Embedder,
        sentiment: Sentiment,
        scorers: Mapping[str, Scorer],
        key: noise.Key | None = None,
        emit: Callable[..., None] = record,
    ) -> None:
        self.policy = Policy.load(policy)
        self._sampler, self._embedder, self._sentiment = sampler, embedder, sentiment
        self._scorers, self._key, self._emit = dict(scorers), key or noise.process_key(), emit
        missing = judge.missing_scorers(self.policy, self._scorers)
        if missing or "refusal" not in self._scorers:
            raise PolicyError(f"policy {self.policy.name} needs the scorers {', '.join(missing) or 'refusal'}")

    # The guard is the model -------------------------------------------------------------------------------------

    def check(self, prompt: Prompt) -> Outcome:
        """Answer `prompt`: sample the copies, elect, judge.

        Raises:
            ModelError: If the policy's model cannot be loaded. Any other failure becomes an outcome by ``on_error``.
            GuardError: The failure itself, under ``on_error: raise``.
        """
        return self.check_many([prompt])[0]

    def check_many(self, prompts: Sequence[Prompt]) -> list[Outcome]:
        """`check` for each prompt; the copies of all of them are sampled together."""
        return self._run([(prompt, None) for prompt in prompts])

    async def acheck(self, prompt: Prompt) -> Outcome:
        """`check` on a worker thread, so that the event loop stays free."""
        return await asyncio.to_thread(self.check, prompt)

    # The guard verifies another model's answer ------------------------------------------------------------------

    def review(self, prompt: Prompt, answer: Answer | str) -> Outcome:
        """Judge an answer that someone else gave to `prompt`, against the guard's own vote.

        Without media nothing is sampled, and the rules for the candidate alone decide. Raises as `check` does.
        """
        return self.review_many([(prompt, answer)])[0]

    def review_many(self, pairs: Sequence[tuple[Prompt, Answer | str]]) -> list[Outcome]:
        """`review` for each pair; the copies of all of them are sampled together."""
        return self._run([(prompt, Answer.parse(answer)) for prompt, answer in pairs])

    async def areview(self, prompt: Prompt, answer: Answer | str) -> Outcome:
        """`review` on a worker thread."""
        return await asyncio.to_thread(self.review, prompt, answer)

    def judge_text(self, answer: Answer | str) -> Outcome:
        """Judge an answer whose prompt is unknown, by the rules for the candidate alone."""
        return self.review(Prompt(()), answer)

    # Answers that the caller collected --------------------------------------------------------------------------

    def copies(self, prompt: Prompt) -> list[Copy]:
        """The copies to ask where the caller samples by itself, then calls `decide`: seeded as `check` seeds them.

        The clean copy comes first where the policy includes it; `sg_guardrails.perturb` puts noise on the others.
        """
        return noise.copies_of(prompt, self.policy.smoothing, self._key)

    def decide(
        self,
        prompt: Prompt,
        answers: Sequence[Answer | str],
        *,
        clean: int | None = None,
        candidate: Answer | str | None = None,
    ) -> Outcome:
        """Elect and judge answers already collected: `check` is sample and decide.

        Args:
            prompt: What was asked.
            answers: One per copy.
            clean: Index of the answer to the unperturbed prompt, where there is one.
            candidate: The answer under review, where someone else produced it.
        """
        parsed = [Answer.parse(answer) for answer in answers]
        reviewed = None if candidate is None else Answer.parse(candidate)
        if not parsed and reviewed is None:
            raise GuardError("there is nothing to decide: pass answers, a candidate, or both")
        if clean is not None and not 0 <= clean < len(parsed):
            raise GuardError(f"clean is an index among the {len(parsed)} answers, got {clean}")
        asked = self._copies(prompt, reviewed)
        if isinstance(asked, GuardError):
            return self.refuse(asked, prompt=prompt, candidate=reviewed)
        if asked and not parsed:
            return self.refuse(SamplingError("no copy was answered"), prompt=prompt, candidate=reviewed)
        few = f"{len(parsed)} of {len(asked)} copies were answered" if len(parsed) < len(asked) else None
        return self._conclude(prompt, parsed, candidate=reviewed, clean=clean, timings={}, degraded=few)

    # Edges for integrations -------------------------------------------------------------------------------------

    def skip(self, answer: Answer | str, *, reason: str) -> Outcome:
        """Hand `answer` on unjudged, because the policy says so (``on_missing_context: pass``). Status ``skipped``."""
        given = Answer.parse(answer)
        return self._finish(Prompt(()), Outcome(given.text, "skipped", given, degraded=reason))

    def refuse(self, error: GuardError, *, prompt: Prompt | None = None, candidate: Answer | None = None) -> Outcome:
        """What the policy makes of `error`: an outcome of status ``error``, or the error raised."""
        observing = self.policy.mode == "observe" and candidate is not None
        if self.policy.on_error == "raise" and not observing:
            raise error
        allowed = candidate if self.policy.on_error == "allow" or observing else None
        text = self.policy.texts.error if allowed is None else allowed.text
        return self._finish(prompt or Prompt(()), Outcome(text, "error", allowed, error=error))

    def warm_up(self) -> None:
        """Load the models now instead of at the first call. Raises ModelError if one cannot be loaded."""
        for part in (self._sampler, self._embedder, self._sentiment, *self._scorers.values()):
            getattr(part, "warm_up", lambda: None)()

    # The way through --------------------------------------------------------------------------------------------

    def _run(self, requests: Sequence[Request]) -> list[Outcome]:
        """Sample all requests in one batch, then conclude each."""
        began = time.perf_counter()
        asked = [self._copies(prompt, candidate) for prompt, candidate in requests]
        drawn = self._sample(asked)
        sampled = (time.perf_counter() - began) * 1000
        return [
            self._conclude(prompt, answers, candidate=candidate, clean=self._clean(copies), timings={"sample": sampled})
            for (prompt, candidate), copies, answers in zip(requests, asked, drawn, strict=True)
        ]

    def _copies(self, prompt: Prompt, candidate: Answer | None) -> list[Copy] | GuardError:
        """The copies to ask; a verifier without media asks none."""
        most = self.policy.limits.max_media
        if len(prompt.media) > most:
            return MediaError(f"the prompt holds {len(prompt.media)} media, the policy's limits.max_media is {most}")
        if candidate is not None and not prompt.media:
            return []
        return self.copies(prompt)

    @staticmethod
    def _clean(copies: list[Copy] | GuardError) -> int | None:
        """The index of the unperturbed copy among several; a lone copy has no others to differ from."""
        return 0 if isinstance(copies, list) and len(copies) > 1 and copies[0].seed is None else None

    def _sample(self, asked: Sequence[list[Copy] | GuardError]) -> list[list[Answer] | GuardError]:
        """Each request's answers, or what went wrong with it: one bad request sinks no other."""
        sound = [copies for copies in asked if isinstance(copies, list)]
        try:
            pool = iter(self._ask([copy for copies in sound for copy in copies]))
        except (PolicyError, ModelError):
            raise
        except GuardError as error:
            if len(sound) > 1:
                return [self._sample([copies])[0] for copies in asked]
            return [error if isinstance(copies, list) else copies for copies in asked]
        return [[next(pool) for _ in copies] if isinstance(copies, list) else copies for copies in asked]

    def _ask(self, copies: Sequence[Copy]) -> list[Answer]:
        if not copies:
            return []
        try:
            answers = self._sampler(copies, self.policy.smoothing)
        except GuardError:
            raise
        except Exception as error:  # whatever a model raises, it is no answer
            raise SamplingError(f"asking the model failed: {type(error).__name__}") from error
        if len(answers) != len(copies):
            raise SamplingError(f"the sampler gave {len(answers)} answers to {len(copies)} copies")
        return answers

    def _conclude(
        self,
        prompt: Prompt,
        answers: list[Answer] | GuardError,
        *,
        candidate: Answer | None,
        clean: int | None,
        timings: dict[str, float],
        degraded: str | None = None,
    ) -> Outcome:
        """Elect, judge, hand on. Whatever fails on the way becomes what ``on_error`` says, never a pass."""
        if isinstance(answers, GuardError):
            return self.refuse(answers, prompt=prompt, candidate=candidate)
        try:
            elected = self._elect(answers, timings)
            case = self._case(prompt, answers, elected, candidate, clean)
            began = time.perf_counter()
            verdict = judge.judge(self.policy, case)
            status, answer, text = judge.hand_on(self.policy, verdict, case)
            timings["judge"] = (time.perf_counter() - began) * 1000
        except (PolicyError, ModelError):
            raise
        except GuardError as error:
            return self.refuse(error, prompt=prompt, candidate=candidate or self._observed(answers, clean))
        except Exception as error:  # noqa: BLE001 - a scorer or embedder that breaks has judged nothing
            broken = SamplingError(f"judging the answers failed: {type(error).__name__}")
            broken.__cause__ = error
            return self.refuse(broken, prompt=prompt, candidate=candidate or self._observed(answers, clean))
        timings["total"] = timings.get("sample", 0.0) + timings.get("vote", 0.0) + timings["judge"]
        return self._finish(
            prompt,
            Outcome(text, status, answer, elected, verdict, tuple(answers), clean, timings, degraded=degraded),
        )

    def _observed(self, answers: Sequence[Answer], clean: int | None) -> Answer | None:
        """The model's own answer, which goes on whatever fails while the policy only observes."""
        return answers[clean] if self.policy.mode == "observe" and clean is not None else None

    def _elect(self, answers: list[Answer], timings: dict[str, float]) -> Vote | None:
        if not answers:
            return None

        def embed(texts: Sequence[str]) -> NDArray[np.float32]:
            begin = time.perf_counter()
            vectors = self._embedder(texts)
            timings["embed"] = timings.get("embed", 0.0) + (time.perf_counter() - begin) * 1000
            return vectors

        began = time.perf_counter()
        voting, refusal = self.policy.voting, self._scorers["refusal"]
        elected = vote.elect(answers, voting, embed=embed, sentiment=self._sentiment, refusal=refusal)
        timings["vote"] = (time.perf_counter() - began) * 1000
        if not answers[elected.choice].text.strip() and not answers[elected.choice].tool_calls:
            raise SamplingError("the model gave no answer to most copies")
        return elected

    def _case(
        self, prompt: Prompt, answers: list[Answer], elected: Vote | None, candidate: Answer | None, clean: int | None
    ) -> judge.Case:
        cleanly = None if clean is None else answers[clean]

        @cache
        def disagrees(kind: Literal["candidate", "clean"]) -> bool:
            other = candidate if kind == "candidate" else cleanly
            if elected is None or other is None:
                return False
            if elected.abstained:
                return kind == "candidate"  # what no majority backs is not verified
            voting, refusal = self.policy.voting, self._scorers["refusal"]
            return vote.contradicts(other, answers[elected.choice], voting, embed=self._embedder, refusal=refusal)

        return judge.Case(prompt.asked, answers, elected, candidate, cleanly, disagrees, self._scorers)

    def _finish(self, prompt: Prompt, outcome: Outcome) -> Outcome:
        """Stamp policy and seed on the outcome and record it."""
        done = replace(outcome, policy=self.policy.id, seed_id=noise.seed_id(prompt, self._key))
        try:
            self._emit(done, prompt=prompt, policy=self.policy)
        except Exception as error:  # noqa: BLE001 - a record that fails must not turn one verdict into another
            return replace(done, degraded=f"recording failed: {type(error).__name__}")
        return done
