"""How a checkpoint's weights are held and attended to: number format, 8 or 4 bits, attention implementation."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import BitsAndBytesConfig, PreTrainedConfig
from transformers.utils.import_utils import is_flash_attn_2_available

from sg_guardrails.core.errors import ModelError

Attention = Literal["auto", "sdpa", "eager", "flash_attention_2"]
Quantization = Literal["none", "int8", "int4"]
Precision = torch.dtype | Literal["auto"]
"""What ``from_pretrained`` takes as ``dtype``; ``auto`` is the checkpoint's own."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
HALVES = (torch.bfloat16, torch.float16)
FLASH: Attention = "flash_attention_2"
NEEDED = ("bitsandbytes", "accelerate")
_AMPERE = (8, 0)


@dataclass(frozen=True, slots=True)
class Weights:
    """What the caller wants, in the policy's words."""

    dtype: str = "auto"
    """``auto``, or one of `DTYPES`."""
    attention: Attention = "auto"
    quantization: Quantization = "none"

    def loading(self, config: PreTrainedConfig, model_class: type, device: torch.device) -> dict[str, Any]:
        """What ``from_pretrained`` is told.

        Raises:
            ModelError: If a package that this needs is not installed.
        """
        held = precision(self.dtype, config, device, self.quantization)
        return {
            "dtype": held,
            "attn_implementation": attention(self.attention, config, model_class, device, held),
            **quantized(self.quantization, device, held),
        }


def precision(dtype: str, config: PreTrainedConfig, device: torch.device, quantization: Quantization) -> Precision:
    """The number format of the weights, or of what is not quantized: a policy's word, or what ``auto`` means here.

    A CUDA device multiplies half precision many times as fast as float32, so ``auto`` takes it there for a checkpoint
    that is stored in float32, or does not say (float32 is transformers' own reading of that). bitsandbytes multiplies
    its 8-bit weights with float16; any other format would be cast at each layer.

    Raises:
        ModelError: If 8 bits are to be multiplied in another format.
    """
    if quantization == "int8" and dtype not in ("auto", "float16"):
        raise ModelError(f"quantization int8 multiplies in float16: set `model: {{dtype: auto}}` instead of {dtype}")
    if dtype in DTYPES:
        return DTYPES[dtype]
    if quantization == "int8":
        return torch.float16
    if device.type == "cpu":
        return torch.float32
    stored = getattr(config, "dtype", None) or getattr(config.get_text_config(), "dtype", None)
    return half(device) if device.type == "cuda" and stored in (None, torch.float32) else "auto"


def half(device: torch.device) -> torch.dtype:
    """bfloat16, whose range is float32's; float16 on a GPU before Ampere (8.0), which only emulates bfloat16."""
    return torch.bfloat16 if torch.cuda.get_device_capability(device) >= _AMPERE else torch.float16


def attention(
    wanted: Attention, config: PreTrainedConfig, model_class: type, device: torch.device, held: Precision
) -> Attention | None:
    """The implementation to load with; None leaves it to transformers (sdpa where the model has it, else eager).

    ``auto`` is flash-attn where the package is installed, on a GPU, for a model that has it, in half precision.

    Raises:
        ModelError: If flash-attn is asked for and not installed: transformers would then fetch a kernel from the hub.
    """
    here = device.type == "cuda" and is_flash_attn_2_available()
    if wanted == FLASH and not here:
        raise ModelError(
            "attention flash_attention_2 needs a CUDA device and the package flash-attn: pip install flash-attn, "
            "or set `model: {attention: auto}`"
        )
    if wanted != "auto":
        return wanted
    half = (getattr(config, "dtype", None) if held == "auto" else held) in HALVES
    return FLASH if here and half and getattr(model_class, "_supports_flash_attn", False) else None


def quantized(quantization: Quantization, device: torch.device, held: Precision) -> dict[str, Any]:
    """What ``from_pretrained`` is told beside the rest, to quantize while it loads; nothing for ``none``.

    ``int8`` is LLM.int8 (Dettmers et al. 2022), ``int4`` NF4 (Dettmers et al. 2023); embeddings and the output layer
    stay as they are.

    Raises:
        ModelError: If the packages for it are not installed.
    """
    if quantization == "none":
        return {}
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise ModelError(
            f"quantization {quantization} needs {' and '.join(missing)}: pip install 'sg-guardrails[quantized]', "
            "or set `model: {quantization: none}`"
        )
    if quantization == "int8":
        settings = BitsAndBytesConfig(load_in_8bit=True)
    else:
        computed = torch.bfloat16 if held == "auto" else held
        settings = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=computed)
    # Quantized weights are put where they stay while they are read: such a model can't be moved afterwards.
    return {"quantization_config": settings, "device_map": {"": device}}
