"""What the command line of the evaluations refuses, and that the docs name what there is."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from sg_guardrails.cli.eval import evals

ROOT = Path(__file__).resolve().parents[3]


def test_the_docs_commands_name_real_commands_and_options():
    text = (ROOT / "docs" / "reproduce_the_paper.md").read_text().replace("\\\n", " ")
    written = [shlex.split(line)[2:] for line in text.splitlines() if line.startswith("sg-guardrails eval ")]
    assert {words[0] for words in written} >= {"pope", "llava-bench", "mm-safetybench", "compa", "speech", "ablation"}
    known = {command.name: command for command in get_command(evals).commands.values()}
    for name, *words in written:
        options = {option for parameter in known.get(name, get_command(evals)).params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options | {"--help"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["pope", "--data", "."], "--answers FILE"),
        (["pope", "--data", ".", "--answers", "a.jsonl"], "github.com/AoiDragon/POPE"),
        (["pope", "--data", ".", "--answers", "a.jsonl", "--split", "easy"], "random, popular, adversarial"),
        (["pope", "--data", "gone", "--answers", "a.jsonl"], "gone/coco_pope_random.json is missing"),
        (["llava-bench", "--data", "."], "--judge"),
        (["llava-bench", "--data", "gone", "--judge", "openai:m", "--out", "o"], "liuhaotian"),
        (["mm-safetybench", "--data", ".", "--out", "o"], "github.com/isXinLiu/MM-SafetyBench"),
        (["mm-safetybench", "--data", ".", "--out", "o", "--scenario", "14"], "13-Gov_Decision"),
        (["compa", "--data", ".", "--out", "o"], "CompA"),
        (["speech", "--data", "no", "--out", "o", "--policy", "nowhere"], "nowhere"),
        (["ablation", "--out", "o"], "--utility-data"),
        (["ablation", "--out", "o", "--utility-data", "."], "--images"),
        (["ablation", "--out", "o", "--utility-data", ".", "--utility", "bleu"], "llava-bench"),
        (["ablation", "--out", "o", "--utility-data", ".", "--images", ".", "--split", "easy"], "random, popular"),
        (["compare", "missing"], "missing"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(run, arguments, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert told in err
    assert len(err.strip().splitlines()) == 1, err


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--sigma", "0,0.1", "numbers over 0"),
        ("--sigma", "a", "numbers over 0"),
        ("--sigma", "nan", "numbers over 0"),
        ("--sigma", "inf", "numbers over 0"),
        ("--copies", "2.5", "whole numbers over 0"),
        ("--copies", "0", "whole numbers over 0"),
        ("--method", "guess", "sameness, cosine, kmeans"),
    ],
)
def test_an_ablations_grid_is_checked_before_a_model_is_loaded(run, drawn, tmp_path, option, value, told):
    where = ("--utility-data", drawn, "--images", drawn / "images", "--out", tmp_path / "out", option, value)
    code, out, err = run("ablation", *where)
    assert (code, out) == (2, "")
    assert told in err


@pytest.mark.parametrize(
    ("judge", "told"),
    [
        ("gpt-4o", "langchain:PROVIDER:MODEL"),
        ("langchain:", "langchain:PROVIDER:MODEL"),
        ("langchain:gpt-4o", "PROVIDER:MODEL"),
        ("langchain:os.path:x", "os.path"),
        ("scorers", "openai:MODEL"),
    ],
)
def test_a_judge_that_cannot_be_had_says_what_to_name(run, bench, tmp_path, judge, told):
    asked = ("llava-bench", "--data", bench, "--judge", judge, "--out", tmp_path / "out")
    code, out, err = run(*asked)
    assert (code, out) == (2, "")
    assert told in err.splitlines()[-1]
    assert "server of an openai:MODEL judge" in run(*asked, "--judge-url", "http://localhost:1/v1")[2]
