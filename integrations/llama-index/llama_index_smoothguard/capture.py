"""What the LLMs of a running query received and said, by LlamaIndex's instrumentation, which observes only."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, TextBlock
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.llm import (
    LLMChatEndEvent,
    LLMChatStartEvent,
    LLMCompletionEndEvent,
    LLMCompletionStartEvent,
)
from llama_index_instrumentation import get_dispatcher


@dataclass(slots=True)
class Call:
    """One call of an LLM; `said` is filled when it ends."""

    messages: Sequence[ChatMessage]
    said: str | None = None


_SINK: ContextVar[list[Call] | None] = ContextVar("smoothguard_sink", default=None)

_SAMPLING: ContextVar[bool] = ContextVar("smoothguard_sampling", default=False)


class _Capture(BaseEventHandler):
    """Appends to the list of the query that is running in this context; contexts copied below share the list."""

    @classmethod
    def class_name(cls) -> str:
        return "SmoothGuardCapture"

    def handle(self, event: Any, **kwargs: Any) -> None:  # noqa: ARG002 - LlamaIndex's interface
        sink = _SINK.get()
        if sink is None:
            return
        match event:
            case LLMChatStartEvent():
                sink.append(Call(tuple(event.messages)))
            case LLMCompletionStartEvent():
                sink.append(Call((ChatMessage(event.prompt),)))
            case LLMChatEndEvent() if event.response is not None:
                _end(sink, event.messages, event.response.message.content)
            case LLMCompletionEndEvent():
                _end(sink, [ChatMessage(event.prompt)], event.response.text)


def _end(sink: list[Call], messages: Sequence[ChatMessage], said: str | None) -> None:
    for call in reversed(sink):
        same = len(call.messages) == len(messages) and all(map(_same, call.messages, messages))
        if same and call.said is None:
            call.said = said or ""
            return


def _same(one: ChatMessage, other: ChatMessage) -> bool:
    """A chat's end names the very messages of its start; a completion's prompt is compared as text."""
    plain = all(isinstance(block, TextBlock) for block in (*one.blocks, *other.blocks))
    return one is other or (plain and one.role == other.role and one.content == other.content)


_lock = threading.Lock()
_installed: list[_Capture] = []


def install() -> None:
    """Add the handler to the process's root dispatcher; once."""
    with _lock:
        if not _installed:
            _installed.append(_Capture())
            get_dispatcher().add_event_handler(_installed[0])


@contextmanager
def captured() -> Iterator[list[Call]]:
    """The LLM calls made inside the block, in every thread and task that copies its context."""
    calls: list[Call] = []
    around = _SINK.get()
    token = _SINK.set(calls)
    try:
        yield calls
    finally:
        _SINK.reset(token)
        if around is not None:  # a guarded engine inside a guarded engine: the outer one sees these calls too
            around.extend(calls)


def unseen() -> Context:
    """A copy of this context for the guard's own samples: no query captures them, and no handler judges them."""
    context = copy_context()
    context.run(_SINK.set, None)
    context.run(_SAMPLING.set, True)  # noqa: FBT003 - a context variable's value
    return context


def is_sampling() -> bool:
    """Whether this is one of the guard's own samples."""
    return _SAMPLING.get()
