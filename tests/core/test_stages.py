"""Stages: each moment counted once, whatever is within what."""

from __future__ import annotations

import pytest

from sg_guardrails.core.stages import Stages


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_stage_within_another_interrupts_it(clock):
    stages = Stages(clock)
    clock.now = 1.0
    with stages.of("plan"):
        clock.now += 1
        with stages.of("vote"):
            clock.now += 2
            with stages.of("embed"):
                clock.now += 4
            clock.now += 8
        with stages.of("embed"):
            clock.now += 16
    clock.now += 99
    assert stages.timings == {"plan": 1000, "vote": 10_000, "embed": 20_000, "total": 31_000}


def test_what_fails_is_counted_too(clock):
    stages = Stages(clock)

    def fail() -> None:
        with stages.of("judge"), stages.of("embed"):
            clock.now += 1
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()
    with stages.of("judge"):
        clock.now += 2
    assert stages.timings == {"judge": 2000, "embed": 1000, "total": 3000}


def test_each_of_several_goes_on_from_what_all_have_shared(clock):
    stages, told = Stages(clock), []
    with stages.of("sample"):
        clock.now += 5
    for seconds in (1, 2):
        with stages.apart():
            with stages.of("judge"):
                clock.now += seconds
            told.append(stages.timings)
    assert told == [{"sample": 5000, "judge": took, "total": 5000 + took} for took in (1000, 2000)]
    assert stages.timings == {"sample": 5000, "total": 5000}
