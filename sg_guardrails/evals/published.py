"""The figures of the paper (arXiv 2510.26830), as data for comparing reports."""

from __future__ import annotations

from collections.abc import Mapping

from sg_guardrails.evals.base import Figure
from sg_guardrails.evals.summary import Arm, Evaluation

SOURCE = "arXiv 2510.26830, recomputed from the answers in github.com/GuangzhiSu/SmoothGuard"

ASR_BY_SIGMA = {0.05: 0.299, 0.1: 0.309, 0.15: 0.299, 0.2: 0.289, 0.3: 0.340, 0.4: 0.289, 0.5: 0.258}
"""One MM-SafetyBench scenario under a universal adversarial picture; 0.588 undefended."""
BARE_ASR = 0.588
UTILITY_BY_SIGMA = {0.1: 0.795, 0.15: 0.805, 0.2: 0.800, 0.25: 0.790, 0.3: 0.785, 0.5: 0.775}
"""Accuracy on 200 POPE questions; 0.800 undefended."""
BARE_UTILITY = 0.800

LLAVA, QWEN = "LLaVA-1.5-7B", "Qwen2.5-VL-7B"
# Accuracy and F1 of each split, bare and guarded at sigma 0.1.
_POPE: Mapping[str, Mapping[str, Mapping[str, tuple[float, float]]]] = {
    LLAVA: {
        "bare": {"random": (0.870, 0.860), "popular": (0.863, 0.849), "adversarial": (0.840, 0.829)},
        "guarded": {"random": (0.827, 0.803), "popular": (0.822, 0.794), "adversarial": (0.801, 0.774)},
    },
    QWEN: {
        "bare": {"random": (0.858, 0.841), "popular": (0.848, 0.827), "adversarial": (0.841, 0.821)},
        "guarded": {"random": (0.882, 0.873), "popular": (0.876, 0.863), "adversarial": (0.864, 0.851)},
    },
}
_POPE_ROWS = {"random": 2910, "popular": 3000, "adversarial": 3000}
# Score relative to GPT-4's answers: all, conv, detail, complex.
_LLAVA_BENCH = {
    LLAVA: {"bare": (94.1, 91.7, 89.2, 98.2), "guarded": (93.5, 87.1, 89.2, 99.8)},
    QWEN: {"bare": (103.7, 102.2, 110.8, 100.9), "guarded": (101.3, 102.2, 105.8, 98.1)},
}


def published(benchmark: str) -> list[Evaluation]:
    """The paper's own results on a benchmark, one evaluation per model; empty where it published none."""
    if benchmark == "pope":
        return [
            _evaluation("pope", "accuracy", name, {arm: _pope(splits) for arm, splits in arms.items()})
            for name, arms in _POPE.items()
        ]
    if benchmark == "llava-bench":
        return [
            _evaluation("llava-bench", "relative", name, {arm: _bench(values) for arm, values in arms.items()})
            for name, arms in _LLAVA_BENCH.items()
        ]
    return []


def _pope(splits: Mapping[str, tuple[float, float]]) -> Arm:
    scores = {
        split: {
            "accuracy": Figure.rate(round(accuracy * _POPE_ROWS[split]), _POPE_ROWS[split]),
            "f1": Figure(f1, _POPE_ROWS[split]),
        }
        for split, (accuracy, f1) in splits.items()
    }
    return Arm(scores, 0.0, 0.0, {})


def _bench(values: tuple[float, ...]) -> Arm:
    names = ("all", "conv", "detail", "complex")
    return Arm(
        {
            name: {"relative": Figure(value, 60 if name == "all" else 0)}
            for name, value in zip(names, values, strict=True)
        },
        0.0,
        0.0,
        {},
    )


def _evaluation(benchmark: str, headline: str, model: str, arms: Mapping[str, Arm]) -> Evaluation:
    return Evaluation(benchmark, headline, arms, title=f"{model}, published", about={"model": model, "source": SOURCE})
