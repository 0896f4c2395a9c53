"""SmoothGuardLLM: any LlamaIndex LLM, or the guard's own model, with every answer judged before anyone sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator, Sequence
from pathlib import Path
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    LLMMetadata,
    MessageRole,
    TextBlock,
    ToolCallBlock,
)
from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import LLM, ToolSelection
from llama_index.core.tools import BaseTool

from llama_index_smoothguard.guards import OnUnsafe, refused, shared_guard, withhold
from llama_index_smoothguard.messages import Reader, answer_of, completion, is_handed_on, summary
from sg_guardrails import Answer, GuardError, MediaError, Message, Outcome, Policy, Prompt, SmoothGuard

TOOLS = "smoothguard_tools"
"""The keyword under which a call's tools travel from its preparation to its judging; the wrapped LLM never sees it."""


class SmoothGuardLLM(FunctionCallingLLM):
    """Guards an LLM, and with it whatever asks that LLM: agents, chat engines, memory and scratchpad included.

    Each answer, tool calls included, is held against the guard's own vote over the same messages. A safe response is
    handed on as the same object; another becomes a message of the same role with the policy's text or the majority's
    answer. Streams are drained, judged, and come as one chunk. Without `llm` the guard's model answers itself.
    """

    llm: LLM | None = Field(default=None, description="The LLM to guard; None: the guard's own model.")
    policy: str | Path | Policy = Field(default="default", description="A shipped policy's name, a path, or a Policy.")
    guard: Any = Field(default=None, exclude=True, description="A SmoothGuard of your own.")
    model: str | None = Field(default=None, description="The MLLM's id or path in place of the policy's.")
    device: str = Field(default="auto", description="auto or a torch device.")
    on_unsafe: OnUnsafe = Field(default="policy", description="As for SmoothGuardQueryEngine.")
    media_root: Path | None = Field(default=None, description="The one folder from which named files are read.")

    _own: SmoothGuard | None = PrivateAttr(default=None)

    def model_post_init(self, context: Any) -> None:
        """Check the policy's name and the guard's kind."""
        super().model_post_init(context)
        if self.guard is not None and not isinstance(self.guard, SmoothGuard):
            raise GuardError(f"guard is a SmoothGuard, not a {type(self.guard).__name__}")
        if self.guard is None:
            Policy.load(self.policy)

    @classmethod
    def class_name(cls) -> str:
        """LlamaIndex's name of the component."""
        return "SmoothGuardLLM"

    @property
    def active_guard(self) -> SmoothGuard:
        """The guard in use; built (not loaded) at first sight."""
        if self.guard is not None:
            given: SmoothGuard = self.guard
            return given
        if self._own is None:
            self._own = shared_guard(self.policy, self.model, self.device)
        return self._own

    @property
    def metadata(self) -> LLMMetadata:
        """The wrapped LLM's."""
        if self.llm is not None:
            return self.llm.metadata
        model = self.active_guard.policy.model
        return LLMMetadata(is_chat_model=True, model_name=model.id, num_output=model.max_new_tokens)

    # Chat -----------------------------------------------------------------------------------------------------------

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """The wrapped LLM's answer, judged."""
        told = kwargs.pop(TOOLS, None)
        response = None if self.llm is None else self.llm.chat(messages, **kwargs)
        return self._judged(messages, response, told)

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """The wrapped LLM's answer, judged on a worker thread."""
        told = kwargs.pop(TOOLS, None)
        response = None if self.llm is None else await self.llm.achat(messages, **kwargs)
        return await asyncio.to_thread(self._judged, messages, response, told)

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Generator[ChatResponse, None, None]:
        """The wrapped LLM's stream, withheld until the verdict, as one chunk."""
        told = kwargs.pop(TOOLS, None)

        def chunks() -> Generator[ChatResponse, None, None]:
            said = [] if self.llm is None else list(self.llm.stream_chat(messages, **kwargs))
            yield _whole(self._judged(messages, self._last(said), told))

        return chunks()

    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> AsyncGenerator[ChatResponse, None]:
        """The wrapped LLM's stream, withheld until the verdict, as one chunk."""
        told = kwargs.pop(TOOLS, None)

        async def chunks() -> AsyncGenerator[ChatResponse, None]:
            said = [] if self.llm is None else [one async for one in await self.llm.astream_chat(messages, **kwargs)]
            yield _whole(await asyncio.to_thread(self._judged, messages, self._last(said), told))

        return chunks()

    # Completion -----------------------------------------------------------------------------------------------------

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:  # noqa: FBT001, FBT002 - LlamaIndex's interface
        """The wrapped LLM's completion, judged."""
        response = None if self.llm is None else self.llm.complete(prompt, formatted=formatted, **kwargs)
        return self._completed(prompt, response, kwargs)

    @llm_completion_callback()
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:  # noqa: FBT001, FBT002 - as above
        """The wrapped LLM's completion, judged on a worker thread."""
        response = None if self.llm is None else await self.llm.acomplete(prompt, formatted=formatted, **kwargs)
        return await asyncio.to_thread(self._completed, prompt, response, kwargs)

    @llm_completion_callback()
    def stream_complete(  # LlamaIndex's decorator wants a function that returns a generator
        self,
        prompt: str,
        formatted: bool = False,  # noqa: FBT001, FBT002 - as above
        **kwargs: Any,
    ) -> Generator[CompletionResponse, None, None]:
        """The wrapped LLM's stream, withheld until the verdict, as one chunk."""

        def chunks() -> Generator[CompletionResponse, None, None]:
            llm = self.llm
            said = [] if llm is None else list(llm.stream_complete(prompt, formatted=formatted, **kwargs))
            whole = self._completed(prompt, self._last(said), kwargs)
            yield whole.model_copy(update={"delta": whole.text})

        return chunks()

    @llm_completion_callback()
    async def astream_complete(
        self,
        prompt: str,
        formatted: bool = False,  # noqa: FBT001, FBT002 - as above
        **kwargs: Any,
    ) -> AsyncGenerator[CompletionResponse, None]:
        """The wrapped LLM's stream, withheld until the verdict, as one chunk."""

        async def chunks() -> AsyncGenerator[CompletionResponse, None]:
            said = []
            if self.llm is not None:
                said = [one async for one in await self.llm.astream_complete(prompt, formatted=formatted, **kwargs)]
            whole = await asyncio.to_thread(self._completed, prompt, self._last(said), kwargs)
            yield whole.model_copy(update={"delta": whole.text})

        return chunks()

    # Tools ----------------------------------------------------------------------------------------------------------

    def _prepare_chat_with_tools(self, tools: Sequence[BaseTool], *args: Any, **kwargs: Any) -> dict[str, Any]:
        inner = self._function_calling
        prepared: dict[str, Any] = inner._prepare_chat_with_tools(tools, *args, **kwargs)
        named = [f"{tool.metadata.name}({', '.join(_arguments(tool))})" for tool in tools]
        return {
            **prepared,
            TOOLS: f"You can call tools: {', '.join(named)}. Answer with one line of JSON to call a tool.",
        }

    def _validate_chat_with_tools_response(
        self,
        response: ChatResponse,
        tools: Sequence[BaseTool],
        allow_parallel_tool_calls: bool = False,  # noqa: FBT001, FBT002 - as above
        **kwargs: Any,
    ) -> ChatResponse:
        return self._function_calling._validate_chat_with_tools_response(
            response, tools, allow_parallel_tool_calls, **kwargs
        )

    def get_tool_calls_from_response(
        self,
        response: ChatResponse,
        error_on_no_tool_call: bool = True,  # noqa: FBT001, FBT002 - as above
        **kwargs: Any,
    ) -> list[ToolSelection]:
        """The wrapped LLM's reading of its response."""
        return self._function_calling.get_tool_calls_from_response(
            response, error_on_no_tool_call=error_on_no_tool_call, **kwargs
        )

    @property
    def _function_calling(self) -> FunctionCallingLLM:
        if not isinstance(self.llm, FunctionCallingLLM):
            raise GuardError("the guarded LLM calls no functions; wrap one that does, or use a ReActAgent")
        return self.llm

    # Judging --------------------------------------------------------------------------------------------------------

    def _last(self, said: Sequence[Any]) -> Any:
        """A stream's last response, which holds all of it; None where the guard's model answers."""
        if not said and self.llm is not None:
            raise GuardError("the LLM's stream held nothing, so there is nothing that can be judged")
        return said[-1] if said else None

    def _judged(self, messages: Sequence[ChatMessage], response: ChatResponse | None, told: str | None) -> ChatResponse:
        outcome = self._outcome(messages, None if response is None else answer_of(response.message), told)
        if response is not None and is_handed_on(outcome):
            return response
        withhold(outcome, self.on_unsafe)
        blocks: list[Any] = [TextBlock(text=outcome.text)]
        if response is None and outcome.answer is not None:
            calls = outcome.answer.tool_calls
            blocks += [ToolCallBlock(tool_name=call.name, tool_kwargs=dict(call.arguments)) for call in calls]
        role = MessageRole.ASSISTANT if response is None else response.message.role
        metadata = {"smoothguard": summary(outcome)}
        return ChatResponse(message=ChatMessage(role=role, blocks=blocks), additional_kwargs=metadata)

    def _completed(
        self, prompt: str, response: CompletionResponse | None, options: dict[str, Any]
    ) -> CompletionResponse:
        messages = completion(prompt, options.get("image_documents"))
        outcome = self._outcome(messages, None if response is None else Answer(response.text), None)
        if response is not None and is_handed_on(outcome):
            return response
        withhold(outcome, self.on_unsafe)
        return CompletionResponse(text=outcome.text, additional_kwargs={"smoothguard": summary(outcome)})

    def _outcome(self, messages: Sequence[ChatMessage], answer: Answer | None, told: str | None) -> Outcome:
        guard = self.active_guard
        policy = guard.policy
        try:
            prompt = Reader(policy.limits.media, policy.unresolvable_media, self.media_root).prompt(messages)
        except MediaError as error:
            return refused(guard, error, answer)
        if told is not None and prompt.media:
            prompt = Prompt((Message("system", (told,)), *prompt.messages))
        return guard.check(prompt) if answer is None else guard.review(prompt, answer)


def _whole(response: ChatResponse) -> ChatResponse:
    """The response as a stream's one chunk."""
    return response.model_copy(update={"delta": response.message.content or ""})


def _arguments(tool: BaseTool) -> Sequence[str]:
    parameters: dict[str, Any] = tool.metadata.get_parameters_dict()
    return list(parameters.get("properties", {}))
