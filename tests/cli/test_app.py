"""The command line: exit codes, one clear line for what the user can mend, and the real model behind it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from sg_guardrails.cli import main
from sg_guardrails.core.types import printable
from sg_guardrails.testing import fake_audio, fake_image


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run the command line in an empty folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "red.png").write_bytes(fake_image(size=64).to_png())
    (tmp_path / "tone.wav").write_bytes(fake_audio().to_wav())

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sg-guardrails", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main()
        captured = capsys.readouterr()
        return int(stopped.value.code or 0), captured.out, captured.err

    return call


def one_line(text: str) -> bool:
    return len(text.strip().splitlines()) == 1 and "Traceback" not in text


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["check", "--image", "missing.png", "--prompt", "?"], "missing.png"),
        (["check", "--image", "https://example.org/x.png", "--prompt", "?"], "URL"),
        (["check", "--image", "tone.wav", "--prompt", "?"], "not a PNG"),
        (["check", "--audio", "red.png", "--prompt", "?"], "WAV or FLAC"),
        (["check", "--image", "red.png"], "--prompt"),
        (["check", "--image", "red.png", "--prompt", "?", "--policy", "nowhere"], "nowhere"),
        (
            ["check", "--image", "red.png", "--prompt", "?", "--model", "no/such-model-anywhere"],
            "no/such-model-anywhere",
        ),
        (["policy", "validate", "missing.yaml"], "missing.yaml"),
        (["vote", "missing.jsonl"], "missing.jsonl"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(run, arguments, told, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, out, err = run(*arguments)
    assert code == 2
    assert told in err
    assert out == ""
    assert one_line(err), err


def test_a_default_model_that_is_not_at_hand_names_the_ways_out(run, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, _, err = run("check", "--image", "red.png", "--prompt", "what?")
    assert code == 2
    assert "SmolVLM" in err
    assert "builtin" in err
    assert "--model" in err
    assert one_line(err), err


def test_policy_validate(run):
    assert run("policy", "validate", "default")[0] == 0
    Path("bad.yaml").write_text("name: x\nsmothing: {}\n")
    code, _, err = run("policy", "validate", "bad.yaml")
    assert (code, "smothing" in err, one_line(err)) == (2, True, True)


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '{"answers": []}',
        '{"answers": [1]}',
        '{"answers": ["a"], "x": 1}',
        '{"answers": ["a"], "clean": 1}',
        '{"answers": ["a"], "clean": true}',
        '{"answers": "ab"}',
    ],
)
def test_a_bad_line_is_named(run, line):
    Path("a.jsonl").write_text('{"answers": ["a", "a"]}\n' + line + "\n")
    code, _, err = run("vote", "a.jsonl", "--json")
    assert code == 2
    assert "a.jsonl:2" in err
    assert one_line(err), err


def test_vote_prints_a_line_for_each_line(run):
    red, blue = "The triangle is red.", "The triangle is blue."
    lines = [
        {"answers": [red, red, blue], "clean": 2},
        {"answers": ["I cannot help with that.", "I'm sorry, I am unable to assist with this request."]},
        {"answers": [{"text": "", "tool_calls": [{"name": "f", "arguments": {"a": 1}}]}, "no call"]},
    ]
    Path("a.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    code, out, _ = run("vote", "a.jsonl", "--json")
    first, second, third = map(json.loads, out.splitlines())
    assert code == 0
    assert first == {
        "labels": [0, 0, 1],
        "winner": 0,
        "choice": 0,
        "agreement": pytest.approx(2 / 3),
        "abstained": False,
        "clean_differs": True,
    }
    assert (second["labels"], second["agreement"]) == ([0, 0], 1.0)
    assert (third["labels"], third["abstained"]) == ([0, 1], True)


def test_an_empty_file_is_bad_input(run):
    Path("a.jsonl").write_text("\n")
    assert run("vote", "a.jsonl")[0] == 2


def test_control_characters_never_reach_the_terminal():
    assert printable("a\x1b[2Jb\rc\u202e") == "a [2Jb c"


def test_check_passes_on_the_real_model(run):
    code, out, _ = run(
        "check", "--image", "red.png", "--prompt", "What color is the shape?", "--policy", "builtin", "--json"
    )
    data = json.loads(out)
    assert data["status"] in ("passed", "flagged", "rewritten")
    assert code == {"passed": 0, "flagged": 0, "rewritten": 3}[data["status"]]
    assert len(data["answers"]) == 11


def test_check_blocks_and_rewrites_by_policy(run):
    base = "name: p\nextends: builtin\nrules:\n- {id: any_text, when: {regex: ['.']}, action: %s}\n"
    for action, code in (("block", 4), ("rewrite", 3), ("flag", 0), ("raise", 4)):
        Path("p.yaml").write_text(base % action)
        assert (
            run("check", "--image", "red.png", "--prompt", "What color is the shape?", "--policy", "p.yaml")[0] == code
        )


def test_a_medium_that_the_model_cannot_take_is_bad_input(run):
    code, _, err = run("check", "--audio", "tone.wav", "--prompt", "what?", "--policy", "builtin")
    assert code == 2
    assert "audio" in err
