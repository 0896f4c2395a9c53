"""SmoothGuard for LlamaIndex."""

from llama_index_smoothguard.callback import SmoothGuardCallbackHandler
from llama_index_smoothguard.llm import SmoothGuardLLM
from llama_index_smoothguard.query_engine import SmoothGuardQueryEngine
from sg_guardrails import UnresolvableMediaError

__version__ = "0.1.0"
__all__ = ["SmoothGuardCallbackHandler", "SmoothGuardLLM", "SmoothGuardQueryEngine", "UnresolvableMediaError"]
