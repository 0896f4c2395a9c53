"""The red team's one page and its JSON: the table with its targets, the curves, galleries, policy and threat model."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from sg_guardrails.core.media import Image
from sg_guardrails.evals.base import Figure
from sg_guardrails.evals.files import write
from sg_guardrails.evals.redteam import FAMILIES, Cell
from sg_guardrails.evals.redteam_score import KNOWING, LAYERS, Result, Shot, Unharmed
from sg_guardrails.evals.redteam_sweep import Point, optimum
from sg_guardrails.evals.report import COLOURS, _svg, _write

AMPLIFIED = 8
"""How much the galleries enlarge what an attack adds."""
STYLES = {"8": (":", COLOURS[1]), "16": ("-", COLOURS[2]), "32": ("--", COLOURS[3])}
"""Dashes and colour of each budget's line."""
CLEAN = ("-", "#0f172a")
"""Of the clean pictures' line."""
SWEEPS = {
    "sigma": "noise alone, sigma in the policy's unit",
    "shift": "move, share of the picture's sides, beside the policy's sigma",
    "copies": "noisy copies",
    "lambda": "sentiment weight lambda",
}
"""Curves and what their axes show; methods stand in a table."""


@dataclass(frozen=True, slots=True)
class Summary:
    """All figures of a run."""

    about: Mapping[str, str]
    """Model, policies, versions, seeds, settings."""
    results: Sequence[Result]
    unharmed: Unharmed | None
    points: Sequence[Point] = ()

    def write(self, path: Path) -> Path:
        """As JSON, with the shares and what became of the targets."""
        return write(path, json.dumps(self.plain(), indent=1) + "\n")

    def plain(self) -> dict[str, Any]:
        """Figures, shares and verdicts as numbers and strings."""
        rows = [
            {
                **_rounded(asdict(one)),
                "share": {layer: _short(one.share(layer)) for layer in LAYERS},
                "target": {layer: one.target(layer) for layer in LAYERS},
                "verdict": {layer: one.verdict(layer) for layer in LAYERS},
                "recovery": one.recovery,
            }
            for one in self.results
        ]
        clean = None if self.unharmed is None else _rounded(asdict(self.unharmed))
        if clean is not None and self.unharmed is not None:
            clean |= {
                "verdict": {layer: self.unharmed.verdict(layer) for layer in LAYERS},
                "withholding": self.unharmed.withholding,
            }
        return {
            "about": dict(self.about),
            "cells": rows,
            "clean": clean,
            "sweeps": [_rounded(asdict(one)) for one in self.points],
        }

    @property
    def drafted(self) -> bool:
        """Whether any picture was also asked about under a vote on drafts."""
        return any(one.drafted for one in self.results)

    @property
    def tally(self) -> dict[str, int]:
        """How many targets were met, missed or not judged."""
        said = [one.verdict(layer) for one in self.results for layer in LAYERS] + [r.recovery for r in self.results]
        if self.unharmed is not None:
            said += [self.unharmed.verdict(layer) for layer in LAYERS] + [self.unharmed.withholding]
        return {name: said.count(name) for name in ("met", "missed", "not judged")}


@dataclass(frozen=True, slots=True)
class Exhibit:
    """One attacked picture for the gallery, with everything that was said about it."""

    cell: Cell
    shot: Shot
    original: Image
    attacked: Image
    noisy: Sequence[Image] = field(default=())
    """Noisy copies as the model sees them."""

    @property
    def pictures(self) -> list[tuple[str, str]]:
        """Captions and data URIs."""
        added = self.attacked.pixels - self.original.pixels
        shown = [
            ("the picture", self.original),
            (f"what the attack adds, x{AMPLIFIED}", Image(np.clip(0.5 + AMPLIFIED * added, 0, 1))),
            ("what the model is given", self.attacked),
            *((f"noisy copy {index}", image) for index, image in enumerate(self.noisy, start=1)),
        ]
        return [(caption, _uri(image)) for caption, image in shown]

    @property
    def said(self) -> list[tuple[str, int, str]]:
        """Distinct answers: text, how many copies said it, and whether it is the attacker's, right or neither."""
        answers = self.shot.row.answers
        return [(text, answers.count(text), self.kind(text)) for text in sorted(set(answers), key=answers.count)][::-1]

    def kind(self, text: str) -> str:
        """``attacker``, ``right`` or ``other``."""
        case = self.shot.case
        return "attacker" if case.reached(text) else "right" if case.sound(text) else "other"


