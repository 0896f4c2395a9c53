"""Text in pictures, read by RapidOCR (PP-OCR in ONNX, no torch): the extra ``ocr``."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from sg_guardrails.core.errors import ModelError, PolicyError
from sg_guardrails.core.forking import Lock
from sg_guardrails.core.media import Image

PACKAGE = "rapidocr_onnxruntime"
_LEAST_SIDE = 32
"""Pixels: the reader's detector divides its input by 32; smaller pictures are laid on white."""


class PictureReader:
    """Says what stands in pictures. Loads on first use (or at `warm_up`); one thread at a time reads.

    Raises:
        PolicyError: If the package is not installed: a policy that reads pictures must not start without it.
    """

    def __init__(self) -> None:
        if importlib.util.find_spec(PACKAGE) is None:
            raise PolicyError("a rule reads the text in pictures: pip install 'sg-guardrails[ocr]'")
        self._read: Callable[[Any], Any] | None = None
        self._lock = Lock()

    def warm_up(self) -> None:
        """Load now. Raises ModelError as a call would."""
        with self._lock:
            self._loaded()

    def __call__(self, images: Sequence[Image]) -> list[str]:
        """What each picture says, its lines from the top; empty where nothing is read.

        Raises:
            ModelError: If the reader cannot be loaded.
        """
        with self._lock:
            read = self._loaded()
            return [_lines(read(_for_reader(image))[0]) for image in images]

    def _loaded(self) -> Callable[[Any], Any]:
        if self._read is None:
            self._read = _load()
        return self._read


@lru_cache(maxsize=1)
def _load() -> Callable[[Any], Any]:
    try:
        from rapidocr_onnxruntime import RapidOCR  # noqa: PLC0415 - an extra that takes a second to load

        # One thread: more of them fight with torch's own, and a service answers several requests at once anyway.
        reader: Callable[[Any], Any] = RapidOCR(intra_op_num_threads=1, inter_op_num_threads=1)
    except Exception as error:  # onnxruntime, OpenCV and the models each fail in ways of their own
        raise ModelError(
            f"the reader of text in pictures cannot be loaded ({type(error).__name__}): {error}"
        ) from error
    return reader


def _for_reader(image: Image) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """``(H, W, 3)`` uint8 in OpenCV's order, blue first."""
    pixels = np.rint(image.pixels * 255).astype(np.uint8)[:, :, ::-1]
    grow = [(0, max(_LEAST_SIDE - side, 0)) for side in pixels.shape[:2]]
    return np.ascontiguousarray(np.pad(pixels, [*grow, (0, 0)], constant_values=255))


def _lines(found: Any) -> str:
    return "\n".join(str(text) for _box, text, _score in found or ())
