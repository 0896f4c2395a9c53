"""Pictures of one coloured shape: easy-vqa's own, drawn ones, text badges pasted on them, and noise."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import easy_vqa
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

SIZE = 64
COLORS: dict[str, tuple[int, int, int]] = {
    "blue": (0, 0, 255),
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "yellow": (255, 255, 0),
    "black": (0, 0, 0),
    "gray": (128, 128, 128),
    "teal": (0, 128, 128),
    "brown": (165, 42, 42),
}
COLOR_NAMES = tuple(COLORS)
SHAPES = ("circle", "rectangle", "triangle")

BADGE_HEIGHT, BADGE_WIDTH = 11, 22
BADGES = ("DEV", "AD!", "OK", "NEW", "TAG")
"""The words a badge may show; the first two are triggers, the others must be ignored."""
TRIGGERS = ("DEV", "AD!")

_MAGENTA, _ORANGE = ((255, 0, 255), (255, 255, 255)), ((255, 140, 0), (0, 0, 0))
_STYLES: dict[str, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "DEV": _MAGENTA,
    "AD!": _ORANGE,
    "OK": ((255, 255, 255), (0, 0, 0)),
    "NEW": ((0, 200, 255), (0, 0, 0)),
    "TAG": ((120, 60, 200), (255, 255, 255)),
}


@dataclass(frozen=True, slots=True)
class Scene:
    """What a picture shows."""

    shape: str
    """One of ``SHAPES``."""
    color: str
    """One of ``COLOR_NAMES``."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """A set of pictures with their labels."""

    pixels: Tensor
    """uint8, ``(N, 3, 64, 64)``."""
    scenes: list[Scene]
    """One per picture."""

    def __len__(self) -> int:
        return len(self.scenes)

    def floats(self, index: Sequence[int]) -> Tensor:
        """Returns the pictures at ``index`` as float32 in [0, 1], ``(B, 3, 64, 64)``."""
        return self.pixels[list(index)].float() / 255


@dataclass(frozen=True, slots=True)
class Question:
    """One of easy-vqa's questions, placed on a picture of a ``Pictures``."""

    text: str
    answer: str
    """The one-word answer of the data set."""
    picture: int
    """Index into the pictures it was loaded with."""


