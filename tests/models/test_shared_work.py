"""What copies share is done once: the prompt's processing, the text before the picture; towers see all in one batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from torch import nn

from sg_guardrails.core.media import Image
from sg_guardrails.core.policy import ImageNoise, Smoothing
from sg_guardrails.core.types import Copy, Prompt
from sg_guardrails.models import hf
from sg_guardrails.models.hf import HFSampler
from sg_guardrails.models.loading import Handle

NOISE = Smoothing(image=ImageNoise(sigma=0.5, space="model"))
PICTURE = Image(np.random.default_rng(0).random((40, 60, 3), dtype=np.float32))
PROMPT = Prompt.ask("What color is the shape?", PICTURE)
LONG = Prompt.ask("What is it?", PICTURE, system="You help people who cannot see the picture. " * 12)
COPIES = 11


def copies(prompt: Prompt) -> list[Copy]:
    return [Copy(prompt, seed) for seed in (None, *range(COPIES - 1))]


@contextmanager
def shapes_into(part: nn.Module) -> Iterator[list[tuple[int, ...]]]:
    """The shape of the first tensor that `part` is given, call by call."""
    seen: list[tuple[int, ...]] = []

    def note(_: nn.Module, given: tuple, named: dict) -> None:
        first = given[0] if given else next(iter(named.values()))
        seen.append(tuple(first.shape))

    hook = part.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield seen
    finally:
        hook.remove()


def part(handle: Handle, *names: str) -> nn.Module:
    """The first part of the model under one of these names."""
    modules = dict(handle.model.named_modules())
    return next(modules[name] for name in names if name in modules)


def built_in_or(model, name: str) -> Handle:
    return hf.load("builtin:shapes", device="cpu") if name == "built-in" else model(name)


@pytest.mark.parametrize("name", ["built-in", "llava", "llava_next", "idefics3", "gemma3", "qwen2_5_vl"])
def test_the_tower_sees_all_copies_in_one_batch(model, name):
    handle = built_in_or(model, name)
    tower = part(handle, "model.vision_tower", "model.vision_model", "model.visual")
    one = HFSampler(handle, max_new_tokens=3)
    with shapes_into(tower) as alone:
        one(copies(PROMPT)[:1], NOISE)
    with shapes_into(tower) as together:
        one(copies(PROMPT), NOISE)
    assert len(alone) == len(together) == 1
    assert together[0][0] == COPIES * alone[0][0]


@pytest.mark.parametrize("name", ["built-in", "llava", "qwen2_5_vl"])
def test_the_prompt_takes_one_pass_and_each_token_another(model, name):
    """And of the prompt only the last place becomes a word: one place for each pass goes to the output layer."""
    handle = built_in_or(model, name)
    with shapes_into(handle.model.get_output_embeddings()) as spoken:
        HFSampler(handle, max_new_tokens=3)(copies(PROMPT), NOISE)
    assert 1 <= len(spoken) <= 3
    assert {shape[:2] for shape in spoken} == {(COPIES, 1)}


@pytest.mark.parametrize("name", ["built-in", "llava"])
def test_a_long_beginning_is_computed_once_and_the_rest_for_each_copy(model, name):
    handle = built_in_or(model, name)
    layer = handle.model.get_decoder().layers[0]
    tokens = hf.encode(handle, LONG)["input_ids"].shape[1]
    with shapes_into(layer) as seen:
        HFSampler(handle, max_new_tokens=1)(copies(LONG), NOISE)
    (once, begun, _), (each, rest, _) = seen
    assert (once, each) == (1, COPIES)
    assert begun >= 32
    assert begun + rest == tokens


def test_a_request_that_is_asked_in_rounds_is_processed_once(model, monkeypatch):
    handle, seen = model("llava"), []
    real = hf.encode
    monkeypatch.setattr(hf, "encode", lambda handle, prompt: seen.append(prompt) or real(handle, prompt))
    sampler = HFSampler(handle, max_new_tokens=4)
    rounds = [sampler(copies(PROMPT)[:6], NOISE), sampler(copies(PROMPT)[6:], NOISE)]
    assert seen == [PROMPT]
    assert [*rounds[0], *rounds[1]] == HFSampler(handle, max_new_tokens=4)(copies(PROMPT), NOISE)


def test_what_is_kept_of_prompts_is_the_last_calls(model):
    sampler = HFSampler(model("llava"), max_new_tokens=1)
    for prompt in (PROMPT, LONG):
        sampler([Copy(prompt)], NOISE)
        assert list(sampler._encoded) == [prompt.digest]
