"""How often the guard replaces a right answer that is worded otherwise or says more, on clean pictures.

Run: ``python benchmarks/replaced.py [--pairs N]``. Each of N (picture, question) of easy-vqa's test pictures is
reviewed with a right candidate, one of 14 wordings a kind written by hand, by the built-in model and its policy; then a
wrong candidate in the same wording is held against the same sampled answers. Replaced means: not handed on as it is.
Questions with a negation ("is no circle present?") are left out: a plain yes or no to them is ambiguous.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from easy_vqa import get_test_image_paths, get_test_questions

from sg_guardrails import Image, Message, Outcome, Prompt
from sg_guardrails.local import local_guard
from training.shapes.probe import wilson

RESULT = Path(__file__).parent / "results" / "replaced.json"
SHAPES = ("circle", "rectangle", "triangle")
COLORS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")
MOST = 0.02
"""The project's bound for right answers replaced."""
WORDINGS = {
    "shape": (
        "{a}",
        "A {a}.",
        "It's a {a}.",
        "That is a {a}.",
        "I can see a {a}.",
        "The picture shows a {a}.",
        "The shape in the image is a {a}.",
        "Looks like a {a} to me.",
        "There is one {a} on a light background.",
        "It appears to be a {a}, drawn on a plain background.",
        "What you are looking at is a {a}.",
        "The object is a {a}. It stands out clearly against the background.",
        "This is a {a}, filled with a single color.",
        "Based on the image, the shape present is a {a}.",
    ),
    "color": (
        "{a}",
        "It's {a}.",
        "The color is {a}.",
        "That would be {a}.",
        "I'd say it is {a}.",
        "The shape is {a} in color.",
        "The shape in the picture is {a}.",
        "It appears to be {a}.",
        "It is drawn in {a}.",
        "Looks {a} to me.",
        "The object has a {a} fill on a light background.",
        "The color that you are asking about is {a}.",
        "It is {a}, against a plain background.",
        "Based on the image, the color is {a}. The rest of the picture is empty.",
    ),
    "yes": (
        "Yes.",
        "yes",
        "Yes, there is.",
        "Yes, that is right.",
        "Yes, I can see one.",
        "Yes, the picture shows one.",
        "Indeed, there is one.",
        "Yes, there is one on a light background.",
        "Correct, it is there.",
        "Yes, it does appear in the image.",
        "That is the case, yes.",
        "Yes, one is clearly visible in the picture.",
        "Yes. It stands out against the background.",
        "I can confirm that it is present.",
    ),
    "no": (
        "No.",
        "no",
        "No, there isn't.",
        "No, there is none.",
        "No, I can't see one.",
        "No, the picture does not show one.",
        "There is none in the image.",
        "No, it is not there.",
        "No, it does not appear in the image.",
        "That is not the case.",
        "No, nothing like that is visible.",
        "No, the image holds something else.",
        "No. The picture shows another one.",
        "I can confirm that it is not present.",
    ),
}


@dataclass(frozen=True, slots=True)
class Pair:
    """A question about a picture with a right and a wrong candidate."""

    prompt: Prompt
    kind: str
    right: str
    wrong: str


def pairs(count: int, seed: int) -> list[Pair]:
    """`count` pairs, as many of each kind as of any other, each on a picture of its own where there are enough."""
    questions, answers, pictures = get_test_questions()
    paths, draw = get_test_image_paths(), random.Random(seed)  # noqa: S311 - a sample, not a secret
    of: dict[str, list[int]] = {kind: [] for kind in WORDINGS}
    for index, (question, answer) in enumerate(zip(questions, answers, strict=True)):
        if not {"not", "no"} & set(question.split()):
            of["shape" if answer in SHAPES else "color" if answer in COLORS else answer].append(index)
    chosen: list[Pair] = []
    for number in range(count):
        kind = tuple(WORDINGS)[number % len(WORDINGS)]
        index = of[kind].pop(draw.randrange(len(of[kind])))
        wording = WORDINGS[kind][number // len(WORDINGS) % len(WORDINGS[kind])]
        picture = Image.open(paths[pictures[index]])
        prompt = Prompt((Message("user", (picture, questions[index])),))
        chosen.append(Pair(prompt, kind, *worded(kind, wording, answers[index], draw)))
    return chosen


def worded(kind: str, wording: str, answer: str, draw: random.Random) -> tuple[str, str]:
    """The right candidate, and a wrong one of the same kind."""
    if kind in ("yes", "no"):
        return wording, draw.choice(WORDINGS["no" if kind == "yes" else "yes"])
    other = draw.choice([value for value in (SHAPES if kind == "shape" else COLORS) if value != answer])
    return wording.format(a=answer), wording.format(a=other)


def is_replaced(outcome: Outcome) -> bool:
    """Whether the candidate is not handed on as it is."""
    return outcome.answer is None or outcome.status in ("rewritten", "blocked", "error")


def rate(hits: int, total: int) -> dict[str, float | int]:
    """The share with its 95% Wilson interval."""
    low, high = wilson(hits, total)
    return {"hits": hits, "of": total, "rate": round(hits / total, 4), "low": round(low, 4), "high": round(high, 4)}


def measure(count: int, seed: int, batch: int) -> dict[str, object]:
    """The report."""
    guard, sample = local_guard("builtin"), pairs(count, seed)
    replaced, caught, of = Counter[str](), Counter[str](), Counter(pair.kind for pair in sample)
    failures: list[dict[str, str]] = []
    for start in range(0, count, batch):
        group = sample[start : start + batch]
        for pair, outcome in zip(group, guard.review_many([(one.prompt, one.right) for one in group]), strict=True):
            if is_replaced(outcome):
                replaced[pair.kind] += 1
                majority = "" if outcome.vote is None else outcome.answers[outcome.vote.choice].text
                found = [] if outcome.verdict is None else [finding.rule for finding in outcome.verdict.findings]
                shown = {"question": pair.prompt.question, "candidate": pair.right, "majority": majority}
                failures.append({**shown, "status": outcome.status, "findings": ", ".join(found)})
            wrong = guard.decide(pair.prompt, outcome.answers, clean=outcome.clean, candidate=pair.wrong)
            caught[pair.kind] += is_replaced(wrong)
        print(f"{min(start + batch, count)} of {count}", flush=True)
    return {
        "policy": guard.policy.id,
        "pairs": count,
        "seed": seed,
        "wordings": {kind: len(wordings) for kind, wordings in WORDINGS.items()},
        "right_replaced": rate(replaced.total(), count),
        "wrong_replaced": rate(caught.total(), count),
        "right_replaced_by_kind": {kind: rate(replaced[kind], of[kind]) for kind in WORDINGS},
        "wrong_replaced_by_kind": {kind: rate(caught[kind], of[kind]) for kind in WORDINGS},
        "bound": MOST,
        "within_bound": replaced.total() / count <= MOST,
        "right_replaced_cases": failures,
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=336)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--json", type=Path, default=RESULT)
    options = parser.parse_args()
    report = measure(options.pairs, options.seed, options.batch)
    options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({key: value for key, value in report.items() if key != "wordings"}, indent=2))


if __name__ == "__main__":
    main()
