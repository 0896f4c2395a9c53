"""LLaVA-Bench: the official prompt and parser, relative scores, both orders, recorded reviews."""

from __future__ import annotations

import json

import pytest

from sg_guardrails.core.errors import GuardError
from sg_guardrails.evals.base import Paired, Row
from sg_guardrails.evals.evaluate import Judge, evaluate
from sg_guardrails.evals.llava_bench import LlavaBench, recorded_reviews
from sg_guardrails.evals.llava_reviews import Reviews, settled
from sg_guardrails.testing import fake_image

CATEGORIES = ("conv", "detail", "complex")


@pytest.fixture
def data(tmp_path):
    def write(name, rows):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    (tmp_path / "images").mkdir()
    for name in ("001.jpg", "002.jpg"):
        (tmp_path / "images" / name).write_bytes(fake_image(size=16).to_png())
    ids = range(6)
    write("questions.jsonl", [
        {"question_id": i, "image": f"00{i % 2 + 1}.jpg", "text": f"Question {i}?", "category": CATEGORIES[i % 3]}
        for i in ids
    ])  # fmt: skip
    write(
        "context.jsonl", [{"image": "001.jpg", "caption": "A hill."}, {"image": "002.jpg", "caption": ["A", "fruit"]}]
    )
    write("answers_gpt4.jsonl", [{"question_id": i, "text": f"Reference {i}.", "answer_id": f"r{i}"} for i in ids])
    rules = {f"llava_bench_{name}": {"role": "Assistant", "prompt": f"Rate the {name}."} for name in CATEGORIES}
    (tmp_path / "rule.json").write_text(json.dumps(rules))
    return tmp_path


def judge_by_length(prompt):
    """The longer answer gets 8, the other 4, and the first place always one more."""
    first = prompt.question.split("[Assistant 1]\n")[1].split("\n\n[End")[0]
    second = prompt.question.split("[Assistant 2]\n")[1].split("\n\n[End")[0]
    return f"{8 + 1 if len(first) > len(second) else 4 + 1} {8 if len(second) > len(first) else 4}\nBecause."


def test_the_judge_is_asked_as_the_official_script_asks(data):
    bench = LlavaBench.read(data)
    prompt = bench.reviews([Row("1", "detail", "answered", "My answer.")]).items[0].prompt()
    assert prompt.messages[0].role == "system"
    assert prompt.question == (
        "[Context]\nA\nfruit\n\n[Question]\nQuestion 1?\n\n[Assistant 1]\nReference 1.\n\n[End of Assistant 1]\n\n"
        "[Assistant 2]\nMy answer.\n\n[End of Assistant 2]\n\n[System]\nRate the detail.\n\n"
    )


def test_bare_and_guarded_are_judged_and_the_raw_reviews_kept(data, tmp_path):
    bench = LlavaBench.read(data)
    arms = {"bare": lambda _: "Long answer, longer than it.", "guarded": lambda _: "Short."}
    judge = Judge("length", judge_by_length, bench.reviews)
    out = tmp_path / "out"
    done = evaluate(bench, arms, out=out, judge=judge).evaluation
    assert done.arms["bare"].scores["all"]["relative"].value == pytest.approx(100 * 8 / 5)
    assert done.arms["guarded"].scores["conv"]["relative"].value == pytest.approx(100 * 4 / 9)
    assert done.arms["bare"].scores["all"]["relative"].n == 6
    assert (done.paired["all"].only_first, done.paired["all"].only_second) == (6, 0)
    raw = [json.loads(line) for line in (out / "bare-judged" / "items.jsonl").read_text().splitlines()]
    assert {row["text"] for row in raw} == {"5 8\nBecause."}
    again = evaluate(
        bench, dict.fromkeys(arms, pytest.fail), out=out, judge=Judge("length", pytest.fail, bench.reviews)
    )
    assert again.evaluation.arms == done.arms


def test_both_orders_cancel_a_judges_liking_for_a_place(data, tmp_path):
    bench = LlavaBench.read(data)
    equal = {"bare": lambda prompt: f"Reference {prompt.question[9]}."}

    def first_is_best(_):
        return "9 6"

    judge = Judge("first", first_is_best, lambda rows: bench.reviews(rows, swapped=True), settled)
    done = evaluate(bench, equal, out=tmp_path / "out", judge=judge).evaluation
    assert done.arms["bare"].scores["all"]["relative"].value == pytest.approx(100)
    one = evaluate(bench, equal, out=tmp_path / "one", judge=Judge("first", first_is_best, bench.reviews)).evaluation
    assert one.arms["bare"].scores["all"]["relative"].value == pytest.approx(100 * 6 / 9)


