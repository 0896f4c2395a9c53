"""Where the time of a vote goes and what it grows with: the sampler's stages, caches, picture sizes, callers."""

from __future__ import annotations

import logging
import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cost_arms import SHARED, STAGES, Agreeing, Bench, forget, timed, unrecorded
from sentence_transformers import SentenceTransformer

from sg_guardrails import record
from sg_guardrails.core import noise
from sg_guardrails.core.media import Image
from sg_guardrails.core.types import Copy, Outcome, Prompt
from sg_guardrails.models import hf, text
from sg_guardrails.models.checkpoints import SAFE, load_checkpoint
from sg_guardrails.models.hf import HFSampler

SIDES = (64, 256, 1024)
"""Of random pictures, pixels."""
ROUNDS = 5
WORDS = (8, 16, 128, 512)
"""Of answers, eight a sentence."""


def _plan(bench: Bench, prompt: Prompt, copies: int) -> list[Copy]:
    smoothing = bench.policy.smoothing.model_copy(update={"copies": copies})
    return list(noise.copies_of(prompt, smoothing, noise.process_key()))


def _ms(bench: Bench, calls: dict[str, Callable[[], object]], *, rounds: int = ROUNDS) -> dict[str, float]:
    return {n: 1000 * statistics.median(v) for n, v in timed(bench, calls, rounds=rounds, warm=True).items()}


def stages(bench: Bench, *, copies: int, tokens: int) -> dict[str, dict[str, float]]:
    """Milliseconds of the sampler's stages, for a bare answer and for all copies of one request.

    ``media``: the processor and the chat template; ``noise``: drawn, added, collated; ``first token``: towers, prompt
    and one token; ``other tokens``: the rest of `tokens`.
    """
    handle, smoothing, prompt = bench.handle, bench.policy.smoothing, bench.prompts[0]
    found = {}
    with torch.inference_mode(), bench.ending(tokens):
        clean = hf.encode(handle, prompt)
        for name, plan in (("bare", [Copy(prompt)]), ("full", _plan(bench, prompt, copies))):
            batch = hf.collate(handle, [hf.perturb(handle, clean, copy, smoothing) for copy in plan])
            calls: dict[str, Callable[[], object]] = {
                "media": lambda: hf.encode(handle, prompt),
                "noise": lambda plan=plan: hf.collate(  # type: ignore[misc] # default binds
                    handle, [hf.perturb(handle, clean, copy, smoothing) for copy in plan]
                ),
                "first token": lambda batch=batch: handle.model.generate(**batch, max_new_tokens=1),  # type: ignore[misc] # likewise
                "all tokens": lambda batch=batch: handle.model.generate(**batch, max_new_tokens=tokens),  # type: ignore[misc] # likewise
            }
            taken = _ms(bench, calls)
            taken["other tokens"] = taken.pop("all tokens") - taken["first token"]
            found[name] = taken
    return found


def engines(bench: Bench, *, copies: int, tokens: int, compiled: bool) -> dict[str, dict[str, float]]:
    """Milliseconds of a bare answer and of all copies under each attention and cache: what ``auto`` picks by.

    Only the sampler is timed; compiling itself happens in the round that warms up.
    """
    ways: dict[str, dict[str, Any]] = {SHARED: {"cache": "dynamic"}, "sdpa, static": {"cache": "static"}}
    if bench.eager is not None:
        ways["eager, dynamic"] = {"cache": "dynamic"}
    if compiled:
        ways["sdpa, static, compiled"] = {"cache": "static", "compiled": True}
    prompt, smoothing = bench.prompts[0], bench.policy.smoothing
    plans = {"bare": [Copy(prompt)], "full": _plan(bench, prompt, copies)}
    calls: dict[str, Callable[[], object]] = {}
    for way, settings in ways.items():
        handle = bench.eager if way.startswith("eager") and bench.eager is not None else bench.handle
        sampler = HFSampler(handle, max_new_tokens=tokens, **settings)
        for name, plan in plans.items():
            calls[f"{name}, {way}"] = lambda sampler=sampler, plan=plan: sampler(plan, smoothing)  # type: ignore[misc] # default binds
    with bench.ending(tokens):
        taken = _ms(bench, calls)
    return {way: {name: taken[f"{name}, {way}"] for name in plans} for way in ways}


def picture_sizes(bench: Bench, *, copies: int, tokens: int) -> dict[int, dict[str, float]]:
    """Milliseconds of a bare answer and of all copies about random pictures of several sizes."""
    smoothing, rng = bench.policy.smoothing, np.random.default_rng(0)

    def asking(number: int, prompts: list[Prompt]) -> Callable[[], object]:
        sampler = HFSampler(bench.handle, max_new_tokens=tokens)
        turns = cycle(prompts)  # another picture at each call: the last one's processing is kept

        def ask() -> object:
            prompt = next(turns)
            return sampler(_plan(bench, prompt, number) if number else [Copy(prompt)], smoothing)

        return ask

    found = {}
    with bench.ending(tokens):
        for side in SIDES:
            pictures = [Image(rng.random((side, side, 3), dtype=np.float32)) for _ in range(2)]
            prompts = [Prompt.ask("What is shown?", picture) for picture in pictures]
            found[side] = _ms(bench, {"bare": asking(0, prompts), "full": asking(copies, prompts)})
    return found


