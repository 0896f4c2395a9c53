"""One attack from end to end: a clean prompt in, an adversarial picture out, tested as a tensor and as a saved file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from sg_guardrails.attacks.objectives import Expectation, Objective, Slot, loss_of
from sg_guardrails.attacks.pgd import AttackSettings, AttackState, Progress, pgd
from sg_guardrails.attacks.pixels import image_of, tensor_of
from sg_guardrails.core.errors import ModelError
from sg_guardrails.core.media import Image
from sg_guardrails.core.policy import Smoothing
from sg_guardrails.core.types import Copy, Message, Part, Prompt
from sg_guardrails.models import layouts
from sg_guardrails.models.hf import HFSampler
from sg_guardrails.models.loading import Handle


@dataclass(frozen=True, slots=True)
class AttackResult:
    """What an attack came to. The model's answers are untrusted text."""

    image: Image
    """The adversarial picture, rounded to 8 bits as its PNG is."""
    answers_float: tuple[str, ...] = field(repr=False)
    """One answer a prompt to the picture before rounding."""
    answers_saved: tuple[str, ...] = field(repr=False)
    """One answer a prompt to the PNG, loaded again and put through the real processor."""
    rate_float: float
    """Share of `answers_float` that reach the objective."""
    rate_saved: float
    """Share of `answers_saved` that do."""
    state: AttackState = field(repr=False)
    """Losses and iterate; another attack can go on from it."""

    @property
    def success_float(self) -> bool:
        """Whether the picture before rounding reaches the objective on every prompt."""
        return self.rate_float == 1

    @property
    def success_saved(self) -> bool:
        """Whether the saved picture reaches the objective on every prompt."""
        return self.rate_saved == 1

    @property
    def losses(self) -> tuple[float, ...]:
        """One per step taken."""
        return self.state.losses

    @property
    def steps(self) -> int:
        """Steps taken over all starts."""
        return self.state.steps


def attack_image(
    handle: Handle,
    prompt: Prompt | Sequence[Prompt],
    objective: Objective,
    settings: AttackSettings,
    *,
    which: int = 0,
    expectation: Expectation | None = None,
    max_new_tokens: int = 64,
    progress: Progress | None = None,
    state: AttackState | None = None,
) -> AttackResult:
    """Search a picture near the prompt's own that makes the model reach the objective.

    It stops as soon as the 8-bit picture succeeds on every prompt; with an expectation it takes all steps, since the
    clean pass is not what it is after.

    Args:
        handle: The model.
        prompt: One prompt, or several that are to share one adversarial picture (the first one's is the start).
        objective: What the attacker wants.
        settings: Budget and way.
        which: The attacked picture's number among the prompt's.
        expectation: The guard's noise, for an adaptive attack.
        max_new_tokens: Longest answer, tokens.
        progress: Called after each step.
        state: Where to go on from.

    Raises:
        ModelError: If the model's image processor has no differentiable form, or a prompt no such picture.
    """
    prompts = (prompt,) if isinstance(prompt, Prompt) else tuple(prompt)
    if not prompts:
        raise ModelError("an attack takes at least one prompt")
    start = prompts[0].media[which] if which < len(prompts[0].media) else None
    if not isinstance(start, Image):
        raise ModelError(f"there is no picture number {which} to attack in the prompt")
    prompts = tuple(with_image(each, start, which=which) for each in prompts)
    slots = [Slot.of(handle, each, which=which) for each in prompts]
    # Resampling is exact in float64 only, which Apple's GPUs lack; the picture is small beside the model.
    home = handle.device if handle.device.type != "mps" else torch.device("cpu")

    def answers(picture: Tensor, *, rounding: bool) -> tuple[str, ...]:
        with torch.inference_mode():
            return tuple(
                _answer(handle, slot, slot.values(picture, rounding=rounding), max_new_tokens) for slot in slots
            )

    def succeeds(picture: Tensor) -> bool:
        return all(map(objective.reached, answers(picture, rounding=True)))

    end = pgd(
        tensor_of(start).to(home),
        loss_of(handle, slots, objective, expectation=expectation, seed=settings.seed),
        settings,
        success=succeeds if expectation is None else None,
        progress=progress,
        state=state,
    )
    before = answers(end.best, rounding=False)
    image = Image.from_bytes(image_of(end.best).to_png())
    saved = _ask(handle, [with_image(each, image, which=which) for each in prompts], max_new_tokens)
    return AttackResult(image, before, saved, _rate(objective, before), _rate(objective, saved), end)


def with_image(prompt: Prompt, image: Image, *, which: int = 0) -> Prompt:
    """The prompt with its medium number `which` replaced."""
    number = -1
    messages = []
    for message in prompt.messages:
        parts: list[Part] = []
        for part in message.parts:
            number += not isinstance(part, str)
            parts.append(image if number == which and not isinstance(part, str) else part)
        messages.append(Message(message.role, tuple(parts)))
    return replace(prompt, messages=tuple(messages))


def _answer(handle: Handle, slot: Slot, values: Tensor, max_new_tokens: int) -> str:
    batch = {**slot.inputs, layouts.PIXELS: values.to(handle.dtype)}
    with handle.lock:
        written = handle.model.generate(**batch, max_new_tokens=max_new_tokens)  # type: ignore[operator] # typed as a Tensor
    length = slot.inputs["input_ids"].shape[1]
    return str(handle.processor.tokenizer.decode(written[0, length:], skip_special_tokens=True)).strip()


def _ask(handle: Handle, prompts: Sequence[Prompt], max_new_tokens: int) -> tuple[str, ...]:
    sampler = HFSampler(handle, max_new_tokens=max_new_tokens)
    return tuple(answer.text for answer in sampler([Copy(prompt) for prompt in prompts], Smoothing()))


def _rate(objective: Objective, answers: Sequence[str]) -> float:
    return sum(map(objective.reached, answers)) / len(answers)
