"""Copies that see the picture moved: pixels in another order, by the copy's own seed, where the policy says so."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sg_guardrails.core.media import Image
from sg_guardrails.core.noise import Key, copies_of, perturb, scaled
from sg_guardrails.core.policy import ImageNoise, Smoothing
from sg_guardrails.core.types import Copy, Prompt

PICTURE = Image(np.random.default_rng(0).random((20, 40, 3), dtype=np.float32))
PROMPT = Prompt.ask("What is it?", PICTURE)


def moved(seed: int | None, shift: float) -> np.ndarray:
    """What a copy sees without noise."""
    how = Smoothing(image=ImageNoise(space="pixel", sigma=0, shift=shift))
    return perturb(Copy(PROMPT, seed), how).media[0].pixels


def offset(pixels: np.ndarray) -> tuple[int, int]:
    """The one move that explains the pixels, each way at most half of the sides."""
    height, width = pixels.shape[:2]
    found = [
        (rows, columns)
        for rows in range(-height // 2 + 1, height // 2 + 1)
        for columns in range(-width // 2 + 1, width // 2 + 1)
        if np.array_equal(np.roll(PICTURE.pixels, (rows, columns), axis=(0, 1)), pixels)
    ]
    (only,) = found
    return only


@given(seed=st.integers(0, 2**63 - 1), shift=st.floats(0.05, 0.45))
def test_a_copy_is_the_picture_moved_within_the_policys_share(seed, shift):
    rows, columns = offset(moved(seed, shift))
    assert abs(rows) <= round(shift * 20)
    assert abs(columns) <= round(shift * 40)


def test_copies_are_moved_each_in_its_own_way_and_all_the_ways_there_are():
    smoothing = Smoothing(copies=60, include_clean=False)
    seeds = [copy.seed for copy in copies_of(PROMPT, smoothing, Key(b"k" * 16))]
    offsets = [offset(moved(seed, 0.25)) for seed in seeds]
    assert {rows for rows, _ in offsets} == set(range(-5, 6))
    assert min(columns for _, columns in offsets) < -7
    assert max(columns for _, columns in offsets) > 7


def test_a_clean_copy_is_not_moved_and_none_is_without_a_shift():
    assert np.array_equal(moved(None, 0.3), PICTURE.pixels)
    assert np.array_equal(moved(3, 0.0), PICTURE.pixels)


def test_more_noise_moves_no_further():
    louder = scaled(Smoothing(image=ImageNoise(sigma=0.2, shift=0.1)), 2.0, 4)
    assert (louder.image.sigma, louder.image.shift) == (0.4, 0.1)


def test_both_sigmas_are_moved():
    two = ImageNoise(sigma=0.1, second_sigma=0.2, shift=0.1)
    assert (two.of(0).shift, two.of(1).shift) == (0.1, 0.1)


def test_a_picture_moved_by_more_than_half_is_refused():
    with pytest.raises(ValidationError, match=r"less than or equal to 0\.5"):
        ImageNoise(shift=0.6)
