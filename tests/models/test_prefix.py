"""The shared beginning: the same answers with it as without it, on every family, and only where it may be shared."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from sg_guardrails.core.media import Image
from sg_guardrails.core.noise import Key, copies_of
from sg_guardrails.core.policy import ImageNoise, Smoothing
from sg_guardrails.core.types import Prompt
from sg_guardrails.models import hf, prefix
from sg_guardrails.models.loading import Handle
from sg_guardrails.testing import fake_audio

NOISE = Smoothing(copies=3, image=ImageNoise(space="pixel", sigma=0.3))
SYSTEM = "You help people who cannot see the picture. " * 12


def picture() -> Image:
    return Image(np.random.default_rng(0).random((40, 40, 3), dtype=np.float32))


def batch_of(handle: Handle, prompt: Prompt) -> dict[str, Tensor]:
    clean = hf.encode(handle, prompt)
    copies = copies_of(prompt, NOISE, Key(b"a key for tests, 16+"))
    return hf.collate(handle, [hf.perturb(handle, clean, copy, NOISE) for copy in copies])


def said(handle: Handle, batch: dict[str, Tensor], **more: object) -> Tensor:
    with torch.inference_mode():
        written: Tensor = handle.model.generate(**batch, max_new_tokens=12, **more)  # type: ignore[operator] # a method
    return written


@pytest.mark.parametrize("name", ["llava", "llava_next", "idefics3", "gemma3", "qwen2_5_vl", "qwen2_audio"])
def test_every_family_says_the_same_with_and_without(model: Callable[[str], Handle], name: str) -> None:
    handle = model(name)
    medium = fake_audio() if name == "qwen2_audio" else picture()
    batch = batch_of(handle, Prompt.ask("What is it?", medium, system=SYSTEM))
    plain = said(handle, batch)
    with torch.inference_mode():
        cache = prefix.shared_prefix(handle, batch)
    shared = name in ("llava", "llava_next", "idefics3", "qwen2_audio")
    assert (cache is not None) == shared
    if cache is not None:
        assert torch.equal(said(handle, batch, past_key_values=cache), plain)


def test_the_built_in_model_shares_a_long_system_prompt() -> None:
    handle = hf.load("builtin:shapes", device="cpu")
    batch = batch_of(handle, Prompt.ask("What color is the shape?", picture(), system=SYSTEM))
    with torch.inference_mode():
        cache = prefix.shared_prefix(handle, batch)
    assert cache is not None
    assert cache.get_seq_length() >= prefix.SHORTEST
    assert torch.equal(said(handle, batch, past_key_values=cache), said(handle, batch))


def test_what_may_not_be_shared_is_left_alone(model: Callable[[str], Handle]) -> None:
    handle = model("llava")
    short = batch_of(handle, Prompt.ask("What is it?", picture()))
    assert prefix.shared_prefix(handle, short) is None
    long = batch_of(handle, Prompt.ask("What is it?", picture(), system=SYSTEM))
    padded = {**long, "attention_mask": long["attention_mask"].clone()}
    padded["attention_mask"][0, 0] = 0
    assert prefix.shared_prefix(handle, padded) is None
    different = {**long, "input_ids": long["input_ids"].clone()}
    different["input_ids"][1, -1] += 1
    assert prefix.shared_prefix(handle, different) is None
    alone = {key: value[:1] for key, value in long.items()}
    assert prefix.shared_prefix(handle, alone) is None
