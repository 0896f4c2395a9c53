"""Local judges: the built-in model's own yes and no, and a chat model of text alone whose logits are known."""

from __future__ import annotations

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
from sg_guardrails.core.rules import Question
from sg_guardrails.core.types import Prompt
from sg_guardrails.models import hf
from sg_guardrails.models.judge import LocalJudge, local_judges, text_model
from tests.models import tiny

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
    assert local_judges(served) == {}


def test_a_judge_that_is_not_to_be_had_offline_is_one_clear_line(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"judge 'nobody/no-such-judge' cannot be loaded.*local folder"):
        judge("nobody/no-such-judge")([inquiry(ASKS, "a", None)])


def test_a_model_that_only_transcribes_cannot_judge(model):
    with pytest.raises(ModelError, match="cannot judge"):
        LocalJudge(lambda: model("whisper"))([inquiry(ASKS, "a", None)])
