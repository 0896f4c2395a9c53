"""One attack from end to end: a clean prompt in, an adversarial picture or clip out, tested as tensor and as file."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from sg_guardrails.attacks.logmel import clip_of, wave_of
from sg_guardrails.attacks.loss import loss_of, pairs_of
from sg_guardrails.attacks.objectives import Expectation, Objective
from sg_guardrails.attacks.pgd import (
    PIXEL_BOUNDS,
    SAMPLE_BOUNDS,
    AttackSettings,
    AttackState,
    Bounds,
    Loss,
    Progress,
    pgd,
)
from sg_guardrails.attacks.pixels import image_of, tensor_of
from sg_guardrails.attacks.slots import WRITTEN, ClipSlot, PictureSlot, Row, Slot
from sg_guardrails.core.errors import ModelError
from sg_guardrails.core.media import Audio, Image, Media
from sg_guardrails.core.policy import Smoothing
from sg_guardrails.core.types import Copy, Message, Part, Prompt
from sg_guardrails.models import speech
from sg_guardrails.models.hf import HFSampler
from sg_guardrails.models.loading import Handle

JUDGING = 4
"""Fresh batches of draws on which the last iterate is compared with the luckiest, where a step's loss hangs on them."""


@dataclass(frozen=True, slots=True)
class AttackResult:
    """What an attack came to. The model's answers are untrusted text."""

    medium: Media
    """The adversarial picture, rounded to 8 bits as its PNG is, or the clip, rounded to 16 as its WAV is."""
    answers_float: tuple[str, ...] = field(repr=False)
    """One answer a prompt to the medium before rounding."""
    answers_saved: tuple[str, ...] = field(repr=False)
    """One answer a prompt to the saved file, loaded again and put through the real processor."""
    rate_float: float
    """Share of `answers_float` that reach the objective."""
    rate_saved: float
    """Share of `answers_saved` that do."""
    state: AttackState = field(repr=False)
    """Losses and iterate; another attack can go on from it."""

    @property
    def image(self) -> Image:
        """The adversarial picture. Raises TypeError where a clip was attacked."""
        if isinstance(self.medium, Image):
            return self.medium
        raise TypeError("a clip was attacked: it is in `audio`")

    @property
    def audio(self) -> Audio:
        """The adversarial clip, at the model's rate. Raises TypeError where a picture was attacked."""
        if isinstance(self.medium, Audio):
            return self.medium
        raise TypeError("a picture was attacked: it is in `image`")

    @property
    def success_float(self) -> bool:
        """Whether the medium before rounding reaches the objective on every prompt."""
        return self.rate_float == 1

    @property
    def success_saved(self) -> bool:
        """Whether the saved file reaches the objective on every prompt."""
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
    start, prompts = _shared(prompt, Image, which, "picture")
    # Resampling is exact in float64 only, which Apple's GPUs lack; the picture is small beside the model.
    home = handle.device if handle.device.type != "mps" else torch.device("cpu")
    search = _Search(
        [PictureSlot.of(handle, each, which=which) for each in prompts],
        tensor_of(start).to(home),
        lambda picture: Image.from_bytes(image_of(picture).to_png()),
        PIXEL_BOUNDS,
    )
    return _searched(
        handle,
        prompts,
        search=search,
        objective=objective,
        settings=settings,
        which=which,
        expectation=expectation,
        max_new_tokens=max_new_tokens,
        progress=progress,
        state=state,
    )


