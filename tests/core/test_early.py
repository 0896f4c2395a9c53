"""Early decision in numbers: how many votes are enough, and the chance of what is left out."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sg_guardrails import Finding, Policy
from sg_guardrails.core.early import enough, fewest, risk


def policy(*rules, **sections) -> Policy:
    named = [{"id": f"r{index}", "when": {"words": ["bad"]}, **rule} for index, rule in enumerate(rules)]
    return Policy.parse({"name": "p", "rules": named, **sections})


def found(rule="r0", where="winner") -> Finding:
    return Finding(rule, "general", "medium", "block", 1.0, where=where)


def test_a_majority_of_all_is_enough_where_no_rule_asks_for_more():
    assert enough(policy(), 11) == 6
    assert enough(policy(), 10) == 6
    assert enough(policy(), 1) == 1
    assert enough(policy(), 2) == 2


def test_agreement_and_abstention_ask_for_their_share():
    assert enough(policy(voting={"min_agreement": 0.6}), 11) == 7
    assert enough(policy({"when": {"agreement_below": 0.7}}), 11) == 8
    assert enough(policy({"when": {"any": [{"words": ["x"]}, {"not": {"agreement_below": 0.9}}]}}), 11) == 10
    assert enough(policy(voting={"min_agreement": 1.0}), 11) == 11


@pytest.mark.parametrize(("share", "unmatched", "matched"), [(0.5, 6, 6), (0.2, 9, 6), (0.9, 6, 10), (0.0, 11, 6)])
def test_a_rule_waits_for_what_could_still_turn_its_share(share, unmatched, matched):
    for where in ("answer", "winner", "any", "tools"):
        rules = policy({"share": share, "where": where})
        assert enough(rules, 11) == unmatched
        assert enough(rules, 11, [found(where="any" if where == "any" else "winner")]) == matched


def test_what_is_given_waits_for_nothing():
    for where in ("user", "candidate"):
        assert enough(policy({"where": where}), 11) == 6
        assert enough(policy({"where": where}), 11, [found(where=where)]) == 6
    # A finding on the candidate says nothing of the winner.
    assert enough(policy({"share": 0.2}), 11, [found(where="candidate")]) == 9


def test_other_clusters_and_other_calls_wait_for_every_copy_that_could_count():
    assert enough(policy({"where": "clusters", "over": 0.2}), 11) == 9
    assert enough(policy({"when": {"tool_calls": {"unanimous": True}}}), 11) == 11
    assert enough(policy({"when": {"tool_calls": {"denied": ["pay"]}}}), 11) == 6
    safest = {"action": "rewrite", "rewrite": "safest"}
    assert enough(policy(safest), 11) == 6
    assert enough(policy(safest), 11, [found()]) == 11


@pytest.mark.parametrize("voting", [{"method": "kmeans"}, {"method": "cosine"}, {"representative": "centroid"}])
def test_votes_whose_winner_can_be_parted_wait_for_all(voting):
    assert enough(policy(voting=voting), 11) == 11


def test_a_kind_of_condition_that_is_not_known_here_waits_for_all(monkeypatch):
    from sg_guardrails.core import early

    monkeypatch.setattr(early, "_foreseen", lambda part, held: False)
    assert enough(policy({}), 11) == 11


counts = st.tuples(st.integers(0, 8), st.integers(0, 8), st.integers(0, 12), st.integers(-2, 14))


@given(counts)
def test_the_risk_is_the_beta_binomials_tail(numbers):
    from scipy.stats import betabinom

    agreeing, against, left, lacking = numbers
    got = risk(agreeing, agreeing + against, left, lacking)
    assert got == pytest.approx(float(betabinom.cdf(lacking - 1, left, agreeing + 1, against + 1)), abs=1e-12)


def test_the_risk_by_counting():
    """Two of two agreed, two are left, one is lacking: the rate's posterior is 3 t^2, so P(none agrees) = 1/10."""
    assert risk(2, 2, 2, 1) == pytest.approx(0.1)
    assert risk(2, 2, 2, 0) == 0.0
    assert risk(0, 0, 3, 4) == 1.0
    # With nothing seen every number of agreements is equally likely.
    assert [risk(0, 0, 4, lacking) for lacking in range(6)] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])


def test_no_copies_are_spared_beyond_alpha_and_none_are_asked_within_it():
    for agreeing, left, lacking, alpha in itertools.product(range(6), range(1, 9), range(9), (0.0, 0.01, 0.05)):
        more = fewest(agreeing, agreeing, left, lacking, alpha)
        assert 0 <= more <= left
        if more < left:
            assert risk(agreeing + more, agreeing + more, left - more, lacking - more) <= alpha
        if more:
            assert risk(agreeing, agreeing, left, lacking) > alpha


def test_exact_is_sequential_without_risk():
    assert fewest(5, 5, 6, 1, 0.0) == 1
    assert fewest(5, 5, 6, 0, 0.0) == 0
    assert fewest(0, 0, 10, 5, 0.0) == 5
    assert fewest(0, 0, 10, 5, 0.02) == 3
    assert fewest(0, 0, 10, 5, 0.07) == 2
