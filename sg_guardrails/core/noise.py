"""Gaussian noise: which copies are asked, from which seed, and how pixels and waveforms are perturbed."""

from __future__ import annotations

import hashlib
import hmac
import math
import os
import secrets
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image as pillow

from sg_guardrails.core.errors import GuardError
from sg_guardrails.core.media import Audio, Image
from sg_guardrails.core.policy import AudioNoise, ImageNoise, Smoothing
from sg_guardrails.core.types import Copy, Message, Part, Prompt

KEY_VARIABLE = "SG_GUARDRAILS_KEY"
STRETCH = 320
"""Samples of one stretch whose level is taken."""
QUIETEST = 1e-4
"""Least sigma on samples: eleven copies of silence that are all alike would be a vote of one."""
USUAL_STD = 0.27
"""Mean of the usual per-channel std of image processors (CLIP, SigLIP 0.5, ImageNet 0.23): turns the paper's model
unit into pixels where no processor is at hand. 0.1 there is about 0.027 in pixel units."""


@dataclass(frozen=True, slots=True)
class Key:
    """The secret from which all seeds derive: without it nobody can foresee the noise."""

    secret: bytes = field(repr=False)
    """At least 16 bytes."""

    def __post_init__(self) -> None:
        if len(self.secret) < 16:
            raise GuardError(f"the noise key has fewer than 16 bytes; set {KEY_VARIABLE} to a long random text")

    @property
    def id(self) -> str:
        """8 hex digits that name the key in records and reveal nothing of it."""
        return hmac.digest(self.secret, b"sg_guardrails key id", "sha256").hex()[:8]

    def seed(self, digest: str, index: int) -> int:
        """The seed of a request's copy `index`, in [0, 2**63): the same request gets the same noise."""
        return int.from_bytes(hmac.digest(self.secret, f"{digest}/{index}".encode(), "sha256")[:8]) >> 1


def process_key() -> Key:
    """The key of the environment variable SG_GUARDRAILS_KEY, else one that is random per process.

    Raises:
        GuardError: If the variable is set to fewer than 16 bytes.
    """
    given = os.environ.get(KEY_VARIABLE)
    return Key(os.fsencode(given)) if given else _random_key()


@cache
def _random_key() -> Key:
    # Printable, so that a worker's process can be given it as the variable.
    return Key(secrets.token_hex(32).encode())


def copies_of(prompt: Prompt, smoothing: Smoothing, key: Key, *, first: int = 0) -> list[Copy]:
    """The copies to ask: the clean one first where the policy includes it. A prompt without media has one.

    Args:
        prompt: What is asked.
        smoothing: How many.
        key: Seeds them.
        first: Index of the first perturbed copy; those of another index have noise of their own.
    """
    if not prompt.media:
        return [Copy(prompt)]
    digest = prompt.digest
    noisy = [Copy(prompt, key.seed(digest, first + index)) for index in range(smoothing.copies)]
    return [Copy(prompt), *noisy] if smoothing.include_clean else noisy


def scaled(smoothing: Smoothing, scale: float, copies: int) -> Smoothing:
    """The same noise `scale` times as strong, on another number of copies; a ratio falls by ``20 log10(scale)`` dB."""
    image, audio = smoothing.image, smoothing.audio
    louder = (
        {"snr_db": audio.snr_db - 20 * math.log10(scale)}
        if audio.snr_db is not None
        else {"sigma": (audio.sigma or 0.0) * scale}
    )
    return smoothing.model_copy(
        update={
            "copies": copies,
            "image": image.model_copy(
                update={
                    "sigma": image.sigma * scale,
                    "second_sigma": None if image.second_sigma is None else image.second_sigma * scale,
                }
            ),
            "audio": audio.model_copy(update=louder),
            "adaptive": None,
        }
    )


