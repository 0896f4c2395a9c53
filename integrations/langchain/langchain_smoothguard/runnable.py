"""SmoothGuardRunnable: a step of a chain that is the model, or verifies the answer of the model before it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from langchain_core.callbacks import AsyncCallbackManagerForChainRun, CallbackManagerForChainRun
from langchain_core.load.serializable import SerializedConstructor, SerializedNotImplemented
from langchain_core.runnables import Runnable, RunnableConfig, RunnableSerializable
from langchain_core.runnables.config import get_config_list
from langchain_core.runnables.utils import AnyConfigurableField
from pydantic import ConfigDict, Field, PrivateAttr

from langchain_smoothguard.judging import Judging
from langchain_smoothguard.recorder import Recorder, install
from sg_guardrails import GuardError, Policy, SmoothGuard, edge


class _Wrap:
    """`wrap` on an instance uses that guard; on the class it builds one."""

    def __get__(
        self, guard: SmoothGuardRunnable | None, kind: type[SmoothGuardRunnable]
    ) -> Callable[..., Runnable[Any, Any]]:
        def wrap(chain: Runnable[Any, Any], **settings: Any) -> Runnable[Any, Any]:
            step = guard if guard is not None else kind(**settings, recorder="explicit")
            return (chain | step).with_config(callbacks=[Recorder()])

        return wrap


class SmoothGuardRunnable(RunnableSerializable[Any, Any]):
    """A guard at the end of a chain.

    After a prompt template (a PromptValue, or a list of messages that does not end in an AIMessage) the guard is the
    model. After a chat model (a message, a string, a dict, a list, a pydantic object) it verifies that answer with
    the messages which that model received, pictures and clips included; they are found by run id. A safe answer
    comes back untouched, as the same object. An unsafe one is replaced by a message of the same type and id. Structured
    output holds no text: where it is not handed on, UnsafeOutputError is raised; only a dict under
    ``on_unsafe="replace"`` becomes ``{"smoothguard": {"text": ..., "status": ..., ...}}``, without any key of its own.

    A dict ``{"messages": [...], "output": ...}`` says itself what the model received; an agent's state
    (``{"messages": [..., AIMessage]}``) or a list that ends in an AIMessage is verified in its last message.

    Streams are withheld until the verdict, then come as one chunk.

    Example:
        >>> chain = prompt | chat_model | SmoothGuardRunnable()  # doctest: +SKIP
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", use_attribute_docstrings=True)

    policy: str | Path | Policy = "default"
    """A shipped policy's name, a path, or a Policy."""
    guard: SmoothGuard | None = Field(default=None, exclude=True)
    """A guard of your own; by default one on this machine, as the policy says, loaded at the first call."""
    model: str | None = None
    """The MLLM's id or path in place of the policy's."""
    device: str = "auto"
    on_unsafe: edge.OnUnsafe = "policy"
    """``policy``: only the action ``raise`` raises, for texts; ``raise``: whatever is not handed on; ``replace``: none
    does, but for lists and pydantic objects, which hold no text."""
    on_missing_context: edge.OnMissing | None = None
    """Where the messages behind an answer can't be found; None: as the policy says."""
    recorder: Literal["process", "explicit"] = "process"
    """``explicit``: no process-wide hook; for `wrap` and for inputs that name their messages."""
    allow_reconfiguring: bool = False
    """Whether `configurable_fields` and `configurable_alternatives` may change the guard at run time."""

    wrap: ClassVar[_Wrap] = _Wrap()
    """``wrap(chain)``: `chain` guarded, with a recorder of its own in place of the process-wide hook."""
    _harmless: ClassVar[frozenset[str]] = frozenset({"name", "device"})
    _mine: SmoothGuard | None = PrivateAttr(default=None)

    def model_post_init(self, context: Any) -> None:
        """Check the policy's name, and start recording before the chain's model runs."""
        super().model_post_init(context)
        if self.guard is None:
            Policy.load(self.policy)
        if self.recorder == "process":
            install()

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """A step without a guard object of its own is its fields."""
        return True

    def to_json(self) -> SerializedConstructor | SerializedNotImplemented:
        """As LangChain's; a step with a guard object of its own says that it cannot be written down.

        Without its guard it would come back as another one, under the policy ``default``.
        """
        return super().to_json() if self.guard is None else self.to_json_not_implemented()

    def __getstate__(self) -> dict[Any, Any]:
        if self.guard is not None:
            raise TypeError("a guard of your own cannot be pickled: give the step a policy, or build it where it runs")
        state = super().__getstate__()
        return {**state, "__pydantic_private__": {**(state["__pydantic_private__"] or {}), "_mine": None}}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        super().__setstate__(state)
        if self.recorder == "process":
            install()  # this may be another process

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        # Models, locks and the record of votes stay one: any number of steps may use a guard.
        return self.model_copy()

    def configurable_fields(self, **kwargs: AnyConfigurableField) -> RunnableSerializable[Any, Any]:
        """As LangChain's, but a field that could weaken the guard needs ``allow_reconfiguring=True``.

        Raises:
            GuardError: If one is named without it: a caller's config must not be able to switch the guard off.
        """
        weakening = sorted(kwargs.keys() - self._harmless)
        if weakening and not self.allow_reconfiguring:
            raise GuardError(f"{', '.join(weakening)} could weaken the guard; allow it with allow_reconfiguring=True")
        return super().configurable_fields(**kwargs)

    def configurable_alternatives(self, *args: Any, **kwargs: Any) -> RunnableSerializable[Any, Any]:
        """As LangChain's, with ``allow_reconfiguring=True`` only. Raises GuardError without it."""
        if not self.allow_reconfiguring:
            raise GuardError("an alternative could replace the guard; allow it with allow_reconfiguring=True")
        return super().configurable_alternatives(*args, **kwargs)

    @property
    def active_guard(self) -> SmoothGuard:
        """The guard in use; built (not loaded) at first sight."""
        if self.guard is not None:
            return self.guard
        if self._mine is None:
            from sg_guardrails.local import shared_guard  # noqa: PLC0415 - brings torch; a guard of your own needs none

            self._mine = shared_guard(self.policy, self.model, self.device)
        return self._mine

    @property
    def judging(self) -> Judging:
        """The guard in use, with this step's settings: one policy from an input's reading to its output."""
        return Judging(self.active_guard.current, self.on_unsafe, self.on_missing_context)

    # The call forms: stream and astream are inherited, which call these -----------------------------------------------

    def transform(self, input: Iterator[Any], config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Any]:  # noqa: A002
        """Withhold what comes, then judge it whole; LangChain adds the chunks up."""
        yield from super().transform(iter(_whole(list(input))), config, **kwargs)

    async def atransform(
        self,
        input: AsyncIterator[Any],  # noqa: A002
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[Any]:
        """As `transform`."""
        chunks = _whole([chunk async for chunk in input])

        async def again() -> AsyncIterator[Any]:
            for chunk in chunks:
                yield chunk

        async for one in super().atransform(again(), config, **kwargs):
            yield one

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:  # noqa: A002
        """Judge one input. See the class for what goes in and out."""

        def judge(value: Any, run_manager: CallbackManagerForChainRun) -> Any:
            return self.judging.one(value, run_manager)

        return self._call_with_config(judge, input, config, **kwargs)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:  # noqa: A002
        """`invoke` on a worker thread, so that neither decoding nor the model blocks the loop."""

        async def judge(value: Any, run_manager: AsyncCallbackManagerForChainRun) -> Any:
            return await edge.on_a_thread(lambda: self.judging.one(value, run_manager))

        return await self._acall_with_config(judge, input, config, **kwargs)

    def batch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """Judge all inputs with shared batches on the model; ``max_concurrency`` bounds the inputs in one."""

        def judge(some: list[Any], run_manager: list[CallbackManagerForChainRun]) -> list[Any]:
            return self.judging.many(some, run_manager, _group(config, len(some)))

        return self._batch_with_config(judge, inputs, config, return_exceptions=return_exceptions, **kwargs)

    async def abatch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """`batch` on a worker thread."""

        async def judge(some: list[Any], run_manager: list[AsyncCallbackManagerForChainRun]) -> list[Any]:
            size = _group(config, len(some))
            return await edge.on_a_thread(lambda: self.judging.many(some, run_manager, size))

        return await self._abatch_with_config(judge, inputs, config, return_exceptions=return_exceptions, **kwargs)


def _whole(chunks: list[Any]) -> list[Any]:
    """The last of a list's stages, where a parser streams each list anew as it grows; LangChain would add them up.

    Lists of one item each are the items of one list to other parsers: these stay, to be added up.
    """
    stages = len(chunks) > 1 and all(isinstance(chunk, list) for chunk in chunks)
    if stages and any(len(chunk) != 1 for chunk in chunks) and all(_grows(*pair) for pair in pairwise(chunks)):
        return chunks[-1:]
    return chunks


def _grows(old: Any, new: Any) -> bool:
    """Whether `new` is what parsing more of the same JSON makes of `old`."""
    if isinstance(old, list) and isinstance(new, list):
        return len(old) <= len(new) and all(map(_grows, old, new))
    if isinstance(old, dict) and isinstance(new, dict):
        return old.keys() <= new.keys() and all(_grows(old[key], new[key]) for key in old)
    return old is None or str(new).startswith(str(old))


def _group(config: RunnableConfig | list[RunnableConfig] | None, count: int) -> int:
    return get_config_list(config, count)[0].get("max_concurrency") or count
