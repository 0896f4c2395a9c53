"""SmoothGuardMiddleware: every model call of an agent is voted on before its answer reaches state, stream or tools."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from langchain.agents.middleware import AgentMiddleware, ExtendedModelResponse, ModelRequest, ModelResponse
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langgraph.errors import GraphBubbleUp
from langgraph.types import Command

from langchain_smoothguard import messages as forms
from langchain_smoothguard.answers import answer_of
from langchain_smoothguard.judging import Judging
from langchain_smoothguard.recorder import unseen
from langchain_smoothguard.runnable import SmoothGuardRunnable
from sg_guardrails import (
    Answer,
    Copy,
    GuardError,
    MediaError,
    Message,
    Outcome,
    Policy,
    Prompt,
    SmoothGuard,
    UnsafeOutputError,
    edge,
    perturb,
)

Handler = Callable[[ModelRequest[Any]], ModelResponse[Any]]
AsyncHandler = Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
Result = ModelResponse[Any] | ExtendedModelResponse[Any]
Samples = edge.Samples[ModelRequest[Any], ModelResponse[Any]]
TAG = "smoothguard:internal"
"""For whoever reads traces; nothing goes by it, since anybody's config may carry it."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One model call, read."""

    guard: SmoothGuard
    """Of the whole call, whatever policy takes over meanwhile."""
    reading: forms.Reading
    is_sampled: bool = False
    """Whether the agent's own model is asked again; not where the guard's model is, or there are no media."""
    error: MediaError | None = None
    """Why its media cannot be judged, where the policy only observes."""

    def samples(self) -> Samples:
        """None yet."""
        return edge.Samples(self.guard, context=unseen, through=(GraphBubbleUp,))

    def voters(self, base: ModelResponse[Any], samples: Samples) -> list[ModelResponse[Any]]:
        """The responses that vote: the agent's own call is the clean copy."""
        return [base, *samples.said] if self.guard.policy.smoothing.include_clean else list(samples.said)

    def due(self, base: ModelResponse[Any], samples: Samples) -> list[Copy]:
        """The copies to ask next: all, or by rounds where the policy decides early; none once the vote is settled."""
        if not self.is_sampled or samples.is_short:
            return []
        answers = [_said(response) for response in self.voters(base, samples)]
        return self.guard.copies(self.reading.prompt, answers, candidate=_said(base))


