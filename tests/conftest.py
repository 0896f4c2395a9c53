"""What every test may use: the folder of shared data, where it is there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

# The same noise in every run: a vote that another draw would turn must not turn a test.
os.environ.setdefault("SG_GUARDRAILS_KEY", "the tests' own key, known to everybody")

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data beside the project; skips where it is absent."""
    if not (SHARED / "data").is_dir():
        pytest.skip("the folder of shared data is not beside this project")
    return SHARED


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """A test that captures logs configures structlog; the next one must not find records on its standard output."""
    yield
    structlog.reset_defaults()
