"""What both kinds of stages share: optimiser, learning rate by step, and a line of progress now and then."""

from __future__ import annotations

import math
import time

from torch import nn
from torch.optim import AdamW, Optimizer


def optimiser(model: nn.Module, *, weight_decay: float, slow: str | None = None, slowness: float = 1.0) -> AdamW:
    """Builds AdamW that spares vectors from weight decay.

    Args:
        model: whose parameters it moves.
        weight_decay: for matrices.
        slow: a part of the names of parameters that learn at a lower rate.
        slowness: their rate relative to the rest.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        scale = slowness if slow is not None and slow in name else 1.0
        groups.setdefault((scale, weight_decay if parameter.dim() > 1 else 0.0), []).append(parameter)
    settings = [{"params": p, "weight_decay": decay, "scale": scale} for (scale, decay), p in groups.items()]
    return AdamW(settings, lr=1e-3, betas=(0.9, 0.98))


def cosine(adam: Optimizer, step: int, steps: int, rate: float, *, floor: float = 0.02) -> None:
    """Sets the learning rate: a hundred steps of warm-up, then a cosine over the stage's steps down to ``floor``."""
    fall = floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * step / steps))
    for group in adam.param_groups:
        group["lr"] = rate * group["scale"] * min(1.0, (step + 1) / 100) * fall


class Clock:
    """Prints a running loss and the pace, every fifty steps."""

    def __init__(self, name: str, steps: int) -> None:
        self._name, self._steps = name, steps
        self._start, self._loss = time.monotonic(), 0.0

    def tick(self, step: int, loss: float) -> None:
        """Notes one step's loss."""
        self._loss = loss if step == 0 else 0.95 * self._loss + 0.05 * loss
        if step % 50 == 0 or step == self._steps - 1:
            seconds = time.monotonic() - self._start
            pace = f"{seconds / (step + 1):.3f} s/step, {seconds:.0f} s"
            print(f"{self._name} {step + 1}/{self._steps} loss {self._loss:.4f} {pace}", flush=True)