class SmoothGuardMiddleware(AgentMiddleware[Any, Any, Any]):
    """Guards an agent made by ``langchain.agents.create_agent``.

    The agent's answer, tool calls included, is held against a vote over the same messages under noise. What is not
    handed on never enters state, checkpoint, stream or tools: it is replaced under the same id before the model node
    returns. Pictures and clips that tools return are messages of the next model call, and voted on there. Put it before
    (outside of) a retry middleware, which would otherwise repeat all samples. The policy's deadline begins with the
    agent's own answer.

    Args:
        policy: A shipped policy's name, a path, or a Policy.
        guard: A guard of your own; by default one on this machine, as the policy says.
        model: The MLLM's id or path in place of the policy's.
        device: ``auto`` or a torch device.
        sampler: ``local``: the guard's own model answers the copies, told the agent's tools in a system message;
            ``agent_model``: the agent's model does, up to ``smoothing.copies`` more calls for each one whose messages
            hold media, fewer under ``smoothing.early``.
        on_unsafe: As for `SmoothGuardRunnable`. Structured output holds no text: where it is not handed on and the
            majority has none of its own, UnsafeOutputError is raised.
        long_side: The agent model's input size, pixels; larger pictures are fitted to it before noise is added.
    """

    def __init__(
        self,
        policy: str | Path | Policy = "default",
        *,
        guard: SmoothGuard | None = None,
        model: str | None = None,
        device: str = "auto",
        sampler: Literal["local", "agent_model"] = "local",
        on_unsafe: edge.OnUnsafe = "policy",
        long_side: int | None = None,
    ) -> None:
        super().__init__()
        if sampler not in ("local", "agent_model"):
            raise GuardError(f"sampler is local or agent_model, not {sampler!r}")
        self._step = SmoothGuardRunnable(
            policy=policy, guard=guard, model=model, device=device, on_unsafe=on_unsafe, recorder="explicit"
        )
        self._sampler, self._long_side = sampler, long_side

    def wrap_model_call(self, request: ModelRequest[Any], handler: Handler) -> Result:
        """Ask, sample, decide."""
        turn = self._read(request)
        if isinstance(turn, ExtendedModelResponse):
            return turn
        base, samples = handler(request.override(model=_quiet(request.model))), turn.samples()
        while due := turn.due(base, samples):
            samples.ask(handler, [self._noisy(request, turn, copy) for copy in due])
        return self._decided(request, turn, base, samples)

    async def awrap_model_call(self, request: ModelRequest[Any], handler: AsyncHandler) -> Result:
        """`wrap_model_call`, the samples asked on the agent's own loop."""
        turn = await edge.on_a_thread(lambda: self._read(request))
        if isinstance(turn, ExtendedModelResponse):
            return turn
        base, samples = await handler(request.override(model=_quiet(request.model))), turn.samples()

        def due() -> list[ModelRequest[Any]]:
            return [self._noisy(request, turn, copy) for copy in turn.due(base, samples)]

        while round_ := await edge.on_a_thread(due):
            await samples.aask(handler, round_)
        return await edge.on_a_thread(lambda: self._decided(request, turn, base, samples))

    def _read(self, request: ModelRequest[Any]) -> Turn | ExtendedModelResponse[Any]:
        """The call, read; a finished response where media cannot be judged and the policy does more than observe."""
        guard = self._step.active_guard.current
        policy = guard.policy
        messages = [*([request.system_message] if request.system_message else []), *request.messages]
        beside = forms.bound(request.model_settings)
        look = partial(forms.read, limits=policy.limits.media, unresolvable=policy.unresolvable_media)
        try:
            look(beside)
            reading = look(messages)
        except MediaError as error:
            if policy.mode == "observe":
                return Turn(guard, forms.Reading((), Prompt(()), ()), error=error)
            return self._refused(guard, request, [*messages, *beside])
        return Turn(guard, reading, self._sampler == "agent_model" and bool(reading.prompt.media))

    def _refused(
        self, guard: SmoothGuard, request: ModelRequest[Any], messages: Sequence[BaseMessage]
    ) -> ExtendedModelResponse[Any]:
        """The policy's text, the model not asked, and the offending media taken out of the state under their ids."""
        judging = Judging(guard, self._step.on_unsafe, self._step.on_missing_context)
        if request.response_format is not None and (refusal := judging.refusal(messages)) is not None:
            raise UnsafeOutputError(f"the model was not asked: {refusal.error}", refusal)
        answer = judging.answer(messages)
        limits = guard.policy.limits.media
        pairs = [(message, forms.without_unseen(message, limits)) for message in request.messages]
        cleaned = [new for old, new in pairs if new is not old]
        return ExtendedModelResponse(
            model_response=ModelResponse(result=[answer]), command=Command(update={"messages": cleaned})
        )

    def _noisy(self, request: ModelRequest[Any], turn: Turn, copy: Copy) -> ModelRequest[Any]:
        """The request with a copy's media, in the dialects of the originals, on a model whose stream nobody sees."""
        smoothing = turn.guard.policy.smoothing
        messages = turn.reading.with_media(perturb(copy, smoothing, long_side=self._long_side))
        own = {"system_message": messages.pop(0)} if request.system_message else {}
        return request.override(messages=messages, model=_silent(request.model), **own)  # type: ignore[arg-type]  # mypy cannot see that own holds a SystemMessage

    def _decided(
        self,
        request: ModelRequest[Any],
        turn: Turn,
        base: ModelResponse[Any],
        samples: Samples,
    ) -> ModelResponse[Any]:
        guard, message, prompt = turn.guard, _message(base), turn.reading.prompt
        candidate, responses = _said(base), turn.voters(base, samples)
        answers = [_said(response) for response in responses]
        is_voted = bool(samples.said) or samples.is_short
        if turn.error is not None:
            outcome = guard.refuse(turn.error, candidate=candidate)
        elif is_voted:
            clean = 0 if guard.policy.smoothing.include_clean else None
            late, took = samples.is_late, samples.took
            outcome = guard.decide(prompt, answers, clean=clean, candidate=candidate, late=late, took=took)
        else:
            outcome = guard.review(_with_tools(prompt, request), candidate)
        if edge.is_handed_on(outcome):
            return base
        edge.withhold(outcome, self._step.on_unsafe)
        if is_voted and outcome.answer in answers:  # else the policy has rewritten it: no response says that
            return _instead(responses[answers.index(outcome.answer)], message, outcome)
        if request.response_format is not None:  # a text in its place would make the agent ask again without end
            raise UnsafeOutputError(f"the answer was {outcome.status}; a structured response holds no text", outcome)
        return ModelResponse(result=[forms.replaced(message, outcome)])