def concurrent(bench: Bench, *, copies: int, tokens: int | None, many: int = 32) -> dict[str, dict[str, float]]:
    """Requests per second: one after another, and `many` callers at once whose calls are merged.

    By the wall, which is what a caller waits, and by the process's own time, which leaves out that a batch waits for
    company and that the machine was somebody else's.
    """
    embedder = bench.embedder()
    guard = bench.guard("sequential", copies, tokens, embedder=embedder)
    bare = bench.sampler(tokens)
    prompts = [bench.prompts[i % len(bench.prompts)] for i in range(many)]
    spent: dict[str, list[tuple[float, float]]] = {}
    with ThreadPoolExecutor(many) as pool, bench.ending(tokens):

        def checked(ask: Callable[..., Iterable[object]]) -> object:
            forget(embedder)
            return list(ask(guard.check, prompts))

        calls: dict[str, Callable[[], object]] = {
            "one after another": lambda: checked(map),
            "at once": lambda: checked(pool.map),
            "bare, one batch": lambda: bare([Copy(prompt) for prompt in prompts], bench.policy.smoothing),
        }
        for number in range(ROUNDS + 1):
            for name, call in calls.items():
                began = (time.perf_counter(), time.process_time())
                call()
                bench.sync()
                if number:  # the first warms up
                    ended = (time.perf_counter(), time.process_time())
                    spent.setdefault(name, []).append((ended[0] - began[0], ended[1] - began[1]))
    rates = [{name: many / statistics.median(one[i] for one in taken) for name, taken in spent.items()} for i in (0, 1)]
    found = dict(zip(("wall", "process"), rates, strict=True))
    return {**found, "times": {name: rate["at once"] / rate["one after another"] for name, rate in found.items()}}


def beside(bench: Bench, *, copies: int) -> dict[str, dict[str, float]]:
    """Milliseconds of one request beside the model's own time, answers as given: media, stages, record.

    ``new``: no text was embedded before. ``known``: all were, as when the same question comes about another picture
    and is answered alike. The record is written as JSON, to nowhere.
    """
    spent: dict[str, list[float]] = {}

    def noting(outcome: Outcome, **about: Any) -> None:
        began = bench.clock()
        record.emit(outcome, **about)
        spent.setdefault("record", []).append(1000 * (bench.clock() - began))
        for stage in STAGES[1:]:
            spent.setdefault(stage, []).append(outcome.timings.get(stage, 0.0))

    found = {}
    with _to_nowhere():
        for name in ("new", "known"):
            embedder = bench.embedder()
            guard, quiet = (
                bench.guard("full", copies, None, embedder=embedder, emit=emit) for emit in (noting, unrecorded)
            )
            for prompt in bench.prompts:
                quiet.check(prompt)  # embeds its texts, and warms up
                if name == "new":
                    forget(embedder)
                began = bench.clock()
                hf.encode(bench.handle, prompt)
                spent.setdefault("media", []).append(1000 * (bench.clock() - began))
                guard.check(prompt)
            found[name] = {stage: statistics.median(values) for stage, values in spent.items()}
            found[name]["sum"] = sum(found[name].values())
            spent.clear()
    return found


@contextmanager
def _to_nowhere() -> Iterator[None]:
    """Records are made and dropped."""
    logger = logging.getLogger("sg_guardrails")
    level = logger.level
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        handler = logging.StreamHandler(nowhere)
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)


def embedding(bench: Bench) -> dict[int, dict[str, float]]:
    """Milliseconds to embed what the rules read of a question and an answer of so many words.

    ``plain``: sentence-transformers' own pass. ``ours``: layers laid out once, little padding; the same vectors.
    """
    section = bench.policy.voting.embedder
    model = load_checkpoint(
        section.id,
        "embedder",
        lambda source, local: SentenceTransformer(
            source, device=str(bench.handle.device), local_files_only=local, model_kwargs=SAFE
        ),
    )
    ours = bench.embedder(remember=0)
    heads = text.scorers(ours)
    found = {}
    for words in WORDS:
        said = [Agreeing(bench.sampler(None), words=words).said(str(number)).text for number in range(5)]
        texts = [_read(heads, bench.prompts[number].asked, answer) for number, answer in enumerate(said)]
        turns = {"plain": cycle(texts), "ours": cycle(texts)}
        calls: dict[str, Callable[[], object]] = {
            "plain": lambda turns=turns: model.encode(next(turns["plain"]), show_progress_bar=False),  # type: ignore[misc] # default binds
            "ours": lambda turns=turns: ours(next(turns["ours"])),  # type: ignore[misc] # likewise
        }
        found[words] = _ms(bench, calls, rounds=2 * ROUNDS)
    return found


def _read(heads: Mapping[str, Any], asked: Sequence[str], answer: str) -> list[str]:
    """The pieces that the policy's heads read."""
    rows = [*heads["unsafe_request"].reads(asked), *heads["prompt_injection"].reads(asked)]
    return sorted({piece for row in (*rows, *heads["toxicity"].reads([answer])) for piece in row})
