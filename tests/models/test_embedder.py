"""One pass for all threads that wait (vectors themselves, and the shipped checkpoint: test_text.py)."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from sg_guardrails.core.policy import EmbedderSection
from sg_guardrails.models.embedder import SentenceEmbedder


class Held(SentenceEmbedder):
    """Encodes lengths; holds each pass until it is let go, and breaks on "broken"."""

    def __init__(self) -> None:
        super().__init__(EmbedderSection(), device="cpu", remember=0)
        self.passes: list[list[str]] = []
        self.entered, self.go = threading.Semaphore(0), threading.Semaphore(0)
        self._encode = self.encode

    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        self.passes.append(texts)
        self.entered.release()
        assert self.go.acquire(timeout=60)
        if "broken" in texts:
            raise ValueError("a broken one")
        return np.array([[len(text), 1] for text in texts], np.float32)


def test_what_threads_want_while_one_encodes_is_the_next_pass_and_a_bad_text_sinks_no_other() -> None:
    held = Held()
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(held, ["a"])
        assert held.entered.acquire(timeout=60)
        queued = threading.Semaphore(0)

        class Announced(list):
            def append(self, one: object) -> None:
                super().append(one)
                queued.release()

        held._queue = Announced()
        others = [pool.submit(held, texts) for texts in (["bb", "ccc"], ["ccc", "bb"])]
        bad = pool.submit(held, ["broken"])
        for _ in range(3):
            assert queued.acquire(timeout=60)
        held.go.release(9)
        assert first.result(60).tolist() == [[1, 1]]
        assert others[0].result(60).tolist() == [[2, 1], [3, 1]]
        assert others[1].result(60).tolist() == [[3, 1], [2, 1]]
        with pytest.raises(ValueError, match="broken"):
            bad.result(60)
    assert held.passes[0] == ["a"]
    assert sorted(held.passes[1]) == ["bb", "broken", "ccc"], "all that waited, each text once"


def test_what_is_remembered_is_not_encoded_again_and_no_more_is_kept_than_was_said() -> None:
    passes: list[list[str]] = []

    def encode(texts: list[str]) -> NDArray[np.float32]:
        passes.append(texts)
        return np.array([[len(text), 1] for text in texts], np.float32)

    embed = SentenceEmbedder(EmbedderSection(), device="cpu", remember=2)
    embed._encode = encode
    for texts in (["a", "bb"], ["bb", "a", "a"], ["ccc"], ["bb"], ["a"]):
        assert embed(texts)[:, 0].tolist() == [len(text) for text in texts]
    assert passes == [["a", "bb"], ["ccc"], ["bb"], ["a"]]
