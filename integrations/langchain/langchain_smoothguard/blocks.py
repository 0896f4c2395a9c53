"""The dialects in which LangChain content carries media: a block becomes a picture or a clip, or is refused by name."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from sg_guardrails import Audio, Image, MediaError, MediaLimits, base64_bytes, data_uri_bytes, decode

Form = Literal["base64", "uri", "bytes", "object", "remote"]
Path = tuple[str | int, ...]
IN_JSON = "<json>"
"""A step of a path that leads into a JSON text: tool nodes stringify blocks that they don't know, audio among them."""


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


@dataclass(frozen=True, slots=True)
class Piece:
    """One text or medium of a message's content, in the order in which the model meets them."""

    path: Path
    """From the content to the block."""
    part: str | Image | Audio | None
    """None where the block could not be resolved."""
    slot: Slot | None = None
    problem: str = ""
    """Why it could not be resolved; names the block's type, never its payload."""
    broken: bool = False
    """True where the payload is here, but is no sound picture or clip within the limits."""


def pieces(content: object, limits: MediaLimits, *, tool: bool = False, path: Path = ()) -> Iterator[Piece]:
    """Walk a message's content.

    Args:
        content: ``message.content``, or a part of it.
        limits: Bounds on each medium.
        tool: Whether a tool gave this content; then a text that is JSON with media in it is walked too.
        path: Where `content` stands.
    """
    if isinstance(content, str):
        inner = _stringified(content) if tool else None
        yield from [Piece(path, content)] if inner is None else pieces(inner, limits, tool=tool, path=(*path, IN_JSON))
    elif isinstance(content, Mapping):
        yield from _block(content, limits, tool=tool, path=path)
    elif isinstance(content, Sequence):
        for index, item in enumerate(content):
            yield from pieces(item, limits, tool=tool, path=(*path, index))
    else:
        yield Piece(path, None, problem=f"a {type(content).__name__} is no content block")


def _block(block: Mapping[str, Any], limits: MediaLimits, *, tool: bool, path: Path) -> Iterator[Piece]:
    kind = str(block.get("type", ""))
    if kind in SILENT or (not kind and SILENT & block.keys()):
        return
    key = TEXTS.get(kind, "" if kind else "text")  # Converse and Gemini give their text blocks no type
    is_text = isinstance(block.get(key), str)
    if is_text:
        yield from pieces(block[key], limits, tool=tool, path=(*path, key))
    if is_text and kind:
        return
    if kind == "json":
        yield Piece(path, json.dumps(block.get("json"), default=str))
        return
    slots = [slot for slot in SLOTS if _holds(block, slot)]
    inner = [step for step in CONTAINERS if isinstance(_at(block, step), str | Mapping | list | tuple)]
    for step in inner:
        yield from pieces(_at(block, step), limits, tool=tool, path=(*path, *step))
    if len(slots) == 1:
        yield replace(_resolved(block, kind, slots[0], limits), path=path)
    elif slots:  # a guard that reads one and a model that reads the other would see two different pictures
        yield Piece(path, None, problem=f"{_name(block)}: carries its media twice")
    elif not inner and not is_text:
        yield Piece(path, None, problem=f"{_name(block)}: an unknown block, or one without a payload")


def _resolved(block: Mapping[str, Any], kind: str, slot: Slot, limits: MediaLimits) -> Piece:
    """The medium in `slot`, or why there is none."""
    value, label = _at(block, slot.payload), str(_at(block, slot.label) or "") if slot.label else ""
    if isinstance(value, str) and value[:5].lower() == "data:":
        label = label or value[5:80].partition(",")[0].partition(";")[0]
    claims = " ".join((kind, *slot.payload, label)).lower()
    if "video" in claims or "application/" in claims or "pdf" in claims:
        return Piece((), None, slot, f"{_name(block)}: neither a picture nor a clip ({label or 'video'})")
    if slot.form == "remote":
        return Piece((), None, slot, f"{_name(block)}: names a file or an id; nothing is fetched or opened")
    try:
        if "text/" in label or (slot.payload == ("source", "data") and _at(block, ("source", "type")) == "text"):
            is_plain = slot.payload == ("source", "data")  # Anthropic's plain documents are not encoded
            return Piece((), str(value) if is_plain else _encoded(value, slot, limits).decode(errors="replace"), None)
        medium = _opened(value, slot, limits)
    except LookupError as error:
        return Piece((), None, slot, f"{_name(block)}: {error.args[0]}")
    except MediaError as error:
        return Piece((), None, slot, f"{_name(block)}: {error}", broken=True)
    wrong = "audio" if isinstance(medium, Image) else "image"
    if wrong in claims:
        return Piece((), None, slot, f"{_name(block)}: says {wrong}, but its payload is another medium", broken=True)
    return Piece((), medium, slot)


