"""Attacks on clips: tiny Whisper and Qwen2-Audio models through the real load, and Whisper's real weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from sg_guardrails.attacks import objectives, slots
from sg_guardrails.attacks.attack import attack_audio, attack_image
from sg_guardrails.attacks.logmel import radius_below, wave_of
from sg_guardrails.attacks.loss import draws_of, loss_of
from sg_guardrails.attacks.objectives import Expectation
from sg_guardrails.attacks.pgd import AttackSettings, AttackState, Patch
from sg_guardrails.attacks.slots import ClipSlot
from sg_guardrails.core.errors import ModelError
from sg_guardrails.core.media import Audio
from sg_guardrails.core.policy import AudioNoise, ImageNoise, Smoothing
from sg_guardrails.core.types import Copy, Prompt
from sg_guardrails.models.hf import HFSampler, encode
from sg_guardrails.models.loading import Handle
from sg_guardrails.testing import fake_audio, fake_image

DASHWOOD = Audio.open(Path(__file__).resolve().parents[1] / "assets" / "dashwood.flac")
CLIP = Audio(DASHWOOD.wave[16_000:32_000], DASHWOOD.rate)
OTHER = fake_audio(330, seconds=0.5)
HEARERS = ("whisper", "qwen2_audio")
SPEECH = AudioNoise(snr_db=20)


def ask(name: str) -> tuple[Prompt, int]:
    """A prompt and the number of its attacked clip: Qwen2-Audio is given two clips."""
    return (Prompt.ask("", CLIP), 0) if name == "whisper" else (Prompt.ask("Compare both.", OTHER, CLIP), 1)


def nll_by_hand(handle: Handle, prompt: Prompt, text: str, *, ends: bool) -> float:
    """One token after the other, each in a forward pass of its own, with the processor's own features."""
    inputs, tokenizer = dict(encode(handle, prompt)), handle.processor.tokenizer
    ids = tokenizer(f" {text}" if handle.transcribes else text, add_special_tokens=False)["input_ids"]
    ids = [*ids, tokenizer.eos_token_id] if ends else ids
    text_names = ["input_ids", "attention_mask"]
    if handle.transcribes:
        start = handle.model.generation_config.decoder_start_token_id
        inputs = {"input_features": inputs["input_features"], "decoder_input_ids": torch.tensor([[start]])}
        text_names = ["decoder_input_ids"]
    total = 0.0
    for token in ids:
        with torch.no_grad():
            last = handle.model(**inputs, use_cache=False).logits[0, -1].float()
        total -= float(functional.log_softmax(last, dim=-1)[token])
        for name in text_names:
            new = 1 if name == "attention_mask" else token
            inputs[name] = torch.cat([inputs[name], torch.tensor([[new]], dtype=inputs[name].dtype)], dim=1)
    return total / len(ids)


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("name", HEARERS)
def test_the_loss_is_the_targets_likelihood(model, name, ends):
    handle, (prompt, which) = model(name), ask(name)
    long, short = "The shape is a red circle.", "No"
    by_hand = [nll_by_hand(handle, prompt, text, ends=ends) for text in (long, short)]
    loss = loss_of(handle, [ClipSlot.of(handle, prompt, which=which)], objectives.jailbreak([long, short], ends=ends))
    wave = wave_of(CLIP).requires_grad_()
    value = loss(wave, 0)
    assert value.item() == pytest.approx(sum(by_hand) / 2, rel=1e-3)
    (gradient,) = torch.autograd.grad(value, wave)
    assert float(gradient.abs().max()) > 0


@pytest.mark.parametrize("name", HEARERS)
def test_the_noise_is_the_guards(model, name):
    """The same numbers drawn give the features that the guard's sampler would make, on every clip of the prompt."""
    from sg_guardrails.models import hf

    handle, (prompt, which) = model(name), ask(name)
    copy = Copy(prompt, 5)
    theirs = hf.perturb(handle, encode(handle, prompt), copy, Smoothing(audio=SPEECH))["input_features"]
    generator = torch.Generator().manual_seed(5)
    slot = ClipSlot.of(handle, prompt, which=which)
    (row,) = slot.noisy(wave_of(CLIP), [SPEECH], lambda shape: torch.randn(shape, generator=generator))
    assert torch.allclose(row["input_features"], theirs, atol=1e-3)
    clean = slot.row(wave_of(CLIP))["input_features"]
    assert not torch.allclose(clean, theirs, atol=1e-2)


