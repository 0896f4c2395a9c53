"""Where a call of an LLM may carry media outside of the blocks that hold them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llama_index.core.base.llms.types import (
    AudioBlock,
    CachePoint,
    ChatMessage,
    CitableBlock,
    CitationBlock,
    DocumentBlock,
    ImageBlock,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    VideoBlock,
)
from llama_index.core.schema import ImageDocument, ImageNode

from sg_guardrails import edge

REPLACING = frozenset(["content", "blocks", "parts", "role"])
"""Keys of ``additional_kwargs`` that LlamaIndex's adapters lay over the message they were given."""
SIGNED = frozenset(["thought_signature", "thought_signatures"])
"""Keys under which a provider's sealed bytes come back with the model's own messages."""
MEDIA = (ImageBlock, AudioBlock, VideoBlock, DocumentBlock, ImageNode, ImageDocument)
PAYLOADS: tuple[tuple[type, frozenset[str]], ...] = (
    (TextBlock, frozenset(["text"])),
    (ImageBlock, frozenset(["image", "path", "url"])),
    (AudioBlock, frozenset(["audio", "path", "url"])),
    (CitableBlock, frozenset(["content"])),
    (CitationBlock, frozenset(["cited_content"])),
    (DocumentBlock, frozenset(["data", "path", "url"])),
    (ThinkingBlock, frozenset(["content"])),
    (ToolCallBlock, frozenset(["tool_name"])),
    (CachePoint, frozenset()),
)
"""The fields of each block that are read as what they are; media in any other field are hidden ones."""


def beside_message(message: ChatMessage, *, own: bool) -> str:
    """The key under which the message carries media, or another message, outside of its blocks; else empty.

    Args:
        message: As the LLM gets it.
        own: Whether a model wrote it.
    """
    beside = _unsealed(message.additional_kwargs, own=own)
    blocks = {block.image for block in message.blocks if isinstance(block, ImageBlock)}
    for document in beside.pop("images", None) or ():  # LlamaIndex has made a block of each
        if (getattr(document, "image", None) or "").encode() not in blocks:
            return "images"
    return next(iter(REPLACING & beside.keys()), "") or _found(beside, own=own)


def beside_block(block: object, *, own: bool) -> str:
    """The field in which a block, or one inside it, carries a medium that is not read there; else empty."""
    payload = next((fields for kind, fields in PAYLOADS if isinstance(block, kind)), None)
    if payload is None:  # an unknown block is refused as such
        return ""
    if own and isinstance(block, ToolCallBlock):
        payload |= {"tool_kwargs"}  # a model's own words
    fields = {**vars(block), **(getattr(block, "model_extra", None) or {})}
    beside = {name: value for name, value in fields.items() if name not in payload}
    if isinstance(block, ThinkingBlock):
        beside["additional_information"] = _unsealed(block.additional_information, own=own)
    inner = block.content if isinstance(block, CitableBlock) else []
    inner = [block.cited_content] if isinstance(block, CitationBlock) else inner
    return _found(beside, own=own) or next((name for one in inner if (name := beside_block(one, own=own))), "")


def among_options(options: Mapping[str, Any]) -> str:
    """The argument of a call, beside its messages, that carries a medium; else empty.

    Not looked at are schemas, which describe tools and answers, and the voice that is wished for.
    """
    return _found(edge.without_schemas(options))


def _found(beside: Mapping[str, Any], *, own: bool = False) -> str:
    for name, value in beside.items():
        if any(isinstance(one, MEDIA) for one in (value if isinstance(value, list | tuple) else [value])):
            return str(name)
    return edge.hidden(beside, own=own)


def _unsealed(beside: Mapping[str, Any], *, own: bool) -> dict[str, Any]:
    return {name: value for name, value in beside.items() if not (own and name in SIGNED)}
