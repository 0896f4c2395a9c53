"""Writes the folder that the package ships, so that readers never see half of it."""

from __future__ import annotations

import shutil
import tempfile
from copy import deepcopy
from pathlib import Path

import torch
from transformers import LlavaForConditionalGeneration, LlavaProcessor

CARD = "README.md"


def save(model: LlavaForConditionalGeneration, processor: LlavaProcessor, out: Path) -> None:
    """Saves model (bfloat16, half the size) and processor; a card that is already there stays.

    Everything is written beside ``out`` first; then one rename per file, the weights last.
    """
    out.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=".shapes-", dir=out.parent))
    half = deepcopy(model)
    for parameter in half.parameters():
        parameter.data = parameter.data.bfloat16()
    half.config.dtype = torch.bfloat16
    half.save_pretrained(fresh)
    processor.save_pretrained(fresh)
    for path in sorted(fresh.iterdir(), key=lambda p: p.suffix == ".safetensors"):
        path.chmod(0o644)
        path.replace(out / path.name)
    shutil.rmtree(fresh)
