"""Calls of several threads as one: who is asked with whom, and what becomes of a bad, a late and a surplus call."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from sg_guardrails.core.errors import MediaError, SamplingError
from sg_guardrails.core.policy import ImageNoise, Smoothing
from sg_guardrails.core.types import Answer, Copy, Prompt
from sg_guardrails.models.merge import Merged

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
