"""Projected gradient descent as one pure loop: start, loss, gradient, normalise, project. It knows no model."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from sg_guardrails.core.errors import GuardError

Norm = Literal["linf", "l2", "unconstrained", "patch"]
Loss = Callable[[Tensor, int], Tensor]
"""The scalar to lower, given the medium and the step's number (so that fresh noise can be drawn for each step)."""
Bounds = tuple[float, float]
MOST = 1e6
"""Longest step and radius: no picture or clip is so far from another, and float32 holds it."""
PIXEL_BOUNDS: Bounds = (0.0, 1.0)
SAMPLE_BOUNDS: Bounds = (-1.0, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """A square of the picture, the only part that the norm ``patch`` changes."""

    top: int
    """First row, pixels."""
    left: int
    """First column, pixels."""
    size: int
    """Side, pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackSettings:
    """How far the medium may move, and how it gets there."""

    eps: float = 8 / 255
    """Radius of the ball, in pixel values of [0, 1] or samples of [-1, 1]: of each value for ``linf``, Euclidean over
    the whole medium for ``l2``."""
    step: float | None = None
    """Length of the first step in the same unit; None is 0.12 eps, or 8/255 where nothing bounds the medium."""
    steps: int = 100
    """Steps of one start."""
    norm: Norm = "linf"
    """``unconstrained`` and ``patch`` keep to the values' range only, ``patch`` inside its square."""
    restarts: int = 1
    """Starts in all. The first is the medium itself, later ones are random points of the ball."""
    momentum: float = 0.9
    """Share of the last direction that is kept (MI-FGSM, arXiv 1710.06081)."""
    schedule: Literal["cosine", "fixed"] = "cosine"
    """``cosine``: steps shrink to nothing over a start; ``fixed``: all have one length."""
    patch: Patch | None = None
    """The square of the norm ``patch``."""
    check_every: int = 10
    """Steps between two calls of the success test."""
    seed: int = 0
    """Of the random starts."""

    def __post_init__(self) -> None:
        for name, length in (("eps", self.eps), ("the first step", self.first_step)):
            if not 0 <= length <= MOST:
                raise ValueError(f"{name} is a length in [0, {MOST:g}], got {length}")
        if min(self.steps, self.restarts, self.check_every) < 1:
            raise ValueError("steps, restarts and check_every are at least 1")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum lies in [0, 1), got {self.momentum}")
        if (self.norm == "patch") != (self.patch is not None):
            raise ValueError("the norm patch, and only it, takes a patch")

    @property
    def first_step(self) -> float:
        """Length of a start's first step, pixel units."""
        if self.step is not None:
            return self.step
        return 8 / 255 if self.norm in ("unconstrained", "patch") else 0.12 * self.eps

    def length(self, step: int) -> float:
        """Length of step number ``step`` (from 0) of a start, pixel units."""
        if self.schedule == "fixed":
            return self.first_step
        return self.first_step * 0.5 * (1 + math.cos(math.pi * step / self.steps))


@dataclass(frozen=True, slots=True, eq=False)
class AttackState:
    """Where an attack stands; enough to go on from in another process."""

    picture: Tensor
    """The current iterate, shaped as the picture."""
    velocity: Tensor
    """The direction that momentum keeps."""
    best: Tensor
    """The iterate of the lowest loss, or the one that succeeded."""
    best_loss: float = math.inf
    losses: tuple[float, ...] = ()
    """One per step taken, over all starts."""
    restart: int = 0
    """The start it is in, from 0."""
    step: int = 0
    """Steps taken in this start."""
    success: bool = False
    """Whether the success test has passed."""

    @property
    def steps(self) -> int:
        """Steps taken over all starts."""
        return len(self.losses)

    def save(self, path: str | Path, *, run: str = "") -> None:
        """Write the state to a file, whole or not at all; `run` names the attack that it belongs to."""
        target = Path(path)
        part = target.with_name(f"{target.name}.part")
        content = {item.name: getattr(self, item.name) for item in fields(self)}
        torch.save({**content, "losses": list(self.losses), "run": run}, part)
        part.replace(target)

    @classmethod
    def load(cls, path: str | Path, *, run: str = "") -> AttackState:
        """Read a state that `save` wrote. Only tensors and numbers are unpacked, never code.

        Raises:
            GuardError: If the file is no such state, or belongs to another attack.
        """
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            belongs = content.pop("run")
            state = cls(**{**content, "losses": tuple(content["losses"])})
        except Exception as error:  # a torn file makes torch's unpickler fail in a dozen ways
            raise GuardError(f"{path} is no state of an attack: delete it, or name another file") from error
        if belongs != run:
            raise GuardError(f"{path} belongs to another attack: name another file, or delete it to start anew")
        return state


Progress = Callable[[AttackState], None]
Success = Callable[[Tensor], bool]


@dataclass(frozen=True, slots=True)
class _Ball:
    """The set that every iterate stays in: the norm's ball around the origin, cut with the bounds and the mask."""

    origin: Tensor
    settings: AttackSettings
    mask: Tensor | None = field(default=None)
    bounds: Bounds = PIXEL_BOUNDS

    def project(self, picture: Tensor) -> Tensor:
        """The nearest allowed picture (for L2 after the cut: an allowed one, since cutting only shortens)."""
        delta = picture - self.origin
        if self.settings.norm == "linf":
            delta = delta.clamp(-self.settings.eps, self.settings.eps)
        elif self.settings.norm == "l2":
            delta = delta * (self.settings.eps / delta.norm().clamp_min(1e-12)).clamp_max(1)
        moved = (self.origin + delta).clamp(*self.bounds)
        return moved if self.mask is None else torch.where(self.mask, moved, self.origin)


def pgd(
    picture: Tensor,
    loss: Loss,
    settings: AttackSettings,
    *,
    success: Success | None = None,
    progress: Progress | None = None,
    state: AttackState | None = None,
    bounds: Bounds = PIXEL_BOUNDS,
) -> AttackState:
    """Lower `loss` over the allowed pictures around `picture` (Madry et al., arXiv 1706.06083).

    Args:
        picture: The clean medium: a picture ``(3, H, W)`` in [0, 1], or a waveform ``(T,)`` in [-1, 1].
        loss: What to lower; called with the picture and the step's number over all starts.
        settings: The ball and the way through it.
        success: Asked every `check_every` steps and at a start's end; True ends the attack there.
        progress: Called with the state after each step; what it raises stops the attack, and the last state it saw
            can be passed on as `state`.
        state: Where to go on from; None begins.
        bounds: The least and the greatest value.

    Returns:
        The last state. ``best`` is the picture that succeeded, else the one of the lowest loss.

    Raises:
        ValueError: If the picture is not within the bounds, or the loss is not finite.
    """
    origin = picture.detach()
    low, high = bounds
    if not bool(((origin >= low) & (origin <= high)).all()):
        raise ValueError(f"the values lie in [{low:g}, {high:g}]")
    ball = _Ball(origin, settings, _mask(origin, settings.patch), bounds)
    now = _begin(origin) if state is None else _placed(state, origin)
    while not now.success and now.restart < settings.restarts:
        if now.step == settings.steps:
            now = _again(now, ball)
            continue
        now = _step(now, ball, loss)
        if success is not None and (now.step % settings.check_every == 0 or now.step == settings.steps):
            # Both are tried: the lowest loss is usually the better picture, but a flip may show on either.
            won = next((tried for tried in (now.best, now.picture) if success(tried)), None)
            now = now if won is None else replace(now, success=True, best=won)
        if progress is not None:
            progress(now)
    return now


def _begin(origin: Tensor) -> AttackState:
    return AttackState(origin.clone(), torch.zeros_like(origin), origin.clone())


def _placed(state: AttackState, origin: Tensor) -> AttackState:
    """The state on the picture's device; it must be of the same picture."""
    if state.picture.shape != origin.shape:
        raise ValueError(f"the state is of a {tuple(state.picture.shape)} picture, not {tuple(origin.shape)}")
    return replace(
        state, picture=state.picture.to(origin), velocity=state.velocity.to(origin), best=state.best.to(origin)
    )


def _again(now: AttackState, ball: _Ball) -> AttackState:
    """The next start: a random point of the ball, drawn from seed and number, so that a resumed run draws the same."""
    settings, number = ball.settings, now.restart + 1
    if number >= settings.restarts:
        return replace(now, restart=number)
    generator = torch.Generator().manual_seed(settings.seed + number)
    shape = ball.origin.shape
    if settings.norm == "linf":
        start = ball.origin + settings.eps * (2 * torch.rand(shape, generator=generator) - 1).to(ball.origin)
    elif settings.norm == "l2":
        direction = torch.randn(shape, generator=generator).to(ball.origin)
        radius = settings.eps * float(torch.rand((), generator=generator))
        start = ball.origin + radius * direction / direction.norm()
    else:
        low, high = ball.bounds
        start = (low + (high - low) * torch.rand(shape, generator=generator)).to(ball.origin)
    return replace(now, picture=ball.project(start), velocity=torch.zeros_like(ball.origin), restart=number, step=0)


def _step(now: AttackState, ball: _Ball, loss: Loss) -> AttackState:
    settings = ball.settings
    leaf = now.picture.detach().requires_grad_()
    value = loss(leaf, now.steps)
    (gradient,) = torch.autograd.grad(value, leaf)
    level = float(value.detach())
    if not (math.isfinite(level) and bool(torch.isfinite(gradient).all())):
        raise ValueError(f"the loss or its gradient is not finite at step {now.steps}; load the model in float32")
    velocity = settings.momentum * now.velocity + gradient / gradient.abs().mean().clamp_min(1e-12)
    direction = velocity / velocity.norm().clamp_min(1e-12) if settings.norm == "l2" else velocity.sign()
    moved = ball.project(now.picture - settings.length(now.step) * direction)
    better = level < now.best_loss
    return replace(
        now,
        picture=moved,
        velocity=velocity,
        best=now.picture if better else now.best,
        best_loss=level if better else now.best_loss,
        losses=(*now.losses, level),
        step=now.step + 1,
    )


def _mask(origin: Tensor, patch: Patch | None) -> Tensor | None:
    """True inside the patch, broadcastable to the picture."""
    if patch is None:
        return None
    height, width = origin.shape[-2:]
    bottom, right = patch.top + patch.size, patch.left + patch.size
    if min(patch.top, patch.left) < 0 or patch.size < 1 or bottom > height or right > width:
        raise ValueError(f"the patch does not lie inside the {height}x{width} picture")
    mask = torch.zeros((height, width), dtype=torch.bool, device=origin.device)
    mask[patch.top : bottom, patch.left : right] = True
    return mask
