"""SmoothGuardRunnable: a step of a chain that is the model, or verifies the answer of the model before it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

from langchain_core.callbacks import AsyncCallbackManagerForChainRun, CallbackManagerForChainRun
from langchain_core.messages import AIMessage, BaseMessage, convert_to_messages
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import Runnable, RunnableConfig, RunnableSerializable
from langchain_core.runnables.config import get_config_list
from langchain_core.runnables.utils import AnyConfigurableField
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from langchain_smoothguard import messages as forms
from langchain_smoothguard.guards import OnMissing, OnUnsafe, missing, refused, shared_guard, withhold
from langchain_smoothguard.recorder import Recorder, as_messages, install
from sg_guardrails import Answer, GuardError, MediaError, Outcome, Policy, Prompt, SmoothGuard, UnsafeOutputError


@dataclass(frozen=True, slots=True)
class Job:
    """One input, read: what to ask the guard, and how to give its outcome back."""

    prompt: Prompt
    answer: Answer | None
    """The answer under review; None where the guard is the model."""
    give: Callable[[Outcome], Any]
    """The output that the outcome amounts to."""
    settled: Outcome | None = None
    """An outcome that needs no model: media that can't be seen, or a context that is missing."""


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
    model. After a chat model (an AIMessage or chunk, a string, a dict, a pydantic object) it verifies that answer with
    the messages which that model received, pictures and clips included; they are found by run id. A safe answer
    comes back untouched, as the same object. An unsafe one is replaced by a message of the same type and id; where the
    type cannot hold a text (a dict, a pydantic object), UnsafeOutputError is raised instead.

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
    on_unsafe: OnUnsafe = "policy"
    """``policy``: only the action ``raise`` raises; ``raise``: whatever is not handed on; ``replace``: never raises."""
    on_missing_context: OnMissing | None = None
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
            self._mine = shared_guard(self.policy, self.model, self.device)
        return self._mine

    # The call forms: stream, astream, transform and atransform are inherited, which withhold and then call these ------

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:  # noqa: A002
        """Judge one input. See the class for what goes in and out."""
        return self._call_with_config(self._judge, input, config, **kwargs)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:  # noqa: A002
        """`invoke` on a worker thread, so that neither decoding nor the model blocks the loop."""
        return await self._acall_with_config(self._ajudge, input, config, **kwargs)

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
            return self._judge_all(some, run_manager, _group(config, len(some)))

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
            return await asyncio.to_thread(self._judge_all, some, run_manager, _group(config, len(some)))

        return await self._abatch_with_config(judge, inputs, config, return_exceptions=return_exceptions, **kwargs)

    def answer(self, messages: Sequence[BaseMessage]) -> AIMessage:
        """The guard's own answer to `messages`, outside of any run."""
        job = self._job(messages, None, self._own)
        answer: AIMessage = job.give(job.settled or self._outcome(job))
        return answer

    def verify(self, messages: Sequence[BaseMessage], output: Any) -> Any:
        """`output` as `invoke` gives it back for ``{"messages": messages, "output": output}``, outside of any run."""
        job = self._job(messages, forms.answer_of(output), partial(self._given, output))
        return job.give(job.settled or self._outcome(job))

    def refusal(self, messages: Sequence[BaseMessage]) -> Outcome | None:
        """What the policy makes of media that cannot be judged; None where all can be, or it only observes."""
        if self.active_guard.policy.mode == "observe":
            return None
        return self._job(messages, None, self._own).settled

    # What they share ------------------------------------------------------------------------------------------------

    def _judge(self, value: Any, run_manager: CallbackManagerForChainRun | AsyncCallbackManagerForChainRun) -> Any:
        job = self._read(value, run_manager)
        return job.give(job.settled or self._outcome(job))

    async def _ajudge(self, value: Any, run_manager: AsyncCallbackManagerForChainRun) -> Any:
        return await asyncio.to_thread(self._judge, value, run_manager)

    def _judge_all(self, values: list[Any], runs: Sequence[_Run], size: int) -> list[Any]:
        """Each input's output or exception, `size` inputs a batch."""
        outputs: list[Any] = [None] * len(values)
        jobs: dict[int, Job] = {}
        for index, (value, run) in enumerate(zip(values, runs, strict=True)):
            outputs[index] = _caught(partial(self._read, value, run))
            if isinstance(outputs[index], Job):
                jobs[index] = outputs[index]
        asked = [index for index, job in jobs.items() if job.settled is None]
        found: dict[int, Any] = {index: job.settled for index, job in jobs.items() if job.settled is not None}
        for start in range(0, len(asked), size):
            group = asked[start : start + size]
            found.update(zip(group, self._each([jobs[index] for index in group]), strict=True))
        for index, outcome in found.items():
            failed = isinstance(outcome, Exception)
            outputs[index] = outcome if failed else _caught(partial(jobs[index].give, outcome))
        return outputs

    def _each(self, jobs: list[Job]) -> list[Outcome | Exception]:
        """One shared batch; if it fails, each on its own, so that a bad input cannot fail its neighbours."""
        with suppress(GuardError):
            return list(self._outcomes(jobs))
        return [_caught(partial(self._outcome, job)) for job in jobs]

    def _outcome(self, job: Job) -> Outcome:
        return self._outcomes([job])[0]

    def _outcomes(self, jobs: Sequence[Job]) -> list[Outcome]:
        guard = self.active_guard
        asked = [job for job in jobs if job.answer is None]
        given = [(job.prompt, job.answer) for job in jobs if job.answer is not None]
        checked = iter(guard.check_many([job.prompt for job in asked]) if asked else ())
        reviewed = iter(guard.review_many(given) if given else ())
        return [next(checked if job.answer is None else reviewed) for job in jobs]

    # Reading an input -----------------------------------------------------------------------------------------------

    def _read(self, value: Any, run: _Run) -> Job:
        """What `value` asks of the guard."""
        if isinstance(value, PromptValue):
            return self._job(value.to_messages(), None, self._own)
        if isinstance(value, list | tuple):
            return self._turns(convert_to_messages(value), lambda last: [*value[:-1], last])
        if isinstance(value, dict) and value.keys() == {"messages", "output"}:
            context = convert_to_messages(value["messages"])
            return self._job(context, forms.answer_of(value["output"]), lambda o: self._given(value["output"], o))
        if isinstance(value, dict) and as_messages(value) is not None:
            turns = value["messages"]
            if not isinstance(turns[-1], AIMessage):
                raise GuardError("a state without an answer: it does not end in an AIMessage. Pass its messages")
            return self._turns(turns, lambda last: {**value, "messages": [*turns[:-1], last]}, whole=value)
        if isinstance(value, str | dict | AIMessage) or (
            isinstance(value, BaseModel) and not isinstance(value, BaseMessage)
        ):
            return self._verify(value, run)
        raise GuardError(f"a {type(value).__name__} is neither messages nor an answer that can be verified")

    def _turns(self, turns: list[BaseMessage], back: Callable[[AIMessage], Any], *, whole: Any = None) -> Job:
        """A list of messages: the guard is the model, unless the last one is an answer already."""
        last = turns[-1] if turns else None
        if not isinstance(last, AIMessage):
            return self._job(turns, None, self._own)

        def give(outcome: Outcome) -> Any:
            message = self._given(last, outcome)
            return whole if message is last and whole is not None else back(message)

        return self._job(turns[:-1], forms.answer_of(last), give)

    def _verify(self, value: Any, run: _Run) -> Job:
        recorder = next((handler for handler in run.handlers if isinstance(handler, Recorder)), None)
        context = recorder.find(run.parent_run_id, value) if recorder is not None else None
        answer = forms.answer_of(value)

        def give(outcome: Outcome) -> Any:
            return self._given(value, outcome)

        if context is not None:
            return self._job(context, answer, give)
        return Job(Prompt(()), answer, give, settled=missing(self.active_guard, answer, self.on_missing_context))

    def _job(self, context: Sequence[BaseMessage], answer: Answer | None, give: Callable[[Outcome], Any]) -> Job:
        guard = self.active_guard
        policy = guard.policy
        try:
            reading = forms.read(context, limits=policy.limits.media, unresolvable=policy.unresolvable_media)
        except MediaError as error:
            return Job(Prompt(()), answer, give, settled=refused(guard, error, answer))
        return Job(reading.prompt, answer, give)

    # Giving an outcome back -----------------------------------------------------------------------------------------

    def _own(self, outcome: Outcome) -> AIMessage:
        """The guard's own answer."""
        self.withhold(outcome)
        return forms.answering(outcome)

    def _given(self, output: Any, outcome: Outcome) -> Any:
        """`output` itself where it is handed on, else what stands in its place."""
        if forms.is_handed_on(outcome):
            return output
        self.withhold(outcome)
        if isinstance(output, AIMessage):
            return forms.replaced(output, outcome)
        if isinstance(output, str):
            return outcome.text
        raise UnsafeOutputError(f"the answer was {outcome.status}; a {type(output).__name__} holds no text", outcome)

    def withhold(self, outcome: Outcome) -> None:
        """Raise UnsafeOutputError where `outcome` is not handed on and the setting, or the policy's action, says so."""
        withhold(outcome, self.on_unsafe)


_Run = CallbackManagerForChainRun | AsyncCallbackManagerForChainRun


def _caught(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:  # noqa: BLE001 - a batch's failures are its caller's, item by item
        return error


def _group(config: RunnableConfig | list[RunnableConfig] | None, count: int) -> int:
    return get_config_list(config, count)[0].get("max_concurrency") or count