def _opened(value: Any, slot: Slot, limits: MediaLimits) -> Image | Audio:
    try:
        if slot.form == "object" and isinstance(value, Mapping):
            return Audio(value["array"], int(value["sampling_rate"]))
        if slot.form == "object" and callable(getattr(value, "save", None)):  # a PIL picture
            buffer = io.BytesIO()
            value.convert("RGB").save(buffer, "PNG")
            return Image.from_bytes(buffer.getvalue(), limits=limits)
    except (AttributeError, OSError, TypeError, ValueError) as error:
        raise MediaError(f"a {type(value).__name__} that cannot be read as a picture or a clip") from error
    return decode(_encoded(value, slot, limits), limits=limits)


def _encoded(value: Any, slot: Slot, limits: MediaLimits) -> bytes:
    """The payload's bytes. Raises LookupError where it is not in the message, MediaError where it is broken."""
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    if not isinstance(value, str):
        raise LookupError(f"a {type(value).__name__}; pass the bytes")  # noqa: TRY004 - the same outcome as a URL
    if value[:5].lower() == "data:":
        return data_uri_bytes(value, limits=limits)
    if slot.form in ("base64", "bytes"):
        return base64_bytes(value, limits=limits)
    if "://" in value[:32]:
        raise LookupError("a URL; nothing is fetched. Pass the bytes")
    try:  # Ollama's dialect allows bare base64 where others have a URL
        data = base64_bytes(value, limits=limits)
        decode(data, limits=limits)
    except MediaError:
        raise LookupError("neither a data: URI nor base64; nothing is fetched or opened") from None
    return data


def _holds(block: Mapping[str, Any], slot: Slot) -> bool:
    value = _at(block, slot.payload)
    if slot.form == "object":  # a dict here is Converse's, unless it is a clip as `datasets` gives it
        return value is not None and (not isinstance(value, Mapping) or {"array", "sampling_rate"} <= value.keys())
    if slot.form == "remote":
        return isinstance(value, str | Mapping) and bool(value)
    return isinstance(value, str | bytes | bytearray) and bool(value)


def _at(block: object, path: tuple[str, ...]) -> Any:
    for step in path:
        block = block.get(step) if isinstance(block, Mapping) else None
    return block


def _name(block: Mapping[str, Any]) -> str:
    return str(block.get("type") or next(iter(block), "an empty block"))[:40]


def _stringified(text: str) -> list[Any] | Mapping[str, Any] | None:
    """The blocks that a tool node has turned into a JSON text, if media are among them."""
    if text[:1] not in ("[", "{"):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    blocks = value if isinstance(value, list) else [value]
    typed = blocks and all(isinstance(block, Mapping) and isinstance(block.get("type"), str) for block in blocks)
    has_media = typed and any(block["type"] not in TEXTS and any(_holds(block, s) for s in SLOTS) for block in blocks)
    return value if has_media else None


def put(content: Any, path: Path, slot: Slot, medium: Image | Audio) -> Any:
    """`content` with the medium at `path` exchanged, in the dialect that stood there. Nothing given is changed."""
    if not path:
        return _written(content, slot, medium)
    step, rest = path[0], path[1:]
    if step == IN_JSON:
        return json.dumps(put(json.loads(content), rest, slot, medium), ensure_ascii=False)
    copy: Any = dict(content) if isinstance(content, Mapping) else list(content)
    copy[step] = put(content[step], rest, slot, medium)
    return copy


def _written(block: Mapping[str, Any], slot: Slot, medium: Image | Audio) -> dict[str, Any]:
    data, kind, name = (
        (medium.to_png(), "image", "png") if isinstance(medium, Image) else (medium.to_wav(), "audio", "wav")
    )
    old, text = _at(block, slot.payload), base64.b64encode(data).decode()
    new: Any = text
    if isinstance(old, str) and old[:5].lower() == "data:":
        new = f"data:{kind}/{name};base64,{text}"
    elif isinstance(old, bytes | bytearray):
        new = data
    elif isinstance(old, Mapping) and isinstance(medium, Audio):
        new = {**old, "array": medium.wave, "sampling_rate": medium.rate}
    elif not isinstance(old, str) and isinstance(medium, Image):
        new = medium.to_pil()
    changed = _set(block, slot.payload, new)
    label = _at(block, slot.label) if slot.label else None
    return changed if label is None else _set(changed, slot.label, f"{kind}/{name}" if "/" in str(label) else name)


def _set(block: Mapping[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    inner = value if len(path) == 1 else _set(block[path[0]], path[1:], value)
    return {**block, path[0]: inner}
