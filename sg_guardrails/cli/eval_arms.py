"""Who answers in an evaluation: the bare model, the same model guarded, a local judge. Knows torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

from sg_guardrails.core import vote
from sg_guardrails.core.errors import ModelError
from sg_guardrails.core.policy import AudioNoise, ImageNoise, Policy, Smoothing, Voting
from sg_guardrails.core.types import Answer, Copy, Outcome, Prompt, Scorer
from sg_guardrails.evals.base import Reply
from sg_guardrails.evals.run import Batched
from sg_guardrails.local import local_guard
from sg_guardrails.models import hf, text


def named(policy: Policy, *, model: str | None = None, device: str = "auto") -> Policy:
    """The policy with another model or device, where given; a revision belongs to the model that it came with."""
    section = policy.model
    if model is not None and model != section.id:
        section = section.model_copy(update={"id": model, "revision": None})
    if device != "auto":
        section = section.model_copy(update={"device": device})
    return policy.model_copy(update={"model": section})


def with_noise(policy: Policy, *, sigma: float, copies: int, shift: float | None = None) -> Policy:
    """The policy with so much noise on pictures and clips, and so many noisy copies beside the clean one.

    They are moved as the policy moves them, unless `shift` says otherwise.
    """
    own = policy.smoothing.image
    image = ImageNoise(space=own.space, sigma=sigma, shift=own.shift if shift is None else shift)
    smoothing = Smoothing(copies=copies, include_clean=True, image=image, audio=AudioNoise(sigma=sigma))
    return policy.model_copy(update={"smoothing": smoothing})


def bare(policy: Policy, *, size: int = 8) -> Batched:
    """The policy's model asked once, without noise."""
    sampler = _sampler(policy)

    def ask(prompts: Sequence[Prompt]) -> list[Reply]:
        sampler.warm_up()  # loading is not answering
        began = time.perf_counter()
        answers = sampler([Copy(prompt) for prompt in prompts], policy.smoothing)
        each = (time.perf_counter() - began) / len(prompts)
        return [Reply(answer.text, seconds=each) for answer in answers]

    return Batched(ask, size)


def guarded(policy: Policy, *, size: int = 8) -> Batched:
    """The same model behind the guard."""
    guard = local_guard(policy)

    def ask(prompts: Sequence[Prompt]) -> list[Reply]:
        guard.warm_up()
        began = time.perf_counter()
        outcomes = guard.check_many(prompts)
        each = (time.perf_counter() - began) / len(prompts)
        return [replace(_reply(outcome), seconds=each) for outcome in outcomes]

    return Batched(ask, size)


def local_judge(model: str, *, device: str = "auto", size: int = 8, max_new_tokens: int = 256) -> Batched:
    """A local MLLM that judges in words."""
    sampler = hf.HFSampler(lambda: hf.load(model, device=device), max_new_tokens=max_new_tokens)

    def ask(prompts: Sequence[Prompt]) -> list[Reply]:
        return [Reply(answer.text) for answer in sampler([Copy(prompt) for prompt in prompts], Smoothing())]

    return Batched(ask, size)


def refusal_scorer(policy: Policy, *, device: str = "auto") -> Scorer:
    """The shipped refusal head."""
    return text.scorers(text.load_embedder(policy.voting.embedder, device=device))["refusal"]


def elector(
    policy: Policy, *, device: str = "auto", hands_on: bool = True
) -> Callable[[Sequence[str], Voting], tuple[str, bool]]:
    """A vote over recorded answers: what is handed on, and whether that is the policy's text because it abstained.

    With `hands_on` false the majority's answer comes even where the vote abstains.
    """
    embed = text.load_embedder(policy.voting.embedder, device=device)
    refusal = text.scorers(embed)["refusal"]

    def elect(answers: Sequence[str], voting: Voting) -> tuple[str, bool]:
        parsed = [Answer(said) for said in answers]
        elected = vote.elect(parsed, voting, embed=embed, sentiment=text.sentiment, refusal=refusal)
        withheld = hands_on and elected.abstained
        return policy.texts.abstained if withheld else answers[elected.choice], elected.abstained

    return elect


def english_words(said: str) -> list[str]:
    """The words of a transcript as Whisper's paper compares them: numbers, titles and contractions written one way."""
    return str(_normalise(said)).split()


# Whisper's spelling table (British to American) ships with its checkpoints, not with the library; both sides of a
# comparison go without it.
_normalise = EnglishTextNormalizer({})


def _sampler(policy: Policy) -> hf.HFSampler:
    return hf.HFSampler.of(policy.model)


def _reply(outcome: Outcome) -> Reply:
    if isinstance(outcome.error, ModelError):
        raise outcome.error
    return Reply(
        outcome.text if outcome.error is None else str(outcome.error),
        stopped=outcome.answer is None,
        status=outcome.status,
        copies=len(outcome.answers) or 1,
        agreement=None if outcome.vote is None else outcome.vote.agreement,
        answers=tuple(answer.text for answer in outcome.answers),
    )
