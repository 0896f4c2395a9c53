"""Where the attacked medium stands in a prompt's tensors: a picture among pictures, a clip among clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from sg_guardrails.attacks.logmel import log_mel, to_16_bit
from sg_guardrails.attacks.pixels import as_called, pixel_values, tensor_of
from sg_guardrails.core.errors import ModelError
from sg_guardrails.core.media import Audio, Image
from sg_guardrails.core.noise import audio_sigma
from sg_guardrails.core.policy import AudioNoise, ImageNoise
from sg_guardrails.core.types import Prompt
from sg_guardrails.models import layouts, speech
from sg_guardrails.models.hf import encode
from sg_guardrails.models.layouts import Draw
from sg_guardrails.models.loading import Handle

TOLERANCE = 1e-4
"""Most that our preprocessing may differ from the processor's, in the model's units."""
WRITTEN = "decoder_input_ids"
"""The tokens with which an encoder-decoder begins its answer."""
Noise = ImageNoise | AudioNoise
Row = Mapping[str, Tensor]
"""One prompt's tensors, batch size 1."""


class Slot(Protocol):
    """One prompt with a place for the attacked medium."""

    @property
    def inputs(self) -> Row:
        """The clean prompt, encoded."""
        ...

    def row(self, medium: Tensor, *, rounding: bool = True) -> Row:
        """The prompt's tensors with this medium in its place."""
        ...

    def noisy(self, medium: Tensor, noises: Sequence[Noise], draw: Draw) -> list[Row]:
        """One row for each noise, drawn as the guard draws it, on every medium of the prompt."""
        ...


@dataclass(frozen=True, slots=True)
class PictureSlot:
    """Where the attacked picture stands in one prompt's tensors."""

    inputs: Row
    """The clean prompt, encoded (batch size 1)."""
    image_processor: Any
    """As the model's processor calls it."""
    axis: int
    """Along which several pictures follow each other in ``pixel_values``."""
    start: int
    """The picture's first row there."""
    whole: bool
    """True where it is the only picture."""

    @classmethod
    def of(cls, handle: Handle, prompt: Prompt, *, which: int = 0) -> PictureSlot:
        """Encode a prompt and find its picture number `which`.

        Raises:
            ModelError: If the prompt has no such picture, or clips beside it, or if our own preprocessing of it is not
                the processor's: an attack on other values would pass for a robust model.
        """
        pictures = [part for part in prompt.media if isinstance(part, Image)]
        if len(pictures) != len(prompt.media) or which >= len(pictures):
            raise ModelError(f"there is no picture number {which} to attack in the prompt, or it holds clips too")
        inputs = dict(encode(handle, prompt))
        pixels = inputs[layouts.PIXELS]
        # Idefics3 counts prompts along axis 0, their pictures' tiles along axis 1; the others put pictures end to end.
        axis = 1 if pixels.ndim == 5 and pixels.shape[0] < len(pictures) else 0
        processor = as_called(handle.processor)
        with torch.no_grad():
            own = [pixel_values(processor, tensor_of(image)) for image in pictures[: which + 1]]
        slot = cls(inputs, processor, axis, sum(values.shape[axis] for values in own[:-1]), len(pictures) == 1)
        filled = slot.filled(own[-1])
        if filled.shape != pixels.shape or bool((filled - pixels).abs().max() > TOLERANCE):
            raise ModelError(
                f"our preprocessing differs from that of {type(handle.processor.image_processor).__name__}"
            )
        return slot

    def row(self, medium: Tensor, *, rounding: bool = True) -> Row:
        """The prompt's tensors with this picture, ``(3, H, W)`` in [0, 1], in its place."""
        values = pixel_values(self.image_processor, medium, rounding=rounding)
        return {**self.inputs, layouts.PIXELS: self.filled(values)}

    def noisy(self, medium: Tensor, noises: Sequence[Noise], draw: Draw) -> list[Row]:
        """One row for each noise, on the processed tensors as the guard has it."""
        row, rows = self.row(medium), list[Row]()
        for noise in noises:
            if not isinstance(noise, ImageNoise):
                raise ModelError("an attack on a picture expects noise on pictures")
            rows.append({**row, layouts.PIXELS: layouts.add_noise(row, self.image_processor, noise, draw)})
        return rows

    def filled(self, values: Tensor) -> Tensor:
        """The prompt's ``pixel_values`` with these in the picture's place."""
        clean = self.inputs[layouts.PIXELS]
        values = values.to(clean)
        if self.whole:
            return values
        after = self.start + values.shape[self.axis]
        behind = clean.narrow(self.axis, after, clean.shape[self.axis] - after)
        return torch.cat((clean.narrow(self.axis, 0, self.start), values, behind), dim=self.axis)


