"""What the guard costs beside a bare answer, as ratios in one run: latency, throughput, stages, memory, the floor.

    python benchmarks/cost.py [--model builtin:shapes | llava-1.5-7b | qwen2.5-vl-7b] [--device cpu] [--few]

Arms, interleaved so that all meet the same machine: ``bare`` (one greedy answer), ``official`` (the published way: a
generate, an embedding, one after another, for N + 1 copies, then KMeans), ``full`` (every copy in one batch), ``early``
(exact), ``sequential`` (alpha 0.01), ``draft`` (vote on 16 tokens); all
without the policy's veto, under which nearly every copy must be asked. Two loads: ``answers``, where the built-in model
answers easy-vqa's questions as it does, and ``N tokens``, where every answer is exactly that long and the copies agree
by decree (clean traffic; random weights would say nothing alike). All arms share weights, dtype, attention and cache.
Under ``answers`` the bare model answers under other settings too, and what is reported are multiples of its fastest
answer; under ``N tokens`` only under the settings shared.

Each row is written as it is measured, with its date, its policy and the digest of the code that ran. A killed run goes
on where it was; rows of other code or of another policy are measured again, unless ``--keep``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
from measured import differing, digest, today
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
EVERY: tuple[Cell, ...] = (
    *((n, None, 1) for n in (10, 4, 20)),
    (10, None, 8),
    *((n, length, r) for length in LENGTHS for r in REQUESTS for n in COPIES),
)
FEW: tuple[Cell, ...] = (*EVERY[:4], (10, 16, 1), (10, 128, 1))
"""Minutes on a CPU."""
OWN = [Path(__file__).with_name(f"{name}.py") for name in ("cost", "cost_arms", "cost_parts", "cost_floor", "seven_b")]


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
    own, eager = (load(model, device=device, dtype=dtype, attention=how) for how in ("auto", "eager"))
    return Bench(own, Policy.load("builtin"), built_in(40), seconds, eager)


def cells(*, small: bool, few: bool, lengths: Sequence[int]) -> list[Cell]:
    """Which rows are measured, short ones first. The large shapes say nothing as given: their weights are random."""
    rows = FEW if few else EVERY
    return [row for row in rows if (small or row[1] is not None) and (not lengths or (row[1] or 0) in lengths)]


def parts(bench: Bench, usual: int | None, *, compiled: bool) -> dict[str, Callable[[], Any]]:
    """What is measured beside the rows, by name."""
    return {
        "beside_ms": lambda: cost_parts.beside(bench, copies=10),
        "requests_per_second": lambda: cost_parts.concurrent(bench, copies=10, tokens=usual),
        "embedding_ms": lambda: cost_parts.embedding(bench),
        "stages_ms": lambda: cost_parts.stages(bench, copies=10, tokens=SHORT),
        "engines_ms": lambda: cost_parts.engines(bench, copies=10, tokens=128, compiled=compiled),
        "picture_sizes_ms": lambda: cost_parts.picture_sizes(bench, copies=10, tokens=SHORT),
        "peak_mib": lambda: [cost_floor.memory(bench, copies=10, tokens=tokens) for tokens in LENGTHS],
        "floor": lambda: [cost_floor.floor(bench, copies=10, tokens=tokens) for tokens in (8, *LENGTHS)],
        "large_models_counted": lambda: cost_floor.large_models(random_pictures(1, 336)[0]),
    }


def chosen(pieces: Mapping[str, Callable[[], Any]], names: Sequence[str]) -> dict[str, Callable[[], Any]]:
    """Those named, or all where none is.

    Raises:
        KeyError: a name that no part has.
    """
    return {name: pieces[name] for name in names or pieces}


@dataclass(frozen=True, slots=True)
class Store:
    """The JSON of one model on one device, written after each piece."""

    path: Path
    code: str
    """Digest of the code that runs."""
    policy: str
    """Name and content hash."""
    keep: bool
    """Whether what other code, or another policy, has measured stays."""

    def read(self) -> dict[str, Any]:
        """What there is."""
        found = json.loads(self.path.read_text("utf-8")) if self.path.exists() else {}
        return {"rows": [], "parts": {}, **found}

    def lacks(self, known: Mapping[str, Any] | None) -> bool:
        """Whether that must be measured."""
        return known is None or not (self.keep or (known.get("code"), known.get("policy")) == (self.code, self.policy))

    def write(self, found: Mapping[str, Any]) -> None:
        """Whole or not at all, whenever a kill comes."""
        draft = self.path.with_suffix(".new")
        draft.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        draft.replace(self.path)

    def stamped(self, **values: Any) -> dict[str, Any]:
        """With the date, the code and the policy."""
        return {"date": today(), "code": self.code, "policy": self.policy, **values}

    def measured(self, rows: Sequence[Cell], bench: Bench, console: Console) -> None:
        """Measure the rows that lack."""
        for copies, tokens, requests in rows:
            found = self.read()
            table = {(row["tokens"] or 0, row["requests"], row["copies"]): row for row in found["rows"]}
            place = (tokens or 0, requests, copies)
            if not self.lacks(table.get(place)):
                continue
            began = time.perf_counter()
            table[place] = self.stamped(**cell(bench, copies=copies, tokens=tokens, requests=requests))
            self.write({**found, "rows": [table[key] for key in sorted(table)]})
            took = time.perf_counter() - began
            console.print(f"N={copies} tokens={tokens} x{requests}, {took:.0f} s: {table[place]['ratio']}")

    def parted(self, pieces: Mapping[str, Callable[[], Any]], console: Console) -> None:
        """Measure the parts that lack."""
        for name, measure in pieces.items():
            found = self.read()
            if self.lacks(found["parts"].get(name)):
                value = measure()
                self.write({**found, "parts": {**found["parts"], name: self.stamped(found=value)}})
                console.print({name: value})


def show(found: Mapping[str, Any], code: str, console: Console) -> None:
    """Prints the latency table: multiples of the fastest bare answer."""
    arms = ("official", *ARMS)
    table = Table("N", "tokens", "requests", "bare ms", *arms, "rounds", "date", "code", title="times a bare answer")
    for row in found["rows"]:
        ratio, asked = row["ratio"], row["asked"]
        table.add_row(
            str(row["copies"]),
            str(row["tokens"] or "as answered"),
            str(row["requests"]),
            f"{1000 * row['bare_seconds']:.0f}",
            *(_told(ratio[name], asked.get(name)) if name in ratio else "" for name in arms),
            str(row["rounds"]),
            row["date"],
            row["code"],
        )
    console.print(table)
    if others := differing((one["code"] for one in (*found["rows"], *found["parts"].values())), code):
        console.print(f"Not all of it was measured on the present code ({code}), but on {', '.join(others)}.")


def _told(ratio: float, asked: float | None) -> str:
    return f"{ratio:.2f}" + (f" ({asked:.1f})" if asked is not None else "")


def main() -> None:
    """Reads the command line, measures, prints and writes."""
    code = digest(*OWN)  # of what was loaded just now
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="builtin:shapes")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="auto", help="of the built-in model or a folder's")
    parser.add_argument("--seconds", type=float, default=40.0, help="about how long one row of the table is repeated")
    parser.add_argument("--compile", action="store_true", help="measure the compiled step too; compiling takes minutes")
    parser.add_argument("--few", action="store_true", help="the rows that a CPU gets through in minutes")
    parser.add_argument("--lengths", type=int, nargs="*", default=(), help="only rows of these; 0: as answered")
    parser.add_argument("--rows-only", action="store_true", help="no stages, growth, concurrency, memory and floor")
    parser.add_argument("--parts", nargs="+", default=(), help="only these, peak_mib for one, and no rows")
    parser.add_argument("--keep", action="store_true", help="measure only what lacks, whatever code measured the rest")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    console = Console()
    bench = built(options.model, options.device, options.seconds, dtype=options.dtype)
    small, graphics = options.model not in SHAPES, bench.handle.device.type == "cuda"
    name = options.model.replace(":", "_").replace(".", "_") + f"_{bench.handle.device.type}"
    out = options.out or OUT / f"cost_{name}{'' if options.dtype == 'auto' else f'_{options.dtype}'}.json"
    store = Store(out, code, bench.policy.id, keep=options.keep)
    about = {
        "model": bench.handle.id,
        "device": torch.cuda.get_device_name() if graphics else f"{platform.machine()} CPU",
        "dtype": str(bench.handle.dtype),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "attention": bench.handle.model.config._attn_implementation,
    }
    store.write({**store.read(), "about": about})
    if not options.rows_only:
        pieces = parts(bench, None if small else 128, compiled=options.compile)
        store.parted(chosen(pieces, options.parts), console)
    if not options.parts:
        store.measured(cells(small=small, few=options.few, lengths=options.lengths), bench, console)
    show(store.read(), code, console)


if __name__ == "__main__":
    main()
