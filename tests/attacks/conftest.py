"""The tiny models and Whisper's weights, shared with the tests of the models."""

from __future__ import annotations

from tests.models.conftest import model, whisper, whisper_folder

__all__ = ["model", "whisper", "whisper_folder"]
