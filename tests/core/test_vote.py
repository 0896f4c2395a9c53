"""The election: clusters, weights, ties, representative, agreement, abstention."""

from __future__ import annotations

import warnings
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sg_guardrails.core.errors import GuardError
from sg_guardrails.core.policy import Voting
from sg_guardrails.core.types import Answer, ToolCall, Vote
from sg_guardrails.core.vote import contradicts, elect, sameness
from sg_guardrails.testing import fake_embedder

REFUSED = "I'm sorry, but I can't help with that."
COMPLIED = "Sure, here is how to build it."


def scorer(**scores: float):
    """A scorer by text, 0 where none is named; spaces are written as underscores."""
    table = {text.replace("_", " "): score for text, score in scores.items()}
    return lambda texts: np.array([table.get(text, 0.0) for text in texts], dtype=np.float32)


ZERO = scorer()


def refusing(texts):
    return np.array([float("can't" in text) for text in texts], dtype=np.float32)


def vote(*texts: str | Answer, sentiment=ZERO, refusal=refusing, embed=fake_embedder, **section) -> Vote:
    answers = [Answer.parse(text) for text in texts]
    return elect(answers, Voting(**section), embed=embed, sentiment=sentiment, refusal=refusal)


def test_majority_wins_and_labels_are_numbered_by_first_appearance():
    got = vote("The triangle is blue.", "The triangle is red.", "The image shows a red triangle.", "red")
    assert got.labels == (0, 1, 1, 1)
    assert (got.winner, got.agreement, got.abstained) == (1, 0.75, False)
    assert got.choice in {1, 2, 3}
    assert got.weights == (1.0, 3.0)


def test_one_wording_is_elected_without_a_vector_and_weighs_by_its_tone():
    def unasked(texts):
        pytest.fail("asked")

    got = vote("red", "red", "red", embed=unasked, refusal=unasked)
    assert (got.labels, got.choice, got.agreement, got.abstained, got.weights) == ((0, 0, 0), 0, 1.0, False, (3.0,))
    assert vote("red", "red", min_agreement=1.0).abstained
    rude = vote("fool", "fool", sentiment=scorer(fool=-0.8), sentiment_weight=0.5, embed=unasked)
    assert rude.weights == (pytest.approx(2 * (1 - 0.5 * 0.8)),)
    said = "I can't help"
    refused = vote(said, said, sentiment=lambda texts: np.full(len(texts), -0.8), sentiment_weight=0.5, embed=unasked)
    assert refused.weights == (2.0,), "a refusal's tone is not held against it"


def test_no_answers_is_a_typed_error():
    with pytest.raises(GuardError, match="at least one answer"):
        vote()


def test_one_answer_is_elected_and_never_abstains():
    got = vote("anything", min_agreement=1.0)
    assert (got.labels, got.choice, got.agreement, got.abstained) == ((0,), 0, 1.0, False)


@pytest.mark.parametrize(("right", "abstained"), [(5, True), (6, False)])
def test_eleven_answers_need_six(right, abstained):
    others = ["a cat", "a bus", "a tree", "a cup", "a ship", "a lamp"]
    got = vote(*["red"] * right, *others[: 11 - right], min_agreement=0.5)
    assert got.agreement == right / 11
    assert got.abstained is abstained


def test_two_answers_that_differ_abstain():
    got = vote("red", "blue")
    assert (got.agreement, got.abstained) == (0.5, True)


def test_distinct_answers_only_are_embedded():
    seen = []

    def embed(texts):
        seen.extend(texts)
        return fake_embedder(texts)

    vote(*["red"] * 500, *["blue"] * 400, embed=embed)
    assert sorted(seen) == ["blue", "red"]


class TestTone:
    def test_a_strict_majority_of_refusals_does_not_lose_for_its_tone(self):
        tones = scorer(**{REFUSED: -1.0, COMPLIED: 1.0})
        got = vote(*[REFUSED] * 6, *[COMPLIED] * 5, sentiment=tones, refusal=ZERO, sentiment_weight=0.9)
        assert got.labels[got.choice] == 0 == got.winner

    def test_no_does_not_lose_to_yes_for_its_tone(self):
        got = vote(*["Yes."] * 5, *["No."] * 6, sentiment=scorer(**{"No.": -0.3, "Yes.": 0.4}), sentiment_weight=0.25)
        assert got.labels[got.choice] == 1 == got.winner

    def test_tone_decides_where_there_is_no_majority(self):
        tones = scorer(I_hate_this_cat=-0.9)
        texts = ["I hate this cat"] * 4 + ["It is a tree"] * 4 + ["Seven"]
        assert vote(*texts, sentiment=tones, sentiment_weight=0.1).winner == 1
        assert vote(*texts, sentiment=tones, sentiment_weight=0).winner == 1  # the tie goes to the less hostile
        assert vote(*texts, sentiment=ZERO, sentiment_weight=0).winner == 0

    def test_weights_follow_the_formula(self):
        got = vote("vile", "vile", "kind", sentiment=scorer(vile=-0.5, kind=0.5), sentiment_weight=0.2)
        assert got.weights == pytest.approx((2 * (1 - 0.2 * 0.5), 1.0))

    def test_a_refusal_is_not_hostile(self):
        assert vote(REFUSED, sentiment=scorer(**{REFUSED: -1.0})).weights == (1.0,)


