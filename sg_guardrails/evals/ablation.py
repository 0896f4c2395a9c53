"""Sigma x copies x voting method: what each setting leaves of an attack, and what it costs in right answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sg_guardrails.core.errors import GuardError
from sg_guardrails.core.policy import Voting
from sg_guardrails.evals import files
from sg_guardrails.evals.base import RESAMPLES, Benchmark, Figure, Row
from sg_guardrails.evals.evaluate import Judge, Watch
from sg_guardrails.evals.run import Answerer, run
from sg_guardrails.evals.summary import versions

ABLATION = "ablation.json"
Kind = Literal["utility", "robustness"]
Elect = Callable[[Sequence[str], Voting], tuple[str, bool]]
"""A vote over answers: what is handed on, and whether it abstained."""


@dataclass(frozen=True, slots=True)
class Part:
    """One curve: a benchmark on which right answers (utility) or unsafe ones (robustness) are counted."""

    kind: Kind
    benchmark: Benchmark
    judge: Judge | None = None


@dataclass(frozen=True, slots=True)
class Setting:
    """One cell of the grid."""

    sigma: float
    copies: int
    """Noisy copies; the clean one votes beside them."""
    method: str


@dataclass(frozen=True, slots=True)
class Cell:
    """What a setting gave."""

    setting: Setting
    utility: Figure | None = None
    """Share of right answers on clean inputs."""
    asr: Figure | None = None
    """Share of unsafe answers on attacked inputs."""


@dataclass(frozen=True, slots=True)
class Ablation:
    """The grid, the undefended model, and the best setting."""

    cells: tuple[Cell, ...]
    bare: Cell
    """Sigma 0, no copies."""
    best: Setting
    """Highest utility - ASR; of equals the one with least noise and fewest copies."""
    best_sigma: tuple[float, float]
    """95% of the bootstrap's choices of sigma lie between these."""
    about: Mapping[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> Path:
        """Write ``ablation.json`` into `folder`."""
        return files.write(folder / ABLATION, json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, path: Path) -> Ablation:
        """Read what `write` wrote. Raises GuardError if it is none."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            cells = tuple(_cell(cell) for cell in data["cells"])
            low, high = data["best_sigma"]
            return cls(cells, _cell(data["bare"]), Setting(**data["best"]), (low, high), data["about"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise GuardError(f"{path} is not an ablation's result") from error


def ablate(
    parts: Sequence[Part],
    *,
    bare: Answerer,
    under: Callable[[float, int], Answerer],
    elect: Elect,
    sigmas: Sequence[float],
    copies: Sequence[int],
    methods: Sequence[Voting],
    out: Path,
    about: Mapping[str, str] | None = None,
    limit: int | None = None,
    watch: Watch = lambda _: nullcontext(),
) -> Ablation:
    """Ask every item once per sigma, with the most copies; fewer copies and other votes are read from the same answers.

    Args:
        parts: The curves to draw; at most one of each kind.
        bare: The undefended model.
        under: (sigma, copies) to whoever answers with the clean answer and these copies in `Reply.answers`.
        elect: The vote.
        sigmas: Noise, in the policy's unit.
        copies: How many noisy copies vote.
        methods: Ways to vote.
        out: Where journals are kept; resumable as `run` is.
        about: What tells this ablation from another.
        limit: Most items of each part.
        watch: Shows progress.

    Raises:
        GuardError: If there is nothing to draw.
    """
    if not parts or not sigmas or not copies or not methods:
        raise GuardError("an ablation needs a benchmark, a sigma, a number of copies and a voting method")
    files.writable(out)
    grid = [Setting(sigma, n, way.method) for sigma in sorted(sigmas) for n in sorted(copies) for way in methods]
    votings: dict[str, Voting] = {way.method: way for way in methods}
    most = max(copies)
    hits: dict[Kind, NDArray[np.float64]] = {}
    named = dict(about or {})
    for part in parts:
        ask = _Asker(part, out / part.kind, {**named, **files.identity(part.benchmark.items)}, limit, watch)
        columns = [ask.decided("bare", ask.rows("bare", bare))]
        for sigma in sorted(sigmas):
            rows = ask.rows(f"sigma-{sigma:g}-copies-{most}", under(sigma, most))
            for setting in grid:
                if setting.sigma == sigma:
                    voted = [_voted(row, setting.copies, votings[setting.method], elect) for row in rows]
                    columns.append(ask.decided(f"{sigma:g}-{setting.copies}-{setting.method}", voted))
        shared = [key for key in columns[0] if all(key in column for column in columns)]
        hits[part.kind] = np.array([[column[key] for key in shared] for column in columns], dtype=float)
    cells = [_figures(hits, row) for row in range(len(grid) + 1)]
    best, span = _best(hits, grid)
    return Ablation(
        tuple(replace(cell, setting=setting) for cell, setting in zip(cells[1:], grid, strict=True)),
        replace(cells[0], setting=Setting(0.0, 0, "bare")),
        best,
        span,
        {**named, **versions()},
    )


def _best(hits: Mapping[Kind, NDArray[np.float64]], grid: Sequence[Setting]) -> tuple[Setting, tuple[float, float]]:
    """The setting of the highest utility - ASR, and between which sigmas 95% of the bootstrap's choices lie."""
    gain, gains = np.zeros(len(grid)), np.zeros((RESAMPLES, len(grid)))
    for kind, table in hits.items():
        sign = 1 if kind == "utility" else -1
        gain, gains = gain + sign * table[1:].mean(axis=1), gains + sign * _draws(table[1:])
    # Settings that a resample cannot tell apart are drawn among by lot: an interval is as wide as the data leave it.
    lots = np.random.default_rng(1).uniform(0, 1e-9, gains.shape)
    picked = [grid[index].sigma for index in np.argmax(gains + lots, axis=1)]
    low, high = np.quantile(picked, [0.025, 0.975], method="nearest")
    # argmax takes the first of equals, and the grid is sorted from cheap to dear.
    return grid[int(np.argmax(gain))], (float(low), float(high))


@dataclass(frozen=True, slots=True)
class _Asker:
    part: Part
    out: Path
    about: Mapping[str, str]
    limit: int | None
    watch: Watch

    def rows(self, name: str, answer: Answerer) -> tuple[Row, ...]:
        with self.watch(f"{self.part.kind}, {name}") as progress:
            return run(
                self.part.benchmark,
                answer,
                out=self.out / name,
                about={**self.about, "asked": name},
                limit=self.limit,
                progress=progress,
            ).rows

    def decided(self, name: str, rows: Sequence[Row]) -> dict[str, bool]:
        """Which items have the outcome; those without a decision are left out."""
        rule: Benchmark = self.part.benchmark
        if self.part.judge is not None:
            rule, judge = self.part.judge.asks(rows), self.part.judge
            about = {**self.about, "asked": name, "judge": judge.name}
            with self.watch(f"{self.part.kind}, {name}, judging") as progress:
                said = run(rule, judge.answer, out=self.out / f"{name}-judged", about=about, progress=progress)
            rows = judge.settle(said.rows)
        return {row.key: hit for row in rows if (hit := rule.hit(row)) is not None}


def _voted(row: Row, copies: int, voting: Voting, elect: Elect) -> Row:
    """The row as it would be had only the clean answer and the first `copies` noisy ones voted."""
    if not row.counts or not row.answers:
        return row
    text, abstained = elect(row.answers[: copies + 1], voting)
    return replace(row, text=text, status="stopped" if abstained else "answered")


def _figures(hits: Mapping[Kind, NDArray[np.float64]], row: int) -> Cell:
    figures = {kind: Figure.rate(int(table[row].sum()), table.shape[1]) for kind, table in hits.items()}
    return Cell(Setting(0.0, 0, ""), figures.get("utility"), figures.get("robustness"))


def _draws(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """``(RESAMPLES, settings)`` rates over items drawn with replacement, the same items for every setting."""
    n = table.shape[1]
    if n == 0:
        raise GuardError("no item was answered under every setting: there is nothing to compare")
    weights = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    rates: NDArray[np.float64] = weights @ table.T / n
    return rates


def _cell(data: Mapping[str, Any]) -> Cell:
    figures = {name: Figure(**data[name]) if data[name] else None for name in ("utility", "asr")}
    return Cell(Setting(**data["setting"]), figures["utility"], figures["asr"])
