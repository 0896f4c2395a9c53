"""Nearness in meaning to examples: a Scorer from sentences that a policy lists and the guard's embedder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sg_guardrails.core.errors import GuardError
from sg_guardrails.core.types import Embedder, Scorer

WINDOW = 20
"""Words of a longer sentence that are read at once, neighbours sharing half: a short example drowns in a long text."""
_END = re.compile(r"(?<=[.!?;:])\s+|\n+")


def near_scorer(examples: tuple[str, ...], embed: Embedder) -> Scorer:
    """For each text the greatest cosine of one of its passages with one of the examples, in [-1, 1].

    Args:
        examples: Sentences; their vectors are kept for the next text.
        embed: The guard's embedder (hashable, as functions and plain objects are).
    """

    def score(texts: Sequence[str]) -> NDArray[np.float32]:
        if not texts:
            return np.zeros(0, np.float32)
        pieces = [passages(text) for text in texts]
        flat = list(dict.fromkeys(piece for row in pieces for piece in row))
        known = _examples(examples, embed)  # type: ignore[arg-type]  # a callable that can't be hashed is no embedder here
        cosines: NDArray[np.float64] = np.matmul(_unit(embed(flat)), known.T).max(axis=1)
        nearest = dict(zip(flat, cosines, strict=True))
        return np.array([max(nearest[piece] for piece in row) for row in pieces], dtype=np.float32)

    return score


def passages(text: str) -> list[str]:
    """The text's sentences, long ones in windows; the whole text where there is none."""
    found: list[str] = []
    for sentence in _END.split(text):
        words = sentence.split()
        starts = range(0, max(len(words) - WINDOW // 2, 1), WINDOW // 2)
        found += [" ".join(words[at : at + WINDOW]) for at in starts if words]
    return found or [text]


@lru_cache(maxsize=64)
def _examples(examples: tuple[str, ...], embed: Embedder) -> NDArray[np.float64]:
    return _unit(embed(list(examples)))


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """``(N, D)`` float64 rows of length 1, zero rows as they are."""
    rows = np.asarray(vectors, dtype=np.float64)
    if rows.ndim != 2 or not np.isfinite(rows).all():
        raise GuardError("the embedder must return finite (N, D)")
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: NDArray[np.float64] = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    return unit
