"""Sentence vectors kept in a file, so that a second run over the same texts embeds nothing again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sg_guardrails.core.types import Embedder


class Kept:
    """An Embedder that keeps what it has embedded; `save` writes it, texts as digests only.

    Args:
        embedder: Who embeds what is new.
        path: The file (.npz), read where it exists; None keeps the vectors in memory alone.
    """

    def __init__(self, embedder: Embedder, path: Path | None = None) -> None:
        self._embedder = embedder
        self._path = path
        self._known: dict[bytes, NDArray[np.float32]] = {}
        if path is not None and path.is_file():
            with np.load(path, allow_pickle=False) as arrays:
                keys = arrays["digests"]
                self._known = {keys[at].tobytes(): row for at, row in enumerate(arrays["vectors"])}

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """``(N, D)`` float32, as the embedder gives them."""
        keys = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts]
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._known}
        if new or not keys:
            made = self._embedder(list(new.values()))
            if not keys:
                return made
            self._known.update(zip(new, made, strict=True))
        return np.stack([self._known[key] for key in keys])

    def save(self) -> None:
        """Write the vectors, if a path was given."""
        if self._path is not None and self._known:
            digests = np.stack([np.frombuffer(key, np.uint8) for key in self._known])
            np.savez(self._path, digests=digests, vectors=np.stack(list(self._known.values())))
