"""The table of dialects: under which keys LangChain content, of whatever provider, carries media, text, or neither."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Form = Literal["base64", "uri", "bytes", "object", "remote"]


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a dialect keeps its payload inside a block."""

    payload: tuple[str, ...]
    form: Form
    label: tuple[str, ...] = ()
    """Where the media type or the format's short name stands, if anywhere."""


SLOTS = (
    Slot(("base64",), "base64", ("mime_type",)),  # LangChain v1, file blocks included
    Slot(("data",), "base64", ("mime_type",)),  # LangChain v0, and Gemini's media blocks
    Slot(("url",), "uri", ("mime_type",)),  # v1 and v0
    Slot(("image_url", "url"), "uri"),  # OpenAI chat
    Slot(("image_url",), "uri"),  # Ollama, Mistral, Gemini, and OpenAI responses (input_image)
    Slot(("audio_url", "url"), "uri"),  # vLLM
    Slot(("audio_url",), "uri"),
    Slot(("video_url", "url"), "uri"),
    Slot(("input_audio", "data"), "base64", ("input_audio", "format")),  # OpenAI chat
    Slot(("file", "file_data"), "uri"),  # OpenAI chat
    Slot(("file_data",), "uri"),  # OpenAI responses (input_file)
    Slot(("result",), "base64"),  # OpenAI responses (image_generation_call)
    Slot(("source", "data"), "base64", ("source", "media_type")),  # Anthropic
    Slot(("source", "url"), "uri"),
    Slot(("inline_data", "data"), "base64", ("inline_data", "mime_type")),  # Gemini's own parts
    Slot(("inlineData", "data"), "base64", ("inlineData", "mimeType")),
    Slot(("image", "source", "bytes"), "bytes", ("image", "format")),  # Bedrock Converse
    Slot(("audio", "source", "bytes"), "bytes", ("audio", "format")),
    Slot(("video", "source", "bytes"), "bytes", ("video", "format")),
    Slot(("document", "source", "bytes"), "bytes", ("document", "format")),
    Slot(("image",), "object"),  # Hugging Face
    Slot(("audio",), "object"),
    Slot(("video",), "object"),
    *(
        Slot(path, "remote")
        for path in (
            ("file_id",),
            ("file_uri",),
            ("file_url",),
            ("path",),
            ("file", "file_id"),
            ("file", "file_url"),
            ("file_data", "file_uri"),
            ("fileData", "fileUri"),
            ("image_file", "file_id"),
            ("image_url", "file_id"),
            ("source", "file_id"),
            ("source", "uri"),
            ("image", "source", "s3Location"),
            ("audio", "source", "s3Location"),
            ("video", "source", "s3Location"),
            ("document", "source", "s3Location"),
        )
    ),
)
TEXTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal", "text-plain": "text"}
"""Block types that are text, and the key that holds it."""
SILENT = frozenset(
    [
        "tool_use",
        "tool_call",
        "tool_call_chunk",
        "invalid_tool_call",
        "server_tool_call",
        "server_tool_call_chunk",
        "server_tool_use",
        "function_call",
        "custom_tool_call",
        "input_json_delta",
        "reasoning",
        "thinking",
        "redacted_thinking",
        "citation",
        "cache_point",
        "web_search_call",
        "web_search_result",
        "file_search_call",
        "executable_code",
        "code_execution_result",
        "toolUse",
        "reasoningContent",
        "cachePoint",
    ]
)
"""What a model said or did itself; calls are read from the message's ``tool_calls``."""
CONTAINERS = (("content",), ("output",), ("value",), ("source", "content"), ("toolResult", "content"))
"""Where blocks hold further blocks."""
MEDIA_TYPES = frozenset(
    ["image", "audio", "video", "media", "image_url", "audio_url", "video_url", "input_image", "input_audio"]
)
"""Block types that promise a medium, wherever it is."""
CAMEL = {"mime_type": "mimeType", "media_type": "mediaType"}
"""Labels as MCP and others spell them."""


def at(block: object, path: tuple[str, ...]) -> Any:
    """What stands at `path`, or None."""
    for step in path:
        block = block.get(step) if isinstance(block, Mapping) else None
    return block


def holds(block: Mapping[str, Any], slot: Slot) -> bool:
    """Whether the block has a payload in this slot."""
    value = at(block, slot.payload)
    if slot.form == "object":  # a dict here is Converse's, unless it is a clip as `datasets` gives it
        return value is not None and (not isinstance(value, Mapping) or {"array", "sampling_rate"} <= value.keys())
    if slot.form == "remote":
        return isinstance(value, str | Mapping) and bool(value)
    return isinstance(value, str | bytes | bytearray) and bool(value)


def label_of(block: Mapping[str, Any], slot: Slot) -> tuple[str, ...]:
    """The path to what the block says its medium is; empty where it does not say."""
    spelt = (slot.label, (*slot.label[:-1], CAMEL.get(slot.label[-1], ""))) if slot.label else ()
    return next((path for path in spelt if at(block, path)), ())


def beside(block: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[Mapping[str, Any]]:
    """What stands beside `path`, level by level."""
    for step in path:
        yield {key: value for key, value in block.items() if key != step}
        block = block[step]
