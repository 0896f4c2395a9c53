"""What a red team's folder keeps of the copies that were asked, for those who study it. Knows torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sg_guardrails.cli.eval_arms import guarded
from sg_guardrails.cli.redteam_arms import identity_of_run
from sg_guardrails.core.policy import Policy
from sg_guardrails.evals.base import Row
from sg_guardrails.evals.files import digest
from sg_guardrails.evals.redteam_score import Pictures
from sg_guardrails.evals.run import run
from sg_guardrails.models.hf import load

ASKED: Any = {
    "copies": True,
    "include_clean": True,
    "image": {"space", "sigma", "second_sigma"},
    "audio": {"sigma", "snr_db"},
}
"""What names the copies in folders that were begun with the first version; their names must stay."""


def recorded(out: Path, rules: Policy, name: str) -> dict[str, tuple[str, ...]]:
    """What the copies of each picture of a cell, or of ``clean``, said in the run in `out`; empty where none was asked.

    By the picture's key, the clean copy's answer first. Under policies that ask copies as `rules` do.
    """
    path = _folder(out, rules, name) / "items.jsonl"
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []
    return {row["key"]: tuple(row["answers"]) for row in rows}


def drawn(out: Path, rules: Policy, asked: Pictures) -> tuple[Row, ...]:
    """What each picture's copies say under `rules`, in the run in `out`: only what it has not asked yet is asked.

    Raises:
        GuardError: If that run was made with another model or another noise key.
    """
    every = rules.model_copy(update={"rules": (), "smoothing": rules.smoothing.model_copy(update={"early": "off"})})
    handle = load(rules.model.id, revision=rules.model.revision, device=rules.model.device, dtype="float32")
    about = {**identity_of_run(handle, rules), "noise": noise_of(rules)}
    return run(asked, guarded(every), out=_folder(out, rules, asked.name), about=about).rows


def noise_of(rules: Policy) -> str:
    """Names the copies that a policy asks. Fields that noise has got since count where they are set alone."""
    told = rules.smoothing.model_dump(mode="json", include=ASKED)
    more = rules.smoothing.model_dump(mode="json", include={"image", "audio"}, exclude_defaults=True)
    return digest(
        {name: value | more.get(name, {}) if isinstance(value, dict) else value for name, value in told.items()}
    )


def _folder(out: Path, rules: Policy, name: str) -> Path:
    return out / "answers" / f"copies-{noise_of(rules)}" / name
