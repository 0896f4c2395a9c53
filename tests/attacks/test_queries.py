"""The black-box attack: on answerers whose weakness is known, on the built-in model, and on a guard."""

from __future__ import annotations

import numpy as np
import pytest

from sg_guardrails.attacks import objectives
from sg_guardrails.attacks.queries import QuerySettings, QueryState, attack_by_queries
from sg_guardrails.core.errors import GuardError, ModelError
from sg_guardrails.core.media import Image
from sg_guardrails.core.types import Prompt
from sg_guardrails.testing import fake_audio

CLEAN = np.random.default_rng(3).integers(0, 256, (12, 12, 3)).astype(np.float32) / np.float32(255)
PROMPT = Prompt.ask("What is it?", Image(CLEAN))
GOAL = objectives.say("open the front door")


class Weak:
    """Says more of the target the more of its red values have moved the way it is weak to."""

    def __init__(self, *, letters: int = 19, needed: float = 0.85) -> None:
        self.pictures: list[np.ndarray] = []
        self._secret = np.kron([[1, -1, 1], [-1, -1, 1], [1, 1, -1]], np.ones((4, 4)))  # blocks of one sign
        self._letters, self._needed = letters, needed

    def __call__(self, prompt: Prompt) -> str:
        (image,) = prompt.media
        assert isinstance(image, Image)
        self.pictures.append(image.pixels)
        moved = np.sign(np.rint((image.pixels - CLEAN)[..., 0] * 255)) * self._secret
        share = float((moved > 0).mean())
        return GOAL.targets[0][: int(self._letters * min(1.0, share / self._needed))] or "it is a picture"


def test_it_finds_a_weakness_by_words_alone():
    weak = Weak()
    end = attack_by_queries(PROMPT, weak, GOAL, QuerySettings(eps=16 / 255, queries=4_000))
    assert end.success
    assert end.queries == len(weak.pictures) < 4_000  # it stops where it succeeds
    assert np.array_equal(end.image.pixels, weak.pictures[-1])
    assert GOAL.reached(end.answer)


@pytest.mark.parametrize("eps", [1 / 255, 8 / 255, 0.05])
def test_no_picture_leaves_the_ball_and_no_question_exceeds_the_budget(eps):
    weak = Weak(needed=9)
    end = attack_by_queries(PROMPT, weak, GOAL, QuerySettings(eps=eps, queries=60))
    assert end.queries == len(weak.pictures) == 60
    assert not end.success
    for seen in weak.pictures:
        assert float(np.abs(seen - CLEAN).max()) <= eps + 1e-6
    assert np.array_equal(weak.pictures[0], CLEAN)
    saved = Image.from_bytes(end.image.to_png())
    assert any(np.array_equal(saved.pixels, seen) for seen in weak.pictures)  # what is handed back was asked about


def test_a_success_on_the_clean_picture_costs_one_question():
    end = attack_by_queries(PROMPT, lambda prompt: "Open the front door!", GOAL, QuerySettings())
    assert (end.success, end.queries) == (True, 1)


def test_a_first_question_that_is_asked_already_is_not_asked_again():
    whole, parted, settings = Weak(needed=9), Weak(needed=9), QuerySettings(eps=16 / 255, queries=40)
    expected = attack_by_queries(PROMPT, whole, GOAL, settings)
    first = QueryState.first(PROMPT, parted)
    assert (first.queries, len(parted.pictures), first.clean) == (1, 1, "it is a picture")
    end = attack_by_queries(PROMPT, parted, GOAL, settings, state=first.scored(GOAL))
    assert np.array_equal(parted.pictures, whole.pictures)
    assert end.queries == len(parted.pictures) == 40
    assert end.clean == expected.clean == "it is a picture"
    at_once = QueryState.first(PROMPT, lambda _: "Open the front door!").scored(GOAL)
    assert attack_by_queries(PROMPT, Weak(), GOAL, settings, state=at_once) is at_once
    with pytest.raises(ModelError, match="no picture"):
        QueryState.first(Prompt.ask("?"), whole)


def test_an_untargeted_attack_moves_away_from_the_right_answer():
    right = objectives.wrong_answer("The triangle is red.", is_right=lambda said: "red" in said)
    assert right.distance("The triangle is blue.") == 0
    assert right.distance("The triangle is red.") > right.distance("I see something red") > 0
    assert right.distance(" ") > 0  # silence is no wrong answer

    def flips(prompt: Prompt) -> str:
        (image,) = prompt.media
        return "The triangle is blue." if image.pixels.mean() < CLEAN.mean() - 0.004 else "The triangle is red."

    assert attack_by_queries(PROMPT, flips, right, QuerySettings(eps=16 / 255, queries=500)).success


