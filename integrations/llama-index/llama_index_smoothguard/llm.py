"""SmoothGuardLLM: any LlamaIndex LLM, or the guard's own model, with every answer judged before anyone sees it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Sequence
from pathlib import Path
from typing import Any, Literal

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    LLMMetadata,
)
from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import LLM, ToolSelection
from llama_index.core.tools import BaseTool

from llama_index_smoothguard.judging import Judging
from llama_index_smoothguard.sampling import Completion, adrained, drained
from sg_guardrails import GuardError, Policy, SmoothGuard, edge

TOOLS = "smoothguard_tools"
"""The keyword under which a call's tools travel from its preparation to its judging; the wrapped LLM never sees it."""


OWN_PROMPTS = (
    *("system_prompt", "query_wrapper_prompt", "messages_to_prompt", "completion_to_prompt"),
    *("output_parser", "pydantic_program_mode"),
)
"""What LlamaIndex's ``predict`` takes from the LLM that it is called on: the wrapped LLM's, where none is given."""


class SmoothGuardLLM(FunctionCallingLLM):
    """Guards an LLM, and with it whatever asks that LLM: agents, chat engines, memory and scratchpad included.

    Each answer, tool calls included, is held against a vote over the same messages under noise. A safe response is
    handed on as the same object; another becomes a message of the same role with the policy's text or the majority's
    answer. Media that cannot be judged are refused before the LLM is asked. Streams are drained, judged, and come as
    one chunk. Without `llm` the guard's model answers itself.
    """

    llm: LLM | None = Field(default=None, description="The LLM to guard; None: the guard's own model.")
    policy: str | Path | Policy = Field(default="default", description="A shipped policy's name, a path, or a Policy.")
    guard: Any = Field(default=None, exclude=True, description="A SmoothGuard of your own.")
    model: str | None = Field(default=None, description="The MLLM's id or path in place of the policy's.")
    device: str = Field(default="auto", description="auto or a torch device.")
    on_unsafe: edge.OnUnsafe = Field(default="policy", description="As for SmoothGuardQueryEngine.")
    sampler: Literal["local", "agent_model"] = Field(
        default="local",
        description="Who answers the copies: the guard's own model, told the tools in a system message; or `llm` "
        "itself, up to `smoothing.copies` more calls for each one whose messages hold media, fewer under `early`.",
    )
    long_side: int | None = Field(
        default=None,
        description="The LLM's input size, pixels, for `agent_model`: larger pictures are fitted to it before noise.",
    )
    media_root: Path | None = Field(default=None, description="The one folder from which named files are read.")

    _own: SmoothGuard | None = PrivateAttr(default=None)

    def model_post_init(self, context: Any) -> None:
        """Check the policy's name and the guard's kind; take over how the wrapped LLM frames a prompt."""
        super().model_post_init(context)
        for name in OWN_PROMPTS:
            if self.llm is not None and getattr(self.llm, name) and name not in self.model_fields_set:
                setattr(self, name, getattr(self.llm, name))
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
            from sg_guardrails.local import shared_guard  # noqa: PLC0415 - brings torch; a guard of your own needs none

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
        told, llm = kwargs.pop(TOOLS, None), self.llm
        ask = None if llm is None else lambda asked: llm.chat(asked, **kwargs)
        return self._judging.judged(ChatResponse, messages, ask, told=told, options=kwargs)

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """The wrapped LLM's answer, judged on a worker thread."""
        told, llm = kwargs.pop(TOOLS, None), self.llm
        ask = None if llm is None else lambda asked: llm.achat(asked, **kwargs)
        return await (await self._ajudging()).ajudged(ChatResponse, messages, ask, told=told, options=kwargs)

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Generator[ChatResponse, None, None]:
        """The wrapped LLM's stream, withheld until the verdict, as one chunk."""
        told, llm = kwargs.pop(TOOLS, None), self.llm

        def chunks() -> Generator[ChatResponse, None, None]:
            ask = None if llm is None else drained(lambda asked: llm.stream_chat(asked, **kwargs))
            yield _whole(self._judging.judged(ChatResponse, messages, ask, told=told, options=kwargs))

        return chunks()

    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> AsyncGenerator[ChatResponse, None]:
        """The wrapped LLM's stream, withheld until the verdict, as one chunk."""
        told, llm = kwargs.pop(TOOLS, None), self.llm

        async def chunks() -> AsyncGenerator[ChatResponse, None]:
            ask = None if llm is None else adrained(lambda asked: llm.astream_chat(asked, **kwargs))
            yield _whole(await (await self._ajudging()).ajudged(ChatResponse, messages, ask, told=told, options=kwargs))

        return chunks()

    # Completion -----------------------------------------------------------------------------------------------------

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:  # noqa: FBT001, FBT002 - LlamaIndex's interface
        """The wrapped LLM's completion, judged."""
        llm, asking = self.llm, Completion(prompt, formatted, kwargs)
        ask = None if llm is None else lambda asked: llm.complete(*asking.text, **asking.options(asked))
        return self._judging.judged(CompletionResponse, asking.messages, ask, options=_beside(asking))

    @llm_completion_callback()
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:  # noqa: FBT001, FBT002 - as above
        """The wrapped LLM's completion, judged on a worker thread."""
        llm, asking = self.llm, Completion(prompt, formatted, kwargs)
        ask = None if llm is None else lambda asked: llm.acomplete(*asking.text, **asking.options(asked))
        return await (await self._ajudging()).ajudged(CompletionResponse, asking.messages, ask, options=_beside(asking))

    @llm_completion_callback()
    def stream_complete(  # LlamaIndex's decorator wants a function that returns a generator
        self,
        prompt: str,
        formatted: bool = False,  # noqa: FBT001, FBT002 - as above
        **kwargs: Any,
    ) -> Generator[CompletionResponse, None, None]:
        """The wrapped LLM's stream, withheld until the verdict, as one chunk."""
        llm, asking = self.llm, Completion(prompt, formatted, kwargs)

        def chunks() -> Generator[CompletionResponse, None, None]:
            ask = (
                None
                if llm is None
                else drained(lambda asked: llm.stream_complete(*asking.text, **asking.options(asked)))
            )
            whole = self._judging.judged(CompletionResponse, asking.messages, ask, options=_beside(asking))
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
        llm, asking = self.llm, Completion(prompt, formatted, kwargs)

        async def chunks() -> AsyncGenerator[CompletionResponse, None]:
            ask = (
                None
                if llm is None
                else adrained(lambda asked: llm.astream_complete(*asking.text, **asking.options(asked)))
            )
            whole = await (await self._ajudging()).ajudged(
                CompletionResponse, asking.messages, ask, options=_beside(asking)
            )
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

    @property
    def _judging(self) -> Judging:
        return Judging(self.active_guard.current, self.on_unsafe, self.sampler, self.long_side, self.media_root)

    async def _ajudging(self) -> Judging:
        """As `_judging`; the first call builds the guard, which takes a while, on a worker thread."""
        return await edge.on_a_thread(lambda: self._judging)


def _beside(asking: Completion) -> dict[str, Any]:
    """The arguments that are not read as the completion's text and pictures, one in `formatted`'s place included."""
    rest = {name: value for name, value in asking.given.items() if name != "image_documents"}
    return rest if isinstance(asking.formatted, bool) else {**rest, "images": asking.formatted}


def _whole(response: ChatResponse) -> ChatResponse:
    """The response as a stream's one chunk."""
    return response.model_copy(update={"delta": response.message.content or ""})


def _arguments(tool: BaseTool) -> Sequence[str]:
    parameters: dict[str, Any] = tool.metadata.get_parameters_dict()
    return list(parameters.get("properties", {}))
