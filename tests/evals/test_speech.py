"""Word error rate: the distance, the layout, and what cannot be read."""

from __future__ import annotations

import pytest

from sg_guardrails.core.errors import GuardError
from sg_guardrails.evals.base import Row
from sg_guardrails.evals.evaluate import evaluate
from sg_guardrails.evals.speech import Speech, plain_words, word_errors
from sg_guardrails.testing import fake_audio


@pytest.mark.parametrize(
    ("spoken", "heard", "errors"),
    [("a b c", "a b c", 0), ("a b c", "a x c", 1), ("a b c", "a c", 1), ("a b", "a b b c", 2), ("a b c", "", 3)],
)
def test_word_errors(spoken, heard, errors):
    assert word_errors(spoken.split(), heard.split()) == errors


def test_case_and_punctuation_do_not_count():
    assert plain_words("He was NOT an ill-disposed, man.") == plain_words("he was not an ill disposed man")


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "84" / "121123"
    folder.mkdir(parents=True)
    (folder / "84-121123.trans.txt").write_text("84-0 GO DO YOU HEAR\n84-1 BUT IN LESS\n\n84-2 GONE\n84-3\n84-4 X Y\n")
    for name in ("84-0", "84-1"):
        (folder / f"{name}.wav").write_bytes(fake_audio().to_wav())
    (folder / "84-4.flac").write_bytes(b"fLaC broken")
    return tmp_path


def test_rate_over_words_and_losses_named(data, tmp_path):
    bench = Speech.read(data)
    assert sorted(trouble.kind for trouble in bench.troubles) == ["broken lines", "missing clips"]
    done = evaluate(bench, {"bare": lambda _: "Go, do you hear?"}, out=tmp_path / "out").evaluation
    assert done.arms["bare"].scores["all"]["wer"].value == pytest.approx(4 / 7)  # 0 of 4, then 4 of 3
    assert done.arms["bare"].scores["all"]["exact"].value == 0.5
    assert done.arms["bare"].counts["unreadable"] == 1


def test_a_stopped_transcript_loses_every_word(data):
    bench = Speech.read(data)
    assert bench.scores([Row("84-0", "all", "stopped", "go do you hear")])["all"]["wer"].value == 1.0


def test_a_folder_without_transcripts_says_where_there_are_some(tmp_path):
    with pytest.raises(GuardError, match=r"openslr\.org"):
        Speech.read(tmp_path)
