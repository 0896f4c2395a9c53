"""The tokens before the first picture or clip are the same in every copy: they are computed once for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from sg_guardrails.models.loading import Handle

SHORTEST = 32
"""Tokens below which a pass of its own costs more than it spares."""
_MARKS = ("image_token_id", "image_token_index", "audio_token_id", "audio_token_index", "boi_token_id", "boa_token_id")
"""Where configurations name the tokens that stand for media."""


def shared_prefix(handle: Handle, batch: Mapping[str, Tensor]) -> DynamicCache | None:
    """The keys and values of the text before the first medium, one row per copy; None where nothing can be shared.

    Shared are rows that begin alike, unpadded, with at least `SHORTEST` tokens. Left alone are encoder-decoders, models
    that count positions from the whole prompt (Qwen's ``rope_deltas``), and those whose mask lets tokens of a medium
    see each other (``token_type_ids``), since both look at more than the tokens that are left.
    """
    model, ids, mask = handle.model, batch["input_ids"], batch["attention_mask"]
    whole = hasattr(getattr(model, "model", model), "rope_deltas") or "token_type_ids" in batch
    if (
        model.config.is_encoder_decoder
        or whole
        or len(ids) < 2
        or not bool(mask.all())
        or not bool((ids == ids[0]).all())
    ):
        return None
    length = _text_before_media(handle, ids[0])
    if length < SHORTEST:
        return None
    cache = DynamicCache(config=model.config.get_text_config(decoder=True))
    run: Any = model
    run(
        input_ids=ids[:1, :length],
        attention_mask=mask[:1, :length],
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    cache.batch_repeat_interleave(len(ids))
    return cache


def _text_before_media(handle: Handle, ids: Tensor) -> int:
    """Tokens before the first that stands for a medium; 0 where none does, as nothing tells what would follow."""
    config = handle.model.config
    marks = [mark for name in _MARKS if isinstance(mark := getattr(config, name, None), int)]
    places = torch.isin(ids, torch.tensor(marks, device=ids.device)).nonzero() if marks else ids.new_zeros(0)
    return int(places[0]) if len(places) else 0
