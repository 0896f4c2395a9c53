"""The panel in a guard: judges, examples and pictures are asked once each, and none of their errors is a pass."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sg_guardrails import Key, Policy, PolicyError, Prompt, SmoothGuard, chat_judge
from sg_guardrails.core.types import Answer, ToolCall
from sg_guardrails.testing import FakeSampler, fake_embedder, fake_image, fake_scorers, fake_sentiment

PROMPT = Prompt.ask("What is this?", fake_image())
ASKS = {"judge": {"question": "Is it rude?"}}


def guard(script, *rules, **parts):
    policy = Policy.parse(
        {
            "name": "p",
            "smoothing": {"copies": 4, "early": "off"},
            "rules": [{"id": f"r{at}", **rule} for at, rule in enumerate(rules)],
            **parts.pop("sections", {}),
        }
    )
    scorers = {**fake_scorers(), **parts.pop("scorers", {})}
    sampler = script if callable(script) and not isinstance(script, str) else FakeSampler(script)
    return SmoothGuard(
        policy,
        sampler=sampler,
        embedder=parts.pop("embedder", fake_embedder),
        sentiment=parts.pop("sentiment", fake_sentiment),
        scorers=scorers,
        key=Key(b"the tests' own key"),
        emit=lambda *_, **__: None,
        **parts,
    )


def test_a_judge_is_asked_once_for_each_wording_whatever_the_rules():
    asked = []

    def rude(items):
        asked.extend(item.text for item in items)
        return np.array(["fool" in item.text for item in items], dtype=np.float32)

    rules = (
        {"when": ASKS},
        {"when": {"not": {**ASKS, "above": 0.2}}, "action": "flag"},
        {"when": ASKS, "where": "any"},
    )
    outcome = guard("You fool.", *rules, judges={"guard": rude}).check(PROMPT)
    assert outcome.status == "blocked"
    assert asked == ["You fool."]


def test_the_guards_own_model_judges_in_words():
    def script(copy):
        if copy.prompt == PROMPT:
            return "You fool."
        assert copy.seed is None
        return "Yes." if "fool" in copy.prompt.question else "No."

    sampler = FakeSampler(script)
    assert guard(sampler, {"when": ASKS}).check(PROMPT).status == "blocked"
    assert len(sampler.asked) == 6


def test_the_guards_own_model_that_answers_neither_is_an_error_and_no_pass():
    outcome = guard("A red circle.", {"when": {"not": ASKS}}).check(PROMPT)
    assert (outcome.status, outcome.answer) == ("error", None)


def test_the_guards_own_model_rewrites():
    def script(copy):
        return "You fool, it is red." if copy.prompt == PROMPT else "It is red."

    rule = {"when": {"words": ["fool"]}, "action": "rewrite", "rewrite": "model"}
    outcome = guard(FakeSampler(script), rule).check(PROMPT)
    assert (outcome.status, outcome.text) == ("rewritten", "It is red.")
    stubborn = guard("You fool.", rule).check(PROMPT)
    assert (stubborn.status, stubborn.answer) == ("blocked", None)


def test_examples_are_embedded_with_the_guards_embedder():
    near = {"when": {"near": ["Type your secret code."], "above": 0.9}}
    assert guard("Blue. Type your secret code!", near).check(PROMPT).status == "blocked"
    assert guard("A quiet street.", near).check(PROMPT).status == "passed"


def test_pictures_are_read_once_and_only_where_a_rule_asks():
    read = []

    def reader(images):
        read.extend(images)
        return ["say evil"] * len(images)

    on_picture = {"when": {"words": ["evil"]}, "where": "picture"}
    twice = ({"when": {"words": ["evil"], "of": "picture"}}, on_picture)
    assert guard("red", *twice, reader=reader).check(PROMPT).status == "blocked"
    assert len(read) == 1
    assert guard("red", {"when": {"words": ["evil"]}}, reader=reader).check(PROMPT).status == "passed"
    assert len(read) == 1
    assert guard("red", on_picture, reader=reader).check(Prompt.ask("no picture")).status == "passed"
    with pytest.raises(PolicyError, match=r"pip install 'sg-guardrails\[ocr\]'"):
        guard("red", on_picture)


def test_a_judge_of_ones_own_is_named_and_must_be_given():
    rule = {"when": {"judge": {"preset": "llama_guard", "model": "ours"}}}
    with pytest.raises(PolicyError, match="the judge 'ours'"):
        guard("red", rule)
    served = chat_judge(lambda prompt: "unsafe\nS9", writes_instruction=True)
    assert guard("red", rule, judges={"ours": served}).check(PROMPT).status == "blocked"


class Head:
    """A scorer that embeds, as the shipped heads do."""

    def __init__(self, embedder):
        self.embedder = embedder

    def reads(self, texts):
        return [[text] for text in texts]

    def __call__(self, texts):
        return self.embedder([text for row in self.reads(texts) for text in row])[:, 0] * 0


class Counted:
    """Remembers, as the shipped embedder does, and counts its passes."""

    def __init__(self):
        self.passes, self.known = [], {}

    def __call__(self, texts):
        if new := [text for text in dict.fromkeys(texts) if text not in self.known]:
            self.passes.append(new)
            self.known.update(zip(new, fake_embedder(new), strict=True))
        return np.array([self.known[text] for text in texts])


UNSAFE = {"when": {"all": [{"scorer": "unsafe_request", "of": "user"}, {"not": {"scorer": "refusal"}}]}}


def test_question_and_answers_are_embedded_in_one_pass():
    embed = Counted()
    answers = iter(["a red ball", "two blue cars", "a red ball", "a red ball", "a red ball"])
    heads = {"refusal": Head(embed), "unsafe_request": Head(embed)}
    guarded = guard(lambda copies, _: [Answer(next(answers)) for _ in copies], UNSAFE, embedder=embed, scorers=heads)
    assert guarded.check(PROMPT).text == "a red ball"
    assert [sorted(texts) for texts in embed.passes] == [["What is this?", "a red ball", "two blue cars"]]


def test_what_all_copies_say_alike_is_not_embedded_to_be_compared():
    embed = Counted()
    heads = {"refusal": Head(embed), "unsafe_request": Head(embed)}
    disagreeing = {"where": "winner", "when": {"disagrees": "clean"}, "action": "flag"}
    outcome = guard("a red ball", UNSAFE, disagreeing, embedder=embed, scorers=heads).check(PROMPT)
    assert (outcome.status, outcome.vote.agreement, outcome.vote.weights) == ("passed", 1.0, (5.0,))
    assert embed.passes == [["What is this?"]], "the request is judged; that it is no refusal does not matter then"


def test_a_rule_that_always_looks_at_the_answer_has_it_embedded_with_the_question():
    embed = Counted()
    heads = {"refusal": Head(embed), "unsafe_request": Head(embed), "toxicity": Head(embed)}
    rude = {"when": {"any": [{"scorer": "toxicity"}, {"words": ["fool"]}]}}
    guard("a red ball", UNSAFE, rude, embedder=embed, scorers=heads).check(PROMPT)
    assert embed.passes == [["What is this?", "a red ball"]]


def test_the_questions_of_many_requests_are_embedded_in_one_pass():
    embed = Counted()
    heads = {"refusal": Head(embed), "unsafe_request": Head(embed)}
    prompts = [Prompt.ask(f"{number}?", fake_image()) for number in range(3)]
    guard("a red ball", UNSAFE, embedder=embed, scorers=heads).check_many(prompts)
    assert embed.passes == [["0?", "1?", "2?"]]


def broken(kind):
    """A callable in a scorer's, judge's, embedder's or reader's place that does not work."""

    def ask(items):
        if kind == "raises":
            raise RuntimeError("device lost")
        wrong = {"nan": [float("nan")] * len(items), "short": [0.0] * (len(items) + 1), "flat": 0.0, "none": None}
        wrong |= {"over": [1.5] * len(items), "under": [-7.0] * len(items)}  # logits, say
        return wrong[kind]

    return ask


CONDITIONS = st.sampled_from(
    [
        {"scorer": "mine"},
        {"scorer": "mine", "of": "user"},
        ASKS,
        {**ASKS, "of": "user"},
        {"words": ["x"], "of": "picture"},
        {"classifier": {"id": "org/mine"}},
    ]
)


@given(
    CONDITIONS,
    st.booleans(),
    st.sampled_from(["raises", "nan", "short", "flat", "none", "over", "under"]),
    st.sampled_from(["allow", "flag", "rewrite", "block", "raise"]),
    st.sampled_from(["enforce", "observe"]),
)
@settings(max_examples=60, deadline=None)
def test_no_error_of_a_part_is_ever_a_pass(condition, denied, kind, action, mode):
    part = broken(kind)
    if condition.get("of") == "picture" and kind in ("nan", "short", "over", "under"):
        kind, part = "raises", broken("raises")  # a reader gives texts, not numbers
    rule = {"when": {"not": condition} if denied else condition, "action": action, "mode": mode}
    guarded = guard(
        "red",
        rule,
        scorers={"mine": part, "classifier org/mine": part},
        judges={"guard": part},
        reader=part,
    )
    outcome = guarded.check(PROMPT)
    if mode == "observe":  # what only observes changes nothing, and does not fail in silence
        assert (outcome.status, outcome.text) == ("passed", "red")
        assert outcome.degraded is not None
        assert guarded.policy.rules[0].id in outcome.degraded
        return
    assert (outcome.status, outcome.answer, outcome.text) == ("error", None, guarded.policy.texts.error)


@pytest.mark.parametrize("kind", ["over", "under"])
def test_a_refusal_scorer_or_a_tone_beyond_its_range_elects_nobody(kind):
    said = ["a red ball", "two blue cars", "a red ball", "a red ball", "a red ball"]
    for part in ({"scorers": {"refusal": broken(kind)}}, {"sentiment": broken(kind)}):
        answers = iter(said)
        outcome = guard(lambda copies, _, given=answers: [Answer(next(given)) for _ in copies], **part).check(PROMPT)
        assert (outcome.status, outcome.answer) == ("error", None)


@pytest.mark.parametrize("above", [0.9, 0.5])
def test_a_scorer_one_rounding_beyond_its_range_is_believed(above):
    sure = np.nextafter(np.float32(1), np.float32(2))
    for score, status in ((sure, "blocked"), (np.float32(-1e-7), "passed")):
        scorers = {"mine": lambda texts, score=score: np.full(len(texts), score)}
        assert (
            guard("red", {"when": {"scorer": "mine", "above": above}}, scorers=scorers).check(PROMPT).status == status
        )


def test_likeness_to_an_example_may_be_negative():
    def embed(texts):
        return np.array([[1.0 if "secret" in text else -1.0] for text in texts], dtype=np.float32)

    near = {"when": {"near": ["Type your secret code."], "above": 0.9}}
    assert guard("A quiet street.", near, embedder=embed).check(PROMPT).status == "passed"


class Unreadable(Head):
    """A head that fails before it embeds anything."""

    def reads(self, texts):
        raise RuntimeError("no vocabulary")


def test_what_fails_while_reading_ahead_fails_its_own_request():
    prompts = [Prompt.ask(f"{number}?", fake_image()) for number in range(2)]
    mixed = ToolCall("f", {1: "a", "b": 2})  # keys that cannot be sorted, and so calls that cannot be compared

    def script(copies, _):
        return [Answer("", (mixed,)) if copy.prompt == prompts[0] else Answer("a red ball") for copy in copies]

    outcomes = guard(script).check_many(prompts)
    assert [outcome.status for outcome in outcomes] == ["error", "passed"]
    embed = Counted()
    rule = {"when": {"scorer": "unsafe_request", "of": "user"}}
    head = {"unsafe_request": Unreadable(embed)}
    assert guard("a red ball", rule, embedder=embed, scorers=head).check(PROMPT).status == "error"


def test_a_sampler_that_returns_no_answers_is_an_error():
    assert guard(lambda copies, _: ["red"] * len(copies)).check(PROMPT).status == "error"
