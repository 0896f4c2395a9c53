"""What each chat model of a running chain received and said, so that a guard after it can be held against it."""

# ruff: noqa: ARG002, D102 - the handlers' names and arguments are LangChain's interface

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import LLMResult
from langchain_core.prompt_values import PromptValue
from langchain_core.tracers.context import register_configure_hook

from langchain_smoothguard.messages import bound, media_of

_SAMPLING: ContextVar[bool] = ContextVar("smoothguard_sampling", default=False)
MOST_CALLS = 32
"""Calls kept below one run; each holds its messages, pictures included."""


def unseen() -> Context:
    """A copy of this context for the guard's own samples: no handler records or judges them.

    No tag says so: a caller's config could carry it.
    """
    context = copy_context()
    context.run(_SAMPLING.set, True)  # noqa: FBT003 - a context variable's value
    return context


def is_sampling() -> bool:
    """Whether this is one of the guard's own samples."""
    return _SAMPLING.get()


@dataclass(frozen=True, slots=True)
class Call:
    """One finished call of a chat model."""

    messages: Sequence[BaseMessage]
    outputs: tuple[BaseMessage | str, ...] = ()


@dataclass(slots=True)
class _Scope:
    """A live chain or tool run. What is kept goes when the run ends, whichever way it ends."""

    parent: UUID | None
    given: Sequence[BaseMessage] | None
    """The messages that the run was started with, or that a prompt template within it made."""
    calls: list[Call]
    made: list[Sequence[BaseMessage]] = field(default_factory=list)
    """Messages that steps within it made: what models get of them is recorded as a copy."""


