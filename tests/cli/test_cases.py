"""Test cases of policies: what a case file may say, and that a wrong expectation fails."""

from __future__ import annotations

import pytest

from sg_guardrails import Outcome, PolicyError, SmoothGuard
from sg_guardrails.cli.cases import compare, find, load, run
from sg_guardrails.core.layers import shipped
from sg_guardrails.testing import (
    FakeSampler,
    fake_audio,
    fake_embedder,
    fake_image,
    fake_scorers,
    fake_sentiment,
)

POLICY = """
name: p
smoothing: {copies: 4}
rules:
- {id: bad, when: {words: [bad]}, action: block}
- {id: toxic, when: {scorer: toxicity}, action: block, mode: observe}
- {id: secret_call, when: {tool_calls: {denied: [send]}}, action: block}
- {id: judged, when: {judge: {question: 'Is it rude?', model: mine}}, action: flag}
- {id: pictured, where: picture, when: {words: [poison]}, action: block}
texts: {blocked: 'no'}
"""


def build(policy, /, *, scorers, judges, reader, emit, sampler="the model's own answer"):
    return SmoothGuard(
        policy,
        sampler=FakeSampler(sampler),
        embedder=fake_embedder,
        sentiment=fake_sentiment,
        scorers={**fake_scorers(), "toxicity": fake_scorers()["hostility"], **scorers},
        judges={"mine": lambda asked: [0.0] * len(asked), **judges},
        reader=reader or (lambda images: ["nothing"] * len(images)),
        emit=emit,
    )


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "p.yaml").write_text(POLICY)
    (tmp_path / "tests" / "red.png").write_bytes(fake_image().to_png())
    (tmp_path / "tests" / "tone.wav").write_bytes(fake_audio().to_wav())
    (tmp_path / "outside.png").write_bytes(fake_image().to_png())
    return tmp_path


def results(folder, cases, **parts):
    file = folder / "tests" / "p.yaml"
    file.write_text("cases:\n" + cases)
    return run(load(file), lambda policy, /, **given: build(policy, **given, **parts))


def differences(folder, case, **parts):
    [result] = results(folder, f"- {{name: c, {case}}}\n", **parts)
    return result.differences


@pytest.mark.parametrize(
    "case",
    [
        "answers: [{text: fine, times: 5}], expect: {status: passed, rules: [], text: fine, would_have: null}",
        "answers: [{text: bad, times: 5}], expect: {status: blocked, rules: [bad], text: 'no'}",
        "candidate: bad, expect: {status: blocked, rules: [bad]}",
        "candidate: fine, expect: {status: passed}",
        "answers: [a, b, c, d, e], expect: {status: passed, abstained: true}",
        "answers: [{text: fine, times: 5}], scores: {toxicity: 0.9}, "
        "expect: {status: passed, rules: [toxic], would_have: block}",
        "answers: [{text: fine, times: 5}], judges: {mine: 0.9}, expect: {status: flagged, rules: [judged]}",
        "answers: [{tool_calls: [{name: send, arguments: {to: x}}], times: 5}], "
        "expect: {status: blocked, rules: [secret_call]}",
        "image: red.png, picture_text: drink poison, answers: [{text: fine, times: 5}], "
        "expect: {status: blocked, rules: [pictured]}",
        "image: [red.png, red.png], audio: tone.wav, prompt: 'what?', answers: [{text: fine, times: 5}], "
        "expect: {status: passed}",
        "prompt: [one, two], expect: {status: passed, text: the model's own answer}",
        "image: red.png, candidate: another, expect: {status: passed}",
        "recorded: {prompt: x, answers: [bad, bad]}, expect: {status: blocked}",
        "recorded: {policy: p@1, status: passed, text: {asked: [x], answers: [fine], candidate: bad, clean: null}}, "
        "expect: {status: blocked, rules: [bad]}",
    ],
)
def test_a_right_expectation_passes(folder, case):
    assert differences(folder, case) == ()


