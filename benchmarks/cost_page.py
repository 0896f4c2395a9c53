"""The figures of docs/what_it_costs.md, made from the committed JSON.

python benchmarks/cost_page.py [--check]
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from benchmarks.pages import ROOT, between, figures, rewrite

PAGE = ROOT / "docs" / "what_it_costs.md"
BEGIN, END = "<!-- figures: benchmarks/cost_page.py -->", "<!-- end of figures -->"
CPU, HALF, EARLY = "cost_builtin_shapes_cpu", "cost_builtin_shapes_cpu_bfloat16", "early_replayed"
ARMS = ("official", "full", "early", "sequential", "draft")
EDGE = 0.01
"""How near to what was wanted is said to be at its edge, as a share of it."""
NAMED = 2
"""As many parts of one code are named, more are counted."""
Json = Mapping[str, Any]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Markdown."""
    return ["", *(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)), ""]


def ratio(row: Json, arm: str) -> str:
    """A multiple of the bare answer, with the copies asked where they vary."""
    if arm not in row["ratio"]:
        return ""
    asked = f" ({row['asked'][arm]:.1f})" if arm in ("early", "sequential") else ""
    return f"{row['ratio'][arm]:.2f}{asked}"


def latency(rows: Sequence[Json]) -> list[str]:
    """The table of the whole request, and whether one code measured it all."""
    made = table(
        ("N", "tokens", "requests", "bare, ms", *ARMS, "rounds"),
        (
            (
                str(row["copies"]),
                str(row["tokens"] or "as answered"),
                str(row["requests"]),
                f"{1000 * row['bare_seconds']:.0f}",
                *(ratio(row, arm) for arm in ARMS),
                str(row["rounds"]),
            )
            for row in rows
        ),
    )
    return [*made, *compared(rows), dated(rows), ""]


def compared(rows: Sequence[Json]) -> Iterator[str]:
    """Under which settings the bare answer of these rows was measured."""
    of: dict[tuple[bool, tuple[str, ...]], int] = {}
    for row in rows:
        key = (row["tokens"] is None, tuple(row["bare_seconds_by_settings"]))
        of[key] = of.get(key, 0) + 1
    for (given, ways), count in of.items():
        named, which = "; ".join(ways), "as answered" if given else "of a fixed length"
        held = f"is the fastest of {len(ways)} ({named})" if len(ways) > 1 else f"was measured as {named} alone"
        yield f"In the {count} rows {which} the bare answer {held}.\n"


def dated(found: Iterable[Json], names: Iterable[str] = ()) -> str:
    """When and on which code these were measured, and which were measured on code of their own."""
    of: dict[str, list[str]] = {}
    rows = list(found)
    for code, name in zip_longest((one["code"] for one in rows), names, fillvalue=""):
        of.setdefault(code, []).append(name)
    dates = ", ".join(sorted({one["date"] for one in rows}))
    if len(of) == 1:
        return f"Measured on {dates}, all on the same code (digest {next(iter(of))})."
    counts = ", ".join(f"{code} ({len(some)}{told(some)})" for code, some in sorted(of.items()))
    return f"Measured on {dates}, **on different code** (digest, and how many were measured on it): {counts}."


def told(names: Sequence[str]) -> str:
    """A few parts' names."""
    return f": {', '.join(f'`{name}`' for name in names)}" if all(names) and len(names) <= NAMED else ""


def by_settings(rows: Sequence[Json]) -> list[str]:
    """The bare answer under each attention and cache, and the full vote against them."""
    known = [row for row in rows if row["tokens"] is None]
    ways = list(known[0]["bare_seconds_by_settings"])
    return table(
        ("N", "requests", *(f"bare, {way}, ms" for way in ways), "full, of the fastest", "full, of eager"),
        (
            (
                str(row["copies"]),
                str(row["requests"]),
                *(f"{1000 * row['bare_seconds_by_settings'][way]:.1f}" for way in ways),
                f"{row['ratio']['full']:.2f}",
                f"{row['ratio']['full'] * row['bare_seconds'] / eager(row):.2f}",
            )
            for row in known
        ),
    )


def eager(row: Json) -> float:
    """Seconds of a bare answer under eager attention."""
    return float(row["bare_seconds_by_settings"]["eager, dynamic"])


