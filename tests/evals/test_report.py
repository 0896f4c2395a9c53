"""Pages are self-contained, hold the figures, and take nothing from the data for markup."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from sg_guardrails.core.errors import GuardError
from sg_guardrails.evals.ablation import Ablation, Cell, Setting
from sg_guardrails.evals.base import Figure, Paired, Trouble
from sg_guardrails.evals.published import ASR_BY_SIGMA, published
from sg_guardrails.evals.report import interval, shown, write_ablation, write_comparison, write_report
from sg_guardrails.evals.summary import Arm, Evaluation

pytest.importorskip("matplotlib", reason="reports draw charts")
EVIL = '"><script>alert(1)</script><img src=x onerror=alert(1)>$\\frac'


class Outline(HTMLParser):
    """The tags, the texts, and the addresses that a browser would fetch."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.fetched = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.fetched += [
            value for name, value in attrs if name in ("src", "href", "xlink:href") and not value.startswith("#")
        ]

    def handle_data(self, data):
        self.words.append(data)


def evaluation(**changes):
    scores = {
        "random": {"accuracy": Figure.rate(90, 100), "f1": Figure(0.88, 100, 0.8, 0.93)},
        "popular": {"accuracy": Figure.rate(80, 100), "f1": Figure(0.78, 100, 0.7, 0.83)},
    }
    worse = {"random": {"accuracy": Figure.rate(70, 100), "f1": Figure(None, 0)}, "popular": scores["popular"]}
    whole = {
        "benchmark": "pope",
        "headline": "accuracy",
        "arms": {
            "bare": Arm(scores, 1.0, 0.1, {"answered": 200, "failed": 0}),
            "guarded": Arm(worse, 11.0, 0.8, {"answered": 199, "failed": 1}),
        },
        "title": "pope: bare, guarded",
        "about": {"model": "m/x", "policy": "default@1"},
        "paired": {"all": Paired(150, 20, 5, 24, 0.0041)},
        "troubles": (Trouble("a.jsonl:3", "not a JSON object", "broken lines"),),
        "lost": {"guarded": ["random:7: failed: ValueError"]},
    }
    return Evaluation(**(whole | changes))


def test_a_report_holds_every_figure_test_cost_and_loss(tmp_path):
    text = write_report(evaluation(), tmp_path / "r.html").read_text()
    for said in ("0.900", "0.826-0.945", "0.880", "0.0041", "11.0", "a.jsonl:3", "random:7: failed: ValueError", "m/x"):
        assert said in text
    page = Outline(text)
    assert page.fetched == []
    assert page.tags.count("svg") == 1
    assert "script" not in page.tags
    assert not re.search(r"url\((?!#)", text)


def test_names_from_data_cannot_become_markup(tmp_path):
    scores = {EVIL: {"accuracy": Figure.rate(1, 2)}}
    whole = evaluation(
        arms={EVIL: Arm(scores, 1, 1, {EVIL: 1})}, about={"model": EVIL}, paired={}, lost={EVIL: [EVIL]}, title=EVIL,
        troubles=(Trouble(EVIL, EVIL, EVIL),),
    )  # fmt: skip
    for page in (write_report(whole, tmp_path / "a.html"), write_comparison([whole], tmp_path / "b.html")):
        outline = Outline(page.read_text())
        assert "script" not in outline.tags
        assert "img" not in outline.tags


def test_runs_are_compared_with_each_other_and_with_the_papers_table(tmp_path):
    other = evaluation(about={"model": "m/y"})
    text = write_comparison([evaluation(), other], tmp_path / "c.html").read_text()
    for said in ("m/x, bare", "m/y, guarded", "LLaVA-1.5-7B (published), guarded", "0.863", "arXiv 2510.26830"):
        assert said in text
    without = write_comparison([other], tmp_path / "d.html", with_published=False).read_text()
    assert "LLaVA-1.5-7B (published)" not in without
    with pytest.raises(GuardError, match="one benchmark"):
        write_comparison([evaluation(), evaluation(benchmark="compa")], tmp_path / "e.html")


def test_runs_of_one_model_are_told_apart_by_policy_answers_or_place(tmp_path):
    model = "llava-hf/llava-1.5-7b-hf"
    runs = [
        evaluation(about={"model": model, "policy": "paper@0123456789ab"}),
        evaluation(about={"model": model, "policy": "default@ba9876543210"}),
        evaluation(about={"model": "recorded", "answers": "bare.jsonl"}),
        evaluation(about={"model": "recorded", "answers": "guarded.jsonl"}),
        *[evaluation(about={"model": "m/x", "policy": "p@1"})] * 2,
    ]
    page = Outline(write_comparison(runs, tmp_path / "c.html", with_published=False).read_text())
    said = (
        f"{model}, paper@0123456789ab, guarded", f"{model}, default@ba9876543210, guarded",
        "recorded, bare.jsonl, bare", "recorded, guarded.jsonl, bare", "m/x, p@1, run 5, bare", "m/x, p@1, run 6, bare",
        # In the chart's narrow margin too
        "llava-hf/l...paper@0123456789ab, guarded", "llava-hf/l...efault@ba9876543210, guarded",
    )  # fmt: skip
    for label in said:
        assert any(label[-25:] in word for word in page.words), label


def test_an_ablation_draws_both_curves_and_marks_the_best(tmp_path):
    cells = tuple(
        Cell(Setting(sigma, 10, "sameness"), Figure.rate(180 - i * 5, 200), Figure.rate(60 - i * 10, 200))
        for i, sigma in enumerate((0.1, 0.2, 0.3))
    )
    bare = Cell(Setting(0.0, 0, "bare"), Figure.rate(184, 200), Figure.rate(120, 200))
    whole = Ablation(cells, bare, cells[1].setting, (0.1, 0.3), {"model": "m"})
    text = write_ablation(whole, tmp_path / "a.html").read_text()
    assert Outline(text).tags.count("svg") == 2
    assert 'class="best"' in text
    assert "0.1 - 0.3" in text
    only = Ablation(
        tuple(Cell(c.setting, c.utility) for c in cells), Cell(bare.setting, bare.utility), cells[0].setting, (0.1, 0.1)
    )
    assert Outline(write_ablation(only, tmp_path / "b.html").read_text()).tags.count("svg") == 1


def test_the_published_table_is_the_papers():
    llava, qwen = published("pope")
    assert llava.arms["bare"].scores["popular"]["accuracy"].value == pytest.approx(0.863, abs=5e-4)
    assert qwen.arms["guarded"].scores["adversarial"]["f1"].value == 0.851
    assert published("llava-bench")[0].arms["guarded"].scores["complex"]["relative"].value == 99.8
    assert published("compa") == []
    assert ASR_BY_SIGMA[0.2] == 0.289


@pytest.mark.parametrize(
    ("figure", "text", "between"),
    [
        (None, "-", ""),
        (Figure(None, 0), "-", ""),
        (Figure(0.5, 4, 0.25, 0.75), "0.500", "0.250-0.750"),
        (Figure(94.1, 60, 90.0, 98.0), "94.1", "90.0-98.0"),
        (Figure(1.0, 4, 1.0, 1.0), "1.000", ""),
    ],
)
def test_figures_in_tables(figure, text, between):
    assert (shown(figure), interval(figure)) == (text, between)
