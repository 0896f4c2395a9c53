"""Certificates: the bound, the radius, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, norm

from sg_guardrails.core.certify import Sought, agreeing, bound, lower_bound, refuse_uncertifiable
from sg_guardrails.core.errors import GuardError, PolicyError
from sg_guardrails.core.media import Audio, Image
from sg_guardrails.core.policy import Policy, Voting
from sg_guardrails.core.types import Answer, Prompt
from sg_guardrails.testing import fake_embedder, fake_refusal

PICTURE = Image(np.full((4, 4, 3), 0.5, dtype=np.float32))


def test_two_hundred_unanimous_copies_certify_what_the_formula_says() -> None:
    made = bound("answer", 200, 200, sigma=0.3, values=3 * 64 * 64)
    # Unanimous: the Clopper-Pearson bound is alpha^(1/n).
    assert made.share_low == pytest.approx(0.001 ** (1 / 200))
    assert made.radius == pytest.approx(0.3 * norm.ppf(0.001 ** (1 / 200)))
    assert made.radius == pytest.approx(0.55, abs=0.01)
    assert made.linf is not None
    assert made.linf * 255 == pytest.approx(1.3, abs=0.05)


@pytest.mark.parametrize(("share", "copies"), [(0.55, 50), (0.9, 50), (0.97, 200)])
def test_the_bound_is_under_the_truth_as_often_as_it_says(share: float, copies: int) -> None:
    # Exact, not simulated: the chance of every count for which the bound overshoots the true share.
    overshoots = [n for n in range(copies + 1) if lower_bound(n, copies, confidence=0.95) > share]
    assert overshoots
    assert binom.pmf(overshoots, copies, share).sum() <= 0.05


@given(st.integers(1, 300), st.data())
def test_more_agreement_never_certifies_less(copies: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, copies - 1))
    less, more = (bound("answer", n, copies, sigma=0.3, values=48) for n in (count, count + 1))
    assert less.share_low <= more.share_low
    assert (less.radius or 0.0) <= (more.radius or 0.0)
    assert (less.radius is None) == (less.share_low <= 0.5)


@given(st.lists(st.floats(0.3, 0.99), min_size=1, max_size=9), st.integers(20, 400), st.data())
def test_copies_that_are_moved_keep_what_the_radius_promises(
    shares: list[float], copies: int, data: st.DataObject
) -> None:
    # Within each move the share falls by Cohen's theorem; what is counted, and bounded, is the moves' mean.
    count = data.draw(st.integers(0, round(float(np.mean(shares)) * copies)))
    made = bound("answer", count, copies, sigma=0.3, values=48)
    if made.radius is not None:
        assert np.mean(norm.cdf(norm.ppf(shares) - made.radius / 0.3)) >= 0.5 - 1e-9


def test_the_judges_error_is_taken_off() -> None:
    sure = bound("verdict", 100, 100, sigma=0.3, values=48)
    unsure = bound("verdict", 100, 100, sigma=0.3, values=48, error=0.1)
    hopeless = bound("verdict", 100, 100, sigma=0.3, values=48, error=0.6)
    assert unsure.share_low == pytest.approx(sure.share_low - 0.1)
    assert unsure.radius is not None
    assert sure.radius is not None
    assert 0 < unsure.radius < sure.radius
    assert hopeless.radius is None
    assert hopeless.linf is None


@pytest.mark.parametrize(("count", "copies", "confidence"), [(1, 0, 0.9), (-1, 5, 0.9), (6, 5, 0.9), (5, 5, 1.0)])
def test_impossible_counts_are_refused(count: int, copies: int, confidence: float) -> None:
    with pytest.raises(GuardError):
        lower_bound(count, copies, confidence=confidence)


PIXELS = {"smoothing": {"image": {"space": "pixel", "sigma": 0.3}}}
READS = {"id": "sign", "where": "picture", "when": {"words": ["bomb"]}}
ASKED = {"id": "sign", "when": {"all": [{"words": ["bomb"], "of": "picture"}, {"words": ["sure"]}]}}


@pytest.mark.parametrize(
    ("media", "changes", "says"),
    [
        ((PICTURE,), {}, "space: pixel"),
        ((PICTURE,), {"smoothing": {"image": {"space": "pixel", "sigma": 0}}}, "sigma"),
        ((PICTURE,), {**PIXELS, "voting": {"method": "kmeans"}}, "kmeans"),
        ((PICTURE,), {**PIXELS, "rules": [READS]}, "reads the text in the picture"),
        ((PICTURE,), {**PIXELS, "rules": [ASKED]}, "reads the text in the picture"),
        ((), PIXELS, "no picture"),
        ((Audio(np.zeros(160, dtype=np.float32), 16_000),), PIXELS, "audio"),
    ],
)
def test_what_no_certificate_is_valid_for_is_refused(media, changes, says):
    policy = Policy.parse({"name": "p", **changes})
    with pytest.raises((PolicyError, GuardError), match=says):
        refuse_uncertifiable(Prompt.ask("?", *media), policy, Sought(10, 5, 0.99, 0))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"copies": 0}, "anchor"),
        ({"anchor": 0}, "anchor"),
        ({"confidence": 1.0}, "confidence"),
        ({"confidence": 0.0}, "confidence"),
        ({"judge_error": 1.0}, "judge_error"),
        ({"judge_error": -0.1}, "judge_error"),
    ],
)
def test_shares_and_counts_that_are_none_are_refused(changes, says):
    asked = {"copies": 10, "anchor": 5, "confidence": 0.99, "judge_error": 0.0} | changes
    with pytest.raises(GuardError, match=says):
        refuse_uncertifiable(Prompt.ask("?", PICTURE), Policy.parse({"name": "p", **PIXELS}), Sought(**asked))


@pytest.mark.parametrize("method", ["sameness", "cosine"])
def test_each_answer_is_compared_with_the_anchor_alone(method: str) -> None:
    voting = Voting(method=method)  # type: ignore[arg-type] # the parametrised literals
    said = [Answer("The circle is red."), Answer("The circle is blue."), Answer("The circle is red.")]

    def counted(answers: list[Answer]) -> list[bool]:
        held = agreeing(Answer("The circle is red."), answers, voting, embed=fake_embedder, refusal=fake_refusal)
        return [bool(value) for value in held]

    whole = counted(said)
    assert whole == [counted([answer])[0] for answer in said]
    assert whole[0]
    if method == "sameness":
        assert not whole[1]
