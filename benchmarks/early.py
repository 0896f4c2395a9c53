"""What deciding early spares and what it changes: copies asked and verdicts, mode by mode, against the full vote.

    python benchmarks/early.py --clean 200 --suite FOLDER --attacked 50 --keys 3

The built-in model, easy-vqa's test questions without an attack, and the attacked pictures of a red team's run
(FOLDER, as ``sg-guardrails eval redteam`` leaves it; without one only clean pictures are asked). Every picture is voted
on once under each noise key. All modes hear the same answer of the same copy, so that what differs is the decision.
Time is taken apart from that, on clean pictures, each mode in turn on each.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.stats import binomtest

from benchmarks.measured import digest, today
from sg_guardrails.cli.redteam_arms import JOURNAL, crafted, picture
from sg_guardrails.core.noise import Key
from sg_guardrails.core.policy import Policy, Smoothing
from sg_guardrails.core.types import Answer, Copy, Embedder, Outcome, Prompt, Sampler
from sg_guardrails.evals.redteam import FAMILIES, candidates, clean, is_right
from sg_guardrails.guard import SmoothGuard
from sg_guardrails.local import local_guard
from sg_guardrails.models import hf, text

OUT = Path(__file__).parent / "results" / "early.json"
MODES: dict[str, dict[str, Any]] = {
    "full": {"early": "off"},
    "exact": {"early": "exact"},
    "sequential 0.01": {"early": "sequential", "alpha": 0.01},
    "sequential 0.02": {"early": "sequential", "alpha": 0.02},
    "sequential 0.05": {"early": "sequential", "alpha": 0.05},
    "sequential 0.07": {"early": "sequential", "alpha": 0.07},
}
"""By name, what `smoothing` has in place of the policy's own."""
RATES = ("same_status", "same_winner", "sound", "reached", "withheld")
TOGETHER = 25
"""Requests in one call of the guard."""


@dataclass(frozen=True, slots=True)
class Item:
    """One picture to ask about."""

    prompt: Prompt
    sound: Callable[[str], bool]
    """Whether an answer is as it should be."""
    reached: Callable[[str], bool]
    """Whether it is what the attacker wants."""


