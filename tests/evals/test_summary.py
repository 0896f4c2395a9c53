"""Summaries survive their JSON; paired tests take the items that both arms answered."""

from __future__ import annotations

import pytest

from sg_guardrails.core.errors import GuardError
from sg_guardrails.evals.base import Figure, Paired, Row, Trouble
from sg_guardrails.evals.llava_reviews import Reviews
from sg_guardrails.evals.summary import Arm, Evaluation, lost, paired, versions


def row(key, text, status="answered", group="conv"):
    return Row(key, group, status, text, copies=1, seconds=2.0)


def test_pairs_are_items_decided_in_both_arms():
    first = [row("0", "5 8"), row("1", "5 8"), row("2", "5 4"), row("3", "?"), row("4", "", "failed")]
    second = [row("1", "5 2"), row("0", "5 8"), row("2", "5 4", group="conv"), row("3", "5 5"), row("4", "5 5")]
    assert paired(Reviews(), first, second) == {"conv": Paired(1, 1, 0, 1, 1.0)}


def test_several_groups_are_tested_together_too():
    rows = [row("0", "5 8"), row("1", "5 8", group="detail")]
    assert set(paired(Reviews(), rows, rows)) == {"conv", "detail", "all"}


def test_an_arms_cost_is_the_mean_over_what_was_asked():
    rows = [row("0", "a"), Row("1", "conv", "answered", "b", copies=11, seconds=4.0), Row("2", "conv", "unreadable")]
    arm = Arm.of(rows, {}, more={"undecided": 3})
    assert (arm.copies, arm.seconds) == (6.0, 3.0)
    assert arm.counts == {"answered": 2, "stopped": 0, "failed": 0, "unreadable": 1, "undecided": 3}
    assert lost([*rows, Row("3", "conv", "failed", detail="ValueError")]) == [
        "2: unreadable: ",
        "3: failed: ValueError",
    ]


def test_a_summary_is_written_and_read_again(tmp_path):
    scores = {"all": {"accuracy": Figure.rate(3, 4), "f1": Figure(None, 0)}}
    whole = Evaluation(
        "pope", "accuracy", {"bare": Arm(scores, 1.0, 0.5, {"answered": 4})}, title="é", about={"model": "m"},
        paired={"all": Paired(1, 2, 3, 4, 0.5)}, troubles=(Trouble("a:1", "b", "c", "d"),), lost={"bare": ["x"]},
    )  # fmt: skip
    whole.write(tmp_path)
    assert Evaluation.read(tmp_path) == Evaluation.read(tmp_path / "summary.json") == whole


@pytest.mark.parametrize("text", ["", "[]", '{"arms": {"a": {}}}', '{"benchmark": "x"}'])
def test_what_is_no_summary_is_refused(tmp_path, text):
    (tmp_path / "summary.json").write_text(text)
    with pytest.raises(GuardError, match="not an evaluation"):
        Evaluation.read(tmp_path)
    with pytest.raises(GuardError, match="cannot be read"):
        Evaluation.read(tmp_path / "no")


def test_versions_name_what_a_result_depends_on():
    assert {"torch", "transformers", "numpy"} <= set(versions())
