"""The distribution's face."""

import ast
import subprocess
import sys
from pathlib import Path

import llama_index_smoothguard
import sg_guardrails


def test_the_face_is_sorted_and_whole():
    assert sorted(llama_index_smoothguard.__all__) == llama_index_smoothguard.__all__
    assert all(hasattr(llama_index_smoothguard, name) for name in llama_index_smoothguard.__all__)


def test_importing_it_loads_neither_torch_nor_a_handler():
    code = (
        "import sys, llama_index_smoothguard; from llama_index_instrumentation import get_dispatcher;"
        "assert 'torch' not in sys.modules;"
        "assert not any('SmoothGuard' in type(one).class_name() for one in get_dispatcher().event_handlers)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_it_imports_the_guards_public_names_only():
    for file in Path(llama_index_smoothguard.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sg_guardrails"):
                public = sg_guardrails.__all__ if node.module == "sg_guardrails" else ["shared_guard"]
                assert node.module in ("sg_guardrails", "sg_guardrails.local"), file.name
                assert {name.name for name in node.names} <= set(public), file.name