def asked_for(rows: Sequence[Json]) -> Json:
    """The row that the targets are about."""
    return next(row for row in rows if (row["copies"], row["tokens"], row["requests"]) == (10, None, 1))


def targets(rows: Sequence[Json], parts: Json, early: Json) -> list[str]:
    """What was wanted, and what was measured."""
    of, beside = asked_for(rows)["ratio"], parts["beside_ms"]["found"]
    times = parts["requests_per_second"]["found"]["times"]
    copies = next(
        one for one in early["without_veto"] if (one["pictures"], one["mode"]) == ("clean", "sequential 0.01")
    )
    lines: list[tuple[str, float | None, float | None, float]] = [
        ("full vote, of a bare answer", None, 4, of["full"]),
        ("official way, of the full vote", 2.5, None, of["official"] / of["full"]),
        ("early (exact), of a bare answer", None, 2.5, of["early"]),
        ("early (sequential 0.01), of a bare answer", None, 2.5, of["sequential"]),
        ("beside the model, ms, no text known", None, 15, beside["new"]["sum"]),
        ("beside the model, ms, all texts known", None, 15, beside["known"]["sum"]),
        ("32 requests at once, of one after another, by the wall", 1.5, None, times["wall"]),
        ("32 requests at once, of one after another, by process time", 1.5, None, times["process"]),
        *(
            (f"extra memory, of its count, {one['tokens']} tokens", 0.9, 1.1, one["extra"] / one["extra_counted"])
            for one in parts["peak_mib"]["found"]
        ),
        ("copies asked, clean, sequential 0.01", None, 3.5, copies["asked"]),
    ]
    return table(
        ("target", "wanted", "measured", ""),
        ((what, wanted(low, high), f"{found:.2f}", verdict(low, high, found)) for what, low, high, found in lines),
    )


def wanted(low: float | None, high: float | None) -> str:
    """A target in words."""
    if low is not None and high is not None:
        return f"{low} to {high}"
    return f"at least {low}" if high is None else f"at most {high}"


def verdict(low: float | None, high: float | None, found: float) -> str:
    """Whether it was met, and whether another run might say otherwise."""
    if (low is not None and found < low) or (high is not None and found > high):
        return "**missed**"
    near = any(bound is not None and abs(found - bound) <= EDGE * bound for bound in (low, high))
    return "met, at the edge" if near else "met"


def firmness(row: Json) -> list[str]:
    """How far the rounds of the targets' row lie apart, as multiples of the bare answer's median."""
    median = {row["fastest"]: 1.0, **row["ratio"]}
    return [
        f"The same row's {row['rounds']} rounds, each of another question, as multiples of the bare answer's median:",
        *table(
            ("arm", "median", "lowest round", "highest round"),
            (
                (
                    f"bare, {name}" if name == row["fastest"] else name,
                    *(f"{one:.2f}" for one in (of, *row["spread"][name])),
                )
                for name, of in median.items()
            ),
        ),
    ]


