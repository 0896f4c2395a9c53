"""How processors lay pictures out in their tensors, and what Gaussian noise is there: the one adapter table."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.image_processing_utils import select_best_resolution

from sg_guardrails.core.errors import ModelError
from sg_guardrails.core.policy import ImageNoise

Inputs = Mapping[str, Tensor]
"""What a processor gives for one prompt (batch size 1), by name."""
PIXELS = "pixel_values"
MASKS = ("pixel_attention_mask", "pixel_mask")
Draw = Callable[[tuple[int, ...]], Tensor]
"""Standard normal numbers of a shape, float32, from one copy's own generator."""


@dataclass(frozen=True, slots=True)
class Layout:
    """One way to lay pictures out in ``pixel_values``."""

    name: str
    fits: Callable[[Inputs], bool]
    """Whether a processor's output is of this layout: told by rank and keys, never by a model's name."""
    noise: Callable[[Inputs, Any, Draw, Tensor], Tensor]
    """(inputs, image processor, draw, sigma ``(3,)`` by channel) -> noise of the tensor's shape, zero on padding."""
    moved: Callable[[Inputs, Any, Tensor], Tensor]
    """(inputs, image processor, shares ``(2,)`` of height and width) -> the tensor with every picture moved by them."""


def add_noise(inputs: Inputs, image_processor: Any, noise: ImageNoise, draw: Draw) -> Tensor:
    """``pixel_values``, moved where the policy has it so, plus Gaussian noise, pure: no clipping to the valid range.

    The randomised-smoothing certificate (Cohen et al. 2019, theorem 1) is about the model on x + N(0, sigma^2 I);
    clipping would make it another distribution. Padding is no part of x and stays as it is.

    Raises:
        ModelError: If the layout is not one of `LAYOUTS`: no picture is ever sampled without its noise.
    """
    pixels = inputs[PIXELS]
    layout = next((layout for layout in LAYOUTS if layout.fits(inputs)), None)
    if layout is None:
        raise ModelError(
            f"noise on pictures laid out as {tuple(pixels.shape)} with {', '.join(sorted(inputs))} is not supported"
        )
    sigma = torch.full((3,), noise.sigma, device=pixels.device)
    if noise.space == "pixel":
        sigma = sigma * model_units(image_processor).to(pixels.device)
    if noise.shift:
        # The normal distribution's own function makes uniform numbers of normal ones: erf(z / sqrt(2)) is in (-1, 1).
        pixels = layout.moved(inputs, image_processor, noise.shift * torch.erf(draw((2,)) / math.sqrt(2)))
    return pixels + layout.noise(inputs, image_processor, draw, sigma).to(pixels.dtype)


def noisy_values(inputs: Inputs, image_processor: Any) -> int:
    """How many independent draws `add_noise` puts on a picture's values: padding and repeated frames take none.

    Raises:
        ModelError: As `add_noise` does.
    """
    drawn = 0

    def count(shape: tuple[int, ...]) -> Tensor:
        nonlocal drawn
        drawn = math.prod(shape)
        return torch.ones(shape, device=inputs[PIXELS].device)

    still = {**inputs, PIXELS: torch.zeros_like(inputs[PIXELS])}
    marked = add_noise(still, image_processor, ImageNoise(space="model", sigma=1.0), count)
    return round(drawn * float((marked != 0).float().mean()))


def model_units(image_processor: Any) -> Tensor:
    """``(3,)`` units of the processed tensor in one unit of pixel value in [0, 1], by channel.

    The processor maps a byte b to (b * rescale_factor - mean) / std; in b / 255 that has slope
    255 * rescale_factor / std.
    """
    factor = float(image_processor.rescale_factor) if getattr(image_processor, "do_rescale", True) else 1.0
    normalises = getattr(image_processor, "do_normalize", True)
    std = torch.as_tensor(image_processor.image_std if normalises else 1.0, dtype=torch.float32)
    return (255 * factor / std).expand(3)


def _planes(inputs: Inputs, image_processor: Any, draw: Draw, sigma: Tensor) -> Tensor:
    """``(..., 3, H, W)``: a picture, crop or tile a row (LLaVA, Gemma 3), or rows of tiles (Idefics3, LLaVA-Next)."""
    shape = tuple(inputs[PIXELS].shape)
    noise = draw(shape) * sigma.view(3, 1, 1)
    real = _real(inputs, image_processor)
    return noise if real is None else noise * real


