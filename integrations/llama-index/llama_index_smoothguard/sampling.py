"""The guarded LLM asked again under noise: which messages it is sent, and how its answers are collected."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from llama_index.core.base.llms.types import (
    AudioBlock,
    ChatMessage,
    ChatResponse,
    CitableBlock,
    CitationBlock,
    CompletionResponse,
    DocumentBlock,
    ImageBlock,
)
from llama_index.core.schema import ImageDocument

from llama_index_smoothguard.capture import unseen
from llama_index_smoothguard.messages import Reader, completion
from sg_guardrails import Audio, GuardError, Image, Prompt, SmoothGuard, UnresolvableMediaError, edge

Response = TypeVar("Response", ChatResponse, CompletionResponse)
Asked = Sequence[ChatMessage]


def perturbed(messages: Asked, prompt: Prompt, reader: Reader) -> list[ChatMessage]:
    """The messages with `prompt`'s media (a perturbed copy's) in the blocks of the originals.

    Args:
        messages: As the LLM got them; nothing given is changed.
        prompt: What `reader` made of them, with other media.
        reader: The one that read them; what it leaves out stays as it is.
    """
    media = iter(prompt.media)
    changed = []
    for message in messages:
        blocks = [_exchanged(block, media, reader) for block in message.blocks]
        # "images" is the older form of blocks that stand there too: the originals must not ride along.
        beside = {key: value for key, value in message.additional_kwargs.items() if key != "images"}
        changed.append(message.model_copy(update={"blocks": blocks, "additional_kwargs": beside}))
    return changed


def _exchanged(block: Any, media: Iterator[Image | Audio], reader: Reader) -> Any:
    match block:
        case CitableBlock():
            return block.model_copy(update={"content": [_exchanged(inner, media, reader) for inner in block.content]})
        case CitationBlock():
            return block.model_copy(update={"cited_content": _exchanged(block.cited_content, media, reader)})
        case ImageBlock() | AudioBlock() | DocumentBlock():
            try:
                is_text = all(isinstance(part, str) for part in reader.parts(block))
            except UnresolvableMediaError:  # read before, under a policy that passes such blocks
                return block
            return block if is_text else _written(block, next(media))
        case _:
            return block


def _written(block: ImageBlock | AudioBlock | DocumentBlock, medium: Image | Audio) -> Any:
    data = base64.b64encode(medium.to_png() if isinstance(medium, Image) else medium.to_wav())  # as blocks keep it
    kind = "image/png" if isinstance(medium, Image) else "audio/wav"
    match block:
        case ImageBlock():
            update: dict[str, Any] = {"image": data, "image_mimetype": kind}
        case AudioBlock():
            update = {"audio": data, "format": "wav"}
        case DocumentBlock():
            update = {"data": data, "document_mimetype": kind}
    return block.model_copy(update={**update, "path": None, "url": None})


@dataclass(frozen=True, slots=True)
class Completion:
    """A completion's call, as a chat: its pictures come as ``image_documents``."""

    prompt: str
    formatted: bool
    given: dict[str, Any]
    """The call's other arguments."""
    messages: list[ChatMessage] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "messages", completion(self.prompt, self.given.get("image_documents")))

    @property
    def text(self) -> tuple[str, bool]:
        """The arguments that are the same for every copy."""
        return self.prompt, self.formatted

    def options(self, asked: Asked) -> dict[str, Any]:
        """The other arguments: those given, with a copy's pictures where a copy is asked."""
        if asked is self.messages:
            return self.given
        blocks = [block for message in asked for block in message.blocks if isinstance(block, ImageBlock)]
        pictures = [
            # One that is left out under a policy that passes what it cannot see goes as it came.
            ImageDocument(image=block.image.decode()) if isinstance(block.image, bytes) else node
            for node, block in zip(self.given.get("image_documents") or (), blocks, strict=True)
        ]
        return {**self.given, "image_documents": pictures}


def drained(stream: Callable[[Asked], Iterable[Response]]) -> Callable[[Asked], Response]:
    """A stream as one call: its last response holds all of it."""
    return lambda asked: _last(list(stream(asked)))


def adrained(stream: Callable[[Asked], Awaitable[AsyncIterable[Response]]]) -> Callable[[Asked], Awaitable[Response]]:
    """As `drained`, asynchronous."""

    async def ask(asked: Asked) -> Response:
        return _last([one async for one in await stream(asked)])

    return ask


def _last(said: Sequence[Response]) -> Response:
    if not said:
        raise GuardError("the LLM's stream held nothing, so there is nothing that can be judged")
    return said[-1]


def samples_of(guard: SmoothGuard) -> edge.Samples[Asked, Response]:
    """None yet; asked in a context in which no query captures them and no handler judges them."""
    return edge.Samples(guard, context=unseen)
