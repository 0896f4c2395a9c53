"""Self-contained HTML pages from evaluations and ablations: tables, charts, and what was lost on the way."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from sg_guardrails.core.errors import GuardError
from sg_guardrails.evals import files, published
from sg_guardrails.evals.ablation import Ablation, Cell
from sg_guardrails.evals.base import Figure
from sg_guardrails.evals.summary import Evaluation

COLOURS = ("#64748b", "#0f766e", "#b45309", "#7c3aed", "#be123c", "#0369a1", "#4d7c0f", "#a21caf")
"""First the bare model's grey, then the guard's green."""
LONGEST_LABEL, NARROW, FEW = 44, 14, 4
"""Characters of a label beside a chart and over one of several; groups that are shown one by one."""
_PAGES = jinja2.Environment(
    loader=jinja2.PackageLoader("sg_guardrails.evals", "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True, slots=True)
class _Series:
    """One arm's headline figures, by group."""

    label: str
    figures: Mapping[str, Figure]


def shown(figure: Figure | None) -> str:
    """A figure for a table: three decimals below 2, else one."""
    if figure is None or figure.value is None:
        return "-"
    return f"{figure.value:.3f}" if abs(figure.value) < 2 else f"{figure.value:.1f}"


def interval(figure: Figure | None) -> str:
    """A figure's 95% interval, or nothing."""
    if figure is None or figure.low is None or figure.high is None or figure.low == figure.high:
        return ""  # a bootstrap of equal items has no spread, which says nothing about other items
    low, high = Figure(figure.low, figure.n), Figure(figure.high, figure.n)
    return f"{shown(low)}-{shown(high)}"


_PAGES.filters |= {"shown": shown, "interval": interval}


def write_report(evaluation: Evaluation, path: Path) -> Path:
    """Write one evaluation's page: figures, charts, the paired test, cost and losses.

    Raises:
        GuardError: If matplotlib is not installed.
    """
    series = _series(evaluation, prefix="")
    chart = _bars(series, evaluation.headline)
    cards = [
        (name, group, figures[evaluation.headline])
        for name, arm in evaluation.arms.items()
        for place, (group, figures) in enumerate(arm.scores.items())
        if place == 0 or len(arm.scores) <= FEW
    ]
    return _write("report.html.j2", path, e=evaluation, chart=chart, cards=cards, metrics=_metrics([evaluation]))


def write_comparison(evaluations: Sequence[Evaluation], path: Path, *, with_published: bool = True) -> Path:
    """Write a page that compares runs of one benchmark with each other, and with the paper's table.

    Raises:
        GuardError: If the runs are of different benchmarks, or matplotlib is not installed.
    """
    names = {evaluation.benchmark for evaluation in evaluations}
    if len(names) != 1:
        raise GuardError(f"runs of one benchmark are compared; these are of {', '.join(sorted(names)) or 'none'}")
    benchmark = names.pop()
    everyone = [*evaluations, *(published.published(benchmark) if with_published else ())]
    labelled = list(zip(_labels(everyone), everyone, strict=True))
    series = [line for label, run in labelled for line in _series(run, prefix=f"{label}, ")]
    chart = _forest(series, everyone[0].headline)
    rows = [(f"{label}, {name}", arm) for label, run in labelled for name, arm in run.arms.items()]
    groups = list(dict.fromkeys(group for _, arm in rows for group in arm.scores))
    return _write(
        "compare.html.j2",
        path,
        benchmark=benchmark,
        runs=labelled,
        rows=rows,
        groups=groups,
        metrics=_metrics(everyone),
        chart=chart,
        source=published.SOURCE,
    )


def write_ablation(ablation: Ablation, path: Path, *, with_published: bool = True) -> Path:
    """Write an ablation's page: robustness and utility against sigma, the grid, and the best setting.

    Raises:
        GuardError: If matplotlib is not installed.
    """
    curves = {
        "attack success rate": _curve(
            ablation, "asr", published.ASR_BY_SIGMA, published.BARE_ASR, paper=with_published
        ),
        "utility": _curve(
            ablation, "utility", published.UTILITY_BY_SIGMA, published.BARE_UTILITY, paper=with_published
        ),
    }
    best = next(cell for cell in ablation.cells if cell.setting == ablation.best)
    drawn = {name: chart for name, chart in curves.items() if chart is not None}
    return _write("ablation.html.j2", path, a=ablation, best=best, curves=drawn, source=published.SOURCE)


def _series(evaluation: Evaluation, *, prefix: str) -> list[_Series]:
    return [
        _Series(_short(prefix + name), {group: figures[evaluation.headline] for group, figures in arm.scores.items()})
        for name, arm in evaluation.arms.items()
    ]


def _short(label: str) -> str:
    """A label that leaves a chart its room: what tells one line from the next stands at its end."""
    return label if len(label) <= LONGEST_LABEL else f"{label[:10]}...{label[13 - LONGEST_LABEL :]}"


def _metrics(evaluations: Sequence[Evaluation]) -> list[str]:
    """Every figure's name, in order of first appearance."""
    found = [
        name for run in evaluations for arm in run.arms.values() for group in arm.scores.values() for name in group
    ]
    return list(dict.fromkeys(found))


def _model(evaluation: Evaluation) -> str:
    model = evaluation.about.get("model", "")
    return f"{model} (published)" if evaluation.about.get("source") == published.SOURCE else model or evaluation.title


def _labels(evaluations: Sequence[Evaluation]) -> list[str]:
    """A run's model; beside it what tells it from other runs of that model, in the end its place."""
    labels = [_model(run) for run in evaluations]
    for name in ("policy", "answers"):
        again = [labels.count(label) > 1 and name in run.about for label, run in zip(labels, evaluations, strict=True)]
        labels = [
            f"{label}, {run.about[name]}" if twice else label
            for label, run, twice in zip(labels, evaluations, again, strict=True)
        ]
    return [f"{label}, run {place}" if labels.count(label) > 1 else label for place, label in enumerate(labels, 1)]


