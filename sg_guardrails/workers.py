"""Workers elsewhere: tasks are done by Ray actors, on this machine or a cluster, and done again where one dies."""

from __future__ import annotations

import logging
import os
import secrets
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Generic, Protocol, TypeVar

from sg_guardrails.core.errors import GuardError, SamplingError
from sg_guardrails.core.noise import KEY_VARIABLE, process_key

DEATHS = 3
"""Workers that one task may take down, or that may die one after another while they start, before that is an error."""
START_SECONDS = 600.0
"""Longest wait for a first worker while none is at work."""
T = TypeVar("T")
R = TypeVar("R")


class Lost:
    """Said in a worker's place, where it is there no more."""


class Crew(Protocol):
    """Starts workers and passes tasks and replies. Each worker has one thing to do at a time."""

    def hire(self) -> int:
        """Begin to start a worker, and return its number; it is heard from when it is ready."""
        ...

    def bring(self, make: Callable[[], Callable[[Any], Any]]) -> object:
        """Put what makes the job within reach of all workers, and return what `give` takes."""
        ...

    def give(self, worker: int, job: object, task: object) -> None:
        """Let a ready worker begin a task."""
        ...

    def heard(self, seconds: float | None) -> tuple[int, object] | None:
        """The next worker that has something to say (its reply, None where it is ready, `Lost`); None after a wait."""
        ...

    def dismiss(self, worker: int) -> None:
        """Stop a worker, whatever it is at."""
        ...

    def close(self) -> None:
        """Stop all of them."""
        ...


@dataclass(slots=True)
class _Task(Generic[T]):
    what: T
    deaths: int = 0


class Workers:
    """Some workers, started when they are first needed, that keep what they have loaded from one call to the next.

    They draw their noise from this process's key, so that a request gets the same noise wherever it is asked. The key
    goes to them over Ray's own connections and is written nowhere.

    Args:
        count: How many. Each gets a GPU where the cluster has any, else an even share of the cores.
        gpus: False keeps the workers on CPUs.
        crew: Who starts them; None takes Ray: the cluster of the variable RAY_ADDRESS, or one of its own on this
            machine, which ends with `close`.

    Raises:
        GuardError: If there is to be none; if Ray is not installed, when the first task is to be done.
    """

    def __init__(self, count: int, *, gpus: bool = True, crew: Callable[[], Crew] | None = None) -> None:
        if count < 1:
            raise GuardError(f"at least one worker, not {count}")
        self._count = count
        self._assemble = crew or (lambda: RayCrew(count, gpus=gpus))
        self._crew: Crew | None = None
        self._starting: set[int] = set()
        self._idle: list[int] = []
        self._stillborn = 0
        self.lost = 0
        """How many have died at work."""

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop all workers."""
        if self._crew is not None:
            self._crew.close()
        self._crew = None
        self._starting.clear()
        self._idle.clear()

    def each(self, make: Callable[[], Callable[[T], R]], tasks: Iterable[T]) -> Iterator[tuple[T, R | GuardError]]:
        """Do every task once, and give it back with its result as soon as that is there: the order is the results'.

        No more tasks are taken from `tasks` than there are workers, and one. A task whose worker dies is done again.

        Args:
            make: Called once in each worker; loads what the job needs and returns the job.
            tasks: What to do; tasks and results travel between processes.

        Yields:
            Each task with what the job returned, or the GuardError that it raised; another exception becomes a
            SamplingError that names its type alone, and so does a task that took `DEATHS` workers down.

        Raises:
            GuardError: If no worker can be started.
        """
        crew = self._crew = self._crew or self._assemble()
        job, left, again = crew.bring(make), iter(tasks), deque[_Task[T]]()
        busy: dict[int, _Task[T]] = {}
        done: list[tuple[T, R | GuardError]] = []
        upcoming = _next(again, left)
        try:
            while upcoming is not None or busy or done:
                while upcoming is not None and self._idle:
                    worker = self._idle.pop()
                    crew.give(worker, job, upcoming.what)
                    busy[worker] = upcoming
                    upcoming = _next(again, left)
                yield from done  # the workers are at work again before the caller is
                done.clear()
                if upcoming is None and not busy:
                    return
                while len(self._starting) + len(self._idle) + len(busy) < self._count:
                    self._starting.add(crew.hire())
                worker, said = self._hear(crew, waits=bool(busy))
                task = busy.pop(worker, None)
                if task is None:
                    self._started(worker, said, others=bool(busy))
                    continue
                if not isinstance(said, Lost):
                    self._idle.append(worker)
                    done.append((task.what, said))  # type: ignore[arg-type] # what the job of this call returned
                    continue
                self.lost += 1
                if task.deaths + 1 == DEATHS:
                    done.append((task.what, SamplingError(f"{DEATHS} workers died of it, one after another")))
                else:
                    again.append(_Task(task.what, task.deaths + 1))
                    upcoming = upcoming or _next(again, left)
        finally:
            for worker in busy:
                crew.dismiss(worker)

    def _hear(self, crew: Crew, *, waits: bool) -> tuple[int, object]:
        heard = crew.heard(None if waits else START_SECONDS)
        if heard is None:
            raise GuardError(f"no worker could start within {START_SECONDS:.0f} s: is the cluster busy, or too small?")
        return heard

    def _started(self, worker: int, said: object, *, others: bool) -> None:
        self._starting.discard(worker)
        if isinstance(said, GuardError):
            raise said
        if not isinstance(said, Lost):
            self._idle.append(worker)
            self._stillborn = 0
            return
        self._stillborn += 1
        if self._stillborn >= DEATHS and not (others or self._idle):
            raise GuardError("the workers die as they start: is sg_guardrails installed on every node?")
        if self._stillborn >= DEATHS:
            self._count -= 1  # the others go on alone


def _next(again: deque[_Task[T]], left: Iterator[T]) -> _Task[T] | None:
    if again:
        return again.popleft()
    return next((_Task(task) for task in left), None)


class Hand:
    """What runs in a worker's process. No exception leaves it, and no traceback with what was asked."""

    def __init__(self) -> None:
        self._number = -1
        self._job: Callable[[Any], Any] | None = None

    def start(self, secret: bytes, wanted: str) -> GuardError | None:
        """Take over the run's key; the error, where this node's package is another than the driver's."""
        os.environ[KEY_VARIABLE] = os.fsdecode(secret)
        here = version("sg-guardrails")
        return None if here == wanted else GuardError(f"a node has sg_guardrails {here}, this process {wanted}")

    def do(self, number: int, make: Callable[[], Callable[[Any], Any]], task: object) -> object:
        """The task's result, or its error; the job is kept until another number comes."""
        try:
            if self._job is None or self._number != number:
                self._job = None  # the last one's model may go before the next is loaded
                self._job, self._number = make(), number
            return self._job(task)
        except GuardError as error:
            return error
        except Exception as error:  # noqa: BLE001 - its message may hold what was asked, its type does not
            return SamplingError(f"a worker failed: {type(error).__name__}")


