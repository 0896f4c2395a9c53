"""``sg-guardrails eval --answers``: recorded answers and reviews as a stranger would try them."""

from __future__ import annotations

import json

import pytest

SPLITS = ("random", "popular", "adversarial")


def test_recorded_pope_gives_the_published_figures(run, shared):
    folder = shared / "data" / "pope"
    code, out, err = run("pope", "--data", folder, "--answers", folder / "answers_llava_bare.jsonl", "--json")
    found = json.loads(out)
    assert code == 0
    assert list(found) == ["random", "popular", "adversarial"]
    assert all(set(five) == {"accuracy", "precision", "recall", "f1", "yes_ratio", "n"} for five in found.values())
    for split, accuracy, f1, n in (("popular", 0.8627, 0.8493, 3000), ("adversarial", 0.8403, 0.8290, 3000)):
        assert found[split]["accuracy"] == pytest.approx(accuracy, abs=5e-4)
        assert found[split]["f1"] == pytest.approx(f1, abs=5e-4)
        assert found[split]["n"] == n
        assert f"{split}: {n} rows scored, 0 unanswered, 0 unmatched" in err
    assert found["random"]["n"] == 2910
    assert "random: 2910 rows scored" in err


def test_losses_in_recorded_answers_are_counted_and_named(run, drawn, tmp_path):
    file = tmp_path / "a.jsonl"
    rows = [{"question_id": number, "text": "Yes"} for number in range(2, 37)]
    rows += [{"question_id": 2, "text": "No"}, {"question_id": 999, "text": "Yes"}]
    file.write_text("".join(json.dumps(row) + "\n\n" for row in rows) + "{broken\n")
    code, out, err = run("pope", "--data", drawn, "--answers", file, "--json")
    assert code == 0
    assert json.loads(out)["random"] == {
        "accuracy": pytest.approx(5 / 11, abs=1e-6),
        "precision": pytest.approx(5 / 11, abs=1e-6),
        "recall": 1.0,
        "f1": pytest.approx(0.625, abs=1e-6),
        "yes_ratio": 1.0,
        "n": 11,
    }
    assert "1 broken lines, 1 duplicates, 1 unanswered, 1 unmatched" in err
    for named in ("a.jsonl:75", "no question '999'", "question 2 is answered twice", "random question 1:"):
        assert named in err


def test_two_recorded_files_are_paired(run, drawn, tmp_path):
    labels = [json.loads(line)["label"] for split in SPLITS for line in (drawn / f"coco_pope_{split}.json").open()]
    for name, wrong in (("bare", 10), ("guarded", 2)):
        said = [("no" if label == "yes" else "yes") if i < wrong else label for i, label in enumerate(labels)]
        lines = [json.dumps({"question_id": i + 1, "text": text}) + "\n" for i, text in enumerate(said)]
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
    files = ("--answers", tmp_path / "bare.jsonl", "--answers", tmp_path / "guarded.jsonl")
    code, out, _ = run("pope", "--data", drawn, *files, "--out", tmp_path / "out")
    assert code == 0
    assert "all: right in both 26, only first 0, only second 8, neither 2; McNemar p 0.00781" in out
    assert (tmp_path / "out" / "report.html").exists()


def test_recorded_reviews(run, tmp_path):
    rows = [{"question_id": i, "category": "llava_bench_conv", "content": "x", "tuple": [8, 6 + i]} for i in range(2)]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, out, _ = run("llava-bench", "--data", tmp_path, "--answers", tmp_path / "r.jsonl", "--json")
    assert code == 0
    assert json.loads(out)["all"] == {"relative": 81.25, "reference": 8.0, "candidate": 6.5, "n": 2}


def test_answers_of_other_splits_are_no_loss(run, shared):
    folder = shared / "data" / "pope"
    file = folder / "answers_llava_bare.jsonl"
    code, out, err = run("pope", "--data", folder, "--answers", file, "--split", "popular", "--json")
    assert (code, list(json.loads(out)), json.loads(out)["popular"]["n"]) == (0, ["popular"], 3000)
    assert "0 broken lines, 0 duplicates, 0 unanswered, 0 unmatched" in err


def test_a_file_that_answers_nothing_is_a_failure(run, drawn, tmp_path):
    (tmp_path / "a.jsonl").write_text("[]\n")
    code, out, err = run("pope", "--data", drawn, "--answers", tmp_path / "a.jsonl", "--json")
    assert (code, json.loads(out)["random"]["n"], json.loads(out)["random"]["accuracy"]) == (2, 0, None)
    assert "nothing was scored" in err


def recorded_answers(drawn):
    """Every question of the drawn POPE answered yes, as LLaVA's script writes answers."""
    asked = [json.loads(line) for line in (drawn / "llava_pope_test.jsonl").open()]
    return [{"question_id": row["question_id"], "prompt": row["text"], "text": "Yes"} for row in asked]


