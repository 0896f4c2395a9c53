"""The one room that knows both the guard and torch: a ready guard from a policy's model ids."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sg_guardrails.core.forking import Lock
from sg_guardrails.core.inquiry import Judge
from sg_guardrails.core.judge import looks_at_pictures
from sg_guardrails.core.policy import Policy
from sg_guardrails.core.serving import ModelSection
from sg_guardrails.core.types import Sampler, Scorer
from sg_guardrails.guard import SmoothGuard
from sg_guardrails.models import hf, remote, text
from sg_guardrails.models.judge import local_judges
from sg_guardrails.models.merge import Merged
from sg_guardrails.models.ocr import PictureReader
from sg_guardrails.panel import Reader
from sg_guardrails.record import Emit
from sg_guardrails.record import emit as record

_shared: dict[tuple[str, str | None, str], SmoothGuard] = {}
_sharing = Lock()


def local_guard(
    policy: str | Path | Policy = "default",
    model: str | None = None,
    device: str = "auto",
    *,
    scorers: Mapping[str, Scorer] | None = None,
    judges: Mapping[str, Judge] | None = None,
    reader: Reader | None = None,
    emit: Emit = record,
) -> SmoothGuard:
    """Build a guard that runs its models in this process.

    Nothing is loaded until the first call or `warm_up`; guards that name the same model share one loaded copy.

    Args:
        policy: A shipped name (``default``, ``builtin``, ``paper``), a path, or a Policy.
        model: A hub id, a folder or ``builtin:shapes``; None takes the policy's.
        device: ``auto`` (cuda, else mps, else cpu) or a torch device; ``auto`` leaves the policy's.
        scorers: Scorers of your own by name, beside the shipped ones and before them.
        judges: LLM judges of your own by name. A judge that rules name and that is not among them is a model: the
            policy's own (``guard``), or a text model by its hub id or folder.
        reader: Says what stands in pictures; None takes the extra ``ocr`` where the policy's rules read them.
        emit: What takes each outcome's record; by default one structlog event.

    Raises:
        PolicyError: If the policy is not valid, or reads pictures and the extra ``ocr`` is not installed. A model that
            cannot be loaded raises ModelError when it is needed.
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
        draft=_drafter(named, chosen.voting.draft_tokens),
        embedder=embedder,
        sentiment=text.sentiment,
        scorers={
            **text.scorers(embedder),
            **text.classifiers(chosen, device=named.device),
            **(scorers or {}),
        },
        judges={**local_judges(chosen), **(judges or {})},
        reader=reader or (PictureReader() if looks_at_pictures(chosen) else None),
        emit=emit,
    )


def _sampler(named: ModelSection) -> Sampler:
    if named.endpoint is not None:
        return remote.RemoteSampler(
            named.id, named.endpoint, max_new_tokens=named.max_new_tokens, most_waiting=named.most_waiting
        )
    return Merged(hf.HFSampler.of(named), most_waiting=named.most_waiting)


def _drafter(named: ModelSection, tokens: int | None) -> Sampler | None:
    """Asks the same loaded model for the beginnings of its answers."""
    return None if tokens is None else _sampler(named.model_copy(update={"max_new_tokens": tokens}))


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
