"""Calls of several threads as one: who is asked with whom, and what becomes of a bad, a late and a surplus call."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from sg_guardrails import Key, Policy, SmoothGuard
from sg_guardrails.core import waiting
from sg_guardrails.core.errors import MediaError, SamplingError
from sg_guardrails.core.policy import ImageNoise, Smoothing
from sg_guardrails.core.types import Answer, Copy, Prompt
from sg_guardrails.models import hf, merge
from sg_guardrails.models.merge import Merged
from sg_guardrails.testing import fake_embedder, fake_image, fake_scorers, fake_sentiment
from tests.forked import in_child

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system forks nothing")
QUIET, LOUD = Smoothing(), Smoothing(image=ImageNoise(sigma=0.5))


def copies(name: str, count: int = 2) -> list[Copy]:
    return [Copy(Prompt.ask(name), seed) for seed in range(count)]


class Gate:
    """Echoes each copy's question, but holds every batch until it is opened."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.entered, self.open = threading.Semaphore(0), threading.Semaphore(0)
        self.inside = 0

    def __call__(self, asked: Sequence[Copy], smoothing: Smoothing) -> list[Answer]:
        del smoothing
        self.inside += 1
        assert self.inside == 1, "two batches at the same time"
        self.batches.append([copy.prompt.question for copy in asked])
        self.entered.release()
        assert self.open.acquire(timeout=60)
        self.inside -= 1
        if any(copy.prompt.question == "bad" for copy in asked):
            raise MediaError("a bad one")
        return [Answer(f"{copy.prompt.question} {copy.seed}") for copy in asked]

    def let(self, batches: int) -> None:
        self.open.release(batches)


def answered(name: str, count: int = 2) -> list[Answer]:
    return [Answer(f"{name} {seed}") for seed in range(count)]


def test_those_who_come_while_a_batch_runs_are_the_next_one() -> None:
    gate = Gate()
    merged = Merged(gate, window=0)
    first = merged.submit(copies("a"), QUIET)
    assert gate.entered.acquire(timeout=60)
    others = [merged.submit(copies(name), QUIET) for name in "bcd"]
    gate.let(2)
    assert first.result(60) == answered("a")
    assert [other.result(60) for other in others] == [answered(name) for name in "bcd"]
    assert gate.batches == [["a", "a"], ["b", "b", "c", "c", "d", "d"]]


def test_a_batch_is_bounded_and_none_overtakes() -> None:
    gate = Gate()
    merged = Merged(gate, window=0, most_together=4)
    futures = [merged.submit(copies("a"), QUIET)]
    assert gate.entered.acquire(timeout=60)
    futures += [merged.submit(copies(name, count), QUIET) for name, count in (("b", 2), ("c", 3), ("d", 1), ("e", 9))]
    futures.append(merged.submit(copies("f"), LOUD))
    gate.let(9)
    for future in futures:
        future.result(60)
    assert ["".join(batch) for batch in gate.batches] == ["aa", "bb", "cccd", "eeeeeeeee", "ff"]


def test_one_bad_call_sinks_no_other() -> None:
    gate = Gate()
    merged = Merged(gate, window=0)
    first = merged.submit(copies("a"), QUIET)
    assert gate.entered.acquire(timeout=60)
    good, bad = merged.submit(copies("b"), QUIET), merged.submit(copies("bad"), QUIET)
    gate.let(9)
    assert first.result(60) == answered("a")
    assert good.result(60) == answered("b")
    with pytest.raises(MediaError):
        bad.result(60)


def test_a_full_queue_refuses_at_once() -> None:
    gate = Gate()
    merged = Merged(gate, window=0, most_waiting=4)
    merged.submit(copies("a"), QUIET)
    assert gate.entered.acquire(timeout=60)
    kept = [merged.submit(copies(name), QUIET) for name in "bc"]
    with pytest.raises(SamplingError, match="busy"):
        merged(copies("d"), QUIET)
    kept[0].cancel()
    kept.append(merged.submit(copies("e"), QUIET))  # a cancelled call's place is free again
    gate.let(9)
    assert kept[2].result(60) == answered("e")
    assert "".join(gate.batches[-1]) == "ccee"


def test_too_many_copies_of_one_caller_are_asked_when_nobody_waits() -> None:
    merged = Merged(lambda asked, smoothing: [Answer("x") for _ in asked], most_waiting=2)
    assert len(merged(copies("a", 5), QUIET)) == 5


def test_a_sampler_that_answers_too_few_is_an_error_for_everybody() -> None:
    merged = Merged(lambda asked, smoothing: [Answer("x")])
    with pytest.raises(SamplingError, match="number"):
        merged(copies("a"), QUIET)


def test_many_threads_each_get_their_own() -> None:
    merged = Merged(lambda asked, smoothing: [Answer(f"{copy.prompt.question} {copy.seed}") for copy in asked])

    def ask(number: int) -> bool:
        return merged(copies(f"q{number}"), QUIET) == answered(f"q{number}")

    with ThreadPoolExecutor(64) as pool:
        assert all(pool.map(ask, range(500)))


