"""The election among answers: clusters, sentiment-aware weights, winner, representative, agreement, abstention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sg_guardrails.core.errors import GuardError
from sg_guardrails.core.policy import Voting
from sg_guardrails.core.sameness import Reading, alike, apart, conflict, read, stray, unfolded
from sg_guardrails.core.types import Answer, Embedder, Scorer, Vote

_APART = 2.0
"""Distance of answers that may not share a cluster; those that may are at most 1 apart."""
_NOISE = 6
"""Decimals that cosines and weights are rounded to: float noise of about 1e-7 must never decide."""
_TIE = 1e-6
"""Weights no further apart are equal."""
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
        GuardError: If there is no answer, or a callable returns an array of another length or beyond its range.
    """
    if not answers:
        raise GuardError("a vote needs at least one answer; none was given")
    ballot = _ballot(answers)
    if len(ballot.distinct) == 1:
        return _unanimous(ballot.distinct[0], len(answers), voting, sentiment=sentiment, refusal=refusal)
    texts = [_said(answer) for answer in ballot.distinct]
    vectors = _vectors(embed, texts)
    tones = _scores(sentiment, texts, low=-1.0)
    refusing = _scores(refusal, texts, low=0.0)
    readings = [read(answer, float(score)) for answer, score in zip(ballot.distinct, refusing, strict=True)]
    if voting.method == "kmeans":
        parts = _kmeans(vectors, np.bincount(ballot.of, minlength=len(texts)), voting.k)
    elif voting.method == "cosine":
        parts = _complete(_distance(vectors), 1.0 - voting.similarity)
    else:
        same = _same(readings, vectors, voting.similarity, embed)
        parts = _complete(np.where(same, _distance(vectors), _APART), 1.0)
    labels = _by_first_appearance(parts[ballot.of])
    stances = np.maximum(refusing, [float(reading.refusal) for reading in readings])
    hostility = np.maximum(0.0, -tones) * (1.0 - stances)
    weights, winner = _winner(labels, hostility[ballot.of], stances[ballot.of], voting.sentiment_weight)
    members = np.flatnonzero(labels == winner)
    agreement = len(members) / len(answers)
    abstained = not agreement > voting.min_agreement or _vetoed(stances[ballot.of] > 0.5, members, voting.refusal_veto)
    return Vote(
        labels=tuple(int(label) for label in labels),
        winner=winner,
        choice=_representative(members, ballot.of[members], vectors[ballot.of[members]], voting.representative),
        agreement=agreement,
        abstained=len(answers) > 1 and abstained,
        weights=weights,
    )


