"""What a policy is said to cost: counted from its settings, and timed only where the committed benchmark did."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sg_guardrails import Policy
from sg_guardrails.cli.costs import answers, costs, factor
from sg_guardrails.core.layers import shipped

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "cost_builtin_shapes_cpu.json"


def ratios(copies, *arms):
    """The benchmark's medians for one request of so many copies."""
    rows = json.loads(RESULTS.read_text())["rows"]
    held = [row["ratio"] for row in rows if row["requests"] == 1 and row["copies"] in copies]
    return [ratio[arm] for ratio in held for arm in arms if arm in ratio]


def made(**sections):
    return Policy.parse({"name": "p", **sections})


@pytest.mark.parametrize(
    ("smoothing", "least", "most"),
    [
        ({"copies": 10}, 11, 11),
        ({"copies": 10, "include_clean": False}, 10, 10),
        ({"copies": 10, "early": "exact"}, 6, 11),
        ({"copies": 10, "early": "sequential", "alpha": 0.05}, 4, 11),
        ({"copies": 10, "adaptive": {"start_copies": 3}}, 4, 15),
    ],
)
def test_the_answers_are_counted(smoothing, least, most):
    policy = made(smoothing=smoothing)
    assert answers(policy) == (least, most)
    count = str(most) if least == most else f"{least} to {most}"
    assert next(costs(policy)).startswith(f"Cost: {count} answers")


@pytest.mark.parametrize(
    ("sections", "copies", "arms"),
    [
        ({"smoothing": {"copies": 10}}, (10,), ("full",)),
        ({"smoothing": {"copies": 4}}, (4,), ("full",)),
        ({"smoothing": {"copies": 15}}, (10, 20), ("full",)),
        ({"smoothing": {"copies": 10, "early": "exact"}}, (10,), ("early", "full")),
        ({"smoothing": {"copies": 10, "early": "sequential"}}, (10,), ("sequential", "full")),
        ({"smoothing": {"copies": 10, "early": "exact"}, "voting": {"refusal_veto": 0.1}}, (10,), ("full",)),
    ],
)
def test_the_factor_is_the_benchmarks_own(sections, copies, arms):
    policy = made(**sections)
    wanted = ratios(copies, *arms)
    found = factor(policy)
    assert (found.least, found.most, found.copies) == (min(wanted), max(wanted), copies)
    told = "\n".join(costs(policy))
    assert f"{min(wanted):.1f}" in told
    assert f"{max(wanted):.1f} times as long as a bare answer" in told
    assert "measured with builtin:shapes" in told


def test_a_draft_is_as_fast_as_a_draft_was():
    policy = made(smoothing={"copies": 10, "early": "sequential"}, voting={"draft_tokens": 16})
    assert factor(policy).least == min(ratios((10,), "draft"))


@pytest.mark.parametrize(
    "sections",
    [
        {"smoothing": {"copies": 3}},
        {"smoothing": {"copies": 21}},
        {"smoothing": {"copies": 10, "adaptive": {"start_copies": 3}}},
        {"smoothing": {"copies": 10}, "model": {"copies_per_batch": 10}},
        {"smoothing": {"copies": 10}, "model": {"endpoint": {"url": "http://localhost:1/v1"}}},
    ],
)
def test_what_was_not_measured_is_not_timed(sections):
    policy = made(**sections)
    assert factor(policy) is None
    told = "\n".join(costs(policy))
    assert "not measured" in told
    assert f"at most about {answers(policy)[1]} times" in told


@pytest.mark.parametrize("name", sorted(file.stem for file in shipped().glob("*.yaml")))
def test_every_shipped_policy_has_a_measured_factor(name):
    assert factor(Policy.load(name)) is not None


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ({"when": {"judge": {"question": "Bad?"}}}, "rule r asks the policy's model as LLM judge"),
        ({"when": {"judge": {"question": "Bad?"}}}, "(up to 5)"),
        (
            {"when": {"judge": {"question": "Bad?", "model": "ours"}, "of": "user"}},
            "rule r asks ours as LLM judge",
        ),
        ({"when": {"judge": {"question": "Bad?"}, "of": "picture"}}, "for each picture."),
        ({"when": {"judge": {"question": "Bad?"}}, "where": "candidate"}, "for each answer under review."),
        ({"when": {"words": ["x"]}, "where": "picture"}, "OCR"),
        ({"when": {"words": ["x"]}, "action": "rewrite", "rewrite": "model"}, "one more answer of the model"),
        ({"when": {"classifier": {"id": "some/model"}}}, "classifiers some/model"),
    ],
)
def test_what_is_asked_beside_the_copies_is_named(rule, told):
    assert told in "\n".join(costs(made(smoothing={"copies": 4}, rules=[{"id": "r", **rule}])))
    assert told not in "\n".join(costs(made(smoothing={"copies": 4})))
