"""``sg-guardrails eval redteam``: options, and a whole small run that is killed and goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sg_guardrails.cli.app import app
from sg_guardrails.models.builtin import builtin_path

RUN = ["eval", "redteam", "--small", "--limit", "2", "--family", "hijack", "--budget", "32"]


def test_an_unknown_family_or_budget_is_named(tmp_path):
    for option, wrong in (("--family", "theft"), ("--budget", "7")):
        done = CliRunner().invoke(app, ["eval", "redteam", "--out", str(tmp_path), option, wrong])
        assert done.exit_code != 0
        assert wrong in f"{done.output}{done.exception}"
    assert not list(tmp_path.iterdir())


def test_late_payloads_have_two_budgets(tmp_path):
    done = CliRunner().invoke(app, ["eval", "redteam", "--out", str(tmp_path), "--family", "late", "--budget", "8"])
    assert done.exit_code != 0
    assert "16 and 32" in f"{done.output}{done.exception}"
    assert not list(tmp_path.iterdir())


def journals(out: Path) -> dict[str, list[str]]:
    """The keys in every journal of a run, in order."""
    return {
        str(path.relative_to(out)): [json.loads(line)["key"] for line in path.read_text().splitlines()]
        for path in sorted(out.rglob("*.jsonl"))
    }


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_killed_run_goes_on_and_comes_to_the_same(tmp_path):
    entry = "from sg_guardrails.cli import main; main()"
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    env = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "SG_GUARDRAILS_KEY": "a key for the two runs"}

    def start(out: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-c", entry, *RUN, "--out", str(out)],
            env=env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    assert start(whole).wait(timeout=900) == 0
    for journal in ("hijack-32-static/pictures.jsonl", "answers/bare/hijack-32-static/items.jsonl"):
        run = start(killed)
        while not (killed / journal).exists() and run.poll() is None:
            time.sleep(0.05)
        run.send_signal(signal.SIGKILL)
        run.wait()
        assert not (killed / "redteam.json").exists()
    assert start(killed).wait(timeout=900) == 0
    assert journals(killed) == journals(whole)
    assert all(len(keys) == len(set(keys)) for keys in journals(killed).values())
    first, second = (json.loads((out / "redteam.json").read_text()) for out in (whole, killed))
    assert first == second
    cell = first["cells"][0]
    assert (cell["cell"]["attacker"], cell["bare"]["n"]) == ("static", 2)
    assert cell["unruled"]["n"] == 2
    assert first["clean"]["bare"]["value"] == 1
    assert {point["sweep"] for point in first["sweeps"]} == {"sigma", "shift", "copies", "lambda", "method"}
    assert "<svg" in (killed / "redteam.html").read_text()


@pytest.mark.slow
def test_another_family_joins_a_run_and_no_report_names_the_models_folder(tmp_path):
    model, out = tmp_path / "a-model-of-mine", tmp_path / "out"
    shutil.copytree(builtin_path("shapes"), model)
    few = ["eval", "redteam", "--small", "--limit", "2", "--budget", "16", "--no-adaptive", "--no-sweeps"]
    few += ["--model", str(model), "--out", str(out)]
    assert CliRunner().invoke(app, [*few, "--family", "wrong"]).exit_code == 0
    before = {name: keys for name, keys in journals(out).items() if "wrong" in name}
    assert CliRunner().invoke(app, [*few, "--family", "wrong", "--family", "late"]).exit_code == 0
    assert {name: keys for name, keys in journals(out).items() if "wrong" in name} == before
    read, page = json.loads((out / "redteam.json").read_text()), (out / "redteam.html").read_text()
    late = [cell for cell in read["cells"] if cell["cell"]["family"] == "late"]
    assert [(cell["cell"]["attacker"], cell["drafted"]["n"]) for cell in late] == [("static", 2), ("early", 2)]
    assert all(cell["drafted"] is None for cell in read["cells"] if cell not in late)
    assert read["about"]["model"].startswith("a-model-of-mine (weights ")
    assert "vote on drafts" in page
    assert not [text for text in (json.dumps(read), page) if str(tmp_path) in text]