def _unanimous(answer: Answer, count: int, voting: Voting, *, sentiment: Scorer, refusal: Scorer) -> Vote:
    """The vote of `count` answers of one wording: most requests. It needs no vector, and no stance but for its tone."""
    text = [_said(answer)]
    hostility = max(0.0, -float(_scores(sentiment, text, low=-1.0)[0]))
    if hostility:
        score = float(_scores(refusal, text, low=0.0)[0])
        hostility *= 1.0 - max(score, float(read(answer, score).refusal))
    return Vote(
        labels=(0,) * count,
        winner=0,
        choice=0,
        agreement=1.0,
        abstained=count > 1 and not voting.min_agreement < 1.0,
        weights=(float(np.sum(1.0 - voting.sentiment_weight * np.full(count, hostility))),),
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
    return _same(readings, _vectors(embed, texts), voting.similarity, embed)


def agree(anchor: Answer, other: Answer, voting: Voting, *, embed: Embedder, refusal: Scorer) -> bool:
    """Whether two answers may share a cluster, by the policy's method and looking at nothing but the two."""
    if voting.method == "cosine":
        vectors = _vectors(embed, [_said(anchor), _said(other)])
        return bool(_distance(vectors)[0, 1] <= 1.0 - voting.similarity)
    return bool(sameness((anchor, other), voting, embed=embed, refusal=refusal)[0, 1])


def contradicts(candidate: Answer, representative: Answer, voting: Voting, *, embed: Embedder, refusal: Scorer) -> bool:
    """Whether an answer from elsewhere contradicts the majority's: stance, facts, tool calls or injected content.

    Saying more, or saying it in other words, is no contradiction: the candidate's model may be a larger one. Under the
    ``cosine`` method, which knows no facts, being further apart than `voting.similarity` is all there is to see.
    """
    texts = [_said(candidate), _said(representative)]
    if voting.method == "cosine":
        return bool(_distance(_vectors(embed, texts))[0, 1] > 1.0 - voting.similarity)
    plain = (unfolded(candidate), unfolded(representative))
    scores = _scores(refusal, [_said(answer) for answer in plain], low=0.0)
    mine, theirs = (read(answer, float(score)) for answer, score in zip(plain, scores, strict=True))
    return conflict(mine, theirs) is not None or stray(mine, theirs, _Nearness([mine, theirs], embed))


def wording(answer: Answer) -> tuple[str, ...]:
    """Text and tool calls, word for word: answers of one wording are one to the vote."""
    return (_said(answer), *sorted(call.canonical for call in answer.tool_calls))


def _ballot(answers: Sequence[Answer]) -> _Ballot:
    keys = [wording(answer) for answer in answers]
    order = sorted(set(keys))
    number = {key: i for i, key in enumerate(order)}
    first = dict(zip(keys, answers, strict=True))
    return _Ballot(tuple(first[key] for key in order), np.array([number[key] for key in keys], dtype=np.intp))


def _said(answer: Answer) -> str:
    """What is embedded: the text, else the calls; lone surrogates, which no tokenizer takes, are replaced."""
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
    rounded = np.round(scores, _NOISE)
    if not ((rounded >= low) & (rounded <= 1)).all():
        raise GuardError(f"a scorer must return numbers in [{low:.0f}, 1]")
    return rounded.astype(np.float64)


class _Nearness:
    """Cosines of sentences, embedded in one call; only answers of several sentences need it."""

    def __init__(self, readings: Sequence[Reading], embed: Embedder) -> None:
        several = any(len(reading.sentences) > 1 for reading in readings)
        texts = sorted({sentence for reading in readings for sentence in reading.sentences}) if several else []
        self._row = {text: i for i, text in enumerate(texts)}
        self._unit = _unit(_vectors(embed, texts)) if texts else np.zeros((0, 0))

    def __call__(self, one: str, other: str) -> float:
        return float(self._unit[self._row[one]] @ self._unit[self._row[other]])


def _same(
    readings: Sequence[Reading], vectors: NDArray[np.float64], threshold: float, embed: Embedder
) -> NDArray[np.bool_]:
    cosines = 1.0 - _distance(vectors)
    nearness = _Nearness(readings, embed)
    same = np.eye(len(readings), dtype=np.bool_)
    for i, one in enumerate(readings):
        for j in range(i):
            first, second = sorted((one, readings[j]), key=lambda reading: (reading.text, reading.calls))
            same[i, j] = same[j, i] = (
                conflict(first, second) is None
                and alike(first, second, float(cosines[i, j]), threshold)
                and not apart(first, second, nearness, threshold)
                and not stray(first, second, nearness)
                and not stray(second, first, nearness)
            )
    return same


def _distance(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """``(M, M)`` cosine distances in [0, 1], rounded, zero on the diagonal."""
    unit = _unit(vectors)
    distance: NDArray[np.float64] = np.clip(1.0 - np.round(unit @ unit.T, _NOISE), 0.0, 1.0)
    np.fill_diagonal(distance, 0.0)
    return distance


def _complete(distance: NDArray[np.float64], reach: float) -> NDArray[np.intp]:
    """Complete linkage: answers share a cluster only if each pair of them is at most `reach` apart."""
    # Here and not at the top: scikit-learn takes about a second to import, which every command would pay.
    from sklearn.cluster import AgglomerativeClustering  # noqa: PLC0415 - the reason stands above

    model = AgglomerativeClustering(
        n_clusters=None, distance_threshold=reach + 10.0**-_NOISE, metric="precomputed", linkage="complete"
    )
    return np.asarray(model.fit_predict(distance), dtype=np.intp)


def _kmeans(vectors: NDArray[np.float64], counts: NDArray[np.intp], k: int) -> NDArray[np.intp]:
    """The paper's clustering, a distinct answer weighing as often as it was given; no more clusters than points."""
    from sklearn.cluster import KMeans  # noqa: PLC0415 - late for the same reason as in `_complete`

    points = len(np.unique(np.round(vectors, _NOISE), axis=0))
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
    tied = [label for label in clusters if best - weights[label] <= _TIE]
    return weights, min(
        tied,
        key=lambda label: (
            -round(float(refusing[labels == label].mean()), _NOISE),
            round(float(hostility[labels == label].mean()), _NOISE),
            label,
        ),
    )


def _vetoed(refusing: NDArray[np.bool_], members: NDArray[np.intp], share: float | None) -> bool:
    """Whether enough answers refuse to stand against a winner that does not."""
    if share is None or refusing[members].mean() > 0.5:
        return False
    return bool(refusing.any() and refusing.mean() >= share)


def _representative(members: NDArray[np.intp], of: NDArray[np.intp], vectors: NDArray[np.float64], kind: str) -> int:
    """The member nearest to all (medoid, chordal distance), or of greatest cosine to their mean; the first of equals.

    A wording that more than half of the members share is the medoid whatever the others are: the chord is a metric,
    and moving from the wording to another point adds at least as much to each of its votes as it takes from any other.
    """
    unit = _unit(vectors)
    if kind == "centroid":
        target = _unit(vectors.mean(axis=0)[None])[0]
        return int(members[int(np.argmax(np.round(unit @ target, _NOISE)))])
    counts = np.bincount(of)
    if 2 * counts.max() > len(members):
        return int(members[int(np.argmax(of == counts.argmax()))])
    chords = np.sqrt(np.maximum(0.0, 2.0 - 2.0 * np.round(unit @ unit.T, _NOISE)))
    np.fill_diagonal(chords, 0.0)
    return int(members[int(np.argmin(np.round(chords.sum(axis=1), _NOISE)))])
