"""SmoothGuardQueryEngine: any query engine, its answers held against the pictures and clips that its LLM saw."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.llms.generic_utils import image_node_to_image_block
from llama_index.core.base.llms.types import ChatMessage, ImageBlock
from llama_index.core.base.response.schema import (
    RESPONSE_TYPE,
    AsyncStreamingResponse,
    PydanticResponse,
    Response,
    StreamingResponse,
)
from llama_index.core.callbacks.base import CallbackManager
from llama_index.core.prompts.mixin import PromptDictType, PromptMixinType
from llama_index.core.schema import ImageNode, NodeWithScore, QueryBundle

from llama_index_smoothguard.capture import Call, account_for, captured, install, replaced_by
from llama_index_smoothguard.messages import Reader, with_media
from sg_guardrails import (
    Answer,
    Audio,
    GuardError,
    Image,
    MediaError,
    Message,
    Outcome,
    Policy,
    Prompt,
    SmoothGuard,
    UnsafeOutputError,
    edge,
)

ADVICE = (
    "the messages of the LLM that gave this answer were not found: it is no LlamaIndex LLM, ran outside this query's "
    "context, or the engine computed the answer; guard the LLM itself with SmoothGuardLLM"
)
EMPTY = "Empty Response"
"""What LlamaIndex says when nothing was retrieved; no LLM was asked."""


class SmoothGuardQueryEngine(BaseQueryEngine):
    """Guards a query engine of any kind: retriever, router, sub-question, custom, multimodal.

    It captures what the engine's LLM received, retrieved pictures included, asks the guard's own model the same under
    noise, and judges the engine's answer against that vote. All media of all LLM calls of one query count. Streams
    are drained, judged, then handed on as one chunk. Source nodes and metadata stay; the outcome stands under
    ``metadata["smoothguard"]``.

    Args:
        engine: The engine to guard.
        guard: A guard of your own; by default one on this machine, as the policy says, loaded at the first query.
        policy: A shipped policy's name, a path, or a Policy.
        model: The MLLM's id or path in place of the policy's.
        device: ``auto`` or a torch device.
        on_unsafe: ``policy``: only the action ``raise`` raises; ``raise``: whatever is not handed on; ``replace``:
            never raises. A PydanticResponse holds no text: where it is not handed on, UnsafeOutputError is raised.
        on_missing_context: Where neither LLM calls nor media can be found behind an answer; None: as the policy says.
        media_root: The one folder from which files that nodes, messages and queries name are read. By default none is.
        callback_manager: By default the engine's.
    """

    def __init__(
        self,
        engine: BaseQueryEngine,
        *,
        guard: SmoothGuard | None = None,
        policy: str | Path | Policy = "default",
        model: str | None = None,
        device: str = "auto",
        on_unsafe: edge.OnUnsafe = "policy",
        on_missing_context: edge.OnMissing | None = None,
        media_root: str | Path | None = None,
        callback_manager: CallbackManager | None = None,
    ) -> None:
        if on_unsafe not in ("policy", "raise", "replace"):
            raise GuardError(f"on_unsafe is policy, raise or replace, not {on_unsafe!r}")
        super().__init__(callback_manager or getattr(engine, "callback_manager", None))
        self._engine = engine
        self._guard = guard
        self._settings = (policy if guard is not None else Policy.load(policy), model, device)
        self._on_unsafe: edge.OnUnsafe = on_unsafe
        self._on_missing = on_missing_context
        self._media_root = None if media_root is None else Path(media_root)
        install()

    @property
    def guard(self) -> SmoothGuard:
        """The guard in use; built (not loaded) at first sight."""
        if self._guard is None:
            from sg_guardrails.local import shared_guard  # noqa: PLC0415 - brings torch; a guard of your own needs none

            self._guard = shared_guard(*self._settings)
        return self._guard

    # The engine's own interface -------------------------------------------------------------------------------------

    def retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        """The engine's own."""
        return self._engine.retrieve(query_bundle)

    async def aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        """The engine's own, where it has one."""
        own: Callable[..., Any] | None = getattr(self._engine, "aretrieve", None)
        return await own(query_bundle) if own else await asyncio.to_thread(self.retrieve, query_bundle)

    def synthesize(
        self,
        query_bundle: QueryBundle,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
    ) -> RESPONSE_TYPE:
        """The engine's own, judged like a query's answer."""
        with captured() as calls:
            response = _drained(self._engine.synthesize(query_bundle, nodes, additional_source_nodes))
        return self._judged(query_bundle, calls, *response)

    async def asynthesize(
        self,
        query_bundle: QueryBundle,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
    ) -> RESPONSE_TYPE:
        """The engine's own, judged like a query's answer."""
        with captured() as calls:
            response = await _adrained(await self._engine.asynthesize(query_bundle, nodes, additional_source_nodes))
        return await edge.on_a_thread(lambda: self._judged(query_bundle, calls, *response))

    def _get_prompts(self) -> dict[str, Any]:
        return self._engine._get_prompts()

    def _get_prompt_modules(self) -> PromptMixinType:
        return self._engine._get_prompt_modules()

    def _update_prompts(self, prompts: PromptDictType) -> None:
        self._engine._update_prompts(prompts)

    def _query(self, query_bundle: QueryBundle) -> RESPONSE_TYPE:
        with captured() as calls:  # .query, not ._query: a CustomQueryEngine's raises
            response = _drained(self._engine.query(query_bundle))
        return self._judged(query_bundle, calls, *response)

    async def _aquery(self, query_bundle: QueryBundle) -> RESPONSE_TYPE:
        with captured() as calls:
            response = await _adrained(await self._engine.aquery(query_bundle))
        return await edge.on_a_thread(lambda: self._judged(query_bundle, calls, *response))

    # Judging --------------------------------------------------------------------------------------------------------

    def _judged(
        self, query: QueryBundle, calls: list[Call], response: RESPONSE_TYPE, text: str | None
    ) -> RESPONSE_TYPE:
        if text is None or not (text or calls):  # retrieval alone: there is no answer
            return response
        outcome = self._outcome(query, calls, response, Answer(text))
        metadata = {**(response.metadata or {}), "smoothguard": edge.summary(outcome)}
        if edge.is_handed_on(outcome):
            return _with(response, text, metadata)
        edge.withhold(outcome, self._on_unsafe)
        if isinstance(response, PydanticResponse):
            raise UnsafeOutputError(f"the answer was {outcome.status}; a PydanticResponse holds no text", outcome)
        replaced_by(query.query_str, outcome.text)
        return _with(response, outcome.text, metadata)

    def _outcome(self, query: QueryBundle, calls: list[Call], response: RESPONSE_TYPE, answer: Answer) -> Outcome:
        guard = self.guard.current
        policy = guard.policy
        reader = Reader(policy.limits.media, policy.unresolvable_media, self._media_root)
        try:
            prompt = self._prompt(query, calls, response, answer, reader)
        except MediaError as error:
            return edge.refused(guard, error, answer)
        if prompt is not None:
            return guard.review(prompt, answer)
        is_empty = answer.text == EMPTY and not response.source_nodes
        return guard.judge_text(answer) if is_empty else edge.missing(guard, answer, self._on_missing, advice=ADVICE)

    def _prompt(
        self, query: QueryBundle, calls: list[Call], response: RESPONSE_TYPE, answer: Answer, reader: Reader
    ) -> Prompt | None:
        """The call that gave the answer (else the last), with the media of all calls and of the query itself.

        None where there are no media and the answer is not in the calls' words.
        """
        own = [] if query.image_path is None else [reader.file(query.image_path)]
        prompts = [reader.call(call.asked, call.options) for call in calls]
        gave = [prompt for prompt, call in zip(prompts, calls, strict=True) if call.said == answer.text]
        seen: list[Image | Audio | None] = [medium for prompt in prompts for medium in prompt.media]
        last = (gave or prompts)[-1] if prompts else None
        base = next((prompt for prompt in reversed(gave) if prompt.media), last)
        if not gave and not seen:  # a client that LlamaIndex does not see: what was retrieved is all that can be known
            nodes = [item.node for item in response.source_nodes if isinstance(item.node, ImageNode)]
            seen += reader.prompt([ChatMessage(blocks=[_block(node) for node in nodes])]).media
            if nodes or (base is None and own):
                base = Prompt((Message("user", (query.query_str,)),))
            elif not own and not account_for(calls, answer.text):
                base = None
        if base is None:
            return None
        return with_media(base, [medium for medium in (*seen, *own) if medium is not None])


