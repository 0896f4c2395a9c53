"""Judges that answer in words: an OpenAI-compatible endpoint, or a chat model in LangChain's shape."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Protocol

from sg_guardrails.core.errors import MediaError, ModelError, SamplingError
from sg_guardrails.core.types import Prompt

KEY = "OPENAI_API_KEY"
RETRIES = 5
"""Rate limits and lost connections are tried so often, the client waiting longer each time."""


class ChatModel(Protocol):
    """What is used of a LangChain chat model."""

    def invoke(self, input: Any) -> Any:  # noqa: A002 - LangChain's name
        """Answer a list of (role, text) pairs with a message."""
        ...


def endpoint(
    model: str, *, url: str | None = None, key_variable: str = KEY, max_tokens: int = 1024, temperature: float = 0.0
) -> Callable[[Prompt], str]:
    """A judge behind an OpenAI-compatible chat API.

    Args:
        model: The served model's name.
        url: The API's base URL; None takes OpenAI's.
        key_variable: The environment variable that holds the key; a server of one's own may need none.
        max_tokens: Longest judgement.
        temperature: The official LLaVA-Bench judge used 0.2; 0 repeats better.

    Raises:
        ModelError: If the client is not installed or there is no key.
    """
    try:
        import openai  # noqa: PLC0415 - an extra: only this judge needs it
    except ImportError as error:
        raise ModelError("this judge needs the OpenAI client: pip install 'sg-guardrails[eval]'") from error
    key = os.environ.get(key_variable) or ("none" if url else None)
    if key is None:
        raise ModelError(f"the judge needs a key: set {key_variable}, or name your own server with --judge-url")
    client = openai.OpenAI(api_key=key, base_url=url, max_retries=RETRIES)

    def judge(prompt: Prompt) -> str:
        messages: Any = [{"role": role, "content": text} for role, text in _said(prompt)]
        try:
            done = client.chat.completions.create(
                model=model, messages=messages, max_tokens=max_tokens, temperature=temperature
            )
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            raise ModelError(f"the judge {model!r} refused the request: {type(error).__name__}") from error
        except openai.OpenAIError as error:
            raise SamplingError(f"asking the judge failed: {type(error).__name__}") from error
        return done.choices[0].message.content or ""

    return judge


def chat(model: ChatModel) -> Callable[[Prompt], str]:
    """A judge from any LangChain chat model (or whatever has its ``invoke``)."""

    def judge(prompt: Prompt) -> str:
        said = model.invoke(_said(prompt))
        text = getattr(said, "text", said)
        return str(text() if callable(text) and not isinstance(text, str) else text)

    return judge


def langchain(spec: str) -> Callable[[Prompt], str]:
    """A judge from one of LangChain's own providers, named ``PROVIDER:MODEL`` (``anthropic:claude-sonnet-4-5``).

    The provider is looked up in LangChain's table, never imported by a name of the caller's; its key is in the
    environment variable that it reads.

    Raises:
        ModelError: If LangChain or the provider's package is not installed, the provider is unknown, or it has no key.
    """
    provider, _, model = spec.partition(":")
    if not provider or not model:
        raise ModelError(f"a LangChain judge is PROVIDER:MODEL (anthropic:claude-sonnet-4-5), not {spec!r}")
    try:
        from langchain.chat_models import init_chat_model  # noqa: PLC0415 - only this judge needs it

        return chat(init_chat_model(model, model_provider=provider, temperature=0.0))
    except ImportError as error:
        raise ModelError(f"this judge needs LangChain and its {provider} package: {error}") from error
    except Exception as error:  # every provider has its own; its text may hold a key, so it stays out
        raise ModelError(
            f"LangChain cannot make {spec!r} ({type(error).__name__}): is {provider} one of its providers, its key set?"
        ) from error


def _said(prompt: Prompt) -> list[tuple[str, str]]:
    if prompt.media:
        raise MediaError("these judges read text alone")
    return [(turn.role, turn.text) for turn in prompt.messages]
