"""The demo: every scene on the real model, and a page that needs no other file and escapes what models say."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from rich.console import Console

from sg_guardrails import Answer, Policy
from sg_guardrails.core.types import Outcome, Verdict, Vote
from sg_guardrails.demo import Scene, print_scene, render, run, scenes
from sg_guardrails.local import local_guard


def test_the_pictures_fool_the_bare_model_and_the_vote_puts_it_right():
    guard = local_guard("builtin")
    attacked = 0
    for scene in scenes():
        outcome = guard.check(scene.prompt)
        bare = outcome.answers[outcome.clean].text
        sound = outcome.text == scene.right or (scene.right == "a refusal" and not outcome.text.startswith("Sure"))
        assert sound, (scene.title, outcome.text)
        if scene.original is not None:
            attacked += 1
            assert bare != outcome.text, scene.title
            assert np.abs(scene.image.pixels - scene.original.pixels).max() <= 32.5 / 255
    assert attacked == 2


def test_the_page_shows_every_scene(tmp_path):
    console = Console(file=io.StringIO(), width=120)
    run(console, page=tmp_path / "demo.html", audio=False)
    shown = console.file.getvalue()
    assert shown.count("the guard hands on") == len(scenes()) >= 3
    page = (tmp_path / "demo.html").read_text(encoding="utf-8")
    assert page.count("<article>") == len(scenes())
    assert not re.search(r'(src|href)="(?!data:)', page), "the page needs no other file"


def test_answers_are_escaped():
    hostile = "<script>alert(1)</script>\x1b[2J"
    outcome = Outcome(
        hostile,
        "passed",
        Answer(hostile),
        vote=Vote((0, 0), 0, 0, 1.0, False, (2.0,)),
        verdict=Verdict("allow"),
        answers=(Answer(hostile), Answer(hostile)),
        clean=0,
        timings={"total": 1.0},
    )
    scene = Scene("title", "question", "right")
    assert "<script>" not in render([(scene, outcome, Policy.load("builtin"))])
    console = Console(file=io.StringIO(), width=120)
    print_scene(scene, outcome, console)
    assert "\x1b[2J" not in console.file.getvalue()


@pytest.mark.slow
def test_speech_is_heard_where_whisper_is_at_hand(tmp_path, shared):
    console = Console(file=io.StringIO(), width=120)
    run(console, page=tmp_path / "demo.html", speech_model=str(shared / "assets/whisper-tiny-en"))
    assert "john dashwood had then leisure" in console.file.getvalue().lower()
