"""SmoothGuardChatModel: the guarded local MLLM as a LangChain chat model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models.base import LangSmithParams
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.tool import ToolCallChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import Field, PrivateAttr

from langchain_smoothguard.messages import bound
from langchain_smoothguard.runnable import SmoothGuardRunnable
from sg_guardrails import GuardError, Policy, SmoothGuard, edge


class SmoothGuardChatModel(BaseChatModel):
    """Answers as the guard's own model, each answer voted on and judged; streams come as one chunk.

    It binds no tools: for agents, guard the agent's own model.
    """

    policy: str | Path | Policy = "default"
    """A shipped policy's name, a path, or a Policy."""
    guard: SmoothGuard | None = Field(default=None, exclude=True)
    """A guard of your own; by default one on this machine, as the policy says, loaded at the first call."""
    model: str | None = None
    """The MLLM's id or path in place of the policy's."""
    device: str = "auto"
    """``auto`` or a torch device."""
    on_unsafe: edge.OnUnsafe = "policy"
    """As for `SmoothGuardRunnable`."""
    stop: list[str] | None = None
    """Texts at which an answer is cut."""

    _step: SmoothGuardRunnable = PrivateAttr()

    def model_post_init(self, context: Any) -> None:
        """Check the policy's name."""
        super().model_post_init(context)
        self._step = SmoothGuardRunnable(
            policy=self.policy,
            guard=self.guard,
            model=self.model,
            device=self.device,
            on_unsafe=self.on_unsafe,
            recorder="explicit",
        )

    @property
    def _llm_type(self) -> str:
        return "smoothguard"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"policy": self._step.active_guard.policy.id, "model": self.model}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop, **kwargs)
        params["ls_model_name"] = kwargs.get("model") or self.model or Policy.load(self._step.policy).model.id
        return params

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002 - LangChain's interface
        **kwargs: Any,
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._answer(messages, stop, kwargs))])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        message = self._answer(messages, stop, kwargs)
        calls = [
            ToolCallChunk(name=call["name"], args=json.dumps(call["args"]), id=call["id"], index=number)
            for number, call in enumerate(message.tool_calls)
        ]
        chunk = AIMessageChunk(
            content=message.content,
            tool_call_chunks=calls,
            response_metadata=message.response_metadata,
            chunk_position="last",
        )
        made = ChatGenerationChunk(message=chunk)
        if run_manager is not None:
            run_manager.on_llm_new_token(str(message.text), chunk=made)
        yield made

    def _answer(self, messages: list[BaseMessage], stop: list[str] | None, options: dict[str, Any]) -> AIMessage:
        if "model" in options:
            raise GuardError("the model is chosen when the guard is built: a call must not be able to exchange it")
        message = self._step.judging.answer([*messages, *bound(options)])
        text = str(message.text)
        for mark in stop or self.stop or ():
            text = text.partition(mark)[0] if mark else text
        return message if text == message.text else message.model_copy(update={"content": text})