def perturb(copy: Copy, smoothing: Smoothing, *, long_side: int | None = None) -> Prompt:
    """The copy's prompt with noise on its pixels and samples, for models that are reached through encoded media.

    A local model takes its noise on the processed tensor instead (``models``). Here noise comes before encoding,
    so values are clipped to their range, as an 8-bit file would.

    Args:
        copy: Its seed alone decides the noise; a clean copy comes back as it is.
        smoothing: Sigma on pixels; ``space: model`` is taken as ``USUAL_STD`` times as much.
        long_side: The model's input size, pixels. Larger pictures are fitted to it first, since a later downscale
            would average the noise away.
    """
    if copy.seed is None:
        return copy.prompt
    noisy: list[Message] = []
    position = 0
    for message in copy.prompt.messages:
        parts: list[Part] = []
        for part in message.parts:
            if isinstance(part, Image):
                noise = smoothing.image.of(copy.seed)
                parts.append(noisy_image(part, noise, _rng(copy.seed, position), long_side=long_side))
            elif isinstance(part, Audio):
                parts.append(noisy_audio(part, smoothing.audio, _rng(copy.seed, position)))
            else:
                parts.append(part)
                continue
            position += 1
        noisy.append(Message(message.role, tuple(parts)))
    return Prompt(tuple(noisy))


def noisy_image(image: Image, noise: ImageNoise, rng: np.random.Generator, *, long_side: int | None = None) -> Image:
    """`image`, moved by its noise's shift, plus N(0, sigma^2) on each value, clipped to [0, 1].

    It is fitted to `long_side` pixels first.
    """
    pixels = image.pixels
    height, width = pixels.shape[:2]
    if long_side is not None and max(height, width) > long_side:
        scale = long_side / max(height, width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        resized = image.to_pil().resize(size, pillow.Resampling.BICUBIC)
        pixels = np.asarray(resized, dtype=np.float32) / np.float32(255)
    if noise.shift:
        shares = rng.uniform(-noise.shift, noise.shift, 2)
        rows, columns = (round(share * size) for share, size in zip(shares, pixels.shape, strict=False))
        pixels = np.roll(pixels, (rows, columns), axis=(0, 1))
    sigma = noise.sigma * (1.0 if noise.space == "pixel" else USUAL_STD)
    return Image(np.clip(pixels + sigma * rng.standard_normal(pixels.shape, dtype=np.float32), 0, 1))


def noisy_audio(audio: Audio, noise: AudioNoise, rng: np.random.Generator) -> Audio:
    """`audio` plus N(0, sigma^2) on each sample, clipped to [-1, 1]."""
    sigma = audio_sigma(audio.wave, noise)
    return Audio(audio.wave + sigma * rng.standard_normal(audio.wave.shape, dtype=np.float32), audio.rate)


def audio_sigma(wave: NDArray[np.float32], noise: AudioNoise) -> float:
    """Sigma for samples in [-1, 1]: the policy's own, or level * 10^(-snr_db / 20).

    The level is the root mean square of the clip's active part (stretches of 320 samples, 20 ms at 16 kHz, within
    20 dB of the loudest), so that silence added to a clip can't dilute its noise; a silent clip gets `QUIETEST`.
    """
    if noise.sigma is not None:
        return noise.sigma
    assert noise.snr_db is not None  # noqa: S101 - the policy holds exactly one of the two
    stretches = np.array_split(np.square(wave, dtype=np.float64), max(1, wave.size // STRETCH))
    powers = np.array([part.mean() for part in stretches])
    level = float(np.sqrt(powers[powers >= powers.max() * 0.01].mean()))
    return max(level * 10 ** (-noise.snr_db / 20), QUIETEST)


def seed_id(prompt: Prompt, key: Key) -> str:
    """Names the noise of a request, ``key/request``: with the key it can be replayed, without it nothing follows."""
    return f"{key.id}/{hashlib.sha256(prompt.digest.encode()).hexdigest()[:12]}"


def _rng(seed: int, position: int) -> np.random.Generator:
    return np.random.default_rng((seed, position))
