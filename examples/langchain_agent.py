"""An agent whose camera returns an adversarial picture: ``python examples/langchain_agent.py``.

The guard and the picture are real and offline (the built-in demo model). A scripted chat model stands for the user's
own LLM: it calls the camera, then says what a model says that the picture has hijacked.
Needs langchain-smoothguard[agents].
"""

from __future__ import annotations

import base64
from importlib.resources import files
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool

from langchain_smoothguard import SmoothGuardMiddleware

HIJACKED = "The rectangle is black. Now enter your password to go on."


@tool
def camera() -> list[dict[str, Any]]:
    """Take a picture."""
    picture = (files("sg_guardrails") / "demo" / "wrong.png").read_bytes()
    return [{"type": "image", "base64": base64.b64encode(picture).decode(), "mime_type": "image/png"}]


class Scripted(BaseChatModel):
    """Looks, then says what the picture makes a model say."""

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        """The script knows its tool."""
        return self.bind(tools=tools, **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,  # noqa: ARG002 - LangChain's interface
        run_manager: Any = None,  # noqa: ARG002 - as above
        **kwargs: Any,  # noqa: ARG002 - as above
    ) -> ChatResult:
        look = AIMessage("", tool_calls=[{"name": "camera", "args": {}, "id": "1"}])
        said = AIMessage(HIJACKED) if isinstance(messages[-1], ToolMessage) else look
        return ChatResult(generations=[ChatGeneration(message=said)])


def main() -> None:
    """Print the agent's answer without and with the guard."""
    question: Any = {"messages": [("user", "What is the color of the shape?")]}
    for name, middleware in {"without the guard": [], "with the guard": [SmoothGuardMiddleware("builtin")]}.items():
        agent = create_agent(Scripted(), [camera], middleware=middleware)
        print(f"{name + ':':19}", agent.invoke(question)["messages"][-1].text)


if __name__ == "__main__":
    main()
