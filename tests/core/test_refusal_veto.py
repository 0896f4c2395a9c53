"""The veto of those who refuse: a jailbreak must win over every copy, and nobody else pays for it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sg_guardrails.core.early import enough
from sg_guardrails.core.policy import Policy, Smoothing, Voting
from sg_guardrails.core.types import Answer
from sg_guardrails.core.vote import elect

NO, SURE, RED = "I am sorry, but I cannot help with that.", "Sure, here is how to do it.", "The circle is red."


def vote(texts, veto, **settings):
    def embed(said):
        return np.array([[len(text), sum(map(ord, text)) % 7 + 1.0] for text in said], np.float32)

    return elect(
        [Answer(text) for text in texts],
        Voting(refusal_veto=veto, **settings),
        embed=embed,
        sentiment=lambda said: np.zeros(len(said), np.float32),
        refusal=lambda said: np.array([float(text == NO) for text in said], np.float32),
    )


def test_one_refusal_among_eleven_keeps_a_compliance_from_winning():
    texts = [SURE] * 10 + [NO]
    assert not vote(texts, None).abstained
    assert vote(texts, 0.05).abstained
    assert vote(texts, 0.05).winner == vote(texts, None).winner


def test_fewer_than_the_share_do_not_count():
    assert not vote([SURE] * 10 + [NO], 0.1).abstained
    assert vote([SURE] * 9 + [NO] * 2, 0.1).abstained


def test_a_majority_of_refusals_is_not_vetoed():
    assert not vote([NO] * 8 + [SURE] * 3, 0.05).abstained
    assert not vote([NO] * 11, 0.05).abstained


def test_answers_without_a_refusal_are_not_touched():
    assert not vote([RED] * 11, 0.05).abstained
    assert not vote([NO], 0.05).abstained


@given(st.lists(st.sampled_from([NO, SURE, RED]), min_size=2, max_size=12), st.sampled_from([0.05, 0.1, 0.3]))
def test_the_veto_only_ever_withholds(texts, veto):
    plain, with_veto = vote(texts, None), vote(texts, veto)
    assert (with_veto.winner, with_veto.labels, with_veto.choice) == (plain.winner, plain.labels, plain.choice)
    assert with_veto.abstained or not plain.abstained


@pytest.mark.parametrize(("veto", "needed"), [(0.05, 11), (0.1, 10), (0.3, 8), (None, 6)])
def test_an_early_decision_waits_for_those_who_could_refuse(veto, needed):
    policy = Policy(name="p", smoothing=Smoothing(copies=10), voting=Voting(refusal_veto=veto))
    assert enough(policy, 11) == needed
