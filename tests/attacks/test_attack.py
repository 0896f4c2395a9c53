"""Objectives and whole attacks on tiny random-weight models of the real architectures."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_images
from torch.nn import functional

from sg_guardrails.attacks import objectives, slots
from sg_guardrails.attacks.attack import _better, attack_image, with_image
from sg_guardrails.attacks.loss import loss_of, target_tokens
from sg_guardrails.attacks.objectives import Expectation
from sg_guardrails.attacks.pgd import AttackSettings, AttackState, Patch
from sg_guardrails.attacks.pixels import tensor_of
from sg_guardrails.attacks.slots import PictureSlot
from sg_guardrails.core.errors import ModelError
from sg_guardrails.core.media import Audio, Image
from sg_guardrails.core.policy import ImageNoise, Smoothing
from sg_guardrails.core.types import Copy, Message, Prompt
from sg_guardrails.models import layouts
from sg_guardrails.models.hf import Handle, HFSampler, encode
from tests.models import tiny

CHINA, FLOWER = (Image(p[100:150, 200:270].astype(np.float32) / 255) for p in load_sample_images().images)
ASK = Prompt.ask("What colour is the shape?", FLOWER)
TWO = Prompt.ask("Describe both pictures.", CHINA, FLOWER)
QUICK = AttackSettings(norm="unconstrained", steps=12)


@pytest.fixture(scope="module", params=tiny.NAMES)
def handle(request, tmp_path_factory) -> Handle:
    return tiny.handle(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def llava(tmp_path_factory) -> Handle:
    return tiny.handle("llava", tmp_path_factory.mktemp("attacked"))


def nll_by_hand(handle: Handle, prompt: Prompt, text: str, *, ends: bool) -> float:
    """One token after the other, each in a forward pass of its own."""
    inputs = dict(encode(handle, prompt))
    ids = handle.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    ids = [*ids, handle.processor.tokenizer.eos_token_id] if ends else ids
    total = 0.0
    texts = [name for name, value in inputs.items() if value.shape == inputs["input_ids"].shape]
    for token in ids:
        with torch.no_grad():
            last = handle.model(**inputs, use_cache=False).logits[0, -1].float()
        total -= float(functional.log_softmax(last, dim=-1)[token])
        for name in texts:
            new = token if name == "input_ids" else int(name == "attention_mask")
            inputs[name] = torch.cat([inputs[name], torch.tensor([[new]], dtype=inputs[name].dtype)], dim=1)
    return total / len(ids)


@pytest.mark.parametrize(("prompt", "which"), [(ASK, 0), (TWO, 0), (TWO, 1)])
def test_the_loss_is_the_targets_likelihood(handle, prompt, which):
    long, short = "The shape is a red circle.", "No"
    by_hand = [nll_by_hand(handle, prompt, text, ends=False) for text in (long, short)]
    wanted = objectives.jailbreak([long, short])  # of unlike length, so that one row is padded
    loss = loss_of(handle, [PictureSlot.of(handle, prompt, which=which)], wanted)
    picture = tensor_of(prompt.media[which]).requires_grad_()
    value = loss(picture, 0)
    assert value.item() == pytest.approx(sum(by_hand) / 2, rel=1e-3)
    (gradient,) = torch.autograd.grad(value, picture)
    assert float(gradient.abs().max()) > 0
    away = loss_of(handle, [PictureSlot.of(handle, prompt, which=which)], replace(wanted, away=True))
    assert away(picture, 0).item() == pytest.approx(-value.item(), rel=1e-5)


def test_only_the_slots_picture_is_replaced(handle):
    clean = encode(handle, TWO)[layouts.PIXELS]
    for which in (0, 1):
        slot = PictureSlot.of(handle, TWO, which=which)
        assert torch.allclose(slot.row(tensor_of(TWO.media[which]))[layouts.PIXELS], clean, atol=1e-4)
        swapped = slot.row(1 - tensor_of(TWO.media[which]))[layouts.PIXELS]
        expected = encode(handle, with_image(TWO, Image(1 - TWO.media[which].pixels), which=which))[layouts.PIXELS]
        assert torch.allclose(swapped, expected, atol=1e-4)
        assert not torch.allclose(swapped, clean, atol=1e-2)


def test_an_attack_lowers_the_loss_and_tests_the_saved_file(handle):
    result = attack_image(handle, TWO, objectives.say("red circle"), QUICK, which=1, max_new_tokens=6)
    assert result.steps == 12
    assert min(result.losses) < 0.95 * result.losses[0]
    saved = Image.from_bytes(result.image.to_png())
    (answer,) = HFSampler(handle, max_new_tokens=6)([Copy(with_image(TWO, saved, which=1))], Smoothing())
    assert result.answers_saved == (answer.text,)
    assert not result.success_saved or "red circle" in answer.text


def runner_up(handle: Handle) -> str:
    """The first word that the model would say next to its own choice: a goal that is known to be in reach."""
    tokenizer = handle.processor.tokenizer
    with torch.no_grad():
        order = handle.model(**encode(handle, ASK)).logits[0, -1].argsort(descending=True)[1:].tolist()
    words = (tokenizer.decode([token]) for token in order)
    return next(word for word in words if word.strip().isalpha() and word == word.strip())


def test_an_attack_that_can_succeed_does_and_stops_there(llava):
    word = runner_up(llava)
    goal = replace(objectives.say(word), reached=lambda said: said == word, ends=False)
    result = attack_image(llava, ASK, goal, AttackSettings(eps=32 / 255, steps=200), max_new_tokens=1)
    assert result.success_float
    assert result.success_saved
    assert result.answers_saved == (word,)
    assert result.steps < 200


def test_one_picture_serves_many_prompts(llava):
    asked = [Prompt.ask(question, FLOWER) for question in ("What colour?", "Describe both pictures.", "Yes or no?")]
    # The third prompt brings another picture: it is asked about the shared one all the same.
    asked[2] = Prompt.ask("Yes or no?", CHINA)
    result = attack_image(
        llava, asked, objectives.jailbreak(["I am not sure", "yes"], batch=2), QUICK, max_new_tokens=4
    )
    assert len(result.answers_saved) == 3
    assert min(result.losses) < result.losses[0]
    answers = HFSampler(llava, max_new_tokens=4)([Copy(with_image(each, result.image)) for each in asked], Smoothing())
    assert [answer.text for answer in answers] == list(result.answers_saved)


def test_paired_targets_answer_their_own_prompts(llava):
    places = [PictureSlot.of(llava, Prompt.ask(question, FLOWER)) for question in ("What colour?", "Yes or no?")]
    picture = tensor_of(FLOWER)
    paired = loss_of(llava, places, objectives.jailbreak(["red", "yes"], paired=True))
    single = [
        loss_of(llava, [slot], objectives.jailbreak([text])) for slot, text in zip(places, ("red", "yes"), strict=True)
    ]
    assert paired(picture, 0).item() == pytest.approx(sum(loss(picture, 0).item() for loss in single) / 2, rel=1e-4)
    with pytest.raises(ModelError, match="paired"):
        loss_of(llava, places, objectives.jailbreak(["red"], paired=True))


def test_a_large_corpus_is_drawn_from_anew_in_every_step_and_replayed(llava):
    corpus = objectives.jailbreak(
        [f"{word} {other}" for word in ("red", "blue") for other in ("star", "no", "yes")], batch=2
    )
    loss = loss_of(llava, [PictureSlot.of(llava, ASK)], corpus, seed=3)
    picture = tensor_of(FLOWER)
    values = [loss(picture, step).item() for step in range(6)]
    assert len(set(values)) > 2
    assert [loss(picture, step).item() for step in range(6)] == values


def test_expectation_draws_fresh_noise_each_step_and_pushes_a_share(llava):
    places, goal, picture = [PictureSlot.of(llava, ASK)], objectives.say("red circle"), tensor_of(FLOWER)
    plain = loss_of(llava, places, goal)
    still = loss_of(llava, places, goal, expectation=Expectation(noise=ImageNoise(sigma=0), draws=3))
    assert still(picture, 0).item() == pytest.approx(plain(picture, 0).item(), rel=1e-4)

    def at(share: float, draws: int = 5):
        noise = ImageNoise(sigma=0.2, space="pixel")
        return loss_of(llava, places, goal, expectation=Expectation(noise=noise, draws=draws, share=share), seed=4)

    everything = at(1.0)
    assert everything(picture, 0).item() == everything(picture, 0).item()
    assert everything(picture, 0).item() != everything(picture, 1).item()
    assert at(0.2)(picture, 0).item() < at(0.6)(picture, 0).item() < everything(picture, 0).item()


def test_an_adaptive_attack_takes_all_its_steps(llava):
    settings = AttackSettings(eps=0.2, steps=4, check_every=1)
    always = replace(objectives.say("red"), reached=lambda said: True)
    expectation = Expectation(noise=ImageNoise(sigma=0.1), draws=2)
    assert attack_image(llava, ASK, always, settings, max_new_tokens=2).steps == 1
    assert attack_image(llava, ASK, always, settings, max_new_tokens=2, expectation=expectation).steps == 4


def test_a_killed_attack_goes_on_where_it_stopped(llava, tmp_path):
    settings = AttackSettings(eps=0.1, steps=8)
    goal, expectation = objectives.say("red"), Expectation(noise=ImageNoise(sigma=0.1), draws=2)

    class KilledError(Exception):
        pass

    def kill(state: AttackState) -> None:
        state.save(tmp_path / "state")
        if state.steps == 5:
            raise KilledError

    whole = attack_image(llava, ASK, goal, settings, max_new_tokens=2, expectation=expectation)
    with pytest.raises(KilledError):
        attack_image(llava, ASK, goal, settings, max_new_tokens=2, expectation=expectation, progress=kill)
    state = AttackState.load(tmp_path / "state")
    resumed = attack_image(llava, ASK, goal, settings, max_new_tokens=2, expectation=expectation, state=state)
    assert resumed.losses == whole.losses
    assert np.array_equal(resumed.image.pixels, whole.image.pixels)


@pytest.mark.parametrize("eps", [4 / 255, 16 / 255])
def test_the_saved_picture_keeps_to_the_budget(llava, eps):
    result = attack_image(llava, ASK, objectives.say("red"), AttackSettings(eps=eps, steps=6), max_new_tokens=2)
    assert 0 < float(np.abs(result.image.pixels - FLOWER.pixels).max()) <= eps + 1e-6


def test_a_patch_attack_changes_its_square_alone(llava):
    settings = AttackSettings(norm="patch", patch=Patch(top=4, left=30, size=10), steps=4)
    result = attack_image(llava, ASK, objectives.say("red"), settings, max_new_tokens=2)
    changed = np.argwhere((result.image.pixels != FLOWER.pixels).any(axis=2))
    assert changed.min(axis=0).tolist() == [4, 30]
    assert changed.max(axis=0).tolist() == [13, 39]


def test_preprocessing_that_is_not_the_processors_is_refused(llava, monkeypatch):
    monkeypatch.setattr(slots, "pixel_values", lambda processor, picture, rounding=True: torch.zeros((1, 3, 32, 32)))
    with pytest.raises(ModelError, match="CLIPImageProcessor"):
        PictureSlot.of(llava, ASK)


def test_prompts_without_the_picture_are_refused(llava):
    clip = Audio(np.zeros(1600, np.float32))
    with pytest.raises(ModelError, match="at least one prompt"):
        attack_image(llava, [], objectives.say("red"), QUICK)
    for prompt, which in ((Prompt.ask("Hi"), 0), (ASK, 1), (Prompt.ask("Hi", clip), 0)):
        with pytest.raises(ModelError, match="no picture number"):
            attack_image(llava, prompt, objectives.say("red"), QUICK, which=which)


def test_with_image_replaces_the_named_medium_alone():
    talk = Prompt((Message("user", (CHINA, "one", FLOWER)), Message("assistant", ("ok",)), Message("user", (CHINA,))))
    changed = with_image(talk, FLOWER, which=2)
    assert [part.digest for part in changed.media] == [CHINA.digest, FLOWER.digest, FLOWER.digest]
    assert [turn.role for turn in changed.messages] == ["user", "assistant", "user"]
    assert changed.messages[0].parts[1] == "one"


def test_what_counts_as_reached():
    assert objectives.say("Red  circle.").reached("well: RED circle. Yes")
    assert not objectives.say("red circle").reached("circle red")
    assert objectives.hijack("Visit evil.example now").reached("Visit evil.example now!")
    broken = objectives.jailbreak(["Sure, here is how to steal a bike: run."])
    assert broken.reached("Sure, here is another way.")
    assert not broken.reached("I cannot say: Sure, here is")
    wrong = objectives.wrong_answer("The circle is red.", is_right=lambda said: "red" in said)
    assert wrong.away
    assert wrong.reached("The circle is blue.")
    assert not wrong.reached("A red one.")
    assert not wrong.reached("  ")  # silence is no wrong answer
    steered = objectives.wrong_answer("It is red.", is_right=lambda said: "red" in said, wrong="It is blue.")
    assert not steered.away
    assert steered.targets == ("It is blue.",)
    call = objectives.tool_call("paint_wall", {"color": "red"})
    assert json.loads(call.targets[0]) == {"name": "paint_wall", "arguments": {"color": "red"}}
    assert call.reached(call.targets[0])
    assert not call.reached(call.targets[0].replace("red", "blue"))
    assert not call.reached("paint_wall")


@pytest.mark.parametrize("blank", ["", " \n", "?!", "."])
def test_texts_that_every_answer_would_hold_are_refused(blank):
    for aim in (objectives.say, objectives.hijack, lambda text: objectives.jailbreak(["Sure, here", text])):
        with pytest.raises(ValueError, match="holds no word"):
            aim(blank)
    with pytest.raises(ValueError, match="holds no word"):
        objectives.wrong_answer("It is red.", is_right=lambda said: "red" in said, wrong=blank)


@pytest.mark.parametrize("wrong", [{"draws": 0}, {"share": 0.0}, {"share": 1.1}])
def test_expectations_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match="share"):
        Expectation(noise=ImageNoise(), **wrong)


@pytest.mark.parametrize(
    ("behind", "ends", "end"),
    [
        ("<|tool|>\n", [2, 7], "<|tool|>"),  # as Gemma 3: <eos> is the tokenizer's, a turn ends otherwise
        ("</s>", [7, 2], "</s>"),
        ("<|system|>", [7, 2], "<|tool|>"),  # what the template writes ends no answer: the first that does
        ("\n", 7, "<|tool|>"),
        ("\n", None, "</s>"),
    ],
)
def test_an_answer_ends_with_the_token_that_ends_the_models_turn(tmp_path, behind, ends, end):
    handle = tiny.handle("llava", tmp_path)
    words = handle.processor.tokenizer
    assert words.convert_ids_to_tokens([2, 7]) == ["</s>", "<|tool|>"]
    handle.processor.chat_template = tiny.template().replace("</s>", behind)
    handle.model.generation_config.eos_token_id = ends
    ids = target_tokens(handle, "red", ends=True).tolist()
    assert words.convert_ids_to_tokens(ids)[-1] == end
    assert ids[:-1] == target_tokens(handle, "red", ends=False).tolist()


def test_an_answer_of_llava_or_of_a_model_without_a_template_ends_as_before(llava, monkeypatch):
    roles = "{% for m in messages %}{{ m['role'].upper() + ': ' }}{% for c in m['content'] %}{{ c['text'] }} "
    for template in (roles + "{% endfor %}{% endfor %}", None):
        monkeypatch.setattr(llava.processor, "chat_template", template)
        assert target_tokens(llava, "red", ends=True)[-1] == llava.processor.tokenizer.eos_token_id == 2


def test_a_lucky_draw_of_pairs_does_not_choose_the_picture_for_many_questions(llava, monkeypatch):
    """Of more pairs than a step takes each step draws its own: the lowest loss is then no reason to take a picture."""
    ends: list[AttackState] = []

    def last(loss: object, end: AttackState, settings: AttackSettings) -> torch.Tensor:
        ends.append(end)
        return end.picture

    monkeypatch.setattr("sg_guardrails.attacks.attack._better", last)
    prompts = [Prompt.ask(f"What is it, {number}?", FLOWER) for number in range(3)]
    settings = AttackSettings(eps=8 / 255, steps=2, check_every=3)
    few = objectives.jailbreak(["red"], batch=3)
    assert attack_image(llava, prompts, few, settings, max_new_tokens=1).steps == 2
    assert not ends
    many = objectives.jailbreak(["red"], batch=2)
    result = attack_image(llava, prompts, many, settings, max_new_tokens=1)
    assert np.allclose(result.image.pixels, ends[0].picture.permute(1, 2, 0), atol=0.5 / 255 + 1e-6)
    assert not torch.equal(ends[0].picture, ends[0].best)
    won = objectives.jailbreak(["red"], reached=lambda _: True, batch=2)  # what has succeeded is kept
    result = attack_image(llava, prompts, won, settings, max_new_tokens=1)
    assert result.state.success
    assert len(ends) == 1


def test_a_lucky_draw_does_not_choose_an_adaptive_attacks_picture():
    """On fresh draws the last picture beats the one whose draw was lucky; where it does not, it is not taken."""
    lucky, last = torch.zeros((3, 2, 2)), torch.ones((3, 2, 2))
    state = AttackState(last, torch.zeros_like(last), lucky, best_loss=-1.0, losses=(3.0, -1.0))
    settings = AttackSettings(steps=2)
    assert _better(lambda x, step: 1 - x.mean() + 0.1 * (step % 2), state, settings) is last
    assert _better(lambda x, step: x.mean(), state, settings) is lucky
