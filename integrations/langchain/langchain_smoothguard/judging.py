"""How an input of a step becomes a question to the guard, and the guard's outcome becomes the step's output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForChainRun, CallbackManagerForChainRun
from langchain_core.messages import AIMessage, BaseMessage, convert_to_messages
from langchain_core.prompt_values import PromptValue
from pydantic import BaseModel

from langchain_smoothguard import messages as forms
from langchain_smoothguard.answers import answer_of
from langchain_smoothguard.recorder import Recorder, as_messages
from sg_guardrails import Answer, GuardError, MediaError, Outcome, Prompt, SmoothGuard, UnsafeOutputError, edge

Run = CallbackManagerForChainRun | AsyncCallbackManagerForChainRun
ADVICE = (
    "the messages that the model received cannot be told for certain; use SmoothGuardRunnable.wrap(chain), "
    'pass {"messages": [HumanMessage(...), ...], "output": ...}'
)


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


@dataclass(frozen=True, slots=True)
class Judging:
    """A guard, and what becomes of the answers that it withholds."""

    guard: SmoothGuard
    on_unsafe: edge.OnUnsafe = "policy"
    on_missing: edge.OnMissing | None = None
    """None: as the policy says."""

    # Outside of any run -----------------------------------------------------------------------------------------------

    def answer(self, messages: Sequence[BaseMessage]) -> AIMessage:
        """The guard's own answer to `messages`."""
        answer: AIMessage = self._given_back(self._job(messages, None, self._own))
        return answer

    def verify(self, messages: Sequence[BaseMessage], output: Any) -> Any:
        """`output` as the step gives it back for ``{"messages": messages, "output": output}``."""
        return self._given_back(self._job(messages, answer_of(output), partial(self._given, output)))

    def refusal(self, messages: Sequence[BaseMessage]) -> Outcome | None:
        """What the policy makes of media that cannot be judged; None where all can be, or it only observes."""
        if self.guard.policy.mode == "observe":
            return None
        return self._job(messages, None, self._own).settled

    def withhold(self, outcome: Outcome) -> None:
        """Raise UnsafeOutputError where `outcome` is not handed on and the setting, or the policy's action, says so."""
        edge.withhold(outcome, self.on_unsafe)

    # Inside one -------------------------------------------------------------------------------------------------------

    def one(self, value: Any, run: Run) -> Any:
        """One input's output."""
        return self._given_back(self._read(value, run))

    def many(self, values: list[Any], runs: Sequence[Run], size: int) -> list[Any]:
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

    def _given_back(self, job: Job) -> Any:
        return job.give(job.settled or self._outcome(job))

    def _each(self, jobs: list[Job]) -> list[Outcome | Exception]:
        """One shared batch; if it fails, each on its own, so that a bad input cannot fail its neighbours."""
        with suppress(GuardError):
            return list(self._outcomes(jobs))
        return [_caught(partial(self._outcome, job)) for job in jobs]

    def _outcome(self, job: Job) -> Outcome:
        return self._outcomes([job])[0]

    def _outcomes(self, jobs: Sequence[Job]) -> list[Outcome]:
        asked = [job for job in jobs if job.answer is None]
        given = [(job.prompt, job.answer) for job in jobs if job.answer is not None]
        checked = iter(self.guard.check_many([job.prompt for job in asked]) if asked else ())
        reviewed = iter(self.guard.review_many(given) if given else ())
        return [next(checked if job.answer is None else reviewed) for job in jobs]

    # Reading an input -------------------------------------------------------------------------------------------------

    def _read(self, value: Any, run: Run) -> Job:
        """What `value` asks of the guard."""
        if isinstance(value, PromptValue):
            return self._job(value.to_messages(), None, self._own)
        alone = run.parent_run_id is None
        if _are_messages(value, pairs=alone):
            return self._turns(convert_to_messages(value), lambda last: [*value[:-1], last])
        if isinstance(value, dict) and value.keys() == {"messages", "output"}:
            given = value["messages"]
            given = [given] if isinstance(given, BaseMessage) else given
            if not _are_messages(given, pairs=alone):
                return self._verify(value, run)
            context = convert_to_messages(given)
            return self._job(context, answer_of(value["output"]), lambda o: self._given(value["output"], o))
        if isinstance(value, dict) and as_messages(value) is not None:
            turns = value["messages"]
            if not isinstance(turns[-1], AIMessage):
                raise GuardError("a state without an answer: it does not end in an AIMessage. Pass its messages")
            return self._turns(turns, lambda last: {**value, "messages": [*turns[:-1], last]}, whole=value)
        if isinstance(value, str | dict | list | tuple | AIMessage) or (
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

        return self._job(turns[:-1], answer_of(last), give)

    def _verify(self, value: Any, run: Run) -> Job:
        recorder = next((handler for handler in run.handlers if isinstance(handler, Recorder)), None)
        context = recorder.find(run.parent_run_id, value) if recorder is not None else None
        answer, give = answer_of(value), partial(self._given, value)
        if recorder is not None and context is not None:
            return self._job(context, answer, give, originals=recorder.originals(run.parent_run_id))
        settled = edge.missing(self.guard, answer, self.on_missing, advice=ADVICE)
        return Job(Prompt(()), answer, give, settled=settled)

    def _job(
        self,
        context: Sequence[BaseMessage],
        answer: Answer | None,
        give: Callable[[Outcome], Any],
        *,
        originals: Sequence[Sequence[BaseMessage]] = (),
    ) -> Job:
        policy = self.guard.policy
        try:
            for messages in originals if policy.unresolvable_media != "pass" else ():
                forms.refuse_hidden(messages, limits=policy.limits.media)
            reading = forms.read(context, limits=policy.limits.media, unresolvable=policy.unresolvable_media)
        except MediaError as error:
            return Job(Prompt(()), answer, give, settled=edge.refused(self.guard, error, answer))
        return Job(reading.prompt, answer, give)

    # Giving an outcome back -------------------------------------------------------------------------------------------

    def _own(self, outcome: Outcome) -> AIMessage:
        """The guard's own answer."""
        self.withhold(outcome)
        return forms.answering(outcome)

    def _given(self, output: Any, outcome: Outcome) -> Any:
        """`output` itself where it is handed on, else what stands in its place."""
        if edge.is_handed_on(outcome):
            return output
        self.withhold(outcome)
        if isinstance(output, AIMessage):
            return forms.replaced(output, outcome)
        if isinstance(output, str):
            return outcome.text
        if isinstance(output, dict) and self.on_unsafe == "replace":
            return {"smoothguard": {**edge.summary(outcome), "text": outcome.text}}
        raise UnsafeOutputError(f"the answer was {outcome.status}; a {type(output).__name__} holds no text", outcome)


def _are_messages(value: object, *, pairs: bool) -> bool:
    """Whether `value` is a list of messages in a form that no model can have written.

    A parser makes dicts, lists and strings of what a model says: were these taken for messages, an answer could name
    its own question.

    Args:
        value: An input of the step, or a part of it.
        pairs: Whether (role, content) tuples count too: not in a chain, where a step before may have made them.
    """
    return (
        isinstance(value, list | tuple)
        and bool(value)
        and all(isinstance(one, BaseMessage) or (pairs and isinstance(one, tuple) and len(one) == 2) for one in value)
    )


def _caught(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:  # noqa: BLE001 - a batch's failures are its caller's, item by item
        return error
