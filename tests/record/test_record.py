"""Records: where they go when the application configured nothing, and that they are JSON."""

from __future__ import annotations

import json
import subprocess
import sys

from sg_guardrails import Answer, Outcome, Policy, Prompt
from sg_guardrails.record import event
from sg_guardrails.testing import fake_audio, fake_image

SCRIPT = """
import logging, sys
from sg_guardrails import Answer, Outcome, Policy, Prompt
from sg_guardrails.record import emit
{setup}
for status in ("passed", "blocked", "error"):
    emit(Outcome("x", status, Answer("x")), prompt=Prompt.ask("secret words"), policy=Policy.load("default"))
"""


def run(setup: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT.format(setup=setup)], capture_output=True, text=True, check=True
    )


def test_nothing_is_printed_until_the_application_asks():
    done = run("")
    assert done.stdout == done.stderr == ""


def test_the_standard_logger_gets_lines_of_json():
    done = run("logging.basicConfig(level=logging.INFO, format='%(message)s')")
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["status"] for line in lines] == ["passed", "blocked", "error"]
    assert {line["event"] for line in lines} == {"guard.outcome"}
    assert "secret" not in done.stderr


def test_media_are_named_by_digest():
    image, audio = fake_image(), fake_audio()
    fields = event(Outcome("x", "passed", Answer("x")), Prompt.ask("?", image, audio), Policy.load("default"))
    assert fields["media"] == [image.digest, audio.digest]
    assert json.loads(json.dumps(fields)) == fields
