"""Stages 2 and 3: teaches the language model to answer from what the tower sees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import LlavaForConditionalGeneration

from training.shapes.model import TEXT_WIDTH, normalise
from training.shapes.rows import IGNORED, Batch, Mix, Packer
from training.shapes.scenes import BADGES, COLOR_NAMES, SHAPES
from training.shapes.schedule import Clock, cosine, optimiser


@dataclass(frozen=True, slots=True)
class Stage:
    """How one stage of the language model is trained."""

    name: str
    steps: int
    rate: float
    """Learning rate after warm-up."""
    floor: float
    """Its share left at the end of the cosine."""
    faint: bool
    """Badges of all contrasts instead of full contrast only."""
    seed: int
    mix: Mix = field(default_factory=Mix)
    tower_rate: float = 0.2
    """The tower's learning rate relative to the language model's."""
    first_weight: float = 3.0
    """Weight of an answer's first token, on which yes or no, refusal or compliance hang."""
    hint: float = 0.2
    """Weight of the heads on the first layer."""
    horizon: int = 0
    """Steps that the cosine is laid out for, where the stage stops before its end."""
    match: float = 0.0
    """Weight of the head on the second layer."""
    rows: int = 24
    pairs_every: int = 6
    """Every so many steps show two pictures: twice the image tokens, half the room for questions."""


class Reader(nn.Module):
    """The model with heads on the language model's lower layers, dropped afterwards.

    On the first, every text token after the picture must name the picture's shape, colour and badge: that
    brings the picture to the question's noun. On the second, the end of a yes/no question must tell whether
    what it names is there. Yes or no is that bit, turned by a negation; where both are even odds neither helps
    alone, and the language-model loss finds no way in for a long time.
    """

    def __init__(self, model: LlavaForConditionalGeneration) -> None:
        super().__init__()
        self.model = model
        self.sizes = (len(SHAPES), len(COLOR_NAMES), 1 + len(BADGES))
        self.heads = nn.Linear(TEXT_WIDTH, sum(self.sizes))
        self.match = nn.Linear(TEXT_WIDTH, 2)

    def loss(self, batch: Batch, stage: Stage) -> Tensor:
        """Cross-entropy of the answers, plus the heads'."""
        out = self.model.model(
            input_ids=batch.ids,
            pixel_values=normalise(batch.pictures),
            attention_mask=torch.where(batch.mask, 0.0, -1e9),
            position_ids=batch.positions,
            use_cache=False,
            output_hidden_states=True,
        )
        target = batch.labels[:, 1:]
        chosen = target != IGNORED
        weight = torch.where(batch.first[:, 1:], stage.first_weight, 1.0)[chosen]
        logits = self.model.lm_head(out.last_hidden_state[:, :-1][chosen]).float()
        total = (cross_entropy(logits, target[chosen], reduction="none") * weight).sum() / weight.sum()
        if stage.hint and len(batch.pictures) == len(batch.ids):
            read = self.heads(out.hidden_states[1][batch.seeing]).float()
            rows = batch.seeing.nonzero()[:, 0]
            for part, size_target in zip(read.split(self.sizes, dim=1), batch.scene.unbind(1), strict=True):
                total = total + stage.hint * cross_entropy(part, size_target[rows])
        asked = batch.there != IGNORED
        if stage.match and asked.any():
            told = self.match(out.hidden_states[2][asked]).float()
            total = total + stage.match * cross_entropy(told, batch.there[asked])
        return total


def train_reader(reader: Reader, packer: Packer, stage: Stage, *, steps: int, rate: float) -> Iterator[int]:
    """Trains in place; yields after each step, so that the caller may measure and save."""
    adam = optimiser(reader, weight_decay=0.05, slow="vision_tower", slowness=stage.tower_rate)
    clock = Clock(stage.name, steps)
    reader.train()
    for step in range(steps):
        cosine(adam, step, max(steps, stage.horizon), rate, floor=stage.floor)
        pair = step % stage.pairs_every == stage.pairs_every - 1
        batch = packer.batch(stage.rows * 2 // 3, 2) if pair else packer.batch(stage.rows)
        with torch.autocast("cpu", torch.bfloat16):
            loss = reader.loss(batch, stage)
        loss.backward()
        nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        adam.step()
        adam.zero_grad(set_to_none=True)
        clock.tick(step, loss.item())
        yield step
    reader.eval()
