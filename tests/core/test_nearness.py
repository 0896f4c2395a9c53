"""Nearness to examples, on word counts."""

from __future__ import annotations

import numpy as np
import pytest

from sg_guardrails.core.errors import GuardError
from sg_guardrails.core.nearness import near_scorer, passages
from sg_guardrails.testing import fake_embedder


def test_the_nearest_passage_and_example_count():
    score = near_scorer(("enter your password", "send money"), fake_embedder)
    texts = ["Blue. Enter your password! Green.", "The weather is fine.", "Send money", ""]
    scores = score(texts)
    assert scores[[0, 2]] == pytest.approx(1, abs=1e-6)
    assert (scores[[1, 3]] < 0.5).all()
    assert score([]).shape == (0,)


def test_an_example_does_not_drown_in_a_long_sentence():
    filler = " ".join(f"word{at}" for at in range(100))
    long = f"{filler} enter your password {filler}"
    assert near_scorer(("enter your password",), fake_embedder)([long])[0] > 0.3
    assert fake_embedder([long])[0] @ fake_embedder(["enter your password"])[0] < 0.2


def test_every_word_stands_in_a_passage():
    text = "One two three. " + " ".join(map(str, range(57))) + "? End\nof it"
    found = {word for piece in passages(text) for word in piece.split()}
    assert found == set(text.split())
    assert passages("") == [""]


def test_examples_are_embedded_once():
    asked = []

    def embed(texts):
        asked.append(list(texts))
        return fake_embedder(texts)

    score = near_scorer(("a b",), embed)
    score(["c"])
    score(["d"])
    assert sum("a b" in texts for texts in asked) == 1


def test_an_embedder_that_gives_nonsense_is_an_error():
    with pytest.raises(GuardError, match="finite"):
        near_scorer(("a",), lambda texts: np.full((len(texts), 2), np.nan))(["b"])
