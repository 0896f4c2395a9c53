"""LlamaIndex messages to the guard's Prompt and Answer, and an Outcome back to a message."""

from __future__ import annotations

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

from llama_index_smoothguard.answers import bytes_of, call_of, calls_beside
from llama_index_smoothguard.hiding import among_options, beside_block, beside_message
from sg_guardrails import (
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
ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "chatbot": "assistant",
    "model": "assistant",
    "function": "tool",
    "tool": "tool",
}


@dataclass(frozen=True, slots=True)
class Reader:
    """How blocks become parts of a Prompt."""

    limits: MediaLimits
    unresolvable: Literal["block", "pass", "error"] = "block"
    """``pass`` leaves out what cannot be resolved."""
    media_root: Path | None = None
    """The one folder from which files named by messages, nodes and queries are read. None: no file is opened."""

    def call(self, asked: Sequence[ChatMessage] | str, options: Mapping[str, Any]) -> Prompt:
        """What the guard sees of an LLM's call.

        Args:
            asked: A chat's messages, or a completion's text.
            options: The call's other arguments; a completion's pictures come as ``image_documents``.

        Raises:
            MediaError: As `prompt` does.
        """
        if not isinstance(asked, str):
            return self.prompt(asked, options)
        rest = {name: value for name, value in options.items() if name not in ("prompt", "image_documents")}
        return self.prompt(completion(asked, options.get("image_documents")), rest)

    def prompt(self, messages: Sequence[ChatMessage], options: Mapping[str, Any] | None = None) -> Prompt:
        """What the guard sees of `messages`, which come with the other arguments `options`.

        Raises:
            UnresolvableMediaError: If a block cannot be resolved, or media stand where none are read; names each.
            MediaError: If a medium is broken or exceeds the limits.
        """
        turns: list[Message] = []
        name = among_options(options or {})
        problems = [f"the call's arguments: media under {name}"] if name else []
        for number, message in enumerate(messages):
            parts: list[Part] = []
            role = _role(message)
            if name := beside_message(message, own=role == "assistant"):
                problems.append(f"message {number}, additional_kwargs: media under {name}")
            for block in message.blocks:
                try:
                    parts += self.parts(block)
                except UnresolvableMediaError as error:
                    problems.append(f"message {number}, {error}")
                except MediaError as error:
                    raise MediaError(f"media that cannot be judged: message {number}, {error}") from error
                if name := beside_block(block, own=role == "assistant"):
                    problems.append(f"message {number}, {type(block).__name__}: media under {name}")
            parts += [_line(call) for call in calls_beside(message)]
            turns.append(Message(role, tuple(part for part in parts if part != "")))
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
                yield _line(call_of(block))
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
            return bytes_of(data, self.limits.max_bytes * 2)
        if path:
            return self._read(name, path)
        if str(url)[:5].lower() == "data:":
            return data_uri_bytes(str(url), limits=self.limits)
        raise UnresolvableMediaError(f"{name}: a URL; nothing is fetched. Pass the bytes")

    def _read(self, name: str, path: str | Path) -> bytes:
        if self.media_root is None:
            raise UnresolvableMediaError(f"{name}: a file; none is opened unless media_root says where from")
        file = Path(path).resolve()  # from the working folder, as the model's own code resolves it
        if not file.is_relative_to(self.media_root.resolve()) or not file.is_file():
            raise UnresolvableMediaError(f"{name}: a file that is not inside media_root")
        with file.open("rb") as opened:
            return opened.read(self.limits.max_bytes + 1)


def _role(message: ChatMessage) -> Role:
    """The turn's role; a message made past its constructor may name it in other letters."""
    return ROLES.get(str(getattr(message.role, "value", message.role)).lower(), "user")


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


def completion(prompt: str, pictures: Sequence[ImageNode | ImageBlock] | None) -> list[ChatMessage]:
    """What a completion's LLM is asked, as a chat: the pictures that came as ``image_documents``, then the text.

    Raises:
        MediaError: If they are no list of pictures, a picture's file is missing, or its base64 is broken.
    """
    if pictures and not isinstance(pictures, list | tuple):  # what serves once must be left for the LLM
        raise MediaError(f"image_documents is a list or a tuple of pictures, not a {type(pictures).__name__}")
    try:
        blocks = [one if isinstance(one, ImageBlock) else image_node_to_image_block(one) for one in pictures or ()]
    except (AttributeError, ValueError) as error:
        raise MediaError("a picture of image_documents cannot be read") from error
    return [ChatMessage(role=MessageRole.USER, blocks=[*blocks, TextBlock(text=prompt)])]


def _line(call: ToolCall) -> str:
    return json.dumps({"name": call.name, "arguments": dict(call.arguments)}, default=str)