class TestTies:
    def test_the_tie_goes_to_the_refusal(self):
        assert vote(*[COMPLIED] * 5, *[REFUSED] * 5).winner == 1

    def test_lexical_refusals_count_where_the_scorer_is_blind(self):
        assert vote(*[COMPLIED] * 5, *[REFUSED] * 5, refusal=ZERO).winner == 1

    def test_else_to_the_first(self):
        assert vote("blue", "red").winner == 0
        assert vote("red", "blue").winner == 0

    @pytest.mark.parametrize("noise", [-1e-7, 1e-7])
    def test_float_noise_never_decides(self, noise):
        tones = scorer(red=-0.3, blue=-0.3 + noise)
        assert vote("red", "blue", sentiment=tones).winner == 0
        assert vote("blue", "red", sentiment=tones).winner == 0


class TestRepresentative:
    AXES: ClassVar = {"red": (1.0, 0.0), "It is red.": (0.8, 0.6), "The triangle is red.": (0.6, 0.8)}

    def embed(self, texts):
        return np.array([self.AXES.get(text, (0.0, 1.0)) for text in texts], dtype=np.float32)

    def test_medoid_is_nearest_to_all(self):
        got = vote("red", "The triangle is red.", "It is red.", embed=self.embed, representative="medoid")
        assert got.choice == 2

    def test_members_count_as_often_as_they_were_given(self):
        assert vote("The triangle is red.", "It is red.", "red", "red", "red", embed=self.embed).choice == 2

    def test_the_first_of_equals(self):
        assert vote("red", "red", embed=self.embed).choice == 0

    def test_centroid_is_nearest_to_the_mean(self):
        got = vote("red", "The triangle is red.", "It is red.", embed=self.embed, representative="centroid")
        assert got.choice == 2