def test_the_distance_is_zero_only_where_the_objective_is_reached():
    assert GOAL.distance("well: OPEN the front door.") == 0
    assert 0 < GOAL.distance("open the front") < GOAL.distance("close it") <= 1
    never = objectives.jailbreak(["sure, here it is"], reached=lambda answer: False)
    assert never.distance("sure, here it is") > 0
    # An answer may be longer than its target: what follows does not count against it.
    assert GOAL.distance("open the front dor, and then leave the house by night") < 0.1


def test_a_killed_attack_goes_on_where_it_stopped(tmp_path):
    settings, path = QuerySettings(eps=16 / 255, queries=80, seed=5), tmp_path / "state"

    class KilledError(Exception):
        pass

    def kill(state: QueryState) -> None:
        state.save(path, run="this one")
        if state.queries == 31:
            raise KilledError

    whole, first, second = Weak(needed=9), Weak(needed=9), Weak(needed=9)
    expected = attack_by_queries(PROMPT, whole, GOAL, settings)
    with pytest.raises(KilledError):
        attack_by_queries(PROMPT, first, GOAL, settings, progress=kill)
    state = QueryState.load(path, run="this one")
    assert (state.queries, state.clean) == (31, "it is a picture")
    end = attack_by_queries(PROMPT, second, GOAL, settings, state=state)
    assert len(first.pictures) + len(second.pictures) == 80
    assert np.array_equal([*first.pictures, *second.pictures], whole.pictures)
    assert np.array_equal(end.picture, expected.picture)
    with pytest.raises(GuardError, match="another attack"):
        QueryState.load(path, run="that one")


def test_a_broken_state_is_named(tmp_path):
    for content in (b"", b"PK\x03\x04 torn", b"{}"):
        (tmp_path / "state").write_bytes(content)
        with pytest.raises(GuardError, match="no state"):
            QueryState.load(tmp_path / "state")


def test_what_cannot_be_attacked_is_refused():
    for prompt in (Prompt.ask("?"), Prompt.ask("?", fake_audio())):
        with pytest.raises(ModelError, match="no picture"):
            attack_by_queries(prompt, lambda _: "", GOAL, QuerySettings())
    with pytest.raises(ModelError, match="another size"):
        attack_by_queries(PROMPT, lambda _: "", GOAL, QuerySettings(), state=QueryState(np.zeros((5, 5, 3), np.uint8)))
    for wrong in ({"eps": 0.5 / 255}, {"eps": np.inf}, {"eps": np.nan}, {"eps": 2}, {"queries": 0}, {"area": 0}):
        with pytest.raises(ValueError, match="eps"):
            QuerySettings(**wrong)
    with pytest.raises(ValueError, match="seed"):
        QuerySettings(seed=-1)


@pytest.mark.slow
def test_it_turns_the_built_in_models_answer_and_asks_a_guard_as_well():
    """Words alone, 32/255, on real pictures; behind a guard the same attacker sees only what the guard hands on."""
    pytest.importorskip("easy_vqa", reason="the pictures come from easy-vqa's test split")
    from sg_guardrails.core.policy import Smoothing
    from sg_guardrails.core.types import Copy
    from sg_guardrails.local import local_guard
    from sg_guardrails.models.hf import HFSampler, load
    from training import demo_pictures

    handle = load("builtin:shapes", device="cpu")
    sampler = HFSampler(handle, max_new_tokens=48)
    settings, found = QuerySettings(eps=32 / 255, queries=300), []
    for _, case in zip(range(5), demo_pictures.wrong_cases(handle), strict=False):
        goal = objectives.wrong_answer(case.answer, is_right=case.sound)
        found.append(attack_by_queries(case.prompt, lambda p: sampler([Copy(p)], Smoothing())[0].text, goal, settings))
        if found[-1].success:
            break
    assert any(end.success for end in found)
    guard = local_guard("builtin")
    end = attack_by_queries(case.prompt, lambda p: guard.check(p).text, goal, QuerySettings(eps=32 / 255, queries=3))
    assert 1 <= end.queries <= 3
    assert end.answer
