"""The tools around policies on the command line, on real scorers: what they print, and how they exit."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from sg_guardrails import Policy, PolicyError
from sg_guardrails.cli import main
from sg_guardrails.cli.policy import SCORERS, policy_schema
from sg_guardrails.core.layers import shipped

SHIPPED = sorted(shipped().glob("*.yaml"))
CASES = """cases:
- name: a majority passes
  prompt: What is the shape?
  answers: [{text: It is a triangle., times: 8}, {text: It is a circle., times: 3}]
  expect: {status: passed, rules: [], text: It is a triangle.}
- name: a refusal is flagged
  prompt: What is the shape?
  answers: [{text: I cannot help with that., times: 11}]
  expect: {status: flagged, rules: [refuses]}
"""


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run the command line in an empty folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sg-guardrails", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as stopped:
            main()
        captured = capsys.readouterr()
        return int(stopped.value.code or 0), captured.out, captured.err

    return call


def test_validate_tells_every_mistake_on_a_line(run):
    Path("bad.yaml").write_text("name: x\nsmothing: {}\nsmoothing:\n  copies: none\n")
    code, out, err = run("policy", "validate", "bad.yaml")
    lines = err.splitlines()
    assert (code, out, len(lines)) == (2, "", 2)
    assert any("bad.yaml:2: smothing" in line and "'smoothing'" in line for line in lines)
    assert any("bad.yaml:4: smoothing.copies" in line for line in lines)


@pytest.mark.parametrize("name", ["default", "agent_tools"])
def test_shipped_policies_validate_and_are_explained(run, name):
    code, out, err = run("policy", "validate", name)
    assert (code, "valid" in out, err) == (0, True, "")
    code, out, err = run("policy", "explain", name)
    assert code == 0
    assert Policy.load(name).hash in out
    assert "Cost:" in out


def test_a_scorer_that_is_not_shipped_is_noted(run):
    Path("p.yaml").write_text("name: p\nrules: [{id: a, when: {scorer: mine}}]\n")
    code, _, err = run("policy", "validate", "p.yaml")
    assert (code, "mine" in err) == (0, True)


def test_cases_pass_and_fail_like_tests(run):
    Path("tests").mkdir()
    rule = "{id: refuses, when: {scorer: refusal}, action: flag}"
    Path("mine.yaml").write_text(f"name: mine\nextends: default\nrules: [{rule}]\n")
    file = Path("tests/mine.yaml")
    file.write_text(CASES)
    code, out, _ = run("policy", "test", ".")
    assert (code, out.splitlines()[-1]) == (0, "2 passed")
    file.write_text(CASES.replace("status: passed", "status: blocked"))
    code, out, _ = run("policy", "test", "tests/mine.yaml")
    assert (code, out.splitlines()[-1]) == (1, "1 failed, 1 passed")
    assert "FAILED tests/mine.yaml:2: a majority passes" in out
    assert "status: expected 'blocked', got 'passed'" in out
    file.write_text("cases:\n- {name: a, expct: {}}\n")
    code, out, err = run("policy", "test", "tests")
    assert (code, out) == (2, "")
    assert "mine.yaml:2" in err
    assert "'expect'" in err


@pytest.mark.slow
def test_diff_shows_what_changes(run):
    Path("strict.yaml").write_text("name: strict\nextends: default\nrules: [{id: no_red, when: {words: [red]}}]\n")
    lines = [
        {"prompt": "What colour?", "answers": ["It is red."] * 11, "clean": 0},
        {"prompt": "What colour?", "answers": ["It is blue."] * 11, "clean": 0},
        {"prompt": "What colour?", "candidate": "It is red."},
    ]
    Path("a.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    code, out, _ = run("policy", "diff", "default", "strict.yaml", "a.jsonl")
    assert code == 0
    assert "a.jsonl:1: passed -> blocked (no_red)" in out
    assert "2 of 3 decisions change" in out
    code, out, _ = run("policy", "diff", "default", "strict.yaml", "a.jsonl", "--json")
    data = json.loads(out)
    assert (code, data["decided"], data["changed"]) == (0, 3, 2)
    assert [item["changed"] for item in data["decisions"]] == [True, False, True]
    code, out, err = run("policy", "diff", "default", "strict.yaml", "a.jsonl", "--exit-code")
    assert (code, err) == (1, "")
    assert run("policy", "diff", "default", "default", "a.jsonl", "--exit-code")[0] == 0
    Path("b.jsonl").write_text(json.dumps({"policy": "p@1", "status": "passed"}) + "\n")
    code, _, err = run("policy", "diff", "default", "strict.yaml", "b.jsonl")
    assert (code, "include_text" in err) == (2, True)


def test_score_gives_a_line_for_each_line(run):
    texts = ["I cannot help with that.", "Sure, here it is: a red triangle.", "x", "\ud800 \u2028"] * 20
    given = "".join(json.dumps({"text": text, "label": 1}) + "\n" for text in texts)
    Path("a.jsonl").write_text(given + "\n\n")
    code, out, err = run("score", "refusal", "a.jsonl", "--json")
    scores = [json.loads(line) for line in out.splitlines()]
    assert (code, err, len(scores)) == (0, "", len(texts))
    assert all(score.keys() == {"score"} and 0 <= score["score"] <= 1 for score in scores)
    assert scores[0]["score"] > 0.5 > scores[1]["score"]
    assert scores[:4] == scores[-4:]
    assert run("score", "refusal", "-", stdin=given.encode()) == (0, out, "")


def test_every_shipped_scorer_scores(run):
    from sg_guardrails.models.text import shipped_heads

    for name in (*shipped_heads(), "hostility"):
        code, out, _ = run("score", name, "-", stdin=b'{"text": "Hello there."}\n')
        assert (code, len(out.splitlines())) == (0, 1), name


@pytest.mark.parametrize(
    ("bad", "number"),
    [
        (b"{\n", 2),
        (b'"text"\n', 2),
        (b'{"txt": "a"}\n', 2),
        (b'{"text": 3}\n', 2),
        (b'{"text": "\xff"}\n', 2),
        (b'\n{"text": "b"}\n', 2),
        (b"[" * 100_000 + b"\n", 2),
    ],
)
def test_a_bad_line_to_score_is_named_after_what_stood_before_it(run, bad, number):
    Path("a.jsonl").write_bytes(b'{"text": "a"}\n' + bad)
    code, out, err = run("score", "refusal", "a.jsonl", "--json")
    assert (code, len(out.splitlines())) == (2, 1)
    assert f"a.jsonl:{number}: " in err
    assert len(err.strip().splitlines()) == 1


def test_score_tells_what_there_is(run):
    from sg_guardrails.models.text import shipped_heads

    code, out, err = run("score", "kindness", "-")
    names = ", ".join(sorted((*shipped_heads(), "hostility")))
    assert (code, out, f"there are {names}" in " ".join(err.split())) == (2, "", True)
    assert sorted((*shipped_heads(), "hostility")) == list(SCORERS)
    assert run("score", "refusal", "missing.jsonl")[0] == 2


def test_the_committed_schema_is_the_one_printed(run):
    code, out, _ = run("policy", "schema")
    assert code == 0
    assert (shipped() / "schema.json").read_text() == out, "sg-guardrails policy schema > policies/schema.json"


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_the_schema_accepts_the_shipped_policies(file):
    jsonschema.validate(yaml.safe_load(file.read_text()), policy_schema())
    assert file.read_text().splitlines()[0] == "# yaml-language-server: $schema=schema.json"


@pytest.mark.parametrize(
    "text",
    [
        "name: x\nsmothing: {}\n",
        "name: x\nsmoothing: {copies: 0}\n",
        "name: x\nrules: [{id: a}]\n",
        "name: x\nextends: default\nrules: [{id: a, acton: flag}]\n",
        "name: x\nrules: [{id: a, when: {words: []}}]\n",
        "name: x\nrules: [{id: a, when: {not: {wrods: [x]}}}]\n",
        "smoothing: {copies: 3}\n",
    ],
)
def test_the_schema_refuses_what_the_loader_refuses(text):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(text), policy_schema())
    with pytest.raises(PolicyError):
        Policy.parse({key: value for key, value in yaml.safe_load(text).items() if key != "extends"})


@pytest.mark.slow
def test_every_shipped_policys_cases_pass(run):
    code, out, err = run("policy", "test", str(shipped()))
    assert code == 0, out + err
    tested = {Path(line.split(" [")[0]).stem for line in out.splitlines() if " [" in line}
    assert tested == {file.stem for file in SHIPPED}
