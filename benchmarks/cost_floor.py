"""What a vote cannot go below: bytes and operations counted, over measured rates; and the memory it takes, counted."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from cost_arms import Bench
from seven_b import SHAPES
from seven_b import handle as shaped
from torch.profiler import ProfilerActivity, profile

from sg_guardrails.core import noise
from sg_guardrails.core.types import Copy, Prompt
from sg_guardrails.models.hf import Handle, HFSampler, encode
from sg_guardrails.models.memory import kv_bytes, row_bytes


def counted(handle: Handle, prompt: Prompt) -> dict[str, float]:
    """Bytes of the decoder's weights and of a prompt's keys and values, operations of one copy's prompt and token.

    A multiplication and an addition count two; attention's own products are left out, as is usual (Kaplan et al. 2020,
    section 2.1). The tower's operations are those of its weights at each patch.
    """
    model = handle.model
    decoder = sum(weight.numel() for weight in model.get_decoder().parameters())
    embeddings = model.get_input_embeddings().weight.numel()
    out = model.get_output_embeddings().weight.numel()
    tower = sum(weight.numel() for name, weight in model.named_parameters() if "vis" in name or "projector" in name)
    inputs = encode(handle, prompt)
    ids, pixels = inputs["input_ids"], inputs["pixel_values"]
    tokens, marks = ids.shape[1], int((ids == model.config.image_token_id).sum())
    patches = len(pixels) if pixels.ndim == 2 else marks
    by_token = decoder - embeddings
    return {
        "weights_bytes": (by_token + out) * handle.dtype.itemsize,
        "kv_bytes_a_token": kv_bytes(handle, 1),
        "prompt_tokens": tokens,
        "flop_a_prompt": 2 * (by_token * tokens + tower * patches),
        "flop_a_token": 2 * (by_token + out),
    }


def floor(bench: Bench, *, copies: int, tokens: int) -> dict[str, float]:
    """Least seconds of a bare answer and of a full vote of one request, at the device's measured rates.

    The prompt and each token take the longer of two: reading the weights (and the keys and values so far), and the
    operations of all rows.
    """
    per = counted(bench.handle, bench.prompts[0])
    bandwidth = _bandwidth(bench.handle.device, per["weights_bytes"])
    rate = _rate(bench.handle.device, bench.handle.dtype)

    def seconds(rows: int) -> float:
        prompt = max(per["weights_bytes"] / bandwidth, rows * per["flop_a_prompt"] / rate)
        held = rows * per["kv_bytes_a_token"] * (per["prompt_tokens"] + tokens / 2)
        step = max((per["weights_bytes"] + held) / bandwidth, rows * per["flop_a_token"] / rate)
        return prompt + (tokens - 1) * step

    return {
        "tokens": tokens,
        "bandwidth_gb_s": bandwidth / 1e9,
        "rate_tflop_s": rate / 1e12,
        "bare_seconds": seconds(1),
        "full_seconds": seconds(copies + 1),
        "ratio": seconds(copies + 1) / seconds(1),
        **per,
    }


def large_models(prompt: Prompt) -> dict[str, dict[str, Any]]:
    """The same counts for the 7B shapes, which need no weights; seconds would need the device."""
    found: dict[str, dict[str, Any]] = {}
    for shape in SHAPES:
        handle = replace(shaped(shape, device="meta"), device=torch.device("cpu"))  # where its inputs are counted
        found[shape] = {**counted(handle, prompt), "seconds": None}
    return found


def memory(bench: Bench, *, copies: int, tokens: int) -> dict[str, float]:
    """Peak MiB that torch held for a bare answer and for all copies, and the copies' share as `row_bytes` counts it."""
    prompt, smoothing = bench.prompts[0], bench.policy.smoothing.model_copy(update={"copies": copies})
    plan = noise.copies_of(prompt, smoothing, noise.process_key())
    sampler = HFSampler(bench.handle, max_new_tokens=tokens, copies_per_batch=copies + 1)
    with bench.ending(tokens):
        bare = _peak(bench, lambda: sampler([Copy(prompt)], smoothing))
        full = _peak(bench, lambda: sampler(plan, smoothing))
    inputs = encode(bench.handle, prompt)
    more = len(plan) - 1
    length = inputs["input_ids"].shape[1] + tokens
    return {
        "tokens": tokens,
        "bare": bare / 2**20,
        "full": full / 2**20,
        "extra": (full - bare) / 2**20,
        "extra_counted": more * row_bytes(bench.handle, inputs, tokens) / 2**20,
        "of_which_keys_and_values": more * kv_bytes(bench.handle, length) / 2**20,
    }


def _peak(bench: Bench, call: Callable[[], object]) -> float:
    call()
    if bench.handle.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        call()
    held = top = 0
    events = profiled.profiler.kineto_results.events()
    for event in sorted((event for event in events if event.name() == "[memory]"), key=lambda event: event.start_ns()):
        held += event.nbytes()
        top = max(top, held)
    return top


def _bandwidth(device: torch.device, size: float) -> float:
    """Bytes a second, of a block as large as what is read at each token: small weights stay in a CPU's cache."""
    block = torch.rand(min(2**28, int(size) // 4), device=device)
    return 2 * block.numel() * block.element_size() / _best(block.clone, device)


def _rate(device: torch.device, dtype: torch.dtype) -> float:
    side = 8192 if device.type == "cuda" else 1024
    a, b = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
    return 2 * side**3 / _best(lambda: a @ b, device)


def _best(call: Callable[[], object], device: torch.device) -> float:
    graphics, taken = device.type == "cuda", []
    clock = time.perf_counter if graphics else time.process_time  # as `Bench.clock`
    for _ in range(20):
        began = clock()
        call()
        if graphics:
            torch.cuda.synchronize()
        taken.append(clock() - began)
    return min(taken)