def _instead(chosen: ModelResponse[Any], message: AIMessage, outcome: Outcome) -> ModelResponse[Any]:
    """The majority's own response, tool calls and structured output included, under the replaced message's id."""
    own = _message(chosen)
    metadata = {**own.response_metadata, "smoothguard": edge.summary(outcome)}
    new = own.model_copy(update={"id": message.id, "response_metadata": metadata})
    result = [new if one is own else one for one in chosen.result]
    return ModelResponse(result=result, structured_response=chosen.structured_response)


def _message(response: ModelResponse[Any]) -> AIMessage:
    """The model's message; a structured response has a ToolMessage after it."""
    for message in response.result:
        if isinstance(message, AIMessage):
            return message
    raise GuardError("the model's response holds no AIMessage, so there is nothing that can be judged")


def _said(response: ModelResponse[Any]) -> Answer:
    """What all messages of the response say, as one answer: a middleware may give several, and all enter the state."""
    _message(response)
    said = [answer_of(message) for message in response.result if not isinstance(message, ToolMessage)]
    calls = tuple(call for answer in said for call in answer.tool_calls)
    return Answer("\n".join(answer.text for answer in said if answer.text), calls)


def _with_tools(prompt: Prompt, request: ModelRequest[Any]) -> Prompt:
    """The prompt with the agent's tools named, so that the guard's model can ask for the same calls."""
    if not prompt.media or not request.tools:
        return prompt
    named = []
    for tool in request.tools:
        if isinstance(tool, dict):
            function = tool.get("function", tool)
            arguments = function.get("parameters", {}).get("properties", {})
            named.append(f"{function.get('name', 'tool')}({', '.join(arguments)})")
        else:
            named.append(f"{tool.name}({', '.join(tool.args)})")
    told = f"You can call tools: {', '.join(named)}. Answer with one line of JSON to call a tool."
    return Prompt((Message("system", (told,)), *prompt.messages))


def _quiet(model: Any) -> Any:
    """The model with its tokens kept out of the user's stream until the verdict."""
    return _tagged(model, ["nostream"], {})


def _silent(model: Any) -> Any:
    """The model for the guard's own samples: in no stream, and marked as internal in traces."""
    try:
        from langchain.agents.middleware.internal_call_transformer import internal_call_metadata  # noqa: PLC0415 - new in langchain 1.4
    except ImportError:
        return _tagged(model, ["nostream", TAG], {})
    return _tagged(model, ["nostream", TAG], internal_call_metadata())


def _tagged(model: Any, tags: list[str], metadata: dict[str, Any]) -> Any:
    # A copy, not with_config: a binding's tags are lost as soon as the agent binds its tools to it.
    return model.model_copy(
        update={"tags": [*(model.tags or []), *tags], "metadata": {**(model.metadata or {}), **metadata}}
    )
