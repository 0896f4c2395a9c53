"""Two sigmas in one vote: a copy's own seed says which is its."""

from __future__ import annotations

import numpy as np

from sg_guardrails.core.media import Image
from sg_guardrails.core.noise import Key, copies_of, perturb, scaled
from sg_guardrails.core.policy import ImageNoise, Smoothing
from sg_guardrails.core.types import Copy, Prompt

TWO = Smoothing(copies=40, image=ImageNoise(space="pixel", sigma=0.02, second_sigma=0.1))
GREY = Prompt.ask("What is it?", Image(np.full((32, 32, 3), 0.5, np.float32)))


def level(seed):
    return float((perturb(Copy(GREY, seed), TWO).media[0].pixels - 0.5).std())


def test_each_copy_has_the_noise_that_its_seed_says():
    assert abs(level(4) - 0.02) < 0.002
    assert abs(level(5) - 0.1) < 0.01


def test_about_half_of_the_copies_have_either():
    seeds = [copy.seed for copy in copies_of(GREY, TWO, Key(b"k" * 16)) if copy.seed is not None]
    assert 10 < sum(seed % 2 for seed in seeds) < 30


def test_one_sigma_stays_one():
    one = ImageNoise(sigma=0.3)
    assert one.of(5) is one
    assert TWO.image.of(5) == ImageNoise(space="pixel", sigma=0.1)


def test_both_grow_together():
    louder = scaled(TWO, 1.5, 4).image
    assert (round(louder.sigma, 6), round(louder.second_sigma, 6)) == (0.03, 0.15)
