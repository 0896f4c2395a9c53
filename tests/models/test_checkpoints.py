"""Checkpoints: a pinned revision is the one that is read, and nothing stands in for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from sg_guardrails.core.errors import ModelError
from sg_guardrails.core.policy import EmbedderSection
from sg_guardrails.models import checkpoints
from sg_guardrails.models.text import SentenceEmbedder
from tests.models import tiny


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache with two commits of one embedder, as the hub's client lays it out, and no network."""
    repo = tmp_path / "models--org--embedder"
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    for seed, tag in enumerate(("v1", "v2")):
        folder = repo / "snapshots" / (str(seed) * 40)
        torch.manual_seed(seed)
        tokenizer = tiny.tokenizer(["red", "blue"])
        tokenizer.save_pretrained(folder)
        BertModel(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder)
        (repo / "refs").mkdir(exist_ok=True)
        (repo / "refs" / tag).write_text(str(seed) * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path


@pytest.mark.parametrize("pooling", ["mean_all", "model"])
def test_an_embedder_is_the_revision_that_the_policy_pins(hub: Path, pooling: str) -> None:
    first, second, again = (
        SentenceEmbedder(
            EmbedderSection.model_validate({"id": "org/embedder", "revision": tag, "pooling": pooling}), device="cpu"
        )(["red", "blue"])
        for tag in ("v1", "v2", "v1")
    )
    assert first.shape == (2, 16)
    assert not np.allclose(first, second)
    assert np.array_equal(first, again)


def test_a_pinned_minilm_is_the_hubs_and_never_the_packages(hub: Path) -> None:
    pinned = EmbedderSection(id=checkpoints.MINILM, revision="v9")
    with pytest.raises(ModelError, match="embedder"):
        SentenceEmbedder(pinned, device="cpu")(["red"])


def test_a_folder_has_no_revision(tmp_path: Path) -> None:
    def build(source: str, local: bool) -> str:
        return source

    assert checkpoints.load_checkpoint(str(tmp_path), "embedder", build) == str(tmp_path)
    with pytest.raises(ModelError, match="has no revision"):
        checkpoints.load_checkpoint(str(tmp_path), "embedder", build, revision="v1")
