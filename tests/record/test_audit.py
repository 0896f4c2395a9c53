"""The audit file: whole lines or none, whoever writes, whatever kills them; rotation; what stands in it."""

from __future__ import annotations

import json
import os
import signal
import threading
from datetime import UTC, datetime, timedelta

import pytest

from sg_guardrails import Answer, GuardError, Outcome, Policy, Prompt, ToolCall
from sg_guardrails.record import PolicyChange
from sg_guardrails.record.audit import AuditFile, read
from sg_guardrails.testing import fake_image

POLICY = Policy.parse({"name": "p"})
RETAINING = Policy.parse({"name": "p", "record": {"include_text": True}})


def decision(text="an answer", **fields):
    return Outcome(text, "passed", Answer(text), answers=(Answer(text),), **fields)


def write(audit, text="an answer", policy=POLICY):
    audit(decision(text), prompt=Prompt.ask("?"), policy=policy)


def events(path):
    return [record["event"] for _, record in read(path) if record]


def test_a_decision_is_one_line_of_json_with_digests_only(tmp_path):
    path = tmp_path / "audit.jsonl"
    audit = AuditFile(path)
    audit(decision("my secret answer"), prompt=Prompt.ask("my secret question", fake_image()), policy=POLICY)
    line = path.read_text()
    assert json.loads(line)["status"] == "passed"
    assert "my secret" not in line
    assert line.count("\n") == 1
    assert path.stat().st_mode & 0o077 == 0


def test_retained_texts_are_redacted(tmp_path):
    audit = AuditFile(tmp_path / "audit.jsonl")
    secrets = {
        "mail": "jane.doe@example.org",
        "phone": "+41 (0)44 668 18 00",
        "key": "sk-proj-abcdefghijklmnop1234",
        "password": "password: hunter2",
        "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcDEF-12_3",
        "pem": "-----BEGIN PRIVATE KEY-----\nMIIB\nAAAA\n-----END PRIVATE KEY-----",
    }
    calls = (ToolCall("send", {"to": [secrets["mail"]], "n": 3}),)
    outcome = Outcome(
        "; ".join(secrets.values()), "passed", Answer("x"), answers=(Answer(" ".join(secrets.values()), calls),)
    )
    audit(outcome, prompt=Prompt.ask(f"mail {secrets['mail']} a red triangle"), policy=RETAINING)
    [(_, record)] = read(audit.path)
    dumped = json.dumps(record["text"])
    for kind, secret in secrets.items():
        assert secret not in dumped, kind
    for word in ("hunter2", "MIIB", "668"):
        assert word not in dumped
    assert record["text"]["asked"] == ["mail xxxx.xxx@example.org a red triangle"]
    masked = {"to": ["xxxx.xxx@example.org"], "n": 3}
    assert record["text"]["answers"][0]["tool_calls"] == [{"name": "send", "arguments": masked}]
    assert record["text"]["redacted"] is True


def test_an_answer_without_secrets_is_kept_word_for_word(tmp_path):
    audit = AuditFile(tmp_path / "audit.jsonl")
    write(audit, "There are 12 circles and 3 red squares, \ud800 and a \u2028.", RETAINING)
    [(_, record)] = read(audit.path)
    assert record["text"]["answers"] == ["There are 12 circles and 3 red squares, ? and a \u2028."]
    assert record["text"]["redacted"] is False


@pytest.mark.parametrize("length", [1, 40, 70_000, 200_000])
def test_a_torn_end_is_moved_aside_and_noted_before_the_next_line(tmp_path, length):
    path = tmp_path / "audit.jsonl"
    write(AuditFile(path))
    with path.open("ab") as file:
        file.write(b"x" * length)
    assert len(events(path)) == 1
    write(AuditFile(path))
    assert events(path) == ["guard.outcome", "audit.torn", "guard.outcome"]
    assert [record["bytes"] for _, record in read(path) if record["event"] == "audit.torn"] == [length]
    assert (tmp_path / "audit.jsonl.torn").read_bytes() == b"x" * length + b"\n"


def test_a_file_that_is_torn_in_its_only_line_starts_anew(tmp_path):
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b'{"crc":"00')
    write(AuditFile(path))
    assert events(path) == ["audit.torn", "guard.outcome"]


