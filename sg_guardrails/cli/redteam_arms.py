"""Who attacks in a red team's run: attacked pictures, a folder for each cell of the table, resumable. Knows torch."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sg_guardrails.attacks.objectives import Expectation, Objective
from sg_guardrails.attacks.pgd import AttackSettings, Patch
from sg_guardrails.attacks.together import Together, attack_many
from sg_guardrails.core.errors import GuardError
from sg_guardrails.core.media import Image
from sg_guardrails.core.noise import copies_of, process_key
from sg_guardrails.core.policy import ImageNoise, Policy, Smoothing
from sg_guardrails.core.types import Copy, Prompt
from sg_guardrails.evals.base import Reply
from sg_guardrails.evals.files import digest
from sg_guardrails.evals.redteam import DRAFT, PATCH, Case, Cell, candidates
from sg_guardrails.evals.redteam_report import label
from sg_guardrails.evals.run import Batched, Each
from sg_guardrails.local import local_guard
from sg_guardrails.models.hf import HFSampler, encode, perturb
from sg_guardrails.models.layouts import PIXELS
from sg_guardrails.models.loading import Handle

JOURNAL = "pictures.jsonl"
ATTACK = "attack.json"
"""How the journal's pictures were made."""
CHECKED = (2, 5, 10, 20, 30)
"""Steps after which a static attack's saved picture is tried, to keep the first that succeeds."""
NEW_TOKENS = 48
STEPS = {"static": 40, "adaptive": 40}
DRAWS = 8
"""Noisy copies in each step of an adaptive attack."""
TOGETHER = {"static": 25, "adaptive": 6}
"""Attacks in one batch; a killed run makes at most so many again."""
Told = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Target:
    """A case that the bare model gets right, and how it words the right answer."""

    case: Case
    answer: str

    @property
    def objective(self) -> Objective:
        """What the attack raises: the goal; for a wrong or late answer, the right one with its word exchanged."""
        case = self.case
        text = case.goal
        if case.family in ("wrong", "late"):
            swapped = re.sub(rf"\b{case.truth}\b", case.goal, self.answer, flags=re.IGNORECASE)
            text = swapped[0].upper() + swapped[1:]
        return Objective(name=case.family, targets=(text,), reached=case.reached)


@dataclass(frozen=True, slots=True)
class Crafted:
    """One line of a cell's journal; the pictures stand beside it as KEY.png and KEY-first.png."""

    key: str
    answer: str
    """The bare model's, to the saved picture."""
    success: bool
    first_step: int | None
    """Steps to the first picture that succeeded; KEY-first.png is that one. None: no such picture."""
    loss: float


@dataclass(frozen=True, slots=True)
class Way:
    """How the attacks of a cell go."""

    settings: AttackSettings
    expectation: Expectation | None
    """Of an adaptive attacker."""


@dataclass(frozen=True, slots=True)
class Crafters:
    """Workers that attack, a batch each, with a model of their own; a batch's pictures are the same wherever made."""

    each: Each
    load: Callable[[], Handle]
    """Called in each worker; it must survive being sent there."""


Task = tuple[Sequence[Target], Sequence[Prompt]]


def targets(handle: Handle, family: str, count: int, out: Path, *, tokens: int = DRAFT) -> list[Target]:
    """The first `count` cases that the bare model gets right; its answers are kept in `out`.

    Late ones are only those whose payload lies behind the answer's first `tokens` tokens.
    """
    path, model = out / f"clean-{family}.json", identity(handle)
    cases = candidates(family)  # type: ignore[arg-type] # a family's name
    kept: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {"model": model, "answers": {}}
    if kept.get("model") != model:
        raise GuardError(f"{path} holds answers of another model: take another folder")
    known: dict[str, str] = kept["answers"]
    sampler = HFSampler(handle, max_new_tokens=NEW_TOKENS)
    found: list[Target] = []
    for start in range(0, len(cases), 50):
        some = cases[start : start + 50]
        if new := [case for case in some if case.key not in known]:
            said = sampler([Copy(case.prompt()) for case in new], Smoothing())
            known |= {case.key: answer.text for case, answer in zip(new, said, strict=True)}
            _write(path, json.dumps({"model": model, "answers": known}, indent=0))
        sound = (Target(case, known[case.key]) for case in some if case.sound(known[case.key]))
        found += [goal for goal in sound if family != "late" or _starts_alike(handle, goal, tokens)]
        if len(found) >= count:
            break
    return found[:count]


