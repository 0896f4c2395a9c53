"""What two conditions of the policy language find: nearness to examples by bound, and the language test on English.

    python benchmarks/conditions.py --xstest ../shared/data/xstest

Nearness: cosines of the default embedder between sentences of tests/data/pairs*.jsonl that were labelled as saying the
same or not (hard pairs on one subject: another colour, number or verb), and between XSTest prompts of different
subjects. Language: texts of both, all English, that are taken for another language; and the short texts of
tests/data/languages.jsonl, those of the set "after" written when the rule was fixed, with and without py3langid.
"""

from __future__ import annotations

import argparse
import csv
import json
from itertools import combinations
from pathlib import Path
from unittest.mock import patch

import numpy as np
from rich.console import Console
from rich.table import Table

from sg_guardrails.core import language
from sg_guardrails.core.language import not_english
from sg_guardrails.core.nearness import near_scorer
from sg_guardrails.core.policy import EmbedderSection
from sg_guardrails.core.terms import NEAR
from sg_guardrails.models.text import load_embedder

ROOT = Path(__file__).resolve().parents[1]
OUT = Path(__file__).parent / "results" / "conditions.json"
BOUNDS = (0.4, 0.5, NEAR, 0.7, 0.8)


def labelled() -> list[tuple[str, str, bool]]:
    """The pairs of plain sentences, and whether they say the same."""
    rows = [
        json.loads(line)
        for file in sorted((ROOT / "tests" / "data").glob("pairs*.jsonl"))
        for line in file.read_text(encoding="utf-8").splitlines()
    ]
    return [
        (row["a"], row["b"], row["same"]) for row in rows if isinstance(row["a"], str) and isinstance(row["b"], str)
    ]


def texts_of(folder: Path) -> tuple[list[tuple[str, str]], list[str]]:
    """XSTest's prompts with their subjects, and the completions."""
    prompts: list[tuple[str, str]] = []
    completions: list[str] = []
    for file in sorted(folder.glob("*.csv")):
        with file.open(encoding="utf-8", newline="") as lines:
            rows = list(csv.DictReader(lines))
        if "completion" in rows[0]:
            completions += [row["completion"] for row in rows]
        else:
            prompts += [(row["prompt"], row["focus"] or row["type"]) for row in rows]
    return prompts, completions


def nearness(pairs: list[tuple[str, str, bool]], prompts: list[tuple[str, str]]) -> dict[str, dict[str, float]]:
    """Share of same, different and unrelated pairs that are at least as near as each bound."""
    embed = load_embedder(EmbedderSection())
    found: dict[str, list[float]] = {"same": [], "different": [], "unrelated": []}
    known = sorted({text for a, b, _ in pairs for text in (a, b)})
    row = dict(zip(known, embed(known), strict=True))
    for a, b, same in pairs:
        found["same" if same else "different"].append(float(row[a] @ row[b]))
    vectors = embed([text for text, _ in prompts])
    others = [(i, j) for i, j in combinations(range(len(prompts)), 2) if prompts[i][1] != prompts[j][1]]
    found["unrelated"] = [float(vectors[i] @ vectors[j]) for i, j in others]
    counts = {name: float(len(cosines)) for name, cosines in found.items()}
    by_bound = {
        f"{bound:g}": {name: float((np.array(cosines) >= bound).mean()) for name, cosines in found.items()}
        for bound in BOUNDS
    }
    return {"pairs": counts, **by_bound}


def by_number(prompts: list[tuple[str, str]]) -> dict[str, float]:
    """Share of XSTest prompts near to any of some examples on another subject, by the number of examples."""
    embed = load_embedder(EmbedderSection())
    rng = np.random.default_rng(0)
    shares = {}
    for count in (1, 5, 20):
        near = []
        for _ in range(10):
            chosen = [prompts[at] for at in rng.choice(len(prompts), count, replace=False)]
            subjects = {subject for _, subject in chosen}
            texts = [text for text, subject in prompts if subject not in subjects]
            near.append((near_scorer(tuple(text for text, _ in chosen), embed)(texts) >= NEAR).mean())
        shares[str(count)] = float(np.mean(near))
    return shares


SCRIPTS = {"ru", "uk", "el", "zh", "ja", "ko", "ar", "he", "hi", "th"}


def short_texts() -> dict[str, dict[str, int]]:
    """Of the short texts by kind: how many there are, are told as foreign, and were by script and function words."""
    lines = (ROOT / "tests" / "data" / "languages.jsonl").read_text(encoding="utf-8").splitlines()
    kinds: dict[str, list[str]] = {}
    for row in map(json.loads, lines):
        kind = {"en": "English"}.get(row["language"], "other scripts" if row["language"] in SCRIPTS else "Latin script")
        kinds.setdefault(f"{kind}, {row['set']}", []).append(row["text"])
    result = {}
    for kind, texts in kinds.items():
        with patch.object(language, "_foreign", return_value=False):
            words = sum(map(not_english, texts))
        result[kind] = {"texts": len(texts), "flagged": sum(map(not_english, texts)), "by words alone": words}
    return result


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--xstest", type=Path, default=ROOT.parent / "shared" / "data" / "xstest")
    folder = parser.parse_args().xstest
    pairs = labelled()
    prompts, completions = texts_of(folder)
    found = nearness(pairs, prompts)
    english = {
        "xstest prompts": [text for text, _ in prompts],
        "xstest completions": completions,
        "short sentences": sorted({text for a, b, _ in pairs for text in (a, b)}),
    }
    flagged = {name: {"texts": len(said), "flagged": sum(map(not_english, said))} for name, said in english.items()}
    flagged |= short_texts()
    result = {"near": found, "near_false_by_examples": by_number(prompts), "language": flagged}
    table = Table("cosine at least", "same", "different", "unrelated", title="pairs as near as the bound")
    for bound in BOUNDS:
        shares = found[f"{bound:g}"]
        table.add_row(f"{bound:g}", *(f"{shares[name]:.1%}" for name in ("same", "different", "unrelated")))
    Console().print(table, result["near_false_by_examples"], flagged)
    OUT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