def test_a_changed_line_is_told_from_a_whole_one(tmp_path):
    path = tmp_path / "audit.jsonl"
    audit = AuditFile(path)
    for _ in range(3):
        write(audit)
    lines = path.read_text().splitlines(keepends=True)
    lines[1] = lines[1].replace("passed", "failed")
    path.write_text("".join(lines))
    assert [(number, record is None) for number, record in read(path)] == [(1, False), (2, True), (3, False)]


def killed_writer(path, name, size, told):
    """Fork a process that appends without end and tells each number once its line is written; kill it after `told`."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            audit = AuditFile(path, max_bytes=8_000_000)
            for number in range(1_000_000):
                write(audit, f"{name} {number} " + "abc " * size, RETAINING)
                os.write(writing, f"{number}\n".encode())
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading) as numbers:
        for _ in range(told):
            numbers.readline()
        yield
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        yield max([told - 1, *map(int, numbers.read().split())])


def test_kill_9_leaves_every_decision_whole_or_absent(tmp_path):
    """Twenty-four processes, three at a time, are killed amid lines of up to 240 kB."""
    path = tmp_path / "audit.jsonl"
    told = {}
    for turn in range(8):
        sizes = {"small": 10, "page": 3_000, "large": 60_000}
        writers = {
            f"{size}{'i' * turn}": killed_writer(path, f"{size}{'i' * turn}", words, 1 + turn % 3)
            for size, words in sizes.items()
        }
        for writer in writers.values():
            next(writer)
        told |= {name: next(writer) for name, writer in writers.items()}
    write(AuditFile(path), "done 0", RETAINING)
    seen = {name: [] for name in [*told, "done"]}
    for file in tmp_path.glob("audit*.jsonl"):
        for _, record in read(file):
            assert record is not None, "a line that ends in a newline is whole"
            if record["event"] == "guard.outcome":
                name, number, *_ = record["text"]["answers"][0].split()
                seen[name].append(int(number))
    for name, last in told.items():
        # What a writer was told is written stands there once; one line more may, whose news the kill cut off.
        assert sorted(seen[name]) in ([*range(last + 1)], [*range(last + 2)]), name
    assert len(told) == 24


def test_threads_and_rotation_lose_nothing(tmp_path):
    path = tmp_path / "audit.jsonl"
    audit = AuditFile(path, max_bytes=4_000)

    def work(name):
        for number in range(25):
            write(audit, f"{name} {number}", RETAINING)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    files = list(tmp_path.glob("audit*.jsonl"))
    told = [record["text"]["answers"][0] for file in files for _, record in read(file)]
    assert sorted(told) == sorted(f"{name} {number}" for name in "abcd" for number in range(25))
    assert len(files) > 5
    assert all(file.stat().st_size <= 4_000 for file in files)


def test_rotation_by_age(tmp_path):
    clock = [datetime(2026, 1, 1, tzinfo=UTC)]
    audit = AuditFile(tmp_path / "audit.jsonl", max_age=timedelta(days=1), now=lambda: clock[0])
    for hours in (0, 23, 2, 1):
        clock[0] += timedelta(hours=hours)
        write(audit)
    assert len(events(tmp_path / "audit.jsonl")) == 2
    assert len(events(tmp_path / "audit.20260102T010000.jsonl")) == 2


def test_a_line_that_the_disk_takes_in_part_is_taken_back(tmp_path, monkeypatch):
    audit = AuditFile(tmp_path / "audit.jsonl")
    write(audit)
    whole = os.write
    monkeypatch.setattr(os, "write", lambda file, data: whole(file, data[: len(data) // 2]))
    with pytest.raises(GuardError, match="full"):
        write(audit)
    monkeypatch.undo()
    write(audit)
    assert events(audit.path) == ["guard.outcome"] * 2


def test_a_missing_folder_is_told_at_the_start(tmp_path):
    with pytest.raises(GuardError, match="missing"):
        AuditFile(tmp_path / "missing" / "audit.jsonl")


def test_a_policys_change_is_a_line_too(tmp_path):
    audit = AuditFile(tmp_path / "audit.jsonl")
    audit.policy_changed(PolicyChange("p.yaml", "p@1", "p@2"))
    audit.policy_changed(PolicyChange("p.yaml", "p@2", None, "p.yaml:3: smothing: there is no such key"))
    assert events(audit.path) == ["policy.changed", "policy.refused"]
