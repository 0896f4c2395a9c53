"""SmoothGuard: a prompt becomes copies, these become answers, a vote, a verdict, an outcome."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from sg_guardrails.asking import Asking, Poll
from sg_guardrails.cache import Cache
from sg_guardrails.certified import certified
from sg_guardrails.core import judge, noise
from sg_guardrails.core.certify import CONFIDENCE
from sg_guardrails.core.errors import (
    DeadlineError,
    GuardError,
    MediaError,
    ModelError,
    PolicyError,
    SamplingError,
)
from sg_guardrails.core.inquiry import Judge, chat_judge
from sg_guardrails.core.policy import Policy
from sg_guardrails.core.rewriting import rewrite_prompt
from sg_guardrails.core.types import (
    Answer,
    Copy,
    Embedder,
    Outcome,
    Prompt,
    Sampler,
    Scorer,
    Sentiment,
)
from sg_guardrails.panel import Panel, Reader
from sg_guardrails.record import emit as record
from sg_guardrails.rounds import Cast, Rounds

Request = tuple[Prompt, Answer | None]
"""A prompt, and the answer under review where someone else produced one."""


class SmoothGuard:
    """Re-asks a model under noise, elects the majority answer and holds it against a policy.

    A guard holds no state between calls but the votes that its policy has it keep (``voting.cache``), and may be used
    from any number of threads. It is built from callables; `sg_guardrails.local.local_guard` builds one from a policy's
    model ids.

    Args:
        policy: A Policy, a shipped name or a path.
        sampler: Asks the model; owns where noise enters.
        embedder: Texts to vectors.
        sentiment: Tone of each answer, in [-1, 1].
        scorers: By name; ``refusal`` must be among them, and every scorer that the policy's rules name.
        key: The secret that seeds the noise; by default that of the process (SG_GUARDRAILS_KEY, else random).
        emit: What takes each outcome's record; by default one structlog event.
        draft: Asks the model for the first ``voting.draft_tokens`` tokens of an answer; needed where a policy sets it.
        clock: Seconds; only differences count. Deadlines and timings are read from it.
        judges: LLM judges by the names that rules use. ``guard`` is the sampler itself, read by its first word, unless
            one of that name is given; `sg_guardrails.chat_judge` makes one of anything that answers a Prompt.
        reader: Says what stands in pictures, for rules that read them.

    Raises:
        PolicyError: If a rule needs a scorer, judge or reader that is not given, or the policy votes on drafts and
            nothing drafts.
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
        draft: Sampler | None = None,
        clock: Callable[[], float] = time.perf_counter,
        judges: Mapping[str, Judge] | None = None,
        reader: Reader | None = None,
    ) -> None:
        self.policy = Policy.load(policy)
        self._named = (self.policy, self.policy.id)
        self._sampler, self._embedder, self._sentiment = sampler, embedder, sentiment
        self._scorers, self._key, self._emit = dict(scorers), key or noise.process_key(), emit
        self._draft, self._clock = draft, clock
        self._votes: Cache[Cast] = Cache(self.policy.voting.cache)
        self._judges: dict[str, Judge] = {"guard": chat_judge(self._ask_once), **(judges or {})}
        self._reader = reader
        reads = reader is not None
        missing = judge.missing_parts(self.policy, self._scorers, self._judges, reads_pictures=reads)
        if missing or "refusal" not in self._scorers:
            needed = ", ".join(missing) or "the scorer 'refusal'"
            raise PolicyError(f"policy {self.policy.name} needs {needed}: pass it to SmoothGuard")
        if self.policy.voting.draft_tokens is not None and draft is None:
            raise PolicyError(
                f"policy {self.policy.name} votes on drafts: pass a sampler for them, SmoothGuard(draft=...)"
            )

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

    def certify(
        self,
        prompt: Prompt,
        *,
        copies: int = 200,
        anchor_copies: int = 20,
        confidence: float = CONFIDENCE,
        judge_error: float = 0.0,
    ) -> Outcome:
        """`check` with a certificate in ``outcome.vote.certificate``: in which radius no picture turns the majority.

        Asks ``anchor_copies + copies`` noisy copies. The outcome is that of the first; the others are counted.

        Args:
            prompt: Pictures and text; the policy's noise must be on pixels.
            copies: Fresh copies to count.
            anchor_copies: Copies that choose the answer the others are compared with.
            confidence: Of each of the two statements by itself.
            judge_error: Share of answers that the policy's rules may call safe wrongly; taken off the bound.

        Raises:
            PolicyError, GuardError: If no certificate would be valid for this policy, model or prompt; says why.
        """
        rounds = self._rounds()
        sizes = {"copies": copies, "anchor": anchor_copies}
        poll = certified(
            prompt, rounds.panel, rounds.asking, self._key, **sizes, confidence=confidence, judge_error=judge_error
        )
        return self._conclude(poll, rounds, {})

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

    def copies(
        self, prompt: Prompt, answered: Sequence[Answer | str] | None = None, *, candidate: Answer | str | None = None
    ) -> list[Copy]:
        """The copies to ask where the caller samples by itself, then calls `decide`: seeded as `check` seeds them.

        The clean copy comes first where the policy includes it; `sg_guardrails.perturb` puts noise on the others. Such
        a caller asks at one level of noise and without drafts.

        Args:
            prompt: What is asked.
            answered: None gives every copy. To ask in rounds, as ``smoothing.early`` has it: the answers in hand, to
                the first copies in order; what comes back is the next round, empty once the vote is settled.
            candidate: The answer under review, where someone else produced it.
        """
        if answered is None:
            return noise.copies_of(prompt, self.policy.smoothing, self._key)
        reviewed = None if candidate is None else Answer.parse(candidate)
        return list(self._rounds().next_copies(prompt, [Answer.parse(answer) for answer in answered], reviewed))

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
        if (error := self._unfit(prompt)) is not None:
            return self.refuse(error, prompt=prompt, candidate=reviewed)
        rounds = self._rounds()
        asked = self.copies(prompt) if prompt.media or reviewed is None else []
        if asked and not parsed:
            return self.refuse(SamplingError("no copy was answered"), prompt=prompt, candidate=reviewed)
        poll = Poll(prompt, reviewed, rounds.panel.policy.smoothing, asked, parsed, clean, asked=len(parsed))
        early = self.policy.smoothing.early != "off" and not self.copies(prompt, parsed, candidate=reviewed)
        few = f"{len(parsed)} of {len(asked)} copies were answered" if poll.left > 0 and not early else None
        return self._conclude(poll, rounds, {}, degraded=few)

    # Edges for integrations -------------------------------------------------------------------------------------

    def skip(self, answer: Answer | str, *, reason: str) -> Outcome:
        """Hand `answer` on unjudged, because the policy says so (``on_missing_context: pass``). Status ``skipped``."""
        given = Answer.parse(answer)
        return self._finish(Prompt(()), Outcome(given.text, "skipped", given, degraded=reason))

    def refuse(self, error: GuardError, *, prompt: Prompt | None = None, candidate: Answer | None = None) -> Outcome:
        """What the policy makes of `error`: an outcome of status ``error``, or the error raised."""
        return self._refused(error, Poll(prompt or Prompt(()), candidate, self.policy.smoothing))

    def warm_up(self) -> None:
        """Load the models now instead of at the first call. Raises ModelError if one cannot be loaded."""
        own = (self._sampler, self._draft, self._embedder, self._sentiment, self._reader)
        for part in (*own, *self._scorers.values(), *self._judges.values()):
            getattr(part, "warm_up", lambda: None)()

    # The way through --------------------------------------------------------------------------------------------

    def _run(self, requests: Sequence[Request]) -> list[Outcome]:
        """Sample all requests together, round after round, then conclude each."""
        began = self._clock()
        rounds = self._rounds(began)
        polls = [self._poll(rounds, prompt, candidate) for prompt, candidate in requests]
        rounds.run(polls)
        sampled = (self._clock() - began) * 1000
        if len(polls) > 1:
            rounds.panel.read_ahead(answer for poll in polls if poll.vote is None for answer in poll.answers)
        return [self._conclude(poll, rounds, {"sample": sampled}) for poll in polls]

    def _rounds(self, began: float | None = None) -> Rounds:
        policy = self.policy
        panel = Panel(
            policy,
            embedder=self._embedder,
            sentiment=self._sentiment,
            scorers=self._scorers,
            judges=self._judges,
            reader=self._reader,
            rewriter=lambda text: self._ask_once(rewrite_prompt(text)),
        )
        drafter = self._draft if policy.voting.draft_tokens is not None else None
        limit = policy.limits.deadline_seconds
        until = None if began is None or limit is None else began + limit
        return Rounds(panel, self._key, Asking(self._sampler, drafter, self._clock, until))

    def _ask_once(self, prompt: Prompt) -> str:
        """The policy's model, asked something of the guard's own: one copy, without noise."""
        (answer,) = self._sampler([Copy(prompt)], self.policy.smoothing)
        return answer.text

    def _poll(self, rounds: Rounds, prompt: Prompt, candidate: Answer | None) -> Poll:
        """The request with its first copies due; a verifier without media asks none."""
        error = self._unfit(prompt)
        if error is not None or (candidate is not None and not prompt.media):
            return Poll(prompt, candidate, rounds.panel.policy.smoothing, error=error)
        known = self._votes.get(self._cast_key(prompt, rounds.panel.policy))
        return rounds.open(prompt, candidate, known)

    def _unfit(self, prompt: Prompt) -> MediaError | None:
        most = self.policy.limits.max_media
        if len(prompt.media) <= most:
            return None
        return MediaError(f"the prompt holds {len(prompt.media)} media, the policy's limits.max_media is {most}")

    def _cast_key(self, prompt: Prompt, policy: Policy) -> tuple[str, ...]:
        """The whole prompt with its media, the policy with its model and revision, and the key of the seeds."""
        return (prompt.digest, self._policy_id(policy), self._key.id) if policy.voting.cache else ()

    def _policy_id(self, policy: Policy) -> str:
        """Kept, since hashing the policy for each outcome would cost more than judging a text."""
        named = self._named
        if named[0] is not policy:
            named = self._named = (policy, policy.id)
        return named[1]

    def _conclude(
        self, poll: Poll, rounds: Rounds, timings: dict[str, float], *, degraded: str | None = None
    ) -> Outcome:
        """Elect, judge, hand on. Whatever fails on the way becomes what the policy says of it, never a pass."""
        if isinstance(poll.error, DeadlineError) and rounds.settled(poll):
            degraded = f"the deadline passed; {len(poll.answers)} of {len(poll.plan)} copies had settled the vote"
        elif poll.error is not None:
            return self._refused(poll.error, poll)
        panel = rounds.panel
        try:
            elected = poll.vote or (panel.elect(poll.answers, timings) if poll.answers else None)
            began = self._clock()
            verdict, case = panel.judged(
                poll.prompt, poll.answers, elected, candidate=poll.candidate, clean=poll.clean, finished=poll.finished
            )
            status, answer, text = judge.hand_on(panel.policy, verdict, case)
            timings["judge"] = (self._clock() - began) * 1000
        except (PolicyError, ModelError):
            raise
        except GuardError as error:
            return self._refused(error, poll)
        except Exception as error:  # noqa: BLE001 - a scorer or embedder that breaks has judged nothing
            broken = SamplingError(f"judging the answers failed: {type(error).__name__}")
            broken.__cause__ = error
            return self._refused(broken, poll)
        timings["total"] = timings.get("sample", 0.0) + timings.get("vote", 0.0) + timings["judge"]
        proven = elected is not None and elected.certificate is not None  # on other copies than `check` asks
        if elected is not None and degraded is None and not proven and panel.policy.voting.cache:
            cast = Cast(poll.smoothing, tuple(poll.answers), elected, poll.finished)
            self._votes.put(self._cast_key(poll.prompt, panel.policy), cast)
        outcome = Outcome(text, status, answer, elected, verdict, poll.whole(elected), poll.clean, timings=timings)
        return self._finish(
            poll.prompt, replace(outcome, asked=poll.asked, candidate=poll.candidate, degraded=degraded)
        )

    def _refused(self, error: GuardError, poll: Poll) -> Outcome:
        behaviour = self.policy.on_timeout if isinstance(error, DeadlineError) else self.policy.on_error
        given = poll.candidate
        observing = self.policy.mode == "observe"
        if observing and given is None and not poll.draft:
            given = poll.cleanly  # the model's own answer goes on whatever fails while the policy only observes
        if behaviour == "raise" and not (observing and given is not None):
            raise error
        allowed = given if behaviour == "allow" or observing else None
        text = self.policy.texts.error if allowed is None else allowed.text
        outcome = Outcome(text, "error", allowed, error=error)
        return self._finish(poll.prompt, replace(outcome, asked=poll.asked, candidate=poll.candidate))

    def _finish(self, prompt: Prompt, outcome: Outcome) -> Outcome:
        """Stamp policy and seed on the outcome and record it."""
        done = replace(outcome, policy=self._policy_id(self.policy), seed_id=noise.seed_id(prompt, self._key))
        try:
            self._emit(done, prompt=prompt, policy=self.policy)
        except Exception as error:  # noqa: BLE001 - a record that fails must not turn one verdict into another
            return replace(done, degraded=f"recording failed: {type(error).__name__}")
        return done
