"""An OpenAI-compatible engine (vLLM, SGLang, TGI, ``transformers serve``) becomes a Sampler: a request per copy."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from math import exp
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from sg_guardrails.core import noise
from sg_guardrails.core.errors import ModelError, SamplingError
from sg_guardrails.core.forking import Lock, renewed_in_children
from sg_guardrails.core.media import Image
from sg_guardrails.core.policy import Smoothing
from sg_guardrails.core.serving import Endpoint
from sg_guardrails.core.types import Answer, Copy, Message, Part, Prompt, ToolCall
from sg_guardrails.core.waiting import at_end
from sg_guardrails.models import chat

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types.chat import ChatCompletion


_LIKELIEST = 20
"""Tokens whose chances are asked for: the most that these engines give."""
_Given = TypeVar("_Given")


@dataclass(frozen=True, slots=True)
class Token:
    """One token that an engine said."""

    text: str
    likeliest: Mapping[str, float]
    """The likeliest tokens at its place, with their probabilities."""


class RemoteSampler:
    """Asks a model behind an OpenAI-compatible chat API; the server's continuous batching merges the copies.

    Noise is put on the pictures and clips before they are encoded, clipped and rounded as a PNG and a WAV are, so no
    certificate can be had from here. The engine should decode greedily: ``temperature`` 0 is asked for.

    Args:
        model: The name under which the engine serves the model.
        endpoint: Where it is, and how hard it may be pressed.
        max_new_tokens: Longest answer, tokens.
        most_waiting: Copies of all callers that may be under way or wait for a connection. Beyond that a call fails at
            once with SamplingError: the queue never grows without bound.

    Raises:
        ModelError: If the client is not installed, or the key's variable is named and not set.
    """

    def __init__(self, model: str, endpoint: Endpoint, *, max_new_tokens: int = 128, most_waiting: int = 4096) -> None:
        self._model, self._endpoint, self._max_new_tokens = model, endpoint, max_new_tokens
        self._most_waiting, self._waiting = most_waiting, 0
        self._once, self._counting = Lock(), Lock()
        self._tells_chances = True
        self._open: tuple[OpenAI, ThreadPoolExecutor] | None = None
        renewed_in_children(self)

    def renew(self) -> None:
        """Begin anew: a forked child shares no connection with its parent, and has none of the threads."""
        # Kept, not closed: closing could wait for a lock whose holder is not in this process.
        self._parents, self._open, self._waiting = self._open, None, 0

    def close(self) -> None:
        """Let go of connections and threads; who still waits gets a SamplingError. A later call opens new ones."""
        with self._once:
            opened, self._open = self._open, None
        if opened is not None:
            client, pool = opened
            pool.shutdown(wait=False, cancel_futures=True)
            client.close()

    def warm_up(self) -> None:
        """Ask for one token, so that the engine loads the model. Raises ModelError if it can't be asked."""
        client, _ = self._connected()
        try:
            self._complete(client, Prompt.ask("Hello"), max_tokens=1)
        except SamplingError as error:
            raise ModelError(str(error)) from error

    def __call__(self, copies: Sequence[Copy], smoothing: Smoothing) -> list[Answer]:
        """One answer per copy, in order; all of them are on their way at once, within ``endpoint.connections``.

        Where the caller goes away, by its deadline or because its task is cancelled, what has no connection yet is
        not asked.

        Raises:
            ModelError: If the engine doesn't know the model or the key.
            SamplingError: If too many copies wait already, or one stays unanswered after all retries: no vote is taken
                on what came back, and what has no connection yet is not asked any more.
        """
        client, pool = self._connected()
        return self._gathered(pool, [partial(self._ask, client, copy, smoothing) for copy in copies])

    def weigh(self, prompts: Sequence[Prompt], *, max_tokens: int) -> list[tuple[str, list[Token]]]:
        """What the engine says to each prompt, and its tokens with the chance of each; none where it tells no chances.

        Raises as a call does.
        """
        client, pool = self._connected()
        return self._gathered(pool, [partial(self._weigh, client, prompt, max_tokens) for prompt in prompts])

    def _gathered(self, pool: ThreadPoolExecutor, asks: Sequence[Callable[[], _Given]]) -> list[_Given]:
        """What all of them give, in order; the first that fails, in whatever order they end, takes the rest along."""
        self._admit(len(asks))
        asked: list[Future[_Given]] = []
        ended: SimpleQueue[Future[_Given]] = SimpleQueue()  # `as_completed` and `wait` do not hear of a cancelled one
        try:
            for ask in asks:
                asked.append(self._submitted(pool, ask))  # noqa: PERF401 - where one fails, those before it are known
            for future in asked:
                future.add_done_callback(ended.put)
            for _ in asked:
                ended.get().result()
            return [future.result() for future in asked]
        except CancelledError as error:
            raise SamplingError("the request was cancelled before it was asked") from error
        finally:
            self._leave(len(asks) - len(asked))
            for future in asked:
                future.cancel()

    def _submitted(self, pool: ThreadPoolExecutor, ask: Callable[[], _Given]) -> Future[_Given]:
        try:
            future = pool.submit(ask)
        except RuntimeError as error:  # closed meanwhile, or the system gives no more threads
            raise SamplingError(f"the engine at {_shown(self._endpoint.url)} was not asked: {error}") from error
        future.add_done_callback(lambda _: self._leave(1))
        at_end(future.cancel)
        return future

    def _admit(self, copies: int) -> None:
        with self._counting:
            if self._waiting and self._waiting + copies > self._most_waiting:
                raise SamplingError(
                    f"the engine is busy: {self._waiting} copies wait, the most is {self._most_waiting}"
                )
            self._waiting += copies

    def _leave(self, copies: int) -> None:
        with self._counting:
            self._waiting -= copies

    def _ask(self, client: OpenAI, copy: Copy, smoothing: Smoothing) -> Answer:
        prompt = noise.perturb(copy, smoothing, long_side=self._endpoint.long_side)
        return _answer(self._complete(client, prompt, max_tokens=self._max_new_tokens))

    def _weigh(self, client: OpenAI, prompt: Prompt, max_tokens: int) -> tuple[str, list[Token]]:
        done = None
        if self._tells_chances:
            try:
                done = self._complete(client, prompt, max_tokens=max_tokens, logprobs=True, top_logprobs=_LIKELIEST)
            except SamplingError as error:
                if getattr(error.__cause__, "status_code", None) not in (400, 422):
                    raise
                self._tells_chances = False  # it does not know the options: asked without them from now on
        done = done or self._complete(client, prompt, max_tokens=max_tokens)
        return _answer(done).text, _tokens(done)

    def _complete(self, client: OpenAI, prompt: Prompt, *, max_tokens: int, **options: Any) -> ChatCompletion:
        import openai  # noqa: PLC0415 - an extra; `_connect` tells how to install it

        try:
            done: ChatCompletion = client.chat.completions.create(
                model=self._model, messages=_messages(prompt), max_tokens=max_tokens, temperature=0.0, **options
            )
            return done
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            raise ModelError(
                f"the engine at {_shown(self._endpoint.url)} refused model {self._model}: {type(error).__name__}"
            ) from error
        except openai.OpenAIError as error:
            raise SamplingError(f"the engine at {_shown(self._endpoint.url)} failed: {type(error).__name__}") from error

    def _connected(self) -> tuple[OpenAI, ThreadPoolExecutor]:
        with self._once:
            if self._open is None:
                self._open = self._connect()
            return self._open

    def _connect(self) -> tuple[OpenAI, ThreadPoolExecutor]:
        try:
            import openai  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise ModelError("a remote engine needs the OpenAI client: pip install 'sg-guardrails[remote]'") from error
        end = self._endpoint
        key = os.environ.get(end.key_variable) if end.key_variable else "none"
        if not key:
            raise ModelError(f"the engine's key is missing: set {end.key_variable}")
        client = openai.OpenAI(api_key=key, base_url=end.url, max_retries=end.retries, timeout=end.timeout_seconds)
        return client, ThreadPoolExecutor(end.connections, thread_name_prefix="smoothguard-remote")


