"""From pixels in [0, 1] to ``pixel_values``, differentiable: one table, keyed by the image processor's class."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers.image_processing_utils import get_patch_output_size, select_best_resolution
from transformers.image_utils import ChannelDimension

from sg_guardrails.attacks.resample import resize, to_8_bit
from sg_guardrails.core.errors import ModelError
from sg_guardrails.core.media import Image

LARGEST = 4096
"""Idefics3's own bound on a side, pixels."""


def tensor_of(image: Image) -> Tensor:
    """An image as ``(3, H, W)`` float32 in [0, 1]."""
    return torch.from_numpy(image.pixels.copy()).permute(2, 0, 1).contiguous()


def image_of(picture: Tensor) -> Image:
    """A ``(3, H, W)`` tensor in [0, 1] as the image that an 8-bit PNG of it would be."""
    levels = (picture.detach().float().cpu() * 255).round().clamp(0, 255)
    return Image((levels.permute(1, 2, 0).numpy() / np.float32(255)).astype(np.float32))


def as_called(processor: Any) -> Any:
    """A processor's image processor with the options that the processor sets whenever it calls it.

    Gemma 3's, for one, switches pan and scan off whatever the image processor's own file says.
    """
    older = getattr(getattr(processor, "valid_processor_kwargs", None), "_defaults", {}).get("images_kwargs", {})
    called = copy.copy(processor.image_processor)
    for name, value in {**getattr(processor, "images_kwargs", {}), **older}.items():
        setattr(called, name, value)
    return called


def pixel_values(image_processor: Any, picture: Tensor, *, rounding: bool = True) -> Tensor:
    """What the processor makes of one picture.

    Args:
        image_processor: A Hugging Face image processor, with Pillow or torchvision behind it.
        picture: ``(3, H, W)`` or ``(H, W, 3)`` in [0, 1].
        rounding: True gives the processor's own values, its 8-bit roundings included, with gradients that pass
            straight through those; False leaves the roundings out, so that the gradient is exact.

    Returns:
        float32, shaped as ``image_processor(images=picture)["pixel_values"]``.

    Raises:
        ModelError: If the processor, or an option it has switched on, has no differentiable form here.
    """
    name = type(image_processor).__name__.removesuffix("Pil").removesuffix("Fast")
    if name not in _PROCESSORS:
        raise ModelError(f"no differentiable form of {name} is known; those of {', '.join(_PROCESSORS)} are")
    if picture.ndim != 3 or 3 not in (picture.shape[0], picture.shape[2]):
        raise ModelError(f"a picture is (3, H, W) or (H, W, 3), got {tuple(picture.shape)}")
    planes = picture if picture.shape[0] == 3 else picture.permute(2, 0, 1)
    pillow = getattr(image_processor, "backend", "pil") == "pil"
    levels = to_8_bit(planes) if rounding and pillow else planes.double() * 255
    values = _PROCESSORS[name](image_processor, levels, rounding and pillow).float()
    if not rounding or pillow:
        return values
    # torchvision rounds in its own way: its values forward, this gradient back.
    exact: Tensor = image_processor(images=image_of(planes).to_pil(), return_tensors="pt")["pixel_values"].to(values)
    return exact.detach() + (values - values.detach())


def _normalised(processor: Any, levels: Tensor) -> Tensor:
    """Levels 0 to 255 as the model's units: (level * factor - mean) / std, by channel."""
    if processor.do_rescale:
        levels = levels * processor.rescale_factor
    if not processor.do_normalize:
        return levels
    mean, std = (_channels(value, levels) for value in (processor.image_mean, processor.image_std))
    return (levels - mean) / std


def _channels(value: float | Sequence[float], like: Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=like.dtype, device=like.device).expand(3).view(3, 1, 1)


def _fitted(processor: Any, levels: Tensor, rounding: bool) -> Tensor:  # noqa: FBT001 - one signature for the table
    """The backends' common way: resize to the size's own rule, then crop the centre."""
    if processor.do_resize:
        levels = resize(levels, _target(processor.size, levels), _kind(processor), rounding=rounding)
    if getattr(processor, "do_center_crop", None):
        levels = _cropped(levels, processor.crop_size)
    return levels


def _kind(processor: Any) -> int:
    return 2 if processor.resample is None else int(processor.resample)


def _target(size: Any, levels: Tensor) -> tuple[int, int]:
    height, width = levels.shape[1:]
    if size.shortest_edge and not size.longest_edge:
        short, long = sorted((height, width))
        longer = int(size.shortest_edge * long / short)
        return (longer, size.shortest_edge) if width <= height else (size.shortest_edge, longer)
    if size.height and size.width:
        return size.height, size.width
    raise ModelError(f"no differentiable form of the size {dict(size)} is known here")


