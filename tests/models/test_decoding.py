"""A static cache and a compiled step say what the dynamic cache says; what they need is asked for at once."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from sg_guardrails.core.errors import ModelError, PolicyError
from sg_guardrails.core.media import Image
from sg_guardrails.core.policy import ImageNoise, Policy, Smoothing
from sg_guardrails.core.types import Copy, Prompt
from sg_guardrails.models import decoding, hf
from sg_guardrails.models.hf import HFSampler
from sg_guardrails.testing import fake_audio

NOISE = Smoothing(image=ImageNoise(sigma=0.5, space="model"))
PICTURE = Image(np.random.default_rng(0).random((40, 60, 3), dtype=np.float32))
SYSTEM = "You help people who cannot see the picture. " * 12


def copies(medium=PICTURE) -> list[Copy]:
    """Two prompts of different length, so that rows are padded, and one long enough to share its beginning."""
    prompts = [
        Prompt.ask("What color is the shape?", medium),
        Prompt.ask("Is there a red circle in the picture or not?", medium),
        Prompt.ask("What is it?", medium, system=SYSTEM),
    ]
    return [Copy(prompt, seed) for prompt in prompts for seed in (None, 1, 2)]


def test_the_built_in_model_says_the_same_with_a_static_cache():
    handle = hf.load("builtin:shapes", device="cpu")
    dynamic = HFSampler(handle, max_new_tokens=24)(copies(), NOISE)
    assert HFSampler(handle, max_new_tokens=24, cache="static")(copies(), NOISE) == dynamic
    assert HFSampler(handle, max_new_tokens=24)(copies(), NOISE) == dynamic  # nothing of it stays on the model


@pytest.mark.parametrize("name", ["llava", "llava_next", "idefics3", "gemma3", "qwen2_5_vl", "qwen2_audio"])
def test_every_family_says_the_same_with_a_static_cache(model, name):
    asked = copies(fake_audio() if name == "qwen2_audio" else PICTURE)
    dynamic = HFSampler(model(name), max_new_tokens=6)(asked, NOISE)
    assert HFSampler(model(name), max_new_tokens=6, cache="static")(asked, NOISE) == dynamic


def test_the_static_cache_is_really_used(monkeypatch):
    handle, told = hf.load("builtin:shapes", device="cpu"), []
    generate = handle.model.generate
    monkeypatch.setattr(handle.model, "generate", lambda **how: told.append(how) or generate(**how))
    HFSampler(handle, max_new_tokens=2, cache="static")(copies()[:2], NOISE)
    HFSampler(handle, max_new_tokens=2, cache="auto")(copies()[:2], NOISE)
    assert [how.get("cache_implementation") for how in told] == ["static", None]
    assert told[0]["disable_compile"] is True


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, decoding.COMPILERS)), reason="no C++ compiler here")
def test_the_compiled_step_says_the_same():
    handle = hf.load("builtin:shapes", device="cpu", dtype="float32")
    asked = copies()[:3]
    dynamic = HFSampler(handle, max_new_tokens=8)(asked, NOISE)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    assert HFSampler(handle, max_new_tokens=8, compiled=True)(asked, NOISE) == dynamic
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0


def test_compiling_without_a_compiler_is_refused_when_the_model_is_loaded(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    sampler = HFSampler(hf.load("builtin:shapes", device="cpu"), compiled=True)
    with pytest.raises(ModelError, match=r"install g\+\+, or set `model: \{compile: false\}`"):
        sampler.warm_up()
    HFSampler(hf.load("builtin:shapes", device="cpu"), cache="static").warm_up()


def test_a_gpu_compiles_with_triton(monkeypatch):
    monkeypatch.setattr(decoding.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="needs triton"):
        decoding.refuse_without_compiler(decoding.settings("auto", compiled=True), torch.device("cuda", 0))


def test_a_policy_compiles_with_a_static_cache_only():
    base = Policy.load("builtin").model_dump(mode="json", by_alias=True)
    with pytest.raises(PolicyError, match="compile needs cache: static"):
        Policy.parse({**base, "model": {**base["model"], "compile": True, "cache": "dynamic"}})
    assert Policy.parse({**base, "model": {**base["model"], "compile": True}}).model.cache == "auto"
