"""Packing many exchanges into a row must not change what any of them sees."""

from __future__ import annotations

import random

import pytest
import torch

pytest.importorskip("easy_vqa", reason="the training code imports the easy-vqa package")

from training.shapes import card
from training.shapes.language import Reader, Stage
from training.shapes.model import IMAGE_TOKENS, build_model, build_tokenizer, encoder, normalise
from training.shapes.probe import Figure, figure, wilson
from training.shapes.rows import IGNORED, Mix, Packer, corpus
from training.shapes.scenes import draw

STAGE = Stage("test", steps=1, rate=1e-3, floor=0.1, faint=True, seed=0, match=0.5)


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(corpus(800, seed=1))


@pytest.fixture(scope="module")
def reader(tokenizer):
    torch.manual_seed(0)
    model = build_model(tokenizer).eval()
    model.set_attn_implementation({"text_config": "eager"})
    return Reader(model)


def packer(tokenizer, **mix: float) -> Packer:
    return Packer(draw(20, random.Random(0)), encoder(tokenizer), seed=4, faint=True, mix=Mix(**mix))


@torch.no_grad()
def test_an_exchange_in_a_row_equals_the_exchange_alone(tokenizer, reader) -> None:
    batch = packer(tokenizer, blind=0.3).batch(2)
    packed = reader.model.model(
        input_ids=batch.ids,
        pixel_values=normalise(batch.pictures),
        attention_mask=torch.where(batch.mask, 0.0, -1e9),
        position_ids=batch.positions,
    ).last_hidden_state
    checked = set()
    for row in range(2):
        for end in (batch.labels[row] == tokenizer.eos_token_id).nonzero()[:, 0].tolist():
            seen = batch.mask[row, 0, end].nonzero()[:, 0]
            ids = batch.ids[row, seen][None]
            assert batch.positions[row, seen].tolist() == list(range(len(seen)))
            pictures = int((ids == 3).sum()) // IMAGE_TOKENS
            media = {"pixel_values": normalise(batch.pictures[row : row + 1])} if pictures else {}
            alone = reader.model.model(input_ids=ids, **media).last_hidden_state
            assert torch.allclose(alone[0, -1], packed[row, end], atol=1e-4)
            checked.add(pictures)
    assert checked == {0, 1}


def test_rows_hold_two_pictures_and_stay_in_bounds(tokenizer) -> None:
    batch = packer(tokenizer).batch(3, 2)
    assert batch.pictures.shape == (6, 3, 64, 64)
    assert batch.ids.shape == (3, 256)
    assert ((batch.ids == 3).sum(1) == 2 * IMAGE_TOKENS).all()
    assert (batch.first & (batch.labels == IGNORED)).sum() == 0


def test_a_step_of_training_moves_every_part(tokenizer, reader) -> None:
    loss = reader.loss(packer(tokenizer).batch(2), STAGE)
    loss.backward()
    without = [name for name, p in reader.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    # CLIP's last norm and class token serve the pooled output and the other patches of a deeper tower only.
    assert not [name for name in without if "post_layernorm" not in name]
    reader.zero_grad()


def test_same_seed_same_rows(tokenizer) -> None:
    one, two = (packer(tokenizer).batch(2) for _ in range(2))
    assert torch.equal(one.ids, two.ids)
    assert torch.equal(one.pictures, two.pictures)


def test_wilson_interval_matches_the_textbook() -> None:
    low, high = wilson(32, 32)
    assert (round(low, 3), high) == (0.893, 1.0)
    low, high = wilson(5, 10)
    assert (round(low, 3), round(high, 3)) == (0.237, 0.763)


def test_card_keeps_its_text_and_takes_the_figures() -> None:
    verdicts = [True] * 9 + [False]
    sections = ("vqa", "refusal", "badge")
    figures: dict[str, Figure] = {f"{s} / all / {sigma}": figure(verdicts) for s in sections for sigma in (0.0, 0.1)}
    figures |= {"override / seen": figure(verdicts), "tool call / seen": figure(verdicts)}
    text = card.text(card.tables(figures))
    assert text.count(card.START) == text.count(card.END) == 1
    assert "| all | 10 | 0.900 (0.60-0.98) | 0.900 (0.60-0.98) |" in text
    assert "It protects nothing in production" in text
