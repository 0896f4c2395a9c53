"""SmoothGuard: a prompt becomes copies, these become answers, a vote, a verdict, an outcome."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from sg_guardrails.asking import Asking, Pace, Poll
from sg_guardrails.cache import Cache
from sg_guardrails.certified import certified, noisy_values
from sg_guardrails.conclusion import conclude, refuse
from sg_guardrails.core import noise
from sg_guardrails.core.certify import CONFIDENCE, Sought, refuse_uncertifiable
from sg_guardrails.core.errors import DeadlineError, GuardError, ModelError, PolicyError, SamplingError
from sg_guardrails.core.inquiry import Judge, chat_judge
from sg_guardrails.core.policy import Policy
from sg_guardrails.core.rewriting import rewrite_prompt
from sg_guardrails.core.stages import Stages
from sg_guardrails.core.types import Answer, Copy, Embedder, Outcome, Prompt, Sampler, Scorer, Sentiment
from sg_guardrails.core.waiting import FOREIGN, NEVER, Deadline, on_a_thread, queued, refuse_unwanted
from sg_guardrails.outcomes import Outcomes
from sg_guardrails.panel import Panel, Reader, refuse_incomplete
from sg_guardrails.record import emit as record
from sg_guardrails.rounds import Cast, Rounds

Request = tuple[Prompt, Answer | None]
"""A prompt, and the answer under review where someone else produced one."""
_ASKING = 0.75
"""Share of the deadline within which the model is asked: the rest is for judging the answers that are in hand then."""


class SmoothGuard:
    """Re-asks a model under noise, elects the majority answer and holds it against a policy.

    A guard keeps nothing of a call but its votes, where the policy says so (``voting.cache``), and how long the model
    took; it may be used from any number of threads. It is built from callables; `sg_guardrails.local.local_guard`
    builds one from a policy's model ids.

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
        self._draft, self._clock, self._pace = draft, clock, Pace()
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
        """`check` for each prompt; their copies are sampled together, up to `asking.MOST_TOGETHER` at once."""
        return self._run([(prompt, None) for prompt in prompts])

    async def acheck(self, prompt: Prompt) -> Outcome:
        """`check` on a worker thread, so that the event loop stays free; the policy's deadline begins at once.

        Cancelling it takes its copies out of the model's queue; what the model is at already, it finishes unheard.
        Where too many tasks wait (`waiting.MOST_WAITING`) it becomes an outcome by ``on_error``.
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

        The outcome is `check`'s own. The certificate comes from ``anchor_copies + copies`` noisy copies beside it
        and is about all noise that could be drawn, on the model's input (after resizing): most of it leaves the
        anchor's answer, and an answer that the rules find safe by itself, where they are. A check draws a few copies,
        and votes, vetoes and compares as its policy says: near the radius its majority may be lost by chance.

        Args:
            prompt: Pictures and text; the policy's noise must be on pixels.
            copies: Fresh copies to count.
            anchor_copies: Copies that choose the answer the others are compared with.
            confidence: Of each of the two statements by itself.
            judge_error: Share of answers that the policy's rules may call safe wrongly; taken off the bound.

        Raises:
            PolicyError, GuardError: If no certificate would be valid for this policy, model or prompt; says why. What
                fails later becomes an outcome by ``on_error``.
        """
        sought = Sought(copies, anchor_copies, confidence, judge_error)
        refuse_uncertifiable(prompt, self.policy, sought)
        rounds = self._rounds(timed=False)
        poll = self._poll(rounds, prompt, None)
        if poll.error is None:
            noisy_values(self._sampler, prompt)  # before anything is asked
        rounds.run([poll])
        if poll.error is None:
            poll.asked += copies + anchor_copies
            try:
                poll.certificate = certified(prompt, rounds.panel, rounds.asking, self._key, sought)
            except (PolicyError, ModelError):
                raise
            except GuardError as error:
                return refuse(error, poll, rounds.panel, self._outcomes)
        return conclude(poll, rounds, self._outcomes)

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
        rounds = self._rounds(asks=False)
        return list(rounds.next_copies(prompt, [Answer.parse(answer) for answer in answered], reviewed))

    def patience(self) -> Deadline:
        """How long a caller who asks `copies` by itself waits for them, from now: the rest is kept for `decide`."""
        limit = self.policy.limits.deadline_seconds
        return Deadline(None if limit is None else self._clock() + _ASKING * limit, self._clock, FOREIGN)

    def decide(
        self,
        prompt: Prompt,
        answers: Sequence[Answer | str],
        *,
        clean: int | None = None,
        candidate: Answer | str | None = None,
        late: bool = False,
        took: float = 0.0,
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
            took: Seconds that asking took: the policy's deadline counts them.
        """
        parsed = [Answer.parse(answer) for answer in answers]
        reviewed = None if candidate is None else Answer.parse(candidate)
        if not parsed and reviewed is None:
            raise GuardError("there is nothing to decide: pass answers, a candidate, or both")
        if clean is not None and not 0 <= clean < len(parsed):
            raise GuardError(f"clean is an index among the {len(parsed)} answers, got {clean}")
        if (error := self.policy.limits.unfit(prompt.media)) is not None:
            return self.refuse(error, prompt=prompt, candidate=reviewed)
        rounds = self._rounds(asks=False, took=took)
        plan = self.copies(prompt) if prompt.media or reviewed is None else []
        poll = Poll(prompt, reviewed, rounds.panel.policy.smoothing, plan, parsed, clean, asked=len(parsed))
        if rounds.lacks(poll):
            few = f"{len(parsed)} of {len(plan)} copies were answered: too few to settle the vote"
            poll.error = DeadlineError(few) if late else SamplingError(few)
        return conclude(poll, rounds, self._outcomes)

    # Edges for integrations -------------------------------------------------------------------------------------

    def skip(self, answer: Answer | str, *, reason: str) -> Outcome:
        """Hand `answer` on unjudged, because the policy says so (``on_missing_context: pass``). Status ``skipped``."""
        given = Answer.parse(answer)
        skipped = Outcome(given.text, "skipped", given, degraded=reason)
        return self._outcomes.finished(self.policy, Prompt(()), skipped)

    def refuse(self, error: GuardError, *, prompt: Prompt | None = None, candidate: Answer | None = None) -> Outcome:
        """What the policy makes of `error`: an outcome of status ``error``, or the error raised."""
        poll = Poll(prompt or Prompt(()), candidate, self.policy.smoothing)
        return refuse(error, poll, self._rounds().panel, self._outcomes)

    def warm_up(self) -> None:
        """Load the models now instead of at the first call. Raises ModelError if one cannot be loaded."""
        self._each_part("warm_up")

    def close(self) -> None:
        """Let go of what the parts hold open, an engine's connections say; a later call opens them again."""
        self._each_part("close")

    def _each_part(self, does: str) -> None:
        own = (self._sampler, self._draft, self._embedder, self._sentiment, self._reader)
        for part in (*own, *self._scorers.values(), *self._judges.values()):
            getattr(part, does, lambda: None)()

    # The way through --------------------------------------------------------------------------------------------

    def _run(self, requests: Sequence[Request]) -> list[Outcome]:
        """Sample all requests together, round after round, then conclude each."""
        rounds = self._rounds()
        with rounds.stages.of("plan"):
            polls = [self._poll(rounds, prompt, candidate) for prompt, candidate in requests]
            rounds.run(polls)
        outcomes = []
        for poll in polls:
            with rounds.stages.apart():
                outcomes.append(conclude(poll, rounds, self._outcomes, keep=partial(self._keep, poll.prompt)))
        return outcomes

    def _rounds(self, *, timed: bool = True, asks: bool = True, took: float = 0.0) -> Rounds:
        """The parts for one call that begins now, or has waited for its thread; unless `timed` it has no deadline."""
        policy, limit, stages = self.policy, self.policy.limits.deadline_seconds, Stages(self._clock)
        began = self._clock() - max(queued(), took)  # a caller that waited for a thread has counted that

        def until(share: float) -> Deadline:
            return Deadline(began + share * limit if timed and limit is not None else None, self._clock)

        panel = Panel(
            policy,
            embedder=self._embedder,
            sentiment=self._sentiment,
            scorers=self._scorers,
            judges=self._judges,
            reader=self._reader,
            rewriter=lambda text: self._ask_once(rewrite_prompt(text)),
            deadline=until(1.0),
            stages=stages,
        )
        drafter = self._draft if policy.voting.draft_tokens is not None else None
        deadline = until(_ASKING) if asks else NEVER
        return Rounds(panel, self._key, Asking(self._sampler, drafter, deadline, stages, self._pace))

    def _ask_once(self, prompt: Prompt) -> str:
        """The policy's model, asked something of the guard's own: one copy, without noise."""
        refuse_unwanted()
        (answer,) = self._sampler([Copy(prompt)], self.policy.smoothing)
        return answer.text

    def _poll(self, rounds: Rounds, prompt: Prompt, candidate: Answer | None) -> Poll:
        """The request with its first copies due; a verifier without media asks none."""
        error = self.policy.limits.unfit(prompt.media)
        if error is not None or (candidate is not None and not prompt.media):
            return Poll(prompt, candidate, rounds.panel.policy.smoothing, error=error)
        return rounds.open(prompt, candidate, self._votes.get(self._cast_key(prompt, rounds.panel.policy)))

    def _keep(self, prompt: Prompt, policy: Policy, cast: Cast) -> None:
        if policy.voting.cache:
            self._votes.put(self._cast_key(prompt, policy), cast)

    def _cast_key(self, prompt: Prompt, policy: Policy) -> tuple[str, ...]:
        """The whole prompt with its media, the policy with its model and revision, and the key of the seeds."""
        return (prompt.digest, self._outcomes.policy_id(policy), self._key.id) if policy.voting.cache else ()
