"""Patterns and words: what the engine can't take is refused beforehand, and what is dressed up is found."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sg_guardrails.core.fold import bare, readable
from sg_guardrails.core.patterns import compiled, folded, found, narrowing, occurrences, sound, telling


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(", "not RE2"),
        ("a{1001}", "not RE2"),
        (r"(\pL{1,100}){1,10}", "too large"),
        (r"(\pL+ ){0,200}", "too large: 240,004 steps"),
        (r"[^\x00-\x{10FFFF}]", "can match no text"),
    ],
)
def test_what_no_text_should_be_searched_with_is_refused(pattern, reason):
    with pytest.raises(ValueError, match=reason) as caught:
        sound(pattern)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("pattern", ["a*", ".*", "(?s).*", "^", "(?m)$", "x|", "(?:)"])
def test_a_pattern_that_is_found_in_every_text_is_refused(pattern):
    with pytest.raises(ValueError, match="every text"):
        telling(pattern)


def test_patterns_for_a_whole_value_may_be_empty_but_not_let_everything_through():
    for pattern in ("a*", ".{1,200}", "^$", ".*"):
        assert narrowing(pattern) == pattern
    with pytest.raises(ValueError, match="every value"):
        narrowing("(?s).*")


@pytest.mark.parametrize(
    ("pattern", "text", "is_found"),
    [
        ("(?m)^password:$", "Hello.\r\n  password:  \nbye", True),
        (r"Dear user,\n+Pay", "Dear user,\n\nPay", True),
        ("enter your password", "enter your\n password", True),
        (r"\t", "a\tb", True),
        (r"\x{200b}", "a\u200bb", True),
        (r"[\x{E0000}-\x{E007F}]", "hi\U000e0041", True),
        ("evil", "ev\u200bil", True),
        ("(?m)^evil", "first\n\u0435v\u0456l", True),
        ("evil", "Evil", False),
        ("a.b", "a\n\nb", True),
        ("a  b", "a\nb", False),
        ("x", "\ud800x", True),
    ],
)
def test_texts_are_searched_as_written_and_as_read(pattern, text, is_found):
    assert found([pattern], text) is is_found


def test_case_is_folded_where_asked_unless_the_pattern_says_otherwise():
    assert found(["rm -rf"], "RM  -RF /", folds=True)
    assert not found(["(?-i)rm -rf"], "RM -RF /", folds=True)
    assert not found(["rm -rf"], "RM -RF /")


@pytest.mark.parametrize(
    ("word", "text", "places"),
    [
        ("a", "a aa a", [(0, 1), (5, 6)]),
        ("aa", "aaaa aa", [(5, 7)]),
        ("c++", "c++ c++x xc++", [(0, 3), (4, 7)]),
        ("\u70b8\u5f39", "\u5236\u70b8\u5f39\u65b9", [(1, 3)]),
        ("no", "\u00fcno no", [(4, 6)]),
    ],
)
def test_whole_words(word, text, places):
    assert list(occurrences(text, [word])) == places


@given(st.lists(st.text("ab +", min_size=1, max_size=3), min_size=1, max_size=3), st.text("ab +\u00e9", max_size=12))
def test_plain_search_finds_what_a_pattern_of_the_words_would(words, text):
    words, text = [folded(word) for word in words if folded(word)], bare(readable(text))

    def bordered(word):
        escaped = "".join(f"\\{char}" if char in "+ " else char for char in word)
        left = r"(?:^|[^\pL\pN])" if word[0].isalnum() else ""
        return left + escaped + (r"(?:$|[^\pL\pN])" if word[-1].isalnum() else "")

    assert any(occurrences(text, words)) is any(bool(compiled(bordered(word)).search(text)) for word in words)


def test_a_long_list_of_words_is_searched_as_a_short_one():
    words = [f"w{number}x" for number in range(20_000)]
    assert list(occurrences("say w19999x now", words)) == [(4, 11)]
