"""Pillow's 8-bit resampling as torch operations: the same values to the bit, with gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import PIL
import torch
from PIL.Image import Resampling
from torch import Tensor

BITS = 22
"""Fixed-point digits of Pillow's weights (``PRECISION_BITS`` in its Resample.c)."""
TALL_FIRST = int(PIL.__version__.partition(".")[0]) >= 13
"""Pillow 13 resizes the height first where that shrinks much more than the width (its pull request 9549)."""


def _triangle(x: float) -> float:
    return max(0.0, 1 - abs(x))


def _cubic(x: float) -> float:
    x = abs(x)
    if x < 1:
        return (1.5 * x - 2.5) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * -0.5 if x < 2 else 0.0


def _sinc(x: float) -> float:
    return 1.0 if x == 0 else math.sin(math.pi * x) / (math.pi * x)


def _lanczos(x: float) -> float:
    return _sinc(x) * _sinc(x / 3) if -3 <= x < 3 else 0.0


_KERNELS: dict[Resampling, tuple[Callable[[float], float], float]] = {
    Resampling.BILINEAR: (_triangle, 1.0),
    Resampling.BICUBIC: (_cubic, 2.0),
    Resampling.LANCZOS: (_lanczos, 3.0),
}
"""Kernel and its support in pixels; Pillow's bicubic has a = -0.5."""


class _Straight(torch.autograd.Function):
    """Rounding whose gradient is the identity."""

    @staticmethod
    def forward(_: Any, value: Tensor, half_up: bool) -> Tensor:  # noqa: FBT001 - autograd passes by position
        return torch.floor(value + 0.5) if half_up else torch.round(value)

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def to_8_bit(picture: Tensor) -> Tensor:
    """Pixels in [0, 1] as whole levels 0 to 255, rounded as a saved picture is; the gradient is that of ``255 x``."""
    rounded: Tensor = _Straight.apply(picture.float() * 255, False)  # type: ignore[no-untyped-call]  # noqa: FBT003 - torch
    return rounded.double()


@lru_cache(maxsize=64)
def weights(size: int, out: int, resampling: Resampling) -> Tensor:
    """Pillow's antialiasing weights along one axis.

    Returns:
        Sparse ``(out, size)`` float64; every entry is a multiple of 2**-22, so that sums of 8-bit values are exact.
    """
    kernel, reach = _KERNELS[resampling]
    scale = size / out
    stretch = max(scale, 1.0)
    rows, columns, values = [], [], []
    for index in range(out):
        center = (index + 0.5) * scale
        low = max(int(center - reach * stretch + 0.5), 0)
        high = min(int(center + reach * stretch + 0.5), size)
        taps = [kernel((at - center + 0.5) / stretch) for at in range(low, high)]
        total = sum(taps)
        for at, tap in zip(range(low, high), taps, strict=True):
            rows.append(index)
            columns.append(at)
            values.append(math.trunc(tap / total * 2**BITS + math.copysign(0.5, tap)) / 2**BITS)
    return torch.sparse_coo_tensor(
        torch.tensor([rows, columns]), torch.tensor(values, dtype=torch.float64), (out, size), check_invariants=True
    ).coalesce()


def resize(levels: Tensor, size: tuple[int, int], resampling: int, *, rounding: bool = True) -> Tensor:
    """Resize as ``PIL.Image.resize`` does: one axis after the other, each rounded and cut to 8 bits.

    Args:
        levels: ``(C, H, W)`` float64, 0 to 255.
        size: Height and width to reach, pixels.
        resampling: One of Pillow's BILINEAR, BICUBIC, LANCZOS.
        rounding: False leaves both roundings out (the cuts stay), for a smooth function.

    Returns:
        ``(C, height, width)`` float64.

    Raises:
        ValueError: If the resampling is another one.
    """
    kind = Resampling(resampling)
    if kind not in _KERNELS:
        raise ValueError(f"no differentiable form of Pillow's {kind.name} resampling is known")
    shorter, narrower = levels.shape[1] - size[0], levels.shape[2] - size[1]
    if TALL_FIRST and shorter > max(0, 2 * narrower):
        levels = _rows(levels, size[0], kind, rounding=rounding)
        return _columns(levels, size[1], kind, rounding=rounding)
    levels = _columns(levels, size[1], kind, rounding=rounding)
    return _rows(levels, size[0], kind, rounding=rounding)


def _columns(levels: Tensor, out: int, kind: Resampling, *, rounding: bool) -> Tensor:
    return _rows(levels.transpose(1, 2), out, kind, rounding=rounding).transpose(1, 2)


def _rows(levels: Tensor, out: int, kind: Resampling, *, rounding: bool) -> Tensor:
    """Resample the rows of ``(C, H, W)`` to `out`; an axis that keeps its length is not touched, as in Pillow."""
    if out == levels.shape[1]:
        return levels
    channels, height, width = levels.shape
    matrix = weights(height, out, kind).to(levels.device)
    flat = levels.transpose(0, 1).reshape(height, channels * width)
    mixed: Tensor = torch.sparse.mm(matrix, flat)
    if rounding:
        mixed = _Straight.apply(mixed, True)  # type: ignore[no-untyped-call]  # noqa: FBT003 - torch
    return mixed.clamp(0, 255).reshape(out, channels, width).transpose(0, 1)
