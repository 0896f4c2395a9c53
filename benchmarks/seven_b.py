"""LLaVA-1.5-7B and Qwen2.5-VL-7B with random weights: no download, and the time of the real ones.

The configurations are the published ones; a tokenizer of few words stands in for the real one, which takes no time to
speak of. What the models say is noise: `benchmarks/cost.py` makes the copies agree where it measures clean traffic.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    AutoModelForImageTextToText,
    AutoTokenizer,
    BatchFeature,
    LlavaConfig,
    LlavaProcessor,
    PretrainedConfig,
    Qwen2_5_VLConfig,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from sg_guardrails.models.builtin import builtin_path
from sg_guardrails.models.loading import Handle

SHAPES = ("llava-1.5-7b", "qwen2.5-vl-7b")
MARK = "<image>"
Words = Any
"""A tokenizer; transformers' own types don't say which."""


def llava_config() -> LlavaConfig:
    """llava-hf/llava-1.5-7b-hf: 7.06e9 parameters, 576 tokens a picture."""
    return LlavaConfig(
        text_config={
            "model_type": "llama",
            "hidden_size": 4096,
            "intermediate_size": 11008,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
            "vocab_size": 32064,
            "max_position_embeddings": 4096,
        },
        vision_config={
            "model_type": "clip_vision_model",
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "image_size": 336,
            "patch_size": 14,
        },
        image_seq_length=576,
    )


def qwen_config() -> Qwen2_5_VLConfig:
    """Qwen/Qwen2.5-VL-7B-Instruct: 8.29e9 parameters."""
    return Qwen2_5_VLConfig(
        text_config={
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "vocab_size": 152064,
            "max_position_embeddings": 32768,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
        },
        vision_config={"depth": 32, "hidden_size": 1280, "out_hidden_size": 3584},
    )


def handle(shape: str, *, device: str, layers: int | None = None) -> Handle:
    """A model of the named shape on `device`, bf16.

    Args:
        shape: One of `SHAPES`.
        device: A torch device.
        layers: Fewer layers than published, to try the code without the hardware; None keeps all.
    """
    words: Words = AutoTokenizer.from_pretrained(builtin_path("shapes"), padding_side="left")
    mark = int(words.convert_tokens_to_ids(MARK))
    config: Any
    processor: LlavaProcessor | QwenParts
    if shape == SHAPES[0]:
        config, processor = llava_config(), _llava(words)
    else:
        config, processor = qwen_config(), QwenParts(words)
    config.image_token_id = mark
    _shorten(config, layers)
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        setattr(config.text_config, name, getattr(words, name))
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)
    return Handle.of(f"{shape}, random weights", model, processor)


def _shorten(config: PretrainedConfig, layers: int | None) -> None:
    if layers is None:
        return
    text, vision = config.text_config, config.vision_config
    text.num_hidden_layers = layers
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:layers]
    setattr(vision, "depth" if hasattr(vision, "depth") else "num_hidden_layers", max(2, layers))


def _llava(words: Words) -> LlavaProcessor:
    side = 336
    pictures = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    return LlavaProcessor(
        pictures,
        words,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token=MARK,
        chat_template=words.chat_template,
    )


class QwenParts:
    """Qwen2.5-VL's own image processor beside a tokenizer: the whole processor needs torchvision, for videos."""

    image_token = MARK

    def __init__(self, words: Words) -> None:
        self.tokenizer = words
        self.image_processor = Qwen2VLImageProcessorPil()

    def apply_chat_template(self, *args: Any, **settings: Any) -> Any:
        """The tokenizer's."""
        return self.tokenizer.apply_chat_template(*args, **settings)

    def __call__(self, *, text: list[str], images: Any = None, **settings: Any) -> BatchFeature:
        """Tensors of one prompt; a picture takes a quarter as many tokens as it has patches."""
        seen = self.image_processor(images=images[0], return_tensors="pt") if images else {}
        parts = text[0].split(MARK)
        counts = [int(grid.prod()) // 4 for grid in seen.get("image_grid_thw", [])]
        spelled = parts[0] + "".join(MARK * n + part for n, part in zip(counts, parts[1:], strict=True))
        given = self.tokenizer([spelled], **settings)
        kinds = (given["input_ids"] == self.tokenizer.convert_tokens_to_ids(MARK)).int()
        return BatchFeature({**given, "mm_token_type_ids": kinds, **seen})