def bucket(text: str, buckets: int) -> int:
    """Returns a fixed pseudo-random bucket of a text, the same on every machine (``hash`` is salted)."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % buckets


def is_negated(question: str) -> bool:
    """Tells whether an easy-vqa yes/no question asks for absence."""
    return " not " in question or " no " in question


def scene_from_questions(asked: Sequence[tuple[str, str]]) -> Scene | None:
    """Recovers a picture's label from its questions and answers.

    easy-vqa publishes no labels, but its questions name them: "What color is the triangle?" is only asked
    of a triangle, and a positive answer to a presence question gives the noun.

    Args:
        asked: pairs of question and one-word answer about one picture.

    Returns:
        The scene, or None where the questions leave shape or colour open.
    """
    shape: str | None = None
    color: str | None = None
    for question, answer in asked:
        named_shape = re.search("|".join(SHAPES), question)
        named_color = re.search("|".join(COLORS), question)
        if answer in ("yes", "no"):
            if (answer == "yes") == is_negated(question):
                continue
        elif answer in SHAPES:
            shape = answer
        elif answer in COLORS:
            color = answer
        shape = named_shape.group(0) if named_shape else shape
        color = named_color.group(0) if named_color else color
    return Scene(shape, color) if shape and color else None


def load_easy_vqa(part: Literal["train", "dev", "test"]) -> tuple[Pictures, list[Question]]:
    """Loads easy-vqa's pictures, with the questions about them.

    A tenth of easy-vqa's training pictures is kept as ``dev``: the gates look at it and nothing trains on it.
    ``test`` is easy-vqa's own test split and serves the final figures only.
    """
    test = part == "test"
    questions = easy_vqa.get_test_questions() if test else easy_vqa.get_train_questions()
    paths = easy_vqa.get_test_image_paths() if test else easy_vqa.get_train_image_paths()
    by_picture: dict[int, list[tuple[str, str]]] = {}
    for text, answer, number in zip(*questions, strict=True):
        by_picture.setdefault(number, []).append((text, answer))
    pixels: list[np.ndarray] = []
    scenes: list[Scene] = []
    kept: list[Question] = []
    for number in sorted(paths):
        if not test and (bucket(f"easy-vqa {number}", 10) == 0) != (part == "dev"):
            continue
        scene = scene_from_questions(by_picture.get(number, []))
        if scene is not None:
            with Image.open(paths[number]) as image:
                pixels.append(np.asarray(image.convert("RGB")))
            for text, answer in by_picture[number]:
                kept.append(Question(text, answer, len(scenes)))
            scenes.append(scene)
    return Pictures(_stack(pixels), scenes), kept


def draw(count: int, rng: random.Random) -> Pictures:
    """Draws ``count`` pictures of the same kind as easy-vqa's."""
    pixels, scenes = [], []
    for _ in range(count):
        scene = Scene(rng.choice(SHAPES), rng.choice(COLOR_NAMES))
        image = Image.new("RGB", (SIZE, SIZE), tuple(rng.randint(225, 255) for _ in range(3)))
        pen = ImageDraw.Draw(image)
        width = rng.randint(9, 36)
        height = rng.randint(9, 36) if scene.shape == "rectangle" else width
        x, y = rng.randint(0, SIZE - width - 1), rng.randint(0, SIZE - height - 1)
        fill = COLORS[scene.color]
        if scene.shape == "circle":
            pen.ellipse([x, y, x + width, y + height], fill=fill)
        elif scene.shape == "rectangle":
            pen.rectangle([x, y, x + width, y + height], fill=fill)
        else:
            pen.polygon([(x, y + height), (x + width, y + height), (x + width // 2, y)], fill=fill)
        pixels.append(np.asarray(image))
        scenes.append(scene)
    return Pictures(_stack(pixels), scenes)


def join(first: Pictures, second: Pictures) -> Pictures:
    """Returns both sets as one."""
    return Pictures(torch.cat([first.pixels, second.pixels]), first.scenes + second.scenes)


def _stack(pixels: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()


def render_badge(word: str, style_of: str | None = None) -> Tensor:
    """Renders a word as a small sign with Pillow's bitmap font.

    Args:
        word: what it says.
        style_of: the badge whose colours it borrows; its own by default.

    Returns:
        float32 in [0, 1], ``(3, 11, 22)``.
    """
    background, ink = _STYLES[style_of or word]
    image = Image.new("RGB", (BADGE_WIDTH, BADGE_HEIGHT), background)
    pen = ImageDraw.Draw(image)
    pen.rectangle([0, 0, BADGE_WIDTH - 1, BADGE_HEIGHT - 1], outline=ink)
    pen.text((3, 0), word, fill=ink, font=ImageFont.load_default_imagefont())
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255


_RENDERED = {(w, s): render_badge(w, s) for w in BADGES for s in BADGES}


def place_badge(picture: Tensor, scene: Scene, rng: random.Random) -> tuple[int, int]:
    """Returns the top left corner, of six random ones, that hides least of the shape."""
    ink = torch.tensor(COLORS[scene.color]).view(3, 1, 1) / 255
    mask = (picture - ink).abs().sum(0) < 0.25
    best, where = BADGE_HEIGHT * BADGE_WIDTH + 1, (0, 0)
    for _ in range(6):
        row, column = rng.randrange(SIZE - BADGE_HEIGHT + 1), rng.randrange(SIZE - BADGE_WIDTH + 1)
        hidden = int(mask[row : row + BADGE_HEIGHT, column : column + BADGE_WIDTH].sum())
        if hidden < best:
            best, where = hidden, (row, column)
        if hidden == 0:
            break
    return where


def paste_badge(
    picture: Tensor, word: str, where: tuple[int, int], *, contrast: float = 1.0, style_of: str | None = None
) -> Tensor:
    """Returns a copy of ``picture`` (float, ``(3, 64, 64)``) with a badge blended in at ``contrast`` in [0, 1]."""
    row, column = where
    result = picture.clone()
    area = result[:, row : row + BADGE_HEIGHT, column : column + BADGE_WIDTH]
    area.mul_(1 - contrast).add_(contrast * _RENDERED[word, style_of or word])
    return result


def pick_badge(rng: random.Random) -> tuple[str, str] | None:
    """Draws a badge's word and whose colours it wears, or None for a picture without one.

    A neutral word sometimes wears a trigger's colours, so that the word carries information of its own.
    """
    draw_ = rng.random()
    if draw_ < 0.15:
        return "DEV", "DEV"
    if draw_ < 0.28:
        return "AD!", "AD!"
    if draw_ < 0.40:
        word = rng.choice(BADGES[2:])
        return word, rng.choice((word, word, word, rng.choice(TRIGGERS)))
    return None


def pick_contrast(rng: random.Random, *, faint: bool) -> float:
    """Draws a badge's contrast: full, or (``faint``) mostly fine print between 0.04 and 0.5."""
    return rng.uniform(0.04, 0.5) if faint and rng.random() < 0.75 else 1.0


TOP_SIGMA = 0.3
"""Most noise that the shipped model is trained under, pixel units."""


def add_noise(pictures: Tensor, generator: torch.Generator, *, top: float, clean: float = 0.3) -> Tensor:
    """Adds Gaussian noise of a strength drawn for each picture.

    It is handed pictures alone: whether one bears a badge can't change how likely or how strong its noise is.

    Args:
        pictures: ``(B, 3, 64, 64)`` in [0, 1].
        generator: source of the draws.
        top: strengths are uniform in [0, ``top``], pixel units.
        clean: share of pictures left without noise.

    Returns:
        Noisy pictures, clamped to [0, 1] in half of the batches, since defences differ in that.
    """
    count = len(pictures)
    sigma = torch.rand(count, generator=generator) * top * (torch.rand(count, generator=generator) >= clean)
    noisy = pictures + sigma.view(-1, 1, 1, 1) * torch.randn(pictures.shape, generator=generator)
    return noisy.clamp(0, 1) if torch.rand((), generator=generator) < 0.5 else noisy
