"""What the guard costs beside a bare answer, as ratios in one run: latency, throughput, stages, memory, the floor.

    python benchmarks/cost.py [--model builtin:shapes | llava-1.5-7b | qwen2.5-vl-7b] [--device cpu]

Arms, interleaved so that all meet the same machine: ``bare`` (one greedy answer), ``official`` (the published way: a
generate, an embedding, one after another, for N + 1 copies, then KMeans), ``full`` (every copy in one batch), ``early``
(exact), ``sequential`` (alpha 0.01), ``draft`` (vote on 16 tokens); all
without the policy's veto, under which nearly every copy must be asked. Two loads: ``answers``, where the built-in model
answers easy-vqa's questions as it does, and ``N tokens``, where every answer is exactly that long and the copies agree
by decree (clean traffic; random weights would say nothing alike). All arms share weights, dtype, attention and cache.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from sklearn.cluster import KMeans

os.environ.setdefault("SG_GUARDRAILS_KEY", "the benchmark's own key, public on purpose")

from sg_guardrails.core import noise  # the key must be set before a guard is built
from sg_guardrails.core.media import Image
from sg_guardrails.core.policy import Policy, Smoothing
from sg_guardrails.core.types import Answer, Copy, Prompt
from sg_guardrails.guard import SmoothGuard
from sg_guardrails.models import text
from sg_guardrails.models.hf import Handle, HFSampler, load
from sg_guardrails.models.merge import Merged

OUT = Path(__file__).parent / "results"
COPIES, LENGTHS, REQUESTS = (4, 10, 20), (16, 128, 512), (1, 8)
DRAFT = 16
"""Tokens of a draft."""
ARMS: dict[str, dict[str, object]] = {
    "full": {"early": "off"},
    "early": {"early": "exact"},
    "sequential": {"early": "sequential"},
    "draft": {"early": "sequential"},
}


class Agreeing:
    """The real sampler's time, and one wording for all: what clean traffic looks like to the vote."""

    def __init__(self, sampler: HFSampler, *, words: int) -> None:
        self._sampler, self._said = sampler, Answer(" ".join(["The shape is a red circle."] * max(1, words // 6)))

    def __call__(self, copies: Sequence[Copy], smoothing: Smoothing) -> list[Answer]:
        """One answer per copy."""
        return [self._said for _ in self._sampler(copies, smoothing)]


@dataclass(frozen=True)
class Bench:
    """A model on a device, and the questions that it is asked."""

    handle: Handle
    policy: Policy
    prompts: Sequence[Prompt]
    seconds: float
    """About how long one arm may be repeated."""

    def sync(self) -> None:
        """Wait for the device."""
        if self.handle.device.type == "cuda":
            torch.cuda.synchronize()

    def sampler(self, tokens: int | None, *, most: int | None = None) -> HFSampler | Agreeing:
        """Answers as the model gives them, or all of them `tokens` long (at most `most`)."""
        if tokens is None:
            return HFSampler(self.handle, max_new_tokens=most or self.policy.model.max_new_tokens)
        length = min(tokens, most or tokens)
        return Agreeing(HFSampler(self.handle, max_new_tokens=length), words=length)

    def guard(self, arm: str, copies: int, tokens: int | None, emit: Callable[..., None]) -> SmoothGuard:
        """A guard of one arm; merging callers, as `local_guard` builds it."""
        data = self.policy.model_dump(mode="json", by_alias=True)
        data["smoothing"] |= {"copies": copies, **ARMS[arm]}
        data["voting"] |= {"draft_tokens": DRAFT if arm == "draft" else None, "refusal_veto": None}
        embedder = text.load_embedder(self.policy.voting.embedder, device=str(self.handle.device))
        return SmoothGuard(
            Policy.parse(data),
            sampler=Merged(self.sampler(tokens)),
            draft=Merged(self.sampler(tokens, most=DRAFT)) if arm == "draft" else None,
            embedder=embedder,
            sentiment=text.sentiment,
            scorers=text.scorers(embedder),
            emit=emit,
        )


def official(bench: Bench, copies: int, tokens: int | None) -> Callable[[Prompt], object]:
    """The published way: one generate a copy, one embedding an answer, KMeans with k = 2, nearest to the centre."""
    sampler, embed = (
        bench.sampler(tokens),
        text.load_embedder(bench.policy.voting.embedder, device=str(bench.handle.device)),
    )
    smoothing = bench.policy.smoothing.model_copy(update={"copies": copies})

    def ask(prompt: Prompt) -> object:
        answers = [sampler([copy], smoothing)[0] for copy in noise.copies_of(prompt, smoothing, noise.process_key())]
        vectors = np.concatenate([embed([answer.text or "-"]) for answer in answers])
        parts = KMeans(n_clusters=2, n_init=10, random_state=0).fit(vectors + 1e-9 * np.arange(len(vectors))[:, None])
        return answers[int(np.argmin(np.linalg.norm(vectors - parts.cluster_centers_[0], axis=1)))]

    return ask


def timed(bench: Bench, calls: dict[str, Callable[[], object]], *, rounds: int) -> dict[str, list[float]]:
    """Seconds of each arm, once each in every round, in an order that turns; the first round warms up.

    On a CPU the seconds are the process's own: others who use the machine cost nothing then.
    """
    names, taken = list(calls), {name: list[float]() for name in calls}
    clock = time.process_time if bench.handle.device.type == "cpu" else time.perf_counter
    for number in range(rounds + 1):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            bench.sync()
            began = clock()
            calls[name]()
            bench.sync()
            if number:
                taken[name].append(clock() - began)
    return taken


def cell(bench: Bench, *, copies: int, tokens: int | None, requests: int) -> dict[str, Any]:
    """One row of the table: every arm on the same prompts."""
    seen: dict[str, list[tuple[int, dict[str, float]]]] = {arm: [] for arm in ARMS}
    arms = [arm for arm in ARMS if arm != "draft" or (tokens or 0) > DRAFT]

    def noting(arm: str) -> Callable[..., None]:
        return lambda done, **_: seen[arm].append((done.asked, dict(done.timings)))

    guards = {arm: bench.guard(arm, copies, tokens, noting(arm)) for arm in arms}
    bare, slow = bench.sampler(tokens), official(bench, copies, tokens)
    batches = [list(bench.prompts[i : i + requests]) for i in range(0, len(bench.prompts) - requests + 1, requests)]
    turns = {name: iter(range(10**9)) for name in ("bare", "official", *arms)}

    def batch(name: str) -> list[Prompt]:
        return batches[next(turns[name]) % len(batches)]

    def all_slowly() -> None:
        for prompt in batch("official"):
            slow(prompt)

    calls: dict[str, Callable[[], object]] = {
        "bare": lambda: bare([Copy(prompt) for prompt in batch("bare")], bench.policy.smoothing),
        "official": all_slowly,
        **{arm: (lambda arm=arm: guards[arm].check_many(batch(arm))) for arm in arms},  # type: ignore[misc] # default binds
    }
    once = timed(bench, {"official": calls["official"]}, rounds=1)["official"][0]
    rounds = max(3, min(15, int(bench.seconds / max(once, 1e-3))))
    taken = timed(bench, calls, rounds=rounds)
    base = statistics.median(taken["bare"])
    return {
        "copies": copies,
        "tokens": tokens,
        "requests": requests,
        "rounds": rounds,
        "bare_seconds": base,
        "ratio": {name: statistics.median(values) / base for name, values in taken.items()},
        "spread": {name: [min(values) / base, max(values) / base] for name, values in taken.items()},
        "asked": {arm: statistics.mean(asked for asked, _ in seen[arm]) for arm in arms},
        "stages_ms": {
            arm: {
                stage: statistics.median(t.get(stage, 0.0) for _, t in seen[arm])
                for stage in ("sample", "vote", "embed", "judge")
            }
            for arm in arms
        },
    }


def concurrent(bench: Bench, *, copies: int, tokens: int | None, many: int = 32) -> dict[str, float]:
    """Requests per second: one after another, and `many` callers at once whose calls are merged."""
    guard = bench.guard("sequential", copies, tokens, lambda *_, **__: None)
    bare = bench.sampler(tokens)
    prompts = [bench.prompts[i % len(bench.prompts)] for i in range(many)]
    with ThreadPoolExecutor(many) as pool:
        calls: dict[str, Callable[[], object]] = {
            "one after another": lambda: [guard.check(prompt) for prompt in prompts],
            "at once": lambda: list(pool.map(guard.check, prompts)),
            "bare, one batch": lambda: bare([Copy(prompt) for prompt in prompts], bench.policy.smoothing),
        }
        taken = timed(bench, calls, rounds=3)
    return {name: many / statistics.median(values) for name, values in taken.items()}


def memory(bench: Bench, *, copies: int, tokens: int | None) -> dict[str, float]:
    """Peak MiB over what the model holds: a bare answer, the full vote; and the copies' KV cache as counted."""
    guard, bare = bench.guard("full", copies, tokens, lambda *_, **__: None), bench.sampler(tokens)
    prompt, config = bench.prompts[0], bench.handle.model.config.get_text_config()
    found = {
        "bare": _peak(bench, lambda: bare([Copy(prompt)], bench.policy.smoothing)),
        "full": _peak(bench, lambda: guard.check(prompt)),
    }
    from sg_guardrails.models.hf import encode  # noqa: PLC0415 - for this one count

    length = encode(bench.handle, prompt)["input_ids"].shape[1] + (tokens or bench.policy.model.max_new_tokens)
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    row = 2 * config.num_hidden_layers * heads * head * length * bench.handle.dtype.itemsize
    return {**found, "kv_cache_of_copies": row * copies / 2**20}


def _peak(bench: Bench, call: Callable[[], object]) -> float:
    call()
    if bench.handle.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    # Linux keeps a high-water mark that can be set back; elsewhere there is none to be had.
    clear = Path("/proc/self/clear_refs")
    if not clear.exists():
        return float("nan")
    clear.write_text("5")
    before = _resident("VmRSS")
    call()
    return _resident("VmHWM") - before


def _resident(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def floor(bench: Bench, *, copies: int, tokens: int) -> dict[str, float]:
    """Least seconds for a bare answer and a full vote: weights and KV read, and operations, at the measured rates."""
    model, device = bench.handle.model, bench.handle.device
    weights = sum(p.numel() * p.element_size() for p in model.get_decoder().parameters())
    count = sum(p.numel() for p in model.get_decoder().parameters())
    from sg_guardrails.models.hf import encode  # noqa: PLC0415 - for this one count

    prompt = encode(bench.handle, bench.prompts[0])["input_ids"].shape[1]
    bandwidth, rate = _bandwidth(device), _rate(device, bench.handle.dtype)

    def seconds(rows: int) -> float:
        prefill = max(weights / bandwidth, 2 * count * rows * prompt / rate)
        step = max(weights / bandwidth, 2 * count * rows / rate)
        return prefill + tokens * step

    return {
        "bandwidth_gb_s": bandwidth / 1e9,
        "rate_tflop_s": rate / 1e12,
        "bare_seconds": seconds(1),
        "full_seconds": seconds(copies + 1),
        "ratio": seconds(copies + 1) / seconds(1),
    }


def _bandwidth(device: torch.device) -> float:
    block = torch.rand(2**26 if device.type == "cuda" else 2**24, device=device)
    seconds = _best(block.clone, device)
    return 2 * block.numel() * block.element_size() / seconds


def _rate(device: torch.device, dtype: torch.dtype) -> float:
    side = 8192 if device.type == "cuda" else 1024
    a, b = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
    return 2 * side**3 / _best(lambda: a @ b, device)


def _best(call: Callable[[], object], device: torch.device) -> float:
    taken = []
    for _ in range(10):
        began = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - began)
    return min(taken)


def built_in(count: int) -> list[Prompt]:
    """Easy-vqa's test questions."""
    from itertools import islice  # noqa: PLC0415 - with the import below

    from training.demo_pictures import questions  # noqa: PLC0415 - easy-vqa is not installed everywhere

    return [Prompt.ask(asked[0].upper() + asked[1:], image) for _, image, asked, _ in islice(questions(), count)]


def random_pictures(count: int, side: int) -> list[Prompt]:
    """Random pixels: nothing that a kernel could skip."""
    rng = np.random.default_rng(0)
    return [Prompt.ask("What is shown?", Image(rng.random((side, side, 3), dtype=np.float32))) for _ in range(count)]


def show(rows: Sequence[dict[str, Any]], console: Console) -> None:
    """Prints the latency table: multiples of the bare answer."""
    arms = ("official", *ARMS)
    table = Table("N", "tokens", "requests", "bare ms", *arms, "asked, sequential", title="times a bare answer")
    for row in rows:
        ratio, asked = row["ratio"], row["asked"]
        table.add_row(
            str(row["copies"]),
            str(row["tokens"] or "as answered"),
            str(row["requests"]),
            f"{1000 * row['bare_seconds']:.0f}",
            *(f"{ratio[name]:.2f}" if name in ratio else "" for name in arms),
            f"{asked['sequential']:.1f}",
        )
    console.print(table)


def built(model: str, device: str, seconds: float, *, static: bool) -> Bench:
    """The model, its policy and its questions."""
    if model.startswith("builtin:"):
        handle, policy, prompts = load(model, device=device), Policy.load("builtin"), built_in(40)
    else:
        from seven_b import handle as shaped  # noqa: PLC0415 - 14 GB of weights, for this choice alone

        handle, policy, prompts = shaped(model, device=device), Policy.load("default"), random_pictures(40, 336)
    if static:
        handle.model.generation_config.cache_implementation = "static"
    return Bench(handle, policy, prompts, seconds)


def measure(bench: Bench, cells: Sequence[tuple[int, int | None, int]], console: Console) -> dict[str, Any]:
    """All rows, then concurrency, memory and the floor."""
    settings = bench.handle.model.generation_config
    ends = settings.eos_token_id
    rows = []
    for copies, tokens, requests in cells:
        settings.eos_token_id = ends if tokens is None else None  # without an end every answer is exactly so long
        rows.append(cell(bench, copies=copies, tokens=tokens, requests=requests))
        console.print(f"N={copies} tokens={tokens} requests={requests}: {rows[-1]['ratio']}")
    usual = cells[0][1]
    settings.eos_token_id = ends if usual is None else None
    found: dict[str, Any] = {
        "rows": rows,
        "requests_per_second": concurrent(bench, copies=10, tokens=usual),
        "peak_mib": memory(bench, copies=10, tokens=usual),
    }
    settings.eos_token_id = ends
    return {**found, "floor": floor(bench, copies=10, tokens=usual or 8)}


def main() -> None:
    """Reads the command line, measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="builtin:shapes")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=60.0, help="about how long the slowest arm of a cell repeats")
    parser.add_argument(
        "--static", action="store_true", help="static cache (compiled where transformers does), all arms"
    )
    parser.add_argument("--all", action="store_true", help="every cell; else those that a CPU gets through in minutes")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    console = Console()
    bench = built(options.model, options.device, options.seconds, static=options.static)
    small = options.model.startswith("builtin:")
    every = [(n, length, r) for length in LENGTHS for n in COPIES for r in REQUESTS]
    short = [(10, None, 1), (4, None, 1), (20, None, 1), (10, None, 8), (10, 16, 1), (10, 128, 1)]
    cells = [(10, None, 1), *every] if options.all and small else [(10, 128, 1), *every] if options.all else short
    found = measure(bench, cells if small else [c for c in cells if c[1] is not None], console)
    show(found["rows"], console)
    console.print({name: value for name, value in found.items() if name != "rows"})
    graphics = options.device.startswith("cuda")
    where = torch.cuda.get_device_name() if graphics else f"{platform.machine()} CPU"
    about = {
        "model": bench.handle.id,
        "device": where,
        "dtype": str(bench.handle.dtype),
        "threads": torch.get_num_threads(),
        "static_cache": options.static,
        "torch": torch.__version__,
        "attention": bench.handle.model.config._attn_implementation,
    }
    name = options.model.replace(":", "_").replace(".", "_") + f"_{options.device.split(':')[0]}"
    out = options.out or OUT / f"cost_{name}{'_static' if options.static else ''}.json"
    out.write_text(json.dumps({"about": about, **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
