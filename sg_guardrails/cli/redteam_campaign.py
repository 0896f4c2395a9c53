"""One red team's run in one folder: attack every cell, ask bare and guarded, sweep. Knows torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

from sg_guardrails.cli.eval_arms import bare, elector, guarded, with_noise
from sg_guardrails.cli.eval_options import made
from sg_guardrails.cli.redteam_arms import (
    CHECKED,
    DRAWS,
    STEPS,
    Crafters,
    Target,
    craft,
    crafted,
    decided,
    identity_of_run,
    noisy_views,
    picture,
    targets,
)
from sg_guardrails.cli.redteam_recorded import noise_of
from sg_guardrails.core.errors import GuardError
from sg_guardrails.core.media import Image
from sg_guardrails.core.noise import process_key
from sg_guardrails.core.policy import Policy
from sg_guardrails.evals.base import Row
from sg_guardrails.evals.redteam import BUDGETS, DRAFT, FAMILIES, SALT, SOURCE, Case, Cell, Clean, Family, clean
from sg_guardrails.evals.redteam_report import Exhibit, Summary, label
from sg_guardrails.evals.redteam_score import (
    KNOWING,
    Pictures,
    Result,
    Shot,
    attacked,
    score,
    shots,
    unattacked,
    unharmed,
)
from sg_guardrails.evals.redteam_sweep import Answers, Point, fewer, point
from sg_guardrails.evals.run import Answerer, Batched, Progress, run
from sg_guardrails.models.hf import load
from sg_guardrails.workers import Workers

SIGMAS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
SHIFTS = (0.0, 0.0625, 0.125, 0.25)
COPIES = (1, 2, 5, 10, 20, 30)
LAMBDAS = (0.0, 0.1, 0.25, 0.5)
METHODS = ("sameness", "cosine", "kmeans")
SWEPT = ("8", "16", "32")
"""Budgets of the static cells that the sweeps look at; late payloads are wrong answers too, and not swept again."""
SHOWN = "16"
"""The budget whose pictures the gallery shows."""
Read = Callable[[str], Image]
Watch = Callable[[str], AbstractContextManager[Progress]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How many pictures."""

    static: int = 200
    """In each cell."""
    adaptive: int = 50
    clean: int = 1000
    swept: int = 40
    """Of each cell that the sweeps look at."""
    steps: int | None = None
    """Of each attack; None takes the crafter's own."""


SMALL = Size(static=6, adaptive=3, clean=12, swept=4, steps=10)
"""Minutes on a CPU: shows that everything runs, and is no figure."""


