"""Our log-mel against Whisper's extractor on real clips; its gradients against finite differences; 16-bit files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import WhisperFeatureExtractor

from sg_guardrails.attacks.logmel import clip_of, log_mel, radius_below, to_16_bit, wave_of
from sg_guardrails.core.errors import ModelError
from sg_guardrails.core.media import Audio

DASHWOOD = Path(__file__).resolve().parents[1] / "assets" / "dashwood.flac"
EXTRACTORS = {
    "whisper": WhisperFeatureExtractor(),
    "large-v3, qwen2-audio": WhisperFeatureExtractor(feature_size=128),
    "short": WhisperFeatureExtractor(feature_size=16, chunk_length=8),
}


def assert_equal_to_extractor(extractor: WhisperFeatureExtractor, clip: Audio) -> None:
    expected = extractor(clip.wave, sampling_rate=clip.rate, return_tensors="pt")["input_features"]
    ours = log_mel(extractor, wave_of(clip)[None])
    assert ours.shape == expected.shape
    assert float((ours - expected).abs().max()) < 1e-4


@pytest.mark.parametrize("kind", EXTRACTORS)
def test_features_are_the_extractors_own_on_real_speech(kind):
    assert_equal_to_extractor(EXTRACTORS[kind], Audio.open(DASHWOOD))


@pytest.mark.parametrize("kind", EXTRACTORS)
def test_features_are_the_extractors_own_on_clips_with_edges(kind):
    """Silence, one full-scale click, and a clip that fills the window to the last sample."""
    extractor = EXTRACTORS[kind]
    click = np.zeros(3_000, dtype=np.float32)
    click[1_500] = -1
    long = np.random.default_rng(0).uniform(-1, 1, extractor.n_samples).astype(np.float32)
    for wave in (np.zeros(777, dtype=np.float32), click, long):
        assert_equal_to_extractor(extractor, Audio(wave))


def test_features_are_the_extractors_own_on_every_shared_clip(shared):
    clips = sorted((shared / "data" / "speech").glob("*.wav"))
    assert len(clips) >= 6
    for path in clips:
        assert_equal_to_extractor(EXTRACTORS["whisper"], Audio.open(path))


@pytest.mark.parametrize("kind", EXTRACTORS)
def test_gradients_match_finite_differences(kind):
    extractor = EXTRACTORS[kind]
    wave = wave_of(Audio.open(DASHWOOD))[16_000:32_000]
    generator = torch.Generator().manual_seed(0)
    # Some sound everywhere in the clip, so that no band lies exactly on the floor of 1e-10 or at the cut of 80 dB.
    wave = wave + 0.01 * torch.randn(wave.shape, generator=generator)
    weight = torch.randn((extractor.feature_size, extractor.nb_max_frames), generator=generator)
    weight[:, 100:] = 0  # behind the clip's second all is padding

    def value(at: torch.Tensor) -> torch.Tensor:
        return (weight * log_mel(extractor, at[None])[0]).double().sum()

    leaf = wave.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(leaf), leaf)
    assert float(gradient.abs().max()) > 0
    direction = torch.sign(gradient)  # a random one would sum to next to nothing over 16,000 samples
    h = 1e-5
    numeric = float(value(wave + h * direction) - value(wave - h * direction)) / (2 * h)
    assert numeric == pytest.approx(float((gradient * direction).sum()), rel=1e-2)


def test_gradients_are_finite_where_there_is_silence():
    wave = torch.zeros((1, 4_000), requires_grad=True)
    (gradient,) = torch.autograd.grad(log_mel(EXTRACTORS["whisper"], wave).sum(), wave)
    assert bool(torch.isfinite(gradient).all())


def test_a_clip_of_a_tensor_is_what_its_wav_holds():
    wave = 1.2 * (2 * torch.rand(5_000, generator=torch.Generator().manual_seed(0)) - 1)
    wave = wave.clamp(-1, 1)
    saved = clip_of(wave, 16_000)
    assert np.array_equal(Audio.from_bytes(saved.to_wav()).wave, saved.wave)
    assert float((wave_of(saved) - wave).abs().max()) <= 1 / 32_768
    assert float((wave_of(saved) - wave).abs().mean()) < 0.3 / 32_768  # rounded, not cut off


def test_gradients_pass_straight_through_the_rounding():
    wave = torch.tensor([0.1, -0.3, 0.99999], requires_grad=True)
    (gradient,) = torch.autograd.grad((to_16_bit(wave) * torch.tensor([1.0, 2.0, 3.0])).sum(), wave)
    assert gradient.tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("decibels", [0, 20, 40])
def test_the_radius_is_a_ratio_of_powers(decibels):
    wave = Audio.open(DASHWOOD).wave
    radius = radius_below(wave, decibels)
    delta = np.random.default_rng(1).standard_normal(wave.size)
    delta *= radius / np.linalg.norm(delta)
    measured = 10 * np.log10(np.square(wave, dtype=np.float64).mean() / np.square(delta).mean())
    assert measured == pytest.approx(decibels, abs=1e-6)


def test_what_has_no_differentiable_form_is_refused():
    class OtherFeatureExtractor:
        dither = 0.0

    wave = torch.zeros((1, 100))
    with pytest.raises(ModelError, match="OtherFeatureExtractor"):
        log_mel(OtherFeatureExtractor(), wave)
    with pytest.raises(ModelError, match="undithered"):
        log_mel(WhisperFeatureExtractor(dither=1e-4), wave)
    with pytest.raises(ModelError, match="at most 8 s"):
        log_mel(EXTRACTORS["short"], torch.zeros((1, 8 * 16_000 + 1)))
