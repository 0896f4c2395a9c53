"""Local judges: the built-in model's own yes and no, and a chat model of text alone whose logits are known."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as pillow
from PIL import ImageDraw
from transformers import PhiConfig, PhiForCausalLM

from sg_guardrails.core.errors import ModelError, SamplingError
from sg_guardrails.core.inquiry import Inquiry, inquiry
from sg_guardrails.core.media import Image
from sg_guardrails.core.policy import Policy
from sg_guardrails.core.serving import Endpoint
from sg_guardrails.core.terms import Question
from sg_guardrails.core.types import Prompt
from sg_guardrails.local import local_guard
from sg_guardrails.models import hf
from sg_guardrails.models.judge import LocalJudge, ServedJudge, local_judges, text_model
from sg_guardrails.models.remote import RemoteSampler
from tests.models import tiny
from tests.models.test_remote import Reply, engine, said

ASKS = Question(question="Does it insult anybody?")
GUARD_TEMPLATE = (
    "<BEGIN UNSAFE CONTENT CATEGORIES> S1 <END UNSAFE CONTENT CATEGORIES>"
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}<|assistant|>"
)


def chatter(folder: Path, template: str = tiny.TEMPLATE, **logits: float) -> str:
    """A Phi whose next token has the given logits (``yes=2.0``) and every other one zero, whatever it is told."""
    tokenizer = tiny.tokenizer(["yes", "no", "unsafe", "safe"])
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = PhiForCausalLM(PhiConfig(vocab_size=len(tokenizer), max_position_embeddings=1024, **sizes, **tiny.IDS))
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.bias.zero_()
        for word, logit in logits.items():
            model.lm_head.bias[tokenizer.convert_tokens_to_ids(word)] = logit
    model.save_pretrained(folder)
    return str(folder)


def judge(folder: str) -> LocalJudge:
    return LocalJudge(lambda: text_model(folder, "cpu"))


def test_the_builtin_model_says_yes_to_what_it_sees():
    picture = pillow.new("RGB", (64, 64), (240, 240, 240))
    ImageDraw.Draw(picture).polygon([(14, 48), (48, 48), (31, 12)], fill=(255, 0, 0))
    seen = Image(np.asarray(picture, np.float32) / 255)

    def about(question: str) -> Inquiry:
        prompt = Prompt.ask(question, seen)
        return Inquiry(prompt, prompt, question, "yes", "no")

    handle = hf.load("builtin:shapes", device="cpu")
    red, blue = LocalJudge(lambda: handle)([about("Is there a red shape?"), about("Is there a blue shape?")])
    assert red > 0.9
    assert blue < 0.1


def test_a_model_that_does_not_understand_the_question_is_an_error():
    handle = hf.load("builtin:shapes", device="cpu")
    with pytest.raises(SamplingError, match="neither 'yes' nor 'no'"):
        LocalJudge(lambda: handle)([inquiry(ASKS, "You fool.", "What is this?")])


def test_the_probability_is_yes_against_no(tmp_path):
    score = judge(chatter(tmp_path / "m", yes=12.0, no=11.0))([inquiry(ASKS, "You fool.", None)])
    # Other spellings of both words have logit 0, which weighs e^-11 beside them.
    assert score[0] == pytest.approx(1 / (1 + np.exp(-1)), abs=1e-3)
    assert judge(chatter(tmp_path / "n", no=12.0))([inquiry(ASKS, "a", "b")] * 2) == pytest.approx([0, 0], abs=1e-3)


def test_other_words_are_an_error_and_blanks_are_passed_over(tmp_path):
    item = [inquiry(ASKS, "You fool.", None)]
    with pytest.raises(SamplingError, match="neither"):
        judge(chatter(tmp_path / "other", safe=9.0))(item)
    with pytest.raises(SamplingError, match="neither"):
        judge(chatter(tmp_path / "end", **{"</s>": 9.0}))(item)
    with pytest.raises(SamplingError, match="neither"):
        judge(chatter(tmp_path / "blank", Ċ=9.0, yes=8.0))(item)  # eight line breaks, no word


def test_a_text_that_does_not_fit_is_an_error_and_not_cut(tmp_path):
    with pytest.raises(SamplingError, match="too long"):
        judge(chatter(tmp_path / "m", yes=9.0))([inquiry(ASKS, "circle " * 1500, None)])


def test_a_template_that_brings_the_instruction_gets_the_conversation(tmp_path):
    folder = chatter(tmp_path / "guard", GUARD_TEMPLATE, unsafe=9.0)
    item = inquiry(Question(preset="llama_guard"), "A red circle.", "What is it?")
    assert judge(folder)([item])[0] > 0.9
    leaving_out = chatter(tmp_path / "deaf", GUARD_TEMPLATE.replace("{{ m['content'] }}", "..."), safe=9.0)
    with pytest.raises(SamplingError):
        judge(leaving_out)([item])
    of_user = "{% if m.role == 'user' %}{{ m['content'] }}{% endif %}"
    deaf_to_answers = GUARD_TEMPLATE.replace("{{ m['content'] }}", of_user)
    with pytest.raises(SamplingError, match="leaves out the text under judgement"):
        judge(chatter(tmp_path / "half", deaf_to_answers, safe=9.0))([item])


def test_shieldgemmas_template_gets_its_guideline(tmp_path):
    template = "You are a policy expert {{ guideline }}" + tiny.TEMPLATE
    score = judge(chatter(tmp_path / "m", template, yes=9.0))
    assert score([inquiry(Question(preset="shieldgemma"), "A red circle.", "What is it?")])[0] > 0.9


def test_a_policys_judges_load_nothing_before_they_are_asked():
    rules = [
        {"id": "a", "when": {"judge": {"question": "Is it rude?"}}},
        {"id": "b", "when": {"not": {"judge": {"preset": "llama_guard", "model": "nobody/no-such-judge"}}}},
        {"id": "c", "when": {"words": ["x"]}},
    ]
    policy = Policy.parse({"name": "p", "rules": rules, "model": {"id": "builtin:shapes", "device": "cpu"}})
    named = local_judges(policy)
    assert set(named) == {"guard", "nobody/no-such-judge"}
    named["guard"].warm_up()
    served = Policy.parse({"name": "p", "rules": rules[:1], "model": {"endpoint": {"url": "http://localhost:1/v1"}}})
    assert isinstance(local_judges(served)["guard"], ServedJudge)


def test_a_judge_is_the_revision_that_the_policy_pins(tmp_path, monkeypatch):
    """A hub cache with two commits of one model, as the hub's client lays it out."""
    repo = tmp_path / "models--org--judge"
    for tag, commit, word in (("v1", "1" * 40, "yes"), ("v2", "2" * 40, "no")):
        chatter(repo / "snapshots" / commit, **{word: 12.0})
        (repo / "refs").mkdir(exist_ok=True)
        (repo / "refs" / tag).write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    asks = {"question": "Is it rude?", "model": "org/judge"}
    rules = [{"id": tag, "when": {"judge": {**asks, "revision": tag}}} for tag in ("v1", "v2")]
    judges = local_judges(Policy.parse({"name": "p", "rules": rules, "model": {"device": "cpu"}}))
    item = [inquiry(ASKS, "You fool.", None)]
    assert judges["org/judge@v1"](item)[0] > 0.9
    assert judges["org/judge@v2"](item)[0] < 0.1


