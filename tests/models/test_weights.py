"""Attention by what is installed, quantization through transformers, and one clear line where a package is missing."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration, PreTrainedConfig

from sg_guardrails.core.errors import ModelError
from sg_guardrails.core.media import Image
from sg_guardrails.core.policy import Policy
from sg_guardrails.core.types import Copy, Prompt
from sg_guardrails.models import hf, weights
from sg_guardrails.models.hf import HFSampler

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
HALF = PreTrainedConfig(dtype=torch.bfloat16)
NOISE = Policy.load("builtin").smoothing
quantizes = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in weights.NEEDED),
    reason="the extra quantized is not installed",
)


def red() -> Prompt:
    pixels = np.full((64, 64, 3), 0.9, np.float32)
    pixels[20:44, 14:50] = (1, 0, 0)
    return Prompt.ask("What color is the shape?", Image(pixels))


COPIES = [Copy(red()), *(Copy(red(), seed) for seed in range(3))]


def said(**how) -> list[str]:
    sampler = HFSampler(hf.load("builtin:shapes", device="cpu", **how), max_new_tokens=12)
    return [answer.text for answer in sampler(COPIES, NOISE)]


class Flashless:
    """A model class without flash attention."""


@pytest.mark.parametrize(
    ("wanted", "device", "held", "model_class", "expected"),
    [
        ("auto", CUDA, torch.bfloat16, LlavaForConditionalGeneration, "flash_attention_2"),
        ("auto", CUDA, "auto", LlavaForConditionalGeneration, "flash_attention_2"),
        ("auto", CUDA, torch.float32, LlavaForConditionalGeneration, None),
        ("auto", CUDA, torch.bfloat16, Flashless, None),
        ("auto", CPU, torch.bfloat16, LlavaForConditionalGeneration, None),
        ("eager", CUDA, torch.bfloat16, LlavaForConditionalGeneration, "eager"),
        ("flash_attention_2", CUDA, torch.float16, LlavaForConditionalGeneration, "flash_attention_2"),
    ],
)
def test_attention_where_flash_attn_is_installed(monkeypatch, wanted, device, held, model_class, expected):
    monkeypatch.setattr(weights, "is_flash_attn_2_available", lambda: True)
    assert weights.attention(wanted, HALF, model_class, device, held) == expected


def test_auto_leaves_attention_to_transformers_where_flash_attn_is_not(monkeypatch):
    monkeypatch.setattr(weights, "is_flash_attn_2_available", lambda: False)
    assert weights.attention("auto", HALF, LlavaForConditionalGeneration, CUDA, torch.bfloat16) is None
    with pytest.raises(ModelError, match=r"pip install flash-attn, or set `model: \{attention: auto\}`"):
        weights.attention("flash_attention_2", HALF, LlavaForConditionalGeneration, CUDA, torch.bfloat16)


def test_flash_attention_on_a_cpu_is_refused_before_a_kernel_is_fetched():
    with pytest.raises(ModelError, match="needs a CUDA device"):
        hf.load("builtin:shapes", device="cpu", attention="flash_attention_2")


def test_attention_implementations_answer_alike():
    handles = {name: hf.load("builtin:shapes", device="cpu", attention=name) for name in ("eager", "sdpa")}
    assert {name: handle.model.config._attn_implementation for name, handle in handles.items()} == {
        "eager": "eager",
        "sdpa": "sdpa",
    }
    assert said(attention="eager") == said(attention="sdpa") == ["The rectangle is red."] * 4


@quantizes
@pytest.mark.parametrize(("quantization", "share"), [("int8", 0.3), ("int4", 0.25)])
def test_quantized_weights_are_small_answer_and_print_nothing(quantization, share, capfd):
    whole = hf.load("builtin:shapes", device="cpu").model.get_memory_footprint()
    handle = hf.load("builtin:shapes", device="cpu", quantization=quantization)
    assert handle.model.get_memory_footprint() < share * whole
    assert said(quantization=quantization) == ["The rectangle is red."] * 4
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_a_missing_backend_is_named(monkeypatch, quantization):
    monkeypatch.setattr(weights, "NEEDED", ("bitsandbytes", "no_such_package"))
    with pytest.raises(ModelError, match=r"needs .*no_such_package: pip install 'sg-guardrails\[quantized\]'"):
        weights.quantized(quantization, CPU, torch.float32)


def test_int8_in_a_format_that_it_does_not_multiply_in():
    with pytest.raises(ModelError, match="multiplies in float16"):
        hf.load("builtin:shapes", device="cpu", quantization="int8", dtype="bfloat16")


def test_number_formats():
    assert weights.precision("auto", HALF, CPU, "none") == torch.float32
    assert weights.precision("auto", HALF, CUDA, "none") == "auto"
    assert weights.precision("auto", HALF, CPU, "int8") == torch.float16
    assert weights.precision("bfloat16", HALF, CPU, "int4") == torch.bfloat16


@pytest.mark.parametrize(
    ("capability", "half"),
    [((7, 5), torch.float16), ((8, 0), torch.bfloat16), ((8, 9), torch.bfloat16), ((12, 0), torch.bfloat16)],
)
def test_what_is_stored_in_float32_runs_in_half_precision_on_a_gpu(monkeypatch, capability, half):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    within = LlavaConfig(text_config={"model_type": "llama", "dtype": "float16"})
    stored = [
        (PreTrainedConfig(dtype=torch.float32), half),
        (PreTrainedConfig(), half),  # it does not say: transformers reads float32
        (PreTrainedConfig(dtype=torch.float16), "auto"),
        (PreTrainedConfig(dtype=torch.bfloat16), "auto"),
        (within, "auto"),
    ]
    for config, expected in stored:
        assert weights.precision("auto", config, CUDA, "none") == expected
        assert weights.precision("float32", config, CUDA, "none") == torch.float32, "what is asked for is had"
        assert weights.precision("auto", config, torch.device("mps"), "none") == "auto"
    assert weights.precision("auto", PreTrainedConfig(), CUDA, "int8") == torch.float16
    told = weights.Weights().loading(PreTrainedConfig(dtype=torch.float32), LlavaForConditionalGeneration, CUDA)
    assert told["dtype"] == half


def test_flash_attention_is_had_for_what_runs_in_half_precision(monkeypatch):
    monkeypatch.setattr(weights, "is_flash_attn_2_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    told = weights.Weights().loading(PreTrainedConfig(dtype=torch.float32), LlavaForConditionalGeneration, CUDA)
    assert told["attn_implementation"] == "flash_attention_2"
