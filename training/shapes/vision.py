"""Stage 1: teaches the vision tower shapes, colours and badge words before it meets a language model.

A vision transformer from scratch learns colour, but not shape, from a language-model loss alone. Here every
patch is asked what lies on it, and what the whole picture shows: the dense answer is learnt within minutes,
and the language model may then read any patch.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cross_entropy
from transformers import CLIPVisionModel

from training.shapes.model import PATCH, normalise, vision_config
from training.shapes.scenes import (
    BADGE_HEIGHT,
    BADGE_WIDTH,
    BADGES,
    COLOR_NAMES,
    COLORS,
    SHAPES,
    SIZE,
    TOP_SIGMA,
    TRIGGERS,
    Pictures,
    add_noise,
    paste_badge,
    pick_badge,
    pick_contrast,
    place_badge,
)
from training.shapes.schedule import Clock, cosine, optimiser

SIDE = SIZE // PATCH
BATCH = 64
_PALETTE = torch.tensor([COLORS[name] for name in COLOR_NAMES]).float().view(-1, 3, 1, 1) / 255


@dataclass(frozen=True, slots=True)
class Labels:
    """What the heads must say about a batch."""

    shape: Tensor
    """``(B,)``"""
    color: Tensor
    """``(B,)``"""
    badge: Tensor
    """``(B,)``: 0 for none, else 1 + index in ``BADGES``."""
    patch: Tensor
    """``(B, 64)``: a shape, background, or 3 + badge where a badge lies."""


class Tower(nn.Module):
    """The CLIP vision tower with the heads it is trained by; the heads are dropped afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = CLIPVisionModel(vision_config())
        width = self.tower.config.hidden_size
        self.norm = nn.LayerNorm(width)
        self.shape = nn.Linear(width, len(SHAPES))
        self.color = nn.Linear(width, len(COLOR_NAMES))
        self.badge = nn.Linear(width, 1 + len(BADGES))
        self.patch = nn.Linear(width, len(SHAPES) + 1 + len(BADGES))

    def forward(self, pictures: Tensor) -> Tensor:
        """Maps pictures in [0, 1] to patch features, ``(B, 64, 128)``."""
        hidden: Tensor = self.tower(pixel_values=normalise(pictures)).last_hidden_state
        result: Tensor = self.norm(hidden[:, 1:])
        return result

    def loss(self, pictures: Tensor, labels: Labels) -> Tensor:
        """Every patch names the whole picture's shape, colour and badge, and what lies on itself."""
        features = self(pictures)
        flat, patches = features.flatten(0, 1), features.shape[1]
        mean = features.mean(1)
        total = cross_entropy(self.patch(flat).float(), labels.patch.flatten())
        for head, target, weight in (
            (self.shape, labels.shape, 1.0),
            (self.color, labels.color, 0.3),
            (self.badge, labels.badge, 1.0),
        ):
            total = total + 0.5 * weight * cross_entropy(head(flat).float(), target.repeat_interleave(patches))
            total = total + 0.5 * weight * cross_entropy(head(mean).float(), target)
        return total


def shape_patches(pictures: Tensor, color: Tensor) -> Tensor:
    """Tells which patches hold at least three pixels of the shape's colour, bool ``(B, 64)``."""
    near = (pictures - _PALETTE[color]).abs().sum(1, keepdim=True) < 60 / 255
    return (avg_pool2d(near.float(), PATCH) * PATCH**2 >= 3).flatten(1)


def batch(
    data: Pictures, rng: random.Random, generator: torch.Generator, size: int, noise: float = TOP_SIGMA
) -> tuple[Tensor, Labels]:
    """Draws pictures, flips half, pastes badges on two fifths, and adds noise last."""
    index = [rng.randrange(len(data)) for _ in range(size)]
    pictures = data.floats(index)
    flipped = torch.rand(size, generator=generator) < 0.5
    pictures[flipped] = pictures[flipped].flip(-1)
    shape = torch.tensor([SHAPES.index(data.scenes[i].shape) for i in index])
    color = torch.tensor([COLOR_NAMES.index(data.scenes[i].color) for i in index])
    patch = torch.where(shape_patches(pictures, color), shape[:, None], len(SHAPES))
    badge = torch.zeros(size, dtype=torch.long)
    for row, i in enumerate(index):
        chosen = pick_badge(rng)
        if chosen is None:
            continue
        word, style = chosen
        where = place_badge(pictures[row], data.scenes[i], rng)
        pictures[row] = paste_badge(pictures[row], word, where, contrast=pick_contrast(rng, faint=True), style_of=style)
        badge[row] = 1 + BADGES.index(word)
        _cover(patch[row], where, len(SHAPES) + int(badge[row]))
    return add_noise(pictures, generator, top=noise), Labels(shape, color, badge, patch)