def label(model: str) -> str:
    """A model's id as a report may show it: of a local folder its last part and its weights' digest, never its path."""
    folder = Path(model).expanduser()
    if not (folder / "config.json").is_file():
        return model
    weights = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            weights.update(hashlib.file_digest(file, "sha256").digest())
    return f"{folder.resolve().name} (weights {weights.hexdigest()[:12]})"


def unplaced(told: Any) -> Any:
    """A policy's fields with the `label` of every model that is a local folder."""
    if isinstance(told, list):
        return [unplaced(one) for one in told]
    if not isinstance(told, Mapping):
        return told
    named = {name for name in ("id", "model") if isinstance(told.get(name), str)}
    return {name: label(value) if name in named else unplaced(value) for name, value in told.items()}


def write_page(summary: Summary, exhibits: Sequence[Exhibit], path: Path, *, policy: str) -> Path:
    """Write the page, one file that needs no other.

    Args:
        summary: The figures.
        exhibits: For the gallery.
        path: Where to.
        policy: The guard's policy as text.

    Raises:
        GuardError: If matplotlib is not installed.
    """
    curves = {name: chart for name in SWEEPS if (chart := _curves(summary.points, name)) is not None}
    methods = [one for one in summary.points if one.sweep == "method"]
    best = {name: optimum([p for p in summary.points if p.sweep == name]) for name in curves}
    return _write(
        "redteam.html.j2",
        path,
        s=summary,
        layers=LAYERS,
        curves=curves,
        axes=SWEEPS,
        best=best,
        methods=methods,
        exhibits=exhibits,
        policy=policy,
        amplified=AMPLIFIED,
        knowing=KNOWING,
    )


def _curves(points: Sequence[Point], sweep: str) -> Markup | None:
    """By family, attack success above and right answers below, against one setting; a line for each budget."""
    chosen = [one for one in points if one.sweep == sweep]
    if len({one.at for one in chosen}) < 2:
        return None
    groups = {group: [one for one in chosen if one.group == group] for group in dict.fromkeys(p.group for p in chosen)}
    unharmed = groups.pop("clean", [])
    families = [family for family in FAMILIES if any(group.startswith(family) for group in groups)]
    best = float(optimum(chosen))

    def draw(canvas: Any) -> None:
        grid = canvas.subplots(2, len(families), sharex=True, sharey=True, squeeze=False)
        for column, family in enumerate(families):
            above, below = grid[0][column], grid[1][column]
            for group, mine in groups.items():
                name, budget, _ = group.split("-")
                if name != family:
                    continue
                at, style = [float(one.at) for one in mine], STYLES.get(budget, ("-", COLOURS[0]))
                _line(above, at, [one.asr for one in mine if one.asr is not None], f"{budget}/255", style)
                _line(below, at, [one.right for one in mine], None, style)
            if unharmed:
                label = None if column else "clean pictures"
                _line(below, [float(one.at) for one in unharmed], [p.right for p in unharmed], label, CLEAN)
            above.set(title=family)
            below.set(xlabel=SWEEPS[sweep])
            for axes in (above, below):
                axes.set(ylim=(-0.03, 1.03))
                axes.axvline(best, color="#0f766e", linewidth=0.8)
                axes.grid(color="#e2e8f0")
        grid[0][0].set(ylabel="attack success rate")
        grid[1][0].set(ylabel="right answers")
        named = {
            name: line for axes in grid[:, 0] for line, name in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        canvas.legend(named.values(), named.keys(), frameon=False, loc="outside lower center", ncols=4)

    return _svg(draw, height=5.6)


def _line(axes: Any, at: Sequence[float], figures: Sequence[Figure], label: str | None, style: tuple[str, str]) -> None:
    dashes, colour = style
    axes.plot(at, [one.value for one in figures], dashes, marker="o", markersize=3, color=colour, label=label)
    low, high = [one.low for one in figures], [one.high for one in figures]
    axes.fill_between(at, low, high, color=colour, alpha=0.07, linewidth=0)


def _uri(image: Image) -> str:
    return f"data:image/png;base64,{base64.b64encode(image.to_png()).decode()}"


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _rounded(value: Any) -> Any:
    """The same with four decimals, and figures' fields as they are named."""
    if isinstance(value, Mapping):
        return {name: _rounded(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    return _short(value) if isinstance(value, float) else value
