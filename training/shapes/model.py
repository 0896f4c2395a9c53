"""The architecture: tokenizer, processor and model, untrained, as the shipped folder holds them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from training.shapes.scenes import SIZE

PATCH = 8
IMAGE_TOKENS = (SIZE // PATCH) ** 2
TEXT_WIDTH = 192
VOCABULARY = 1024
CONTEXT = 1024
"""Longest prompt, in tokens; rotary positions need no parameters, so room is free."""
NEW_TOKENS = 48
"""Enough for a tool call as JSON, the longest answer."""
SPECIAL = ("<pad>", "<s>", "</s>", "<image>", "<|user|>", "<|assistant|>", "<|system|>")


def vision_config() -> CLIPVisionConfig:
    """Returns the vision tower's configuration: four layers over 64 patches of 8x8 pixels."""
    return CLIPVisionConfig(
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=SIZE,
        patch_size=PATCH,
        projection_dim=128,
        hidden_act="gelu",
    )


def normalise(pictures: Tensor) -> Tensor:
    """Maps [0, 1] to [-1, 1], exactly as the processor does (mean = std = 0.5)."""
    return (pictures - 0.5) / 0.5


# Pictures of a turn come first, then its text: a question may then look at every picture, wherever the
# caller put it. Content may be a string or a list of parts. Tool results are rendered as a user's turn.
TEMPLATE = (
    "{{ bos_token }}"
    "{%- macro text(m) -%}{%- if m['content'] is string -%}{{ m['content'] }}"
    "{%- elif m['content'] -%}"
    "{{ m['content'] | selectattr('type', 'equalto', 'text') | map(attribute='text') | join('\\n') }}"
    "{%- endif -%}{%- endmacro -%}"
    "{%- set ns = namespace(system='') -%}"
    "{%- for m in messages if m['role'] == 'system' -%}"
    "{%- set ns.system = (ns.system ~ ' ' ~ text(m)) | trim -%}{%- endfor -%}"
    "{%- if tools -%}{%- set sig = namespace(all=[]) -%}{%- for t in tools -%}{%- set f = t['function'] or t -%}"
    "{%- set sig.all = sig.all + [f['name'] ~ '(' ~ (f['parameters']['properties'] | list | join(', ')) ~ ')'] -%}"
    "{%- endfor -%}"
    "{%- set ns.system = (ns.system ~ ' You can call tools: ' ~ (sig.all | join(', '))"
    " ~ '. Answer with one line of JSON to call a tool.') | trim -%}{%- endif -%}"
    "{%- if ns.system -%}{{ '<|system|>' ~ ns.system }}{%- endif -%}"
    "{%- for m in messages if m['role'] != 'system' -%}"
    "{%- if m['role'] == 'assistant' -%}{{ '<|assistant|>' ~ text(m) }}"
    "{%- for c in m['tool_calls'] or [] -%}{%- set f = c['function'] or c -%}"
    "{{ '{\"name\": \"' ~ f['name'] ~ '\", \"arguments\": ' }}"
    "{%- if f['arguments'] is string -%}{{ f['arguments'] }}{%- else -%}{{ f['arguments'] | tojson }}"
    "{%- endif -%}{{ '}' }}"
    "{%- endfor -%}{{ eos_token }}"
    "{%- elif m['role'] == 'tool' -%}{{ '<|user|>Tool result: ' ~ text(m) }}"
    "{%- else -%}{{ '<|user|>' }}{%- if m['content'] is not string -%}"
    "{%- for p in m['content'] if p['type'] in ('image', 'image_url') -%}<image>{%- endfor -%}{%- endif -%}"
    "{{ text(m) }}"
    "{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}"
)


def build_tokenizer(corpus: Iterable[str]) -> PreTrainedTokenizerFast:
    """Trains a byte-level BPE of 1024 tokens; the same corpus gives the same tokenizer."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=list(SPECIAL), initial_alphabet=sorted(alphabet)
    )
    bpe.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token="<s>",  # noqa: S106  # a token, not a password
        eos_token="</s>",  # noqa: S106  # a token, not a password
        pad_token="<pad>",  # noqa: S106  # a token, not a password
        padding_side="left",
        additional_special_tokens=list(SPECIAL[3:]),
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def build_processor(tokenizer: PreTrainedTokenizerFast) -> LlavaProcessor:
    """Builds the processor: 64x64 pictures in [-1, 1], 64 image tokens each. Needs no torchvision."""
    images = CLIPImageProcessorPil(
        size={"shortest_edge": SIZE},
        crop_size={"height": SIZE, "width": SIZE},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    return LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        image_token="<image>",  # noqa: S106  # a token, not a password
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlavaForConditionalGeneration:
    """Builds the model with random weights, 2.3 million parameters."""
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=512,
        num_hidden_layers=3,
        num_attention_heads=3,
        num_key_value_heads=3,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config = LlavaConfig(
        vision_config=vision_config(),
        text_config=text,
        image_token_index=SPECIAL.index("<image>"),
        image_seq_length=IMAGE_TOKENS,
        # LLaVA's default, -2, would leave the tower's last layer out.
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
    )
    model = LlavaForConditionalGeneration(config)
    model.generation_config.update(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=False,
        max_new_tokens=NEW_TOKENS,
    )
    return model


def encoder(tokenizer: PreTrainedTokenizerFast) -> Callable[[str], list[int]]:
    """Returns a function from text to ids that adds nothing and honours special tokens written out."""

    def encode(text: str) -> list[int]:
        ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
        return ids

    return encode
