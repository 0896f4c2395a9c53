"""An OpenAI-compatible engine (vLLM, SGLang, TGI, ``transformers serve``) becomes a Sampler: a request per copy."""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from sg_guardrails.core import noise
from sg_guardrails.core.errors import ModelError, SamplingError
from sg_guardrails.core.media import Image
from sg_guardrails.core.policy import Endpoint, Smoothing
from sg_guardrails.core.types import Answer, Copy, Message, Part, Prompt, ToolCall
from sg_guardrails.models import chat

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types.chat import ChatCompletion


class RemoteSampler:
    """Asks a model behind an OpenAI-compatible chat API; the server's continuous batching merges the copies.

    Noise is put on the pictures and clips before they are encoded, clipped and rounded as a PNG and a WAV are, so no
    certificate can be had from here. The engine should decode greedily: ``temperature`` 0 is asked for.

    Args:
        model: The name under which the engine serves the model.
        endpoint: Where it is, and how hard it may be pressed.
        max_new_tokens: Longest answer, tokens.

    Raises:
        ModelError: If the client is not installed, or the key's variable is named and not set.
    """

    def __init__(self, model: str, endpoint: Endpoint, *, max_new_tokens: int = 128) -> None:
        self._model, self._endpoint, self._max_new_tokens = model, endpoint, max_new_tokens
        self._once = threading.Lock()
        self._open: tuple[OpenAI, ThreadPoolExecutor] | None = None

    def warm_up(self) -> None:
        """Ask for one token, so that the engine loads the model. Raises ModelError if it can't be asked."""
        client, _ = self._connected()
        try:
            self._complete(client, Prompt.ask("Hello"), max_tokens=1)
        except SamplingError as error:
            raise ModelError(str(error)) from error

    def __call__(self, copies: Sequence[Copy], smoothing: Smoothing) -> list[Answer]:
        """One answer per copy, in order; all of them are on their way at once, within ``endpoint.connections``.

        Raises:
            ModelError: If the engine doesn't know the model or the key.
            SamplingError: If a copy stays unanswered after all retries: no vote is taken on what came back.
        """
        client, pool = self._connected()
        asked: list[Future[Answer]] = [pool.submit(self._ask, client, copy, smoothing) for copy in copies]
        try:
            return [future.result() for future in asked]
        finally:
            for future in asked:
                future.cancel()

    def _ask(self, client: OpenAI, copy: Copy, smoothing: Smoothing) -> Answer:
        prompt = noise.perturb(copy, smoothing, long_side=self._endpoint.long_side)
        return _answer(self._complete(client, prompt, max_tokens=self._max_new_tokens))

    def _complete(self, client: OpenAI, prompt: Prompt, *, max_tokens: int) -> ChatCompletion:
        import openai  # noqa: PLC0415 - an extra; `_connect` tells how to install it

        try:
            return client.chat.completions.create(
                model=self._model, messages=_messages(prompt), max_tokens=max_tokens, temperature=0.0
            )
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            raise ModelError(
                f"the engine at {self._endpoint.url} refused model {self._model}: {type(error).__name__}"
            ) from error
        except openai.OpenAIError as error:
            raise SamplingError(f"the engine at {self._endpoint.url} failed: {type(error).__name__}") from error

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


def _call(call: Any) -> ToolCall:
    named: Any = getattr(call, "function", None)
    try:
        arguments = json.loads(named.arguments or "{}")
        return Answer.parse({"text": "", "tool_calls": [{"name": named.name, "arguments": arguments}]}).tool_calls[0]
    except Exception as error:  # a call that can't be read could be any call
        raise SamplingError("the engine gave a tool call that can't be read") from error