class Recorder(BaseCallbackHandler):
    """Follows runs by id; safe for any number of threads and tasks, since nothing is kept under the handler itself."""

    run_inline = True  # in async code: on the loop's thread and before the model, so that the order is the run's own

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._scopes: dict[UUID, _Scope] = {}
        self._open: dict[UUID, tuple[UUID, Sequence[BaseMessage]]] = {}

    @property
    def live(self) -> int:
        """Runs and model calls that have not ended. It is no ``__len__``, since LangChain tests a handler's truth."""
        return len(self._scopes) + len(self._open)

    def on_chain_start(
        self, serialized: Any, inputs: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        with self._lock:
            self._scopes[run_id] = _Scope(parent_run_id, as_messages(inputs), [])

    def on_tool_start(
        self, serialized: Any, input_str: str, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        self.on_chain_start(serialized, None, run_id=run_id, parent_run_id=parent_run_id)

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self._close(run_id, outputs)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._close(run_id)

    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self._close(run_id)

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._close(run_id)

    def on_chat_model_start(
        self,
        serialized: Any,
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        if is_sampling():
            return
        beside = bound(kwargs.get("invocation_params"))
        asked = [*messages[0], *beside] if beside else messages[0]
        with self._lock:
            if parent_run_id in self._scopes:
                self._open[run_id] = (parent_run_id, asked)

    def on_llm_start(
        self, serialized: Any, prompts: list[str], *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        texts: list[list[BaseMessage]] = [[HumanMessage(prompts[0])]]  # a text model: all it saw is this text
        self.on_chat_model_start(serialized, texts, run_id=run_id, parent_run_id=parent_run_id, **kwargs)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        said = tuple(getattr(one, "message", one.text) for some in response.generations for one in some)
        with self._lock:
            scope, messages = self._open.pop(run_id, (None, ()))
            if scope in self._scopes:
                self._add(self._scopes[scope], [Call(messages, said)])

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        with self._lock:
            self._open.pop(run_id, None)

    def _close(self, run_id: UUID, outputs: object = None) -> None:
        """End a run: its calls go up to the enclosing one; model calls cancelled below it are forgotten."""
        made = as_messages(outputs)
        with self._lock:
            ended = self._scopes.pop(run_id, None)
            for call in [call for call, (scope, _) in self._open.items() if scope == run_id]:
                del self._open[call]
            above = self._scopes.get(ended.parent) if ended is not None and ended.parent is not None else None
            if ended is not None and above is not None:
                self._add(above, ended.calls)
                above.made = [*above.made, *ended.made, *([made] if made else [])][-MOST_CALLS:]
                if isinstance(outputs, PromptValue):
                    above.given = made or above.given

    @staticmethod
    def _add(scope: _Scope, calls: list[Call]) -> None:
        scope.calls = [*scope.calls, *calls][-MOST_CALLS:]

    def originals(self, run_id: UUID | None) -> list[Sequence[BaseMessage]]:
        """The messages that the enclosing runs were started with, and that steps within them made, as they came."""
        found: list[Sequence[BaseMessage]] = []
        with self._lock:
            while run_id is not None and (scope := self._scopes.get(run_id)) is not None:
                found += [*([scope.given] if scope.given else []), *scope.made]
                run_id = scope.parent
        return found

    def find(self, run_id: UUID | None, output: object) -> Sequence[BaseMessage] | None:
        """The messages that the model which gave `output` received, or None where that can't be told for certain.

        By the message itself or its id in the enclosing runs, nearest first; else by its text; else, where nothing
        outside may match, the calls of the nearest run alone, or the messages it was started with.

        Args:
            run_id: The run that encloses the guard's.
            output: What the chain made of the model's answer.
        """
        with self._lock:
            levels: list[tuple[list[Call], Sequence[BaseMessage] | None]] = []
            while run_id is not None and (scope := self._scopes.get(run_id)) is not None:
                levels.append((scope.calls, scope.given))
                run_id = scope.parent
        for match in (_same, _says):
            for calls, _ in levels:
                if found := [call for call in calls if any(match(said, output) for said in call.outputs)]:
                    return found[-1].messages if match is _same else _only(found)
        calls, given = levels[0] if levels else ([], None)
        if given is not None and not any(media_of(call.messages) for call in calls):
            return (
                given  # the recorded calls saw no media, so the answer may come from a client that LangChain can't see
            )
        return _only(calls) if calls else None


def _same(said: BaseMessage | str, output: object) -> bool:
    if said is output:
        return isinstance(said, BaseMessage)
    if not isinstance(said, BaseMessage) or not isinstance(output, BaseMessage):
        return False
    return said.id is not None and said.id == output.id


def _says(said: BaseMessage | str, output: object) -> bool:
    text = output.text if isinstance(output, AIMessage) else output
    return isinstance(text, str) and bool(text) and str(text) == (said if isinstance(said, str) else str(said.text))


def _only(calls: Sequence[Call]) -> Sequence[BaseMessage] | None:
    """The last call, where media can tell: with two sets of media in play, guessing would judge the wrong picture."""
    with_media = [call for call in calls if media_of(call.messages)] or list(calls)
    last = with_media[-1]
    return last.messages if all(media_of(c.messages) == media_of(last.messages) for c in with_media) else None


def as_messages(value: object) -> Sequence[BaseMessage] | None:
    """The messages that `value` is or holds under ``messages``, or None."""
    if isinstance(value, PromptValue):
        return value.to_messages()
    if isinstance(value, dict):
        value = value.get("messages")
    if not isinstance(value, list | tuple) or not value or not all(isinstance(item, BaseMessage) for item in value):
        return None
    return list(value)


_RECORDER = Recorder()
_CURRENT: ContextVar[Recorder | None] = ContextVar("smoothguard_recorder", default=_RECORDER)
_install = threading.Lock()
_installed: list[Recorder] = []


def install() -> Recorder:
    """Add the process's recorder to every LangChain run from now on; once.

    A context variable's default holds in every thread and task, so that no callback list has to be set up.
    """
    with _install:
        if not _installed:
            register_configure_hook(_CURRENT, inheritable=True)
            _installed.append(_RECORDER)
    return _RECORDER