def test_a_question_judged_in_both_orders_is_one_pair_of_the_paired_test(data, tmp_path):
    """The reference is 8 to 6 where it stands first and 6 to 7 where it stands second: the mean decides."""
    bench = LlavaBench.read(data)

    def judge(prompt):
        candidate_first = "[Assistant 1]\nGood" in prompt.question or "[Assistant 1]\nBad" in prompt.question
        if "Bad" in prompt.question:
            return "2 8" if candidate_first else "8 2"
        return "9 5" if candidate_first else "8 6"

    arms = {"bare": lambda _: "Bad.", "guarded": lambda _: "Good."}
    asks = Judge("j", judge, lambda rows: bench.reviews(rows, swapped=True), settled)
    done = evaluate(bench, arms, out=tmp_path / "out", judge=asks)
    assert done.evaluation.paired["all"] == Paired(0, 0, 6, 0, 2 / 2**6)
    assert done.evaluation.arms["guarded"].scores["all"]["relative"].value == pytest.approx(100 * 7.5 / 6.5)
    assert [row.key for row in done.verdicts["bare"]] == [str(i) for i in range(6)]
    raw = (tmp_path / "out" / "bare-judged" / "items.jsonl").read_text().splitlines()
    assert len(raw) == 12  # both orders are kept in the judge's own words


def test_one_order_without_scores_leaves_the_question_undecided(data, tmp_path):
    bench = LlavaBench.read(data)
    judge = Judge(
        "half",
        lambda prompt: "8 7" if "[Assistant 1]\nReference" in prompt.question else "Both are fine.",
        lambda rows: bench.reviews(rows, swapped=True),
        settled,
    )
    arm = evaluate(bench, {"bare": lambda _: "An answer."}, out=tmp_path / "out", judge=judge).evaluation.arms["bare"]
    assert (arm.counts["undecided"], arm.scores["all"]["relative"].value) == (6, None)


@pytest.mark.parametrize("review", ["8, 7\nx", "8 7", "8.0 7.0\n"])
def test_scores_are_read_from_the_first_line(review):
    figures = Reviews().scores([Row("0", "conv", "answered", review)])["conv"]
    assert figures["relative"].value == pytest.approx(100 * 7 / 8)


@pytest.mark.parametrize("review", ["", "Both are good.", "8", "8 7 6", "-1 -1", "8 7/10", "nan 7", "8 70"])
def test_a_review_without_two_scores_is_undecided_not_scored(review):
    row = Row("0", "conv", "answered", review)
    assert Reviews().hit(row) is None
    assert Reviews().scores([row])["all"]["relative"].value is None


def test_recorded_reviews_are_scored_as_the_official_summary_does(data, tmp_path):
    rows = [
        {"question_id": 0, "category": "llava_bench_conv", "content": "8 5\n\nwords", "tuple": [8.0, 5.0]},
        {"question_id": 1, "category": "llava_bench_detail", "content": "8 7", "tuple": [8.0, 7.0]},
        {"question_id": 2, "content": "9 9\nno category, no tuple"},
        {"question_id": 3, "category": "llava_bench_conv", "content": "??", "tuple": [-1, -1]},
        {"question_id": 1, "category": "llava_bench_detail", "tuple": [1, 9]},
        {"question_id": 77, "category": "llava_bench_conv", "tuple": [1, 9]},
    ]
    file = tmp_path / "reviews.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{broken\n")
    found, troubles = recorded_reviews(file, data=data)
    scores = Reviews(official=True).scores(found)
    assert scores["all"]["relative"].value == pytest.approx(100 * (5 + 7 + 9 - 1) / (8 + 8 + 9 - 1))
    assert scores["conv"]["relative"].value == pytest.approx(100 * (5 - 1) / (8 - 1))
    assert sorted(trouble.kind for trouble in troubles) == sorted(
        ["broken lines", "undecided", "duplicates", "unmatched", "unanswered", "unanswered"]
    )


def review(tmp_path, *lines, data=None):
    file = tmp_path / "reviews.jsonl"
    file.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    rows, troubles = recorded_reviews(file, data=data)
    return Reviews().scores(rows), [(trouble.kind, trouble.where) for trouble in troubles]


def test_reviews_without_category_or_id_count_as_the_official_summary_counts_them(tmp_path):
    conv = {"question_id": 0, "category": "llava_bench_conv", "tuple": [8, 4]}
    scores, troubles = review(
        tmp_path,
        conv,
        {"question_id": 1, "tuple": [8, 8]},
        {"question_id": 2, "category": "other", "tuple": [8, 8]},
        {"question_id": 3, "category": ["conv"], "tuple": [8, 8]},
        {"question_id": None, "category": "conv", "tuple": [8, 8]},
        {"category": "conv", "tuple": [8, 8]},
        {"question_id": {"id": 1}, "category": "conv", "tuple": [8, 8]},
    )
    assert scores["all"]["relative"].value == pytest.approx(100 * 52 / 56)
    assert scores["conv"]["relative"].value == pytest.approx(100 * 28 / 32)
    assert scores.keys() == {"all", "conv"}
    assert troubles == [("without category", f"reviews.jsonl:{n}") for n in (2, 3, 4)] + [
        ("without id", f"reviews.jsonl:{n}") for n in (5, 6, 7)
    ]


