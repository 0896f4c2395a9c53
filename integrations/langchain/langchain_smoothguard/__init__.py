"""SmoothGuard for LangChain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_smoothguard.callback import SmoothGuardCallbackHandler
from langchain_smoothguard.chat import SmoothGuardChatModel
from langchain_smoothguard.runnable import SmoothGuardRunnable
from sg_guardrails import UnresolvableMediaError

if TYPE_CHECKING:
    from langchain_smoothguard.middleware import SmoothGuardMiddleware

__version__ = "0.1.0"
__all__ = [
    "SmoothGuardCallbackHandler",
    "SmoothGuardChatModel",
    "SmoothGuardMiddleware",
    "SmoothGuardRunnable",
    "UnresolvableMediaError",
]


def __getattr__(name: str) -> Any:
    """Load the middleware when it is asked for: it alone needs the package ``langchain``."""
    if name != "SmoothGuardMiddleware":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from langchain_smoothguard.middleware import SmoothGuardMiddleware  # noqa: PLC0415 - see above
    except ModuleNotFoundError as error:
        raise ImportError("the middleware needs langchain: pip install 'langchain-smoothguard[agents]'") from error
    return SmoothGuardMiddleware
