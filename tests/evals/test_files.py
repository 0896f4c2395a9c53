"""Folders that cannot be written or hold nothing asked about are named; data are told apart by what is in them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sg_guardrails.core.errors import GuardError
from sg_guardrails.core.types import Prompt
from sg_guardrails.evals.base import Item
from sg_guardrails.evals.files import identity, shown, writable, write


def item(path):
    return Item("1", "random", lambda: Prompt.ask("?"), "yes", "Is there a dog?", path)


def test_data_are_told_apart_by_question_answer_and_picture(tmp_path):
    picture = tmp_path / "1.jpg"
    picture.write_bytes(b"one")
    first = identity([item(picture)])
    assert identity([item(picture)]) == first
    for change in ({"key": "2"}, {"group": "popular"}, {"expected": "no"}, {"text": "Is there a cat?"}):
        other = identity([replace(item(picture), **change)])
        assert (other["data"] != first["data"], other["media"] == first["media"]) == (True, True)
    picture.write_bytes(b"other")
    assert identity([item(picture)])["media"] != first["media"]
    moved = tmp_path / "elsewhere" / "1.jpg"
    moved.parent.mkdir()
    moved.write_bytes(b"one")
    assert identity([item(moved)]) == first  # the same picture in another folder


def test_a_folder_without_any_of_the_pictures_says_where_they_are_published(tmp_path):
    with pytest.raises(GuardError, match=r"no is missing.*example\.org"):
        shown(tmp_path / "no", [tmp_path / "no" / "a.jpg"], source="https://example.org")
    (tmp_path / "other.jpg").write_bytes(b"")
    with pytest.raises(GuardError, match=r"none of the 2 files asked about \(the first: a\.jpg\).*example\.org"):
        shown(tmp_path, [tmp_path / "a.jpg", tmp_path / "b.jpg", tmp_path / "a.jpg"], source="https://example.org")
    assert shown(tmp_path, [tmp_path / "a.jpg", tmp_path / "other.jpg"], source="") == tmp_path


def test_a_folder_that_cannot_be_made_is_told_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(GuardError, match="is a file; results need a folder"):
        writable(tmp_path / "file")
    with pytest.raises(GuardError, match=r"cannot be made: Not a directory"):
        writable(tmp_path / "file" / "below")
    with pytest.raises(GuardError, match="cannot be written"):
        write(tmp_path, "a folder is no file")


def test_what_no_encoding_can_hold_does_not_stop_a_report(tmp_path):
    assert write(tmp_path / "new" / "a.json", "half \ud800").read_text(encoding="utf-8") == "half ?"
