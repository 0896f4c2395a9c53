from __future__ import annotations

import os
import sys
from collections import deque
from functools import partial

import pytest

from sg_guardrails.core.errors import GuardError, ModelError, SamplingError
from sg_guardrails.core.noise import KEY_VARIABLE, Key, process_key
from sg_guardrails.workers import DEATHS, Hand, Lost, Workers


class FakeCrew:
    """Workers in this process: `dies` says of a task and a worker whether the worker dies of it."""

    def __init__(self, *, dies=lambda task, worker: False, last_first=False, stillborn=lambda worker: False):
        self.dies, self.last_first, self.stillborn = dies, last_first, stillborn
        self.hands, self.said, self.given, self.dismissed, self.closed = {}, deque(), [], [], 0

    def hire(self):
        number = len(self.hands) + 1
        self.hands[number] = Hand()
        self.said.append((number, Lost() if self.stillborn(number) else None))
        return number

    def bring(self, make):
        return len(self.given), make

    def give(self, worker, job, task):
        self.given.append((worker, task))
        said = Lost() if self.dies(task, worker) else self.hands[worker].do(*job, task)
        self.said.append((worker, said))

    def heard(self, seconds):
        if not self.said:
            return None
        ready = any(said is None for _, said in self.said)
        return self.said.pop() if self.last_first and not ready else self.said.popleft()

    def dismiss(self, worker):
        self.dismissed.append(worker)

    def close(self):
        self.closed += 1


def double():
    return lambda number: 2 * number


def results(crew, tasks, *, make=double, count=2):
    with Workers(count, crew=lambda: crew) as workers:
        return list(workers.each(make, tasks))


def test_every_task_comes_back_with_its_result():
    assert sorted(results(FakeCrew(), range(7))) == [(number, 2 * number) for number in range(7)]


def test_results_come_in_the_order_in_which_they_are_ready():
    assert [task for task, _ in results(FakeCrew(last_first=True), range(6))] != list(range(6))


def test_no_worker_is_without_work_while_there_is_some():
    crew = FakeCrew()
    results(crew, range(8))
    assert {worker for worker, _ in crew.given} == {1, 2}


def test_no_more_tasks_are_taken_than_can_be_begun():
    taken = []

    def tasks():
        for number in range(50):
            taken.append(number)
            yield number

    with Workers(2, crew=FakeCrew) as workers:
        for back, _ in enumerate(workers.each(double, tasks()), start=1):
            assert len(taken) <= back + 2 + 1


def test_a_task_whose_worker_dies_is_done_by_another_and_no_other_twice():
    crew = FakeCrew(dies=lambda task, worker: task == 3 and worker in (1, 2))
    assert sorted(results(crew, range(6))) == [(number, 2 * number) for number in range(6)]
    took = [worker for worker, task in crew.given if task == 3]
    assert len(took) == len(set(took)) > 1
    assert sorted({task for _, task in crew.given}) == list(range(6))
    assert len(crew.given) == 6 + len(took) - 1


def test_a_task_that_takes_workers_down_again_and_again_is_an_error_and_the_others_are_done():
    crew = FakeCrew(dies=lambda task, worker: task == 2)
    done = dict(results(crew, range(5)))
    assert isinstance(done.pop(2), SamplingError)
    assert done == {number: 2 * number for number in (0, 1, 3, 4)}
    assert sum(task == 2 for _, task in crew.given) == DEATHS


def test_workers_that_die_as_they_start_end_the_run():
    with pytest.raises(GuardError, match="installed on every node"):
        results(FakeCrew(stillborn=lambda worker: True), range(3))


def test_one_worker_that_dies_as_it_starts_is_replaced():
    assert len(results(FakeCrew(stillborn=lambda worker: worker == 1), range(3))) == 3


def test_workers_go_on_without_those_that_never_start():
    crew = FakeCrew(stillborn=lambda worker: worker > 1)
    assert len(results(crew, range(20))) == 20
    assert len(crew.hands) <= 1 + DEATHS


def test_waiting_for_a_first_worker_has_an_end():
    crew = FakeCrew()
    crew.heard = lambda seconds: None
    with pytest.raises(GuardError, match="no worker could start"):
        results(crew, range(3))


def test_a_node_with_another_version_is_refused(monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, "before, and long enough")  # the hand takes the run's into this very process
    crew = FakeCrew()
    crew.heard = lambda seconds: (1, Hand().start(b"k" * 32, "0.0.0"))
    with pytest.raises(GuardError, match=r"this process 0\.0\.0"):
        results(crew, range(3))


def test_an_error_of_the_job_comes_back_as_itself_and_another_as_its_type_alone():
    def make():
        def job(task):
            raise ModelError("no such model") if task == "typed" else KeyError("what the user asked")

        return job

    done = dict(results(FakeCrew(), ["typed", "untyped"], make=make))
    assert type(done["typed"]) is ModelError
    assert str(done["untyped"]) == "a worker failed: KeyError"


def test_a_model_that_cannot_be_loaded_is_told_with_each_task():
    def make():
        raise ModelError("no such model")

    assert [type(error) for _, error in results(FakeCrew(), range(2), make=make)] == [ModelError] * 2


def test_a_job_is_made_once_in_a_worker_and_workers_stay_for_the_next():
    made = []

    def make(name):
        made.append(name)
        return lambda task: (name, task)

    crew = FakeCrew()
    with Workers(1, crew=lambda: crew) as workers:
        assert list(workers.each(partial(make, "one"), range(3))) == [(task, ("one", task)) for task in range(3)]
        assert list(workers.each(partial(make, "two"), range(2))) == [(task, ("two", task)) for task in range(2)]
    assert made == ["one", "two"]
    assert len(crew.hands) == 1
    assert crew.closed == 1


def test_what_is_under_way_when_the_caller_stops_is_dropped():
    crew = FakeCrew()
    with Workers(2, crew=lambda: crew) as workers:
        each = workers.each(double, range(9))
        next(each)
        each.close()
        assert crew.dismissed
        assert sorted(workers.each(double, range(3))) == [(0, 0), (1, 2), (2, 4)]


def test_nothing_is_started_for_nothing():
    def crew():
        raise AssertionError

    with Workers(2, crew=crew):
        pass
    assert results(FakeCrew(), []) == []


def test_a_worker_takes_over_the_key(monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, "before, and long enough")
    from importlib.metadata import version

    assert Hand().start("ein Schlüssel, lang genug".encode(), version("sg-guardrails")) is None
    assert process_key().id == Key("ein Schlüssel, lang genug".encode()).id


def test_a_random_key_survives_the_way_to_a_worker(monkeypatch):
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    random = process_key()
    monkeypatch.setenv(KEY_VARIABLE, os.fsdecode(random.secret))
    assert process_key() == random


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(GuardError, match=r"sg-guardrails\[ray\]"), Workers(2) as workers:
        list(workers.each(double, range(3)))
