"""LlamaIndex messages to the guard's Prompt and Answer, and an Outcome back to a message."""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from llama_index.core.base.llms.generic_utils import image_node_to_image_block
from llama_index.core.base.llms.types import (
    AudioBlock,
    CachePoint,
    ChatMessage,
    CitableBlock,
    CitationBlock,
    DocumentBlock,
    ImageBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    VideoBlock,
)
from llama_index.core.schema import ImageNode

from sg_guardrails import (
    Answer,
    Audio,
    Image,
    MediaError,
    MediaLimits,
    Message,
    Prompt,
    ToolCall,
    UnresolvableMediaError,
    data_uri_bytes,
    edge,
)

Part = str | Image | Audio
Role = Literal["system", "user", "assistant", "tool"]
ROLES: dict[MessageRole, Role] = {
    MessageRole.SYSTEM: "system",
    MessageRole.DEVELOPER: "system",
    MessageRole.USER: "user",
    MessageRole.ASSISTANT: "assistant",
    MessageRole.CHATBOT: "assistant",
    MessageRole.MODEL: "assistant",
    MessageRole.FUNCTION: "tool",
    MessageRole.TOOL: "tool",
}


REPLACING = frozenset(["content", "blocks", "parts", "role"])
"""Keys of ``additional_kwargs`` that LlamaIndex's adapters lay over the message they were given."""


@dataclass(frozen=True, slots=True)
class Reader:
    """How blocks become parts of a Prompt."""

    limits: MediaLimits
    unresolvable: Literal["block", "pass", "error"] = "block"
    """``pass`` leaves out what cannot be resolved."""
    media_root: Path | None = None
    """The one folder from which files named by messages, nodes and queries are read. None: no file is opened."""

    def prompt(self, messages: Sequence[ChatMessage]) -> Prompt:
        """What the guard sees of `messages`.

        Raises:
            UnresolvableMediaError: If a block cannot be resolved; names each, by message and block type.
            MediaError: If a medium is broken or exceeds the limits.
        """
        turns: list[Message] = []
        problems: list[str] = []
        for number, message in enumerate(messages):
            parts: list[Part] = []
            if name := _beside(message):
                problems.append(f"message {number}, additional_kwargs: media under {name}")
            for block in message.blocks:
                try:
                    parts += self.parts(block)
                except UnresolvableMediaError as error:
                    problems.append(f"message {number}, {error}")
                except MediaError as error:
                    raise MediaError(f"media that cannot be judged: message {number}, {error}") from error
            parts += [_line(call) for call in _calls(message) if not _in_blocks(message)]
            turns.append(Message(ROLES.get(message.role, "user"), tuple(part for part in parts if part != "")))
        if problems and self.unresolvable != "pass":
            raise UnresolvableMediaError("media that the guard cannot see: " + "; ".join(problems))
        return Prompt(tuple(turns))

    def file(self, name: str | Path) -> Image | Audio | None:
        """The medium in a file that a query or a node names; None where it can't be had and may be left out.

        Raises:
            UnresolvableMediaError: If the file is outside `media_root`, or no root is given.
            MediaError: If it is broken or exceeds the limits.
        """
        try:
            return edge.decoded(self._read("query's image_path", name), limits=self.limits)
        except UnresolvableMediaError:
            if self.unresolvable == "pass":
                return None
            raise

    def parts(self, block: object) -> Iterator[Part]:
        """What the guard sees of one block. Raises as `prompt` does."""
        match block:
            case TextBlock():
                yield block.text
            case ImageBlock():
                yield self._medium("image", Image, block.image, block.path, block.url)
            case AudioBlock():
                yield self._medium("audio", Audio, block.audio, block.path, block.url)
            case CitableBlock():
                for inner in block.content:
                    yield from self.parts(inner)
            case CitationBlock():
                yield from self.parts(block.cited_content)
            case DocumentBlock():
                yield self._document(block)
            case ToolCallBlock():
                yield _line(_call(block))
            case ThinkingBlock() | CachePoint():
                return
            case VideoBlock():
                raise UnresolvableMediaError("video: neither a picture nor a clip")
            case _:
                raise UnresolvableMediaError(f"{type(block).__name__}: an unknown block")

    def _document(self, block: DocumentBlock) -> Part:
        kind = (block.document_mimetype or "").lower()
        if kind.startswith("text/"):
            return edge.plain_text(self._payload("document", block.data, block.path, block.url))
        if kind.startswith(("image/", "audio/")):
            wanted = Image if kind.startswith("image/") else Audio
            return self._medium("document", wanted, block.data, block.path, block.url)
        raise UnresolvableMediaError(f"document: neither a picture nor a clip ({kind or 'no type'})")

    def _medium(self, name: str, kind: type[Image | Audio], data: Any, path: Any, url: Any) -> Image | Audio:
        try:
            medium = edge.decoded(self._payload(name, data, path, url), limits=self.limits)
        except UnresolvableMediaError:
            raise
        except MediaError as error:
            raise MediaError(f"{name}: {error}") from error
        if not isinstance(medium, kind):
            raise MediaError(f"{name}: its payload is another medium")
        return medium

    def _payload(self, name: str, data: Any, path: Any, url: Any) -> bytes:
        """The block's bytes. Which of several sources a model takes differs between models, so several are refused."""
        sources = [source for source in (data, path, url) if source]
        if len(sources) != 1:
            raise UnresolvableMediaError(f"{name}: {'carries its media twice' if sources else 'without a payload'}")
        if data:
            return self._inline(data)
        if path:
            return self._read(name, path)
        if str(url)[:5].lower() == "data:":
            return data_uri_bytes(str(url), limits=self.limits)
        raise UnresolvableMediaError(f"{name}: a URL; nothing is fetched. Pass the bytes")

    def _inline(self, data: bytes | io.IOBase) -> bytes:
        if isinstance(data, io.IOBase):
            data.seek(0)
            raw: bytes = data.read(self.limits.max_bytes * 2)
            data.seek(0)  # the model reads it after us
        else:
            raw = data
        try:  # blocks hold base64 text; LlamaIndex tells it from raw bytes in this way
            return base64.b64decode(raw, validate=True)
        except binascii.Error:
            return raw

    def _read(self, name: str, path: str | Path) -> bytes:
        if self.media_root is None:
            raise UnresolvableMediaError(f"{name}: a file; none is opened unless media_root says where from")
        file = Path(path).resolve()  # from the working folder, as the model's own code resolves it
        if not file.is_relative_to(self.media_root.resolve()) or not file.is_file():
            raise UnresolvableMediaError(f"{name}: a file that is not inside media_root")
        with file.open("rb") as opened:
            return opened.read(self.limits.max_bytes + 1)


