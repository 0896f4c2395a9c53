"""One call of a guarded LLM, a chat or a completion, from its messages to the response that is handed on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    MessageRole,
    TextBlock,
    ToolCallBlock,
)

from llama_index_smoothguard.answers import answer_of
from llama_index_smoothguard.messages import Reader
from llama_index_smoothguard.sampling import Asked, Response, perturbed, samples_of
from sg_guardrails import (
    Answer,
    MediaError,
    Message,
    Outcome,
    Prompt,
    SmoothGuard,
    UnresolvableMediaError,
    edge,
    perturb,
)

Samples = edge.Samples[Asked, Response]


@dataclass(frozen=True, slots=True)
class Turn:
    """One call, read."""

    prompt: Prompt
    reader: Reader | None = None
    """Given where the guarded LLM is asked again under noise: not where the guard's model is, or without media."""
    error: MediaError | None = None
    """Why its media cannot be judged."""
    settled: Outcome | None = None
    """Where the LLM need not be asked."""


@dataclass(frozen=True, slots=True)
class Judging:
    """A guard, and how it is asked."""

    guard: SmoothGuard
    on_unsafe: edge.OnUnsafe
    sampler: Literal["local", "agent_model"]
    long_side: int | None
    media_root: Path | None

    def judged(
        self,
        kind: type[Response],
        messages: Asked,
        ask: Callable[[Asked], Response] | None,
        *,
        told: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Response:
        """Ask, sample, decide.

        Args:
            kind: Of the response.
            messages: As the LLM is to get them.
            ask: The guarded LLM; None: the guard's own model answers.
            told: The tools, for the guard's own model.
            options: The call's other arguments: media in them are none that the guard sees.
        """
        turn = self._read(messages, told, options, is_asked=ask is not None)
        if ask is None or turn.settled is not None:
            return self._decided(kind, turn, None, None)
        response = ask(messages)
        samples: Samples[Response] = samples_of(self.guard)
        while due := self._due(messages, turn, response, samples):
            samples.ask(ask, due)
        return self._decided(kind, turn, response, samples)

    async def ajudged(
        self,
        kind: type[Response],
        messages: Asked,
        ask: Callable[[Asked], Awaitable[Response]] | None,
        *,
        told: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Response:
        """`judged`, the LLM asked on the running loop, all else on a worker thread."""
        turn = await edge.on_a_thread(partial(self._read, messages, told, options, is_asked=ask is not None))
        if ask is None or turn.settled is not None:
            return await edge.on_a_thread(partial(self._decided, kind, turn, None, None))
        response = await ask(messages)
        samples: Samples[Response] = samples_of(self.guard)
        while due := await edge.on_a_thread(partial(self._due, messages, turn, response, samples)):
            await samples.aask(ask, due)
        return await edge.on_a_thread(partial(self._decided, kind, turn, response, samples))

    def _read(self, messages: Asked, told: str | None, options: Mapping[str, Any] | None, *, is_asked: bool) -> Turn:
        policy = self.guard.policy
        reader = Reader(policy.limits.media, policy.unresolvable_media, self.media_root)
        try:
            prompt = reader.prompt(messages, options)
        except MediaError as error:
            is_open = policy.on_error == "allow" and not isinstance(error, UnresolvableMediaError)
            if is_asked and (is_open or policy.mode == "observe"):
                return Turn(Prompt(()), error=error)
            return Turn(Prompt(()), settled=edge.refused(self.guard, error, None))
        if not prompt.media:
            return Turn(prompt)
        if is_asked and self.sampler == "agent_model":
            return Turn(prompt, reader)
        return Turn(prompt if told is None else Prompt((Message("system", (told,)), *prompt.messages)))

    def _voters(self, response: Response | None, samples: Sequence[Response]) -> list[Response]:
        """The responses that vote: the guarded LLM's own is the clean copy's."""
        said = list(samples)
        if response is not None and self.guard.policy.smoothing.include_clean:
            said.insert(0, response)
        return said

    def _due(self, messages: Asked, turn: Turn, response: Response, samples: Samples[Response]) -> list[Asked]:
        """What to ask the guarded LLM next: all copies, or by rounds where the policy decides early; else nothing."""
        if turn.reader is None or samples.is_short:
            return []
        answers = [_said(voter) for voter in self._voters(response, samples.said)]
        copies = self.guard.copies(turn.prompt, answers, candidate=_said(response))
        made = (perturb(copy, self.guard.policy.smoothing, long_side=self.long_side) for copy in copies)
        return [perturbed(messages, one, turn.reader) for one in made]

    def _decided(
        self, kind: type[Response], turn: Turn, response: Response | None, samples: Samples[Response] | None
    ) -> Response:
        asked = samples if samples is not None and (samples.said or samples.is_short) else None
        voters = self._voters(response, asked.said) if asked is not None else []
        outcome = turn.settled or self._outcome(turn, response, voters, asked)
        if response is not None and edge.is_handed_on(outcome):
            return response
        edge.withhold(outcome, self.on_unsafe)
        own = next((voter for voter in voters if _said(voter) == outcome.answer), None)
        if own is not None:
            return _marked(own, outcome)  # tool calls included; what the policy has rewritten, no response says
        return _marked(_made(kind, response, outcome), outcome)

    def _outcome(
        self, turn: Turn, response: Response | None, voters: Sequence[Response], samples: Samples[Response] | None
    ) -> Outcome:
        answer = None if response is None else _said(response)
        if turn.error is not None:
            return edge.refused(self.guard, turn.error, answer)
        if answer is None:
            return self.guard.check(turn.prompt)
        if samples is None:
            return self.guard.review(turn.prompt, answer)
        said, clean = [_said(one) for one in voters], 0 if voters and voters[0] is response else None
        late, took = samples.is_late, samples.took
        return self.guard.decide(turn.prompt, said, clean=clean, candidate=answer, late=late, took=took)


def _said(response: ChatResponse | CompletionResponse) -> Answer:
    return Answer(response.text) if isinstance(response, CompletionResponse) else answer_of(response.message)


def _made(kind: type[Response], response: Response | None, outcome: Outcome) -> Response:
    """A response that says ``outcome.text``; the guard's own tool calls, where it is the model."""
    if issubclass(kind, CompletionResponse):
        return kind(text=outcome.text)
    blocks: list[Any] = [TextBlock(text=outcome.text)]
    if response is None and outcome.answer is not None:
        calls = outcome.answer.tool_calls
        blocks += [ToolCallBlock(tool_name=call.name, tool_kwargs=dict(call.arguments)) for call in calls]
    role = response.message.role if isinstance(response, ChatResponse) else MessageRole.ASSISTANT
    return kind(message=ChatMessage(role=role, blocks=blocks))


def _marked(response: Response, outcome: Outcome) -> Response:
    """The response with the outcome in its metadata."""
    told = {**response.additional_kwargs, "smoothguard": edge.summary(outcome)}
    return response.model_copy(update={"additional_kwargs": told})
