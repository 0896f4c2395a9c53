"""Files of the attack commands: what cannot be written is told before the work, and nothing is harmed by the asking."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from sg_guardrails.cli.attack_files import lines, ready
from sg_guardrails.core.errors import GuardError


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("clean.png", "old.png", "old.json", "state", "questions.json"):
        Path(name).write_bytes(name.encode())
    Path("folder").mkdir()
    Path("folder.json").mkdir()
    Path("link.png").symlink_to("clean.png")
    os.link("clean.png", "twin.png")


@pytest.mark.parametrize(
    ("out", "state", "told"),
    [
        ("a.jpg", None, "ends in .png"),
        ("nowhere/a.png", None, "there is no folder nowhere"),
        ("old.png/a.png", None, "there is no folder old.png"),
        ("folder.png", None, "the report of --out, folder.json: cannot be written: Is a directory"),
        ("n" * 300 + ".png", None, "File name too long"),
        ("clean.png", None, "--out clean.png: it would be written over clean.png"),
        ("./folder/../clean.png", None, "over clean.png"),
        ("link.png", None, "over clean.png"),
        ("twin.png", None, "over clean.png"),
        ("questions.png", None, "the report of --out, questions.json: it would be written over questions.json"),
        ("a.png", "folder", "--state folder: cannot be written: Is a directory"),
        ("a.png", "nowhere/s", "--state nowhere/s: there is no folder nowhere"),
        ("a.png", "a.png", "--state a.png: it would be written over a.png"),
        ("a.png", "folder/../a.json", "over a.json"),
        ("a.png", "clean.png", "--state clean.png: it would be written over clean.png"),
        ("a.png", "s" * 252, "File name too long"),
    ],
)
def test_what_cannot_be_written_is_told_and_left_alone(out, state, told):
    before = sorted(path.name for path in Path().iterdir())
    kept, read = None if state is None else Path(state), [Path("clean.png"), Path("questions.json")]
    with pytest.raises(GuardError, match=re.escape(told)):
        ready(Path(out), ".png", state=kept, read=read)
    assert sorted(path.name for path in Path().iterdir()) == before
    assert Path("clean.png").read_bytes() == b"clean.png"


def test_what_can_be_written_is_not_touched_by_the_asking():
    before = {path: path.read_bytes() for path in Path().iterdir() if path.is_file()}
    for out, state in (("a.png", None), ("A.PNG", "s"), ("old.png", "state")):
        ready(Path(out), ".png", state=None if state is None else Path(state), read=[Path("clean.png")])
    assert {path: path.read_bytes() for path in Path().iterdir() if path.is_file()} == before


def test_lines_hold_something_and_blank_ones_count_where_numbers_do():
    Path("a.txt").write_bytes(b"\xef\xbb\xbf one\r\n\r\ntwo \r\n\r\n")
    assert lines(Path("a.txt")) == ("one", "two")
    with pytest.raises(GuardError, match="line 2 is blank"):
        lines(Path("a.txt"), all_count=True)
    Path("b.txt").write_text("one\ntwo\n\n", encoding="utf-8")
    assert lines(Path("b.txt"), all_count=True) == ("one", "two")
    Path("c.txt").write_text(" \n\n", encoding="utf-8")
    for path, told in (("c.txt", "holds no line"), ("none.txt", "cannot be read"), ("folder", "cannot be read")):
        with pytest.raises(GuardError, match=told):
            lines(Path(path))