def _beside(message: ChatMessage) -> str:
    """The key under which the message carries media, or another message, outside of its blocks; else empty."""
    beside = {key: value for key, value in message.additional_kwargs.items() if key != "images"}
    blocks = {block.image for block in message.blocks if isinstance(block, ImageBlock)}
    for document in message.additional_kwargs.get("images") or ():  # LlamaIndex has made a block of each
        if (getattr(document, "image", None) or "").encode() not in blocks:
            return "images"
    return next(iter(REPLACING & beside.keys()), "") or edge.hidden(beside, own=message.role == MessageRole.ASSISTANT)


def with_media(prompt: Prompt, extra: Sequence[Image | Audio]) -> Prompt:
    """`prompt` with those of `extra` that it lacks put before its last user turn's own parts."""
    known = {medium.digest for medium in prompt.media}
    new = {medium.digest: medium for medium in extra if medium.digest not in known}
    if not new:
        return prompt
    turns = list(prompt.messages)
    place = next((index for index in reversed(range(len(turns))) if turns[index].role == "user"), None)
    if place is None:
        return Prompt((*turns, Message("user", tuple(new.values()))))
    turns[place] = Message("user", (*new.values(), *turns[place].parts))
    return Prompt(tuple(turns))


def completion(prompt: str, pictures: Sequence[ImageNode] | None) -> list[ChatMessage]:
    """What a completion's LLM is asked, as a chat: the pictures that came as ``image_documents``, then the text.

    Raises:
        MediaError: If a picture's file is missing or its base64 is broken.
    """
    try:
        blocks = [image_node_to_image_block(node) for node in pictures or ()]
    except ValueError as error:
        raise MediaError("a picture of image_documents cannot be read") from error
    return [ChatMessage(role=MessageRole.USER, blocks=[*blocks, TextBlock(text=prompt)])]


def answer_of(message: ChatMessage) -> Answer:
    """What is judged of a message: its text and tool calls."""
    return Answer(message.content or "", tuple(_calls(message)))


def _in_blocks(message: ChatMessage) -> bool:
    return any(isinstance(block, ToolCallBlock) for block in message.blocks)


def _calls(message: ChatMessage) -> list[ToolCall]:
    """The tool calls: as blocks, or as older integrations keep them, in OpenAI's form under ``additional_kwargs``."""
    if _in_blocks(message):
        return [_call(block) for block in message.blocks if isinstance(block, ToolCallBlock)]
    return [_older(call) for call in message.additional_kwargs.get("tool_calls") or ()]


def _call(block: ToolCallBlock) -> ToolCall:
    return ToolCall(block.tool_name, _arguments(block.tool_kwargs))


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


def _line(call: ToolCall) -> str:
    return json.dumps({"name": call.name, "arguments": dict(call.arguments)}, default=str)
