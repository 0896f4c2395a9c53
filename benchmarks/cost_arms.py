"""The arms that `cost.py` compares: a bare answer, the published way, and the guard's ways, on the same prompts."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import torch
from sklearn.cluster import KMeans

from sg_guardrails.core import noise
from sg_guardrails.core.policy import Policy, Smoothing
from sg_guardrails.core.types import Answer, Copy, Prompt
from sg_guardrails.guard import SmoothGuard
from sg_guardrails.models import text
from sg_guardrails.models.hf import Handle, HFSampler
from sg_guardrails.models.merge import Merged

DRAFT = 16
"""Tokens of a draft."""
ARMS: dict[str, dict[str, object]] = {
    "full": {"early": "off"},
    "early": {"early": "exact"},
    "sequential": {"early": "sequential"},
    "draft": {"early": "sequential"},
}
STAGES = ("sample", "embed", "vote", "judge", "plan")
SHARED = "sdpa, dynamic"
"""The settings of every arm: attention as transformers picks it, keys and values in a growing cache."""
LEAST_ROUNDS, MOST_ROUNDS = 2, 15
FULL = 4
"""A full vote is about as many bare answers; only the number of rounds goes by it."""
WORDS = (("The",), ("small", "large", "thin"), ("red", "blue", "green", "grey"), ("circle", "square"), ("is",), ("on",))
WORDS += (("the",), ("left", "right", "top"))


Emit = Callable[..., None]


def unrecorded(*_: object, **__: object) -> None:
    """What takes the records of a guard whose records nobody reads."""


def forget(embedder: text.SentenceEmbedder) -> None:
    """Have it remember nothing: the built-in model's few answers come again and again, a real model's do not."""
    embedder._remembered._kept.clear()


class Agreeing:
    """The real sampler's time, and one wording for all copies of a prompt: as clean traffic looks to the vote."""

    def __init__(self, sampler: HFSampler, *, words: int) -> None:
        self._sampler, self._words = sampler, words

    def __call__(self, copies: Sequence[Copy], smoothing: Smoothing) -> list[Answer]:
        """One answer per copy."""
        self._sampler(copies, smoothing)
        said = {copy.prompt.digest: self.said(copy.prompt.digest) for copy in copies}
        return [said[copy.prompt.digest] for copy in copies]

    def said(self, digest: str) -> Answer:
        """Random harmless sentences of eight words, each prompt's own, so that no embedding is remembered."""
        draw = random.Random(digest)  # noqa: S311 - meant to be predictable
        sentences = max(1, self._words // len(WORDS))
        return Answer(" ".join(" ".join(map(draw.choice, WORDS)) + "." for _ in range(sentences)))


@dataclass(frozen=True)
class Bench:
    """A model on a device, and the questions that it is asked."""

    handle: Handle
    policy: Policy
    prompts: Sequence[Prompt]
    seconds: float
    """About how long one row of the table is repeated; two rounds it has in any case."""
    eager: Handle | None = None
    """The same weights with eager attention, whose bare answer is compared."""

    def sync(self) -> None:
        """Wait for the device."""
        if self.handle.device.type == "cuda":
            torch.cuda.synchronize()

    def clock(self) -> float:
        """Seconds. On a CPU those of the process: others who use the machine cost nothing then."""
        self.sync()
        return time.process_time() if self.handle.device.type == "cpu" else time.perf_counter()

    @contextmanager
    def ending(self, tokens: int | None) -> Iterator[None]:
        """Without an end of sequence inside, where every answer is to be exactly so long."""
        settings = [one.model.generation_config for one in (self.handle, self.eager) if one is not None]
        ends = [one.eos_token_id for one in settings]
        for one in settings if tokens is not None else ():
            one.eos_token_id = None
        try:
            yield
        finally:
            for one, end in zip(settings, ends, strict=True):
                one.eos_token_id = end

    def sampler(self, tokens: int | None, *, most: int | None = None) -> HFSampler | Agreeing:
        """Answers as the model gives them, or all of them `tokens` long (at most `most`)."""
        if tokens is None:
            return HFSampler(self.handle, max_new_tokens=most or self.policy.model.max_new_tokens)
        length = min(tokens, most or tokens)
        return Agreeing(HFSampler(self.handle, max_new_tokens=length), words=length)

    def bares(self, tokens: int | None) -> dict[str, HFSampler | Agreeing]:
        """The bare model under the settings of all arms; where answers are as given, under others too."""
        shared = {SHARED: self.sampler(tokens)}
        if tokens is not None or self.eager is None:
            return shared
        most = self.policy.model.max_new_tokens
        return {
            **shared,
            "eager, dynamic": HFSampler(self.eager, max_new_tokens=most),
            "sdpa, static": HFSampler(self.handle, max_new_tokens=most, cache="static"),
        }

    def embedder(self, **how: int) -> text.SentenceEmbedder:
        """An embedder of its own: none remembers what another arm has asked it."""
        return text.SentenceEmbedder(self.policy.voting.embedder, device=str(self.handle.device), **how)

    def guard(
        self, arm: str, copies: int, tokens: int | None, *, embedder: text.SentenceEmbedder, emit: Emit = unrecorded
    ) -> SmoothGuard:
        """A guard of one arm; merging callers, as `local_guard` builds it."""
        data = self.policy.model_dump(mode="json", by_alias=True)
        data["smoothing"] |= {"copies": copies, **ARMS[arm]}
        data["voting"] |= {"draft_tokens": DRAFT if arm == "draft" else None, "refusal_veto": None}
        return SmoothGuard(
            Policy.parse(data),
            sampler=Merged(self.sampler(tokens)),
            draft=Merged(self.sampler(tokens, most=DRAFT)) if arm == "draft" else None,
            embedder=embedder,
            sentiment=text.sentiment,
            scorers=text.scorers(embedder),
            emit=emit,
            clock=self.clock,
        )


def official(bench: Bench, copies: int, tokens: int | None) -> Callable[[Prompt], object]:
    """The published way: one generate a copy, one embedding an answer, KMeans with k = 2, nearest to the centre."""
    sampler = bench.sampler(tokens)
    embed = bench.embedder(remember=0)
    smoothing = bench.policy.smoothing.model_copy(update={"copies": copies})

    def ask(prompt: Prompt) -> object:
        answers = [sampler([copy], smoothing)[0] for copy in noise.copies_of(prompt, smoothing, noise.process_key())]
        vectors = np.concatenate([embed([answer.text or "-"]) for answer in answers])
        parts = KMeans(n_clusters=2, n_init=10, random_state=0).fit(vectors + 1e-9 * np.arange(len(vectors))[:, None])
        return answers[int(np.argmin(np.linalg.norm(vectors - parts.cluster_centers_[0], axis=1)))]

    return ask


def timed(bench: Bench, calls: dict[str, Callable[[], object]], *, rounds: int, warm: bool) -> dict[str, list[float]]:
    """Seconds of each arm, once each in every round, in an order that turns; where `warm`, after a round of its own."""
    names, taken = list(calls), {name: list[float]() for name in calls}
    for number in range(rounds + warm):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            began = bench.clock()
            calls[name]()
            if number >= warm:
                taken[name].append(bench.clock() - began)
    return taken


def cell(bench: Bench, *, copies: int, tokens: int | None, requests: int) -> dict[str, Any]:
    """One row of the table: every arm on the same prompts, as multiples of the fastest bare answer.

    The published way knows no batch of requests: one request is measured and counted `requests` times.
    """
    seen: dict[str, list[tuple[int, dict[str, float]]]] = {arm: [] for arm in ARMS}
    arms = [arm for arm in ARMS if arm != "draft" or (tokens or 0) > DRAFT]

    def noting(arm: str) -> Callable[..., None]:
        return lambda done, **_: seen[arm].append((done.asked, dict(done.timings)))

    embedders = {arm: bench.embedder() for arm in arms}
    guards = {arm: bench.guard(arm, copies, tokens, embedder=embedders[arm], emit=noting(arm)) for arm in arms}
    bares, slow = bench.bares(tokens), official(bench, copies, tokens)
    batches = [list(bench.prompts[i : i + requests]) for i in range(0, len(bench.prompts) - requests + 1, requests)]
    turns = {name: count() for name in (*bares, "official", *arms)}

    def batch(name: str) -> list[Prompt]:
        return batches[next(turns[name]) % len(batches)]

    def plain(way: str) -> object:
        return bares[way]([Copy(prompt) for prompt in batch(way)], bench.policy.smoothing)

    def guarded(arm: str) -> object:
        forget(embedders[arm])
        return guards[arm].check_many(batch(arm))

    calls: dict[str, Callable[[], object]] = {
        **{way: partial(plain, way) for way in bares},
        "official": lambda: slow(batch("official")[0]),
        **{arm: partial(guarded, arm) for arm in arms},
    }
    with bench.ending(tokens):
        # What answers in a moment is repeated, and has a round to warm up; what takes minutes is asked twice.
        once = timed(bench, {SHARED: calls[SHARED]}, rounds=1, warm=False)[SHARED][0]
        every = (copies + 1) * once / requests + FULL * once * len(arms)
        rounds = max(LEAST_ROUNDS, min(MOST_ROUNDS, len(batches) - 2, int(bench.seconds / every)))
        for arm in arms:
            embedders[arm].warm_up()
        taken = timed(bench, calls, rounds=rounds, warm=rounds > LEAST_ROUNDS)
    taken["official"] = [requests * seconds for seconds in taken["official"]]
    middle = {name: statistics.median(values) for name, values in taken.items()}
    fastest = min(bares, key=middle.__getitem__)
    base = middle[fastest]
    return {
        "copies": copies,
        "tokens": tokens,
        "requests": requests,
        "rounds": rounds,
        "bare_seconds": base,
        "bare_seconds_by_settings": {way: middle[way] for way in bares},
        "fastest": fastest,
        "ratio": {name: middle[name] / base for name in ("official", *arms)},
        "spread": {name: [min(values) / base, max(values) / base] for name, values in taken.items()},
        "requests_per_second": {name: requests / seconds for name, seconds in middle.items()},
        "asked": {arm: statistics.mean(asked for asked, _ in seen[arm]) for arm in arms},
        "stages_ms": {
            arm: {stage: statistics.median(t.get(stage, 0.0) for _, t in seen[arm]) for stage in (*STAGES, "total")}
            for arm in arms
        },
    }
