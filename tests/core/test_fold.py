"""Text as a reader sees it, and where each of its characters comes from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sg_guardrails.core.fold import bare, plain, readable, traced


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("a\u200bb", "ab"),
        ("a\n\n b\tc", "a b c"),
        ("\uff45vil", "evil"),
        ("e\u034fvi\ufe0fl", "evil"),
        ("\ud800", "?"),
        ("", ""),
    ],
)
def test_readable(written, read):
    assert readable(written) == read


@pytest.mark.parametrize(
    "disguised",
    [
        "password",
        "PASSWORD",
        "p\u0430ssw\u043erd",  # Cyrillic a, o
        "\u0420\u0410\u0405\u0405WORD",  # Cyrillic capitals
        "pass\u03c9\u03bfrd",  # Greek omega, omicron
        "\u1d18\u1d00\ua731\ua731\u1d21\u1d0f\u0280\u1d05",  # small capitals
        "p\u00e1ssw\u00f6rd",
        "p\u00f8ssword".replace("\u00f8", "a"),
    ],
)
def test_a_word_is_bare_whatever_it_is_dressed_in(disguised):
    assert bare(readable(disguised)) == "password"


def test_plain_changes_letters_one_for_one():
    text = "Ent\u0435r y\u043eur p\u0430ssword, na\u00efve"
    assert plain(text) == "Enter your password, na\u00efve"
    assert len(plain(text)) == len(text)


@given(st.text(max_size=60))
def test_traced_reads_as_readable_does_and_points_into_the_text(text):
    for stripped in (False, True):
        seen, origin = traced(text, stripped=stripped)
        assert len(seen) == len(origin)
        assert origin == sorted(origin)
        assert all(0 <= at < len(text) for at in origin)


@given(st.text(st.characters(codec="latin-1"), max_size=40))
def test_traced_agrees_with_readable_on_latin_letters(text):
    assert traced(text)[0].split() == readable(text).split()
    assert traced(text, stripped=True)[0].split() == bare(readable(text)).split()