def pieces(parts: Json) -> Iterator[str]:
    """Where the time goes."""
    found = {name: part["found"] for name, part in parts.items()}
    beside = found["beside_ms"]
    yield "\nBeside the model, full vote, N = 10, as answered, ms:"
    stages = list(beside["new"])
    yield from table(("texts", *stages), ((name, *(f"{beside[name][one]:.1f}" for one in stages)) for name in beside))
    yield "Embedding what the rules read of a question and an answer, ms:"
    yield from table(
        ("words of the answer", "sentence-transformers", "ours"),
        ((words, f"{one['plain']:.0f}", f"{one['ours']:.0f}") for words, one in found["embedding_ms"].items()),
    )
    yield "Asking the model, 16 tokens, ms:"
    stages = list(found["stages_ms"]["bare"])
    yield from table(
        ("", *stages),
        ((name, *(f"{one[stage]:.1f}" for stage in stages)) for name, one in found["stages_ms"].items()),
    )
    fastest = min(one["bare"] for one in found["engines_ms"].values())
    yield "Attention and cache, 128 tokens, ms (the sampler alone):"
    yield from table(
        ("settings", "bare", "11 copies", "11 copies, of bare under the same", "11 copies, of the fastest bare"),
        (
            (
                name,
                f"{one['bare']:.0f}",
                f"{one['full']:.0f}",
                f"{one['full'] / one['bare']:.2f}",
                f"{one['full'] / fastest:.2f}",
            )
            for name, one in found["engines_ms"].items()
        ),
    )
    yield "Pixels a side, 16 tokens, ms:"
    yield from table(
        ("pixels", "bare", "11 copies"),
        ((side, f"{one['bare']:.0f}", f"{one['full']:.0f}") for side, one in found["picture_sizes_ms"].items()),
    )
    yield "32 requests, `early: sequential`, requests a second:"
    rates = found["requests_per_second"]
    ways = list(rates["wall"])
    yield from table(
        ("clock", *ways, "at once, of one after another"),
        (
            (clock, *(f"{rates[clock][way]:.1f}" for way in ways), f"{rates['times'][clock]:.2f}")
            for clock in rates["times"]
        ),
    )
    yield "Memory above a bare answer's peak, MiB, and the floor:"
    yield from table(
        ("tokens", "bare", "extra, measured", "extra, counted", "keys and values among the count"),
        (
            (
                str(one["tokens"]),
                *(f"{one[key]:.1f}" for key in ("bare", "extra", "extra_counted", "of_which_keys_and_values")),
            )
            for one in found["peak_mib"]
        ),
    )
    yield from table(
        ("tokens", "GB/s", "GFLOP/s", "bare, ms at least", "11 copies, ms at least"),
        (
            (
                str(one["tokens"]),
                f"{one['bandwidth_gb_s']:.0f}",
                f"{1000 * one['rate_tflop_s']:.0f}",
                f"{1000 * one['bare_seconds']:.0f}",
                f"{1000 * one['full_seconds']:.0f}",
            )
            for one in found["floor"]
        ),
    )
    yield dated(parts.values(), parts)


def decisions(early: Json, key: str) -> list[str]:
    """What deciding early changes, by kind of pictures."""
    shown = [row for row in early[key] if row["pictures"] in ("clean", "static", "adaptive") and row["mode"] != "full"]
    by_mode: dict[str, dict[str, Json]] = {}
    for row in shown:
        by_mode.setdefault(row["mode"], {})[row["pictures"]] = row
    kinds = {row["pictures"]: row["same_verdict"]["n"] for row in shown}
    return table(
        ("mode", *(f"{kind}, n = {n}: same verdict, % | copies" for kind, n in kinds.items())),
        ((mode, *(agreement(some[kind]) for kind in kinds)) for mode, some in by_mode.items()),
    )


def replayed(run: Json) -> Iterator[str]:
    """The answers under one policy, decided in each mode."""
    yield f"\nPolicy `{run['policy']}`, without its veto:"
    yield from split(decisions(run, "without_veto"))
    yield f"With its `refusal_veto: {run['veto']}`:"
    yield from split(decisions(run, "with_veto"))
    yield dated([run])
    yield ""


def agreement(row: Json) -> str:
    """A share with its interval, and the copies asked."""
    rate = row["same_verdict"]
    between = f"{100 * rate['low']:.2f} to {100 * rate['high']:.2f}"
    return f"{100 * rate['rate']:.2f} ({between}){'' if row['met'] else ' **missed**'} | {row['asked']:.1f}"


def page(text: str, read: Json) -> str:
    """The page with its marked part made anew."""
    cpu, half, early = read[CPU], read[HALF], read[EARLY]
    made = [
        "\n### Whole requests, multiples of the fastest bare answer measured (of a fixed length: one setting)",
        *latency(cpu["rows"]),
        "### Against the targets (N = 10, one request, as answered)",
        *targets(cpu["rows"], cpu["parts"], early[0]),
        *firmness(asked_for(cpu["rows"])),
        "### The bare answer under other settings",
        *by_settings(cpu["rows"]),
        "### In bfloat16",
        *latency(half["rows"]),
        "### Where the time goes",
        *pieces(cpu["parts"]),
        "\n### What deciding early changes",
        *(line for run in early for line in replayed(run)),
    ]
    return between(text, BEGIN, END, made)


def split(lines: list[str]) -> list[str]:
    """A table whose cells hold two columns each: the rule below the head gets as many."""
    return [f"|{' --- |' * (lines[1].count('|') - 1)}" if set(line) <= set("|- ") and line else line for line in lines]


def read_all() -> dict[str, Any]:
    """The committed figures."""
    return {name: figures(name) for name in (CPU, HALF, EARLY)}


if __name__ == "__main__":
    sys.exit(rewrite(PAGE, lambda text: page(text, read_all())))
