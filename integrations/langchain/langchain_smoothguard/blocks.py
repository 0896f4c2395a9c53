"""A content block becomes a picture, a clip or a text, or is refused by name; and goes back in its dialect."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from langchain_smoothguard.dialects import (
    CONTAINERS,
    MEDIA_TYPES,
    SILENT,
    SLOTS,
    TEXTS,
    Slot,
    at,
    beside,
    holds,
    label_of,
)
from sg_guardrails import Audio, Image, MediaError, MediaLimits, base64_bytes, data_uri_bytes, edge

Path = tuple[str | int, ...]
IN_JSON = "<json>"
"""A step of a path that leads into a JSON text: tool nodes stringify blocks that they don't know, audio among them."""


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
    is_hiding: bool = False
    """True where media stand beside a text or beside another medium: two readers may see two different things."""


def pieces(
    content: object, limits: MediaLimits, *, tool: bool = False, own: bool = False, path: Path = ()
) -> Iterator[Piece]:
    """Walk a message's content.

    Args:
        content: ``message.content``, or a part of it.
        limits: Bounds on each medium.
        tool: Whether a tool gave this content; then a text that is JSON with media in it is walked too.
        own: Whether a model gave it; then its calls and reasoning are its own words.
        path: Where `content` stands.
    """
    if isinstance(content, str):
        if (inner := stringified(content) if tool else None) is None:
            yield Piece(path, content)
        else:
            yield from pieces(inner, limits, tool=tool, own=own, path=(*path, IN_JSON))
    elif isinstance(content, Mapping):
        yield from _block(content, limits, tool=tool, own=own, path=path)
    elif isinstance(content, Sequence):
        for index, item in enumerate(content):
            yield from pieces(item, limits, tool=tool, own=own, path=(*path, index))
    else:
        yield Piece(path, None, problem=f"a {type(content).__name__} is no content block")


def _block(block: Mapping[str, Any], limits: MediaLimits, *, tool: bool, own: bool, path: Path) -> Iterator[Piece]:
    kind = str(block.get("type", ""))
    is_silent = kind in SILENT or (not kind and bool(SILENT & block.keys()))
    key = TEXTS.get(kind, "" if kind else "text")  # Converse and Gemini give their text blocks no type
    is_text = isinstance(block.get(key), str)
    if kind == "json":
        yield Piece(path, json.dumps(block.get("json"), default=str))
    elif is_text and not is_silent:
        yield from pieces(block[key], limits, tool=tool, own=own, path=(*path, key))
    if is_silent or kind == "json" or (is_text and kind):
        yield from _hiding(block, [("json",), (key,)], own=own, path=path)
        return
    slots = [slot for slot in SLOTS if holds(block, slot)]
    inner = [step for step in CONTAINERS if isinstance(at(block, step), str | Mapping | list | tuple)]
    for step in inner:
        yield from pieces(at(block, step), limits, tool=tool, own=own, path=(*path, *step))
    if len(slots) > 1 or (slots and edge.hidden(*beside(block, slots[0].payload), own=own)):
        # A guard that reads one and a model that reads the other would see two different pictures.
        yield Piece(path, None, problem=f"{_name(block)}: carries its media twice", is_hiding=True)
    elif slots:
        yield replace(_resolved(block, kind, slots[0], limits), path=path)
    elif inner or is_text:
        yield from _hiding(block, [*inner, (key,)], own=own, path=path)
    else:
        yield Piece(path, None, problem=f"{_name(block)}: an unknown block, or one without a payload")


def _hiding(block: Mapping[str, Any], walked: Sequence[tuple[str, ...]], *, own: bool, path: Path) -> Iterator[Piece]:
    """A piece without a part where media stand beside what was walked of the block."""
    left = block
    for step in walked:
        left = _without(left, step)
    if name := edge.hidden(left, own=own):
        problem = f"{_name(block)}: carries media under {name}, where none belongs"
        yield Piece(path, None, problem=problem, is_hiding=True)


def _without(block: Mapping[str, Any], path: tuple[str, ...]) -> Mapping[str, Any]:
    step, rest = path[0], path[1:]
    kept = {key: value for key, value in block.items() if key != step}
    return {**kept, step: _without(block[step], rest)} if rest else kept


