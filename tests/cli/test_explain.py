"""Policies in plain words: nothing that a policy can say is left unsaid."""

from __future__ import annotations

from typing import get_args

import pytest

from sg_guardrails import Policy
from sg_guardrails.cli.explain import ACTION, EARLY, FAILING, REWRITE, WHERE, WHOSE, WORDING, explain
from sg_guardrails.core import rules, terms
from sg_guardrails.core.layers import shipped
from sg_guardrails.core.policy import Smoothing
from sg_guardrails.core.types import ACTIONS

NAMES = sorted(file.stem for file in shipped().glob("*.yaml"))


def choices(model, field):
    return set(get_args(model.model_fields[field].annotation))


def kinds():
    union = get_args(terms.Condition)[0]
    return {get_args(kind)[0] for kind in get_args(union)}


def test_every_kind_of_condition_has_words():
    assert kinds() == set(WORDING)


def test_every_choice_has_words():
    assert set(ACTION) == set(ACTIONS) == choices(rules.Rule, "action")
    assert set(WHERE) == choices(rules.Rule, "where")
    assert set(REWRITE) == choices(rules.Rule, "rewrite")
    assert set(WHOSE) == choices(terms.Reads, "of")
    assert set(EARLY) == choices(Smoothing, "early")
    fields = ("on_error", "on_timeout", "on_missing_context", "unresolvable_media")
    assert set(FAILING) == set().union(*(choices(Policy, field) for field in fields))


@pytest.mark.parametrize("name", NAMES)
def test_every_rule_of_a_shipped_policy_is_told(name):
    policy = Policy.load(name)
    told = "\n".join(explain(policy))
    assert policy.hash in told
    for rule in policy.rules:
        assert rule.id in told


def test_a_condition_is_told_with_its_content():
    nested = {"all": [{"words": ["gold", "silver", "tin", "lead"]}, {"not": {"scorer": "refusal", "above": 0.3}}]}
    policy = Policy.parse({"name": "p", "rules": [{"id": "r", "when": nested, "action": "flag", "share": 0.25}]})
    told = "\n".join(explain(policy))
    for part in ("'gold', 'silver', 'tin' and 1 more", "not so that", "0.3 or more for refusal", "25%", "flagged"):
        assert part in told


def test_a_share_of_nothing_means_one():
    rule = {"id": "r", "when": {"words": ["x"]}, "share": 0}
    assert "(in at least one of them)" in "\n".join(explain(Policy.parse({"name": "p", "rules": [rule]})))


def test_observing_is_told_first():
    assert "only observes" in explain(Policy.parse({"name": "p", "mode": "observe"}))[1]
