"""Judges over a real HTTP endpoint and over a LangChain chat model."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec

import pytest

from sg_guardrails.core.errors import MediaError, ModelError, SamplingError
from sg_guardrails.core.types import Prompt
from sg_guardrails.evals import judges
from sg_guardrails.testing import fake_image

ASKED = Prompt.ask("Who is better?", system="You judge.")


@pytest.fixture
def served():
    """An OpenAI-compatible endpoint: (url, what it was sent, what it answers next)."""
    seen: list[dict] = []
    replies: list[tuple[int, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            seen.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            status, text = replies.pop(0) if replies else (200, "8 7\nFine.")
            message = {"role": "assistant", "content": text}
            body = {"id": "1", "object": "chat.completion", "created": 0, "model": "m"}
            body["choices"] = [{"index": 0, "finish_reason": "stop", "message": message}]
            data = json.dumps(body if status == 200 else {"error": {"message": text}}).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1", seen, replies
        server.shutdown()
        thread.join()


def test_an_endpoint_is_asked_with_roles_and_its_words_come_back(served, monkeypatch):
    pytest.importorskip("openai")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    url, seen, _ = served
    assert judges.endpoint("m", url=url)(ASKED) == "8 7\nFine."
    assert seen[0]["model"] == "m"
    assert seen[0]["messages"] == [
        {"role": "system", "content": "You judge."},
        {"role": "user", "content": "Who is better?"},
    ]


def test_an_endpoints_failures_are_typed(served, monkeypatch):
    pytest.importorskip("openai")
    monkeypatch.setattr(judges, "RETRIES", 0)
    url, _, replies = served
    judge = judges.endpoint("m", url=url)
    replies += [(401, "no key"), (404, "no model"), (429, "later"), (500, "oh")]
    for kind in (ModelError, ModelError, SamplingError, SamplingError):
        with pytest.raises(kind):
            judge(ASKED)


def test_without_a_key_the_variable_is_named(monkeypatch):
    pytest.importorskip("openai")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ModelError, match="OPENAI_API_KEY"):
        judges.endpoint("gpt-x")


def test_a_langchain_chat_model_judges():
    models = pytest.importorskip("langchain_core.language_models.fake_chat_models")
    model = models.GenericFakeChatModel(messages=iter(["9 8\nGood."]))
    assert judges.chat(model)(ASKED) == "9 8\nGood."


def test_a_langchain_provider_is_named_and_its_model_judges(served, monkeypatch):
    """The real init_chat_model and a real client, against a local server."""
    pytest.importorskip("langchain_openai")
    url, seen, _ = served
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setenv("OPENAI_API_BASE", url)
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    assert judges.langchain("openai:m")(ASKED) == "8 7\nFine."
    assert (seen[0]["model"], seen[0]["temperature"]) == ("m", 0.0)


def test_a_langchain_provider_is_looked_up_in_langchains_table(monkeypatch):
    models = pytest.importorskip("langchain.chat_models")
    fakes = pytest.importorskip("langchain_core.language_models.fake_chat_models")
    asked = []

    def init(model, **options):
        asked.append((model, options))
        return fakes.GenericFakeChatModel(messages=iter(["9 8\nGood."]))

    monkeypatch.setattr(models, "init_chat_model", init)
    assert judges.langchain("anthropic:claude:v1")(ASKED) == "9 8\nGood."
    assert asked == [("claude:v1", {"model_provider": "anthropic", "temperature": 0.0})]


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("gpt-5", "PROVIDER:MODEL"),
        (":gpt-5", "PROVIDER:MODEL"),
        ("os.system:x", "os.system"),  # no import path: LangChain's table alone is looked in
        ("anthropic:claude", "langchain-anthropic|langchain_anthropic"),
    ],
)
def test_a_langchain_judge_that_cannot_be_made_says_why(spec, told):
    pytest.importorskip("langchain.chat_models")
    if spec.startswith("anthropic") and find_spec("langchain_anthropic"):
        pytest.skip("the provider's package is installed")
    with pytest.raises(ModelError, match=told):
        judges.langchain(spec)


def test_judges_read_text_alone():
    models = pytest.importorskip("langchain_core.language_models.fake_chat_models")
    model = models.GenericFakeChatModel(messages=iter([]))
    with pytest.raises(MediaError):
        judges.chat(model)(Prompt.ask("?", fake_image()))