def _resolved(block: Mapping[str, Any], kind: str, slot: Slot, limits: MediaLimits) -> Piece:
    """The medium in `slot`, or why there is none."""
    value = at(block, slot.payload)
    labels = _labels(block, slot, value)
    said = " ".join((kind, *slot.payload)).lower()
    claims = " ".join((said, *labels))
    if "video" in claims or "application/" in claims or "pdf" in claims:
        return Piece((), None, slot, f"{_name(block)}: neither a picture nor a clip ({' '.join(labels) or 'video'})")
    if slot.form == "remote":
        return Piece((), None, slot, f"{_name(block)}: names a file or an id; nothing is fetched or opened")
    is_plain = slot.payload == ("source", "data") and at(block, ("source", "type")) == "text"
    if is_plain and (label := label_of(block, slot)) and not str(at(block, label)).strip().lower().startswith("text/"):
        return Piece((), None, slot, f"{_name(block)}: says {claims[:60]}, its payload is plain text", broken=True)
    try:
        if (is_plain or any(label.startswith("text/") for label in labels)) and kind not in MEDIA_TYPES:
            # Anthropic's plain documents are not encoded.
            return Piece((), str(value) if is_plain else edge.plain_text(_encoded(value, slot, limits)))
        medium = _opened(value, slot, limits)
    except LookupError as error:
        return Piece((), None, slot, f"{_name(block)}: {error.args[0]}")
    except MediaError as error:
        return Piece((), None, slot, f"{_name(block)}: {error}", broken=True)
    wrong = "audio" if isinstance(medium, Image) else "image"
    if wrong in claims or any(label.startswith("text/") for label in labels):
        return Piece((), None, slot, f"{_name(block)}: says {claims[:60]}, its payload is another thing", broken=True)
    return Piece((), medium, slot)


def _labels(block: Mapping[str, Any], slot: Slot, value: object) -> list[str]:
    """What the block, and a data: URI in it, say that the payload is; lower case."""
    label = label_of(block, slot)
    labels = [str(at(block, label))] if label else []
    if isinstance(value, str) and value[:5].lower() == "data:":
        labels.append(value[5:80].partition(",")[0].partition(";")[0])
    return [one.strip().lower() for one in labels if one.strip()]


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
    return edge.decoded(_encoded(value, slot, limits), limits=limits)


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
        edge.decoded(data, limits=limits)
    except MediaError:
        raise LookupError("neither a data: URI nor base64; nothing is fetched or opened") from None
    return data


def _name(block: Mapping[str, Any]) -> str:
    return str(block.get("type") or next(iter(block), "an empty block"))[:40]


def stringified(text: str) -> list[Any] | Mapping[str, Any] | None:
    """The blocks that a tool node has turned into a JSON text, if media are among them."""
    if text.lstrip()[:1] not in ("[", "{"):
        return None
    try:
        value = json.loads(text)
        return value if _has_media(value) else None
    except (ValueError, RecursionError):
        return None


def _has_media(value: object) -> bool:
    """Whether a tool's JSON is blocks with media: one that says so, or any that carries a payload.

    A ``{"type": "file", "path": ...}`` of a tool that lists files is none.
    """
    if isinstance(value, list):
        return any(_has_media(item) for item in value)
    if not isinstance(value, Mapping):
        return False
    kind = value.get("type")
    found = [slot for slot in SLOTS if holds(value, slot)] if isinstance(kind, str) and kind not in TEXTS else []
    if any(kind in MEDIA_TYPES or label_of(value, slot) or _is_medium(at(value, slot.payload)) for slot in found):
        return True
    return any(_has_media(at(value, step)) for step in CONTAINERS)


def _is_medium(payload: object) -> bool:
    """Whether a payload is a medium without being called one; base64 alone is a text to whom it is sent as JSON."""
    return bool(edge.DATA_URI.match(payload) if isinstance(payload, str) else edge.hidden(payload))


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
    old, text = at(block, slot.payload), base64.b64encode(data).decode()
    new: Any = text
    if isinstance(old, str) and old[:5].lower() == "data:":
        new = f"data:{kind}/{name};base64,{text}"
    elif isinstance(old, bytes | bytearray):
        new = data
    elif isinstance(old, Mapping) and isinstance(medium, Audio):
        new = {**old, "array": medium.wave, "sampling_rate": medium.rate}
    elif not isinstance(old, str) and isinstance(medium, Image):
        new = medium.to_pil()
    changed, label = _set(block, slot.payload, new), label_of(block, slot)
    return _set(changed, label, f"{kind}/{name}" if "/" in str(at(block, label)) else name) if label else changed


def _set(block: Mapping[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    inner = value if len(path) == 1 else _set(block[path[0]], path[1:], value)
    return {**block, path[0]: inner}
