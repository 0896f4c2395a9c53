"""The election among answers: clusters of the same, sentiment-aware weights, winner, representative, agreement, abstention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import AgglomerativeClustering, KMeans

from sg_guardrails.core.errors import GuardError
from sg_guardrails.core.policy import Voting
from sg_guardrails.core.sameness import Reading, alike, conflict, read
from sg_guardrails.core.types import Answer, Embedder, Scorer, Vote

_APART = 2.0
"""Distance of answers that may not share a cluster; those that may are at most 1 apart."""
_NOISE = 6
"""Decimals that cosines and weights are rounded to: float noise of about 1e-7 must never decide."""
_SEED = 0
"""KMeans starts the same way in every run."""


@dataclass(frozen=True, slots=True)
class _Ballot:
    """The distinct answers of a vote, in an order that does not depend on the votes' order."""

    distinct: tuple[Answer, ...]
    of: NDArray[np.intp]
    """``(N,)`` which distinct answer each answer is."""


def elect(answers: Sequence[Answer], voting: Voting, *, embed: Embedder, sentiment: Scorer, refusal: Scorer) -> Vote:
    """Cluster the answers, elect the majority and its representative.

    Args:
        answers: The N answers, in the caller's order.
        voting: The policy's way to vote.
        embed: Sentence embedder, texts to ``(M, D)``.
        sentiment: Tone in [-1, 1].
        refusal: Probability that a text is a refusal, in [0, 1].

    Returns:
        The vote, in indices of `answers`.

    Raises:
        GuardError: If there is no answer, or a callable returns an array of another length.
    """
    if not answers:
        raise GuardError("a vote needs at least one answer; none was given")
    ballot = _ballot(answers)
    texts = [_said(answer) for answer in ballot.distinct]
    vectors = _vectors(embed, texts)
    tones = _scores(sentiment, texts, low=-1.0)
    refusing = _scores(refusal, texts, low=0.0)
    readings = [read(answer, float(score)) for answer, score in zip(ballot.distinct, refusing, strict=True)]
    parts = _partition(readings, vectors, np.bincount(ballot.of, minlength=len(texts)), voting)
    labels = _by_first_appearance(parts[ballot.of])
    stances = np.maximum(refusing, [float(reading.refusal) for reading in readings])
    hostility = np.maximum(0.0, -tones) * (1.0 - stances)
    weights, winner = _winner(labels, hostility[ballot.of], stances[ballot.of], voting.sentiment_weight)
    members = np.flatnonzero(labels == winner)
    agreement = len(members) / len(answers)
    return Vote(
        labels=tuple(int(label) for label in labels),
        winner=winner,
        choice=_representative(members, vectors[ballot.of[members]], voting.representative),
        agreement=agreement,
        abstained=len(answers) > 1 and not agreement > voting.min_agreement,
        weights=weights,
    )


def sameness(answers: Sequence[Answer], voting: Voting, *, embed: Embedder, refusal: Scorer) -> NDArray[np.bool_]:
    """Which pairs of answers say the same, as the ``sameness`` method decides.

    Returns:
        ``(N, N)`` symmetric, True on the diagonal.
    """
    texts = [_said(answer) for answer in answers]
    if not texts:
        return np.zeros((0, 0), dtype=np.bool_)
    refusing = _scores(refusal, texts, low=0.0)
    readings = [read(answer, float(score)) for answer, score in zip(answers, refusing, strict=True)]
    return _same(readings, _unit(_vectors(embed, texts)), voting.similarity)


def contradicts(candidate: Answer, representative: Answer, voting: Voting, *, embed: Embedder, refusal: Scorer) -> bool:
    """Whether an answer that came from elsewhere contradicts the majority's: stance, facts, tool calls or injected content.

    Saying more, or saying it in other words, is no contradiction: the candidate's model may be a larger one.
    """
    texts = [_said(candidate), _said(representative)]
    scores = _scores(refusal, texts, low=0.0)
    mine, theirs = (read(answer, float(score)) for answer, score in zip((candidate, representative), scores, strict=True))
    if conflict(mine, theirs) is not None:
        return True
    return False


def _ballot(answers: Sequence[Answer]) -> _Ballot:
    keys = [(_said(answer), *sorted(call.canonical for call in answer.tool_calls)) for answer in answers]
    order = sorted(set(keys))
    number = {key: i for i, key in enumerate(order)}
    first = {key: answer for key, answer in zip(reversed(keys), reversed(answers), strict=True)}
    return _Ballot(tuple(first[key] for key in order), np.array([number[key] for key in keys], dtype=np.intp))


def _said(answer: Answer) -> str:
    """What is embedded: the text, or the calls where there is no text; lone surrogates, which no tokenizer takes, replaced."""
    text = answer.text if answer.text.strip() else "\n".join(call.canonical for call in answer.tool_calls)
    return text.encode("utf-8", "replace").decode("utf-8")