def _write(template: str, path: Path, **content: Any) -> Path:
    return files.write(path, _PAGES.get_template(template).render(**content))


def _bars(series: Sequence[_Series], headline: str) -> Markup:
    groups = _groups(series)
    many = len(groups) > 6

    def draw(canvas: Any) -> None:
        axes = canvas.subplots()
        width = 0.8 / max(len(series), 1)
        for index, line in enumerate(series):
            drawn = [(at, line.figures[group]) for at, group in enumerate(groups) if _known(line.figures.get(group))]
            places = [at + (index - (len(series) - 1) / 2) * width for at, _ in drawn]
            heights, colour = [figure.value for _, figure in drawn], COLOURS[index % len(COLOURS)]
            axes.bar(places, heights, width * 0.9, label=line.label, color=colour)
            for x, (_, figure) in zip(places, drawn, strict=True):
                if figure.low is not None:
                    axes.plot([x, x], [figure.low, figure.high], color="#0f172a", linewidth=1.2)
        axes.set_xticks(
            range(len(groups)),
            [_short(group) for group in groups],
            rotation=40 if many else 0,
            ha="right" if many else "center",
        )
        axes.set_ylabel(headline)
        canvas.legend(frameon=False, loc="outside lower center", ncols=4)

    return _svg(draw, height=4.6 if many else 3.6)


def _forest(series: Sequence[_Series], headline: str) -> Markup:
    """A panel per group, a line per run: value and interval, on an axis close around them."""
    groups = _groups(series)[:FEW]

    def draw(canvas: Any) -> None:
        panels = canvas.subplots(1, len(groups), sharey=True, squeeze=False)[0]
        for axes, group in zip(panels, groups, strict=True):
            for index, line in enumerate(series):
                figure, colour = line.figures.get(group), COLOURS[index % len(COLOURS)]
                if figure is None or figure.value is None:
                    continue
                axes.plot(figure.value, index, "o", color=colour)
                if figure.low is not None:
                    axes.plot([figure.low, figure.high], [index, index], color=colour, linewidth=2)
            axes.set_title(group if len(group) <= NARROW else f"{group[:NARROW]}...", fontsize=10, loc="left")
            axes.set_xlabel(headline)
            axes.grid(axis="x", color="#e2e8f0")
        panels[0].set_yticks(range(len(series)), [line.label for line in series])
        panels[0].invert_yaxis()

    return _svg(draw, height=1.2 + 0.36 * len(series))


def _groups(series: Sequence[_Series]) -> list[str]:
    return list(dict.fromkeys(group for line in series for group in line.figures))


def _known(figure: Figure | None) -> bool:
    return figure is not None and figure.value is not None


def _curve(
    ablation: Ablation, name: str, published_curve: Mapping[float, float], published_bare: float, *, paper: bool
) -> Markup | None:
    bare: Figure | None = getattr(ablation.bare, name)
    if bare is None or bare.value is None:
        return None
    lines: dict[str, list[Cell]] = {}
    for cell in ablation.cells:
        lines.setdefault(f"{cell.setting.method}, {cell.setting.copies} copies", []).append(cell)

    def draw(canvas: Any) -> None:
        axes = canvas.subplots()
        for index, (label, cells) in enumerate(lines.items()):
            found = [(cell.setting.sigma, getattr(cell, name)) for cell in cells]
            points = [(sigma, figure) for sigma, figure in found if figure.value is not None]
            sigmas, colour = [sigma for sigma, _ in points], COLOURS[(index + 1) % len(COLOURS)]
            axes.plot(sigmas, [figure.value for _, figure in points], "o-", label=label, color=colour)
            axes.fill_between(
                sigmas, [f.low for _, f in points], [f.high for _, f in points], color=colour, alpha=0.12, linewidth=0
            )
        axes.axhline(bare.value, color=COLOURS[0], linestyle="--", label="bare")
        if paper:
            axes.plot(
                list(published_curve),
                list(published_curve.values()),
                "s:",
                color="#94a3b8",
                label=f"paper (bare {published_bare:.3f})",
            )
        axes.axvspan(*ablation.best_sigma, color="#0f766e", alpha=0.06)
        axes.axvline(ablation.best.sigma, color="#0f766e", linewidth=0.8)
        axes.set_xlabel("sigma")
        axes.set_ylabel({"asr": "attack success rate"}.get(name, name))
        canvas.legend(frameon=False, loc="outside right upper")

    return _svg(draw, height=3.8)


def _svg(draw: Callable[[Any], None], *, height: float) -> Markup:
    """A chart as SVG for a page; its text stays text."""
    try:
        import matplotlib as mpl  # noqa: PLC0415 - an extra: scoring needs no charts
        from matplotlib.figure import Figure as Canvas  # noqa: PLC0415 - likewise
    except ImportError as error:
        raise GuardError("reports need matplotlib: pip install 'sg-guardrails[eval]'") from error
    # Names out of data files are no formulas.
    look: Any = {"svg.fonttype": "none", "font.family": "sans-serif", "font.size": 10, "text.parse_math": False}
    with mpl.rc_context(look):
        canvas = Canvas(figsize=(9.2, height), layout="constrained")
        draw(canvas)
        for axes in canvas.axes:
            axes.spines[["top", "right"]].set_visible(False)
            axes.set_axisbelow(True)
        buffer = io.StringIO()
        canvas.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    whole = buffer.getvalue()
    # matplotlib escapes what it draws, so names out of data files cannot become markup.
    return Markup(whole[whole.index("<svg") :])  # noqa: S704 - see above
