"""How ``generate`` keeps keys and values and whether its step is compiled: what it is told, and what that needs."""

from __future__ import annotations

import importlib.util
import os
import shutil
from typing import Any, Literal

import torch
from transformers import CompileConfig

from sg_guardrails.core.errors import ModelError

Cache = Literal["auto", "dynamic", "static"]
COMPILERS = ("g++", "clang++", "c++")


def settings(cache: Cache, *, compiled: bool) -> dict[str, Any]:
    """What ``generate`` is told beside the tokens; nothing for a dynamic cache.

    transformers compiles on GPUs whenever the cache is static; here the switch alone decides, on a CPU too.
    """
    if not compiled:
        return {"cache_implementation": "static", "disable_compile": True} if cache == "static" else {}
    how = CompileConfig(mode="default")  # CUDA graphs, transformers' default here, belong to the thread that made them
    how._compile_all_devices = True  # type: ignore[assignment] # the only way in which `generate` compiles on a CPU
    return {"cache_implementation": "static", "compile_config": how}


def refuse_without_compiler(told: dict[str, Any], device: torch.device) -> None:
    """Raise ModelError where the step is to be compiled and what compiles it is not installed: at once, not midway."""
    if "compile_config" not in told:
        return
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise ModelError("compile needs triton on a GPU: pip install triton, or set `model: {compile: false}`")
    if device.type == "cpu" and not any(map(shutil.which, (os.environ.get("CXX", ""), *COMPILERS))):
        raise ModelError("compile needs a C++ compiler on a CPU: install g++, or set `model: {compile: false}`")
