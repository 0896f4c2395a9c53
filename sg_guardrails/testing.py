"""Fakes for tests, ours and the user's: a scripted sampler, word-count embeddings, small pictures and clips."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from sg_guardrails.core.media import Audio, Image
from sg_guardrails.core.policy import Smoothing
from sg_guardrails.core.types import Answer, Copy, Scorer

REFUSING = re.compile(r"\b(sorry|cannot|can't|can not|unable|won't|will not|refuse|decline)\b", re.IGNORECASE)
HOSTILE = re.compile(r"\b(kill|hate|attack|destroy|idiot|steal)\w*", re.IGNORECASE)


class FakeSampler:
    """A sampler without a model.

    Args:
        script: A function from a copy to its answer, or answers given out in turn (the last one repeats).
            An exception in the place of an answer is raised.
    """

    def __init__(self, script: Callable[[Copy], Answer | str] | Sequence[Answer | str | Exception] | str) -> None:
        self._script = [script] if isinstance(script, str) else script
        self.asked: list[Copy] = []
        """Every copy asked so far, in order."""
        self.calls: int = 0
        """How often the sampler was called: 1 for a batch, however large."""

    def __call__(self, copies: Sequence[Copy], smoothing: Smoothing) -> list[Answer]:
        """One answer per copy, from the script."""
        del smoothing
        self.calls += 1
        start = len(self.asked)
        self.asked.extend(copies)
        return [self._answer(copy, start + offset) for offset, copy in enumerate(copies)]

    def _answer(self, copy: Copy, position: int) -> Answer:
        if callable(self._script):
            return Answer.parse(self._script(copy))
        given = self._script[min(position, len(self._script) - 1)]
        if isinstance(given, Exception):
            raise given
        return Answer.parse(given)


def fake_embedder(texts: Sequence[str]) -> NDArray[np.float32]:
    """``(N, 256)``: hashed word counts, unit length. Equal words mean equal vectors; there is no sense of synonyms."""
    vectors = np.zeros((len(texts), 256), dtype=np.float32)
    for row, text in enumerate(texts):
        for word in re.findall(r"\w+", text.casefold()) or [""]:
            vectors[row, zlib.crc32(word.encode()) % 256] += 1
    normed: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return normed


def fake_sentiment(texts: Sequence[str]) -> NDArray[np.float32]:
    """``(N,)``: -1 where a hostile word occurs, else 0."""
    return np.array([-1.0 if HOSTILE.search(text) else 0.0 for text in texts], dtype=np.float32)


def fake_refusal(texts: Sequence[str]) -> NDArray[np.float32]:
    """``(N,)``: 1 where a refusing word occurs, else 0."""
    return np.array([1.0 if REFUSING.search(text) else 0.0 for text in texts], dtype=np.float32)


def fake_unsafe_request(texts: Sequence[str]) -> NDArray[np.float32]:
    """``(N,)``: 1 where a hostile word occurs in the request, else 0."""
    return np.array([1.0 if HOSTILE.search(text) else 0.0 for text in texts], dtype=np.float32)


def fake_silence(texts: Sequence[str]) -> NDArray[np.float32]:
    """``(N,)``: 0 for every text, for heads that a test is not about."""
    return np.zeros(len(texts), dtype=np.float32)


def fake_scorers() -> dict[str, Scorer]:
    """The scorers that the shipped policies name, as fakes."""
    hostile = {"unsafe_request": fake_unsafe_request, "hostility": fake_unsafe_request}
    return {"refusal": fake_refusal, **hostile, **dict.fromkeys(("harm", "toxicity", "prompt_injection"), fake_silence)}


def fake_image(color: tuple[float, float, float] = (1.0, 0.0, 0.0), *, size: int = 16) -> Image:
    """A plain picture of one colour, RGB in [0, 1]."""
    return Image(np.broadcast_to(np.array(color, dtype=np.float32), (size, size, 3)))


def fake_audio(hertz: float = 440.0, *, seconds: float = 0.25, rate: int = 16_000) -> Audio:
    """A sine tone at half amplitude."""
    return Audio(np.float32(0.5) * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate), rate)
