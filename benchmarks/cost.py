"""What the guard costs beside a bare answer, as ratios in one run: latency, throughput, stages, memory, the floor.

    python benchmarks/cost.py [--model builtin:shapes | llava-1.5-7b | qwen2.5-vl-7b] [--device cpu] [--all]

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
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

os.environ.setdefault("SG_GUARDRAILS_KEY", "the benchmark's own key, public on purpose")

import cost_floor  # the key must be set before a guard is built
import cost_parts
from cost_arms import ARMS, Bench, cell
from seven_b import SHAPES
from seven_b import handle as shaped

from sg_guardrails.core.media import Image
from sg_guardrails.core.policy import Policy
from sg_guardrails.core.types import Prompt
from sg_guardrails.models.hf import load

OUT = Path(__file__).parent / "results"
COPIES, LENGTHS, REQUESTS = (4, 10, 20), (16, 128, 512), (1, 8)
SHORT = 16
"""Tokens of the answers whose parts are measured."""
Cell = tuple[int, int | None, int]
"""Copies, tokens (None: as answered), requests at once."""
FEW: tuple[Cell, ...] = ((10, None, 1), (4, None, 1), (20, None, 1), (10, None, 8), (10, 16, 1), (10, 128, 1))
"""What a CPU gets through in minutes."""


def built_in(count: int) -> list[Prompt]:
    """Easy-vqa's test questions."""
    from itertools import islice  # noqa: PLC0415 - with the import below

    from training.demo_pictures import questions  # noqa: PLC0415 - easy-vqa is not installed everywhere

    return [Prompt.ask(asked[0].upper() + asked[1:], image) for _, image, asked, _ in islice(questions(), count)]


def random_pictures(count: int, side: int) -> list[Prompt]:
    """Random pixels: nothing that a kernel could skip."""
    rng = np.random.default_rng(0)
    return [Prompt.ask("What is shown?", Image(rng.random((side, side, 3), dtype=np.float32))) for _ in range(count)]


def built(model: str, device: str, seconds: float, *, dtype: str = "auto") -> Bench:
    """The model, its policy and its questions."""
    if model in SHAPES:
        return Bench(shaped(model, device=device), Policy.load("default"), random_pictures(40, 336), seconds)
    return Bench(load(model, device=device, dtype=dtype), Policy.load("builtin"), built_in(40), seconds)


def cells(*, small: bool, everything: bool, lengths: Sequence[int]) -> list[Cell]:
    """Which rows are measured: short ones first."""
    every = [(n, length, r) for r in REQUESTS for length in LENGTHS for n in COPIES]
    rows = [*(row for row in FEW if row[1] is None or not everything), *(every if everything else ())]
    return [row for row in rows if (small or row[1] is not None) and (not lengths or (row[1] or 0) in lengths)]


def parts(bench: Bench, usual: int | None, *, compiled: bool) -> dict[str, Any]:
    """Stages, settings, growth, concurrency, memory and the floor."""
    return {
        "stages_ms": cost_parts.stages(bench, copies=10, tokens=SHORT),
        "engines_ms": cost_parts.engines(bench, copies=10, tokens=128, compiled=compiled),
        "picture_sizes_ms": cost_parts.picture_sizes(bench, copies=10, tokens=SHORT),
        "requests_per_second": cost_parts.concurrent(bench, copies=10, tokens=usual),
        "peak_mib": [cost_floor.memory(bench, copies=10, tokens=tokens) for tokens in LENGTHS[:2]],
        "floor": [cost_floor.floor(bench, copies=10, tokens=tokens) for tokens in (8, *LENGTHS)],
        "large_models_counted": cost_floor.large_models(random_pictures(1, 336)[0]),
    }


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


def main() -> None:
    """Reads the command line, measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="builtin:shapes")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="auto", help="of the built-in model or a folder's")
    parser.add_argument("--seconds", type=float, default=40.0, help="about how long one row of the table is repeated")
    parser.add_argument("--compile", action="store_true", help="measure the compiled step too; compiling takes minutes")
    parser.add_argument("--all", action="store_true", help="every row; else those that a CPU gets through in minutes")
    parser.add_argument("--lengths", type=int, nargs="*", default=(), help="only rows of these; 0: as answered")
    parser.add_argument("--rows-only", action="store_true", help="leave stages, growth, memory and floor as they were")
    parser.add_argument("--out", type=Path, help="rows and parts in it that are not measured now are kept")
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    console = Console()
    bench = built(options.model, options.device, options.seconds, dtype=options.dtype)
    rows = cells(small=options.model not in SHAPES, everything=options.all, lengths=options.lengths)
    graphics = bench.handle.device.type == "cuda"
    name = options.model.replace(":", "_").replace(".", "_") + f"_{bench.handle.device.type}"
    out = options.out or OUT / f"cost_{name}{'' if options.dtype == 'auto' else f'_{options.dtype}'}.json"
    found: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
    about = {
        "model": bench.handle.id,
        "device": torch.cuda.get_device_name() if graphics else f"{platform.machine()} CPU",
        "dtype": str(bench.handle.dtype),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "attention": bench.handle.model.config._attn_implementation,
    }
    if not options.rows_only:
        usual = None if options.model not in SHAPES else 128
        found |= parts(bench, usual, compiled=options.compile)
        out.write_text(json.dumps(found, indent=1) + "\n")
    measured = {(row["tokens"] or 0, row["requests"], row["copies"]): row for row in found.get("rows", ())}
    for copies, tokens, requests in rows:
        began = time.perf_counter()
        row = measured[tokens or 0, requests, copies] = cell(bench, copies=copies, tokens=tokens, requests=requests)
        console.print(f"N={copies} tokens={tokens} x{requests}, {time.perf_counter() - began:.0f} s: {row['ratio']}")
        found["rows"] = [measured[key] for key in sorted(measured)]
        found["about"] = about
        out.write_text(json.dumps(found, indent=1) + "\n")
    console.print({name: value for name, value in found.items() if name != "rows"})
    show(found.get("rows", ()), console)


if __name__ == "__main__":
    main()