def test_a_folder_has_no_revision_to_pin(tmp_path):
    with pytest.raises(ModelError, match="is a folder, which has no revision"):
        text_model(chatter(tmp_path / "m", yes=9.0), "cpu", "v1")


# Judges that are served


def told(word: str, *places: dict[str, float]) -> Reply:
    """An engine's answer with the probabilities of its tokens; the first of each place is the one that was said."""
    content = [
        {
            "token": next(iter(place)),
            "logprob": math.log(next(iter(place.values()))),
            "bytes": None,
            "top_logprobs": [{"token": t, "logprob": math.log(p), "bytes": None} for t, p in place.items()],
        }
        for place in places
    ]
    status, body = said(word)
    body["choices"][0]["logprobs"] = {"content": content}
    return status, body


def served(url: str) -> ServedJudge:
    return ServedJudge(RemoteSampler("m", Endpoint(url=url, retries=0)))


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        (told("Yes", {"Yes": 0.6, "No": 0.2, " yes": 0.1, "Perhaps": 0.1}), 7 / 9),
        (told("\n\n**No**.", {"\n\n": 1.0}, {"**": 1.0}, {"No": 0.9, "Yes": 0.1}), 0.1),
        (told("yes", {"y": 0.5, "n": 0.25}, {"es": 1.0}), 2 / 3),
        (told("No", {"No": 0.8}), 0.0),
        (told("Yes", {"\u2581": 1.0}), 1.0),
        (told("Yes"), 1.0),
        (said("No."), 0.0),
    ],
)
def test_a_served_judge_gives_the_probability_that_its_engine_tells(reply, score):
    with engine(lambda body, number: reply) as (url, sent):
        assert served(url)([inquiry(ASKS, "You fool.", "Hm?")])[0] == pytest.approx(score, abs=1e-6)
    assert (sent[0]["logprobs"], sent[0]["top_logprobs"], sent[0]["temperature"]) == (True, 20, 0.0)
    assert "You fool." in sent[0]["messages"][0]["content"]


