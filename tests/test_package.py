"""The wheel: whole, and at work in an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = """
import sys, sg_guardrails
from pathlib import Path
from sg_guardrails import Image, Policy, Prompt
from sg_guardrails.local import local_guard
from sg_guardrails.demo import scenes
assert Path(sg_guardrails.__file__).is_relative_to(sys.argv[1]), sg_guardrails.__file__
assert Path(__import__("sg_guardrails.core.layers").core.layers.shipped()).is_relative_to(sys.argv[1])
guard = local_guard("builtin")
scene = scenes()[0]
outcome = guard.check(scene.prompt)
print(outcome.status, outcome.text)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(folder),
        str(ROOT),
    ]
    subprocess.run(command, check=True)
    return next(folder.glob("*.whl"))


@pytest.mark.slow
def test_the_wheel_holds_policies_weights_and_types(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for file in (
        "py.typed",
        "policies/default.yaml",
        "policies/builtin.yaml",
        "policies/paper.yaml",
        "models/builtin/shapes/model.safetensors",
        "models/builtin/shapes/README.md",
        "models/heads/refusal.npz",
        "models/heads/unsafe_request.npz",
        "cli/cost.json",
        "core/words.txt",
        "core/lexicon.txt.gz",
        "demo/manifest.json",
        "demo/wrong.png",
        "demo/unsafe.png",
        "demo/speech.flac",
        "demo/page.html.j2",
    ):
        assert f"sg_guardrails/{file}" in names
    assert not [name for name in names if name.startswith(("tests/", "training/", "integrations/"))]
    assert wheel.stat().st_size < 15_000_000


@pytest.mark.slow
def test_the_wheel_works_from_an_empty_folder(wheel, tmp_path):
    target = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(wheel)]
    subprocess.run(install, check=True)
    empty = tmp_path / "empty"
    empty.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(target), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(target)],
        cwd=empty,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] in ("passed", "flagged")
