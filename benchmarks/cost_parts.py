"""Where the time of a vote goes and what it grows with: the sampler's stages, caches, picture sizes, callers."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from typing import Any

import numpy as np
import torch
from cost_arms import Bench, forget, timed

from sg_guardrails.core import noise
from sg_guardrails.core.media import Image
from sg_guardrails.core.types import Copy, Prompt
from sg_guardrails.models import hf
from sg_guardrails.models.hf import HFSampler

SIDES = (64, 256, 1024)
"""Of random pictures, pixels."""
ROUNDS = 5


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
    """Milliseconds of a bare answer and of all copies under each way to keep keys and values: what ``auto`` picks by.

    Only the sampler is timed; compiling itself happens in the round that warms up.
    """
    ways: dict[str, dict[str, Any]] = {"dynamic": {"cache": "dynamic"}, "static": {"cache": "static"}}
    if compiled:
        ways["static, compiled"] = {"cache": "static", "compiled": True}
    prompt, smoothing = bench.prompts[0], bench.policy.smoothing
    plans = {"bare": [Copy(prompt)], "full": _plan(bench, prompt, copies)}
    calls: dict[str, Callable[[], object]] = {}
    for way, settings in ways.items():
        sampler = HFSampler(bench.handle, max_new_tokens=tokens, **settings)
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


def concurrent(bench: Bench, *, copies: int, tokens: int | None, many: int = 32) -> dict[str, float]:
    """Requests per second: one after another, and `many` callers at once whose calls are merged."""
    embedder = bench.embedder()
    guard = bench.guard("sequential", copies, tokens, embedder=embedder)
    bare = bench.sampler(tokens)
    prompts = [bench.prompts[i % len(bench.prompts)] for i in range(many)]
    with ThreadPoolExecutor(many) as pool, bench.ending(tokens):

        def checked(ask: Callable[..., Iterable[object]]) -> object:
            forget(embedder)
            return list(ask(guard.check, prompts))

        calls: dict[str, Callable[[], object]] = {
            "one after another": lambda: checked(map),
            "at once": lambda: checked(pool.map),
            "bare, one batch": lambda: bare([Copy(prompt) for prompt in prompts], bench.policy.smoothing),
        }
        taken = timed(bench, calls, rounds=2, warm=True)
    return {name: many / statistics.median(values) for name, values in taken.items()}