def _block(node: ImageNode) -> ImageBlock:
    try:
        return image_node_to_image_block(node)
    except ValueError as error:  # a path that is no file, or broken base64
        raise MediaError("a retrieved node's picture cannot be read") from error


def _drained(response: RESPONSE_TYPE) -> tuple[RESPONSE_TYPE, str | None]:
    """The response and its whole text; a generator serves once, so it is read inside the capture."""
    match response:
        case StreamingResponse():
            return response, response.get_response().response or ""
        case PydanticResponse():
            return response, None if response.response is None else str(response)
        case Response():
            return response, response.response
    raise GuardError(f"a {type(response).__name__} is no response that can be judged here; use aquery")


async def _adrained(response: RESPONSE_TYPE) -> tuple[RESPONSE_TYPE, str | None]:
    if isinstance(response, AsyncStreamingResponse):
        return response, (await response.get_response()).response or ""
    return await asyncio.to_thread(_drained, response)


def _with(response: RESPONSE_TYPE, text: str, metadata: dict[str, Any]) -> RESPONSE_TYPE:
    """A response of the same type with this text and metadata; a stream becomes one chunk."""
    match response:
        case StreamingResponse():
            return replace(response, response_gen=_one(text), response_txt=text, metadata=metadata)
        case AsyncStreamingResponse():
            return replace(response, response_gen=_aone(text), response_txt=text, metadata=metadata)
        case PydanticResponse():
            return replace(response, metadata=metadata)
        case _:
            return replace(response, response=text, metadata=metadata)


def _one(text: str) -> Generator[str, None, None]:
    yield text


async def _aone(text: str) -> AsyncGenerator[str, None]:
    yield text
