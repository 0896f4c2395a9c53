"""A black-box attack on whoever answers, a guard as well as a model: it sees the words that come back, nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from sg_guardrails.attacks.attack import with_medium
from sg_guardrails.attacks.objectives import Objective
from sg_guardrails.core.errors import GuardError, ModelError
from sg_guardrails.core.media import Image
from sg_guardrails.core.types import Prompt

Ask = Callable[[Prompt], str]
"""Whoever answers; what it hands on in place of a blocked answer is an answer here."""
HALVINGS = (0.001, 0.005, 0.02, 0.1, 0.2, 0.4, 0.6, 0.8)
"""Shares of the budget after which the squares' area is halved (Square Attack, arXiv 1912.00049, section 5)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuerySettings:
    """How far the picture may move, and how often the attacker may ask."""

    eps: float = 8 / 255
    """L-inf radius in pixel units of [0, 1]; cut to whole 8-bit levels, since what is asked about is a saved file."""
    queries: int = 1000
    """Most questions asked, the one about the clean picture included."""
    area: float = 0.3
    """The first squares' share of the picture."""
    seed: int = 0
    """Of the stripes and squares."""

    def __post_init__(self) -> None:
        if not (0 < self.eps <= 1 and self.levels >= 1 and self.queries >= 1 and 0 < self.area <= 1):
            raise ValueError("eps lies in [1/255, 1], queries is at least 1, area in (0, 1]")
        if self.seed < 0:
            raise ValueError("the seed is at least 0")

    @property
    def levels(self) -> int:
        """`eps` in whole 8-bit levels."""
        return int(self.eps * 255 + 1e-6)


@dataclass(frozen=True, slots=True, eq=False)
class QueryState:
    """Where an attack stands; enough to go on from in another process."""

    picture: NDArray[np.uint8] = field(repr=False)
    """``(H, W, 3)`` the best picture so far."""
    answer: str = field(default="", repr=False)
    """The answer to it. Untrusted text."""
    distance: float = float("inf")
    """Of that answer from the objective; 0 where it is reached."""
    queries: int = 0
    """Questions asked so far."""
    clean: str = field(default="", repr=False)
    """The first answer, to the clean picture. Untrusted text."""

    @classmethod
    def first(cls, prompt: Prompt, ask: Ask, *, which: int = 0) -> QueryState:
        """Ask the first question, about the clean picture: what is wanted may hang on its answer.

        Raises:
            ModelError: If the prompt has no such picture.
        """
        begin = cls(_clean(prompt, which))
        answer = ask(with_medium(prompt, begin.image, which=which))
        return replace(begin, answer=answer, queries=1, clean=answer)

    def scored(self, objective: Objective) -> QueryState:
        """The same, with its answer's distance from the objective."""
        return replace(self, distance=objective.distance(self.answer))

    @property
    def success(self) -> bool:
        """Whether the best answer is what the attacker wants."""
        return self.distance == 0

    @property
    def image(self) -> Image:
        """The best picture so far."""
        return Image(self.picture.astype(np.float32) / np.float32(255))

    def save(self, path: str | Path, *, run: str = "") -> None:
        """Write the state to a file, whole or not at all; `run` names the attack that it belongs to."""
        target = Path(path)
        part = target.with_name(f"{target.name}.part")
        with part.open("wb") as file:
            held = {item.name: getattr(self, item.name) for item in fields(self)}
            np.savez(file, run=run, **held)
        part.replace(target)

    @classmethod
    def load(cls, path: str | Path, *, run: str = "") -> QueryState:
        """Read a state that `save` wrote. Only arrays are unpacked, never code.

        Raises:
            GuardError: If the file is no such state, or belongs to another attack.
        """
        try:
            with np.load(path, allow_pickle=False) as held:
                belongs, picture = str(held["run"]), held["picture"].astype(np.uint8)
                answers = {name: str(held[name]) for name in ("answer", "clean")}
                state = cls(picture, distance=float(held["distance"]), queries=int(held["queries"]), **answers)
        except (OSError, EOFError, ValueError, KeyError, BadZipFile) as error:
            raise GuardError(f"{path} is no state of a query attack: delete it, or name another file") from error
        if belongs != run:
            raise GuardError(f"{path} belongs to another attack: name another file, or delete it to start anew")
        return state