def attack_audio(
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
    """Search a clip near the prompt's own that makes the model reach the objective, as `attack_image` does.

    The clip is brought to the model's rate first, and its file is saved at that rate. For a perturbation N dB below
    the speech take the norm ``l2`` with ``logmel.radius_below(wave, N)`` as eps. Whisper reads no question: the
    prompt's text does not count.

    Raises:
        ModelError: If the model's feature extractor has no differentiable form, a prompt no such clip, or the clip is
            longer than the model's window; if the norm is ``patch``.
    """
    if settings.norm == "patch":
        raise ModelError("a patch is a square of a picture; a clip takes linf, l2 or unconstrained")
    start, prompts = _shared(prompt, Audio, which, "clip")
    start = at_models_rate(handle, start)
    prompts = tuple(with_medium(each, start, which=which) for each in prompts)
    search = _Search(
        [ClipSlot.of(handle, each, which=which) for each in prompts],
        wave_of(start).to(handle.device),
        lambda wave: Audio.from_bytes(clip_of(wave, start.rate).to_wav()),
        SAMPLE_BOUNDS,
    )
    return _searched(
        handle,
        prompts,
        search=search,
        objective=objective,
        settings=settings,
        which=which,
        expectation=expectation,
        max_new_tokens=max_new_tokens,
        progress=progress,
        state=state,
    )


def at_models_rate(handle: Handle, clip: Audio) -> Audio:
    """The clip as the model hears it. Raises ModelError for a model that hears nothing, or less than the whole clip."""
    if "audio" not in handle.takes:
        raise ModelError(f"{handle.id} hears no clips")
    extractor = handle.processor.feature_extractor
    rate, most = int(extractor.sampling_rate), getattr(extractor, "n_samples", math.inf)
    heard = clip if clip.rate == rate else Audio(speech.resample(clip, rate), rate)
    if heard.wave.size > most:
        raise ModelError(f"a clip of at most {most / rate:g} s can be attacked, this one has {heard.seconds:.1f} s")
    return heard


def with_medium(prompt: Prompt, medium: Media, *, which: int = 0) -> Prompt:
    """The prompt with its picture or clip number `which` replaced."""
    number = -1
    messages = []
    for message in prompt.messages:
        parts: list[Part] = []
        for part in message.parts:
            number += not isinstance(part, str)
            parts.append(medium if number == which and not isinstance(part, str) else part)
        messages.append(Message(message.role, tuple(parts)))
    return replace(prompt, messages=tuple(messages))


with_image = with_medium
"""The same, by the name that callers with pictures alone know."""


@dataclass(frozen=True, slots=True)
class _Search:
    """What differs between pictures and clips."""

    slots: Sequence[Slot]
    start: Tensor
    saved: Callable[[Tensor], Media]
    """The medium as its file, loaded again, holds it."""
    bounds: Bounds


def _shared(
    prompt: Prompt | Sequence[Prompt], kind: type[Any], which: int, word: str
) -> tuple[Any, tuple[Prompt, ...]]:
    """The first prompt's medium number `which`, and every prompt with it in that place."""
    prompts = (prompt,) if isinstance(prompt, Prompt) else tuple(prompt)
    if not prompts:
        raise ModelError("an attack takes at least one prompt")
    start = prompts[0].media[which] if which < len(prompts[0].media) else None
    if not isinstance(start, kind):
        raise ModelError(f"there is no {word} number {which} to attack in the prompt")
    return start, tuple(with_medium(each, start, which=which) for each in prompts)


def _searched(
    handle: Handle,
    prompts: Sequence[Prompt],
    *,
    search: _Search,
    objective: Objective,
    settings: AttackSettings,
    which: int,
    expectation: Expectation | None,
    max_new_tokens: int,
    progress: Progress | None,
    state: AttackState | None,
) -> AttackResult:
    def answers(medium: Tensor, *, rounding: bool) -> tuple[str, ...]:
        with torch.inference_mode():
            rows = [slot.row(medium, rounding=rounding) for slot in search.slots]
            return tuple(_answer(handle, row, max_new_tokens) for row in rows)

    def succeeds(medium: Tensor) -> bool:
        return all(map(objective.reached, answers(medium, rounding=True)))

    loss = loss_of(handle, search.slots, objective, expectation=expectation, seed=settings.seed)
    end = pgd(
        search.start,
        loss,
        settings,
        success=succeeds if expectation is None else None,
        progress=progress,
        state=state,
        bounds=search.bounds,
    )
    drawn = expectation is not None or len(pairs_of(objective, len(prompts))) > objective.batch
    best = _better(loss, end, settings) if drawn and not end.success else end.best
    before = answers(best, rounding=False)
    medium = search.saved(best)
    saved = _ask(handle, [with_medium(each, medium, which=which) for each in prompts], max_new_tokens)
    return AttackResult(medium, before, saved, _rate(objective, before), _rate(objective, saved), end)


def _better(loss: Loss, end: AttackState, settings: AttackSettings) -> Tensor:
    """The iterate of the lowest loss or the last one: a lowest loss may be luck of the draw, so fresh draws decide.

    Draws are of the guard's noise, and of the pairs of prompt and target where there are too many for one step.
    """
    fresh = range(settings.steps * settings.restarts, settings.steps * settings.restarts + JUDGING)
    with torch.no_grad():
        return min((end.picture, end.best), key=lambda tried: sum(float(loss(tried, step)) for step in fresh))


def _answer(handle: Handle, row: Row, max_new_tokens: int) -> str:
    batch = {
        name: value.to(handle.dtype) if value.is_floating_point() else value
        for name, value in row.items()
        if name != WRITTEN
    }
    settings: dict[str, Any] = {"max_new_tokens": max_new_tokens}
    if handle.transcribes:
        settings = speech.transcription(handle, batch, max_new_tokens)
    with handle.lock, speech.without_self_made_notices():
        written = handle.model.generate(**batch, **settings)  # type: ignore[operator] # typed as a Tensor
    begin = 0 if handle.transcribes else batch["input_ids"].shape[1]
    return str(handle.processor.tokenizer.decode(written[0, begin:], skip_special_tokens=True)).strip()


def _ask(handle: Handle, prompts: Sequence[Prompt], max_new_tokens: int) -> tuple[str, ...]:
    sampler = HFSampler(handle, max_new_tokens=max_new_tokens)
    return tuple(answer.text for answer in sampler([Copy(prompt) for prompt in prompts], Smoothing()))


def _rate(objective: Objective, answers: Sequence[str]) -> float:
    return sum(map(objective.reached, answers)) / len(answers)
