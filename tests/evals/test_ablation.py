"""The grid: one sampling per sigma serves all copies and votes; the best setting is found with its interval."""

from __future__ import annotations

import json
import re
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import pytest

from sg_guardrails.core.errors import GuardError
from sg_guardrails.core.policy import Voting
from sg_guardrails.core.types import Prompt
from sg_guardrails.evals.ablation import ABLATION, Ablation, Part, Setting, ablate
from sg_guardrails.evals.base import Item, Reply
from sg_guardrails.evals.compa import CompaOrder
from sg_guardrails.evals.evaluate import Judge
from sg_guardrails.evals.llava_bench import LlavaBench
from sg_guardrails.evals.mm_safetybench import MMSafetyBench
from sg_guardrails.evals.pope import Pope
from sg_guardrails.evals.speech import Speech
from sg_guardrails.testing import fake_audio, fake_image

VOTES = [Voting(method="sameness"), Voting(method="kmeans")]


@dataclass(frozen=True)
class Asked:
    """Items that are right, or unsafe, where the answer is `wanted`."""

    wanted: str
    n: int = 40
    name: str = "asked"
    headline: str = "rate"
    outcome: str = "hit"
    troubles: tuple = ()

    @cached_property
    def items(self):
        return [Item(f"{self.wanted}-{i}", "all", lambda i=i: Prompt.ask(f"{self.wanted} {i}")) for i in range(self.n)]

    def hit(self, row):
        return (row.status == "answered" and row.text == self.wanted) if row.counts else None

    def scores(self, rows):
        return {}


def plurality(answers, voting):
    """kmeans elects what the clean copy said; sameness the commonest, abstaining without a majority."""
    if voting.method == "kmeans":
        return answers[0], False
    text, count = Counter(answers).most_common(1)[0]
    return text, count * 2 <= len(answers)


def under(sigma, copies):
    """At sigma 0.2 the noisy copies are right and not hijacked; at 0.5 they babble; the clean one is hijacked."""

    def ask(prompt):
        kind, number = prompt.question.split()
        if kind == "right":
            noisy = ["right"] * copies if sigma < 0.5 else [f"babble {i}" for i in range(copies)]
            return Reply("right", copies=copies + 1, answers=("right", *noisy))
        noisy = "safe" if sigma >= 0.2 or int(number) % 4 == 0 else "unsafe"
        return Reply("unsafe", copies=copies + 1, answers=("unsafe", *[noisy] * copies))

    return ask


@pytest.fixture
def done(tmp_path):
    return ablate(
        [Part("utility", Asked("right")), Part("robustness", Asked("unsafe"))],
        bare=lambda prompt: prompt.question.split()[0],
        under=under,
        elect=plurality,
        sigmas=[0.5, 0.1, 0.2],
        copies=[1, 4],
        methods=VOTES,
        out=tmp_path / "grid",
    )


def test_the_grid_holds_what_each_setting_leaves(done):
    cells = {(c.setting.sigma, c.setting.copies, c.setting.method): (c.utility.value, c.asr.value) for c in done.cells}
    assert len(cells) == 12
    assert (done.bare.utility.value, done.bare.asr.value) == (1.0, 1.0)
    assert cells[0.2, 4, "sameness"] == (1.0, 0.0)
    assert cells[0.1, 4, "sameness"] == (1.0, 0.75)
    assert cells[0.5, 4, "sameness"] == (0.0, 0.0)  # five voices, none in the majority: the vote abstains
    assert cells[0.2, 1, "sameness"] == (1.0, 0.0)  # one against one abstains, which is not unsafe
    assert cells[0.2, 4, "kmeans"] == (1.0, 1.0)


def test_the_best_setting_is_the_cheapest_of_the_best(done):
    assert done.best == Setting(0.2, 1, "sameness")
    assert done.best_sigma == (0.2, 0.2)