def messy(rows):
    """What files from elsewhere hold: byte order mark, CRLF, blank lines, wrong types, a line twice, a torn end."""
    lines = [json.dumps(row) for row in rows]
    lines[1:1] = ["", "   ", "null", '"text"', '{"question_id": 3, "text": 7}', '{"question_id": [3], "text": "No"}']
    return ("\ufeff" + "\r\n".join([*lines, lines[0], '{"question_id": 4, "te'])).encode()


@pytest.mark.parametrize("written", [messy, lambda rows: messy(rows).decode("utf-8-sig").encode("utf-16")])
def test_whatever_a_file_holds_is_scored_or_counted_and_stdout_is_json(run, drawn, tmp_path, written):
    (tmp_path / "a.jsonl").write_bytes(written(recorded_answers(drawn)))
    code, out, err = run("pope", "--data", drawn, "--answers", tmp_path / "a.jsonl", "--json")
    assert code == 0
    assert [json.loads(out)[split]["n"] for split in SPLITS] == [12, 12, 12]
    assert "4 broken lines, 1 duplicates, 0 unanswered, 1 unmatched" in err


def test_names_out_of_a_file_give_no_orders_to_a_terminal(run, drawn, tmp_path):
    rows = recorded_answers(drawn)
    rows[0] |= {"image": "a\x1b[2J\0\ud800.jpg"}
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    code, _, err = run("pope", "--data", drawn, "--answers", tmp_path / "a.jsonl", "--out", tmp_path / "out")
    assert code == 0
    assert "a\\x1b[2J\\x00\\ud800.jpg" in err
    assert not {"\x1b", "\0"} & set(err)


def test_answers_in_pieces_of_other_layouts_are_refused_with_a_hint(run, drawn, tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(recorded_answers(drawn)))
    code, out, err = run("pope", "--data", drawn, "--answers", tmp_path / "a.json", "--json")
    assert (code, json.loads(out)["popular"]["n"]) == (2, 0)
    assert "no JSON array" in err
    code, out, err = run("pope", "--data", drawn, "--answers", tmp_path / "gone.jsonl", "--json")
    assert (code, out, err.strip()) == (2, "", f"sg-guardrails: {tmp_path / 'gone.jsonl'} is missing")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--limit", "3"], "--limit"),
        (["--model", "m/x", "--images", "."], "--model, --images"),
        (
            ["--policy", "paper", "--arm", "bare", "--device", "cpu", "--batch", "2"],
            "--policy, --device, --batch, --arm",
        ),
        (["--suffix", ""], "--suffix"),
    ],
)
def test_options_that_ask_a_model_are_refused_beside_recorded_answers(run, drawn, tmp_path, given, told):
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, recorded_answers(drawn))))
    code, out, err = run("pope", "--data", drawn, "--answers", tmp_path / "a.jsonl", *given)
    assert (code, out) == (2, "")
    assert f"leave out {told}\n" in err
    (tmp_path / "r.jsonl").write_text('{"question_id": 0, "category": "conv", "tuple": [8, 7]}\n')
    reviewed = ("llava-bench", "--data", tmp_path, "--answers", tmp_path / "r.jsonl")
    code, out, err = run(*reviewed, "--limit", "3", "--swapped", "--judge", "openai:m")
    assert (code, out) == (2, "")
    assert "leave out --limit, --judge, --swapped\n" in err


def test_reviews_without_their_folder_or_questions_are_told(run, tmp_path):
    (tmp_path / "r.jsonl").write_text('{"question_id": 0, "category": "conv", "tuple": [8, 7]}\n')
    code, out, err = run("llava-bench", "--data", "/nonexist", "--answers", tmp_path / "r.jsonl", "--json")
    assert (code, out) == (2, "")
    assert "/nonexist is missing; its owners publish it at https://huggingface.co/datasets/liuhaotian" in err
    code, out, err = run("llava-bench", "--data", tmp_path, "--answers", tmp_path / "r.jsonl", "--json")
    assert (code, json.loads(out)["all"]["n"]) == (0, 1)
    assert "1 unchecked" in err
    (tmp_path / "r.jsonl").write_text('{"question_id": 0, "category": "conv", "tuple": [-1, -1]}\n')
    code, out, err = run("llava-bench", "--data", tmp_path, "--answers", tmp_path / "r.jsonl", "--json")
    assert (code, json.loads(out)["all"]["relative"]) == (2, None)
    assert "1 undecided" in err


def test_results_that_cannot_be_written_are_one_line(run, drawn, tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text("\n".join(map(json.dumps, recorded_answers(drawn))))
    for out, told in ((file, "is a file; results need a folder"), (file / "below", "cannot be made: Not a directory")):
        code, printed, err = run("pope", "--data", drawn, "--answers", file, "--out", out, "--json")
        assert (code, printed) == (2, "")
        assert told in err.splitlines()[-1]
    page = ("compare", tmp_path / "out", "--page", file / "c.html")
    assert run("pope", "--data", drawn, "--answers", file, "--out", tmp_path / "out")[0] == 0
    assert "is a file" in run(*page)[2]
