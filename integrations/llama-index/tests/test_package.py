"""The distribution's face."""

import subprocess
import sys

import llama_index_smoothguard


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
