"""Texts become scores: sentiment, the shipped heads, any text classifier (vectors: embedder)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from vader import SentimentIntensityAnalyzer

from sg_guardrails.core.errors import ModelError
from sg_guardrails.core.forking import Lock
from sg_guardrails.core.policy import EmbedderSection, Policy
from sg_guardrails.core.terms import Classified, parts
from sg_guardrails.core.types import Embedder, Scorer
from sg_guardrails.models import heads
from sg_guardrails.models.checkpoints import MINILM, SAFE, load_checkpoint, token_limit
from sg_guardrails.models.embedder import SentenceEmbedder, load_embedder
from sg_guardrails.models.heads import LinearHead, encodable
from sg_guardrails.models.hub import pick_device

__all__ = [
    "SentenceEmbedder",
    "TextClassifier",
    "classifier",
    "classifiers",
    "hostility",
    "load_embedder",
    "scorers",
    "sentiment",
    "shipped_heads",
]

_PIECE = 2_000
"""Characters that VADER reads at once."""
_WINDOW_OVERLAP = 32
"""Tokens that neighbouring windows of a long text share, so that a phrase at a border is seen whole once."""


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
    shared = section == EmbedderSection(id=MINILM)
    minilm = embedder if shared else load_embedder(EmbedderSection(id=MINILM))
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
        self._lock = Lock(threading.RLock)

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