def test_it_does_what_its_sampler_can_do() -> None:
    class Warm(Gate):
        warmed = False

        def warm_up(self) -> None:
            self.warmed = True

    warm = Warm()
    Merged(warm).warm_up()  # type: ignore[operator] # found by __getattr__
    assert warm.warmed
    assert not hasattr(Merged(warm), "noisy_values")


def test_a_cancelled_call_leaves_the_queue() -> None:
    gate = Gate()
    merged = Merged(gate, window=0)
    first = merged.submit(copies("a"), QUIET)
    assert gate.entered.acquire(timeout=60)
    others = [merged.submit(copies(name), QUIET) for name in "bc"]
    assert (len(merged._waiting), merged._queued) == (2, 4)
    others[0].cancel()
    assert (len(merged._waiting), merged._queued) == (1, 2)
    assert not first.cancel(), "what was begun is not in the queue any more"
    gate.let(9)
    assert others[1].result(60) == answered("c")
    assert gate.batches == [["a", "a"], ["c", "c"]]
    assert merged._queued == 0


def test_after_a_long_batch_those_that_are_about_to_come_are_waited_for() -> None:
    gate = Gate()
    merged = Merged(gate, most_together=4, window=60)  # it ends as soon as the batch is full
    assert merged._patience() == 0, "a lone caller never waits"
    merged._company, merged._ended = True, time.perf_counter()
    merged.submit(copies("a"), QUIET)
    later = merged.submit(copies("b"), QUIET)
    gate.let(1)
    assert later.result(60) == answered("b")
    assert gate.batches == [["a", "a", "b", "b"]]
    for took, waits in ((0.0, 0.004), (2.0, 0.1), (100.0, 0.25)):
        usual, never = Merged(gate), Merged(gate, window=0)
        usual._company = never._company = True
        usual._took = never._took = took
        usual._ended = never._ended = time.perf_counter()
        assert (usual._patience(), never._patience()) == (pytest.approx(waits), 0)


def test_the_company_of_a_busy_hour_is_forgotten() -> None:
    gate = Gate()
    merged = Merged(gate, window=60)
    gate.let(9)
    running = merged.submit(copies("a"), QUIET)
    others = [merged.submit(copies(name), QUIET) for name in "bc"]
    for future in (running, *others):
        future.result(60)
    merged._company = True
    assert merged._patience() > 0, "those who were in it come back with their next rounds"
    merged._ended -= 1.1
    assert merged._patience() == 0, "a second later whoever comes is alone"
    assert merged(copies("d"), QUIET) == answered("d")


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_an_exit_in_the_sampler_reaches_every_caller_and_the_next_is_served(error: BaseException) -> None:
    entered, go = threading.Event(), threading.Event()

    def script(asked: Sequence[Copy], smoothing: Smoothing) -> list[Answer]:
        entered.set()
        assert go.wait(60)
        if any(copy.prompt.question == "bad" for copy in asked):
            raise error
        return [Answer("fine") for _ in asked]

    merged = Merged(script, window=0)
    first = merged.submit(copies("a"), QUIET)
    assert entered.wait(60)
    stopped = [merged.submit(copies(name), QUIET) for name in ("b", "bad")]
    later = merged.submit(copies("c"), LOUD)
    go.set()
    for future in stopped:
        with pytest.raises(type(error)):
            future.result(60)
    assert first.result(60) == later.result(60) == [Answer("fine")] * 2
    assert merged(copies("d"), QUIET) == [Answer("fine")] * 2
    with pytest.raises(type(error)):
        guarded(merged).check(Prompt.ask("bad", fake_image()))


def test_whoever_is_interrupted_while_he_waits_leaves_nothing_in_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()
    merged = Merged(gate, window=0)
    merged.submit(copies("a"), QUIET)
    assert gate.entered.acquire(timeout=60)

    def interrupted(self: object, timeout: float | None = None) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(merge.Future, "result", interrupted)
        with pytest.raises(KeyboardInterrupt):
            merged(copies("b"), QUIET)
    assert merged._queued == 0
    gate.let(9)
    assert merged(copies("c"), QUIET) == answered("c")


def test_a_call_for_which_the_system_gives_no_thread_is_refused_and_takes_no_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(self: object) -> None:
        raise RuntimeError("can't start new thread")

    gate = Gate()
    gate.let(9)
    merged = Merged(gate, window=0, most_waiting=3)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refused)
        for _ in range(3):
            with pytest.raises(SamplingError, match="was not asked: can't start new thread"):
                merged(copies("a"), QUIET)
    assert merged._queued == 0
    assert merged(copies("b"), QUIET) == answered("b")
    assert gate.batches == [["b", "b"]]


