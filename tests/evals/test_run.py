"""A run asks every item once, whatever kills it, and loses nothing unseen."""

from __future__ import annotations

import json
import pickle
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pytest

from sg_guardrails.core.errors import GuardError, MediaError, ModelError, SamplingError
from sg_guardrails.core.media import Image
from sg_guardrails.core.types import Prompt
from sg_guardrails.evals.base import Figure, Item, Reply
from sg_guardrails.evals.run import MOST_FAILURES, Batched, Elsewhere, run, spread
from sg_guardrails.testing import fake_image

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Sums:
    """Items whose answers are known."""

    n: int = 10
    broken: tuple[int, ...] = ()
    name: str = "sums"
    headline: str = "accuracy"
    outcome: str = "right"
    troubles: tuple = ()

    @cached_property
    def items(self):
        return [Item(f"sum-{i}", f"group {i % 3}", self._prompt(i), str(i * 2)) for i in range(self.n)]

    def _prompt(self, i):
        def read():
            if i in self.broken:
                return Prompt.ask(str(i), Image.from_bytes(b"no picture"))
            return Prompt.ask(str(i))

        return read

    def hit(self, row):
        return row.text == str(int(row.key.removeprefix("sum-")) * 2) if row.counts else None

    def scores(self, rows):
        hits = [hit for row in rows if (hit := self.hit(row)) is not None]
        return {"all": {"accuracy": Figure.rate(sum(hits), len(hits))}}


def double(prompt):
    return str(int(prompt.question) * 2)


def lines(out):
    return [json.loads(line) for line in (out / "items.jsonl").read_text().splitlines()]


def test_every_item_is_asked_once_and_journalled(tmp_path):
    told = []
    done = run(Sums(), double, out=tmp_path, progress=lambda *step: told.append(step))
    assert [row.text for row in done.rows] == [str(i * 2) for i in range(10)]
    assert [line["key"] for line in lines(tmp_path)] == [f"sum-{i}" for i in range(10)]
    assert told == [(i, 10) for i in range(11)]


def test_a_finished_run_asks_nothing_again(tmp_path):
    first = run(Sums(), double, out=tmp_path)
    assert run(Sums(), pytest.fail, out=tmp_path).rows == first.rows


def test_a_torn_last_line_is_asked_again_and_no_other(tmp_path):
    run(Sums(), double, out=tmp_path)
    journal = tmp_path / "items.jsonl"
    journal.write_bytes(journal.read_bytes()[:-7])
    asked = []
    done = run(Sums(), lambda prompt: asked.append(prompt.question) or double(prompt), out=tmp_path)
    assert asked == ["9"]
    assert [line["key"] for line in lines(tmp_path)] == [f"sum-{i}" for i in range(10)]
    assert done.troubles == ()


def test_a_broken_line_amid_the_journal_is_reported_and_its_item_asked_again(tmp_path):
    run(Sums(), double, out=tmp_path)
    journal = tmp_path / "items.jsonl"
    written = journal.read_text().splitlines()
    written[4] = written[4][:20]
    written[5] = '{"nothing": 1}'
    written[6] = '{"key": ["sum-6"], "group": "group 0", "status": "answered"}'
    written[7] = '{"key": "sum-7", "group": "group 1", "status": "wonderful", "text": "14"}'
    journal.write_text("\n".join(written) + "\n")
    asked = []
    done = run(Sums(), lambda prompt: asked.append(prompt.question) or double(prompt), out=tmp_path)
    assert asked == ["4", "5", "6", "7"]
    assert [trouble.where for trouble in done.troubles] == [f"items.jsonl:{number}" for number in range(5, 9)]
    assert len(done.rows) == 10


def test_a_corrupt_picture_is_reported_and_the_others_are_answered(tmp_path):
    done = run(Sums(broken=(3, 7)), Batched(lambda prompts: [double(p) for p in prompts], 4), out=tmp_path)
    unreadable = {row.key: row.detail for row in done.rows if row.status == "unreadable"}
    assert set(unreadable) == {"sum-3", "sum-7"}
    assert "PNG" in unreadable["sum-3"]
    assert sum(row.status == "answered" for row in done.rows) == 8
    assert run(Sums(broken=(3, 7)), pytest.fail, out=tmp_path).rows == done.rows  # it would be as corrupt again


def test_one_failing_item_does_not_take_its_batch_along_and_is_asked_again_later(tmp_path):
    def ask(prompts):
        if any(prompt.question == "5" for prompt in prompts):
            raise ValueError("no")
        return [double(prompt) for prompt in prompts]

    done = run(Sums(), Batched(ask, 4), out=tmp_path)
    assert [(row.key, row.detail) for row in done.rows if row.status == "failed"] == [("sum-5", "ValueError")]
    again = run(Sums(), double, out=tmp_path)
    assert {row.status for row in again.rows} == {"answered"}
    assert len(lines(tmp_path)) == 11  # the failure stays on record, the later row counts


