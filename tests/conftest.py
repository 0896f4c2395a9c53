"""What every test may use: the folder of shared data, where it is there."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data beside the project; skips where it is absent."""
    if not (SHARED / "data").is_dir():
        pytest.skip("the folder of shared data is not beside this project")
    return SHARED
