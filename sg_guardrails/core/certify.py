"""Certificates: from how many noisy copies agree to the L2 radius inside which their majority cannot turn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, norm

from sg_guardrails.core import vote
from sg_guardrails.core.conditions import looks_at_pictures
from sg_guardrails.core.errors import GuardError, PolicyError
from sg_guardrails.core.policy import Policy, Voting
from sg_guardrails.core.types import Answer, Bound, Embedder, Prompt, Scorer

CONFIDENCE = 0.999
"""Of each statement by itself: one in a thousand certificates may be wrong (Cohen et al. 2019, alpha = 0.001)."""


@dataclass(frozen=True, slots=True)
class Sought:
    """What a caller wants certified, and how surely."""

    copies: int
    """Fresh copies to count."""
    anchor: int
    """Copies that choose the anchor."""
    confidence: float
    """Of each of the two statements."""
    judge_error: float
    """Share of answers that the rules may call safe wrongly."""


def lower_bound(count: int, copies: int, *, confidence: float = CONFIDENCE) -> float:
    """The one-sided Clopper-Pearson bound: the true share is at least this, with the given confidence.

    Raises:
        GuardError: If the count is not one of `copies` trials, or the confidence not inside (0, 1).
    """
    if copies < 1 or not 0 <= count <= copies or not 0 < confidence < 1:
        raise GuardError(f"no bound for {count} of {copies} at confidence {confidence}")
    test = binomtest(count, copies, alternative="greater")
    return float(test.proportion_ci(confidence_level=confidence, method="exact").low)


def bound(
    statement: Literal["answer", "verdict"],
    count: int,
    copies: int,
    *,
    sigma: float,
    values: int,
    confidence: float = CONFIDENCE,
    error: float = 0.0,
) -> Bound:
    """What `count` of `copies` certify: ``radius = sigma * Phi^-1(p)`` where p, the lower bound, is above a half.

    The binary form of randomized smoothing (Cohen, Rosenfeld and Kolter 2019, theorem 1 with p_B = 1 - p): a picture
    within the radius leaves more than half of all noisy copies where they were. Copies that are moved as well
    (``smoothing.image.shift``) change nothing of it: a move orders pixels anew and keeps every distance, so the theorem
    holds for the share p_m of each move m by itself, and p -> Phi(Phi^-1(p) - r / sigma) is convex, so by Jensen's
    inequality it holds for the mean of the p_m too, which is what is counted.

    Args:
        statement: ``answer``: a copy counts where it says what the anchor says; ``verdict``: where it is judged safe.
        count: Copies that count.
        copies: Fresh, independent copies drawn.
        sigma: Of the noise, pixel units.
        values: Pixel values that take noise, all pictures together.
        confidence: Of this statement by itself.
        error: Most probable share of answers that the judge calls safe wrongly; taken off the bound (the oracle view
            of arXiv 2509.16088: the judge is a noisy stand-in for an oracle).
    """
    low = lower_bound(count, copies, confidence=confidence) - error
    radius = sigma * float(norm.ppf(low)) if low > 0.5 else None
    return Bound(
        statement, count, copies, max(low, 0.0), radius, None if radius is None else radius / math.sqrt(values)
    )


def refuse_uncertifiable(prompt: Prompt, policy: Policy, sought: Sought) -> None:
    """Raise where no certificate would be valid, saying what to change. Nothing has been asked by then.

    Raises:
        PolicyError: If the noise is not on pixels, is none at all, the vote's method compares no two answers, or a rule
            reads the picture itself.
        GuardError: If the prompt holds anything but pictures, there are no copies to count, or a share is none.
    """
    image = policy.smoothing.image
    if image.space != "pixel" or not image.sigma > 0:
        raise PolicyError("a certificate needs noise on pixels: set smoothing.image to {space: pixel, sigma: 0.3}, say")
    if policy.voting.method == "kmeans":
        raise PolicyError(
            "a certificate compares each copy with one anchor, which kmeans cannot: set voting.method to sameness"
        )
    if looks_at_pictures(policy):
        raise PolicyError(
            "a rule reads the text in the picture, without noise: what it finds may turn within any radius. "
            "Certify under a policy without `where: picture` and `of: picture`"
        )
    kinds = {type(part).__name__.lower() for part in prompt.media}
    if kinds != {"image"}:
        held = " and ".join(sorted(kinds)) or "no picture"
        raise GuardError(f"a certificate is about pictures alone; this prompt holds {held}")
    if sought.copies < 1 or sought.anchor < 1:
        raise GuardError(
            "a certificate needs copies to choose an anchor and others to count, "
            f"got {sought.anchor} and {sought.copies}"
        )
    if not 0 < sought.confidence < 1:
        raise GuardError(f"confidence is a probability inside (0, 1), got {sought.confidence}")
    if not 0 <= sought.judge_error < 1:
        raise GuardError(f"judge_error is a share of answers in [0, 1), got {sought.judge_error}")


def agreeing(
    anchor: Answer, answers: Sequence[Answer], voting: Voting, *, embed: Embedder, refusal: Scorer
) -> NDArray[np.bool_]:
    """``(N,)``: which answers say what the anchor says. Each is compared with the anchor alone, by one fixed rule.

    No cluster decides: a cluster depends on the other answers, and a count over such dependent trials proves nothing.
    """
    known: dict[tuple[str, ...], bool] = {}
    for answer in answers:
        if (said := vote.wording(answer)) not in known:
            known[said] = vote.agree(anchor, answer, voting, embed=embed, refusal=refusal)
    return np.array([known[vote.wording(answer)] for answer in answers], dtype=np.bool_)
