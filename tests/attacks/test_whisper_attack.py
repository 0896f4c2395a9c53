"""The benchmark on Whisper: a folder of work serves one way of attacking, and the budget is of the samples searched."""

from __future__ import annotations

import importlib
import json
from argparse import Namespace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from sg_guardrails.core.media import Audio
from sg_guardrails.core.noise import KEY_VARIABLE
from sg_guardrails.models import speech
from tests.models import tiny


@pytest.fixture
def bench(monkeypatch) -> ModuleType:
    monkeypatch.setenv(KEY_VARIABLE, "a key that goes when the test does: importing the benchmark sets one")
    return importlib.import_module("benchmarks.whisper_attack")


def asked(folder: Path, **changed: object) -> Namespace:
    settings = {"steps": 100, "adaptive_steps": 60, "draws": 2, "share": 1.0}
    return Namespace(**{"work": folder, "model": Path("model"), "clips": folder.parent, **settings, **changed})


def test_a_folder_of_work_goes_on_with_its_own_settings_alone(bench, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    bench.one_way(asked(work)).add("done", 1)
    assert bench.one_way(asked(work))["done"] == 1
    others = {"steps": 99, "adaptive_steps": 59, "draws": 3, "share": 0.5, "model": Path("other"), "clips": work}
    for name, value in others.items():
        with pytest.raises(SystemExit, match=f"was made with .*{name}"):
            bench.one_way(asked(work, **{name: value}))
    (work / "settings.json").write_text("{", encoding="utf-8")
    with pytest.raises(SystemExit, match="cannot be read"):
        bench.one_way(asked(work))


@pytest.mark.parametrize("left", ["journal.jsonl", "hello_world-20dB-static.state"])
def test_work_of_settings_that_nobody_knows_is_refused(bench, tmp_path, left):
    (tmp_path / left).write_text(json.dumps({"done": 1}), encoding="utf-8")
    with pytest.raises(SystemExit, match="does not tell"):
        bench.one_way(asked(tmp_path))
    assert not (tmp_path / "settings.json").exists()


def test_the_budget_is_that_of_the_clip_at_the_models_rate(bench, tmp_path, monkeypatch):
    """At twice the model's rate a clip has twice the samples, and so the square root of 2 times the length."""

    class SeenError(Exception):
        pass

    def seen(handle: object, prompt: object, goal: object, settings: object, **_: object) -> None:
        raise SeenError(prompt, settings)

    handle = tiny.handle("whisper", tmp_path / "model")
    clip = Audio(0.1 * np.random.default_rng(0).standard_normal(16_000).cumsum().clip(-9, 9) / 9, 32_000)
    (tmp_path / "clip.wav").write_bytes(clip.to_wav())
    clip = Audio.open(tmp_path / "clip.wav")
    heard = speech.resample(clip, 16_000)
    monkeypatch.setattr(bench, "attack_audio", seen)
    one = bench.Attacked("clip.wav", 20, None, "red circle")
    with pytest.raises(SeenError) as told:
        bench.craft(handle, one, asked(tmp_path, clips=tmp_path), bench.Journal(tmp_path / "journal.jsonl"))
    prompt, settings = told.value.args
    assert prompt.media[0].rate == 16_000
    assert settings.eps == pytest.approx(0.1 * float(np.linalg.norm(heard)), rel=1e-6)
    assert settings.eps < 0.8 * 0.1 * float(np.linalg.norm(clip.wave))
