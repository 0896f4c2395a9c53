"""Tiny random-weight checkpoints of the real architectures, saved to a folder: tests go through the real load."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForImageTextToText,
    BatchFeature,
    CLIPVisionConfig,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3Processor,
    Gemma3TextConfig,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
    LlavaProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2AudioConfig,
    Qwen2AudioEncoderConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    Qwen2Config,
    SiglipVisionConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from sg_guardrails.models.loading import Handle

WORDS = [
    "What colour is the shape in this picture? The shape is a red circle on a white ground.",
    "You are a helpful assistant. Describe both pictures. What do you hear in this clip?",
    "A blue square, a green triangle, a yellow star; yes, no, I am not sure about that.",
]
STD = (0.2, 0.25, 0.4)
"""Unlike in every channel, so that a mix-up of channels shows."""
MEAN = (0.5, 0.45, 0.4)
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}IMAGE{% elif c['type'] == 'audio' %}AUDIO{% else %}{{ c['text'] }}{% endif %}"
    "{% endfor %}{% endif %}</s>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
}
SPECIAL = ["<pad>", "<s>", "</s>", "<image>", "<|user|>", "<|assistant|>", "<|system|>", "<|tool|>"]
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
NAMES = ("llava", "llava_next", "idefics3", "gemma3", "qwen2_5_vl")
"""The picture models, one for each layout."""


def template(*, image: str = "<image>", audio: str = "") -> str:
    return TEMPLATE.replace("IMAGE", image).replace("AUDIO", audio)


def tokenizer(extra: list[str] | None = None, **attributes: str) -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = [*SPECIAL, *(extra or [])]
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(WORDS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=special[3:],
        extra_special_tokens=attributes or {},
        padding_side="left",
    )


def _save(model: PreTrainedModel, processor: object, folder: Path) -> Path:
    # Larger random weights than the default 0.02: answers then depend on the picture, and argmax has no near-ties.
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.3 if "embed" in name else 0.25)
    model.generation_config.update(do_sample=True, temperature=0.3, top_p=0.5, top_k=7)  # a checkpoint that samples
    model.save_pretrained(folder)
    if processor is not None:
        processor.save_pretrained(folder)
    return folder


def llava(folder: Path) -> Path:
    words = tokenizer()
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=32,
            patch_size=8,
        ),
        text_config=LlamaConfig(vocab_size=len(words), **SMALL, **IDS),
        image_token_index=3,
        image_seq_length=16,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
    )
    images = CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, image_mean=MEAN, image_std=STD
    )
    processor = LlavaProcessor(
        images,
        words,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template(),
    )
    return _save(LlavaForConditionalGeneration(config), processor, folder)


def llava_next(folder: Path) -> Path:
    words = tokenizer()
    torch.manual_seed(1)
    pinpoints = [[32, 64], [64, 32], [64, 64], [32, 96]]
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=32,
            patch_size=8,
        ),
        text_config=LlamaConfig(vocab_size=len(words), **SMALL, **IDS),
        image_token_index=3,
        image_grid_pinpoints=pinpoints,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
    )
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": 32},
        crop_size={"height": 32, "width": 32},
        image_grid_pinpoints=pinpoints,
        image_mean=MEAN,
        image_std=STD,
    )
    processor = LlavaNextProcessor(
        images,
        words,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template(),
    )
    return _save(LlavaNextForConditionalGeneration(config), processor, folder)


def idefics3(folder: Path) -> Path:
    grid = [f"<row_{r + 1}_col_{c + 1}>" for r in range(6) for c in range(6)]
    words = tokenizer(["<fake_token_around_image>", "<end_of_utterance>", "<global-img>", *grid])
    torch.manual_seed(2)
    config = Idefics3Config(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 32,
            "patch_size": 8,
        },
        text_config=LlamaConfig(vocab_size=len(words), **SMALL, **IDS),
        image_token_id=3,
        scale_factor=2,
        pad_token_id=0,
    )
    images = Idefics3ImageProcessorPil(
        size={"longest_edge": 64}, max_image_size={"longest_edge": 32}, image_mean=MEAN, image_std=STD
    )
    processor = Idefics3Processor(images, words, image_seq_len=4, chat_template=template())
    return _save(Idefics3ForConditionalGeneration(config), processor, folder)


def gemma3(folder: Path) -> Path:
    words = tokenizer(["<boi>", "<eoi>"], boi_token="<boi>", eoi_token="<eoi>", image_token="<image>")
    torch.manual_seed(3)
    config = Gemma3Config(
        vision_config=SiglipVisionConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=32,
            patch_size=8,
        ),
        text_config=Gemma3TextConfig(
            vocab_size=len(words), head_dim=16, sliding_window=512, **{**SMALL, "num_key_value_heads": 1}, **IDS
        ),
        mm_tokens_per_image=4,
        image_token_index=3,
        boi_token_index=words.convert_tokens_to_ids("<boi>"),
        eoi_token_index=words.convert_tokens_to_ids("<eoi>"),
    )
    images = Gemma3ImageProcessorPil(
        size={"height": 32, "width": 32},
        image_mean=MEAN,
        image_std=STD,
        do_pan_and_scan=True,
        pan_and_scan_min_crop_size=8,
        pan_and_scan_max_num_crops=3,
        pan_and_scan_min_ratio_to_activate=1.2,
    )
    processor = Gemma3Processor(images, words, image_seq_length=4, chat_template=template(image="<boi>"))
    return _save(Gemma3ForConditionalGeneration(config), processor, folder)


class QwenParts:
    """Qwen2.5-VL's own image processor and a tokenizer, for want of the whole processor, which needs torchvision."""

    image_token = "<image>"

    def __init__(self) -> None:
        self.tokenizer = tokenizer(["<vision>", "<start>", "<end>"])
        self.tokenizer.chat_template = template(image="<start><image><end>")
        self.image_processor = Qwen2VLImageProcessorPil(
            size={"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 4}, image_mean=MEAN, image_std=STD
        )

    def apply_chat_template(self, *args, **kwargs) -> str:
        return self.tokenizer.apply_chat_template(*args, **kwargs)

    def __call__(self, *, text: list[str], images=None, add_special_tokens=True, return_tensors="pt") -> BatchFeature:
        seen = self.image_processor(images=images[0], return_tensors="pt") if images else {}
        for grid in seen.get("image_grid_thw", []):
            text = [text[0].replace("<image>", "<vision>" * int(grid.prod() // 4), 1)]
        text = [text[0].replace("<vision>", "<image>")]
        given = self.tokenizer(text, add_special_tokens=add_special_tokens, return_tensors=return_tensors)
        kinds = (given["input_ids"] == 3).int()
        return BatchFeature(
            {
                "input_ids": given["input_ids"],
                "attention_mask": given["attention_mask"],
                "mm_token_type_ids": kinds,
                **seen,
            }
        )


def qwen2_5_vl(folder: Path) -> Path:
    words = QwenParts().tokenizer
    torch.manual_seed(4)
    config = Qwen2_5_VLConfig(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "depth": 2,
            "num_heads": 2,
            "out_hidden_size": 32,
            "fullatt_block_indexes": [1],
            "window_size": 56,
        },
        text_config={
            "vocab_size": len(words),
            **SMALL,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
            **IDS,
        },
        image_token_id=3,
        video_token_id=words.convert_tokens_to_ids("<vision>"),
        vision_start_token_id=words.convert_tokens_to_ids("<start>"),
        vision_end_token_id=words.convert_tokens_to_ids("<end>"),
    )
    return _save(Qwen2_5_VLForConditionalGeneration(config), None, folder)


def qwen2_audio(folder: Path) -> Path:
    words = tokenizer(["<|AUDIO|>"])
    torch.manual_seed(5)
    config = Qwen2AudioConfig(
        audio_config=Qwen2AudioEncoderConfig(
            d_model=32,
            encoder_layers=2,
            encoder_attention_heads=2,
            encoder_ffn_dim=48,
            num_mel_bins=16,
            max_source_positions=100,
        ),
        text_config=Qwen2Config(vocab_size=len(words), **SMALL, **IDS),
        audio_token_index=words.convert_tokens_to_ids("<|AUDIO|>"),
    )
    processor = Qwen2AudioProcessor(
        WhisperFeatureExtractor(feature_size=16, chunk_length=2), words, chat_template=template(audio="<|AUDIO|>")
    )
    return _save(Qwen2AudioForConditionalGeneration(config), processor, folder)


def whisper(folder: Path) -> Path:
    words = tokenizer()
    torch.manual_seed(6)
    config = WhisperConfig(
        vocab_size=len(words),
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        num_mel_bins=16,
        max_source_positions=100,
        max_target_positions=64,
        decoder_start_token_id=1,
        suppress_tokens=None,
        begin_suppress_tokens=None,
        **IDS,
    )
    processor = WhisperProcessor(WhisperFeatureExtractor(feature_size=16, chunk_length=2), words)
    return _save(WhisperForConditionalGeneration(config), processor, folder)


def handle(name: str, folder: Path) -> Handle:
    """The named model through the real load; Qwen2.5-VL's model too, beside its composed processor."""
    from sg_guardrails.models.hf import load

    build = globals()[name]
    if name != "qwen2_5_vl":
        return load(str(build(folder)), device="cpu")
    model = AutoModelForImageTextToText.from_pretrained(build(folder), dtype=torch.float32)
    return Handle.of(name, model, QwenParts())