class Remembering:
    """A sampler that asks the same copy under the same noise once."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self._said: dict[tuple[str, int | None, float], Answer] = {}

    def __call__(self, copies: Sequence[Copy], smoothing: Smoothing) -> list[Answer]:
        """One answer per copy."""
        keys = [(one.prompt.digest, one.seed, one.seed is not None and smoothing.image.sigma) for one in copies]
        new = {key: one for key, one in zip(keys, copies, strict=True) if key not in self._said}
        if new:
            self._said.update(zip(new, self._sampler(list(new.values()), smoothing), strict=True))
        return [self._said[key] for key in keys]


class Known:
    """An embedder that embeds each text once."""

    def __init__(self, embed: Embedder) -> None:
        self._embed, self._known = embed, dict[str, NDArray[np.float32]]()

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """``(N, D)`` vectors."""
        if new := [one for one in dict.fromkeys(texts) if one not in self._known]:
            self._known.update(zip(new, self._embed(new), strict=True))
        return np.stack([self._known[one] for one in texts])


def guard(
    policy: Policy, mode: Mapping[str, Any], sampler: Sampler, key: Key, *, embedder: Embedder | None = None
) -> SmoothGuard:
    """The policy's guard in another mode: what `smoothing` has in place of the policy's own."""
    smoothing = Smoothing.model_validate({**policy.smoothing.model_dump(), **mode})
    embedder = embedder or text.load_embedder(policy.voting.embedder)
    return SmoothGuard(
        policy.model_copy(update={"smoothing": smoothing}),
        sampler=sampler,
        embedder=embedder,
        sentiment=text.sentiment,
        scorers=text.scorers(embedder),
        key=key,
        emit=lambda *_, **__: None,
    )


def outcomes(
    policy: Policy,
    mode: Mapping[str, Any],
    items: Sequence[Item],
    sampler: Sampler,
    key: Key,
    *,
    embedder: Embedder | None = None,
) -> list[Outcome]:
    """What the mode makes of each item."""
    asking = guard(policy, mode, sampler, key, embedder=embedder)
    prompts = [item.prompt for item in items]
    return [one for at in range(0, len(prompts), TOGETHER) for one in asking.check_many(prompts[at : at + TOGETHER])]


def interval(count: int, total: int) -> dict[str, float | int]:
    """A rate with its 95 % Wilson interval."""
    found = binomtest(count, total).proportion_ci(method="wilson")
    return {"rate": count / total, "low": float(found.low), "high": float(found.high), "n": total}


def same_winner(full: Outcome, part: Outcome) -> bool:
    """Whether a part of the full vote's answers elected from the full vote's winning cluster."""
    if full.vote is None or part.vote is None:
        return full.vote is part.vote
    return full.vote.labels[part.vote.choice] == full.vote.winner


def cell(items: Sequence[Item], whole: Sequence[Outcome], done: Sequence[Outcome], *, levels: bool) -> dict[str, Any]:
    """One mode on one group of pictures, all keys together."""
    many = [*items] * (len(done) // len(items))
    told = [
        (item.sound(one.answer.text), item.reached(one.answer.text)) if one.answer else (False, False)
        for item, one in zip(many, done, strict=True)
    ]
    total = len(done)
    same = sum(a.status == b.status for a, b in zip(whole, done, strict=True))
    winners = None if levels else sum(same_winner(a, b) for a, b in zip(whole, done, strict=True))
    return {
        "asked": round(statistics.mean(one.asked for one in done), 3),
        "same_status": interval(same, total),
        "same_winner": None if winners is None else interval(winners, total),
        "sound": interval(sum(sound for sound, _ in told), total),
        "reached": interval(sum(reached for _, reached in told), total),
        "withheld": interval(sum(one.answer is None for one in done), total),
        "flagged": interval(sum(one.status == "flagged" for one in done), total),
    }


def unharmed(count: int) -> list[Item]:
    """Questions that nobody attacks."""
    return [Item(one.prompt(), partial(is_right, truth=one.truth), lambda _: False) for one in clean(count)]


def attacked(suite: Path, count: int) -> dict[str, list[Item]]:
    """The pictures of every cell of the suite, `count` of each at most."""
    cases = {case.key: case for family in FAMILIES for case in candidates(family)}
    found: dict[str, list[Item]] = {}
    for folder in sorted(path.parent for path in suite.glob(f"*/{JOURNAL}")):
        lines = crafted(folder)[:count]
        found[folder.name] = [
            Item(case.prompt(picture(folder, line.key)), case.sound, case.reached)
            for line in lines
            if (case := cases[line.key])
        ]
    return {name: items for name, items in found.items() if items}


def timed(policy: Policy, sampler: Sampler, items: Sequence[Item]) -> dict[str, dict[str, float]]:
    """Milliseconds of one request: the bare model's, and each mode's, on pictures that nobody attacks."""
    key = Key(b"the benchmark's own key, timed")
    guards = {mode: guard(policy, how, sampler, key) for mode, how in MODES.items()}
    spent: dict[str, list[float]] = {"bare": [], **{mode: [] for mode in MODES}}
    for number, item in enumerate(items):
        for mode, times in spent.items():
            began = time.perf_counter()
            if mode == "bare":
                sampler([Copy(item.prompt)], policy.smoothing)
            else:
                guards[mode].check(item.prompt)
            if number:  # the first warms up
                times.append((time.perf_counter() - began) * 1000)
    bare = statistics.median(spent["bare"])
    return {
        mode: {"median_ms": round(statistics.median(times), 1), "of_bare": round(statistics.median(times) / bare, 2)}
        for mode, times in spent.items()
    }


def main() -> None:
    """Ask, compare, print a table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--policy", default="builtin")
    parser.add_argument("--clean", type=int, default=200, help="questions that nobody attacks")
    parser.add_argument("--suite", type=Path, help="a red team's folder of attacked pictures")
    parser.add_argument("--attacked", type=int, default=50, help="pictures of each attack")
    parser.add_argument("--keys", type=int, default=3, help="noise keys, each of them a vote on every picture")
    parser.add_argument("--timed", type=int, default=20, help="pictures that time is taken on; 0: none")
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args()
    policy = Policy.load(asked.policy)
    model = hf.HFSampler(hf.load(policy.model.id), max_new_tokens=policy.model.max_new_tokens)
    local_guard(policy).warm_up()
    embed = Known(text.load_embedder(policy.voting.embedder))
    groups = {"clean": unharmed(asked.clean), **(attacked(asked.suite, asked.attacked) if asked.suite else {})}
    stamp = {"date": today(), "code": digest(Path(__file__))}
    report: dict[str, Any] = {**stamp, "policy": policy.id, "keys": asked.keys, "modes": MODES, "rows": []}
    if asked.timed:
        report["time"] = timed(policy, model, unharmed(asked.timed + 1))
    rows = report["rows"]
    for group, items in groups.items():
        done: dict[str, list[Outcome]] = {mode: [] for mode in MODES}
        for number in range(asked.keys):
            sampler, key = Remembering(model), Key(f"the benchmark's own key, {number}".encode())
            for mode, how in MODES.items():
                done[mode] += outcomes(policy, how, items, sampler, key, embedder=embed)
        for mode in MODES:
            found = cell(items, done["full"], done[mode], levels=False)
            rows.append({"pictures": group, "mode": mode, **found})
            print(group, mode, found["asked"], found["same_status"]["rate"], found["reached"]["rate"], flush=True)
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    Console().print(shown(rows))
    print(json.dumps(report.get("time", {})))


def shown(rows: Sequence[dict[str, Any]]) -> Table:
    """The rows as a table."""
    table = Table(title="deciding early")
    for column in ("pictures", "mode", "copies", "same status", "same winner", "sound", "reached", "withheld"):
        table.add_column(column)
    for row in rows:
        rates = ["" if row[name] is None else f"{row[name]['rate']:.3f}" for name in RATES]
        table.add_row(row["pictures"], row["mode"], f"{row['asked']:.2f}", *rates)
    return table


if __name__ == "__main__":
    main()
