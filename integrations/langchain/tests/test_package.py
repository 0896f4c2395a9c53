"""The distribution's face."""

import ast
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import langchain_smoothguard
import sg_guardrails


def test_the_face_is_sorted_and_whole():
    assert sorted(langchain_smoothguard.__all__) == langchain_smoothguard.__all__
    extra = set() if find_spec("langchain") else {"SmoothGuardMiddleware"}  # its import says which extra it needs
    assert all(hasattr(langchain_smoothguard, name) for name in set(langchain_smoothguard.__all__) - extra)


def test_importing_it_loads_neither_torch_nor_a_hook():
    code = (
        "import sys, langchain_smoothguard as face; from langchain_core.tracers import context;"
        "assert 'torch' not in sys.modules; assert 'langchain' not in sys.modules;"
        "assert not any(hook[0].name == 'smoothguard_recorder' for hook in context._configure_hooks);"
        "face.SmoothGuardRunnable(policy='builtin', recorder='explicit'); assert 'torch' not in sys.modules;"
        "face.SmoothGuardRunnable(policy='builtin'); face.SmoothGuardRunnable(policy='builtin');"
        "assert sum(hook[0].name == 'smoothguard_recorder' for hook in context._configure_hooks) == 1"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_it_imports_the_guards_public_names_only():
    for file in Path(langchain_smoothguard.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sg_guardrails"):
                public = sg_guardrails.__all__ if node.module == "sg_guardrails" else ["shared_guard"]
                assert node.module in ("sg_guardrails", "sg_guardrails.local"), file.name
                assert {name.name for name in node.names} <= set(public), file.name
