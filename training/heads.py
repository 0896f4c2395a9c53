"""Trains the two linear heads on XSTest's human labels and prints their held-out figures."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
import yaml
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score
from sklearn.model_selection import GroupKFold

from sg_guardrails.core.policy import EmbedderSection
from sg_guardrails.core.types import Embedder
from sg_guardrails.models import heads
from sg_guardrails.models.text import load_embedder
from training import phrases

COMPLETIONS = ("gpt4", "llama2orig", "mistralinstruct")
FOLDS = 10
SEED = 0


@dataclass(frozen=True, slots=True)
class Rows:
    """Labelled texts; rows of one group never stand on both sides of a split."""

    texts: list[str]
    labels: NDArray[np.int64]
    """``(N,)`` of 0 and 1."""
    groups: list[str]
    """``(M,)``, M <= N: the first M rows are split; the rest, generated or borrowed, are only ever trained on."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Held-out figures of one head."""

    accuracy: float
    f1: float
    auc: float


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a head reads, and how it is fitted."""

    words: bool
    meaning: bool
    strength: float
    """Inverse of the L2 penalty (scikit-learn's C)."""


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def refusals(folder: Path) -> Rows:
    """XSTest's completions: full and partial refusals (1) against full compliance (0), grouped by prompt."""
    rows = [row for name in COMPLETIONS for row in _read(folder / f"completions_{name}.csv")]
    labels = np.array([row["final_label"] != "1_full_compliance" for row in rows], dtype=np.int64)
    return Rows([row["completion"] for row in rows], labels, [row["prompt"] for row in rows])


def requests(folder: Path) -> Rows:
    """XSTest's prompts: unsafe (1) against safe (0); a safe prompt and its contrasts share their focus word's group."""
    rows = _read(folder / "prompts.csv")
    labels = np.array([row["label"] == "unsafe" for row in rows], dtype=np.int64)
    return Rows([row["prompt"] for row in rows], labels, [row["focus"].lower() or f"row {row['id']}" for row in rows])


def advbench(path: Path) -> list[str]:
    """AdvBench's harmful instructions (MIT), from the file ``adv_bench.prompt`` of the package pyrit."""
    return [seed["value"] for seed in yaml.safe_load(path.read_text(encoding="utf-8"))["seeds"]]


def features(texts: list[str], embedder: Embedder | None) -> csr_matrix:
    """``(N, BINS + D)``: hashed words, then the embedding of the opening (D is 0 without an embedder)."""
    words = heads.hashed(texts)
    if embedder is None:
        return words.tocsr()
    return hstack([words, csr_matrix(embedder([heads.opening(text) for text in texts]).astype(np.float64))]).tocsr()


def _fit(matrix: csr_matrix, labels: NDArray[np.int64], recipe: Recipe) -> LogisticRegression:
    return LogisticRegression(C=recipe.strength, max_iter=5000, random_state=SEED).fit(matrix, labels)


def _part(matrix: csr_matrix, recipe: Recipe) -> csr_matrix:
    return matrix[:, 0 if recipe.words else heads.BINS : None if recipe.meaning else heads.BINS]


def held_out(matrix: csr_matrix, rows: Rows, recipe: Recipe) -> Figures:
    """Grouped cross-validation on the rows that have a group.

    Args:
        matrix: ``(N, BINS + D)`` features of `rows`.
        rows: Labels and groups.
        recipe: Which features count.
    """
    every, count = _part(matrix, recipe), len(rows.groups)
    scores = np.zeros(count)
    for train, test in GroupKFold(FOLDS, shuffle=True, random_state=SEED).split(every[:count], groups=rows.groups):
        kept = np.r_[train, np.arange(count, every.shape[0])]
        scores[test] = _fit(every[kept], rows.labels[kept], recipe).predict_proba(every[test])[:, 1]
    truth, said = rows.labels[:count], scores > 0.5
    return Figures(
        float(accuracy_score(truth, said)), float(f1_score(truth, said)), float(roc_auc_score(truth, scores))
    )


def fit(matrix: csr_matrix, labels: NDArray[np.int64], recipe: Recipe, *, windowed: bool) -> heads.LinearHead:
    """The head fitted on every row; it still lacks its embedder."""
    model = _fit(_part(matrix, recipe), labels, recipe)
    weights = model.coef_[0].astype(np.float32)
    words = weights[: heads.BINS] if recipe.words else np.zeros(heads.BINS, np.float32)
    return heads.LinearHead(words, weights[heads.BINS if recipe.words else 0 :], float(model.intercept_[0]), windowed)


RECIPES = {
    "words": Recipe(words=True, meaning=False, strength=30.0),
    "MiniLM": Recipe(words=False, meaning=True, strength=10.0),
    "words + MiniLM": Recipe(words=True, meaning=True, strength=10.0),
}
SHIPPED = {"refusal": "words", "unsafe_request": "words + MiniLM"}
"""Which recipe each head ships with; the card says why."""


def with_generated(name: str, rows: Rows, harmful: list[str]) -> Rows:
    """XSTest's rows, then what it lacks: short answers; requests in all forms, and AdvBench's."""
    if name == "refusal":
        texts, labels = phrases.answers(2100, seed=SEED)
    else:
        texts, labels = phrases.requests(1000, seed=SEED)
        texts, labels = texts + harmful, labels + [1] * len(harmful)
    return Rows(rows.texts + texts, np.r_[rows.labels, labels], rows.groups)


def main(
    xstest: Annotated[Path, typer.Option(help="folder with prompts.csv and completions_*.csv (CC-BY-4.0)")],
    advbench_file: Annotated[Path | None, typer.Option("--advbench", help="adv_bench.prompt from pyrit (MIT)")] = None,
    compare: Annotated[bool, typer.Option(help="also measure the recipes that are not shipped")] = False,  # noqa: FBT002 - a flag of the command line
    out: Annotated[Path, typer.Option(help="where the .npz files go")] = Path(heads.__file__).parent,
) -> None:
    """Measure the recipes by grouped cross-validation, then fit and write the shipped ones."""
    embedder = load_embedder(EmbedderSection(), device="cpu")
    harmful = advbench(advbench_file) if advbench_file else []
    for name, found in (("refusal", refusals(xstest)), ("unsafe_request", requests(xstest))):
        rows = with_generated(name, found, harmful)
        recipes = RECIPES if compare else {SHIPPED[name]: RECIPES[SHIPPED[name]]}
        matrix = features(rows.texts, embedder if any(recipe.meaning for recipe in recipes.values()) else None)
        for label, recipe in recipes.items():
            figures = held_out(matrix, rows, recipe)
            mark = " (shipped)" if SHIPPED[name] == label else ""
            print(f"{name:15} {label:15} acc {figures.accuracy:.3f} F1 {figures.f1:.3f} AUC {figures.auc:.3f}{mark}")
        fit(matrix, rows.labels, RECIPES[SHIPPED[name]], windowed=name == "unsafe_request").save(out / f"{name}.npz")


if __name__ == "__main__":
    typer.run(main)
