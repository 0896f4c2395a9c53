"""Replaying records under two policies: what changed is told, what did not is not."""

from __future__ import annotations

import json

import pytest

from sg_guardrails import GuardError, Policy, Prompt, SmoothGuard
from sg_guardrails.cli.replay import counted, doubts, replay, told, unread
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
    assert [(item.line, item.old.status, item.recorded.status, item.exact, item.changed) for item in same] == [
        (1, "passed", "passed", True, False),
        (2, "passed", "passed", True, False),
        (3, "passed", "passed", True, False),
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


CREDENTIALS = {"id": "asks", "when": {"regex": ["enter .{0,40}passwords?"]}}
CARDS = {"id": "cards", "when": {"regex": [r"\b\d{16}\b"]}, "action": "flag"}


def rules(*held, **sections):
    return {**OLD, **sections, "rules": list(held)}


def recorded_under(policy, path, *answers):
    live = guard(policy, emit=AuditFile(path))
    for answer in answers:
        live.review(Prompt.ask("?"), answer)
    return held(path)


def test_what_decides_is_left_in_the_record_by_default(tmp_path):
    """The word that a rule looks for stays where the secret after it goes; a number keeps its form."""
    said = "Please enter your password hunter2 again.", "The card is 4111111111111111."
    records = recorded_under(OLD, tmp_path / "a.jsonl", *said)
    assert "hunter2" not in (tmp_path / "a.jsonl").read_text()
    assert "4111" not in (tmp_path / "a.jsonl").read_text()
    replayed = list(replay(records, guard(OLD), guard(rules(CREDENTIALS, CARDS, name="new"))))
    assert [item.new.rules for item in replayed] == [("asks",), ("cards",)]
    assert [(item.changed, item.exact, item.redacted) for item in replayed] == [(True, True, True)] * 2


def test_a_decision_that_the_record_cannot_give_again_is_told_loudly(tmp_path):
    tells = {"id": "tells", "when": {"words": ["hunter2"]}}
    policy = rules(tells)
    records = recorded_under(policy, tmp_path / "a.jsonl", "The password is hunter2.", "A red triangle.")
    replayed = list(replay(records, guard(policy), guard(rules(tells, CARDS, name="new"))))
    assert [(item.changed, item.exact) for item in replayed] == [(False, False), (False, True)]
    assert next(told(replayed, "a.jsonl")) == (
        "a.jsonl:1: NOT REPLAYED EXACTLY: recorded blocked (tells), replayed passed"
    )
    assert counted(replayed) == "0 of 2 decisions change, 1 could not be replayed exactly"
    assert any("1 of 2 decisions could not be replayed exactly (1 of them" in line for line in doubts(replayed, []))


def test_the_recordings_own_policy_may_be_the_new_one_or_neither(tmp_path):
    tells = {"id": "tells", "when": {"words": ["hunter2"]}}
    records = recorded_under(rules(tells), tmp_path / "a.jsonl", "The password is hunter2.")
    [item] = replay(records, guard(rules(CARDS, name="old")), guard(rules(tells)))
    assert item.exact is False
    [item] = replay(records, guard(rules(CARDS, name="old")), guard(rules(CREDENTIALS, name="new")))
    assert item.exact is None
    assert any("decided by neither policy" in line for line in doubts([item], []))


def test_too_few_answers_for_the_other_policy_are_no_quiet_pass(tmp_path):
    """A vote settled early was recorded with the answers that settled it; a stricter one may need the others."""
    early = {**OLD, "smoothing": {"copies": 10, "early": "exact"}}
    guard(early, emit=AuditFile(tmp_path / "a.jsonl")).check(Prompt.ask("?", fake_image()))
    veto = {"name": "new", "smoothing": {"copies": 10}, "voting": {"refusal_veto": 0.1}}
    replayed = list(replay(held(tmp_path / "a.jsonl"), guard(early), guard(veto)))
    assert [(item.exact, item.few) for item in replayed] == [(True, True)]
    assert any("1 of 1 hold fewer answers" in line for line in doubts(replayed, []))
    [same] = replay(held(tmp_path / "a.jsonl"), guard(early), guard(early))
    assert not same.few


def test_lines_of_your_own_are_under_no_doubt(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"prompt": "?", "candidate": "bad"}) + "\n")
    replayed = list(replay(held(file), guard(OLD), guard(NEW)))
    assert [(item.exact, item.recorded) for item in replayed] == [(None, None)]
    assert list(doubts(replayed, [])) == []


def test_rules_about_pictures_are_named():
    about = [
        {"id": "b", "where": "picture", "when": {"words": ["x"]}},
        {"id": "a", "when": {"not": {"words": ["x"], "of": "picture"}}},
        CARDS,
    ]
    assert unread(Policy.parse(rules(*about))) == ["a", "b"]
    assert any("find nothing here: p: a" in line for line in doubts([], ["p: a"]))


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