def test_a_wrong_number_of_answers_is_a_failure(tmp_path):
    done = run(Sums(n=2), Batched(lambda prompts: ["1"] * (len(prompts) + 1), 2), out=tmp_path)
    assert {row.status for row in done.rows} == {"failed"}


def test_a_guards_error_is_no_answer_and_a_policys_text_is_stopped(tmp_path):
    replies = iter([Reply("broke", status="error", stopped=True), Reply("I can't", status="blocked", stopped=True)])
    done = run(Sums(n=2), lambda _: next(replies), out=tmp_path)
    assert [(row.status, row.text) for row in done.rows] == [("failed", ""), ("stopped", "I can't")]
    assert [row.counts for row in done.rows] == [False, True]


def test_a_broken_model_stops_the_run(tmp_path):
    def broken(_):
        raise SamplingError("out of memory")

    with pytest.raises(SamplingError, match=f"{MOST_FAILURES} items failed in a row.*out of memory"):
        run(Sums(n=100), broken, out=tmp_path)
    assert len(lines(tmp_path)) == MOST_FAILURES

    def missing(_):
        raise ModelError("no such model")

    with pytest.raises(ModelError):
        run(Sums(), missing, out=tmp_path / "other")


def test_a_folder_takes_one_run(tmp_path):
    run(Sums(), double, out=tmp_path, about={"model": "a"})
    with pytest.raises(GuardError, match=r"another run \(model: a there, b now\)"):
        run(Sums(), double, out=tmp_path, about={"model": "b"})
    with pytest.raises(GuardError, match=r"another run \(device: none there, cpu now\)"):
        run(Sums(), double, out=tmp_path, about={"model": "a", "device": "cpu"})
    (tmp_path / "run.json").write_text("[1]")
    with pytest.raises(GuardError, match=r"run\.json is broken"):
        run(Sums(), double, out=tmp_path, about={"model": "a"})


def test_results_that_cannot_be_written_are_told_before_anything_is_asked(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "taken" / "items.jsonl").mkdir(parents=True)
    for out, told in (("file", "is a file"), ("file/below", "cannot be made"), ("taken", "cannot be written")):
        with pytest.raises(GuardError, match=told):
            run(Sums(), pytest.fail, out=tmp_path / out)


def test_an_item_whose_words_have_changed_is_asked_again(tmp_path):
    def reworded(*words):
        sums = Sums(n=3)
        object.__setattr__(sums, "items", [replace(i, text=w) for i, w in zip(sums.items, words, strict=True)])
        return sums

    run(reworded("a", "b", "c"), double, out=tmp_path)
    asked = []
    done = run(reworded("a", "x", "c"), lambda prompt: asked.append(prompt.question) or "new", out=tmp_path)
    assert (asked, [row.text for row in done.rows]) == (["1"], ["0", "new", "4"])
    assert run(reworded("a", "x", "c"), pytest.fail, out=tmp_path).rows == done.rows


def test_two_runs_on_one_folder_at_once_are_refused(tmp_path):
    def meddle(prompt):
        with pytest.raises(GuardError, match="another process"):
            run(Sums(), double, out=tmp_path)
        return double(prompt)

    assert len(run(Sums(n=1), meddle, out=tmp_path).rows) == 1


def test_a_limit_takes_from_every_group_and_grows_without_asking_again(tmp_path):
    assert [item.key for item in spread(Sums().items, 4)] == ["sum-0", "sum-1", "sum-2", "sum-3"]
    few = spread([Item(f"{g}{i}", g, lambda: Prompt(())) for g in "abc" for i in range(5)], 6)
    assert [item.key for item in few] == ["a0", "a1", "b0", "b1", "c0", "c1"]
    run(Sums(), double, out=tmp_path, limit=4)
    asked = []
    done = run(Sums(), lambda prompt: asked.append(prompt.question) or double(prompt), out=tmp_path, limit=6)
    assert (len(done.rows), asked) == (6, ["4", "5"])


def test_an_attack_changes_what_is_asked(tmp_path):
    def attack(prompt):
        return Prompt.ask(f"9{prompt.question}")

    assert [row.text for row in run(Sums(n=2), double, attack, out=tmp_path).rows] == ["180", "182"]


def test_copies_agreement_and_answers_are_kept(tmp_path):
    reply = Reply("yes", copies=3, seconds=0.5, agreement=2 / 3, answers=("yes", "no", "yes \ud800"))
    row = run(Sums(n=1), lambda _: reply, out=tmp_path).rows[0]
    assert (row.copies, row.seconds, row.agreement, row.answers) == (3, 0.5, 2 / 3, reply.answers)
    assert run(Sums(n=1), pytest.fail, out=tmp_path).rows[0] == row