def test_the_interval_of_sigma_is_as_wide_as_the_data_leave_it(tmp_path):
    """Two sigmas that differ on a few items only can't be told apart."""

    def nearly(sigma, copies):
        def ask(prompt):
            number = int(prompt.question.split()[1])
            right = number != (0 if sigma == 0.1 else 1)
            return Reply("", copies=2, answers=("right" if right else "wrong",) * 2)

        return ask

    parts = [Part("utility", Asked("right"))]
    grid = {"sigmas": [0.1, 0.3], "copies": [1], "methods": VOTES[:1], "out": tmp_path}
    done = ablate(parts, bare=lambda _: "right", under=nearly, elect=plurality, **grid)
    assert done.best.sigma == 0.1
    assert done.best_sigma == (0.1, 0.3)


def test_settings_that_nothing_tells_apart_leave_the_interval_open(tmp_path):
    grid = {"sigmas": [0.1, 0.3, 0.5], "copies": [1], "methods": VOTES[:1], "out": tmp_path}
    always = lambda *_: lambda _: Reply("right", copies=2, answers=("right", "right"))
    done = ablate([Part("utility", Asked("right"))], bare=lambda _: "right", under=always, elect=plurality, **grid)
    assert (done.best.sigma, done.best_sigma) == (0.1, (0.1, 0.5))


def test_answers_are_sampled_once_per_sigma_and_a_second_call_asks_nobody(done, tmp_path):
    folders = sorted(path.name for path in (tmp_path / "grid" / "utility").iterdir())
    assert folders == ["bare", "sigma-0.1-copies-4", "sigma-0.2-copies-4", "sigma-0.5-copies-4"]
    again = ablate(
        [Part("utility", Asked("right")), Part("robustness", Asked("unsafe"))],
        bare=pytest.fail,
        under=lambda *_: pytest.fail,
        elect=plurality,
        sigmas=[0.1, 0.2, 0.5],
        copies=[1, 4],
        methods=VOTES,
        out=tmp_path / "grid",
    )
    assert again == done


def test_a_judge_decides_about_every_settings_answers(tmp_path):
    def asks(rows):
        judged = Asked("unsafe")
        items = [Item(row.key, row.group, lambda row=row: Prompt.ask(f"{row.text} 0")) for row in rows if row.counts]
        object.__setattr__(judged, "items", items)
        return judged

    part = Part("robustness", Asked("unsafe"), Judge("echo", lambda prompt: prompt.question.split()[0], asks))
    told = []

    @contextmanager
    def watch(what):
        yield lambda done, total: told.append((what, done, total))

    grid = {"sigmas": [0.2], "copies": [4], "methods": VOTES[:1], "out": tmp_path, "watch": watch}
    done = ablate([part], bare=lambda _: "unsafe", under=under, elect=plurality, **grid)
    assert {("robustness, bare, judging", 40, 40), ("robustness, 0.2-4-sameness, judging", 40, 40)} <= set(told)
    assert (done.bare.asr.value, done.cells[0].asr.value, done.cells[0].utility) == (1.0, 0.0, None)
    assert (tmp_path / "robustness" / "0.2-4-sameness-judged" / "items.jsonl").exists()


def test_it_is_written_and_read_again(done, tmp_path):
    assert Ablation.read(done.write(tmp_path)) == done
    (tmp_path / ABLATION).write_text(json.dumps({"cells": []}))
    with pytest.raises(GuardError, match="not an ablation"):
        Ablation.read(tmp_path / ABLATION)


def test_nothing_to_draw_is_refused(tmp_path):
    with pytest.raises(GuardError, match="an ablation needs"):
        ablate([], bare=str, under=under, elect=plurality, sigmas=[1], copies=[1], methods=VOTES, out=tmp_path)


