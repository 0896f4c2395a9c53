"""The parts of `benchmarks.detectors`: peers read as data, bounds chosen inside the folds, the rules' own sets."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from benchmarks.detector_folds import chosen_apart
from benchmarks.detector_peers import phrase_list
from benchmarks.detector_rules import OBLIGING, Row, Sets, distinct, outcomes
from sg_guardrails.core.policy import Policy
from training import fitting
from training.fitting import Recipe
from training.sources import Rows, Wheels

ROOT = Path(__file__).parents[2]
XSTEST = ROOT.parent / "shared" / "data" / "xstest"
SOURCE = """raise SystemExit
class Other:
    x = ["a", "b", "c"]
class Listed:
    a = ["no"]
    b = ["I cannot", "Sorry"]
"""


def test_a_peers_phrases_are_read_and_not_run(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "peer-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("peer/rules.py", SOURCE)
    assert phrase_list(tmp_path, "peer-1.0", "peer/rules.py", "Listed") == ["I cannot", "Sorry"]
    with pytest.raises(FileNotFoundError, match="pip download --no-deps peer==2"):
        phrase_list(tmp_path, "peer-2", "peer/rules.py", "Listed")


def test_a_bound_is_chosen_without_the_fold_that_it_is_used_on() -> None:
    texts = [f"{'bomb' if at % 2 else 'sun'} {at}" for at in range(100)]
    rows = Rows(texts, np.arange(100) % 2, [str(at) for at in range(100)])
    recipe = Recipe(("words",), strength=10.0)
    found = fitting.features(texts, lambda said: np.zeros((len(said), 0), np.float32), recipe)
    bounds, said = chosen_apart(found, rows, recipe)
    assert len(bounds) == fitting.FOLDS
    assert set(bounds) == {0.5}
    np.testing.assert_array_equal(said, rows.labels == 1)


def test_equal_rules_are_measured_once_and_calls_not_at_all() -> None:
    policies = {name: Policy.load(name) for name in ("default", "observe", "agent_tools")}
    data = Sets(XSTEST, Wheels(XSTEST))
    found = {rule.id: (names, policy) for policy, rule, names in distinct(policies).values()}
    assert found["answer_not_in_english"][0] == ["default", "observe", "agent_tools"]
    assert [rule.id for rule in found["answer_not_in_english"][1].rules] == ["answer_not_in_english"]
    told = {
        rule.id: [name for name, _ in data.of(rule)] for _, rule, _ in distinct(policies).values() if rule.id in TOLD
    }
    assert told == TOLD


TOLD = {"answer_not_in_english": ["short texts answered"], "call_not_unanimous": [], "no_majority": []}


def test_a_rule_fires_on_its_rows_and_has_a_score_where_a_number_decides() -> None:
    default = Policy.load("default")
    alone = {rule.id: (policy, rule) for policy, rule, _ in distinct({"default": default}).values()}
    rows = [Row("unsafe", OBLIGING, 1, safe=False), Row("harmless", OBLIGING, 0, safe=True)]

    def unsafe(texts: list[str]) -> np.ndarray:
        return np.array([0.98 if "unsafe" in text else 0.3 for text in texts], np.float32)

    def refused(texts: list[str]) -> np.ndarray:
        return np.full(len(texts), 0.1, np.float32)

    scorers = {"unsafe_request": unsafe, "refusal": refused}
    fired, scores = outcomes(*alone["complied_with_unsafe_request"], rows, scorers, refused)
    assert fired.tolist() == [True, False]
    np.testing.assert_allclose(scores, [0.9, 0.3], atol=1e-6)
    foreign = [Row("", "Der Hund liegt auf dem Sofa.", 1, safe=False), Row("", "A dog.", 0, safe=True)]
    fired, scores = outcomes(*alone["answer_not_in_english"], foreign, {}, refused)
    assert fired.tolist() == [True, False]
    assert scores is None
