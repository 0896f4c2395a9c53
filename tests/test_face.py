"""The face: its names, what importing it costs, and the direction of imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import sg_guardrails

ROOT = Path(__file__).resolve().parents[1]

PROMISED = {
    "SmoothGuard", "Policy", "Prompt", "Message", "Image", "Audio", "Vote", "Verdict", "Finding", "Outcome",
    "UnsafeOutputError", "GuardError", "PolicyError", "MediaError",
}  # fmt: skip
HEAVY = ("torch", "transformers", "sentence_transformers", "langchain_core", "llama_index")


def test_the_promised_names_are_there_and_sorted():
    assert set(sg_guardrails.__all__) >= PROMISED
    assert sorted(sg_guardrails.__all__) == sg_guardrails.__all__
    assert all(hasattr(sg_guardrails, name) for name in sg_guardrails.__all__)


def test_every_public_name_is_documented():
    undocumented = [name for name in sg_guardrails.__all__ if not getattr(sg_guardrails, name).__doc__]
    assert undocumented == []


def test_importing_takes_no_torch():
    code = (
        "import sys, sg_guardrails, sg_guardrails.testing, sg_guardrails.cli;"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_module_inside_imports_the_face():
    offenders = []
    for file in (ROOT / "sg_guardrails").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            plain = isinstance(node, ast.Import) and any(name.name == "sg_guardrails" for name in node.names)
            if plain or (isinstance(node, ast.ImportFrom) and node.module == "sg_guardrails"):
                offenders.append(f"{file.name}:{node.lineno}")
    assert offenders == []