def identity(handle: Handle) -> str:
    """Names a model by its weights where these lie in a folder, the built-in one's included; else by its id."""
    return label(str(handle.model.name_or_path))


def identity_of_run(handle: Handle, rules: Policy) -> dict[str, str]:
    """What an answer depends on beside its picture and the noise's strength: a folder takes answers of one kind."""
    settings = rules.model.model_dump(mode="json", include={"revision", "max_new_tokens", "quantization", "dtype"})
    space = rules.smoothing.image.space
    return {"model": identity(handle), "asks": digest(settings), "space": space, "key": process_key().id}


def _starts_alike(handle: Handle, goal: Target, tokens: int) -> bool:
    """Whether right answer and goal share their first `tokens` tokens and both go on behind them."""
    split = handle.processor.tokenizer.tokenize
    right, wanted = split(goal.answer), split(goal.objective.targets[0])
    return min(len(right), len(wanted)) > tokens and bool(right[:tokens] == wanted[:tokens])


def settings(cell: Cell, steps: int | None = None) -> AttackSettings:
    """The way of a cell's attacks."""
    many = steps or STEPS[cell.attacker]
    if cell.eps is not None:
        return AttackSettings(eps=cell.eps, steps=many)
    if cell.budget == "patch":
        return AttackSettings(norm="patch", patch=Patch(top=0, left=0, size=PATCH), steps=many)
    return AttackSettings(norm="unconstrained", steps=many)


def craft(
    handle: Handle,
    cell: Cell,
    goals: Sequence[Target],
    folder: Path,
    *,
    noise: ImageNoise,
    expectation: Expectation | None = None,
    steps: int | None = None,
    progress: Told | None = None,
    crafters: Crafters | None = None,
) -> list[Crafted]:
    """Attack every goal that the journal in `folder` does not hold yet, a batch at a time, and return the lines of all.

    A line is written after its pictures: a killed run loses at most the batches it was at.

    Args:
        handle: The model, in float32.
        cell: The row of the table.
        goals: The cases with their right answers.
        folder: The cell's own.
        noise: The guard's, which an adaptive attacker averages over.
        expectation: What an adaptive attacker averages over in its place, where he knows more of the guard.
        steps: Of each attack; None takes `STEPS`.
        progress: Told (done, all).
        crafters: Who attacks in this process's place; the journal and the pictures are written here all the same.

    Raises:
        GuardError: If the folder's pictures were made in another way: what was adapted to another noise, or took fewer
            steps, would pass for this attack.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done = {one.key: one for one in crafted(folder)}
    left = [goal for goal in goals if goal.case.key not in done]
    if cell.attacker == "adaptive" and expectation is None:
        expectation = Expectation(noise=_levels(noise), draws=DRAWS)
    size = TOGETHER[cell.attacker]
    if progress is not None:
        progress(len(done), len(goals))
    way = Way(settings(cell, steps), expectation)
    _begun(folder, way, identity(handle), bool(done))
    batches = [left[start : start + size] for start in range(0, len(left), size)]
    for some, made in _made(handle, way, batches, crafters):
        done |= {line.key: line for line in _kept(folder, some, made)}
        if progress is not None:
            progress(len(done), len(goals))
    return [done[goal.case.key] for goal in goals]


def _begun(folder: Path, way: Way, model: str, has_pictures: bool) -> None:  # noqa: FBT001 - one caller
    """Note how the folder's pictures are made, or compare; raises GuardError where it is another way."""
    told = {"model": model, "settings": asdict(way.settings), "expectation": None}
    if way.expectation is not None:
        noises = [noise.model_dump(mode="json") for noise in way.expectation.dealt]
        told["expectation"] = {"noises": noises, "share": way.expectation.share}
    path, text = folder / ATTACK, json.dumps(told, indent=1, sort_keys=True)
    if not has_pictures:
        _write(path, text)
    elif not path.exists() or path.read_text("utf-8") != text:
        raise GuardError(f"{folder} holds pictures of another attack (its {ATTACK} tells which): take another folder")


