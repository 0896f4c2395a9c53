"""A guard whose policy file may change while it serves: the new policy takes over whole, or not at all."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from sg_guardrails.core import forking, layers
from sg_guardrails.core.certify import CONFIDENCE
from sg_guardrails.core.errors import GuardError
from sg_guardrails.core.policy import Policy
from sg_guardrails.core.types import Answer, Copy, Outcome, Prompt
from sg_guardrails.core.waiting import Deadline
from sg_guardrails.guard import SmoothGuard
from sg_guardrails.local import local_guard
from sg_guardrails.record import PolicyChange, policy_changed

Build = Callable[[Policy], SmoothGuard]
FIRST_WAIT, LONGEST_WAIT = 1.0, 300.0
"""Seconds between tries of a refused policy: each wait is twice the one before, up to the longest."""
Stamp = tuple[tuple[str, int, int], ...]


def reloading(
    policy: str | Path,
    *,
    build: Build = local_guard,
    note: Callable[[PolicyChange], None] = policy_changed,
    check_every: float | None = None,
) -> ReloadingGuard:
    """A guard that can read its policy file again. Guards of the same model share the loaded one, so a change is cheap.

    Args:
        policy: The file (or a shipped name).
        build: Makes the guard of a policy; `functools.partial(local_guard, emit=...)` to say more.
        note: Takes each change of state: another policy in force, a refusal, another reason for one, the file in order
            again. By default one structlog event. `AuditFile.policy_changed` is one too.
        check_every: Seconds. A call looks at the files' times and sizes at most this often, and at their contents where
            these differ. A refused policy is tried again though no file changed, since what refused it may have passed
            (a model briefly out of reach, a permission): after 1 s, then after twice as long each time, up to 300 s.
            None: only `refresh` looks. No thread runs beside yours.

    Raises:
        PolicyError: If the file is not valid now: there is no old policy to keep.
    """
    return ReloadingGuard(policy, build=build, note=note, check_every=check_every)


class ReloadingGuard(SmoothGuard):
    """A SmoothGuard that stands for the guard of the policy in force (made by `reloading`; arguments there).

    A call runs to its end under the policy that it began with. Who asks in two steps, `copies` and then `decide`, takes
    `current` once and asks that.
    """

    def __init__(
        self,
        policy: str | Path,
        *,
        build: Build,
        note: Callable[[PolicyChange], None],
        check_every: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        # The parts are the current guard's; SmoothGuard's own constructor has nothing to do here.
        self._path, self._build, self._note = layers.locate(policy), build, note
        self._check_every, self._now = check_every, clock
        self._reading = forking.Lock()
        self._files = [path for path, _ in layers.chain(self._path)]
        self._stamp, self._contents = _stamp(self._files), _digest(self._files)
        self._current = build(Policy.load(self._path))
        self.policy = self._current.policy
        self._looked = clock()
        self._refusal: str | None = None  # why the files as they stand are not in force
        self._wait, self._try_at = FIRST_WAIT, 0.0

    @property
    def current(self) -> SmoothGuard:
        """The guard of the policy in force, after a look at the files where one is due."""
        due = self._check_every is not None and self._now() - self._looked >= self._check_every
        # Whoever finds another thread at it goes on under the old policy instead of waiting for a model to load.
        if due and self._reading.acquire(blocking=False):
            try:
                self._looked = self._now()
                again = self._refusal is not None and self._looked >= self._try_at
                if again or self._stamp != _stamp(self._files):
                    self._read_again()
            finally:
                self._reading.release()
        return self._current

    def refresh(self) -> PolicyChange | None:
        """Read the files again now; None where nothing changed.

        A policy that is not valid, or whose model can't be loaded, is refused: the old one stays, and the change that
        is returned and noted says why. A refused one is tried again at each call; None where the reason is the same.
        """
        with self._reading:
            return self._read_again()

    def _read_again(self) -> PolicyChange | None:
        # Before the file is read: what is written meanwhile is then seen as one more change.
        stamp, contents = _stamp(self._files), _digest(self._files)
        same = contents == self._contents
        self._stamp, self._contents = stamp, contents
        if same and self._refusal is None:
            return None
        old, before = self._current.policy.id, self._refusal
        self._refusal = error = self._taken_over()
        if error is None:
            self._wait = FIRST_WAIT
        else:
            self._wait = min(2 * self._wait, LONGEST_WAIT) if same else FIRST_WAIT
            self._try_at = self._now() + self._wait
        new = None if error is not None else self._current.policy.id
        if (new == old and before is None) or (error is not None and error == before):
            return None
        change = PolicyChange(str(self._path), old, new, error)
        with suppress(Exception):  # a full disk must not keep a request from being checked
            self._note(change)
        return change

    def _taken_over(self) -> str | None:
        """Put the policy in the files into force, whole; else say why not, and leave everything as it was."""
        try:
            self._files = [path for path, _ in layers.chain(self._path)]
            self._stamp, self._contents = _stamp(self._files), _digest(self._files)
            policy = Policy.load(self._path)
            if _digest(self._files) != self._contents:  # half of an old file and half of a new one may well be valid
                return f"{self._path}: changed while it was read"
            if policy.id == self._current.policy.id:
                return None
            guard = self._build(policy)
            guard.warm_up()
        except GuardError as refused:
            return str(refused)  # where not even the chain can be told, the old policy's files are watched on
        except Exception as broken:  # noqa: BLE001 - a device out of memory, say: the old guard must go on answering
            return f"loading the new policy failed: {type(broken).__name__}"
        self._current, self.policy = guard, guard.policy
        return None

    # SmoothGuard's calls, each under one policy ---------------------------------------------------------------------

    def check(self, prompt: Prompt) -> Outcome:
        """`SmoothGuard.check` under the policy in force."""
        return self.current.check(prompt)

    def check_many(self, prompts: Sequence[Prompt]) -> list[Outcome]:
        """`SmoothGuard.check_many` under the policy in force."""
        return self.current.check_many(prompts)

    async def acheck(self, prompt: Prompt) -> Outcome:
        """`SmoothGuard.acheck` under the policy in force."""
        return await self.current.acheck(prompt)

    def review(self, prompt: Prompt, answer: Answer | str) -> Outcome:
        """`SmoothGuard.review` under the policy in force."""
        return self.current.review(prompt, answer)

    def review_many(self, pairs: Sequence[tuple[Prompt, Answer | str]]) -> list[Outcome]:
        """`SmoothGuard.review_many` under the policy in force."""
        return self.current.review_many(pairs)

    async def areview(self, prompt: Prompt, answer: Answer | str) -> Outcome:
        """`SmoothGuard.areview` under the policy in force."""
        return await self.current.areview(prompt, answer)

    def certify(
        self,
        prompt: Prompt,
        *,
        copies: int = 200,
        anchor_copies: int = 20,
        confidence: float = CONFIDENCE,
        judge_error: float = 0.0,
    ) -> Outcome:
        """`SmoothGuard.certify` under the policy in force."""
        return self.current.certify(
            prompt, copies=copies, anchor_copies=anchor_copies, confidence=confidence, judge_error=judge_error
        )

    def judge_text(self, answer: Answer | str) -> Outcome:
        """`SmoothGuard.judge_text` under the policy in force."""
        return self.current.judge_text(answer)

    def copies(
        self, prompt: Prompt, answered: Sequence[Answer | str] | None = None, *, candidate: Answer | str | None = None
    ) -> list[Copy]:
        """`SmoothGuard.copies` under the policy in force; see `current`."""
        return self.current.copies(prompt, answered, candidate=candidate)

    def decide(
        self,
        prompt: Prompt,
        answers: Sequence[Answer | str],
        *,
        clean: int | None = None,
        candidate: Answer | str | None = None,
        late: bool = False,
        took: float = 0.0,
    ) -> Outcome:
        """`SmoothGuard.decide` under the policy in force; see `current`."""
        return self.current.decide(prompt, answers, clean=clean, candidate=candidate, late=late, took=took)

    def patience(self) -> Deadline:
        """`SmoothGuard.patience` under the policy in force; see `current`."""
        return self.current.patience()

    def skip(self, answer: Answer | str, *, reason: str) -> Outcome:
        """`SmoothGuard.skip` under the policy in force."""
        return self.current.skip(answer, reason=reason)

    def refuse(self, error: GuardError, *, prompt: Prompt | None = None, candidate: Answer | None = None) -> Outcome:
        """`SmoothGuard.refuse` under the policy in force."""
        return self.current.refuse(error, prompt=prompt, candidate=candidate)

    def warm_up(self) -> None:
        """`SmoothGuard.warm_up` of the guard in force."""
        self.current.warm_up()

    def close(self) -> None:
        """`SmoothGuard.close` of the guard in force."""
        self.current.close()


def _stamp(files: Sequence[Path]) -> Stamp:
    stamps = []
    for path in files:
        try:
            seen = path.stat()
        except OSError:
            stamps.append((str(path), 0, 0))
        else:
            stamps.append((str(path), seen.st_mtime_ns, seen.st_size))
    return tuple(stamps)


def _digest(files: Sequence[Path]) -> str:
    state = hashlib.sha256()
    for path in files:
        try:
            with path.open("rb") as file:
                for block in iter(partial(file.read, layers.MOST_BYTES), b""):
                    state.update(block)
        except OSError:
            state.update(b"\0missing")
        state.update(b"\0")
    return state.hexdigest()