class RayCrew:
    """Workers that are Ray actors.

    Args:
        count: How many there will be, which decides what each gets of the nodes' cores.
        gpus: Whether each takes a GPU, where there is one.

    Raises:
        GuardError: If Ray is not installed, or the cluster cannot be reached.
    """

    def __init__(self, count: int, *, gpus: bool = True) -> None:
        self._ray, self._own = _connected(count)
        cores = [node["Resources"]["CPU"] for node in self._ray.nodes() if node["Alive"] and "CPU" in node["Resources"]]
        each = int(min(cores, default=1)) // -(-count // max(1, len(cores)))
        gpu = 1 if gpus and self._ray.cluster_resources().get("GPU", 0) >= 1 else 0
        self._hand = self._ray.remote(num_cpus=max(1, each), num_gpus=gpu, max_restarts=0)(Hand)
        self._actors: dict[int, Any] = {}
        self._asked: dict[Any, int] = {}
        self._jobs = 0
        self._hired = 0

    def hire(self) -> int:
        """Begin to start a worker. The key goes to it directly: the cluster's own tables never hold it."""
        self._hired += 1
        actor = self._actors[self._hired] = self._hand.remote()
        self._asked[actor.start.remote(process_key().secret, version("sg-guardrails"))] = self._hired
        return self._hired

    def bring(self, make: Callable[[], Callable[[Any], Any]]) -> object:
        """A number for the job, and a reference to what makes it."""
        self._jobs += 1
        return self._jobs, self._ray.put(make)

    def give(self, worker: int, job: Any, task: object) -> None:
        """Let a ready worker begin a task; `job` is what `bring` returned."""
        number, make = job
        self._asked[self._actors[worker].do.remote(number, make, task)] = worker

    def heard(self, seconds: float | None) -> tuple[int, object] | None:
        """The next reply, or None."""
        ready, _ = self._ray.wait(list(self._asked), num_returns=1, timeout=seconds)
        if not ready:
            return None
        worker = self._asked.pop(ready[0])
        errors = self._ray.exceptions
        try:
            return worker, self._ray.get(ready[0])
        except errors.RayTaskError as error:  # the task could not even be unpacked there
            return worker, SamplingError(f"a worker failed: {type(error.cause).__name__}")
        except errors.RayError:
            self.dismiss(worker)
            return worker, Lost()

    def dismiss(self, worker: int) -> None:
        """Stop a worker, whatever it is at."""
        self._asked = {reference: number for reference, number in self._asked.items() if number != worker}
        if (actor := self._actors.pop(worker, None)) is not None:
            self._ray.kill(actor)

    def close(self) -> None:
        """Stop all workers, and the cluster where it was started here."""
        for worker in tuple(self._actors):
            self.dismiss(worker)
        if self._own:
            self._ray.shutdown()


def _connected(count: int) -> tuple[Any, bool]:
    """The module, and whether the connection is ours to end."""
    address = os.environ.get("RAY_ADDRESS")
    if "ray" not in sys.modules:
        _set_up(alone=not address)
    try:
        import ray  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise GuardError("workers need Ray: pip install 'sg-guardrails[ray]'") from error
    if ray.is_initialized():
        return ray, False
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address:
            ray.init(**quiet)
        else:
            ray.init("local", num_cpus=max(count, os.cpu_count() or 1), include_dashboard=False, **quiet)
    except Exception as error:  # Ray raises builtin kinds as well as its own
        where = f"the Ray cluster at {address} cannot be reached" if address else "Ray cannot start on this machine"
        raise GuardError(f"{where}: {type(error).__name__}") from error
    return ray, True


def _set_up(*, alone: bool) -> None:
    """What Ray reads from the environment as it is imported; what is set there already stays."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # It prints its notices on standard output, where a command may be writing JSON; `Workers.lost` counts the deaths.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "^")
    if alone and "RAY_AUTH_MODE" not in os.environ:
        # A cluster listens on the network and runs what it is sent: only this process and its workers know the token.
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