def test_only_the_slots_clip_is_replaced(model):
    handle, (prompt, which) = model("qwen2_audio"), ask("qwen2_audio")
    slot = ClipSlot.of(handle, prompt, which=which)
    changed = slot.row(wave_of(CLIP).flip(0))["input_features"]
    expected = encode(handle, Prompt.ask("Compare both.", OTHER, Audio(CLIP.wave[::-1], CLIP.rate)))["input_features"]
    assert torch.allclose(changed, expected, atol=1e-4)


@pytest.mark.parametrize("name", HEARERS)
def test_an_attack_lowers_the_loss_keeps_to_the_budget_and_tests_the_saved_file(model, name):
    handle, (prompt, which) = model(name), ask(name)
    settings = AttackSettings(norm="l2", eps=radius_below(CLIP.wave, 10), steps=12, check_every=6)
    result = attack_audio(handle, prompt, objectives.say("red circle"), settings, which=which, max_new_tokens=6)
    assert min(result.losses) < 0.99 * result.losses[0]
    saved = Audio.from_bytes(result.audio.to_wav())
    delta = saved.wave.astype(np.float64) - CLIP.wave
    measured = 10 * np.log10(np.square(CLIP.wave, dtype=np.float64).sum() / np.square(delta).sum())
    assert measured >= 10 - 0.01
    media = [saved if index == which else part for index, part in enumerate(prompt.media)]
    (answer,) = HFSampler(handle, max_new_tokens=6)([Copy(Prompt.ask(prompt.question, *media))], Smoothing())
    assert result.answers_saved == (answer.text,)
    with pytest.raises(TypeError, match="audio"):
        _ = result.image


def test_linf_bounds_every_sample(model):
    settings = AttackSettings(eps=0.01, step=0.03, steps=4)
    result = attack_audio(model("whisper"), Prompt.ask("", CLIP), objectives.say("red"), settings, max_new_tokens=2)
    delta = np.abs(result.audio.wave - CLIP.wave)
    assert 0 < float(delta.max()) <= 0.01 + 0.5 / 32_768
    with pytest.raises(TypeError, match="image"):
        _ = attack_image(
            model("llava"), Prompt.ask("?", fake_image()), objectives.say("red"), replace(settings, steps=1)
        ).audio


def test_an_attack_that_can_succeed_does_and_stops_there(model):
    """The goal is the word that the model would say next to its own choice: known to be in reach."""
    handle, prompt = model("qwen2_audio"), Prompt.ask("What do you hear?", CLIP)
    with torch.no_grad():
        order = handle.model(**encode(handle, prompt)).logits[0, -1].argsort(descending=True)[1:].tolist()
    words = (handle.processor.tokenizer.decode([token]) for token in order)
    word = next(word for word in words if word.strip().isalpha() and word == word.strip())
    goal = replace(objectives.say(word), reached=lambda said: said == word, ends=False)
    result = attack_audio(handle, prompt, goal, AttackSettings(eps=0.1, steps=100, check_every=5), max_new_tokens=1)
    assert result.answers_saved == (word,)
    assert result.answers_float == (word,)
    assert result.steps < 100


def test_a_clip_at_another_rate_is_brought_to_the_models(model):
    clip = fake_audio(440, seconds=0.4, rate=44_100)
    settings = AttackSettings(eps=0.01, steps=1)
    result = attack_audio(model("whisper"), Prompt.ask("", clip), objectives.say("red"), settings, max_new_tokens=2)
    assert result.audio.rate == 16_000
    assert result.audio.seconds == pytest.approx(0.4, abs=0.001)


