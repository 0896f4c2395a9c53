"""Arms on the same items, judged: what is answered anew is judged anew, and other data are refused."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property

import pytest

from sg_guardrails.core.errors import GuardError
from sg_guardrails.core.types import Prompt
from sg_guardrails.evals.base import Figure, Item
from sg_guardrails.evals.evaluate import Judge, evaluate


@dataclass(frozen=True)
class Words:
    """Questions that a judge decides about."""

    words: tuple[str, ...] = ("a", "b", "c")
    name: str = "words"
    headline: str = "rate"
    outcome: str = "good"
    troubles: tuple = ()

    @cached_property
    def items(self):
        return [Item(str(i), "all", lambda w=w: Prompt.ask(w), text=w) for i, w in enumerate(self.words)]

    def hit(self, row):
        return row.text == "good" if row.counts else None

    def scores(self, rows):
        hits = [hit for row in rows if (hit := self.hit(row)) is not None]
        return {"all": {"rate": Figure.rate(sum(hits), len(hits))}}

    def judging(self, rows):
        asked = Words()
        items = [Item(row.key, "all", lambda t=row.text: Prompt.ask(t), text=row.text) for row in rows if row.counts]
        object.__setattr__(asked, "items", items)
        return asked


def test_an_answer_that_is_asked_again_is_judged_again(tmp_path):
    bench, judged = Words(), []

    def judge(prompt):
        judged.append(prompt.question)
        return "good" if prompt.question.startswith("new") else "bad"

    def go(answer):
        return evaluate(bench, {"bare": answer}, out=tmp_path, judge=Judge("j", judge, bench.judging)).evaluation

    assert go(lambda prompt: f"old {prompt.question}").arms["bare"].scores["all"]["rate"].value == 0.0
    journal = tmp_path / "bare" / "items.jsonl"
    lines = journal.read_text().splitlines()
    journal.write_text("\n".join([lines[0], lines[1][:9], lines[2]]) + "\n")  # one answer is lost: it is asked again
    judged.clear()
    again = go(lambda prompt: f"new {prompt.question}")
    assert judged == ["new b"]  # and it alone is judged again
    assert again.arms["bare"].scores["all"]["rate"].value == pytest.approx(1 / 3)
    judged.clear()
    assert go(pytest.fail).arms == again.arms
    assert judged == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"about": {"model": "m/b", "policy": "p@1"}}, "model: m/a there, m/b now"),
        ({"about": {"model": "m/a", "policy": "p@2"}}, "policy: p@1 there, p@2 now"),
        ({"benchmark": Words(("a", "b", "x"))}, r"data: \w{16} there, \w{16} now"),
        ({"benchmark": Words(("a", "b"))}, r"data: \w{16} there, \w{16} now"),
    ],
)
def test_a_folder_of_other_data_model_or_policy_is_refused_by_name(tmp_path, change, told):
    same = {"benchmark": Words(), "about": {"model": "m/a", "policy": "p@1"}}

    def go(benchmark, about, answer):
        return evaluate(benchmark, {"bare": answer}, out=tmp_path, about=about)

    go(**same, answer=lambda _: "good")
    identity = json.loads((tmp_path / "bare" / "run.json").read_text())
    assert identity.keys() == {"benchmark", "model", "policy", "arm", "data", "media"}
    with pytest.raises(GuardError, match=rf"holds another run \({told}\); choose another folder"):
        go(**{**same, **change}, answer=pytest.fail)
    assert go(**same, answer=pytest.fail).evaluation.arms["bare"].counts["answered"] == 3


def test_other_pictures_under_the_same_names_are_refused(tmp_path):
    picture = tmp_path / "0.jpg"
    bench = Words(("a",))
    object.__setattr__(bench, "items", [Item("0", "all", lambda: Prompt.ask("a"), text="a", media=picture)])
    picture.write_bytes(b"one")
    evaluate(bench, {"bare": lambda _: "good"}, out=tmp_path / "out")
    picture.write_bytes(b"another")
    with pytest.raises(GuardError, match=r"\(media: "):
        evaluate(bench, {"bare": pytest.fail}, out=tmp_path / "out")


def test_a_file_in_the_results_place_is_named_before_anybody_is_asked(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(GuardError, match=r"file is a file; results need a folder"):
        evaluate(Words(), {"bare": pytest.fail}, out=tmp_path / "file")