def attack_by_queries(
    prompt: Prompt,
    ask: Ask,
    objective: Objective,
    settings: QuerySettings,
    *,
    which: int = 0,
    progress: Callable[[QueryState], None] | None = None,
    state: QueryState | None = None,
) -> QueryState:
    """Search by trial for a picture whose answer reaches the objective (Square Attack, arXiv 1912.00049, L-inf).

    Vertical stripes first, then squares that shrink as the budget is spent; a trial is kept where its answer is no
    farther from the objective. Answers are words, so most trials are level: to keep those lets the search drift over
    the plateau, where the paper's rule, made for losses, would stand still.

    Args:
        prompt: The question, with the clean picture.
        ask: Whoever answers.
        objective: What the attacker wants; its `distance` is the score.
        settings: Budget.
        which: The attacked picture's number among the prompt's media.
        progress: Called with the state after each question; what it raises stops the attack, and the last state it saw
            can be passed on as `state`.
        state: Where to go on from; `QueryState.first` is where its first question is asked already.

    Returns:
        The last state: the best picture, its answer, the questions asked.

    Raises:
        ModelError: If the prompt has no such picture, or the state is of one of another size.
    """
    clean = _clean(prompt, which)
    now = QueryState(clean) if state is None else state
    if now.picture.shape != clean.shape:
        raise ModelError("the state is of a picture of another size: name another file, or start anew")
    while now.queries < settings.queries and not now.success:
        trial = _trial(clean, now, settings)
        tried = QueryState(trial)
        answer = ask(with_medium(prompt, tried.image, which=which))
        distance = objective.distance(answer)
        number = now.queries + 1
        kept = distance <= now.distance
        first = now.clean if now.queries else answer
        now = QueryState(trial, answer, distance, number, first) if kept else replace(now, queries=number)
        if progress is not None:
            progress(now)
    return now


def _clean(prompt: Prompt, which: int) -> NDArray[np.uint8]:
    """``(H, W, 3)`` the picture that is to be attacked, as an 8-bit file holds it."""
    start = prompt.media[which] if which < len(prompt.media) else None
    if not isinstance(start, Image):
        raise ModelError(f"there is no picture number {which} to attack in the prompt")
    levels: NDArray[np.uint8] = np.rint(start.pixels * 255).astype(np.uint8)
    return levels


def _trial(clean: NDArray[np.uint8], now: QueryState, settings: QuerySettings) -> NDArray[np.uint8]:
    """The next picture to ask about, drawn from seed and number alone, so that a resumed attack draws the same."""
    if now.queries == 0:
        return clean
    rng = np.random.default_rng((settings.seed, now.queries))
    height, width = clean.shape[:2]
    if now.queries == 1:
        return _moved(clean, settings.levels * rng.choice((-1, 1), (1, width, 3)))
    spent = now.queries / settings.queries
    area = settings.area / 2 ** sum(spent > share for share in HALVINGS)
    side = max(1, min(height, width, round((area * height * width) ** 0.5)))
    top, left = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
    window = (slice(top, top + side), slice(left, left + side))
    trial = now.picture.copy()
    trial[window] = _moved(clean[window], settings.levels * rng.choice((-1, 1), (1, 1, 3)))
    return trial


def _moved(levels: NDArray[np.uint8], by: NDArray[np.int64]) -> NDArray[np.uint8]:
    moved: NDArray[np.uint8] = np.clip(levels.astype(np.int64) + by, 0, 255).astype(np.uint8)
    return moved