@dataclass(frozen=True, slots=True)
class ClipSlot:
    """Where the attacked clip stands in one prompt's tensors."""

    inputs: Row
    """The clean prompt, encoded; for a model that transcribes also the tokens with which its answer begins."""
    extractor: Any
    """The model's feature extractor."""
    others: tuple[Tensor, ...]
    """Every clip of the prompt, ``(T,)`` at the model's rate."""
    which: int
    """The attacked clip's number among them."""

    @classmethod
    def of(cls, handle: Handle, prompt: Prompt, *, which: int = 0) -> ClipSlot:
        """Encode a prompt and find its clip number `which`.

        Raises:
            ModelError: If the prompt has no such clip, or pictures beside it, or if our own features of its clips are
                not the extractor's.
        """
        clips = [part for part in prompt.media if isinstance(part, Audio)]
        if len(clips) != len(prompt.media) or which >= len(clips):
            raise ModelError(f"there is no clip number {which} to attack in the prompt, or it holds pictures too")
        inputs = dict(encode(handle, prompt))
        extractor = handle.processor.feature_extractor
        waves = tuple(torch.from_numpy(wave.copy()).to(handle.device) for wave in speech.waves(handle, prompt))
        if handle.transcribes:
            inputs[WRITTEN] = _opening(handle, inputs)
        slot = cls(inputs, extractor, waves, which)
        own, theirs = slot.row(waves[which], rounding=False)[speech.FEATURES], inputs[speech.FEATURES]
        if own.shape != theirs.shape or bool((own - theirs).abs().max() > TOLERANCE):
            raise ModelError(f"our features differ from those of {type(extractor).__name__}")
        return slot

    def row(self, medium: Tensor, *, rounding: bool = True) -> Row:
        """The prompt's tensors with this clip, ``(T,)`` in [-1, 1] at the model's rate, in its place."""
        heard = self._placed(to_16_bit(medium) if rounding else medium)
        return {**self.inputs, speech.FEATURES: torch.cat([log_mel(self.extractor, wave[None]) for wave in heard])}

    def noisy(self, medium: Tensor, noises: Sequence[Noise], draw: Draw) -> list[Row]:
        """One row for each noise, on the waveforms as the guard has it (its level is the clip's, taken as given)."""
        heard, rows = self._placed(to_16_bit(medium)), list[Row]()
        for noise in noises:
            if not isinstance(noise, AudioNoise):
                raise ModelError("an attack on a clip expects noise on clips")
            sigmas = [audio_sigma(wave.detach().cpu().numpy(), noise) for wave in heard]
            drawn = [wave + sigma * draw(tuple(wave.shape)) for wave, sigma in zip(heard, sigmas, strict=True)]
            features = torch.cat([log_mel(self.extractor, wave[None]) for wave in drawn])
            rows.append({**self.inputs, speech.FEATURES: features})
        return rows

    def _placed(self, wave: Tensor) -> list[Tensor]:
        return [wave if index == self.which else other for index, other in enumerate(self.others)]


def _opening(handle: Handle, inputs: Row) -> Tensor:
    """``(1, P)`` control tokens that ``generate`` puts before a transcript: start, language, task, timestamps off."""
    settings: Any = handle.model.generation_config
    tokens = [settings.decoder_start_token_id]
    if getattr(settings, "is_multilingual", False):
        with handle.lock, torch.inference_mode():
            heard = inputs[speech.FEATURES].to(handle.dtype)
            tokens.append(int(handle.model.detect_language(input_features=heard)[0]))  # type: ignore[operator] # typed as a Tensor
        tokens.append(settings.task_to_id["transcribe"])
    if (silent := getattr(settings, "no_timestamps_token_id", None)) is not None:
        tokens.append(silent)
    return torch.tensor([tokens], device=handle.device)
