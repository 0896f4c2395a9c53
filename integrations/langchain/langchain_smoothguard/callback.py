"""SmoothGuardCallbackHandler: for stacks that can take callbacks only; it observes and raises, it cannot replace."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.outputs import LLMResult

from langchain_smoothguard.messages import bound
from langchain_smoothguard.recorder import is_sampling
from langchain_smoothguard.runnable import SmoothGuardRunnable
from sg_guardrails import GuardError, Policy, SmoothGuard, UnsafeOutputError, edge

# ruff: noqa: ARG002, D102 - the handlers' names and arguments are LangChain's interface

MOST_RUNS = 4096
"""Model calls that may be under way at once; cancelled ones never end, so that the oldest must go."""


class SmoothGuardCallbackHandler(BaseCallbackHandler):
    """Judges each chat model's answer when the model ends, and raises UnsafeOutputError where it would be withheld.

    Works in ``invoke``, ``ainvoke``, ``batch`` and ``abatch``. In ``stream`` and ``astream`` it raises too, but after
    the chunks were delivered: LangChain gives callbacks no way to hold them back. Media that cannot be seen are refused
    before the model runs, in every form.

    Args:
        policy: A shipped policy's name, a path, or a Policy.
        guard: A guard of your own; by default one on this machine, as the policy says.
        model: The MLLM's id or path in place of the policy's.
        device: ``auto`` or a torch device.
    """

    raise_error = True  # without it LangChain logs the error and goes on
    run_inline = False  # in async code: on a worker thread, awaited, so that judging does not block the loop

    def __init__(
        self,
        policy: str | Path | Policy = "default",
        *,
        guard: SmoothGuard | None = None,
        model: str | None = None,
        device: str = "auto",
    ) -> None:
        self._step = SmoothGuardRunnable(
            policy=policy, guard=guard, model=model, device=device, on_unsafe="raise", recorder="explicit"
        )
        self._lock = Lock()
        self._asked: OrderedDict[UUID, Sequence[BaseMessage] | None] = OrderedDict()
        """None: one of the guard's own samples, which are not judged by themselves."""

    def on_chat_model_start(
        self,
        serialized: Any,
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        **kwargs: Any,
    ) -> None:
        asked = None if is_sampling() else [*messages[0], *bound(kwargs.get("invocation_params"))]
        refused = None if asked is None else self._step.judging.refusal(asked)
        if refused is not None and not edge.is_handed_on(refused):
            raise UnsafeOutputError(f"the model was not asked: {refused.error}", refused)
        with self._lock:
            self._asked[run_id] = asked
            while len(self._asked) > MOST_RUNS:
                self._asked.popitem(last=False)

    def on_llm_start(self, serialized: Any, prompts: list[str], *, run_id: UUID, **kwargs: Any) -> None:
        texts: list[list[BaseMessage]] = [[HumanMessage(prompts[0])]]
        self.on_chat_model_start(serialized, texts, run_id=run_id, **kwargs)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        with self._lock:
            if run_id not in self._asked:
                raise GuardError("a model ended whose start was not seen: its answer cannot be judged")
            messages = self._asked.pop(run_id)
        if messages is None:
            return
        for some in response.generations:
            for one in some:
                self._step.judging.verify(messages, getattr(one, "message", one.text))

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        with self._lock:
            self._asked.pop(run_id, None)
