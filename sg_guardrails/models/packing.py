"""Less work for an embedder with the same vectors: weights laid out once for the CPU, and little padding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

MOST = 32
"""Texts in one pass."""
_PASS = 80
"""Characters that a further pass costs as much as: it reads all weights once more (measured: MiniLM on a CPU)."""
_CLOSE = 1e-5
"""Float noise between two ways to sum."""


class Laid(nn.Module):
    """A linear layer whose weights lie as oneDNN reads them; torch lays them out anew at each call otherwise."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self._weight: Tensor = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), None)
        self._bias = None if layer.bias is None else layer.bias.detach()

    def forward(self, rows: Tensor) -> Tensor:
        """``(..., D)`` to ``(..., M)``."""
        laid: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self._weight, self._bias, "none", [], "")
        return laid


def laid_out(model: nn.Module, encode: Callable[[list[str]], NDArray[np.float32]]) -> None:
    """Lay out every linear layer of a model on the CPU; all stay as they were where `encode` then says otherwise.

    The operators are those that ``torch.compile`` puts into frozen models; they are no public interface, and a torch
    without them, or a model that looks into its layers, runs as before.
    """
    said = ["How is this told?", "In the same words."]
    plain: list[tuple[nn.Module, str, nn.Linear]] = [
        (parent, name, layer)
        for parent in model.modules()
        for name, layer in parent.named_children()
        if type(layer) is nn.Linear and layer.weight.dtype == torch.float32 and layer.weight.device.type == "cpu"
    ]
    try:
        before = encode(said)
        with torch.inference_mode():
            for parent, name, layer in plain:
                setattr(parent, name, Laid(layer))
        same = bool(np.abs(encode(said) - before).max() < _CLOSE)
    except Exception:  # noqa: BLE001 - whatever it is, the plain layers are there
        same = False
    if not same:
        for parent, name, layer in plain:
            setattr(parent, name, layer)


def passes(texts: Sequence[Any]) -> list[list[int]]:
    """Which texts go through the model together: the least time by count, where a text takes that of its longest.

    Texts sorted by length are cut into runs; ``cost(run) = _PASS + size * longest``, and the best cut of the first n
    is the best of those of fewer and one run more.
    """
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    best, cut = [0.0], [0]
    for end in range(1, len(order) + 1):
        longest = len(texts[order[end - 1]])
        costs = [best[start] + _PASS + (end - start) * longest for start in range(max(0, end - MOST), end)]
        cheapest = int(np.argmin(costs))
        best.append(costs[cheapest])
        cut.append(max(0, end - MOST) + cheapest)
    runs, end = [], len(order)
    while end:
        runs.append(order[cut[end] : end])
        end = cut[end]
    return runs