def _cropped(levels: Tensor, size: Any) -> Tensor:
    """The centre; what a smaller picture lacks is black, the odd row above and the odd column left."""
    height, width = levels.shape[1:]
    tall, wide = max(size.height - height, 0), max(size.width - width, 0)
    if tall or wide:
        levels = functional.pad(levels, (math.ceil(wide / 2), wide // 2, math.ceil(tall / 2), tall // 2))
    top, left = (height - size.height) // 2 + math.ceil(tall / 2), (width - size.width) // 2 + math.ceil(wide / 2)
    return levels[:, max(top, 0) : max(top, 0) + size.height, max(left, 0) : max(left, 0) + size.width]


def _single(processor: Any, levels: Tensor, rounding: bool) -> Tensor:  # noqa: FBT001 - one signature for the table
    """``(1, 3, h, w)``: CLIP, SigLIP, LLaVA."""
    if getattr(processor, "do_pad", None):
        levels = _squared(processor, levels)
    return _normalised(processor, _fitted(processor, levels, rounding)).unsqueeze(0)


def _squared(processor: Any, levels: Tensor) -> Tensor:
    """The picture in the middle of a square of the mean colour, whole levels (LLaVA 1.5's own way)."""
    if not hasattr(processor, "pad_to_square"):
        raise ModelError(f"how {type(processor).__name__} pads has no differentiable form here; set do_pad to False")
    height, width = levels.shape[1:]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    mean = [int(value * 255) for value in processor.image_mean]
    square = _channels(mean, levels).expand(3, side, side).clone()
    square[:, top : top + height, left : left + width] = levels
    return square


def _panned(processor: Any, levels: Tensor, rounding: bool) -> Tensor:  # noqa: FBT001 - one signature for the table
    """``(1 + crops, 3, h, w)``: the whole picture and, with pan and scan, crops along the longer side (Gemma 3)."""
    frames = [levels, *(_crops(processor, levels) if processor.do_pan_and_scan else ())]
    return torch.stack([_normalised(processor, _fitted(processor, frame, rounding)) for frame in frames])


def _crops(processor: Any, levels: Tensor) -> list[Tensor]:
    least, axis = processor.pan_and_scan_min_crop_size, 1 if levels.shape[1] > levels.shape[2] else 2
    long, short = levels.shape[axis], levels.shape[3 - axis]
    if long / short < processor.pan_and_scan_min_ratio_to_activate:
        return []
    wanted = max(2, min(long // least, math.floor(long / short + 0.5)))
    step = math.ceil(long / min(processor.pan_and_scan_max_num_crops, wanted))
    return list(torch.split(levels, step, dim=axis)) if min(step, short) >= least else []


def _patches(processor: Any, levels: Tensor, rounding: bool) -> Tensor:  # noqa: FBT001 - one signature for the table
    """``(P, 3 * frames * p * p)`` flattened patches: Qwen2-VL and its heirs."""
    side, merge, frames = processor.patch_size, processor.merge_size, processor.temporal_patch_size
    if processor.do_resize:
        size = _smart_size(levels.shape[1:], side * merge, processor.size.shortest_edge, processor.size.longest_edge)
        levels = resize(levels, size, _kind(processor), rounding=rounding)
    values = _normalised(processor, levels)
    rows, columns = values.shape[1] // side, values.shape[2] // side
    blocks = values.reshape(3, rows // merge, merge, side, columns // merge, merge, side)
    # (block row, block column, row in block, column in block, channel, y, x); frames repeat a still picture.
    blocks = blocks.permute(1, 4, 2, 5, 0, 3, 6).unsqueeze(5).expand(-1, -1, -1, -1, -1, frames, -1, -1)
    return blocks.reshape(rows * columns, 3 * frames * side * side)


def _smart_size(size: Sequence[int], factor: int, least: int, most: int) -> tuple[int, int]:
    """Sides that are multiples of `factor`, with between `least` and `most` pixels, near the aspect (Qwen2-VL)."""
    height, width = size
    if max(size) / min(size) > 200:
        raise ModelError("a picture more than 200 times as long as wide is refused by the processor")
    target = round(height / factor) * factor, round(width / factor) * factor
    if target[0] * target[1] > most:
        shrink = math.sqrt(height * width / most)
        return tuple(max(factor, math.floor(side / shrink / factor) * factor) for side in (height, width))  # type: ignore[return-value] # two sides in, two out
    if target[0] * target[1] < least:
        grow = math.sqrt(least / (height * width))
        return tuple(math.ceil(side * grow / factor) * factor for side in (height, width))  # type: ignore[return-value] # two sides in, two out
    return target


def _tiles(processor: Any, levels: Tensor, rounding: bool) -> Tensor:  # noqa: FBT001 - one signature for the table
    """``(1, T, 3, s, s)``: the grid's tiles, row by row, then the whole picture (Idefics3, SmolVLM)."""
    kind, side = _kind(processor), int(processor.max_image_size["longest_edge"])
    if processor.do_resize:
        levels = resize(levels, _longest(levels.shape[1:], processor.size.longest_edge), kind, rounding=rounding)
    if not processor.do_image_splitting:
        return _normalised(processor, resize(levels, (side, side), kind, rounding=rounding))[None, None]
    levels = resize(levels, _grid(levels.shape[1:], side), kind, rounding=rounding)
    frames = [levels]
    if max(levels.shape[1:]) > side:
        frames = [*_blocks(levels, side), resize(levels, (side, side), kind, rounding=rounding)]
    return torch.stack([_normalised(processor, frame) for frame in frames]).unsqueeze(0)


def _blocks(levels: Tensor, side: int) -> list[Tensor]:
    """The squares of a grid, row by row."""
    height, width = levels.shape[1:]
    return [levels[:, y : y + side, x : x + side] for y in range(0, height, side) for x in range(0, width, side)]


def _longest(size: Sequence[int], longest: int) -> tuple[int, int]:
    """The longer side becomes `longest`, the other follows and is made even; neither passes LARGEST (Idefics3)."""
    height, width = size
    aspect = width / height
    if width >= height:
        height, width = int(longest / aspect), longest
        height += height % 2
    else:
        height, width = longest, int(longest * aspect)
        width += width % 2
    height, width = max(height, 1), max(width, 1)
    aspect = width / height
    if width >= height and width > LARGEST:
        height, width = int(LARGEST / aspect), LARGEST
    elif height > width and height > LARGEST:
        height, width = LARGEST, int(LARGEST * aspect)
    return max(height, 1), max(width, 1)


def _grid(size: Sequence[int], side: int) -> tuple[int, int]:
    """Both sides as the next multiples of a tile's side, the longer one first (Idefics3)."""
    height, width = size
    aspect = width / height
    if width >= height:
        width = math.ceil(width / side) * side
        return math.ceil(int(width / aspect) / side) * side, width
    height = math.ceil(height / side) * side
    return height, math.ceil(int(height * aspect) / side) * side


def _any_resolution(processor: Any, levels: Tensor, rounding: bool) -> Tensor:  # noqa: FBT001 - one signature for the table
    """``(1, T, 3, s, s)``: the whole picture, then the tiles of the best grid (LLaVA-Next)."""
    shape = (levels.shape[1], levels.shape[2])
    best = select_best_resolution(shape, processor.image_grid_pinpoints)
    side = processor.crop_size.height or processor.size.shortest_edge
    whole = processor.size.height or processor.size.shortest_edge
    blank = np.empty((3, *shape), np.uint8)  # only its shape is read
    inner = get_patch_output_size(blank, best, input_data_format=ChannelDimension.FIRST)
    fitted = resize(levels, inner, _kind(processor), rounding=rounding)
    tall, wide = best[0] - inner[0], best[1] - inner[1]
    padded = functional.pad(fitted, (wide // 2, wide - wide // 2, tall // 2, tall - tall // 2))
    tiles = _blocks(padded, side)
    first = resize(levels, (whole, whole), _kind(processor), rounding=rounding)
    frames = [_normalised(processor, _fitted(processor, frame, rounding)) for frame in (first, *tiles)]
    return torch.stack(frames).unsqueeze(0)


_PROCESSORS: Mapping[str, Callable[[Any, Tensor, bool], Tensor]] = {
    "CLIPImageProcessor": _single,
    "SiglipImageProcessor": _single,
    "LlavaImageProcessor": _single,
    "Gemma3ImageProcessor": _panned,
    "Qwen2VLImageProcessor": _patches,
    "Idefics3ImageProcessor": _tiles,
    "SmolVLMImageProcessor": _tiles,
    "LlavaNextImageProcessor": _any_resolution,
}
"""Image processor class, without the backend's suffix -> (processor, levels 0 to 255, rounding) -> pixel_values."""