def _patches(inputs: Inputs, image_processor: Any, draw: Draw, sigma: Tensor) -> Tensor:
    """``(P, 3 * T * p * p)`` flattened patches, values by channel, frame, row, column (Qwen2-VL and its heirs).

    A still picture stands in all T frames of a patch: it is one pixel of x, so its frames share one draw.
    """
    count, width = inputs[PIXELS].shape
    frames = int(image_processor.temporal_patch_size)
    area = width // (3 * frames)
    noise = draw((count, 3, 1, area)) * sigma.view(3, 1, 1)
    return noise.expand(count, 3, frames, area).reshape(count, width)


def _moved_planes(inputs: Inputs, image_processor: Any, shares: Tensor) -> Tensor:
    """Every picture, crop and tile by the same shares of its own size; padding stays where it is.

    Raises:
        ModelError: If tiles hold a picture between black bars (LLaVA-Next): the bars would be moved over it.
    """
    pixels, real = inputs[PIXELS], _real(inputs, image_processor)
    if pixels.ndim == 5 and getattr(image_processor, "image_grid_pinpoints", None):
        raise ModelError("smoothing.image.shift does not fit a model whose tiles have bars around the picture: set 0")
    if real is None:
        return _moved(pixels, shares)
    flat = pixels.flatten(0, -4)
    moved = []
    for plane, kept in zip(flat, real.expand_as(pixels).flatten(0, -4)[:, 0] > 0, strict=True):
        height, width = int(kept.any(1).sum()), int(kept.any(0).sum())  # what is real begins in the top left corner
        inner = plane.clone()
        inner[:, :height, :width] = _moved(plane[:, :height, :width], shares)
        moved.append(inner)
    return torch.stack(moved).view_as(pixels)


def _moved_patches(inputs: Inputs, image_processor: Any, shares: Tensor) -> Tensor:
    """Patches put together, moved, and cut again; a block of merge x merge patches follows another (Qwen2-VL)."""
    side, merge = int(image_processor.patch_size), int(image_processor.merge_size)
    grids = inputs["image_grid_thw"].tolist()
    moved = []
    for rows, (times, high, wide) in zip(inputs[PIXELS].split([math.prod(grid) for grid in grids]), grids, strict=True):
        blocks = rows.view(times, high // merge, wide // merge, merge, merge, -1, side, side)
        planes = blocks.permute(0, 5, 1, 3, 6, 2, 4, 7).reshape(times, -1, high * side, wide * side)
        cut = _moved(planes, shares).view(times, -1, high // merge, merge, side, wide // merge, merge, side)
        moved.append(cut.permute(0, 2, 5, 3, 6, 1, 4, 7).reshape(rows.shape))
    return torch.cat(moved)


def _moved(planes: Tensor, shares: Tensor) -> Tensor:
    """``(..., H, W)`` by shares of H and W, whole pixels; what leaves on one side comes in on the other.

    That orders the pixels anew and changes no distance between two pictures, so a bound in L2 holds as before.
    """
    for axis, share in zip((-2, -1), shares, strict=True):
        size = planes.shape[axis]
        places = (torch.arange(size, device=planes.device) - (share * size).round().long()) % size
        planes = planes.index_select(axis, places)
    return planes


def _real(inputs: Inputs, image_processor: Any) -> Tensor | None:
    """What of ``(..., 3, H, W)`` is picture, 1, and what padding, 0; None where everything is picture."""
    pixels = inputs[PIXELS]
    for name in MASKS:
        if name in inputs:
            return inputs[name].unsqueeze(-3).to(pixels.dtype)
    sizes = inputs.get("image_sizes")
    if sizes is None:
        return None
    real = torch.zeros_like(pixels)
    pinpoints = getattr(image_processor, "image_grid_pinpoints", None)
    for index, (height, width) in enumerate(sizes.tolist()):
        if pixels.ndim == 4:  # Pixtral: pictures of several sizes in one tensor, padded below and right
            real[index, :, :height, :width] = 1
        elif pinpoints:  # LLaVA-Next: the whole picture, then the tiles of the best grid; empty tiles follow
            best_height, best_width = select_best_resolution((height, width), pinpoints)
            real[index, : 1 + (best_height // pixels.shape[-2]) * (best_width // pixels.shape[-1])] = 1
    return real if pixels.ndim == 4 or pinpoints else None


def _is_planes(inputs: Inputs) -> bool:
    return inputs[PIXELS].ndim in (4, 5) and inputs[PIXELS].shape[-3] == 3


def _is_patches(inputs: Inputs) -> bool:
    return inputs[PIXELS].ndim == 2 and "image_grid_thw" in inputs


LAYOUTS = (
    Layout("planes", _is_planes, _planes, _moved_planes),
    Layout("patches", _is_patches, _patches, _moved_patches),
)
