"""Whether deciding early says what the full vote says, over answers that a red team's run has recorded.

    python benchmarks/early_replayed.py --suite RED_TEAM [--policy FILE]

RED_TEAM is the folder that ``sg-guardrails eval redteam --policy FILE --out RED_TEAM`` leaves: what every copy said
of its attacked pictures and of 300 clean questions. Of further clean questions the model is asked here. The guard's own
rounds then hear those answers in each mode in turn, so that nothing differs but the decision. The policy is replayed
without its veto, under which early decision has something to spare, and with it.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.early import Known, guard, interval, same_winner
from benchmarks.measured import digest, today
from sg_guardrails.cli.redteam_recorded import recorded
from sg_guardrails.core import noise
from sg_guardrails.core.policy import Policy, Smoothing
from sg_guardrails.core.types import Answer, Copy, Embedder, Outcome, Prompt
from sg_guardrails.evals.redteam import FAMILIES, Case, Clean, candidates, clean
from sg_guardrails.models import hf, text

OUT = Path(__file__).parent / "results" / "early_replayed.json"
BUDGETS = ("8", "16", "32")
ATTACKERS = ("static", "adaptive")
ALPHAS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
MODES: dict[str, dict[str, Any]] = {
    "full": {"early": "off"},
    "exact": {"early": "exact"},
    **{f"sequential {alpha:g}": {"early": "sequential", "alpha": alpha} for alpha in ALPHAS},
}
"""By name, what `smoothing` has in place of the policy's own."""
WANTED = 0.995
"""Least share of verdicts that an early decision leaves as they are."""
KEY = noise.Key(b"the benchmark's own key, replayed")
TOGETHER = 25
"""Questions in one call."""


@dataclass(frozen=True, slots=True)
class Group:
    """Pictures of one kind, with what all copies of each said: the clean copy's answer first."""

    name: str
    said: Sequence[tuple[Prompt, tuple[Answer, ...]]]


class Recorded:
    """A sampler that gives each copy the answer that was recorded for it."""

    def __init__(self, group: Group, smoothing: Smoothing) -> None:
        self._said: dict[tuple[str, int | None], Answer] = {}
        for prompt, answers in group.said:
            plan = noise.copies_of(prompt, smoothing, KEY)
            for copy, answer in zip(plan, answers, strict=True):
                self._said[prompt.digest, copy.seed] = answer

    def __call__(self, copies: Sequence[Copy], _: Smoothing) -> list[Answer]:
        """One answer per copy."""
        return [self._said[copy.prompt.digest, copy.seed] for copy in copies]


def groups(suite: Path, policy: Policy) -> list[Group]:
    """Every cell that the run has answers of. The pictures themselves have no part in the decision."""
    cases = {case.key: case for family in FAMILIES for case in candidates(family)}
    names = [f"{family}-{much}-{who}" for who in ATTACKERS for family in FAMILIES for much in BUDGETS]
    return [_group(name, cases, said) for name in names if (said := recorded(suite, policy, name))]


def unattacked(suite: Path, policy: Policy, count: int) -> Group:
    """The run's clean questions, and further ones up to `count`, which the model is asked now."""
    questions = clean(count)
    known = {one.key: one for one in questions}
    said = {key: answers for key, answers in recorded(suite, policy, "clean").items() if key in known}
    new = [one for one in questions if one.key not in said]
    model = policy.model
    sampler = hf.HFSampler(hf.load(model.id), max_new_tokens=model.max_new_tokens)
    for at in range(0, len(new), TOGETHER):
        some = new[at : at + TOGETHER]
        plans = [noise.copies_of(one.prompt(), policy.smoothing, KEY) for one in some]
        answers = iter(sampler([copy for plan in plans for copy in plan], policy.smoothing))
        for one, plan in zip(some, plans, strict=True):
            said[one.key] = tuple(next(answers).text for _ in plan)
        print(f"asked {at + len(some)} of {len(new)} clean questions", flush=True)
    return _group("clean", known, said)


def _group(name: str, cases: Mapping[str, Case | Clean], said: Mapping[str, Sequence[str]]) -> Group:
    return Group(name, [(cases[key].prompt(), tuple(map(Answer.parse, texts))) for key, texts in said.items()])


