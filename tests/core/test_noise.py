"""Noise: its size, where its seed comes from, and that it can be replayed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sg_guardrails import Audio, Copy, GuardError, Image, Key, Message, Prompt, perturb
from sg_guardrails.core import noise
from sg_guardrails.core.policy import AudioNoise, ImageNoise, Smoothing
from sg_guardrails.testing import fake_audio, fake_image

KEY = Key(b"a secret of some length")
GRAY = Image(np.full((64, 64, 3), 0.5, np.float32))


def test_copies_are_the_clean_one_and_n_seeds_that_differ():
    copies = noise.copies_of(Prompt.ask("what?", GRAY), Smoothing(copies=10), KEY)
    assert [copy.seed is None for copy in copies] == [True] + [False] * 10
    assert len({copy.seed for copy in copies}) == 11
    assert len(noise.copies_of(Prompt.ask("what?", GRAY), Smoothing(copies=3, include_clean=False), KEY)) == 3


def test_a_prompt_without_media_has_one_copy():
    assert noise.copies_of(Prompt.ask("what?"), Smoothing(copies=10), KEY) == [Copy(Prompt.ask("what?"))]


def test_seeds_follow_from_key_and_request_alone():
    prompt, other = Prompt.ask("what?", GRAY), Prompt.ask("what!", GRAY)
    seeds = [copy.seed for copy in noise.copies_of(prompt, Smoothing(), KEY)]
    assert seeds == [copy.seed for copy in noise.copies_of(Prompt.ask("what?", GRAY), Smoothing(), KEY)]
    assert not set(seeds[1:]) & {copy.seed for copy in noise.copies_of(other, Smoothing(), KEY)}
    assert not set(seeds[1:]) & {
        copy.seed for copy in noise.copies_of(prompt, Smoothing(), Key(b"another secret of length"))
    }
    assert all(0 <= seed < 2**63 for seed in seeds[1:])


def test_a_key_may_be_any_bytes(monkeypatch):
    monkeypatch.setattr(noise.os, "environ", {noise.KEY_VARIABLE: b"\xff".decode("utf-8", "surrogateescape") * 16})
    assert noise.process_key() == Key(b"\xff" * 16)


def test_the_key_comes_from_the_environment_else_is_random(monkeypatch):
    monkeypatch.setenv(noise.KEY_VARIABLE, "x" * 16)
    assert noise.process_key() == Key(b"x" * 16)
    monkeypatch.setenv(noise.KEY_VARIABLE, "short")
    with pytest.raises(GuardError, match="16 bytes"):
        noise.process_key()
    monkeypatch.delenv(noise.KEY_VARIABLE)
    assert noise.process_key() is noise.process_key()
    assert len(bytes.fromhex(noise.process_key().secret.decode())) == 32


def test_neither_key_nor_seed_shows():
    assert "secret" not in repr(KEY).replace("secret=", "")
    prompt = Prompt.ask("what?", GRAY)
    shown = noise.seed_id(prompt, KEY) + repr(KEY)
    assert KEY.secret.hex() not in shown
    assert all(str(copy.seed) not in shown for copy in noise.copies_of(prompt, Smoothing(), KEY)[1:])
    assert noise.seed_id(prompt, KEY) == noise.seed_id(Prompt.ask("what?", GRAY), KEY)


@pytest.mark.parametrize(("space", "sigma", "pixels"), [("pixel", 0.05, 0.05), ("model", 0.1, 0.027)])
def test_image_noise_has_its_sigma(space, sigma, pixels):
    smoothing = Smoothing(image=ImageNoise(space=space, sigma=sigma))
    noisy = perturb(Copy(Prompt.ask("what?", GRAY), 7), smoothing).media[0]
    assert float((noisy.pixels - GRAY.pixels).std()) == pytest.approx(pixels, rel=0.03)
    assert abs(float((noisy.pixels - GRAY.pixels).mean())) < 0.001


def test_the_same_seed_gives_the_same_noise_and_each_medium_its_own():
    prompt = Prompt((Message("user", (GRAY, "and", GRAY, fake_audio())),))
    first, again = (perturb(Copy(prompt, 5), Smoothing()).media for _ in range(2))
    assert [item.digest for item in first] == [item.digest for item in again]
    assert first[0].digest != first[1].digest
    assert perturb(Copy(prompt, 6), Smoothing()).media[0].digest != first[0].digest


def test_a_clean_copy_and_its_text_stay_as_they_are():
    prompt = Prompt((Message("system", ("be kind",)), Message("user", (GRAY, "what?"))))
    assert perturb(Copy(prompt), Smoothing()) is prompt
    noisy = perturb(Copy(prompt, 1), Smoothing())
    assert noisy.messages[0] == prompt.messages[0]
    assert noisy.messages[1].parts[1] == "what?"


def test_values_stay_in_range():
    noisy = perturb(
        Copy(Prompt.ask("?", fake_image(), fake_audio()), 3),
        Smoothing(image=ImageNoise(space="pixel", sigma=2), audio=AudioNoise(sigma=1)),
    )
    assert 0 <= noisy.media[0].pixels.min() <= noisy.media[0].pixels.max() <= 1
    assert np.abs(noisy.media[1].wave).max() <= 1


def test_large_pictures_are_fitted_before_the_noise():
    wide = Image(np.full((100, 400, 3), 0.5, np.float32))
    noisy = perturb(
        Copy(Prompt.ask("?", wide), 1), Smoothing(image=ImageNoise(space="pixel", sigma=0.1)), long_side=200
    ).media[0]
    assert noisy.pixels.shape == (50, 200, 3)
    assert float(noisy.pixels.std()) == pytest.approx(0.1, rel=0.05)


@given(st.floats(-10, 60))
def test_audio_sigma_gives_the_asked_signal_to_noise_ratio(snr):
    wave = fake_audio(seconds=0.1).wave
    sigma = noise.audio_sigma(wave, AudioNoise(snr_db=snr))
    assert 20 * np.log10(np.sqrt(np.mean(wave**2)) / sigma) == pytest.approx(snr, abs=0.1)


def test_silence_around_a_clip_does_not_dilute_its_noise():
    wave = fake_audio(seconds=1).wave
    padded = np.concatenate([np.zeros(160_000, np.float32), wave, np.zeros(160_000, np.float32)])
    alone = noise.audio_sigma(wave, AudioNoise(snr_db=20))
    assert noise.audio_sigma(padded, AudioNoise(snr_db=20)) == pytest.approx(alone, rel=0.02)


def test_audio_sigma_and_silence():
    assert noise.audio_sigma(np.zeros(10, np.float32), AudioNoise(snr_db=20)) == noise.QUIETEST
    assert noise.audio_sigma(np.zeros(10, np.float32), AudioNoise(sigma=0.02)) == 0.02
    quiet = noise.noisy_audio(Audio(np.zeros(16_000), 16_000), AudioNoise(sigma=0.02), np.random.default_rng(0))
    assert float(quiet.wave.std()) == pytest.approx(0.02, rel=0.03)