def test_an_attack_that_breaks_the_picture_is_reported(tmp_path):
    def attack(_):
        raise MediaError("no pixels left")

    assert run(Sums(n=1), double, attack, out=tmp_path).rows[0].status == "unreadable"


CHILD = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("sums", {here!r})
module = module_from_spec(spec)
sys.modules["sums"] = module
spec.loader.exec_module(module)
def tell(done, total):
    print(done, flush=True)
module.run(module.Sums(n=1500), module.{answer}, out=Path({out!r}), progress=tell)
"""

by_threes = Batched(lambda prompts: [double(prompt) for prompt in prompts], 3)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
@pytest.mark.parametrize("answer", ["double", pytest.param("by_threes", marks=pytest.mark.slow)])
def test_a_killed_run_goes_on_without_loss_or_repeat(tmp_path, answer):
    script = CHILD.format(root=str(ROOT), here=__file__, out=str(tmp_path), answer=answer)
    for kill_at in (150, 600):
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as child:
            for line in child.stdout:
                if int(line) >= kill_at:
                    child.send_signal(signal.SIGKILL)
                    break
        assert child.returncode == -signal.SIGKILL
    kept = (tmp_path / "items.jsonl").read_bytes()
    kept = kept[: kept.rfind(b"\n") + 1]
    assert 600 <= kept.count(b"\n") < 1500
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    written = (tmp_path / "items.jsonl").read_bytes()
    assert written.startswith(kept)
    rows = lines(tmp_path)
    assert [row["key"] for row in rows] == [f"sum-{i}" for i in range(1500)]
    assert all(row["text"] == str(i * 2) for i, row in enumerate(rows))


def doubles():
    return Batched(lambda prompts: [double(prompt) for prompt in prompts], 3)


def unloadable():
    raise ModelError("no such model")


def backwards(make, tasks):
    """What workers do, here; what would travel is packed and unpacked, and the last result comes first."""
    tasks = pickle.loads(pickle.dumps(list(tasks)))
    job = make()
    return reversed([(task, pickle.loads(pickle.dumps(job(task)))) for task in tasks])


def without_time(rows):
    return [replace(row, seconds=0.0) for row in rows]


def test_workers_give_the_rows_of_a_run_here_in_the_benchmarks_order(tmp_path):
    sums = Sums(n=11, broken=(4,))
    here = run(sums, doubles(), out=tmp_path / "here")
    there = run(sums, Elsewhere(doubles, backwards, 3), out=tmp_path / "there")
    assert without_time(there.rows) == without_time(here.rows)
    assert there.rows[4].status == "unreadable"
    assert lines(tmp_path / "there")[0]["key"] == "sum-9"
    assert sorted(line["key"] for line in lines(tmp_path / "there")) == sorted(item.key for item in sums.items)


def test_a_batch_that_took_its_workers_down_fails_and_is_asked_again(tmp_path):
    def losing(make, tasks):
        for number, (task, rows) in enumerate(backwards(make, tasks)):
            yield task, SamplingError("3 workers died of it") if number == 1 else rows

    first = run(Sums(), Elsewhere(doubles, losing, 3), out=tmp_path)
    assert [row.key for row in first.rows if row.status == "failed"] == ["sum-6", "sum-7", "sum-8"]
    assert first.rows[6].detail == "3 workers died of it"
    again = run(Sums(), Elsewhere(doubles, backwards, 3), out=tmp_path)
    assert {row.status for row in again.rows} == {"answered"}
    assert len(lines(tmp_path)) == 10 + 3


def test_a_model_that_no_worker_can_load_ends_the_run(tmp_path):
    def each(make, tasks):
        for task in tasks:
            try:
                yield task, make()(task)
            except ModelError as error:
                yield task, error

    with pytest.raises(ModelError, match="no such model"):
        run(Sums(), Elsewhere(unloadable, each, 3), out=tmp_path)
    assert lines(tmp_path) == []


def test_workers_take_batches_as_they_can_begin_them(tmp_path):
    read = []

    @dataclass(frozen=True)
    class Noted(Sums):
        @cached_property
        def items(self):
            return [Item(str(i), "all", lambda i=i: read.append(i) or Prompt.ask(str(i))) for i in range(9)]

    def each(make, tasks):
        job = make()
        for number, task in enumerate(tasks, start=1):
            assert len(read) == 3 * number
            yield task, job(task)

    run(Noted(), Elsewhere(doubles, each, 3), out=tmp_path)
    assert read == list(range(9))


def test_a_real_picture_reaches_the_answerer(tmp_path):
    picture = fake_image(size=8)

    @dataclass(frozen=True)
    class One(Sums):
        @cached_property
        def items(self):
            return [Item("one", "all", lambda: Prompt.ask("?", picture))]

    seen = []
    run(One(), lambda prompt: seen.append(prompt.media[0].digest) or "x", out=tmp_path)
    assert seen == [picture.digest]