def _shown(url: str) -> str:
    """The engine's address, without what a URL may hold of a secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _messages(prompt: Prompt) -> Any:
    return [_turn(message) for message in prompt.messages]


def _turn(message: Message) -> dict[str, object]:
    # A tool's turn must name the call that it answers, which a Prompt doesn't hold; its content is told as a user's.
    role = "user" if message.role == "tool" else message.role
    if all(isinstance(part, str) for part in message.parts):
        return {"role": role, "content": message.text}
    return {"role": role, "content": [_part(part) for part in message.parts]}


def _part(part: Part) -> dict[str, object]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if isinstance(part, Image):
        data = base64.b64encode(part.to_png()).decode()
        return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
    return {
        "type": "input_audio",
        "input_audio": {"data": base64.b64encode(part.to_wav()).decode(), "format": "wav"},
    }


def _answer(done: ChatCompletion) -> Answer:
    """The first choice; an answer that a filter of the engine took away is none."""
    if not done.choices or done.choices[0].finish_reason == "content_filter":
        raise SamplingError("the engine gave no answer, or filtered it")
    said = done.choices[0].message
    calls = tuple(_call(call) for call in said.tool_calls or ())
    text = (said.content or said.refusal or "").strip()
    return Answer(text, calls) if calls else chat.read_answer(text)


def _tokens(done: ChatCompletion) -> list[Token]:
    told = done.choices[0].logprobs
    return [
        Token(said.token, {said.token: exp(said.logprob), **{one.token: exp(one.logprob) for one in said.top_logprobs}})
        for said in (told.content if told is not None else None) or ()
    ]


def _call(call: Any) -> ToolCall:
    named: Any = getattr(call, "function", None)
    try:
        arguments = json.loads(named.arguments or "{}")
        return Answer.parse({"text": "", "tool_calls": [{"name": named.name, "arguments": arguments}]}).tool_calls[0]
    except Exception as error:  # a call that can't be read could be any call
        raise SamplingError("the engine gave a tool call that can't be read") from error
