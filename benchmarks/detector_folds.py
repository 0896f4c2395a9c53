"""What is chosen inside the folds: the bound of a head, and a detector of harm composed of two other heads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold

from sg_guardrails.core.types import Embedder
from training import fitting
from training.fitting import Features, Recipe
from training.heads import RECIPES, ROWS
from training.sources import Rows, Wheels, prompts

MOST = 0.01
"""False alarms that a bound may cause on the rows that it is chosen on: half of what the policy is allowed."""
BOUNDS = tuple(np.arange(50, 100) / 100)
Floats = NDArray[np.float64]


def chosen_apart(found: Features, rows: Rows, recipe: Recipe) -> tuple[list[float], NDArray[np.bool_]]:
    """The least bound with at most MOST false alarms, chosen by folds within each fold's training rows.

    Returns:
        Each fold's bound, and ``(M,)`` whether a row reaches that of its fold, by a head that has not seen its group.
    """
    said, bounds = np.zeros(len(rows.groups), dtype=np.bool_), []
    groups, labels = np.array(rows.groups), rows.labels[: len(rows.groups)]
    within = GroupKFold(fitting.FOLDS, shuffle=True, random_state=fitting.SEED)
    for train, test in fitting.splits(rows):
        inner = np.zeros(len(groups))
        for _, part in within.split(train, groups=groups[train]):
            inner[train[part]] = _left_out(found, rows, recipe, np.r_[test, train[part]])[train[part]]
        harmless = inner[train][labels[train] == 0]
        bounds.append(float(next((at for at in BOUNDS if (harmless >= at).mean() <= MOST), BOUNDS[-1])))
        said[test] = _left_out(found, rows, recipe, test)[test] >= bounds[-1]
    return bounds, said


def _left_out(found: Features, rows: Rows, recipe: Recipe, out: NDArray[np.int64]) -> Floats:
    kept = fitting.weights(rows)
    kept[out] = 0
    return fitting.score(fitting.fit(found, rows.labels, kept, recipe), found)


def composed(xstest: Path, wheels: Wheels, rows: Rows, embedder: Embedder) -> Floats:
    """``(M,)`` `unsafe_request` times (1 - `refusal`) of the rows of `harm`, each head without the row's group."""
    asked = prompts(xstest)
    focus = dict(zip(asked.texts, asked.groups, strict=True))
    result = np.ones(len(rows.groups))
    for name in ("unsafe_request", "refusal"):
        known, recipe = ROWS[name](xstest, wheels), RECIPES[name]
        groups = np.array([focus.get(group, group) for group in known.groups])
        found = fitting.features(known.texts, embedder, recipe)
        read = fitting.features(rows.texts[: len(rows.groups)], embedder, recipe)
        for _, test in fitting.splits(rows):
            kept = fitting.weights(known)
            kept[: len(groups)][np.isin(groups, np.array(rows.groups)[test])] = 0
            scores = fitting.score(fitting.fit(found, known.labels, kept, recipe), read)[test]
            result[test] *= scores if name == "unsafe_request" else 1 - scores
    return result
