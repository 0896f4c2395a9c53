"""Many attacks in one batch, each on its own picture and for its own goal: several times faster on a small model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sg_guardrails.attacks.attack import with_image
from sg_guardrails.attacks.loss import draws_of, target_tokens, unlikeliness
from sg_guardrails.attacks.objectives import Expectation, Objective
from sg_guardrails.attacks.pgd import AttackSettings, _Ball, _mask
from sg_guardrails.attacks.pixels import image_of, tensor_of
from sg_guardrails.attacks.slots import PictureSlot
from sg_guardrails.core.errors import ModelError
from sg_guardrails.core.media import Image
from sg_guardrails.core.policy import Smoothing
from sg_guardrails.core.types import Copy, Prompt
from sg_guardrails.models.hf import HFSampler
from sg_guardrails.models.loading import Handle


@dataclass(frozen=True, slots=True, kw_only=True)
class Together:
    """One of many attacks: its picture after all steps, and the one at its first success."""

    image: Image
    """Rounded to 8 bits: of the lowest loss; with an expectation, whose losses are noisy, after the last step."""
    answer: str = field(repr=False)
    """What the model says to it. Untrusted text."""
    success: bool
    first: Image | None
    """The first checked picture that succeeded, 8 bits; None where none did."""
    first_step: int | None
    """Steps that it took."""
    loss: float
    """Of `image`, mean negative log-likelihood of the goal's tokens (the last step's, with an expectation)."""


def attack_many(
    handle: Handle,
    prompts: Sequence[Prompt],
    objectives: Sequence[Objective],
    settings: AttackSettings,
    *,
    seeds: Sequence[int],
    expectation: Expectation | None = None,
    check_at: Sequence[int] = (),
    max_new_tokens: int = 64,
    progress: Callable[[int], None] | None = None,
) -> list[Together]:
    """Attack the first picture of each prompt, all of them at once, without stopping early.

    Each attack takes the way that it would take alone (up to the rounding of batched arithmetic): its gradient is
    scaled by itself and its noise drawn from its own seed.

    Args:
        handle: The model.
        prompts: One an attack; their pictures are of one size.
        objectives: One an attack, each with one target text.
        settings: Budget and way, the same for all; one start, no L2.
        seeds: One an attack, of its noise draws.
        expectation: The guard's noise, for an adaptive attack.
        check_at: Steps after which the 8-bit pictures are tried, to find the first that succeeds.
        max_new_tokens: Longest answer, tokens.
        progress: Told the steps taken, after each.

    Raises:
        ModelError: If a prompt has no picture that can be attacked, or the pictures differ in size.
        ValueError: If an objective has several targets, or the settings ask for L2 or several starts.
    """
    batch = _Batch.of(handle, prompts, objectives, settings, seeds=seeds, expectation=expectation)
    first: dict[int, tuple[Image, int]] = {}
    for step in range(settings.steps):
        batch.step(step)
        if step + 1 in check_at:
            _note(handle, prompts, objectives, batch.now, step + 1, first, max_new_tokens)
        if progress is not None:
            progress(step + 1)
    images = [_saved(picture) for picture in (batch.best if expectation is None else batch.now)]
    answers = _asked(handle, prompts, images, max_new_tokens)
    ends = zip(images, answers, objectives, batch.lowest.tolist(), strict=True)
    results = []
    for index, (image, answer, goal, loss) in enumerate(ends):
        success = goal.reached(answer)
        early, at = first.get(index, (image, settings.steps) if success else (None, None))
        results.append(Together(image=image, answer=answer, success=success, first=early, first_step=at, loss=loss))
    return results


@dataclass(slots=True)
class _Batch:
    """The iterates of all attacks, ``(B, 3, H, W)`` each: what changes from step to step."""

    ball: _Ball
    losses: Callable[[Tensor, int], Tensor]
    lucky: bool
    """Whether losses hang on the draws of a step: the lowest is then no better than the last."""
    now: Tensor
    velocity: Tensor
    best: Tensor
    lowest: Tensor
    """``(B,)`` of `best`."""

    @classmethod
    def of(
        cls,
        handle: Handle,
        prompts: Sequence[Prompt],
        objectives: Sequence[Objective],
        settings: AttackSettings,
        *,
        seeds: Sequence[int],
        expectation: Expectation | None,
    ) -> _Batch:
        """Begin at the clean pictures. Raises as `attack_many` does."""
        if settings.norm == "l2" or settings.restarts > 1 or any(len(goal.targets) != 1 for goal in objectives):
            raise ValueError("attacks in one batch take one target each, one start, and no l2")
        slots = [PictureSlot.of(handle, prompt) for prompt in prompts]
        pictures = [tensor_of(prompt.media[0]) for prompt in prompts if isinstance(prompt.media[0], Image)]
        if len({picture.shape for picture in pictures}) != 1:
            raise ModelError("attacks in one batch take pictures of one size")
        origins = torch.stack(pictures).to(handle.device)
        return cls(
            _Ball(origins, settings, _mask(origins, settings.patch)),
            _losses(handle, slots, objectives, seeds, expectation),
            lucky=expectation is not None,
            now=origins.clone(),
            velocity=torch.zeros_like(origins),
            best=origins.clone(),
            lowest=torch.full((len(slots),), torch.inf, device=handle.device),
        )

    def step(self, number: int) -> None:
        """One step of every attack, as `pgd` takes it for one."""
        settings = self.ball.settings
        leaf = self.now.detach().requires_grad_()
        losses = self.losses(leaf, number)
        (gradient,) = torch.autograd.grad(losses.sum(), leaf)
        losses = losses.detach()
        better = torch.ones_like(losses, dtype=torch.bool) if self.lucky else losses < self.lowest
        self.best[better], self.lowest[better] = self.now[better], losses[better]
        size = gradient.abs().mean((1, 2, 3), keepdim=True).clamp_min(1e-12)
        self.velocity = settings.momentum * self.velocity + gradient / size
        self.now = self.ball.project(self.now - settings.length(number) * self.velocity.sign())


def _losses(
    handle: Handle,
    slots: Sequence[PictureSlot],
    objectives: Sequence[Objective],
    seeds: Sequence[int],
    expectation: Expectation | None,
) -> Callable[[Tensor, int], Tensor]:
    """``(B, 3, H, W)`` pictures and the step's number to ``(B,)`` losses."""
    targets = [target_tokens(handle, goal.targets[0], ends=goal.ends) for goal in objectives]
    signs = torch.tensor([-1.0 if goal.away else 1.0 for goal in objectives], device=handle.device)
    draws = 1 if expectation is None else expectation.draws
    kept = 1 if expectation is None else -int(-expectation.share * draws // 1)

    def losses(pictures: Tensor, step: int) -> Tensor:
        rows, labels = [], []
        for slot, picture, target, seed in zip(slots, pictures, targets, seeds, strict=True):
            draw = draws_of(handle, seed, step)
            rows += [slot.row(picture)] if expectation is None else slot.noisy(picture, expectation.dealt, draw)
            labels += [target] * draws
        each = signs[:, None] * unlikeliness(handle, rows, labels).view(len(slots), draws)
        return each.topk(kept, dim=1, largest=False).values.mean(dim=1)

    return losses


def _note(
    handle: Handle,
    prompts: Sequence[Prompt],
    objectives: Sequence[Objective],
    pictures: Tensor,
    step: int,
    first: dict[int, tuple[Image, int]],
    max_new_tokens: int,
) -> None:
    """Try the saved pictures of the attacks that have not succeeded so far."""
    open_ = [index for index in range(len(prompts)) if index not in first]
    images = [_saved(pictures[index]) for index in open_]
    answers = _asked(handle, [prompts[index] for index in open_], images, max_new_tokens)
    for index, image, answer in zip(open_, images, answers, strict=True):
        if objectives[index].reached(answer):
            first[index] = image, step


def _saved(picture: Tensor) -> Image:
    return Image.from_bytes(image_of(picture).to_png())


def _asked(handle: Handle, prompts: Sequence[Prompt], images: Sequence[Image], max_new_tokens: int) -> list[str]:
    copies = [Copy(with_image(prompt, image)) for prompt, image in zip(prompts, images, strict=True)]
    return [answer.text for answer in HFSampler(handle, max_new_tokens=max_new_tokens)(copies, Smoothing())]
