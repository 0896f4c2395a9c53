"""The one room that knows both the guard and torch: a ready guard from a policy's model ids."""

from __future__ import annotations

from pathlib import Path
from threading import Lock

from sg_guardrails.core.policy import ModelSection, Policy
from sg_guardrails.core.types import Sampler
from sg_guardrails.guard import SmoothGuard
from sg_guardrails.models import hf, remote, text

_shared: dict[tuple[str, str | None, str], SmoothGuard] = {}
_sharing = Lock()


def local_guard(policy: str | Path | Policy = "default", model: str | None = None, device: str = "auto") -> SmoothGuard:
    """Build a guard that runs its models in this process.

    Nothing is loaded until the first call or `warm_up`; guards that name the same model share one loaded copy.

    Args:
        policy: A shipped name (``default``, ``builtin``, ``paper``), a path, or a Policy.
        model: A hub id, a folder or ``builtin:shapes``; None takes the policy's.
        device: ``auto`` (cuda, else mps, else cpu) or a torch device; ``auto`` leaves the policy's.

    Raises:
        PolicyError: If the policy is not valid. A model that cannot be loaded raises ModelError when it is needed.
    """
    chosen = Policy.load(policy)
    changes = {name: value for name, value in (("id", model), ("device", device)) if value not in (None, "auto")}
    if changes:
        # A revision belongs to the model that the policy named.
        forgotten = {"revision": None} if model is not None else {}
        chosen = chosen.model_copy(update={"model": chosen.model.model_copy(update={**changes, **forgotten})})
    named = chosen.model
    embedder = text.load_embedder(chosen.voting.embedder, device=named.device)
    return SmoothGuard(
        chosen,
        sampler=_sampler(named),
        embedder=embedder,
        sentiment=text.sentiment,
        scorers=text.scorers(embedder),
    )


def _sampler(named: ModelSection) -> Sampler:
    if named.endpoint is not None:
        return remote.RemoteSampler(named.id, named.endpoint, max_new_tokens=named.max_new_tokens)
    return hf.HFSampler(
        lambda: hf.load(named.id, revision=named.revision, device=named.device, dtype=named.dtype),
        max_new_tokens=named.max_new_tokens,
        copies_per_batch=named.copies_per_batch,
    )


def shared_guard(
    policy: str | Path | Policy = "default", model: str | None = None, device: str = "auto"
) -> SmoothGuard:
    """The process's guard for this policy, model and device, made by `local_guard` at the first asking.

    For integrations: a step that is made anew with each request finds its model loaded. Arguments and errors are those
    of `local_guard`.
    """
    chosen = Policy.load(policy)
    key = (chosen.id, model, device)
    with _sharing:
        if key not in _shared:
            _shared[key] = local_guard(chosen, model=model, device=device)
        return _shared[key]