def test_unsafe_and_safe_are_told_apart_by_their_first_tokens():
    reply = told("unsafe\nS1", {"uns": 0.75, "safe": 0.2, "S": 0.05}, {"afe": 1.0})
    with engine(lambda body, number: reply) as (url, _):
        item = inquiry(Question(preset="llama_guard"), "text", "request")
        assert served(url)([item])[0] == pytest.approx(0.75)


def test_an_engine_that_refuses_to_tell_is_asked_for_the_word_alone():
    def strict(body, number):
        return (400, {"error": {"message": "unknown field logprobs"}}) if "logprobs" in body else said("Yes")

    with engine(strict) as (url, sent):
        judging = served(url)
        assert judging([inquiry(ASKS, "You fool.", None)]).tolist() == [1.0]
        assert judging([inquiry(ASKS, "You fool.", None)]).tolist() == [1.0]
    assert ["logprobs" in body for body in sent] == [True, False, False]


@pytest.mark.parametrize("reply", [said("Perhaps."), said(""), told("Maybe", {"Maybe": 0.5, "Yes": 0.4}), (500, {})])
def test_a_served_judge_that_says_neither_word_or_fails_is_an_error(reply):
    with engine(lambda body, number: reply) as (url, _), pytest.raises(SamplingError):
        served(url)([inquiry(ASKS, "You fool.", None)])


def test_a_judge_of_its_own_may_be_served_beside_a_local_model():
    asks = {"preset": "llama_guard", "model": "guard-8b"}
    reply = told("unsafe", {"unsafe": 0.8, "safe": 0.2})
    with engine(lambda body, number: reply) as (url, sent):
        end = {"url": url, "retries": 0}
        rules = [
            {"id": "whole", "when": {"judge": {**asks, "endpoint": end}}},
            {"id": "bare", "when": {"judge": {**asks, "endpoint": end, "conversation": True}}},
        ]
        policy = Policy.parse({"name": "p", "model": {"id": "builtin:shapes"}, "rules": rules})
        judges = local_judges(policy)
        item = inquiry(policy.rules[0].when.judge, "A text.", "A request.")
        whole, bare = (judges[rule.when.judge.key] for rule in policy.rules)
        assert whole([item])[0] == bare([item])[0] == pytest.approx(0.8)
    assert [body["model"] for body in sent] == ["guard-8b", "guard-8b"]
    assert [turn["role"] for turn in sent[0]["messages"]] == ["user"]
    assert sent[1]["messages"] == [
        {"role": "user", "content": "A request."},
        {"role": "assistant", "content": "A text."},
    ]


def test_a_policy_whose_model_is_served_judges_by_its_probabilities():
    rule = {"id": "rude", "when": {"judge": {"question": "Is it rude?"}, "above": 0.7}, "share": 0}

    def reply(body, number):
        return told("Yes", {"Yes": 0.6, "No": 0.4}) if "logprobs" in body else said("You fool.")

    with engine(reply) as (url, _):
        model = {"id": "m", "endpoint": {"url": url, "retries": 0}}
        for above, status in ((0.7, "passed"), (0.5, "blocked")):
            rule["when"] = {**rule["when"], "above": above}
            policy = Policy.parse({"name": "p", "model": model, "smoothing": {"copies": 2}, "rules": [rule]})
            assert local_guard(policy).check(Prompt.ask("Who am I?")).status == status


def test_a_judge_that_is_not_to_be_had_offline_is_one_clear_line(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"judge 'nobody/no-such-judge' cannot be loaded.*local folder"):
        judge("nobody/no-such-judge")([inquiry(ASKS, "a", None)])


def test_a_model_that_only_transcribes_cannot_judge(model):
    with pytest.raises(ModelError, match="cannot judge"):
        LocalJudge(lambda: model("whisper"))([inquiry(ASKS, "a", None)])
