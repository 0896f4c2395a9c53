"""The loop's maths, on losses whose minimum is known."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sg_guardrails.attacks.pgd import SAMPLE_BOUNDS, AttackSettings, AttackState, Patch, pgd
from sg_guardrails.core.errors import GuardError

ATOL = 1e-6


def picture(seed: int, height: int = 6, width: int = 7) -> Tensor:
    return torch.rand((3, height, width), generator=torch.Generator().manual_seed(seed))


def towards(goal: Tensor):
    return lambda x, step: ((x - goal) ** 2).sum()


def visited(x: Tensor, loss, options: AttackSettings) -> list[Tensor]:
    seen: list[Tensor] = []
    end = pgd(x, loss, options, progress=lambda state: seen.append(state.picture))
    return [*seen, end.best]


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    eps=st.floats(0, 0.7),
    step=st.floats(0.001, 2),
    momentum=st.floats(0, 0.99),
    schedule=st.sampled_from(["cosine", "fixed"]),
    restarts=st.integers(1, 3),
)
def test_linf_iterates_stay_in_the_ball_and_in_range(seed, eps, step, momentum, schedule, restarts):
    x, goal = picture(seed), 3 * picture(seed + 1) - 1  # the goal lies outside [0, 1], so that the cut is met
    options = AttackSettings(
        eps=eps, step=step, steps=6, momentum=momentum, schedule=schedule, restarts=restarts, seed=seed
    )
    for at in visited(x, towards(goal), options):
        assert float((at - x).abs().max()) <= eps + ATOL
        assert float(at.min()) >= 0
        assert float(at.max()) <= 1


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), eps=st.floats(0, 6), step=st.floats(0.01, 4), restarts=st.integers(1, 3))
def test_l2_iterates_stay_in_the_ball_and_in_range(seed, eps, step, restarts):
    x, goal = picture(seed), 3 * picture(seed + 1) - 1
    options = AttackSettings(eps=eps, norm="l2", step=step, steps=6, restarts=restarts, seed=seed)
    for at in visited(x, towards(goal), options):
        assert float((at - x).norm()) <= eps + 1e-5
        assert float(at.min()) >= 0
        assert float(at.max()) <= 1


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), top=st.integers(0, 3), left=st.integers(0, 4), size=st.integers(1, 3))
def test_a_patch_leaves_the_rest_untouched(seed, top, left, size):
    x = picture(seed)
    options = AttackSettings(norm="patch", patch=Patch(top=top, left=left, size=size), steps=5, restarts=2)
    outside = torch.ones((6, 7), dtype=torch.bool)
    outside[top : top + size, left : left + size] = False
    for at in visited(x, towards(1 - x.round()), options):
        assert torch.equal(at[:, outside], x[:, outside])
    assert not torch.equal(at, x)


def test_linf_finds_the_corner_nearest_to_the_goal():
    x = torch.full((3, 4, 4), 0.5)
    goal = torch.where(picture(3, 4, 4) > 0.5, 1.0, 0.0)
    end = pgd(x, towards(goal), AttackSettings(eps=0.1, steps=60))
    assert torch.allclose(end.picture, x + 0.1 * (2 * goal - 1), atol=1e-3)


def test_l2_finds_the_point_of_the_sphere_towards_the_goal():
    x, goal = torch.full((3, 4, 4), 0.5), picture(4, 4, 4)
    end = pgd(x, towards(goal), AttackSettings(eps=0.3, norm="l2", steps=200, momentum=0.5))
    assert torch.allclose(end.picture, x + 0.3 * (goal - x) / (goal - x).norm(), atol=5e-3)


def test_unconstrained_reaches_the_goal_however_far():
    x, goal = torch.zeros((3, 4, 4)), torch.ones((3, 4, 4))
    end = pgd(x, towards(goal), AttackSettings(norm="unconstrained", steps=150))
    assert torch.allclose(end.picture, goal, atol=1e-2)


def test_the_best_is_the_iterate_of_the_lowest_loss():
    x, goal = torch.full((3, 4, 4), 0.5), torch.full((3, 4, 4), 0.52)
    loss = towards(goal)
    end = pgd(x, loss, AttackSettings(eps=0.3, step=0.2, schedule="fixed", steps=9))  # oversteps, back and forth
    assert end.best_loss == min(end.losses)
    assert float(loss(end.best, 0)) == pytest.approx(end.best_loss)
    assert end.best_loss < float(loss(end.picture, 0))


def test_cosine_steps_shrink_and_fixed_ones_do_not():
    cosine = AttackSettings(steps=10, step=0.1)
    fixed = AttackSettings(steps=10, step=0.1, schedule="fixed")
    lengths = [cosine.length(step) for step in range(10)]
    assert lengths[0] == 0.1
    assert all(later < earlier for earlier, later in pairwise(lengths))
    assert {fixed.length(step) for step in range(10)} == {0.1}


def test_momentum_carries_over_a_reversed_gradient():
    def turning(x: Tensor, step: int) -> Tensor:
        return x.sum() if step == 0 else -0.5 * x.sum()

    x = torch.full((3, 2, 2), 0.5)
    with_it = pgd(x, turning, AttackSettings(eps=0.4, step=0.1, steps=2, schedule="fixed", momentum=0.99))
    # velocities after normalising: 1, then 0.99 - 1 < 0: the second step turns back, though by a hair
    assert torch.allclose(with_it.picture, x)
    assert torch.allclose(with_it.velocity, torch.full_like(x, -0.01), atol=1e-6)
    without = pgd(x, turning, AttackSettings(eps=0.4, step=0.1, steps=2, schedule="fixed", momentum=0))
    assert torch.allclose(without.velocity, torch.full_like(x, -1.0))


def test_success_stops_early_and_its_picture_is_handed_back():
    x, goal = torch.full((3, 4, 4), 0.5), torch.ones((3, 4, 4))
    asked: list[Tensor] = []

    def success(at: Tensor) -> bool:
        asked.append(at)
        return float(at.mean()) > 0.55

    end = pgd(x, towards(goal), AttackSettings(eps=0.4, steps=100, check_every=5), success=success)
    assert end.success
    assert float(end.best.mean()) > 0.55
    assert end.steps < 100
    assert end.steps % 5 == 0


def test_restarts_take_all_steps_and_leave_a_local_minimum():
    def two_wells(x: Tensor, step: int) -> Tensor:
        m = x.mean()  # a shallow well at 0.5, where the picture begins, and deeper ones at both ends
        return 10 * (m - 0.5).abs().clamp_max(0.02) - 20 * ((m - 0.5).abs() - 0.02).clamp_min(0)

    x = torch.full((1, 1, 1), 0.5).expand(3, 1, 1).clone()
    one = pgd(x, two_wells, AttackSettings(eps=0.4, steps=20))
    many = pgd(x, two_wells, AttackSettings(eps=0.4, steps=20, restarts=4, seed=1))
    assert one.steps == 20
    assert many.steps == 80
    assert many.best_loss < one.best_loss


@pytest.mark.parametrize("stop", [1, 7, 12, 19, 20, 23, 39])
@pytest.mark.parametrize("norm", ["linf", "l2", "unconstrained"])
def test_a_stopped_attack_goes_on_to_the_same_result(tmp_path, stop, norm):
    x, goal = picture(5), picture(6)

    def noisy(at: Tensor, step: int) -> Tensor:
        noise = torch.randn(at.shape, generator=torch.Generator().manual_seed(step))
        return ((at - goal + 0.1 * noise) ** 2).sum()

    options = AttackSettings(eps=0.2, norm=norm, steps=20, restarts=2, seed=9)
    whole = pgd(x, noisy, options)

    class KilledError(Exception):
        pass

    def kill(state: AttackState) -> None:
        state.save(tmp_path / "state.pt")
        if state.steps == stop:
            raise KilledError

    with pytest.raises(KilledError):
        pgd(x, noisy, options, progress=kill)
    resumed = pgd(x, noisy, options, state=AttackState.load(tmp_path / "state.pt"))
    assert resumed.losses == whole.losses
    assert torch.equal(resumed.picture, whole.picture)
    assert torch.equal(resumed.best, whole.best)


def test_an_attack_that_is_done_takes_no_further_step():
    x = picture(1)
    options = AttackSettings(steps=4)
    end = pgd(x, towards(1 - x), options)
    again = pgd(x, towards(1 - x), options, state=end)
    assert again.steps == 4
    assert torch.equal(again.picture, end.picture)


def test_the_clean_picture_is_not_changed_in_place():
    x = picture(2)
    kept = x.clone()
    pgd(x, towards(1 - x), AttackSettings(steps=5, restarts=2))
    assert torch.equal(x, kept)


@pytest.mark.parametrize(
    "wrong",
    [
        {"eps": -0.1},
        {"eps": math.nan},
        {"steps": 0},
        {"restarts": 0},
        {"momentum": 1.0},
        {"norm": "patch"},
        {"patch": Patch(top=0, left=0, size=1)},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=r"eps|steps|momentum|patch"):
        AttackSettings(**wrong)


def test_a_patch_outside_a_picture_out_of_range_and_a_broken_loss_are_refused():
    x = picture(0)
    outside = AttackSettings(norm="patch", patch=Patch(top=5, left=0, size=3))
    with pytest.raises(ValueError, match="inside"):
        pgd(x, towards(x), outside)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        pgd(x * 255, towards(x), AttackSettings())
    with pytest.raises(ValueError, match="finite"):
        pgd(x, lambda at, step: at.sum() * math.nan, AttackSettings())
    with pytest.raises(ValueError, match="state"):
        pgd(x, towards(x), AttackSettings(), state=pgd(picture(0, 3, 3), lambda at, step: at.sum(), AttackSettings()))


@pytest.mark.parametrize("norm", ["linf", "l2", "unconstrained"])
def test_a_waveform_keeps_to_its_own_bounds(norm):
    wave = 2 * torch.rand(50, generator=torch.Generator().manual_seed(2)) - 1
    options = AttackSettings(norm=norm, eps=0.5, step=0.3, steps=6, restarts=2)
    end = pgd(wave, towards(torch.full((50,), -3.0)), options, bounds=SAMPLE_BOUNDS)
    assert float(end.picture.min()) == -1  # below 0, and no farther than a sample goes
    assert float(end.picture.max()) <= 1
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        pgd(wave, towards(wave), options)


def test_a_state_names_its_attack_and_a_broken_one_is_told(tmp_path):
    path, x = tmp_path / "state", picture(0)
    pgd(x, towards(x), AttackSettings(steps=1)).save(path, run="this")
    assert AttackState.load(path, run="this").steps == 1
    with pytest.raises(GuardError, match="another attack"):
        AttackState.load(path, run="that")
    for content in (b"", b"torn", path.read_bytes()[:100]):
        (tmp_path / "broken").write_bytes(content)
        with pytest.raises(GuardError, match="no state"):
            AttackState.load(tmp_path / "broken")
