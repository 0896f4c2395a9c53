"""How much memory a copy takes while it is asked, and how many fit into the stated share of a GPU."""

from __future__ import annotations

from typing import Any

import torch

from sg_guardrails.models import layouts, speech
from sg_guardrails.models.loading import Handle


def limit(device: torch.device, share: float) -> None:
    """Hold this process to a share of the device's memory: beyond it torch reports that memory is out.

    The bound is torch's own and the process's, so of several samplers the last one decides. No-op but on CUDA.
    """
    if device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(share, device)


def free_bytes(device: torch.device, share: float) -> int | None:
    """What is left of the share, as measured now; None where the device has no such bound.

    What others hold of the device is not free either; blocks that torch keeps for reuse are.
    """
    if device.type != "cuda":
        return None
    unclaimed, total = torch.cuda.mem_get_info(device)
    held = torch.cuda.memory_allocated(device)
    reusable = torch.cuda.memory_reserved(device) - held
    return max(0, min(int(total * share) - held, unclaimed + reusable))


def rows_that_fit(handle: Handle, inputs: layouts.Inputs, new_tokens: int, free: int | None) -> int | None:
    """Copies whose counted bytes fit into `free`, at least one; None where nothing bounds them.

    Args:
        handle: The model.
        inputs: One copy's tensors.
        new_tokens: Longest answer, tokens.
        free: Bytes, as `free_bytes` measures them.
    """
    if free is None:
        return None
    return max(1, free // max(1, row_bytes(handle, inputs, new_tokens)))


def row_bytes(handle: Handle, inputs: layouts.Inputs, new_tokens: int) -> int:
    """Peak bytes of one copy, counted: its keys and values, and the widest activations that live beside them.

    The peak is met in one of three places: in a layer of the tower that reads the media, in the last layer over the
    prompt, or at the answer's last token, where one layer's keys and values are copied to grow. A layer holds its
    residual, its input, the embeddings it came from with the media's features in them, and three of its feed-forward
    width (gate, up and their product); beside it stand the row's cosines and sines of positions.
    """
    config, size = handle.model.config, handle.dtype.itemsize
    text = config.get_text_config(decoder=True)
    ids = inputs.get("input_ids")
    prompt = 1 if ids is None else ids.shape[1]
    given = 2 * sum(value.numel() * size for value in inputs.values() if value.is_floating_point())
    kept, last = kv_bytes(handle, prompt), kv_bytes(handle, prompt + new_tokens)
    over_prompt = kept + prompt * (_width(text) + 2 * _head(text)) * size + given
    writing = last + last // max(1, _layers(text))
    in_tower = max((n * _width(tower) * size for tower, n in _towers(config, inputs)), default=0) + given
    return int(max(over_prompt, writing, in_tower))


def kv_bytes(handle: Handle, tokens: int) -> int:
    """Keys and values of one row of so many tokens, all layers."""
    text = handle.model.config.get_text_config(decoder=True)
    heads = _first(text, "num_key_value_heads", *_HEADS)
    return 2 * _layers(text) * heads * _head(text) * tokens * handle.dtype.itemsize


_HEADS = ("num_attention_heads", "decoder_attention_heads")


def _layers(text: Any) -> int:
    return _first(text, "num_hidden_layers", "decoder_layers")


def _head(text: Any) -> int:
    return _first(text, "head_dim") or _first(text, "hidden_size", "d_model") // max(1, _first(text, *_HEADS))


def _width(config: Any) -> int:
    hidden, inner = _first(config, "hidden_size", "d_model"), _first(config, "intermediate_size", "encoder_ffn_dim")
    return 4 * hidden + 3 * (inner or 4 * hidden)


def _first(config: Any, *names: str) -> int:
    return next((int(value) for name in names if isinstance(value := getattr(config, name, None), int)), 0)


def _towers(config: Any, inputs: layouts.Inputs) -> list[tuple[Any, int]]:
    """The parts that read media, each with how many patches or frames it is given."""
    found = []
    if layouts.PIXELS in inputs and (seen := getattr(config, "vision_config", None)) is not None:
        pixels = inputs[layouts.PIXELS]
        area = _first(seen, "patch_size") ** 2 or 1
        found.append((seen, pixels.shape[0] if pixels.ndim == 2 else pixels.numel() // (3 * area)))
    if speech.FEATURES in inputs:
        clips, _, frames = inputs[speech.FEATURES].shape
        found.append((getattr(config, "audio_config", config), clips * frames // 2))
    return found
