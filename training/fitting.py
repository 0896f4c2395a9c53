"""Fits one head on texts, or on the windows of texts, and scores each text by a head that has not seen its group."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score
from sklearn.model_selection import GroupKFold

from sg_guardrails.core.types import Embedder
from sg_guardrails.models import heads
from sg_guardrails.models.heads.cues import COUNT
from training.sources import Rows

SEED = 0
FOLDS = 5
ROUNDS = 1
"""How often the worst window of each text is chosen anew."""
Block = Literal["words", "cues", "MiniLM"]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a head reads, and how it is fitted."""

    blocks: tuple[Block, ...]
    strength: float
    """Inverse of the L2 penalty (scikit-learn's C)."""
    windowed: bool = False


@dataclass(frozen=True, slots=True)
class Figures:
    """Held-out figures of one head, at the bound 0.5."""

    accuracy: float
    f1: float
    auc: float


@dataclass(frozen=True, slots=True)
class Features:
    """The parts of the texts as numbers."""

    matrix: csr_matrix
    """``(R, BINS + K + D)``, a row for each part; the blocks in the order words, cues, MiniLM."""
    starts: Ints
    """``(N,)`` the row at which each text's parts begin."""

    def owners(self) -> Ints:
        """``(R,)`` the text that each part belongs to."""
        counts = np.diff(np.r_[self.starts, self.matrix.shape[0]])
        return np.repeat(np.arange(len(self.starts)), counts)


def features(texts: list[str], embedder: Embedder, recipe: Recipe) -> Features:
    """The openings of the texts, or their windows; turns of phrase are read in the whole text (cf. `LinearHead`)."""
    texts = [heads.legible(text) for text in texts]
    openings = [heads.opening(text) for text in texts]
    parts = [heads.windows(text) if recipe.windowed else [text] for text in openings]
    flat = [part for row in parts for part in row]
    known = np.zeros((len(flat), COUNT)) if recipe.windowed else heads.cues(texts)
    meaning = embedder(flat) if "MiniLM" in recipe.blocks else np.zeros((len(flat), 0))
    matrix = hstack([heads.hashed(flat), csr_matrix(known), csr_matrix(meaning.astype(np.float64))]).tocsr()
    return Features(matrix[:, _columns(recipe, matrix.shape[1])], np.cumsum([0, *(len(row) for row in parts[:-1])]))


def _columns(recipe: Recipe, width: int) -> Ints:
    spans = {"words": (0, heads.BINS), "cues": (heads.BINS, heads.BINS + COUNT), "MiniLM": (heads.BINS + COUNT, width)}
    return np.concatenate([np.arange(*spans[block]) for block in ("words", "cues", "MiniLM") if block in recipe.blocks])


def fit(found: Features, labels: Ints, weights: Floats, recipe: Recipe) -> LogisticRegression:
    """A logistic regression on the texts of positive weight.

    A text of several windows is a bag (multiple-instance learning, Andrews et al., NeurIPS 2002): harmless if all of
    its windows are, harmful if one is. That one is the window which the last round scored highest.
    """
    owners = found.owners()
    counts = np.bincount(owners, minlength=len(labels))
    first = np.arange(len(owners)) - found.starts[owners] < 3
    chosen = first | (labels[owners] != 1)
    model = None
    for _ in range(ROUNDS + 1 if recipe.windowed else 1):
        if model is not None:
            scores = model.decision_function(found.matrix)
            best = np.maximum.reduceat(scores, found.starts)
            chosen = (scores >= best[owners]) | (labels[owners] != 1)
        shares = np.where(labels[owners] == 1, 1.0, 1.0 / counts[owners]) * weights[owners]
        rows = np.flatnonzero(chosen & (shares > 0))
        model = LogisticRegression(C=recipe.strength, max_iter=3000, random_state=SEED)
        model.fit(found.matrix[rows], labels[owners][rows], sample_weight=shares[rows])
    return model


def score(model: LogisticRegression, found: Features) -> Floats:
    """``(N,)`` the probability of each text: of its highest part."""
    return np.asarray(expit(np.maximum.reduceat(model.decision_function(found.matrix), found.starts)))


def splits(rows: Rows) -> Iterator[tuple[Ints, Ints]]:
    """The folds: indices that may be trained on and indices to score, no group in both."""
    yield from GroupKFold(FOLDS, shuffle=True, random_state=SEED).split(rows.groups, groups=rows.groups)


def weights(rows: Rows) -> Floats:
    """``(N,)`` what each row counts in a fit."""
    shares = np.where(np.arange(len(rows.texts)) < len(rows.groups), 1.0, rows.weight)
    return np.where(rows.labels < 0, 0.0, shares)


def out_of_fold(found: Features, rows: Rows, recipe: Recipe) -> Floats:
    """``(M,)`` scores of the rows that have a group, each by a head that has not seen the group."""
    scores = np.zeros(len(rows.groups))
    for _, test in splits(rows):
        kept = weights(rows)
        kept[test] = 0
        scores[test] = score(fit(found, rows.labels, kept, recipe), found)[test]
    return scores


def without(found: Features, rows: Rows, recipe: Recipe, tested: NDArray[np.bool_], *, prompts: bool) -> Floats:
    """``(M,)`` scores of the tested rows by heads that have seen none of them, nor, if asked, their prompts."""
    scores = np.zeros(len(rows.groups))
    for _, fold in splits(rows) if prompts else ((None, np.arange(len(rows.groups))),):
        kept = weights(rows)
        kept[: len(tested)][tested] = 0
        if prompts:
            kept[fold] = 0
        at = fold[tested[fold]]
        scores[at] = score(fit(found, rows.labels, kept, recipe), found)[at]
    return scores


def figures(labels: Ints, scores: Floats) -> Figures:
    """Accuracy and F1 at 0.5, and AUC, of the labelled rows."""
    labels, scores = labels[labels >= 0], scores[labels >= 0]
    said = scores > 0.5
    return Figures(
        float(accuracy_score(labels, said)), float(f1_score(labels, said)), float(roc_auc_score(labels, scores))
    )


def head(model: LogisticRegression, recipe: Recipe) -> heads.LinearHead:
    """The fitted weights as a head; it still lacks its embedder."""
    left = model.coef_[0].astype(np.float32)
    sizes = {"words": heads.BINS, "cues": COUNT}
    taken = {}
    for block, size in sizes.items():
        taken[block] = left[:size] if block in recipe.blocks else np.zeros(size if block == "words" else 0, np.float32)
        left = left[size:] if block in recipe.blocks else left
    return heads.LinearHead(taken["words"], left, float(model.intercept_[0]), taken["cues"], recipe.windowed)
