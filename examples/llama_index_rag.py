"""LlamaIndex retrieval over pictures, one of them poisoned: ``python examples/llama_index_rag.py``.

Guard and pictures are real and offline: the built-in demo model, and the pictures of ``sg-guardrails demo``, of which
one was made adversarial. A scripted LLM stands for the user's own: it says what the bare demo model says to each
picture. Needs llama-index-smoothguard.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse, LLMMetadata
from llama_index.core.llms import CustomLLM
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import ImageNode, NodeWithScore, QueryBundle

from llama_index_smoothguard import SmoothGuardQueryEngine

INDEX = {"north": "clean.png", "south": "wrong.png"}
"""Camera to picture; the south camera's was poisoned."""
SAYS = {"north": "The blue shape is a triangle.", "south": "The rectangle is red."}
ASKED = {"north": "What is the blue shape?", "south": "What is the color of the rectangle?"}


def node(name: str) -> ImageNode:
    """A camera's picture as the index holds it."""
    picture = (files("sg_guardrails") / "demo" / INDEX[name]).read_bytes()
    return ImageNode(image=base64.b64encode(picture).decode(), image_mimetype="image/png")


class Shelf(BaseRetriever):
    """Retrieves the picture of the camera that the question names."""

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [NodeWithScore(node=node(name)) for name in INDEX if name in query_bundle.query_str]


class Scripted(CustomLLM):
    """Stands for the user's LLM: taken in by the poisoned picture."""

    @property
    def metadata(self) -> LLMMetadata:
        """A chat model."""
        return LLMMetadata(is_chat_model=True, model_name="scripted")

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:  # noqa: ARG002 - LlamaIndex's interface
        """The scripted answer."""
        asked = " ".join(message.content or "" for message in messages)
        text = next((said for name, said in SAYS.items() if name in asked), "I see no camera.")
        return ChatResponse(message=ChatMessage(role="assistant", content=text))

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:  # noqa: ARG002, FBT001, FBT002 - as above
        """The interface asks for it."""
        return CompletionResponse(text=self.chat([ChatMessage(prompt)]).message.content or "")

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:  # noqa: ARG002, FBT001, FBT002 - as above
        """The interface asks for it."""
        yield self.complete(prompt)


def main() -> None:
    """Print both answers to both questions."""
    engine = RetrieverQueryEngine.from_args(Shelf(), llm=Scripted(), multimodal=True)
    guarded = SmoothGuardQueryEngine(engine, policy="builtin")
    for camera, asked in ASKED.items():
        question = f"{camera} camera: {asked}"
        print(question)
        print("  without the guard:", engine.query(question))
        answer = guarded.query(question)
        print("  with the guard:   ", answer, (answer.metadata or {})["smoothguard"], "\n")


if __name__ == "__main__":
    main()
