"""Scores the vote's sense of sameness on labelled answer pairs, beside plain cosine and the paper's KMeans.

Run: ``python benchmarks/sameness.py [--pairs FILE]``. A line is ``{"family": ..., "a": ..., "b": ..., "same": bool}``,
an answer a string or ``{"text": ..., "tool_calls": [...]}``; an optional ``"split"`` is ``dev`` (tuned on) or ``test``.

- ours: the default policy's vote on [a, b]; same where both get one label.
- cosine: one threshold for all families, the one with the best accuracy on the dev pairs of the committed table.
- paper: KMeans k=2 over 5 copies of a and 5 of b, same where a and b get one label. With two distinct answers k=2
  always splits, so it is right on exactly the pairs that differ: that is the method, not a fault of this script.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from sg_guardrails.core.policy import EmbedderSection, Voting
from sg_guardrails.core.types import Answer, Embedder, Scorer
from sg_guardrails.core.vote import contradicts, elect
from sg_guardrails.models.text import load_embedder, scorers, sentiment

ROOT = Path(__file__).parents[1]
PAIRS = ROOT / "tests" / "data" / "pairs.jsonl"
CONTRADICTIONS = ROOT / "tests" / "data" / "contradictions.jsonl"
RESULT = ROOT / "benchmarks" / "results" / "sameness.json"
COPIES = 5

Pair = dict[str, object]
Decide = Callable[[Answer, Answer], bool]


def load(path: Path) -> list[Pair]:
    """The lines of a table."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def loaded() -> tuple[Embedder, Scorer]:
    """The default embedder, each text embedded once, and the shipped refusal scorer."""
    model = load_embedder(EmbedderSection())
    known: dict[str, NDArray[np.float32]] = {}

    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        new = sorted(set(texts) - known.keys())
        known.update(zip(new, model(new), strict=True) if new else ())
        return np.stack([known[text] for text in texts])

    embed([text for pair in load(PAIRS) for text in (_shown(Answer.parse(pair["a"])), _shown(Answer.parse(pair["b"])))])
    return embed, scorers(model)["refusal"]


def deciders(dev: Sequence[Pair]) -> dict[str, Decide]:
    """The three ways to decide, cosine with its threshold fitted on the dev pairs."""
    embed, refusal = loaded()

    def voted(answers: Sequence[Answer], voting: Voting) -> tuple[int, ...]:
        return elect(answers, voting, embed=embed, sentiment=sentiment, refusal=refusal).labels

    def cosine(a: Answer, b: Answer) -> float:
        one, other = (np.asarray(vector, dtype=np.float64) for vector in embed([_shown(a), _shown(b)]))
        return float(one @ other / max(float(np.linalg.norm(one) * np.linalg.norm(other)), 1e-12))

    threshold = best_threshold(
        np.array([cosine(Answer.parse(pair["a"]), Answer.parse(pair["b"])) for pair in dev]),
        np.array([bool(pair["same"]) for pair in dev]),
    )

    def ours(a: Answer, b: Answer) -> bool:
        labels = voted([a, b], Voting())
        return labels[0] == labels[1]

    def paper(a: Answer, b: Answer) -> bool:
        labels = voted([a] * COPIES + [b] * COPIES, Voting(method="kmeans", k=2, representative="centroid"))
        return labels[0] == labels[-1]

    return {
        "ours": ours,
        f"cosine >= {threshold:.2f}": lambda a, b: cosine(a, b) >= threshold,
        "paper (KMeans 2)": paper,
    }


def _shown(answer: Answer) -> str:
    return answer.text or "\n".join(call.canonical for call in answer.tool_calls)


def best_threshold(cosines: NDArray[np.float64], same: NDArray[np.bool_]) -> float:
    """The cosine that separates same from different with the best accuracy."""
    steps = np.arange(0.0, 1.0, 0.01)
    return float(steps[int(np.argmax([np.mean((cosines >= step) == same) for step in steps]))])


def score(pairs: Sequence[Pair], decide: Decide) -> dict[str, tuple[int, int]]:
    """Right decisions and pairs by family, and under ``all``."""
    counts: dict[str, tuple[int, int]] = {}
    for pair in pairs:
        right = decide(Answer.parse(pair["a"]), Answer.parse(pair["b"])) == pair["same"]
        for name in (str(pair["family"]), "all"):
            good, total = counts.get(name, (0, 0))
            counts[name] = (good + right, total + 1)
    return counts


def contradictions() -> dict[str, tuple[int, int]]:
    """How often a right, longer answer is called contradicting, and how often a contradiction is found."""
    embed, refusal = loaded()
    found = {"kept answers called contradicting": (0, 0), "contradictions found": (0, 0)}
    for line in load(CONTRADICTIONS):
        name = "contradictions found" if line["contradicts"] else "kept answers called contradicting"
        candidate, representative = Answer.parse(line["candidate"]), Answer.parse(line["representative"])
        hit = contradicts(candidate, representative, Voting(), embed=embed, refusal=refusal)
        found[name] = (found[name][0] + hit, found[name][1] + 1)
    return found


def main() -> None:
    """Print the table and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, default=PAIRS, help="table to score (default: the committed one)")
    parser.add_argument("--errors", action="store_true", help="print each pair that ours gets wrong")
    arguments = parser.parse_args()
    pairs = load(arguments.pairs)
    methods = deciders([pair for pair in load(PAIRS) if pair.get("split") == "dev"])
    splits = sorted({str(pair.get("split", "all")) for pair in pairs})
    results: dict[str, dict[str, dict[str, tuple[int, int]]]] = {}
    console = Console()
    for split in splits:
        chosen = [pair for pair in pairs if str(pair.get("split", "all")) == split]
        results[split] = {name: score(chosen, decide) for name, decide in methods.items()}
        table = Table("family", "n", *methods, title=f"same or different, {arguments.pairs.name}, {split}")
        for family, (_, total) in sorted(next(iter(results[split].values())).items()):
            rates = [f"{results[split][name][family][0] / total:.3f}" for name in methods]
            table.add_row(family, str(total), *rates)
        console.print(table)
        if arguments.errors:
            decide = methods["ours"]
            for pair in chosen:
                if decide(Answer.parse(pair["a"]), Answer.parse(pair["b"])) != pair["same"]:
                    console.print(json.dumps(pair, ensure_ascii=False), markup=False)
    held = contradictions()
    for name, (hits, total) in held.items():
        console.print(f"{name}: {hits}/{total}")
    if arguments.pairs == PAIRS:
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps({"sameness": results, "contradictions": held}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