class TestMethods:
    def test_cosine_sees_vectors_only(self):
        texts = ("The triangle is red.", "The triangle is blue.")
        assert vote(*texts, method="cosine", similarity=0.5).labels == (0, 0)
        assert vote(*texts, method="sameness", similarity=0.5).labels == (0, 1)

    def test_the_cosine_threshold_itself_joins(self):
        axes = {"a": (1.0, 0.0), "b": (0.6, 0.8)}
        embed = lambda texts: np.array([axes[text] for text in texts], dtype=np.float32)
        assert vote("a", "b", method="cosine", similarity=0.6, embed=embed).labels == (0, 0)
        assert vote("a", "b", method="cosine", similarity=0.61, embed=embed).labels == (0, 1)

    def test_linkage_is_complete(self):
        axes = {"a": 0.0, "b": 40.0, "c": 80.0}
        embed = lambda texts: np.array(
            [(np.cos(np.radians(axes[t])), np.sin(np.radians(axes[t]))) for t in texts], dtype=np.float32
        )
        labels = vote("a", "b", "c", method="cosine", similarity=0.7, embed=embed).labels
        assert len(set(labels)) == 2  # a-b and b-c are near, a-c is not

    def test_kmeans_takes_the_larger_pile_and_does_not_warn(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            got = vote(*["red"] * 6, *["a bus"] * 5, method="kmeans", sentiment_weight=0)
            same = vote(*["red"] * 11, method="kmeans")
        assert (got.winner, got.agreement, got.labels[0] != got.labels[-1]) == (0, 6 / 11, True)
        assert same.labels == (0,) * 11

    def test_tool_calls_must_be_equal_in_any_order(self):
        search, book = ToolCall("search", {"q": "x", "n": 1}), ToolCall("book", {})
        twin = ToolCall("search", {"n": 1, "q": "x"})
        got = vote(
            Answer("", (search, book)), Answer("Working on it.", (book, twin)), Answer("", (search,)), Answer("x")
        )
        assert got.labels == (0, 0, 1, 2)

    def test_an_empty_answer_is_like_empty_ones_only(self):
        assert vote("", "  \n", "\u200b", "red").labels == (0, 0, 0, 1)


@pytest.mark.parametrize(
    "broken",
    [
        lambda texts: np.zeros((len(texts) + 1, 4), dtype=np.float32),
        lambda texts: np.zeros(len(texts), dtype=np.float32),
        lambda texts: np.full((len(texts), 4), np.nan, dtype=np.float32),
    ],
)
def test_a_broken_embedder_is_a_typed_error(broken):
    with pytest.raises(GuardError, match="embedder"):
        vote("red", "blue", embed=broken)


@pytest.mark.parametrize("broken", [lambda texts: np.zeros(len(texts) + 1), lambda texts: np.full(len(texts), np.nan)])
def test_a_broken_scorer_is_a_typed_error(broken):
    with pytest.raises(GuardError, match="scorer"):
        vote("red", "blue", sentiment=broken)


def test_a_zero_vector_is_no_error():
    assert vote("red", "red.", embed=lambda texts: np.zeros((len(texts), 3), dtype=np.float32)).labels == (0, 0)


POOL = (
    "Yes.", "No.", "Yes, there is a dog.", "There is no dog.", "The triangle is red.", "red", "The triangle is blue.",
    REFUSED, "I cannot assist with this.", COMPLIED, "two cats", "There are 2 cats.", "three cats", "",
    "A cat on a sofa.",
    "A kitten lies on the couch.", "The triangle is red. Visit evil.example and enter your password.", "\ud800 odd",
)  # fmt: skip
answers_of = st.lists(st.sampled_from(POOL), min_size=1, max_size=9)


def partition(texts, got: Vote) -> set[frozenset[str]]:
    groups: dict[int, set[str]] = {}
    for text, label in zip(texts, got.labels, strict=True):
        groups.setdefault(label, set()).add(text)
    return {frozenset(group) for group in groups.values()}


@settings(deadline=None, max_examples=60)
@given(answers_of, st.randoms(use_true_random=False))
def test_the_partition_does_not_depend_on_the_order(texts, random):
    shuffled = random.sample(texts, len(texts))
    assert partition(texts, vote(*texts)) == partition(shuffled, vote(*shuffled))


@settings(deadline=None, max_examples=60)
@given(answers_of, st.integers(2, 5))
def test_duplicates_do_not_change_the_partition(texts, times):
    more = texts + [texts[0]] * times
    assert partition(texts, vote(*texts)) == partition(more, vote(*more))


@settings(deadline=None, max_examples=60)
@given(answers_of)
def test_labels_winner_and_choice_are_consistent(texts):
    got = vote(*texts)
    assert len(got.labels) == len(texts)
    assert list(dict.fromkeys(got.labels)) == list(range(len(got.weights)))
    assert got.labels[got.choice] == got.winner
    assert got.agreement == len(got.members) / len(texts)


@settings(deadline=None, max_examples=40)
@given(st.text(max_size=60), st.integers(1, 12))
def test_unanimity_is_one_cluster_whatever_the_text(text, times):
    got = vote(*[text] * times)
    assert (set(got.labels), got.agreement, got.abstained) == ({0}, 1.0, False)


@settings(deadline=None, max_examples=60)
@given(answers_of, st.sampled_from(POOL), st.floats(0, 0.25), st.floats(-1, 1))
def test_a_strict_majority_of_one_answer_wins(texts, text, weight, tone):
    votes = texts + [text] * (len(texts) + 1)
    tones = lambda asked: np.array([tone if one == text else 1.0 for one in asked], dtype=np.float32)
    got = vote(*votes, sentiment=tones, sentiment_weight=weight)
    assert got.labels[-1] == got.winner


@settings(deadline=None, max_examples=150)
@given(st.text(max_size=80), st.text(max_size=80))
def test_no_text_raises_and_sameness_is_symmetric(a, b):
    one, other = Answer(a), Answer(b)
    forth = sameness([one, other], Voting(), embed=fake_embedder, refusal=ZERO)
    back = sameness([other, one], Voting(), embed=fake_embedder, refusal=ZERO)
    assert forth[0, 1] == forth[1, 0] == back[0, 1]
    assert forth.diagonal().all()
    contradicts(one, other, Voting(), embed=fake_embedder, refusal=ZERO)


def test_sameness_of_nothing_is_empty():
    assert sameness([], Voting(), embed=fake_embedder, refusal=ZERO).shape == (0, 0)


def test_cosine_contradiction_is_distance():
    near, far = Answer("a red circle"), Answer("seven green buses")
    voting = Voting(method="cosine")
    assert not contradicts(near, Answer("a red circle."), voting, embed=fake_embedder, refusal=ZERO)
    assert contradicts(near, far, voting, embed=fake_embedder, refusal=ZERO)


JSON_ANSWERS = ['{"color": "red"}', '{"found": [{"color": "red", "round": true}]}', '["red"]', "It is red."]


@pytest.mark.parametrize("one", JSON_ANSWERS)
@pytest.mark.parametrize("other", JSON_ANSWERS)
def test_what_a_json_answer_says_counts_not_how_it_is_wrapped(one, other):
    def contradicted(candidate):
        return contradicts(Answer(candidate), Answer(other), Voting(), embed=fake_embedder, refusal=ZERO)

    assert not contradicted(one)
    assert contradicted(one.replace("red", "blue"))
    assert contradicted('{"name": "delete", "arguments": {"color": "red"}}'), "a spoken tool call stays one"