def _made(
    handle: Handle, way: Way, batches: Sequence[Sequence[Target]], crafters: Crafters | None
) -> Iterator[tuple[Sequence[Target], Sequence[Together]]]:
    """Each batch with its attacks; from workers as they are ready."""
    tasks = ((some, [goal.case.prompt() for goal in some]) for some in batches)
    if crafters is None:
        yield from ((task[0], _attack(handle, way, task)) for task in tasks)
        return
    for task, made in crafters.each(partial(_attacker, crafters.load, way), tasks):
        if isinstance(made, GuardError):
            raise made
        yield task[0], made


def _attacker(load: Callable[[], Handle], way: Way) -> Callable[[Task], list[Together]]:
    return partial(_attack, load(), way)


def _attack(handle: Handle, way: Way, task: Task) -> list[Together]:
    goals, prompts = task
    return attack_many(
        handle,
        prompts,
        [goal.objective for goal in goals],
        way.settings,
        seeds=[goal.case.number for goal in goals],
        expectation=way.expectation,
        check_at=CHECKED if way.expectation is None else (),
        max_new_tokens=NEW_TOKENS,
    )


def _levels(noise: ImageNoise) -> tuple[ImageNoise, ...]:
    """The noises that a guard's copies may have, each with one sigma."""
    return tuple(dict.fromkeys((noise.of(0), noise.of(1))))


def crafted(folder: Path) -> list[Crafted]:
    """The whole lines of a cell's journal; one torn by a kill is cut off."""
    path = folder / JOURNAL
    if not path.exists():
        return []
    written = path.read_bytes()
    whole = written[: written.rfind(b"\n") + 1]
    if whole != written:
        _write(path, whole.decode("utf-8"))
    return [Crafted(**json.loads(line)) for line in whole.splitlines()]


def picture(folder: Path, key: str, *, first: bool = False) -> Image:
    """A saved picture: after all steps, or the first that succeeded."""
    return Image.open(folder / f"{key}{'-first' if first else ''}.png")


def _kept(folder: Path, some: Sequence[Target], made: Sequence[Together]) -> Iterator[Crafted]:
    with (folder / JOURNAL).open("a", encoding="utf-8") as journal:
        for goal, one in zip(some, made, strict=True):
            key = goal.case.key
            (folder / f"{key}.png").write_bytes(one.image.to_png())
            if one.first is not None:
                (folder / f"{key}-first.png").write_bytes(one.first.to_png())
            line = Crafted(key, one.answer, one.success, one.first_step, round(one.loss, 5))
            journal.write(json.dumps(asdict(line)) + "\n")
            yield line


def _write(path: Path, text: str) -> None:
    """Whole or not at all, whenever a kill comes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.new")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def noisy_views(handle: Handle, smoothing: Smoothing, prompt: Prompt, count: int) -> list[Image]:
    """The prompt's picture as the first `count` noisy copies show it to the model, back from the processed tensor."""
    inputs, processor = encode(handle, prompt), handle.processor.image_processor
    shown = []
    for copy in [one for one in copies_of(prompt, smoothing, process_key()) if one.seed is not None][:count]:
        pixels = perturb(handle, inputs, copy, smoothing)[PIXELS][0].float().cpu().numpy().transpose(1, 2, 0)
        shown.append(Image(np.clip(pixels * processor.image_std + processor.image_mean, 0, 1).astype(np.float32)))
    return shown


def decided(rules: Policy, said: Callable[[Prompt], Sequence[str]]) -> Batched:
    """The guard over answers already collected, the clean copy's first: what `SmoothGuard.check` makes of the same."""
    guard = local_guard(rules)

    def decide(prompt: Prompt) -> Reply:
        answers = tuple(said(prompt))
        outcome = guard.decide(prompt, answers, clean=0 if rules.smoothing.include_clean else None)
        return Reply(
            outcome.text if outcome.error is None else str(outcome.error),
            stopped=outcome.answer is None,
            status=outcome.status,
            copies=len(answers),
            agreement=None if outcome.vote is None else outcome.vote.agreement,
            answers=answers,
        )

    return Batched(lambda prompts: [decide(prompt) for prompt in prompts], 32)