@forks
def test_a_forked_child_asks_although_its_parent_was_asking() -> None:
    """The queue's lock is held, a batch runs and another call waits at the moment of the fork."""
    parent, gate = os.getpid(), Gate()

    def script(asked: Sequence[Copy], smoothing: Smoothing) -> list[Answer]:
        return gate(asked, smoothing) if os.getpid() == parent else [Answer("in the child") for _ in asked]

    merged = Merged(script, window=0)
    futures = [merged.submit(copies("a"), QUIET)]
    assert gate.entered.acquire(timeout=60)
    futures.append(merged.submit(copies("b"), QUIET))
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with merged._changed:
            held.set()
            release.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(60)
    try:
        assert in_child(lambda: merged(copies("c"), QUIET) == [Answer("in the child")] * 2 and merged._queued == 0)
    finally:
        release.set()
        holder.join()
    gate.let(9)
    assert [future.result(60) for future in futures] == [answered("a"), answered("b")]


@forks
def test_a_forked_child_asks_the_real_model_although_its_parent_holds_it() -> None:
    handle = hf.load("builtin:shapes", device="cpu")
    merged = Merged(hf.HFSampler(handle, max_new_tokens=4))
    prompt = Prompt.ask("What color is the shape?", fake_image(size=64))
    asked = [Copy(prompt), Copy(prompt, 1)]
    said = merged(asked, QUIET)
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with handle.lock, merged._changed:
            held.set()
            release.wait(120)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(60)
    try:
        assert in_child(lambda: merged(asked, QUIET) == said)
    finally:
        release.set()
        holder.join()


def guarded(sampler: Merged, **sections: object) -> SmoothGuard:
    return SmoothGuard(
        Policy.parse({"name": "p", "smoothing": {"copies": 4}, **sections}),
        sampler=sampler,
        embedder=fake_embedder,
        sentiment=fake_sentiment,
        scorers=fake_scorers(),
        key=Key(b"a secret for the tests"),
        emit=lambda *_, **__: None,
    )


class Announced(Merged):
    """Tells when so many calls have been queued."""

    def __init__(self, sampler: Gate, **settings: int) -> None:
        super().__init__(sampler, window=0, **settings)
        self.queued = threading.Semaphore(0)

    def submit(self, *asked: object) -> object:  # type: ignore[override]
        future = super().submit(*asked)  # type: ignore[arg-type]
        self.queued.release()
        return future


def test_a_cancelled_task_takes_its_copies_out_of_the_queue() -> None:
    gate = Gate()
    merged = Announced(gate, most_waiting=5)
    guard = guarded(merged)

    async def main() -> list[str]:
        def begin(name: str) -> asyncio.Task:
            return asyncio.create_task(guard.acheck(Prompt.ask(name, fake_image())))

        async def until_queued() -> None:
            assert await asyncio.to_thread(merged.queued.acquire, timeout=60)

        running = begin("a")
        await until_queued()
        assert await asyncio.to_thread(gate.entered.acquire, timeout=60)
        waiting = begin("b")
        await until_queued()
        assert merged._queued == 5
        refused = await begin("c")
        assert refused.status == "error", "the queue is full"
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert merged._queued == 0, "its place is free at once, while the batch before it still runs"
        later = begin("d")
        await until_queued()
        gate.let(9)
        return [(await task).text for task in (running, later)]

    assert [text[0] for text in asyncio.run(main())] == ["a", "d"]
    assert [batch[0] for batch in gate.batches] == ["a", "d"]


def test_a_cancelled_task_whose_batch_has_begun_is_left_and_asks_no_further_round() -> None:
    gate = Gate()
    merged = Announced(gate)
    guard = guarded(merged, smoothing={"copies": 4, "early": "exact"})
    ended = threading.Event()
    guard._outcomes._emit = lambda *_, **__: ended.set()

    async def main() -> None:
        task = asyncio.create_task(guard.acheck(Prompt.ask("a", fake_image())))
        assert await asyncio.to_thread(gate.entered.acquire, timeout=60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(gate.batches) == 1

    asyncio.run(main())
    gate.let(9)
    assert ended.wait(60)
    assert [len(batch) for batch in gate.batches] == [3], "three would settle five; these differ, so two more were due"


def test_a_model_that_hangs_keeps_no_thread_of_those_whom_it_has_not_begun_to_answer() -> None:
    gate = Gate()
    merged = Merged(gate, window=0)
    merged.submit(copies("a"), QUIET)
    assert gate.entered.acquire(timeout=60)
    guard = guarded(merged, limits={"deadline_seconds": 0.1})
    before = set(waiting._slots.left_behind)
    for name in "bcd":
        assert guard.check(Prompt.ask(name, fake_image())).status == "error"
        for thread in waiting._slots.left_behind - before:
            thread.join(60)
            assert not thread.is_alive()
    assert not waiting._slots.left_behind - before
    gate.let(9)


def test_a_call_that_waits_past_the_deadline_leaves_the_queue() -> None:
    gate = Gate()
    merged = Merged(gate, window=0)
    merged.submit(copies("a"), QUIET)
    assert gate.entered.acquire(timeout=60)
    outcome = guarded(merged, limits={"deadline_seconds": 0.1}).check(Prompt.ask("b", fake_image()))
    assert (outcome.status, merged._queued) == ("error", 0)
    gate.let(9)