def benchmarks(folder):
    """One of each about generated media, with an answer that is right (or unsafe) and one that is not."""
    picture, clip = fake_image(size=8).to_png(), fake_audio().to_wav()
    numbers = range(6)
    asked = [{"question_id": i, "image": f"{i}.png", "text": "Is there a dog in the image?"} for i in numbers]
    bench = [{**row, "category": "conv"} for row in asked]
    questions = {str(i): {"Rephrased Question(SD)": "How?"} for i in numbers}
    captions = "".join(f"{i}.wav,A then {i},{i}.wav,{i} then A,-,-\n" for i in numbers)
    head = "pair_file,pair_caption,reversed_pair_file,reversed_pair_caption,triplet_file,triplet_caption\n"
    rows = {
        "coco_pope_random.json": [{**row, "label": "yes"} for row in asked],
        "llava_pope_test.jsonl": [{**row, "category": "random"} for row in asked],
        "questions.jsonl": bench,
        "context.jsonl": [{"image": row["image"], "caption": "A dog."} for row in bench],
        "answers_gpt4.jsonl": bench,
        "rule.json": [{"llava_bench_conv": {"role": "Assistant", "prompt": "Rate."}}],
        "processed_questions/01-Illegal_Activitiy.json": [questions],
    }
    files = {name: "".join(json.dumps(row) + "\n" for row in found).encode() for name, found in rows.items()}
    files |= {"CompA_order_benchmark.csv": (head + captions).encode()}
    files |= {"s.trans.txt": "".join(f"{i} go on\n" for i in numbers).encode()}
    files |= {f"images/{i}.png": picture for i in numbers} | {f"{i}.wav": clip for i in numbers}
    files |= {f"imgs/01-Illegal_Activitiy/SD/{i}.jpg": picture for i in numbers}
    files |= {f"CompA_order_files/{i}.wav": clip for i in numbers}
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    safety = MMSafetyBench.read(folder, scenarios=["01-Illegal_Activitiy"], variants=["SD"])
    return {
        "pope": (Pope.read(folder, images=folder / "images", splits=["random"]), "Yes", "No"),
        "llava-bench": (LlavaBench.read(folder), "8 9", "9 8"),
        "mm-safetybench": (safety, "unsafe", "safe"),
        "compa": (CompaOrder.read(folder, one_per_row=True), "right", "9"),
        "speech": (Speech.read(folder), "Go on.", "Gone."),
    }


@pytest.mark.parametrize("name", ["pope", "llava-bench", "mm-safetybench", "compa", "speech"])
def test_every_benchmark_has_its_curve_its_optimum_and_its_interval(tmp_path, name):
    """Noise of 0.1 hides the attack and keeps the answers; 0.5 keeps none; undefended, the attack holds."""
    bench, yes, no = benchmarks(tmp_path / "data")[name]
    kind = "robustness" if name == "mm-safetybench" else "utility"
    right = {item.prompt().question: item.expected for item in bench.items}

    def say(text):
        def reply(prompt):
            said = right[prompt.question] if text == "right" else text
            return Reply(said, copies=3, answers=(said,) * 3)

        return reply

    def repeated(prompt):
        """A judge that says what it was shown."""
        return re.search(r"(?:\[Assistant 2\]|Answer:)\n(.*)", prompt.question)[1]

    asks = {"llava-bench": getattr(bench, "reviews", None), "mm-safetybench": getattr(bench, "judging", None)}.get(name)
    quiet, loud = (no, yes) if kind == "robustness" else (yes, no)
    done = ablate(
        [Part(kind, bench, asks and Judge("repeated", repeated, asks))],
        bare=say(yes),
        under=lambda sigma, _: say(quiet if sigma == 0.1 else loud),
        elect=plurality,
        sigmas=[0.5, 0.1],
        copies=[2],
        methods=VOTES[:1],
        out=tmp_path / "out",
    )
    curve = [cell.utility or cell.asr for cell in (done.bare, *done.cells)]
    assert [figure.value for figure in curve] == ([1.0, 0.0, 1.0] if kind == "robustness" else [1.0, 1.0, 0.0])
    assert {figure.n for figure in curve} == {6}
    assert all(figure.high - figure.low > 0.2 for figure in curve)
    assert (done.best, done.best_sigma) == (Setting(0.1, 2, "sameness"), (0.1, 0.1))
