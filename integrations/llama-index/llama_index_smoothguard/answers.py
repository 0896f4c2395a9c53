"""What is judged of a LlamaIndex message: whatever of it a user may read, and its tool calls."""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import Iterator, Mapping
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
from pydantic import BaseModel

from sg_guardrails import Answer, MediaError, ToolCall, edge

UNTITLED = "input_document"
"""LlamaIndex's own title of a document that was given none."""


def answer_of(message: ChatMessage) -> Answer:
    """What is judged of a message: its texts, citable contents, text documents and refusal, and its tool calls.

    A block that is not known counts by its JSON. Left out are pictures and sounds, other documents, thinking, and
    citations: what they quote are their source's words.
    """
    refusal = message.additional_kwargs.get("refusal")
    texts = [text for block in message.blocks for text in _texts(block)]
    if isinstance(refusal, str) and refusal and refusal not in texts:
        texts.append(refusal)
    return Answer("\n".join(texts), (*_in_blocks(message), *calls_beside(message)))


def calls_beside(message: ChatMessage) -> list[ToolCall]:
    """The tool calls under ``additional_kwargs``, in OpenAI's forms, that do not stand among the blocks too."""
    names = {call.name for call in _in_blocks(message)}
    calls = [_older(call) for call in message.additional_kwargs.get("tool_calls") or ()]
    if (oldest := message.additional_kwargs.get("function_call")) and _older(oldest) not in calls:
        calls.append(_older(oldest))
    return [call for call in calls if call.name not in names]


def call_of(block: ToolCallBlock) -> ToolCall:
    """The block's call."""
    return ToolCall(block.tool_name, _arguments(block.tool_kwargs))


def bytes_of(data: bytes | io.IOBase, most: int = -1) -> bytes:
    """What a block's payload holds: raw bytes, or base64 of them; of a stream `most` are read, by default all."""
    if isinstance(data, io.IOBase):
        data.seek(0)
        raw: bytes = data.read(most)
        data.seek(0)  # others read it after us
    else:
        raw = data
    try:  # blocks hold base64 text; LlamaIndex tells it from raw bytes in this way
        return base64.b64decode(raw, validate=True)
    except binascii.Error:
        return raw


def _in_blocks(message: ChatMessage) -> list[ToolCall]:
    return [call_of(block) for block in message.blocks if isinstance(block, ToolCallBlock)]


def _texts(block: object) -> Iterator[str]:
    match block:
        case TextBlock():
            yield block.text
        case CitableBlock():
            yield from (text for one in block.content for text in _texts(one))
            yield from filter(None, (block.title, block.source))
        case DocumentBlock():
            yield from filter(None, (block.title if block.title != UNTITLED else "", _written(block)))
        case CitationBlock():  # against a vote, a source's words would count as a contradiction
            return
        case ToolCallBlock() | ThinkingBlock() | CachePoint() | ImageBlock() | AudioBlock() | VideoBlock():
            return
        case BaseModel():
            yield json.dumps(block.model_dump(), ensure_ascii=False, default=str)
        case _:
            yield str(block)


def _written(block: DocumentBlock) -> str:
    """The document's text; empty where it is no text, or is not here."""
    if not block.data or not (block.document_mimetype or "text/plain").lower().startswith(("text/", "application/")):
        return ""
    try:
        data = bytes_of(block.data)
        return "" if data.startswith(b"%PDF") else edge.plain_text(data)
    except MediaError:
        return ""


def _older(call: Any) -> ToolCall:
    call = call.model_dump() if hasattr(call, "model_dump") else call
    function = call.get("function", call) if isinstance(call, Mapping) else {}
    return ToolCall(str(function.get("name", call)), _arguments(function.get("arguments") or {}))


def _arguments(value: Any) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    try:
        parsed = json.loads(value)
    except (TypeError, ValueError):
        parsed = None
    return parsed if isinstance(parsed, dict) else {"unparsed": str(value)}
