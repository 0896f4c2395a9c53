"""Writes the figures of docs/what_it_stops.md from the red team's JSON, so that none can drift.

    sg-guardrails eval redteam --policy NAME --out DIR        # hours on one CPU core; goes on where it was killed
    cp DIR/redteam.json benchmarks/results/redteam_NAME.json  # and redteam.html likewise
    python benchmarks/attacked.py                             # rewrites the marked part of the page

With ``--check`` it changes nothing and exits 1 where the page differs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / "benchmarks" / "results"
POLICIES = ("builtin", "builtin_hardened")
PAGE = ROOT / "docs" / "what_it_stops.md"
BEGIN, END = "<!-- figures: start -->", "<!-- figures: end -->"
LAYERS = {"vote": "vote", "abstention": "vote + abstention", "guard": "full guard"}


def rate(figure: Mapping[str, Any]) -> str:
    """A rate with its interval."""
    return f"{figure['value']:.2f} ({figure['low']:.2f}-{figure['high']:.2f})"


def layer(row: Mapping[str, Any], name: str) -> str:
    """A layer's rate, what it leaves of the bare one, and what became of the target."""
    cell, share, target = rate(row["guarded"][name]), row["share"][name], row["target"][name]
    left = "" if share is None else f"; {share:.0%}"
    asked = "" if target is None else f" of {target:.0%}: {row['verdict'][name]}"
    return f"{cell}{left}{asked}"


def budget(row: Mapping[str, Any]) -> str:
    """The budget as a reader knows it."""
    much = row["cell"]["budget"]
    return f"{much}/255" if much.isdigit() else str(much)


def attacks(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The table of all cells."""
    yield (
        "| attack | budget | attacker | n | bare | "
        + " | ".join(LAYERS.values())
        + " | recovered | withheld | paper's preset |"
    )
    yield "|---" * (8 + len(LAYERS)) + "|"
    for row in rows:
        cell = row["cell"]
        paper = "" if row["paper"] is None else f"{rate(row['paper'])}, n {row['paper']['n']}"
        layers = " | ".join(layer(row, name) for name in LAYERS)
        ends = f"{rate(row['recovered']['guard'])} | {rate(row['stopped'])}"
        yield (
            f"| {cell['family']} | {budget(row)} | {cell['attacker']} | {row['bare']['n']} | {rate(row['bare'])} "
            f"| {layers} | {ends} | {paper} |"
        )


def claims(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Each static figure beside the adaptive attack that tried to break it."""
    found = {(row["cell"]["family"], row["cell"]["budget"], row["cell"]["attacker"]): row for row in rows}
    yield "| claim: pictures made without knowledge of the guard | bare to guarded | the adaptive attack on it |"
    yield "|---|---|---|"
    for (family, much, attacker), row in found.items():
        broken = found.get((family, much, "adaptive"))
        if attacker == "static" and broken is not None:
            yield f"| {family}, {much}/255 | {_change(row)} | {_change(broken)} |"


def _change(row: Mapping[str, Any]) -> str:
    return f"{row['bare']['value']:.2f} to {rate(row['guarded']['guard'])}, n {row['bare']['n']}"


def clean(cost: Mapping[str, Any]) -> Iterator[str]:
    """What the guard costs where nobody attacks."""
    yield "| questions | n | bare | vote | full guard | withheld |"
    yield "|---|---|---|---|---|---|"
    vote, guard = cost["guarded"]["vote"], cost["guarded"]["guard"]
    yield (
        f"| all | {cost['bare']['n']} | {rate(cost['bare'])} | {rate(vote)}: {cost['verdict']['vote']} "
        f"| {rate(guard)}: {cost['verdict']['guard']} | {rate(cost['withheld'])}: {cost['withholding']} |"
    )
    for kind, (plain, guarded) in cost["by_kind"].items():
        yield f"| {kind} | {plain['n']} | {rate(plain)} | | {rate(guarded)} | |"


def section(name: str, read: Mapping[str, Any]) -> Iterator[str]:
    """One policy's part."""
    about = read["about"]
    yield from (
        f"## Policy `{name}`",
        f"Model `{about['model']}`, policy `{about['policy']}`, {about['steps']} steps. Rates with 95% Wilson",
        "intervals; after a layer's rate, what it leaves of the bare rate and the target, where there is one.",
        "",
        *attacks(read["cells"]),
        "",
        "Each claim and the attack that tried to break it:",
        "",
        *claims(read["cells"]),
        "",
        "What it costs where nobody attacks:",
        "",
        *clean(read["clean"]),
        "",
    )


def page(text: str, runs: Mapping[str, Mapping[str, Any]]) -> str:
    """The page with its marked part made anew."""
    before, rest = text.split(BEGIN)
    made = [line for name, read in runs.items() for line in section(name, read)]
    return before + "\n".join((BEGIN, *made, END)) + rest.split(END)[1]


def read_all() -> dict[str, Any]:
    """The committed figures, by policy."""
    return {name: json.loads((FIGURES / f"redteam_{name}.json").read_text(encoding="utf-8")) for name in POLICIES}


def main() -> int:
    """Rewrite the page, or say whether it has drifted."""
    parser = argparse.ArgumentParser(description="Figures of docs/what_it_stops.md")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 where the page differs")
    check = parser.parse_args().check
    old = PAGE.read_text(encoding="utf-8")
    new = page(old, read_all())
    if not check:
        PAGE.write_text(new, encoding="utf-8")
    return int(check and new != old)


if __name__ == "__main__":
    sys.exit(main())
