"""``sg-guardrails eval --workers``: the same figures as without, on a Ray cluster of this machine."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from sg_guardrails.core.noise import KEY_VARIABLE, process_key
from sg_guardrails.evals.run import IDENTITY

WEIGHTS = Path(__file__).parents[3] / "sg_guardrails" / "models" / "builtin" / "shapes" / "model.safetensors"
needs_weights = pytest.mark.skipif(not WEIGHTS.exists(), reason="the built-in weights are not trained yet")


def pope(run, drawn, out, *more):
    place = ("--data", drawn, "--images", drawn / "images", "--out", out, "--policy", "builtin", "--limit", 4)
    return run("pope", *place, "--batch", 2, "--arm", "guarded", *more, "--json")


@pytest.mark.slow
@needs_weights
@pytest.mark.skipif(find_spec("ray") is None, reason="the extra ray is not installed")
def test_workers_give_the_same_figures(run, drawn, tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    code, here, _ = pope(run, drawn, tmp_path / "here")
    assert code == 0
    code, there, err = pope(run, drawn, tmp_path / "there", "--workers", 2)
    assert code == 0, err
    assert json.loads(there) == json.loads(here)
    answers = [
        {row["key"]: row["answers"] for row in map(json.loads, (folder / "guarded" / "items.jsonl").open())}
        for folder in (tmp_path / "here", tmp_path / "there")
    ]
    assert answers[0] == answers[1]


@needs_weights
def test_a_run_is_continued_with_its_own_key_only(run, drawn, tmp_path, monkeypatch):
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    place = ("--data", drawn, "--images", drawn / "images", "--out", tmp_path, "--policy", "builtin", "--limit", 1)
    assert run("pope", *place, "--arm", "bare")[0] == 0
    named = json.loads((tmp_path / "bare" / IDENTITY).read_text())["key"]
    assert named == process_key().id, "the public key, where none is set"
    monkeypatch.setenv(KEY_VARIABLE, "another key, long enough for a key")
    code, _, err = run("pope", *place, "--arm", "bare")
    assert code == 2
    assert f"key: {named} there, {process_key().id} now" in " ".join(err.split())


def test_workers_have_a_gpu_each_and_no_number(run, drawn, tmp_path):
    place = ("--data", drawn, "--images", drawn / "images", "--out", tmp_path)
    code, _, err = run("pope", *place, "--policy", "builtin", "--device", "cuda:1", "--workers", 2)
    assert code == 2
    assert "each worker sees the GPU that it was given" in " ".join(err.split())


def test_without_ray_the_extra_is_named(run, drawn, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    place = ("--data", drawn, "--images", drawn / "images", "--out", tmp_path)
    code, _, err = run("pope", *place, "--policy", "builtin", "--workers", 2)
    assert code == 2
    assert "sg-guardrails[ray]" in " ".join(err.split())
