"""The black-box attack for the command line: every question is counted, and a killed run asks none of them again."""

from __future__ import annotations

import numpy as np
import pytest

from sg_guardrails.attacks.queries import QuerySettings
from sg_guardrails.cli import query_runs
from sg_guardrails.cli.attack_runs import Wanted
from sg_guardrails.cli.query_runs import run_queries
from sg_guardrails.core.media import Image
from sg_guardrails.core.policy import Policy
from sg_guardrails.core.types import Prompt

PICTURE = Image(np.random.default_rng(3).integers(0, 256, (12, 12, 3)).astype(np.float32) / np.float32(255))
WANTED = Wanted(aim="wrong", right="red")


class KilledError(Exception):
    pass


def said(digest: str) -> str:
    return f"It is red, {digest[:4]}."


class Answerer:
    """Says that it is red, to each picture in words of its own, so often; then the process is killed."""

    def __init__(self, most: int) -> None:
        self.asked: list[str] = []
        self._most = most

    def __call__(self, prompt: Prompt) -> str:
        if len(self.asked) == self._most:
            raise KilledError
        self.asked.append(prompt.media[0].digest)
        return said(self.asked[-1])


@pytest.fixture
def ask(monkeypatch, tmp_path):
    """Run with this answerer and a state that is saved after each question."""
    monkeypatch.setattr(query_runs, "SAVED_EVERY", -1.0)

    def run(answerer: Answerer, **changed):
        monkeypatch.setattr(query_runs, "answerer", lambda policy, *, bare: ("somebody", answerer))
        settings = QuerySettings(eps=16 / 255, queries=20)
        options = {"bare": True, "state": tmp_path / "state", "progress": lambda done, total: None, **changed}
        return run_queries(
            Policy.load("builtin"), Prompt.ask("What color is it?", PICTURE), WANTED, settings, **options
        )

    return run


def test_no_more_questions_are_asked_than_are_told(ask):
    answerer = Answerer(99)
    _, report = ask(answerer, state=None)
    assert report.queries == len(answerer.asked) == 20
    assert answerer.asked.count(PICTURE.digest) == 1
    assert report.answer_clean == said(PICTURE.digest)


def test_a_killed_run_asks_nothing_again_and_leaves_its_state_until_the_result_is_written(ask, tmp_path):
    whole, first, second = Answerer(99), Answerer(7), Answerer(99)
    expected, _ = ask(whole, state=tmp_path / "another")
    with pytest.raises(KilledError):
        ask(first)
    found, report = ask(second)
    assert [*first.asked, *second.asked] == whole.asked
    assert report.queries == 20
    assert report.answer_clean == said(PICTURE.digest)
    assert found.digest == expected.digest
    assert (tmp_path / "state").exists()
