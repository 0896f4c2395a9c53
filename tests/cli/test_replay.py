"""Replaying records under two policies: what changed is told, what did not is not."""

from __future__ import annotations

import json

import pytest

from sg_guardrails import GuardError, Policy, Prompt, SmoothGuard
from sg_guardrails.cli.replay import replay
from sg_guardrails.record.audit import AuditFile
from sg_guardrails.record.recorded import read
from sg_guardrails.testing import FakeSampler, fake_embedder, fake_image, fake_scorers, fake_sentiment

OLD = {"name": "old", "smoothing": {"copies": 4}, "record": {"include_text": True}}
NEW = {"name": "new", "rules": [{"id": "bad", "when": {"words": ["bad"]}, "action": "block"}]}


def guard(policy, script="x", emit=lambda *_, **__: None):
    return SmoothGuard(
        Policy.parse(policy),
        sampler=FakeSampler(script),
        embedder=fake_embedder,
        sentiment=fake_sentiment,
        scorers=fake_scorers(),
        emit=emit,
    )


def held(path):
    return [(number, record) for number, record in read(path) if record is not None]


def test_decisions_of_an_audit_file_are_made_again(tmp_path):
    audit = AuditFile(tmp_path / "audit.jsonl")
    live = guard(OLD, ["a bad thing"] * 5 + ["a good thing"] * 5, emit=audit)
    live.check(Prompt.ask("one?", fake_image()))
    live.check(Prompt.ask("two?", fake_image()))
    live.review(Prompt.ask("three?"), "a bad answer")
    live.skip("x", reason="test")
    same = list(replay(held(audit.path), guard(OLD), guard(OLD)))
    assert [(item.line, item.old.status, item.recorded, item.changed) for item in same] == [
        (1, "passed", "passed", False),
        (2, "passed", "passed", False),
        (3, "passed", "passed", False),
    ]
    changed = list(replay(held(audit.path), guard(OLD), guard(NEW)))
    assert [(item.line, item.new.status, item.new.rules, item.changed) for item in changed] == [
        (1, "blocked", ("bad",), True),
        (2, "passed", (), False),
        (3, "blocked", ("bad",), True),
    ]
    assert [record is None for _, record in read(audit.path)] == [False, False, False, True]


def test_the_vote_is_held_again_with_tool_calls_and_the_clean_answer(tmp_path):
    audit = AuditFile(tmp_path / "audit.jsonl")
    call = {"text": "", "tool_calls": [{"name": "send", "arguments": {"to": "x", "n": 3}}]}
    guard(OLD, ["the clean one", call, call, call, "another"], emit=audit).check(Prompt.ask("?", fake_image()))
    [(_, record)] = held(audit.path)
    assert record.clean == 0
    assert record.answers[1].tool_calls[0].arguments == {"to": "x", "n": 3}
    strict = {**NEW, "rules": [{"id": "send", "when": {"tool_calls": {"denied": ["send"]}}}]}
    [item] = replay([(1, record)], guard(OLD), guard(strict))
    assert (item.old.status, item.new.rules) == ("passed", ("send",))


def test_another_texts_wording_alone_is_a_change(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"prompt": "?", "candidate": "bad"}) + "\n")
    [item] = replay(held(file), guard(NEW), guard({**NEW, "texts": {"blocked": "other words"}}))
    assert (item.old, item.same_text, item.changed) == (item.new, False, True)


def test_a_would_have_and_a_raised_error_are_told(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"prompt": "?", "answers": ["bad"] * 5, "clean": 0}) + "\n")
    [item] = replay(held(file), guard(NEW), guard({**NEW, "mode": "observe"}))
    assert (item.new.status, item.new.would_have) == ("passed", "block")

    def broken(texts):
        raise RuntimeError("no")

    failing = guard({**NEW, "on_error": "raise"})
    failing._embedder = broken
    file.write_text(json.dumps({"prompt": "?", "answers": ["one", "two words here"]}) + "\n")
    [item] = replay(held(file), guard(NEW), failing)
    assert (item.new.status, item.new.error) == ("error", "SamplingError")


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "{}",
        '{"answers": []}',
        '{"prompt": 3, "answers": ["a"]}',
        '{"answers": ["a"], "clean": 1}',
        '{"answers": ["a"], "clean": true}',
        '{"answers": [3]}',
        '{"answers": "ab"}',
        '{"answers": ["a"], "x": 1}',
    ],
)
def test_a_line_that_is_no_decision_is_named(tmp_path, line):
    file = tmp_path / "a.jsonl"
    file.write_text('{"prompt": "?", "answers": ["a"]}\n' + line + "\n")
    with pytest.raises(GuardError, match=r"a\.jsonl:2: "):
        list(read(file))


def test_a_damaged_audit_line_is_named(tmp_path):
    audit = AuditFile(tmp_path / "audit.jsonl")
    live = guard(OLD, emit=audit)
    for _ in range(2):
        live.check(Prompt.ask("?", fake_image()))
    audit.path.write_text(audit.path.read_text().replace('"asked":["?"]', '"asked":["!"]'))
    with pytest.raises(GuardError, match=r"audit\.jsonl:1: damaged"):
        list(read(audit.path))


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(GuardError, match="missing"):
        list(read(tmp_path / "missing.jsonl"))
