"""A Hugging Face checkpoint that sees or hears becomes a Sampler: encode once, add noise, generate in one batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import BatchFeature

from sg_guardrails.core.errors import GuardError, MediaError, ModelError, SamplingError
from sg_guardrails.core.forking import Lock
from sg_guardrails.core.media import Image
from sg_guardrails.core.policy import Smoothing
from sg_guardrails.core.serving import ModelSection
from sg_guardrails.core.types import Answer, Copy, Prompt
from sg_guardrails.models import chat, decoding, layouts, memory, speech
from sg_guardrails.models.loading import Handle, load
from sg_guardrails.models.prefix import shared_prefix

__all__ = ["HFSampler", "Handle", "encode", "load", "load_section", "perturb"]


def load_section(model: ModelSection) -> Handle:
    """Load the model that a policy names, as it says. Raises ModelError as `load` does."""
    return load(
        model.id,
        revision=model.revision,
        device=model.device,
        dtype=model.dtype,
        attention=model.attention,
        quantization=model.quantization,
    )


class HFSampler:
    """Asks a local model.

    Args:
        model: A loaded model, or a function that loads it when it is first needed.
        max_new_tokens: Longest answer, tokens.
        copies_per_batch: Most copies in one ``generate``; halved by itself when memory runs out.
        memory_share: Most of a GPU's memory that the process may take; batches are cut to what is left of it.
        cache: ``static`` keeps room for the longest answer from the start; ``auto`` does under `compiled` alone.
        compiled: Have torch compile the decoding step.
    """

    def __init__(
        self,
        model: Handle | Callable[[], Handle],
        *,
        max_new_tokens: int = 128,
        copies_per_batch: int = 64,
        memory_share: float = 1.0,
        cache: Literal["auto", "dynamic", "static"] = "auto",
        compiled: bool = False,
    ) -> None:
        self._load: Callable[[], Handle] = (lambda: model) if isinstance(model, Handle) else model
        self._handle: Handle | None = None
        self._once = Lock()
        self._max_new_tokens = max_new_tokens
        self._copies_per_batch = copies_per_batch
        self._memory_share = memory_share
        self._decoding = decoding.settings(cache, compiled=compiled)
        self._encoded: dict[str, BatchFeature] = {}

    @classmethod
    def of(cls, model: ModelSection) -> HFSampler:
        """Asks the model that a policy names, as it says; loaded at the first call."""
        return cls(
            lambda: load_section(model),
            max_new_tokens=model.max_new_tokens,
            copies_per_batch=model.copies_per_batch,
            memory_share=model.memory_share,
            cache=model.cache,
            compiled=model.compile,
        )

    def warm_up(self) -> Handle:
        """Load the model now, unless it is loaded. Raises ModelError if it can't be, or can't be compiled here."""
        with self._once:
            if self._handle is None:
                handle = self._load()
                decoding.refuse_without_compiler(self._decoding, handle.device)
                memory.limit(handle.device, self._memory_share)
                self._handle = handle
            return self._handle

    def __call__(self, copies: Sequence[Copy], smoothing: Smoothing) -> list[Answer]:
        """One answer per copy, in order.

        Greedy decoding, so an answer depends on the copy's prompt and noise alone, not on what else is in the batch
        (up to the rounding of batched arithmetic).

        Raises:
            MediaError: If the model can't take a medium of a prompt; before anything is generated.
            ModelError: If the model can't be loaded, or can't take noise or this conversation.
            SamplingError: If the model fails while it runs.
        """
        handle = self.warm_up()  # what fails here is set-up; below, a ModelError is about one request
        prompts = {copy.prompt.digest: copy.prompt for copy in copies}
        for prompt in prompts.values():
            refuse_other_media(handle, prompt)
        try:
            with handle.lock, torch.inference_mode():
                # The prompts of the last call are kept: a request that is asked in rounds is processed once.
                known = self._encoded
                encoded = {digest: known.get(digest) or encode(handle, prompt) for digest, prompt in prompts.items()}
                self._encoded = encoded
                jobs = [_Job(index, copy, encoded[copy.prompt.digest]) for index, copy in enumerate(copies)]
                said = {job.index: text for batch in _alike(jobs) for job, text in self._ask(handle, batch, smoothing)}
        except ModelError as error:
            raise SamplingError(f"{handle.id}: {error}") from error
        except GuardError:
            raise
        except Exception as error:  # any of torch's, transformers' or a processor's errors; none of them is a pass
            raise SamplingError(f"{handle.id} failed while answering: {type(error).__name__}") from error
        return [chat.read_answer(said[index]) for index in range(len(copies))]

    def noisy_values(self, prompt: Prompt) -> int:
        """How many pixel values of the model's input take noise for this prompt: what a certificate is about.

        The noise is drawn for the processed tensor, after resizing, and nothing clips it. A pixel that a processor
        shows the model several times (LLaVA-Next's base picture and tiles) counts as often.

        Raises:
            ModelError: If the prompt's media are laid out in a way that noise can't be put on.
        """
        handle = self.warm_up()
        refuse_other_media(handle, prompt)
        with handle.lock:
            inputs = encode(handle, prompt)
            if layouts.PIXELS not in inputs:
                raise ModelError(f"{handle.id} was given no picture, so none takes noise")
            return layouts.noisy_values(inputs, handle.processor.image_processor)

    def _ask(self, handle: Handle, jobs: Sequence[_Job], smoothing: Smoothing) -> Iterator[tuple[_Job, str]]:
        """Generate in pieces that fit by count; one that doesn't fit after all is halved and asked again."""
        free = memory.free_bytes(handle.device, self._memory_share)
        longest = max(jobs, key=lambda job: sum(value.numel() for value in job.inputs.values()))
        fitting = memory.rows_that_fit(handle, longest.inputs, self._max_new_tokens, free)
        size, done = min(self._copies_per_batch, fitting or self._copies_per_batch), 0
        while done < len(jobs):
            piece = jobs[done : done + size]
            try:
                texts = _generate(handle, piece, smoothing, self._max_new_tokens, self._decoding)
            except RuntimeError as error:  # torch.OutOfMemoryError is one; a CPU says it in words
                if "out of memory" not in str(error).lower() and "can't allocate memory" not in str(error).lower():
                    raise
                if len(piece) == 1:
                    raise SamplingError(f"{handle.id}: not enough memory for a single copy") from error
                size = len(piece) // 2
                continue
            yield from zip(piece, texts, strict=True)
            done += len(piece)


@dataclass(frozen=True, slots=True)
class _Job:
    index: int
    copy: Copy
    inputs: layouts.Inputs


def refuse_other_media(handle: Handle, prompt: Prompt) -> None:
    """Raise MediaError, naming model and medium, where a prompt holds what the model can't take."""
    for part in prompt.media:
        medium = "image" if isinstance(part, Image) else "audio"
        if medium not in handle.takes:
            raise MediaError(f"{handle.id} takes {' and '.join(sorted(handle.takes))}, not {medium}")
    if handle.transcribes and len(prompt.media) != 1:
        raise MediaError(f"{handle.id} transcribes exactly one clip at a time, this prompt has {len(prompt.media)}")


def encode(handle: Handle, prompt: Prompt) -> BatchFeature:
    """What the model takes for one clean prompt: tensors of batch size 1 on the handle's device, floats in float32.

    Whisper has no chat: it gets the clip's features, and the prompt's text is ignored.

    Raises:
        MediaError: If a clip is too long for the model.
        ModelError: If the chat template can't say the conversation.
    """
    heard = speech.waves(handle, prompt)
    if handle.transcribes:
        return BatchFeature(dict(speech.features(handle, heard)))
    media: dict[str, Any] = {}
    if pictures := [part.to_pil() for part in prompt.media if isinstance(part, Image)]:
        media["images"] = [pictures]
    if heard:
        media |= {"audio": heard, "sampling_rate": handle.processor.feature_extractor.sampling_rate}
    with handle.lock:
        text = chat.render(handle.processor, prompt)
        # Most chat templates write the begin-of-sequence token themselves, and models are not trained on two.
        begins = handle.processor.tokenizer.bos_token
        media["add_special_tokens"] = begins is None or not text.startswith(begins)
        inputs = handle.processor(text=[text], return_tensors="pt", **media)
    return BatchFeature({name: torch.as_tensor(value).to(handle.device) for name, value in inputs.items()})


def perturb(handle: Handle, inputs: layouts.Inputs, copy: Copy, smoothing: Smoothing) -> layouts.Inputs:
    """`inputs` of one prompt with the copy's own noise on every picture and clip; as they are where its seed is None.

    Noise comes from one generator on the model's device, seeded by the copy: the same numbers in any batch, but not
    the same on a GPU as on a CPU.

    Raises:
        ModelError: If a medium is laid out in a way that noise can't be put on.
    """
    if copy.seed is None:
        return inputs
    known = (layouts.PIXELS, speech.FEATURES)
    if unknown := [name for name, value in inputs.items() if value.is_floating_point() and name not in known]:
        raise ModelError(f"{handle.id}: noise on {', '.join(unknown)} is not supported")
    generator = torch.Generator(handle.device).manual_seed(copy.seed)

    def draw(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=generator, device=handle.device)

    changed: dict[str, Tensor] = {}
    if layouts.PIXELS in inputs:
        processor = handle.processor.image_processor
        changed[layouts.PIXELS] = layouts.add_noise(inputs, processor, smoothing.image.of(copy.seed), draw)
    if speech.FEATURES in inputs:
        heard = [speech.noisy(wave, smoothing.audio, draw) for wave in speech.waves(handle, copy.prompt)]
        changed |= speech.features(handle, heard)
    return {**inputs, **changed}


def _generate(
    handle: Handle, jobs: Sequence[_Job], smoothing: Smoothing, max_new_tokens: int, how: Mapping[str, Any]
) -> list[str]:
    batch = collate(handle, [perturb(handle, job.inputs, job.copy, smoothing) for job in jobs])
    settings: dict[str, Any] = {"max_new_tokens": max_new_tokens}
    if handle.transcribes:
        settings = speech.transcription(handle, batch, max_new_tokens)
    elif how and not handle.model.config.is_encoder_decoder:
        settings |= how  # a static cache is laid out for all rows at once, so no beginning is shared in it
    elif (cache := shared_prefix(handle, batch)) is not None:
        settings["past_key_values"] = cache
    generate: Any = handle.model.generate
    with speech.without_self_made_notices() if handle.transcribes else nullcontext():
        written = generate(**batch, **settings)
    if not handle.model.config.is_encoder_decoder:
        written = written[:, batch["input_ids"].shape[1] :]
    texts = handle.processor.tokenizer.batch_decode(written, skip_special_tokens=True)
    return [text.strip() for text in texts]


def _alike(jobs: Sequence[_Job]) -> list[list[_Job]]:
    """Jobs whose tensors can stand in one batch: the same names, and the same shapes but for rows and text length."""
    groups: dict[object, list[_Job]] = {}
    for job in jobs:
        shapes = ((name, () if _is_text(job.inputs, name) else value.shape[1:]) for name, value in job.inputs.items())
        groups.setdefault(frozenset(shapes), []).append(job)
    return list(groups.values())


def collate(handle: Handle, rows: Sequence[layouts.Inputs]) -> dict[str, Tensor]:
    """One batch: texts padded on the left (the answer follows on the right), everything else put end to end."""
    batch: dict[str, Tensor] = {}
    for name, first in rows[0].items():
        parts = [row[name] for row in rows]
        if _is_text(rows[0], name):
            fill = handle.model.generation_config.pad_token_id if name == "input_ids" else 0
            width = max(part.shape[1] for part in parts)
            parts = [torch.nn.functional.pad(part, (width - part.shape[1], 0), value=fill) for part in parts]
        whole = torch.cat(parts)
        batch[name] = whole.to(handle.dtype) if first.is_floating_point() else whole
    return batch


def _is_text(inputs: Mapping[str, Tensor], name: str) -> bool:
    ids = inputs.get("input_ids")
    return ids is not None and inputs[name].shape == ids.shape and not inputs[name].is_floating_point()