def replayed(policy: Policy, group: Group, embed: Embedder) -> dict[str, list[Outcome]]:
    """What each mode makes of the group's answers."""
    sampler = Recorded(group, policy.smoothing)
    prompts = [prompt for prompt, _ in group.said]
    return {mode: guard(policy, how, sampler, KEY, embedder=embed).check_many(prompts) for mode, how in MODES.items()}


def same(full: Outcome, part: Outcome) -> bool:
    """Whether the caller is told the same: status, and an answer of the full vote's winning cluster or none."""
    return full.status == part.status and (full.answer is None) == (part.answer is None) and same_winner(full, part)


def told(full: Outcome, part: Outcome) -> bool:
    """`same`, where nothing is handed on in either: which cluster it was withheld of is nobody's concern."""
    return same(full, part) or (full.answer is None and part.answer is None and full.status == part.status)


def row(name: str, mode: str, whole: Sequence[Outcome], done: Sequence[Outcome]) -> dict[str, Any]:
    """One mode on pictures of one kind."""
    agreed = interval(sum(told(a, b) for a, b in zip(whole, done, strict=True)), len(done))
    return {
        "pictures": name,
        "mode": mode,
        "asked": round(statistics.mean(one.asked for one in done), 3),
        "same_verdict": agreed,
        "met": agreed["rate"] >= WANTED,
    }


def rows(policy: Policy, found: Sequence[Group], embed: Embedder) -> list[dict[str, Any]]:
    """Every mode on clean pictures, on each attacker's, and on each cell of these."""
    told_of = {group.name: replayed(policy, group, embed) for group in found}
    kinds = {kind: list(some) for kind, some in groupby(told_of, key=lambda name: name.rpartition("-")[2])}
    found_rows = []
    for kind, names in kinds.items():
        for name, parts in {kind: names, **({} if len(names) == 1 else {one: [one] for one in names})}.items():
            for mode in MODES:
                whole, done = ([one for part in parts for one in told_of[part][which]] for which in ("full", mode))
                found_rows.append(row(name, mode, whole, done))
    return found_rows


def shown(found: Sequence[dict[str, Any]], title: str) -> Table:
    """The rows of all pictures of a kind."""
    table = Table("pictures", "n", "mode", "copies", "same verdict", "95% interval", title=title)
    for one in found:
        if one["pictures"] in ("clean", *ATTACKERS):
            rate = one["same_verdict"]
            between = f"{rate['low']:.4f} to {rate['high']:.4f}"
            cells = (one["mode"], f"{one['asked']:.2f}", f"{rate['rate']:.4f}", between)
            table.add_row(one["pictures"], str(rate["n"]), *cells)
    return table


def main() -> None:
    """Ask what lacks, replay, print and write the JSON."""
    code = digest(Path(__file__), Path(__file__).with_name("early.py"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", type=Path, required=True, help="a red team's folder")
    parser.add_argument("--policy", default="builtin")
    parser.add_argument("--clean", type=int, default=800, help="questions that nobody attacks")
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args()
    policy = Policy.load(asked.policy)
    embed = Known(text.load_embedder(policy.voting.embedder))
    attacked = groups(asked.suite, policy)
    if not attacked:
        raise SystemExit(f"{asked.suite} holds no answers of copies that {policy.id} asks")
    found = [unattacked(asked.suite, policy, asked.clean), *attacked]
    freely = policy.model_copy(update={"voting": policy.voting.model_copy(update={"refusal_veto": None})})
    report = {
        "policy": policy.id,
        "veto": policy.voting.refusal_veto,
        "suite": "sg-guardrails eval redteam, budgets " + ", ".join(f"{much}/255" for much in BUDGETS),
        "cells": {group.name: len(group.said) for group in found},
        "date": today(),
        "code": code,
        "without_veto": rows(freely, found, embed),
        "with_veto": rows(policy, found, embed),
    }
    runs = json.loads(asked.out.read_text("utf-8")) if asked.out.exists() else []
    runs = [report, *(run for run in runs if run["policy"] != policy.id)]
    asked.out.write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")
    for name in ("without_veto", "with_veto"):
        Console().print(shown(report[name], name.replace("_", " ")))


if __name__ == "__main__":
    main()
