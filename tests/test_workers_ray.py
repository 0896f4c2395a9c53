"""Evaluations in workers of a real Ray cluster on this machine: the rows of a run here, also where one is killed."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import gettempdir

import pytest

from sg_guardrails.core.media import Image
from sg_guardrails.core.noise import KEY_VARIABLE
from sg_guardrails.core.policy import ImageNoise, Policy
from sg_guardrails.core.types import Prompt
from sg_guardrails.evals.base import Item
from sg_guardrails.evals.redteam import Cell
from sg_guardrails.evals.run import JOURNAL, Elsewhere, run
from sg_guardrails.workers import Workers

WEIGHTS = Path(__file__).resolve().parents[1] / "sg_guardrails" / "models" / "builtin" / "shapes" / "model.safetensors"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("ray") is None, reason="the extra ray is not installed"),
    pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL"),
    pytest.mark.skipif(not WEIGHTS.exists(), reason="the built-in weights are not trained yet"),
]
BATCH = 2
SECRET = "a secret that no file may hold, of this test"


@dataclass(frozen=True)
class Drawn:
    """Questions about random pictures of one square; the guard's answers to them depend on the noise."""

    items: tuple
    name: str = "drawn"
    headline: str = "none"
    outcome: str = "none"
    troubles: tuple = ()


@pytest.fixture(scope="module")
def drawn():
    import numpy as np

    rng = np.random.default_rng(5)

    def read(seed, question):
        pixels = np.random.default_rng(seed).uniform(0.3, 0.7, (64, 64, 3)).astype(np.float32)
        top, left = 8 + seed % 20, 10 + seed % 24
        pixels[top : top + 26, left : left + 26] = np.random.default_rng(seed).choice((0.1, 0.9), 3)
        return Prompt.ask(question, Image(pixels))

    asked = ("What shape is in the image?", "What color is the shape?", "Is there a circle in the image?")
    seeds = rng.integers(0, 1000, 8)
    return Drawn(tuple(Item(f"{i}", "all", partial(read, int(s), asked[i % 3])) for i, s in enumerate(seeds)))


@pytest.fixture(scope="module")
def workers():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(KEY_VARIABLE, SECRET)
        patch.delenv("RAY_ADDRESS", raising=False)
        with Workers(2) as hired:
            yield hired


def guard():
    from sg_guardrails.cli.eval_arms import guarded, with_noise

    return guarded(with_noise(Policy.load("builtin"), sigma=0.3, copies=4), size=BATCH)


def content(rows):
    """Everything but the time it took."""
    return [replace(row, seconds=0.0) for row in rows]


def keys(out):
    return [json.loads(line)["key"] for line in (out / JOURNAL).read_text().splitlines()]


@pytest.fixture(scope="module")
def here(drawn, workers, tmp_path_factory):
    return run(drawn, guard(), out=tmp_path_factory.mktemp("here")).rows


def test_the_rows_are_those_of_a_run_here(drawn, workers, here, tmp_path):
    spread = run(drawn, Elsewhere(guard, workers.each, BATCH), out=tmp_path)
    assert content(spread.rows) == content(here)
    assert any(len(set(row.answers)) > 1 for row in here), "noise changes some answer, else the key would not show"
    assert sorted(keys(tmp_path)) == sorted(item.key for item in drawn.items)
    folder = Path(gettempdir(), "ray", "session_latest", "logs")  # where Ray writes unless it is told otherwise
    logs = [path for path in folder.rglob("*") if path.is_file()]
    assert logs
    for path in (*tmp_path.iterdir(), *logs):
        held = path.read_bytes()
        assert SECRET.encode() not in held, path
        assert path.parent == tmp_path or b"in the image" not in held, path


def test_a_worker_killed_in_the_middle_loses_nothing_and_doubles_nothing(drawn, workers, here, tmp_path):
    """The first worker that is asked about the fourth picture is killed, by SIGKILL, before it answers."""
    asked, out = tmp_path / "asked", tmp_path / "out"
    asked.mkdir()
    fatal = drawn.items[3].prompt().digest

    def deadly():
        answerer = guard()

        def ask(prompts):
            for prompt in prompts:
                first = not list(asked.glob(f"{prompt.digest}-*"))
                (asked / f"{prompt.digest}-{os.getpid()}").touch()
                if first and prompt.digest == fatal:
                    os.kill(os.getpid(), signal.SIGKILL)
            return answerer.ask(prompts)

        return replace(answerer, ask=ask)

    spread = run(drawn, Elsewhere(deadly, workers.each, BATCH), out=out)
    assert len(list(asked.glob(f"{fatal}-*"))) == 2, "another worker was asked in the killed one's place"
    assert content(spread.rows) == content(here)
    assert sorted(keys(out)) == sorted(item.key for item in drawn.items)


def test_a_run_begun_here_goes_on_in_workers(drawn, workers, here, tmp_path):
    run(drawn, guard(), out=tmp_path, limit=4)
    spread = run(drawn, Elsewhere(guard, workers.each, BATCH), out=tmp_path)
    assert [replace(row, seconds=0) for row in spread.rows] == content(here)
    assert len(keys(tmp_path)) == len(drawn.items)


def test_attacks_are_those_made_here(workers, tmp_path):
    pytest.importorskip("easy_vqa")
    from sg_guardrails.cli import redteam_arms as arms
    from sg_guardrails.models.hf import load

    loaded = partial(load, "builtin:shapes", device="cpu", dtype="float32")
    cell, noise = Cell("hijack", "32", "adaptive"), ImageNoise(space="pixel", sigma=0.3)
    handle = loaded()
    goals = arms.targets(handle, "hijack", 8, tmp_path)
    folders = tmp_path / "here", tmp_path / "there"
    here = arms.craft(handle, cell, goals, folders[0], noise=noise, steps=2)
    crafters = arms.Crafters(workers.each, loaded)
    assert arms.craft(handle, cell, goals, folders[1], noise=noise, steps=2, crafters=crafters) == here
    for one in here:
        assert len({arms.picture(folder, one.key).digest for folder in folders}) == 1
