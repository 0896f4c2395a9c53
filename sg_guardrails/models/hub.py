"""What every checkpoint's loading needs: a device, quiet libraries, and one short question to the hub."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError
from transformers.utils import logging as transformers_logging

from sg_guardrails.core.errors import ModelError

SECONDS = 5.0
"""How long the hub may take to say whether it has a model."""


def pick_device(device: str) -> torch.device:
    """The torch device behind a policy's word: ``auto`` is cuda, else mps, else cpu.

    Raises:
        ModelError: If this machine has no such device.
    """
    name = device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ModelError(f"device {device!r} is not to be had on this machine; use auto, cpu, cuda or mps") from error


def ask(name: str, revision: str | None, *, hint: str, what: str = "model") -> None:
    """One question with a short limit: transformers itself would retry for half a minute where there is no network."""
    try:
        HfApi().model_info(name, revision=revision, timeout=SECONDS)
    except (HFValidationError, RepositoryNotFoundError, RevisionNotFoundError) as error:
        at = "" if revision is None else f" at revision {revision!r}"
        raise ModelError(
            f"there is no {what} {name!r}{at}: neither a folder nor one that the hub shows; {hint}"
        ) from error
    except Exception as error:  # each HTTP client has connection errors of its own
        raise ModelError(
            f"{what} {name!r} cannot be loaded: it is neither a folder nor in the local cache, and the hub can't be "
            f"reached ({type(error).__name__}); {hint}"
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the libraries' notices off stderr: what matters is checked above and raised as an error."""
    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    others = {logger: logger.level for logger in map(logging.getLogger, ("huggingface_hub", "bitsandbytes"))}
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    for logger in others:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, before in others.items():
            logger.setLevel(before)
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