@pytest.mark.parametrize(
    ("case", "told"),
    [
        ("answers: [{text: bad, times: 5}], expect: {status: passed}", "status: expected 'passed', got 'blocked'"),
        ("answers: [bad], expect: {status: blocked, rules: []}", "rules: expected [], got ['bad']"),
        ("answers: [fine], expect: {status: passed, text: other}", "text: expected 'other', got 'fine'"),
        ("answers: [fine], expect: {status: passed, would_have: block}", "would_have: expected 'block', got None"),
        ("answers: [fine], expect: {status: passed, abstained: true}", "abstained: expected True"),
        ("answers: [fine], clean: 7, expect: {status: passed}", "no outcome: GuardError: clean"),
        ("image: ../outside.png, expect: {status: passed}", "outside the folder"),
        ("image: missing.png, expect: {status: passed}", "missing.png"),
        ("recorded: {policy: p@1, status: passed}, expect: {status: passed}", "digests only"),
    ],
)
def test_a_wrong_expectation_fails_and_says_how(folder, case, told):
    found = differences(folder, case)
    assert any(told in line for line in found), found


def test_an_error_can_be_expected(folder):
    def fails(copy):
        raise RuntimeError("out of memory")

    assert differences(folder, "prompt: x, expect: {status: error, error: SamplingError}", sampler=fails) == ()
    (folder / "p.yaml").write_text(POLICY + "on_error: raise\n")
    assert differences(folder, "prompt: x, expect: {status: error, error: SamplingError}", sampler=fails) == ()
    assert differences(folder, "prompt: x, expect: {status: passed}", sampler=fails) != ()


def test_results_name_their_lines(folder):
    found = results(
        folder, "- name: a\n  candidate: fine\n  expect: {status: passed}\n- name: b\n  expect:\n    status: passed\n"
    )
    assert [(result.case.name, result.line) for result in found] == [("a", 2), ("b", 5)]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("cases: []", "cases"),
        ("cases:\n- {name: a, expect: {status: pased}}", "passed"),
        ("cases:\n- {name: a, answer: [x], expect: {status: passed}}", "'answers'"),
        ("cases:\n- {name: a}", "expect"),
        ("policy: nowhere\ncases:\n- {name: a, expect: {status: passed}}", "nowhere"),
        ("[]", "mapping"),
    ],
)
def test_a_wrong_case_file_is_told(folder, text, told):
    file = folder / "tests" / "p.yaml"
    file.write_text(text)
    with pytest.raises(PolicyError, match=told):
        load(file)


def test_cases_are_found_by_file_folder_and_name(folder):
    file = folder / "tests" / "p.yaml"
    file.write_text("cases:\n- {name: a, candidate: x, expect: {status: passed}}\n")
    assert find(file) == find(folder) == find(folder / "tests") == [file]
    with pytest.raises(PolicyError, match="nowhere"):
        find("nowhere")
    (folder / "empty").mkdir()
    with pytest.raises(PolicyError, match="no test cases"):
        find(folder / "empty")


def test_the_policy_is_the_one_of_the_files_name_or_the_one_named(folder, tmp_path):
    case = "cases:\n- {name: a, candidate: x, expect: {status: passed}}\n"
    for name, text, expected in [
        ("p", case, "p"),
        ("other", "policy: ../p.yaml\n" + case, "p"),
        ("named", "policy: default\n" + case, "default"),
        ("builtin", case, "builtin"),
    ]:
        file = folder / "tests" / f"{name}.yaml"
        file.write_text(text)
        assert load(file).policy.name == expected


def test_every_shipped_case_file_is_valid_and_of_a_shipped_policy():
    for path in sorted((shipped() / "tests").glob("*.yaml")):
        loaded = load(path)
        assert loaded.policy.name == path.stem
        assert len({case.name for case in loaded.cases}) == len(loaded.cases)
        assert all(compare(case.expect, Outcome("", "skipped", None)) for case in loaded.cases)


def test_media_are_bounded_by_the_policy(folder):
    (folder / "p.yaml").write_text(POLICY + "limits: {max_bytes: 10}\n")
    [told] = differences(folder, "image: red.png, expect: {status: passed}")
    assert "MediaError" in told
