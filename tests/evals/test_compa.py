"""CompA-order: two and three captions, the answer rule, clips and rows that cannot be used."""

from __future__ import annotations

import pytest

from sg_guardrails.core.errors import GuardError
from sg_guardrails.evals.base import Row
from sg_guardrails.evals.compa import CompaOrder, chosen, question
from sg_guardrails.evals.evaluate import evaluate
from sg_guardrails.testing import fake_audio

HEAD = "pair_file,pair_caption,reversed_pair_file,reversed_pair_caption,triplet_file,triplet_caption\n"
ROWS = (
    'a.wav,"A dog, then a bell",b.wav,A bell then a dog,-,-\n'
    "c.wav,Rain then talk,d.wav,Talk then rain,e.wav,Talk in rain\n"
    "f.wav,Alone,-,-,,\n"
)


@pytest.fixture
def data(tmp_path):
    (tmp_path / "CompA_order_benchmark.csv").write_text(HEAD + ROWS)
    (tmp_path / "CompA_order_files").mkdir()
    for name in "abcd":
        (tmp_path / "CompA_order_files" / f"{name}.wav").write_bytes(fake_audio().to_wav())
    (tmp_path / "CompA_order_files" / "e.wav").write_bytes(b"RIFF broken")
    return tmp_path


def test_every_clip_of_a_row_is_asked_about_with_all_its_captions(data):
    bench = CompaOrder.read(data)
    assert [(item.key, item.group, item.expected) for item in bench.items] == [
        ("0:pair", "two-way", "1"),
        ("0:reversed_pair", "two-way", "2"),
        ("1:pair", "three-way", "1"),
        ("1:reversed_pair", "three-way", "2"),
        ("1:triplet", "three-way", "3"),
    ]
    assert bench.items[1].prompt().question == (
        "Given the audio above, which of the following captions best describes it?\n1. A dog, then a bell\n"
        "2. A bell then a dog\nAnswer with the number (1, 2, or 3) of the best matching caption:"
    )
    # The paper's code asks so of two captions too (audio_eval/audio_caption_new.py); 3 is wrong there.
    assert question(["a", "b", "c"]).endswith("3. c\nAnswer with the number (1, 2, or 3) of the best matching caption:")
    assert [str(trouble) for trouble in bench.troubles] == ["CompA_order_benchmark.csv:4: has fewer than two captions"]


def test_the_papers_draw_asks_one_clip_per_row(data):
    # random.seed(42 + row); random.randint(0, clips - 1), as the paper's code has it: 0 in both rows.
    assert [item.key for item in CompaOrder.read(data, one_per_row=True).items] == ["0:pair", "1:pair"]


@pytest.mark.parametrize(
    ("answer", "ways", "index"),
    [("2", 2, 1), ("The answer is 3.", 3, 2), ("3", 2, None), ("0", 3, None), ("first", 3, None), ("1. Rain", 3, 0)],
)
def test_the_first_number_is_the_answer(answer, ways, index):
    assert chosen(answer, ways) == index


def test_accuracy_by_ways_and_a_corrupt_clip_reported(data, tmp_path):
    done = evaluate(CompaOrder.read(data), {"bare": lambda _: "2"}, out=tmp_path / "out").evaluation.arms["bare"]
    assert (done.scores["two-way"]["accuracy"].value, done.scores["two-way"]["accuracy"].n) == (0.5, 2)
    assert (done.scores["three-way"]["accuracy"].value, done.scores["three-way"]["accuracy"].n) == (0.5, 2)
    assert done.scores["all"]["accuracy"].n == 4
    assert done.counts["unreadable"] == 1


def test_a_stopped_answer_is_not_right(data):
    bench = CompaOrder.read(data)
    assert bench.hit(Row("0:pair", "two-way", "stopped", "1")) is False
    assert bench.hit(Row("0:pair", "two-way", "failed")) is None


def test_a_folder_without_any_of_the_clips_is_named_with_its_publisher(data):
    for clip in (data / "CompA_order_files").iterdir():
        clip.unlink()
    with pytest.raises(GuardError, match=r"CompA_order_files holds none of the 5 files.*Sreyan88/CompA"):
        CompaOrder.read(data)


def test_what_is_missing_is_named(data):
    (data / "CompA_order_benchmark.csv").write_text("a,b\n1,2\n")
    with pytest.raises(GuardError, match="lacks the columns"):
        CompaOrder.read(data)
    (data / "CompA_order_benchmark.csv").unlink()
    with pytest.raises(GuardError, match="Sreyan88/CompA"):
        CompaOrder.read(data)
