"""Clips: resampled to the model's rate, noised as waveforms, turned into features; and how to call Whisper."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.signal import resample_poly

from sg_guardrails.core.errors import MediaError
from sg_guardrails.core.media import Audio
from sg_guardrails.core.noise import audio_sigma

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from sg_guardrails.core.policy import AudioNoise
    from sg_guardrails.core.types import Prompt
    from sg_guardrails.models.layouts import Draw
    from sg_guardrails.models.loading import Handle

    Wave = NDArray[np.float32]

FEATURES = "input_features"
_SELF_MADE = ("Both `max_new_tokens`", "Passing `generation_config` together")


def waves(handle: Handle, prompt: Prompt) -> list[Wave]:
    """Every clip of the prompt, ``(T,)`` float32 at the model's sampling rate.

    Raises:
        MediaError: If a clip is longer than the model's window. Whisper goes through longer ones window by window;
            a chat model's feature extractor would cut them off without a word.
    """
    clips = [part for part in prompt.media if isinstance(part, Audio)]
    if not clips:
        return []
    extractor = handle.processor.feature_extractor
    most = getattr(extractor, "n_samples", None)
    heard = [resample(clip, int(extractor.sampling_rate)) for clip in clips]
    longest = max(wave.size for wave in heard) / extractor.sampling_rate
    if most is not None and not handle.transcribes and longest * extractor.sampling_rate > most:
        bound = most / extractor.sampling_rate
        raise MediaError(f"{handle.id} hears clips of at most {bound:g} s, this one has {longest:.1f} s: cut it first")
    return heard


def resample(clip: Audio, rate: int) -> Wave:
    """The clip at another rate (polyphase, anti-aliased), float32."""
    if clip.rate == rate:
        return clip.wave
    shared = math.gcd(clip.rate, rate)
    return np.asarray(resample_poly(clip.wave, rate // shared, clip.rate // shared), dtype=np.float32)


def noisy(wave: Wave, noise: AudioNoise, draw: Draw) -> Wave:
    """The waveform plus Gaussian noise, not clipped (as for pictures: the certificate is about the pure sum)."""
    sigma = audio_sigma(wave, noise)
    return np.asarray(wave + sigma * draw(wave.shape).cpu().numpy(), dtype=np.float32)


def features(handle: Handle, heard: Sequence[Wave]) -> Mapping[str, Tensor]:
    """``input_features`` ``(clips, mels, frames)`` of waveforms, padded to the model's window, on the handle's device.

    For Whisper also the ``attention_mask`` ``(clips, frames)`` by which it knows where a clip ends, and more frames
    than one window for clips that need them.
    """
    extractor = handle.processor.feature_extractor
    long = any(wave.size > getattr(extractor, "n_samples", math.inf) for wave in heard)
    given = extractor(
        list(heard),
        sampling_rate=extractor.sampling_rate,
        return_tensors="pt",
        return_attention_mask=True,
        truncation=False,
        padding="longest" if long else "max_length",
    )
    names = (FEATURES, "attention_mask") if handle.transcribes else (FEATURES,)
    return {name: torch.as_tensor(given[name]).to(handle.device) for name in names}


def transcription(handle: Handle, inputs: Mapping[str, Tensor], max_new_tokens: int) -> dict[str, Any]:
    """How to call Whisper's ``generate``: long clips need timestamps to move its window, English models no task."""
    model = handle.model
    window = int(handle.processor.feature_extractor.nb_max_frames)
    # The decoder's positions also hold up to four control tokens: start, language, task, no-timestamps.
    settings: dict[str, Any] = {"max_new_tokens": min(max_new_tokens, model.config.max_target_positions - 4)}
    if inputs[FEATURES].shape[-1] > window:
        settings["return_timestamps"] = True
    if getattr(model.generation_config, "is_multilingual", False):
        settings["task"] = "transcribe"
    return settings


@contextmanager
def without_self_made_notices() -> Iterator[None]:
    """Drop two warnings that Whisper's ``generate`` draws upon itself: it calls the general one in both spellings."""
    logger = logging.getLogger("transformers.generation.utils")

    def keep(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(_SELF_MADE)

    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)
