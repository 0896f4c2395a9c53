"""``sg-guardrails eval redteam``: its options, its table in the terminal, its JSON and its page."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Annotated

import typer
import yaml
from rich.table import Table
from rich.text import Text

from sg_guardrails.cli.eval_options import (
    DeviceOption,
    ModelOption,
    NeededOut,
    PolicyOption,
    WorkersOption,
    among,
    console,
    err,
    hire,
    watch,
)
from sg_guardrails.core.errors import GuardError
from sg_guardrails.core.noise import KEY_VARIABLE
from sg_guardrails.core.policy import Policy
from sg_guardrails.evals import redteam_report as report
from sg_guardrails.evals.redteam import ADAPTIVE_BUDGETS, BUDGETS, FAMILIES, LATE_BUDGETS, Cell
from sg_guardrails.evals.redteam_score import LAYERS, Result
from sg_guardrails.evals.report import shown

PUBLIC_KEY = "sg-guardrails eval redteam: a key that everybody may know"
FamilyOption = Annotated[list[str] | None, typer.Option(help="jailbreak, hijack, wrong or late; may be repeated.")]
BudgetOption = Annotated[
    list[str] | None, typer.Option(help="8, 16, 32, 64 (in 1/255), unconstrained or patch; may be repeated.")
]


def redteam(
    context: typer.Context,
    out: NeededOut,
    small: Annotated[bool, typer.Option("--small", help="A few pictures: minutes on a CPU, and no figures.")] = False,  # noqa: FBT002 - a flag of the command line
    limit: Annotated[int | None, typer.Option(min=1, help="Most attacked pictures in a cell.")] = None,
    family: FamilyOption = None,
    budget: BudgetOption = None,
    adaptive_limit: Annotated[
        int | None, typer.Option(min=1, help="Most in an adaptive cell; they take longer.")
    ] = None,
    adaptive: Annotated[bool, typer.Option(help="Attack the guard's noise too.")] = True,  # noqa: FBT002 - likewise
    sweeps: Annotated[bool, typer.Option(help="Draw the curves over sigma, copies and lambda.")] = True,  # noqa: FBT002 - likewise
    model: ModelOption = None,
    policy: PolicyOption = "builtin",
    device: DeviceOption = "auto",
    workers: WorkersOption = None,
) -> None:
    """Attack the model and the guard, and report what holds.

    A killed run goes on where it stopped: attacked pictures, answers and sweeps are kept in --out.
    """
    families, budgets = among(family, FAMILIES, "--family"), among(budget, BUDGETS, "--budget")
    rules = Policy.load(policy)
    # Public on purpose: a run can be repeated. The attackers of this suite are never told the seeds.
    os.environ.setdefault(KEY_VARIABLE, PUBLIC_KEY)
    from sg_guardrails.cli.eval_arms import named  # noqa: PLC0415 - torch is slow to import
    from sg_guardrails.cli.redteam_campaign import SMALL, Campaign, Size  # noqa: PLC0415 - likewise

    rules = named(rules, model=model, device=device)
    size = SMALL if small else Size()
    if limit is not None:
        counts = {name: min(limit, getattr(size, name)) for name in ("static", "adaptive", "swept")}
        size = replace(size, **counts)
    if adaptive_limit is not None:
        size = replace(size, adaptive=min(adaptive_limit, size.adaptive))
    cells = [
        Cell(one, much)  # type: ignore[arg-type] # among the families
        for much in budgets
        for one in families
        if one != "late" or much in LATE_BUDGETS
    ]
    if not cells:
        raise GuardError(f"the family late has the budgets {' and '.join(LATE_BUDGETS)} alone")
    if adaptive:
        cells += [replace(cell, attacker="adaptive") for cell in cells if cell.budget in ADAPTIVE_BUDGETS]
    summary, exhibits = Campaign(out, rules, size, watch=watch, hired=hire(context, workers, rules, device)).run(
        cells, sweeps=sweeps
    )
    written = summary.write(out / "redteam.json")
    page = report.write_page(summary, exhibits, out / "redteam.html", policy=_text(rules))
    print_summary(summary)
    err.print(Text(f"figures: {written}, report: {page}"), soft_wrap=True)


def print_summary(summary: report.Summary) -> None:
    """Show the table in the terminal."""
    table = Table(title="red team", title_justify="left", show_edge=False, pad_edge=False)
    for column in ("attack", "budget", "attacker"):
        table.add_column(column)
    for column in ("n", "bare", *LAYERS, "recovered", "stopped", "drafts", "paper"):
        table.add_column(column, justify="right")
    for one in summary.results:
        layers = [_layer(one, layer) for layer in LAYERS]
        rates = (shown(one.recovered["guard"]), shown(one.stopped), shown(one.drafted), shown(one.paper))
        cell = one.cell
        table.add_row(cell.family, cell.budget, cell.attacker, str(one.bare.n), shown(one.bare), *layers, *rates)
    console.print(table)
    if summary.unharmed is not None:
        cost = summary.unharmed
        line = f"clean, n = {cost.bare.n}: accuracy {shown(cost.bare)} bare, {shown(cost.guarded['guard'])} guarded"
        console.print(Text(f"{line}; {shown(cost.withheld)} without an answer"), soft_wrap=True)
    counts = ", ".join(f"{count} {name}" for name, count in summary.tally.items())
    console.print(Text(f"targets: {counts}"), soft_wrap=True)


def _layer(one: Result, layer: str) -> str:
    verdict = one.verdict(layer)  # type: ignore[arg-type] # among the layers
    return f"{shown(one.guarded[layer])} {verdict}".strip()


def _text(rules: Policy) -> str:
    told = report.unplaced(rules.model_dump(mode="json", exclude_defaults=True))
    return yaml.safe_dump(told, sort_keys=False, allow_unicode=True)


__all__ = ["print_summary", "redteam"]
