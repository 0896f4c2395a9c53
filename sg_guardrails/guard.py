"""SmoothGuard: a prompt becomes copies, these become answers, a vote, a verdict, an outcome."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

from sg_guardrails.asking import Asking, Poll
from sg_guardrails.cache import Cache
from sg_guardrails.certified import certified
from sg_guardrails.core import noise
from sg_guardrails.core.certify import CONFIDENCE
from sg_guardrails.core.errors import DeadlineError, GuardError, ModelError, PolicyError, SamplingError
from sg_guardrails.core.inquiry import Judge, chat_judge
from sg_guardrails.core.policy import Policy
from sg_guardrails.core.rewriting import rewrite_prompt
from sg_guardrails.core.types import Answer, Copy, Embedder, Outcome, Prompt, Sampler, Scorer, Sentiment
from sg_guardrails.core.waiting import NEVER, Deadline, on_a_thread
from sg_guardrails.outcomes import Outcomes, handed_on
from sg_guardrails.panel import Panel, Reader, refuse_incomplete
from sg_guardrails.record import emit as record
from sg_guardrails.rounds import Cast, Rounds

Request = tuple[Prompt, Answer | None]
"""A prompt, and the answer under review where someone else produced one."""
_ASKING = 0.75
"""Share of the deadline within which the model is asked: the rest is for judging the answers that are in hand then."""


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
        self._sampler, self._embedder, self._sentiment = sampler, embedder, sentiment
        self._scorers, self._key = dict(scorers), key or noise.process_key()
        self._outcomes = Outcomes(self._key, emit)
        self._draft, self._clock = draft, clock
        self._votes: Cache[Cast] = Cache(self.policy.voting.cache)
        self._judges: dict[str, Judge] = {"guard": chat_judge(self._ask_once), **(judges or {})}
        self._reader = reader
        has = {"reads_pictures": reader is not None, "drafts": draft is not None}
        refuse_incomplete(self.policy, self._scorers, self._judges, **has)

    @property
    def current(self) -> SmoothGuard:
        """What a request of several steps takes once and asks throughout: this guard (see `reload.ReloadingGuard`)."""
        return self

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
        """`check` on a worker thread, so that the event loop stays free.

        Cancelling it takes its copies out of the model's queue; what the model is at already, it finishes unheard.
        """
        return await on_a_thread(partial(self.check, prompt))

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
        rounds = self._rounds(None)
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
        """`review` on a worker thread; cancelled as `acheck` is."""
        return await on_a_thread(partial(self.review, prompt, answer))

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
        rounds = self._rounds(self._clock(), asks=False)
        return list(rounds.next_copies(prompt, [Answer.parse(answer) for answer in answered], reviewed))

    def decide(
        self,
        prompt: Prompt,
        answers: Sequence[Answer | str],
        *,
        clean: int | None = None,
        candidate: Answer | str | None = None,
        late: bool = False,
    ) -> Outcome:
        """Elect and judge answers already collected: `check` is sample and decide.

        Fewer answers than copies give a verdict only where those that lack could not change it (``degraded`` says so),
        or where the policy asks no further (``smoothing.early``); else ``on_error`` decides.

        Args:
            prompt: What was asked.
            answers: One per copy.
            clean: Index of the answer to the unperturbed prompt, where there is one.
            candidate: The answer under review, where someone else produced it.
            late: Whether the answers that lack came too late: then ``on_timeout`` decides.
        """
        parsed = [Answer.parse(answer) for answer in answers]
        reviewed = None if candidate is None else Answer.parse(candidate)
        if not parsed and reviewed is None:
            raise GuardError("there is nothing to decide: pass answers, a candidate, or both")
        if clean is not None and not 0 <= clean < len(parsed):
            raise GuardError(f"clean is an index among the {len(parsed)} answers, got {clean}")
        if (error := self.policy.limits.unfit(prompt.media)) is not None:
            return self.refuse(error, prompt=prompt, candidate=reviewed)
        rounds = self._rounds(self._clock(), asks=False)
        plan = self.copies(prompt) if prompt.media or reviewed is None else []
        poll = Poll(prompt, reviewed, rounds.panel.policy.smoothing, plan, parsed, clean, asked=len(parsed))
        if rounds.lacks(poll):
            few = f"{len(parsed)} of {len(plan)} copies were answered: too few to settle the vote"
            poll.error = DeadlineError(few) if late else SamplingError(few)
        return self._conclude(poll, rounds, {})

    # Edges for integrations -------------------------------------------------------------------------------------

    def skip(self, answer: Answer | str, *, reason: str) -> Outcome:
        """Hand `answer` on unjudged, because the policy says so (``on_missing_context: pass``). Status ``skipped``."""
        given = Answer.parse(answer)
        skipped = Outcome(given.text, "skipped", given, degraded=reason)
        return self._outcomes.finished(self.policy, Prompt(()), skipped)

    def refuse(self, error: GuardError, *, prompt: Prompt | None = None, candidate: Answer | None = None) -> Outcome:
        """What the policy makes of `error`: an outcome of status ``error``, or the error raised."""
        poll = Poll(prompt or Prompt(()), candidate, self.policy.smoothing)
        return self._refused(self._rounds(self._clock()).panel, error, poll)

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
        return [self._conclude(poll, rounds, {"sample": sampled}) for poll in polls]

    def _rounds(self, began: float | None, *, asks: bool = True) -> Rounds:
        """The parts for one call that began then; its deadline is the policy's, none where `began` is None."""
        policy, limit = self.policy, self.policy.limits.deadline_seconds

        def until(share: float) -> Deadline:
            return Deadline(None if began is None or limit is None else began + share * limit, self._clock)

        panel = Panel(
            policy,
            embedder=self._embedder,
            sentiment=self._sentiment,
            scorers=self._scorers,
            judges=self._judges,
            reader=self._reader,
            rewriter=lambda text: self._ask_once(rewrite_prompt(text)),
            deadline=until(1.0),
        )
        drafter = self._draft if policy.voting.draft_tokens is not None else None
        return Rounds(panel, self._key, Asking(self._sampler, drafter, until(_ASKING) if asks else NEVER))

    def _ask_once(self, prompt: Prompt) -> str:
        """The policy's model, asked something of the guard's own: one copy, without noise."""
        (answer,) = self._sampler([Copy(prompt)], self.policy.smoothing)
        return answer.text

    def _poll(self, rounds: Rounds, prompt: Prompt, candidate: Answer | None) -> Poll:
        """The request with its first copies due; a verifier without media asks none."""
        error = self.policy.limits.unfit(prompt.media)
        if error is not None or (candidate is not None and not prompt.media):
            return Poll(prompt, candidate, rounds.panel.policy.smoothing, error=error)
        known = self._votes.get(self._cast_key(prompt, rounds.panel.policy))
        return rounds.open(prompt, candidate, known)

    def _cast_key(self, prompt: Prompt, policy: Policy) -> tuple[str, ...]:
        """The whole prompt with its media, the policy with its model and revision, and the key of the seeds."""
        return (prompt.digest, self._outcomes.policy_id(policy), self._key.id) if policy.voting.cache else ()

    def _conclude(self, poll: Poll, rounds: Rounds, timings: dict[str, float]) -> Outcome:
        """Elect, judge, hand on. Whatever fails on the way becomes what the policy says of it, never a pass."""
        panel, degraded = rounds.panel, None
        if poll.error is not None:
            if not rounds.settled(poll):
                return self._refused(panel, poll.error, poll)
            what = "the deadline passed" if isinstance(poll.error, DeadlineError) else "not all copies were answered"
            degraded = f"{what}; {len(poll.answers)} of {len(poll.plan)} copies had settled the vote"
        try:
            elected = poll.vote or (panel.elect(poll.answers, timings) if poll.answers else None)
            began = self._clock()
            verdict, case = panel.judged(
                poll.prompt, poll.answers, elected, candidate=poll.candidate, clean=poll.clean, finished=poll.finished
            )
            status, answer, text = handed_on(panel.policy, verdict, case)
            timings["judge"] = (self._clock() - began) * 1000
        except (PolicyError, ModelError):
            raise
        except GuardError as error:
            return self._refused(panel, error, poll)
        except Exception as error:  # noqa: BLE001 - a scorer or embedder that breaks has judged nothing
            broken = SamplingError(f"judging the answers failed: {type(error).__name__}")
            broken.__cause__ = error
            return self._refused(panel, broken, poll)
        timings["total"] = timings.get("sample", 0.0) + timings.get("vote", 0.0) + timings["judge"]
        proven = elected is not None and elected.certificate is not None  # on other copies than `check` asks
        if elected is not None and degraded is None and not proven and panel.policy.voting.cache:
            cast = Cast(poll.smoothing, tuple(poll.answers), elected, poll.finished)
            self._votes.put(self._cast_key(poll.prompt, panel.policy), cast)
        outcome = Outcome(text, status, answer, elected, verdict, poll.whole(elected), poll.clean, timings=timings)
        if verdict.untold:
            degraded = "; ".join(filter(None, (degraded, f"could not be told: {', '.join(verdict.untold)}")))
        outcome = replace(outcome, asked=poll.asked, candidate=poll.candidate, degraded=degraded)
        return self._outcomes.finished(panel.policy, poll.prompt, outcome)

    def _refused(self, panel: Panel, error: GuardError, poll: Poll) -> Outcome:
        """What the policy makes of `error`; what it would allow is held against the rules that can still tell."""
        policy = panel.policy
        if poll.candidate is not None and self._outcomes.behaviour(policy, error) == "allow":
            with suppress(Exception):  # what cannot be told of an answer is the operator's choice, and that is made
                verdict, case = panel.judged(poll.prompt, (), None, candidate=poll.candidate, clean=None, finished=None)
                if verdict.action not in ("allow", "flag"):
                    status, answer, text = handed_on(policy, verdict, case)
                    found = Outcome(text, status, answer, None, verdict, asked=poll.asked, candidate=poll.candidate)
                    return self._outcomes.finished(policy, poll.prompt, replace(found, degraded=type(error).__name__))
        return self._outcomes.refused(policy, error, poll)