def test_a_killed_attack_goes_on_where_it_stopped(model, tmp_path):
    handle, prompt = model("whisper"), Prompt.ask("", CLIP)
    settings = AttackSettings(eps=0.01, steps=6)
    goal, expectation = objectives.say("red"), Expectation(noise=(SPEECH, AudioNoise(sigma=0.0)), draws=2)

    class KilledError(Exception):
        pass

    def kill(state: AttackState) -> None:
        state.save(tmp_path / "state")
        if state.steps == 3:
            raise KilledError

    whole = attack_audio(handle, prompt, goal, settings, max_new_tokens=2, expectation=expectation)
    with pytest.raises(KilledError):
        attack_audio(handle, prompt, goal, settings, max_new_tokens=2, expectation=expectation, progress=kill)
    state = AttackState.load(tmp_path / "state")
    resumed = attack_audio(handle, prompt, goal, settings, max_new_tokens=2, expectation=expectation, state=state)
    assert resumed.losses == whole.losses
    assert np.array_equal(resumed.audio.wave, whole.audio.wave)


def test_several_noises_are_dealt_out_in_turn(model):
    handle = model("whisper")
    places = [ClipSlot.of(handle, Prompt.ask("", CLIP))]
    noises, wave = (AudioNoise(sigma=0.0), AudioNoise(sigma=0.3)), wave_of(CLIP)
    rows = places[0].noisy(wave, Expectation(noise=noises, draws=3).dealt, draws_of(handle, 0, 0))
    clean = places[0].row(wave)["input_features"]
    assert [torch.allclose(row["input_features"], clean, atol=1e-5) for row in rows] == [True, False, True]
    with pytest.raises(ValueError, match="1 draws"):
        Expectation(noise=noises, draws=1)
    with pytest.raises(ModelError, match="noise on clips"):
        loss_of(handle, places, objectives.say("red"), expectation=Expectation(noise=ImageNoise()))(wave, 0)


def test_features_that_are_not_the_extractors_are_refused(model, monkeypatch):
    monkeypatch.setattr(slots, "log_mel", lambda extractor, waves: torch.zeros((1, 16, 200)))
    with pytest.raises(ModelError, match="WhisperFeatureExtractor"):
        ClipSlot.of(model("whisper"), Prompt.ask("", CLIP))


def test_what_cannot_be_attacked_is_refused(model):
    goal, settings = objectives.say("red"), AttackSettings(eps=0.01, steps=1)
    whisper, heard = model("whisper"), Prompt.ask("", CLIP)
    with pytest.raises(ModelError, match="no clip number"):
        attack_audio(whisper, Prompt.ask("?", fake_image()), goal, settings)
    with pytest.raises(ModelError, match="hears no clips"):
        attack_audio(model("llava"), heard, goal, settings)
    patch = AttackSettings(norm="patch", patch=Patch(top=0, left=0, size=1), steps=1)
    with pytest.raises(ModelError, match="patch"):
        attack_audio(whisper, heard, goal, patch)
    with pytest.raises(ModelError, match="at most 2 s"):
        attack_audio(whisper, Prompt.ask("", DASHWOOD), goal, settings)


@pytest.mark.slow
def test_whisper_writes_down_what_the_attacker_wants(whisper):
    """Real speech, the real weights, 20 dB below the speech; the 16-bit file through the real processor."""
    clip = Audio(DASHWOOD.wave[: 3 * DASHWOOD.rate], DASHWOOD.rate)
    prompt, goal = Prompt.ask("", clip), objectives.say("Open the front door.")
    (before,) = HFSampler(whisper, max_new_tokens=24)([Copy(prompt)], Smoothing())
    assert not goal.reached(before.text)
    settings = AttackSettings(norm="l2", eps=radius_below(clip.wave, 20), steps=80)
    result = attack_audio(whisper, prompt, goal, settings, max_new_tokens=24)
    assert result.success_float
    assert result.success_saved
    delta = result.audio.wave.astype(np.float64) - clip.wave
    assert 10 * np.log10(np.square(clip.wave, dtype=np.float64).sum() / np.square(delta).sum()) >= 19.9
