"""The black-box attack from end to end for the command line: a bare model or a whole guard answers, words come back."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from sg_guardrails.attacks.queries import Ask, QuerySettings, QueryState, attack_by_queries
from sg_guardrails.cli.attack_runs import SAVED_EVERY, Wanted
from sg_guardrails.core.errors import SamplingError
from sg_guardrails.core.media import Image
from sg_guardrails.core.policy import Policy, Smoothing
from sg_guardrails.core.types import Copy, Prompt
from sg_guardrails.local import local_guard
from sg_guardrails.models.hf import HFSampler


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryReport:
    """What a black-box attack came to, for a file. The answers are untrusted text."""

    asked: str
    """Who answered: ``policy name@hash`` for a guard, else ``bare`` and the model."""
    aim: str
    targets: tuple[str, ...]
    prompt: str
    settings: QuerySettings
    succeeded: bool
    queries: int
    """Questions asked, the one about the clean picture and those before a kill included."""
    distance: float
    """Of the last kept answer from the objective; 0 where it is reached."""
    answer_clean: str
    answer: str
    seconds: float
    """Of this process alone, where the attack was continued."""

    def to_json(self) -> str:
        """The report as text."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"


def answerer(policy: Policy, *, bare: bool) -> tuple[str, Ask]:
    """Who answers, and its name: the policy's guard, or its model alone.

    The answers raise SamplingError where asking failed: an error is no answer to learn from.
    """
    model = policy.model
    if bare:
        sampler = HFSampler.of(model)
        return f"bare {model.id}", lambda prompt: sampler([Copy(prompt)], Smoothing())[0].text
    guard = local_guard(policy)
    guard.warm_up()

    def ask(prompt: Prompt) -> str:
        outcome = guard.check(prompt)
        if outcome.status == "error":
            raise SamplingError(f"the guard could not answer: {outcome.error}")
        return outcome.text

    return f"policy {policy.id}, {model.id}", ask


def run_queries(
    policy: Policy,
    prompt: Prompt,
    wanted: Wanted,
    settings: QuerySettings,
    *,
    bare: bool,
    state: Path | None,
    progress: Callable[[int, int], None],
) -> tuple[Image, QueryReport]:
    """Attack, from the beginning or from where the file `state` says that a killed run was.

    The state is left for the caller to remove, once the result is written.

    Raises:
        GuardError: If the objective or the state does not fit, or asking failed.
    """
    began, last = time.perf_counter(), time.monotonic()
    name, ask = answerer(policy, bare=bare)
    run = _digest(name, prompt, wanted, settings)
    kept = QueryState.load(state, run=run) if state is not None and state.exists() else None
    before = kept or QueryState.first(prompt, ask)
    objective = wanted.objective([before.clean])
    before = before.scored(objective)

    def watch(now: QueryState) -> None:
        nonlocal last
        progress(now.queries, settings.queries)
        if state is not None and time.monotonic() - last > SAVED_EVERY:
            now.save(state, run=run)
            last = time.monotonic()

    watch(before)
    end = attack_by_queries(prompt, ask, objective, settings, progress=watch, state=before)
    return end.image, QueryReport(
        asked=name,
        aim=wanted.aim,
        targets=objective.targets,
        prompt=prompt.question,
        settings=settings,
        succeeded=end.success,
        queries=end.queries,
        distance=end.distance,
        answer_clean=end.clean,
        answer=end.answer,
        seconds=round(time.perf_counter() - began, 2),
    )


def _digest(name: str, prompt: Prompt, wanted: Wanted, settings: QuerySettings) -> str:
    parts = (name, prompt.digest, json.dumps(asdict(wanted)), json.dumps(asdict(settings)))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