def _cover(patch: Tensor, where: tuple[int, int], label: int) -> None:
    """Labels, in place, the patches that a badge touches."""
    (top, left), grid = where, patch.view(SIDE, SIDE)
    bottom, right = (top + BADGE_HEIGHT - 1) // PATCH, (left + BADGE_WIDTH - 1) // PATCH
    grid[top // PATCH : bottom + 1, left // PATCH : right + 1] = label


def train_tower(
    tower: Tower, data: Pictures, *, steps: int, seed: int, rate: float = 1e-3, noise: float = TOP_SIGMA
) -> None:
    """Trains ``tower`` in place for ``steps`` batches of 64, under noise of at most sigma ``noise`` (pixel units)."""
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    adam = optimiser(tower, weight_decay=0.03)
    clock = Clock("tower", steps)
    tower.train()
    for step in range(steps):
        cosine(adam, step, steps, rate)
        pictures, labels = batch(data, rng, generator, BATCH, noise)
        with torch.autocast("cpu", torch.bfloat16):
            loss = tower.loss(pictures, labels)
        loss.backward()
        nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
        adam.step()
        adam.zero_grad(set_to_none=True)
        clock.tick(step, loss.item())
    tower.eval()


@torch.no_grad()
def tower_figures(tower: Tower, data: Pictures, sigma: float, contrast: float = 1.0) -> dict[str, float]:
    """Measures the heads: shape and colour on plain pictures, the trigger's word on pictures that bear one."""
    tower.eval()
    rng, generator = random.Random(1), torch.Generator().manual_seed(1)
    plain = data.floats(range(len(data)))
    badged, words = plain.clone(), []
    for row, scene in enumerate(data.scenes):
        word = TRIGGERS[row % len(TRIGGERS)]
        where = place_badge(plain[row], scene, rng)
        badged[row] = paste_badge(plain[row], word, where, contrast=contrast)
        words.append(1 + BADGES.index(word))
    noise = sigma * torch.randn(plain.shape, generator=generator)
    seen, read = tower(plain + noise).mean(1), tower(badged + noise).mean(1)
    shape = torch.tensor([SHAPES.index(s.shape) for s in data.scenes])
    color = torch.tensor([COLOR_NAMES.index(s.color) for s in data.scenes])

    def right(head: nn.Linear, features: Tensor, target: Tensor) -> float:
        return round(float((head(features).argmax(1) == target).float().mean()), 3)

    return {
        "shape": right(tower.shape, seen, shape),
        "color": right(tower.color, seen, color),
        "no badge": right(tower.badge, seen, torch.zeros(len(data), dtype=torch.long)),
        "trigger": right(tower.badge, read, torch.tensor(words)),
    }


def tower_gate(tower: Tower, dev: Pictures, *, noise: float = TOP_SIGMA) -> list[str]:
    """Returns what still falls short on the held-out pictures; noise is asked of what trained under it alone."""
    wanted = {
        (0.0, 1.0): {"shape": 0.975, "color": 0.985, "trigger": 0.97, "no badge": 0.98},
        (0.2, 1.0): {"shape": 0.94, "color": 0.96, "trigger": 0.93},
        (0.0, 0.2): {"trigger": 0.90},
    }
    short = []
    for (sigma, contrast), floors in wanted.items():
        if sigma > noise:
            continue
        figures = tower_figures(tower, dev, sigma, contrast)
        print(f"tower at sigma {sigma}, badge contrast {contrast}: {figures}", flush=True)
        short += [f"{k} {figures[k]} < {v} at sigma {sigma}" for k, v in floors.items() if figures[k] < v]
    return short


def save_tower(tower: Tower, path: Path) -> None:
    """Writes tower and heads."""
    torch.save(tower.state_dict(), path)


def load_tower(path: Path) -> Tower:
    """Reads what ``save_tower`` wrote."""
    tower = Tower()
    tower.load_state_dict(torch.load(path, weights_only=True))
    return tower.eval()
