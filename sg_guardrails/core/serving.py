"""Which model answers: here, or behind an engine's endpoint."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from sg_guardrails.core.section import Section


class Endpoint(Section):
    """An OpenAI-compatible engine that serves the model: vLLM, SGLang, TGI, ``transformers serve``."""

    url: str = Field(pattern=r"^https?://[^\s]+$")
    """Base URL of its API, ``http://host:8000/v1``."""
    key_variable: str | None = None
    """Environment variable that holds the engine's key; None where it asks for none. A key never stands in a file."""
    long_side: int | None = Field(None, ge=16)
    """The model's input size, pixels: larger pictures are fitted to it before the noise, which the engine's own
    downscaling would average away."""
    connections: int = Field(32, ge=1, le=4096)
    """Most requests under way at once."""
    timeout_seconds: float = Field(60.0, gt=0)
    """For one try of one copy."""
    retries: int = Field(2, ge=0, le=20)
    """After a lost connection, a timeout, or a status of 408, 409, 429 or 5xx; the client waits longer each time."""


class ModelSection(Section):
    """Which MLLM answers, and how long its answers may be."""

    id: str = "HuggingFaceTB/SmolVLM-256M-Instruct"
    """A hub id, a local folder, or ``builtin:shapes``."""
    revision: str | None = None
    """Commit or tag on the hub."""
    device: str = "auto"
    """``auto`` (cuda, else mps, else cpu), or a torch device."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """``auto``: float32 on a CPU, the checkpoint's own on an accelerator; on CUDA bfloat16 (float16 on a GPU that lacks
    it) for a checkpoint stored in float32."""
    max_new_tokens: int = Field(128, ge=1, le=8192)
    """Longest answer, tokens."""
    endpoint: Endpoint | None = None
    """Ask a served model over the network instead of loading one here; ``id`` is the name it is served under."""
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = "auto"
    """``auto``: flash-attn where it is installed and model and device take it, else what transformers picks."""
    quantization: Literal["none", "int8", "int4"] = "none"
    """Weights in 8 or 4 bits, by the extra ``quantized`` (bitsandbytes, through transformers' own configuration)."""
    cache: Literal["auto", "dynamic", "static"] = "auto"
    """Where keys and values are kept while an answer is written. ``static``: room for the longest answer from the
    start. ``auto``: static under ``compile``, else dynamic, which was the faster on a CPU (docs: What it costs)."""
    compile: bool = False
    """Have torch compile the decoding step, with a static cache; the first answers of each shape take minutes."""
    copies_per_batch: int = Field(64, ge=1)
    """Most copies in one ``generate`` call; halved by itself when memory runs out."""
    memory_share: float = Field(0.9, gt=0, le=1)
    """Most of a GPU's memory that this process may take, as a share; batches are cut to it. A CPU has no such bound."""
    most_waiting: int = Field(4096, ge=1)
    """Most copies of all callers that may wait for the model; beyond that a check fails at once, by ``on_error``."""

    @model_validator(mode="after")
    def _compiles_static(self) -> Self:
        if self.compile and self.cache == "dynamic":
            raise ValueError("compile needs cache: static (or auto): what is compiled has one shape")
        return self
