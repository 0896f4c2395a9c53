"""Where the shipped models lie: real, tiny, for first runs and tests, never protection for production."""

from __future__ import annotations

from pathlib import Path

from sg_guardrails.core.errors import ModelError


def builtin_path(name: str) -> Path:
    """The folder of a shipped model.

    Args:
        name: The name after ``builtin:``, for example ``shapes``.

    Raises:
        ModelError: If no model of this name is shipped.
    """
    here = Path(__file__).parent
    names = sorted(config.parent.name for config in here.glob("*/config.json"))
    if name not in names:
        raise ModelError(f"there is no built-in model {name!r}; shipped: {', '.join(names) or 'none'}")
    return here / name