def _vectors(embed: Embedder, texts: Sequence[str]) -> NDArray[np.float64]:
    vectors = np.asarray(embed(texts), dtype=np.float64)
    if vectors.ndim != 2 or len(vectors) != len(texts) or not np.isfinite(vectors).all():
        raise GuardError(f"the embedder returned {vectors.shape} for {len(texts)} texts: it must return finite (N, D)")
    return vectors


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: NDArray[np.float64] = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    return unit


def _scores(scorer: Scorer, texts: Sequence[str], *, low: float) -> NDArray[np.float64]:
    scores = np.asarray(scorer(texts), dtype=np.float64)
    if scores.shape != (len(texts),) or not np.isfinite(scores).all():
        raise GuardError(f"a scorer returned {scores.shape} for {len(texts)} texts: it must return finite (N,)")
    return np.clip(scores, low, 1.0)


def _same(readings: Sequence[Reading], unit: NDArray[np.float64], threshold: float) -> NDArray[np.bool_]:
    cosines = np.round(unit @ unit.T, _NOISE)
    same = np.eye(len(readings), dtype=np.bool_)
    for i, one in enumerate(readings):
        for j in range(i):
            same[i, j] = same[j, i] = conflict(one, readings[j]) is None and alike(
                one, readings[j], float(cosines[i, j]), threshold
            )
    return same


def _partition(
    readings: Sequence[Reading], vectors: NDArray[np.float64], counts: NDArray[np.intp], voting: Voting
) -> NDArray[np.intp]:
    """The cluster of each distinct answer, ``(M,)``."""
    if len(readings) == 1:
        return np.zeros(1, dtype=np.intp)
    if voting.method == "kmeans":
        return _kmeans(vectors, counts, voting.k)
    unit = _unit(vectors)
    distance = np.clip(1.0 - np.round(unit @ unit.T, _NOISE), 0.0, 1.0)
    if voting.method == "sameness":
        same, reach = _same(readings, unit, voting.similarity), 1.5
        distance[~same] = _APART
    else:
        reach = 1.0 - voting.similarity + 10.0**-_NOISE  # the threshold itself still joins
    np.fill_diagonal(distance, 0.0)
    model = AgglomerativeClustering(n_clusters=None, distance_threshold=reach, metric="precomputed", linkage="complete")
    return np.asarray(model.fit_predict(distance), dtype=np.intp)


def _kmeans(vectors: NDArray[np.float64], counts: NDArray[np.intp], k: int) -> NDArray[np.intp]:
    """The paper's clustering, each distinct answer weighing as often as it was given. One cluster where all points are one."""
    points = len(np.unique(np.round(vectors, _NOISE), axis=0))
    if points == 1:
        return np.zeros(len(vectors), dtype=np.intp)
    model = KMeans(n_clusters=min(k, points), n_init=10, random_state=_SEED)
    return np.asarray(model.fit_predict(vectors, sample_weight=counts.astype(np.float64)), dtype=np.intp)


def _by_first_appearance(parts: NDArray[np.intp]) -> NDArray[np.intp]:
    names: dict[int, int] = {}
    return np.array([names.setdefault(int(part), len(names)) for part in parts], dtype=np.intp)


def _winner(
    labels: NDArray[np.intp], hostility: NDArray[np.float64], refusing: NDArray[np.float64], weight: float
) -> tuple[tuple[float, ...], int]:
    """Cluster weights, ``sum over members of 1 - lambda * hostility``, and the label that wins.

    Tone decides close votes only: a strict majority by count wins whatever its tone. Ties go to the safer cluster:
    more refusing, then less hostile, then first seen.
    """
    clusters = range(int(labels.max()) + 1)
    weights = tuple(float(np.sum(1.0 - weight * hostility[labels == label])) for label in clusters)
    counts = [int(np.sum(labels == label)) for label in clusters]
    majority = [label for label in clusters if 2 * counts[label] > len(labels)]
    if majority:
        return weights, majority[0]
    best = max(weights)
    tied = [label for label in clusters if best - weights[label] <= 1e-9]
    return weights, min(
        tied,
        key=lambda label: (
            -round(float(refusing[labels == label].mean()), _NOISE),
            round(float(hostility[labels == label].mean()), _NOISE),
            label,
        ),
    )


def _representative(members: NDArray[np.intp], vectors: NDArray[np.float64], kind: str) -> int:
    """The member with the greatest total cosine to the members (medoid), or to their mean vector (centroid); the first of equals."""
    unit = _unit(vectors)
    target = unit.mean(axis=0) if kind == "medoid" else _unit(vectors.mean(axis=0)[None])[0]
    return int(members[int(np.argmax(np.round(unit @ target, _NOISE)))])
