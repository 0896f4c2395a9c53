"""From a waveform to Whisper's log-mel features, differentiable: the values of ``WhisperFeatureExtractor``."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from sg_guardrails.core.errors import ModelError
from sg_guardrails.core.media import Audio

LEVELS = 32_768
"""Steps from 0 to 1 in a 16-bit file."""


def wave_of(clip: Audio) -> Tensor:
    """A clip as ``(T,)`` float32 in [-1, 1]."""
    return torch.from_numpy(clip.wave.copy())


def clip_of(wave: Tensor, rate: int) -> Audio:
    """A ``(T,)`` waveform as the clip that a 16-bit WAV of it would be."""
    return Audio(to_16_bit(wave.detach().float().cpu()).numpy(), rate)


def to_16_bit(wave: Tensor) -> Tensor:
    """The waveform as a 16-bit file holds it; the gradient passes straight through the rounding."""
    rounded = (wave * LEVELS).round().clamp(-LEVELS, LEVELS - 1) / LEVELS
    return rounded.detach() + (wave - wave.detach())


def radius_below(wave: NDArray[np.float32], decibels: float) -> float:
    """The Euclidean length of a perturbation whose power lies so many dB below the clip's: eps for the norm ``l2``.

    ``10 log10(|wave|^2 / |delta|^2) = decibels``, over the whole clip.
    """
    return float(np.linalg.norm(wave.astype(np.float64)) * 10 ** (-decibels / 20))


def log_mel(extractor: Any, waves: Tensor) -> Tensor:
    """What the feature extractor makes of waveforms at its own rate.

    Args:
        extractor: A ``WhisperFeatureExtractor`` (Whisper, Qwen2-Audio).
        waves: ``(B, T)`` float32 in [-1, 1]; padded with silence to the extractor's window.

    Returns:
        ``(B, mels, frames)`` float32, within 1e-4 of ``extractor(waves)["input_features"]``.

    Raises:
        ModelError: If the extractor is another one, adds noise of its own, or the clips are longer than its window.
    """
    name = type(extractor).__name__
    if name != "WhisperFeatureExtractor" or extractor.dither:
        raise ModelError(f"no differentiable form of {name} is known; that of WhisperFeatureExtractor, undithered, is")
    if waves.shape[1] > extractor.n_samples:
        raise ModelError(f"a clip of at most {extractor.chunk_length} s can be attacked: cut it first")
    whole = functional.pad(waves, (0, extractor.n_samples - waves.shape[1]), value=extractor.padding_value)
    window = torch.hann_window(extractor.n_fft, device=waves.device)
    spectrum = torch.stft(whole, extractor.n_fft, extractor.hop_length, window=window, return_complex=True)[..., :-1]
    # re^2 + im^2: the gradient of abs() ** 2 is not a number where the padding makes both 0.
    power = spectrum.real.square() + spectrum.imag.square()
    filters = torch.as_tensor(extractor.mel_filters, dtype=torch.float32, device=waves.device)
    levels = (filters.T @ power).clamp_min(1e-10).log10()
    loudest = levels.amax(dim=(1, 2), keepdim=True)
    return (torch.maximum(levels, loudest - 8) + 4) / 4
