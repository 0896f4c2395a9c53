"""LLaVA-Bench's reviews: two scores on a judge's first line, the reference's and the candidate's, and their sums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sg_guardrails.evals.base import Figure, Item, Row, Scores, Trouble

CATEGORIES = ("conv", "detail", "complex")
SWAPPED = ":swapped"
"""Ends the key of a review that was asked for with the candidate in the first place."""
FAILED = (-1.0, -1.0)
"""What the official parser writes where it finds no two scores."""


@dataclass(frozen=True)
class Reviews:
    """The judge's reviews of one arm."""

    items: tuple[Item, ...] = ()
    troubles: tuple[Trouble, ...] = ()
    official: bool = False
    """Whether -1 -1 is averaged in with the others, as the official summary of recorded reviews does."""
    name: str = "llava-bench"
    headline: str = "relative"
    outcome: str = "judged as good as the reference"

    def hit(self, row: Row) -> bool | None:
        """Whether the candidate's score is at least the reference's; None where the review holds no scores."""
        pair = scores_of(row)
        return None if pair is None else pair[1] >= pair[0]

    def scores(self, rows: Sequence[Row]) -> Scores:
        """100 x mean candidate / mean reference, overall and per category, over the reviews that hold scores.

        As in the official summary, a review without a category counts under ``all`` alone.
        """
        counted = [row for row in rows if scores_of(row) is not None or (self.official and failed(row))]
        groups = [name for name in CATEGORIES if any(row.group == name for row in counted)]
        return {"all": _relative(counted)} | {
            name: _relative([row for row in counted if row.group == name]) for name in groups
        }


def settled(rows: Sequence[Row]) -> list[Row]:
    """One review per question: where it was judged in both orders, the mean of both, undecided unless both hold scores.

    A judge's liking for a place is in one order alone; so is no question in the figures by one order alone.
    """
    asked: dict[str, list[Row]] = {}
    for row in rows:
        asked.setdefault(row.key.removesuffix(SWAPPED), []).append(row)
    return [_settled(key, orders) for key, orders in asked.items()]


def _settled(key: str, orders: Sequence[Row]) -> Row:
    if len(orders) == 1:
        return replace(orders[0], key=key)
    pairs = [(row, scores_of(row)) for row in orders]
    without = next((row for row, pair in pairs if pair is None), None)
    if without is not None:
        return replace(without, key=key)
    one, two = (sum(pair[place] for _, pair in pairs if pair) / len(pairs) for place in (0, 1))
    return replace(orders[0], key=key, text=f"{one} {two}")


def scores_of(row: Row) -> tuple[float, float] | None:
    """(reference, candidate) from the first line, as the official parser reads it; None where it holds no scores.

    Where it finds none the official parser writes -1 -1: these are no scores.
    """
    one, two = _first_line(row) or FAILED
    if not row.counts or not (0 <= one <= 10 and 0 <= two <= 10):
        return None
    return (two, one) if row.key.endswith(SWAPPED) else (one, two)


def failed(row: Row) -> bool:
    """Whether a recorded review says that the official parser found no scores in it."""
    return _first_line(row) == FAILED


def review_text(line: Mapping[str, Any]) -> str:
    """The two scores of a recorded review, which the official summary counts, before the judge's own words.

    They stand under ``tuple``, in older files under ``score``.
    """
    content = line.get("content") if isinstance(line.get("content"), str) else ""
    for name in ("tuple", "score"):
        pair = line.get(name)
        if isinstance(pair, list) and len(pair) == 2 and all(_number(part) for part in pair):
            return f"{pair[0]} {pair[1]}\n{content}"
    return str(content)


def _first_line(row: Row) -> tuple[float, float] | None:
    parts = row.text.split("\n", maxsplit=1)[0].replace(",", " ").split()
    try:
        one, two = (float(part) for part in parts)
    except ValueError:
        return None
    return one, two


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _relative(rows: Sequence[Row]) -> dict[str, Figure]:
    found = [scores_of(row) for row in rows]
    # Beside reviews with scores only: -1 over -1 alone would be 100.
    pairs = [pair or FAILED for pair in found] if any(found) else []
    return {
        "relative": Figure.resampled(pairs, lambda means: 100 * means[..., 1] / means[..., 0]),
        "reference": Figure.resampled(pairs, lambda means: means[..., 0]),
        "candidate": Figure.resampled(pairs, lambda means: means[..., 1]),
    }
