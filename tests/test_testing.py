"""The shipped fakes keep the contracts of the parts that they stand for."""

from __future__ import annotations

import numpy as np
import pytest

from sg_guardrails import Answer, Copy, Policy, Prompt, SmoothGuard
from sg_guardrails.core.judge import missing_scorers
from sg_guardrails.core.policy import Smoothing
from sg_guardrails.testing import (
    FakeSampler,
    fake_audio,
    fake_embedder,
    fake_image,
    fake_refusal,
    fake_scorers,
    fake_sentiment,
)

COPIES = [Copy(Prompt.ask("a")), Copy(Prompt.ask("b"), 7)]


def test_a_script_is_a_text_a_list_or_a_function():
    assert FakeSampler("x")(COPIES, Smoothing()) == [Answer("x"), Answer("x")]
    assert FakeSampler(["x", "y"])(COPIES * 2, Smoothing()) == [Answer("x"), Answer("y"), Answer("y"), Answer("y")]
    assert FakeSampler(lambda copy: copy.prompt.question)(COPIES, Smoothing()) == [Answer("a"), Answer("b")]
    with pytest.raises(RuntimeError, match="down"):
        FakeSampler([RuntimeError("down")])(COPIES, Smoothing())


def test_a_sampler_remembers_what_it_was_asked():
    sampler = FakeSampler("x")
    sampler(COPIES, Smoothing())
    assert (sampler.asked, sampler.calls) == (COPIES, 1)


def test_embeddings_are_unit_rows_that_depend_on_the_text_alone():
    vectors = fake_embedder(["a red ball", "A RED ball!", "a blue car", ""])
    assert vectors.shape == (4, 256)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
    assert vectors[0] @ vectors[1] == pytest.approx(1)
    assert vectors[0] @ vectors[2] < 0.9
    assert np.array_equal(fake_embedder(["a red ball"])[0], vectors[0])


def test_scorers_cover_the_shipped_policies():
    for name in ("default", "builtin", "paper"):
        assert missing_scorers(Policy.load(name), fake_scorers()) == []
    assert fake_refusal(["I cannot help.", "Sure."]).tolist() == [1, 0]
    assert fake_sentiment(["I hate you", "fine"]).tolist() == [-1, 0]


def test_a_guard_of_fakes_runs_a_shipped_policy():
    guard = SmoothGuard(
        "default",
        sampler=FakeSampler("It is red."),
        embedder=fake_embedder,
        sentiment=fake_sentiment,
        scorers=fake_scorers(),
    )
    assert guard.check(Prompt.ask("what?", fake_image(), fake_audio())).text == "It is red."