class Campaign:
    """A run over the suite. Whatever is in its folder already is not made again.

    Args:
        out: Its folder.
        rules: The guard's policy, with the model.
        size: How many pictures.
        watch: Shows progress.
        hired: Workers that attack and ask in this process's place.
    """

    def __init__(self, out: Path, rules: Policy, size: Size, *, watch: Watch, hired: Workers | None = None) -> None:
        # Every copy is asked: an early decision gives the same verdict, but leaves the layers fewer answers to vote on.
        self._rules = rules.model_copy(update={"smoothing": rules.smoothing.model_copy(update={"early": "off"})})
        self._out, self._size, self._watch = out, size, watch
        self._elect = elector(rules, hands_on=False)  # the layer of the vote alone knows no abstention
        named = rules.model
        # Gradients and the bare answers are float32's on every device.
        loaded = partial(load, named.id, revision=named.revision, device=named.device, dtype="float32")
        self._handle, self._hired = loaded(), hired
        self._identity = identity_of_run(self._handle, rules)
        self._crafters = None if hired is None else Crafters(hired.each, loaded)

    def run(self, cells: Sequence[Cell], *, sweeps: bool) -> tuple[Summary, list[Exhibit]]:
        """Attack and ask every cell, then the clean pictures, then the sweeps."""
        goals = {family: self._goals(family) for family in dict.fromkeys(cell.family for cell in cells)}
        cells = [cell for cell in cells if goals[cell.family]]  # a model of short answers has none that are late
        if not cells:
            raise GuardError(f"no right answer of the model goes on behind {self._draft} tokens: nothing can be late")
        results: list[Result] = []
        exhibits: list[Exhibit] = []
        for cell in cells:
            mine = goals[cell.family][: self._size.adaptive if cell.attacker == "adaptive" else self._size.static]
            cases = [goal.case for goal in mine]
            self._attack(cell, mine)
            fired = self._fire(cell, cases)
            beside = self._unruled(cell, cases), self._drafted(cell, cases)
            results.append(score(cell, fired, self._paper(cell, cases), *beside))
            exhibits += self._exhibits(cell, fired)
            if cell.attacker == "static" and cell.eps is not None:
                early = replace(cell, attacker="early")
                beside = self._unruled(early, cases), self._drafted(early, cases)
                results.append(score(early, self._fire(early, cases), (), *beside))
        results.sort(key=lambda one: (FAMILIES.index(one.cell.family), BUDGETS.index(one.cell.budget)))
        questions = clean(self._size.clean)
        bare_rows = self._ask("bare", self._bare(), unattacked("clean", questions))
        rows = self._guarded(unattacked("clean", questions), self._rules)
        cost = unharmed(questions, bare_rows, rows, self._elect, self._rules.voting)
        return Summary(self._about(), results, cost, self._sweeps(goals, cells) if sweeps else ()), exhibits

    def _goals(self, family: Family) -> list[Target]:
        goals = targets(self._handle, family, self._size.static, self._out, tokens=self._draft)
        if not goals and family != "late":
            raise GuardError(f"the model gets nothing of the family {family} right, so there is nothing to attack")
        return goals

    def _attack(self, cell: Cell, goals: Sequence[Target]) -> None:
        with self._watch(f"attack {cell.name}") as progress:
            noise = self._rules.smoothing.image
            folder, steps = self._out / cell.name, self._size.steps
            craft(
                self._handle,
                cell,
                goals,
                folder,
                noise=noise,
                steps=steps,
                progress=progress,
                crafters=self._crafters,
            )

    def _read(self, cell: Cell) -> Read:
        """The cell's pictures; the early attacker's are the static one's first successes, where there were any."""
        if cell.attacker != "early":
            return lambda key: picture(self._out / cell.name, key)
        folder = self._out / replace(cell, attacker="static").name
        early = {one.key for one in crafted(folder) if one.first_step is not None}
        return lambda key: picture(folder, key, first=key in early)

    def _fire(self, cell: Cell, cases: Sequence[Case]) -> list[Shot]:
        asked = attacked(cell.name, cases, self._read(cell))
        said = {row.key: row.text for row in self._ask("bare", self._bare(), asked)}
        rows = self._guarded(asked, self._rules)
        return shots(cases, said, rows, self._elect, self._rules.voting)

    def _guarded(self, asked: Pictures, rules: Policy) -> tuple[Row, ...]:
        """What the guard makes of pictures. Copies are asked once for all policies that ask them alike."""
        if rules.smoothing.adaptive is not None or rules.voting.draft_tokens is not None:
            return self._ask(f"guard-{_short(rules)}", self._by(guarded, rules), asked, policy=rules.id)
        noise = noise_of(rules)
        drawn = self._ask(
            f"copies-{noise}", self._by(guarded, rules.model_copy(update={"rules": ()})), asked, noise=noise
        )
        answers = {row.key: row.answers for row in drawn}
        keys = {item.prompt().digest: item.key for item in asked.items}
        judged = decided(rules, lambda prompt: answers[keys[prompt.digest]])
        return self._ask(f"guard-{_short(rules)}", judged, asked, policy=rules.id)

    def _paper(self, cell: Cell, cases: Sequence[Case]) -> list[Shot]:
        """The same pictures under the paper's preset, with this model and the guard's embedder."""
        preset = Policy.load("paper")
        voting = preset.voting.model_copy(update={"embedder": self._rules.voting.embedder})
        preset = preset.model_copy(update={"model": self._rules.model, "voting": voting})
        few = cases[: self._size.adaptive]
        rows = self._guarded(attacked(cell.name, few, self._read(cell)), preset)
        return shots(few, dict.fromkeys((case.key for case in few), ""), rows, self._elect, voting)

    def _unruled(self, cell: Cell, cases: Sequence[Case]) -> list[Shot]:
        """Hijacks without the rule whose author knew the injected sentence."""
        if cell.family != "hijack":
            return []
        rules = self._rules.model_copy(update={"rules": tuple(r for r in self._rules.rules if r.id != KNOWING)})
        rows = self._guarded(attacked(cell.name, cases, self._read(cell)), rules)
        return shots(cases, dict.fromkeys((case.key for case in cases), ""), rows, self._elect, rules.voting)

    def _drafted(self, cell: Cell, cases: Sequence[Case]) -> list[Shot]:
        """Late payloads, where the policy votes on drafts."""
        if cell.family != "late":
            return []
        voting = self._rules.voting.model_copy(update={"draft_tokens": self._draft})
        rules = self._rules.model_copy(update={"voting": voting})
        rows = self._guarded(attacked(cell.name, cases, self._read(cell)), rules)
        return shots(cases, dict.fromkeys((case.key for case in cases), ""), rows, self._elect, voting)

    @property
    def _draft(self) -> int:
        return self._rules.voting.draft_tokens or DRAFT

    def _bare(self) -> Answerer:
        return self._by(bare, self._rules, size=16)

    def _by(self, arm: Callable[..., Batched], rules: Policy, *, size: int = 8) -> Answerer:
        return made(partial(arm, rules, size=size), self._hired, size=size)

    def _ask(self, arm: str, answerer: Answerer, asked: Pictures, **about: str) -> tuple[Row, ...]:
        about = {**self._identity, **about}
        with self._watch(f"{arm} {asked.name}") as progress:
            return run(
                asked, answerer, out=self._out / "answers" / arm / asked.name, about=about, progress=progress
            ).rows

    # Sweeps: the vote alone, over static pictures ---------------------------------------------------------------

    def _sweeps(self, goals: Mapping[Family, Sequence[Target]], cells: Sequence[Cell]) -> list[Point]:
        groups: dict[str, tuple[Sequence[Case | Clean], Pictures]] = {}
        for cell in cells:
            if cell.attacker == "static" and cell.budget in SWEPT and cell.family != "late":
                some = [goal.case for goal in goals[cell.family][: self._size.swept]]
                groups[cell.name] = some, attacked(cell.name, some, self._read(cell))
        questions = clean(2 * self._size.swept)
        groups["clean"] = questions, unattacked("clean", questions)
        points: list[Point] = []
        for group, (cases, asked) in groups.items():
            own = self._rules.smoothing.image
            alone = {sigma: self._said(asked, sigma, 0.0, 10) for sigma in SIGMAS}
            moved = {shift: self._said(asked, own.sigma, shift, 10) for shift in SHIFTS}
            points += [self._point("sigma", sigma, group, cases, said) for sigma, said in alone.items()]
            points += [self._point("shift", shift, group, cases, said) for shift, said in moved.items()]
            points += self._votes(group, cases, self._said(asked, own.sigma, own.shift, max(COPIES)))
        return points

    def _point(self, sweep: str, at: float, group: str, cases: Sequence[Case | Clean], said: Answers) -> Point:
        return point(sweep, f"{at:g}", group, cases, said, self._elect, self._rules.voting)

    def _votes(self, group: str, cases: Sequence[Case | Clean], many: Answers) -> list[Point]:
        """What other votes make of the same answers."""
        voting, usual = self._rules.voting, fewer(many, self._rules.smoothing.copies)
        points = [point("copies", str(n), group, cases, fewer(many, n), self._elect, voting) for n in COPIES]
        for weight in LAMBDAS:
            other = voting.model_copy(update={"sentiment_weight": weight})
            points.append(point("lambda", f"{weight:g}", group, cases, usual, self._elect, other))
        for method in METHODS:
            other = voting.model_copy(update={"method": method})
            points.append(point("method", method, group, cases, usual, self._elect, other))
        return points

    def _said(self, asked: Pictures, sigma: float, shift: float, copies: int) -> dict[str, tuple[str, ...]]:
        # The rules have no part in it, nor has the policy's own way to ask.
        vote_only = with_noise(self._rules.model_copy(update={"rules": ()}), sigma=sigma, shift=shift, copies=copies)
        moved = f"-moved-{shift:g}" if shift else ""
        rows = self._ask(f"sigma-{sigma:g}{moved}-{copies}", self._by(guarded, vote_only), asked)
        return {row.key: row.answers for row in rows}

    # The page ---------------------------------------------------------------------------------------------------

    def _exhibits(self, cell: Cell, fired: Sequence[Shot]) -> list[Exhibit]:
        """The first picture of each end: right answer, nothing, the attacker's outcome."""
        if cell.budget != SHOWN:
            return []
        ends: dict[str, Shot] = {}
        for shot in fired:
            said = shot.through("guard")
            end = "stopped" if said is None else "through" if shot.case.reached(said) else "right"
            ends.setdefault(end, shot)
        read = self._read(cell)
        return [
            Exhibit(
                cell,
                shot,
                Image.open(shot.case.path),
                read(shot.case.key),
                noisy_views(self._handle, self._rules.smoothing, shot.case.prompt(read(shot.case.key)), 2),
            )
            for shot in ends.values()
        ]

    def _about(self) -> dict[str, str]:
        packages = ("sg-guardrails", "torch", "transformers", "easy-vqa")
        return {
            "model": label(self._rules.model.id),
            "policy": self._rules.id,
            "pictures": SOURCE,
            "split": f"sha256 under the salt {SALT!r}; only the test half is used",
            "steps": f"static {self._size.steps or STEPS['static']}, adaptive {self._size.steps or STEPS['adaptive']}",
            "attack": "PGD, sign steps from 0.12 eps (8/255 without a bound), cosine schedule, momentum 0.9, one start",
            "early": f"first success among steps {', '.join(map(str, CHECKED))} and the last",
            "adaptive": f"{DRAWS} draws of the guard's noise a step, fresh in each, all counted; all steps taken",
            "draft": str(self._draft),
            "seeds": f"an attack's draws: its picture's number; the guard's noise: the key {process_key().id} (its id)",
            "paper's preset": "policy paper with this model, and the guard's embedder in RoBERTa's place",
            "versions": ", ".join(f"{name} {version(name)}" for name in packages),
        }


def _short(rules: Policy) -> str:
    """The policy's id as a folder's name."""
    return rules.id.replace("@", "-")