def test_scores_stand_under_tuple_score_or_in_the_judges_words(tmp_path):
    base = {"category": "conv"}
    scores, troubles = review(
        tmp_path,
        {**base, "question_id": 0, "score": [8, 4]},
        {**base, "question_id": 1, "tuple": None, "content": "8 6\nwords"},
        {**base, "question_id": 2, "tuple": [-1, -1], "content": "Error."},  # the official parser's failure
        {**base, "question_id": 3, "tuple": [-1, 5]},
        {**base, "question_id": 4, "tuple": ["8", "7"]},
        {**base, "question_id": 5, "tuple": [True, 7]},
        {**base, "question_id": 6, "tuple": [8]},
        {**base, "question_id": 7, "content": 5},
        '{"question_id": 8, "tuple": [NaN, 7]}',
        '{"question_id": 9, "tup',
    )
    assert (scores["all"]["relative"].value, scores["all"]["relative"].n) == (pytest.approx(100 * 10 / 16), 2)
    assert sorted(kind for kind, _ in troubles) == ["broken lines"] + ["undecided"] * 7


def test_a_missing_folder_is_refused_and_missing_questions_are_told(tmp_path):
    line = {"question_id": 0, "category": "conv", "tuple": [8, 4]}
    with pytest.raises(GuardError, match=r"no is missing.*llava-bench-in-the-wild"):
        review(tmp_path, line, data=tmp_path / "no")
    assert review(tmp_path, line, data=tmp_path)[1] == [("unchecked", "questions.jsonl")]


# The judge's scores in two of the authors' files (GuangzhiSu/SmoothGuard), with their published figures:
# llava-reviews-new.jsonl (LLaVA-1.5-7B guarded) and Qwen2.5-reviews-normal.jsonl (Qwen2.5-VL-7B bare). -1 -1
# stands where the judge gave no two scores.
GUARDED_LLAVA = {
    "conv": "8 5,8 5,7 6,8 9,8 7,8 9,8 7,8 7,7 6,7 8,7 6,8 7,8 5,8 7,8 7,8 5,8 9",
    "detail": "8 9" + ",8 7" * 14,
    "complex": "8 7.5,-1 -1" + ",8 9" * 13 + ",8 7" * 13,
}


BARE_QWEN = {
    "conv": "8 9,8 9,8 9,8 7,8 7,8 9,8 9,8 7,8 9,8 7,7 8,8 7,8 7,8 9,8 9,8 7,8 9",
    "detail": "-1 -1,8 7" + ",8 9" * 13,
    "complex": "-1 -1,7 8,8 7.5,8 7.5" + ",8 9" * 13 + ",8 7" * 11,
}


@pytest.mark.parametrize(
    ("reviews", "published", "without"),
    [
        (GUARDED_LLAVA, {"all": 93.5, "conv": 87.1, "detail": 89.2, "complex": 99.8}, 1),
        (BARE_QWEN, {"all": 103.7, "conv": 102.2, "detail": 110.8, "complex": 100.9}, 2),
    ],
)
def test_the_authors_sixty_reviews_give_the_published_figures(tmp_path, reviews, published, without):
    file, rows = tmp_path / "reviews.jsonl", []
    for category, scores in reviews.items():
        for pair in scores.split(","):
            given = [float(part) for part in pair.split()]
            rows.append(
                {"question_id": len(rows), "category": f"llava_bench_{category}", "content": "", "tuple": given}
            )
    assert len(rows) == 60
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found, troubles = recorded_reviews(file)
    scores = Reviews(official=True).scores(found)
    assert {name: round(figures["relative"].value, 1) for name, figures in scores.items()} == published
    assert scores["all"]["relative"].n == 60
    assert [trouble.kind for trouble in troubles] == ["undecided"] * without
    assert sum(Reviews(official=True).hit(row) is None for row in found) == without


def test_a_review_without_scores_alone_scores_nothing(tmp_path):
    file = tmp_path / "reviews.jsonl"
    file.write_text(json.dumps({"question_id": 0, "category": "conv", "tuple": [-1, -1]}))
    rows, _ = recorded_reviews(file)
    assert Reviews(official=True).scores(rows)["all"]["relative"].value is None
    assert Reviews().scores(rows)["all"]["relative"].n == 0


def test_what_is_missing_is_named_with_its_source(data):
    (data / "rule.json").unlink()
    with pytest.raises(GuardError, match=r"rule\.json is missing.*LLaVA"):
        LlavaBench.read(data)


def test_questions_that_cannot_be_judged_are_named(data):
    (data / "context.jsonl").write_text(json.dumps({"image": "001.jpg", "caption": "A hill."}) + "\n{\n")
    bench = LlavaBench.read(data)
    assert [question.id for question in bench.questions] == ["0", "2", "4"]
    assert sorted(trouble.kind for trouble in bench.troubles) == ["broken lines", *["unmatched"] * 3]


def test_a_corrupt_picture_is_reported_and_not_judged(data, tmp_path):
    (data / "images" / "002.jpg").write_bytes(b"\x89PNG broken")
    bench = LlavaBench.read(data)
    judge = Judge("length", judge_by_length, bench.reviews)
    done = evaluate(bench, {"bare": lambda _: "An answer."}, out=tmp_path / "out", judge=judge)
    assert done.evaluation.arms["bare"].counts["unreadable"] == 3
    assert done.evaluation.arms["bare"].scores["all"]["relative"].n == 3
    assert len(done.evaluation.lost["bare"]) == 3
