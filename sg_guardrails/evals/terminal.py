"""An evaluation in the terminal: progress with the time left, tables, JSON, and every loss named."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from sg_guardrails.evals.ablation import Ablation
from sg_guardrails.evals.base import Figure, Scores
from sg_guardrails.evals.report import FEW, interval, shown
from sg_guardrails.evals.run import Progress
from sg_guardrails.evals.summary import Evaluation

ALWAYS = ("unanswered", "unmatched", "broken lines", "duplicates")
"""Kinds of trouble that are counted aloud even where there is none."""
Plain = dict[str, dict[str, float | None]]


@contextmanager
def watch(what: str, console: Console) -> Iterator[Progress]:
    """Show how far a run is: a bar in a terminal, a line every tenth of the way elsewhere."""
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Bar(*columns, console=console) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
        return
    began, first, told = time.monotonic(), -1, -1

    def line(done: int, total: int) -> None:
        nonlocal first, told
        first = done if first < 0 else first
        tenth = done * 10 // max(total, 1)
        if tenth == told:
            return
        told = tenth
        left = (time.monotonic() - began) / (done - first) * (total - done) if done > first else None
        rest = "" if left is None else f", {timedelta(seconds=round(left))} left"
        console.print(Text(f"{what}: {done}/{total}{rest}"), soft_wrap=True)

    yield line


def plain(scores: Scores) -> Plain:
    """Figures as numbers: ``{group: {name: value, ..., n}}``, n the items scored."""
    return {
        group: {
            **{name: None if figure.value is None else round(figure.value, 6) for name, figure in figures.items()},
            "n": max((figure.n for figure in figures.values()), default=0),
        }
        for group, figures in scores.items()
    }


def as_json(evaluation: Evaluation) -> str:
    """One arm: its figures by group. Several: by arm and group."""
    arms = {name: plain(arm.scores) for name, arm in evaluation.arms.items()}
    return json.dumps(next(iter(arms.values())) if len(arms) == 1 else arms, indent=2, ensure_ascii=False)


def print_evaluation(evaluation: Evaluation, console: Console) -> None:
    """Show figures with their intervals, cost, and the paired test."""
    names = list(
        dict.fromkeys(key for arm in evaluation.arms.values() for group in arm.scores.values() for key in group)
    )
    table = Table(title=evaluation.benchmark, title_justify="left", show_edge=False, pad_edge=False)
    for column in ("group", "arm"):
        table.add_column(column, overflow="fold")
    for column in (*names, "n"):
        table.add_column(column, justify="right", overflow="fold")
    for group in next(iter(evaluation.arms.values())).scores:
        for name, arm in evaluation.arms.items():
            figures = arm.scores.get(group, {})
            cells = [_cell(figures.get(key)) for key in names]
            table.add_row(Text(group), Text(name), *cells, str(max((f.n for f in figures.values()), default=0)))
    console.print(table)
    for name, arm in evaluation.arms.items():
        counts = ", ".join(f"{count} {what}" for what, count in arm.counts.items() if count)
        cost = f"; {arm.copies:.1f} asks and {arm.seconds:.3f} s per item" if arm.copies else ""
        console.print(Text(f"{name}: {counts or 'nothing'}{cost}"), soft_wrap=True)
    for group, test in evaluation.paired.items():
        line = f"{group}: {evaluation.outcome} in both {test.both}, only first {test.only_first}, only second "
        console.print(Text(f"{line}{test.only_second}, neither {test.neither}; McNemar p {test.p:.3g}"), soft_wrap=True)


def print_losses(evaluation: Evaluation, console: Console) -> None:
    """Name and count all that was not scored; and how many were."""
    for trouble in evaluation.troubles:
        console.print(_printable(f"{trouble.kind}: {trouble}"), soft_wrap=True)
    for name, lines in evaluation.lost.items():
        for line in lines:
            console.print(_printable(f"{name}: {line}"), soft_wrap=True)
    kinds = Counter(trouble.kind for trouble in evaluation.troubles)
    kinds.update(dict.fromkeys(ALWAYS, 0))
    console.print(Text("in the data: " + _counted(kinds)), soft_wrap=True)
    for name, arm in evaluation.arms.items():
        for group, figures in plain(arm.scores).items():
            others = tuple(f"{other}: " for other in evaluation.arms if other != name)
            mine = [trouble for trouble in evaluation.troubles if not (others and trouble.where.startswith(others))]
            found = Counter(trouble.kind for trouble in mine if trouble.group == group)
            if not found and len(arm.scores) > FEW:
                continue
            found.update(dict.fromkeys(ALWAYS[:2], 0))
            console.print(Text(f"{name}, {group}: {figures['n']} rows scored, {_counted(found)}"), soft_wrap=True)


def _printable(line: str) -> Text:
    """Names out of data files give no orders to a terminal."""
    return Text("".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in line))


def _counted(kinds: Counter[str]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))


def print_ablation(ablation: Ablation, console: Console) -> None:
    """Show every setting, the best one marked."""
    table = Table(title="ablation", title_justify="left", show_edge=False, pad_edge=False)
    for column in ("sigma", "copies", "vote", "attack success rate", "utility"):
        table.add_column(column, justify="right" if column != "vote" else "left")
    for cell in (ablation.bare, *ablation.cells):
        setting, style = cell.setting, "bold" if cell.setting == ablation.best else ""
        row = (f"{setting.sigma:g}", str(setting.copies), setting.method, _cell(cell.asr), _cell(cell.utility))
        table.add_row(*row, style=style)
    console.print(table)
    low, high = ablation.best_sigma
    best = f"best: sigma {ablation.best.sigma:g} (95% of bootstrap choices: {low:g} to {high:g})"
    console.print(Text(f"{best}, {ablation.best.copies} copies, {ablation.best.method}"), soft_wrap=True)


def _cell(figure: Figure | None) -> str:
    between = interval(figure)
    return f"{shown(figure)}\n{between}" if between else shown(figure)
