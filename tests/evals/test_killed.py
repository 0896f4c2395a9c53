"""Evaluations and ablations killed while judging go on without loss or repeat: real processes, SIGKILL."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

from sg_guardrails.core.policy import Voting
from sg_guardrails.core.types import Prompt
from sg_guardrails.evals.ablation import Part, ablate
from sg_guardrails.evals.base import Figure, Item, Reply
from sg_guardrails.evals.evaluate import Judge, evaluate

ROOT = Path(__file__).resolve().parents[2]
MANY = 400
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")


@dataclass(frozen=True)
class Judged:
    """Numbers whose answers a judge decides about."""

    name: str = "judged"
    headline: str = "rate"
    outcome: str = "even"
    troubles: tuple = ()

    @cached_property
    def items(self):
        return [Item(str(i), "all", lambda i=i: Prompt.ask(str(i)), text=str(i)) for i in range(MANY)]

    def hit(self, row):
        return row.text == "even" if row.counts else None

    def scores(self, rows):
        hits = [hit for row in rows if (hit := self.hit(row)) is not None]
        return {"all": {"rate": Figure.rate(sum(hits), len(hits))}}

    def judging(self, rows):
        asked = Judged()
        items = [Item(row.key, "all", lambda t=row.text: Prompt.ask(t), text=row.text) for row in rows if row.counts]
        object.__setattr__(asked, "items", items)
        return asked


def answer(prompt):
    return Reply(prompt.question, copies=3, answers=(prompt.question,) * 3)


def parity(prompt):
    return "odd" if int(prompt.question) % 2 else "even"


@contextmanager
def tell(what):
    yield lambda done, total: sys.stdout.write(f"{what}: {done}\n") and sys.stdout.flush()


def evaluation(out):
    bench = Judged()
    judge = Judge("parity", parity, bench.judging)
    done = evaluate(bench, {"bare": answer, "guarded": answer}, out=Path(out), judge=judge, watch=tell)
    return done.evaluation.arms["guarded"].scores


def ablation(out):
    bench = Judged()
    return ablate(
        [Part("utility", bench, Judge("parity", parity, bench.judging))],
        bare=answer,
        under=lambda *_: answer,
        elect=lambda answers, _: (answers[0], False),
        sigmas=[0.1, 0.2],
        copies=[2],
        methods=[Voting(method="sameness")],
        out=Path(out),
        watch=tell,
    ).cells


CHILD = """
import sys
sys.path.insert(0, {root!r})
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("killed", {here!r})
module = module_from_spec(spec)
sys.modules["killed"] = module
spec.loader.exec_module(module)
module.{what}({out!r})
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "at", "journals"),
    [
        ("evaluation", ("bare, judging: 60", "guarded: 90", "guarded, judging: 200"), 4),
        (
            "ablation",
            ("utility, bare, judging: 50", "utility, sigma-0.2-copies-2: 70", "utility, 0.2-2-sameness, judging: 30"),
            6,
        ),
    ],
)
def test_whatever_is_killed_goes_on_without_loss_or_repeat(tmp_path, what, at, journals):
    out = tmp_path / "out"
    script = CHILD.format(root=str(ROOT), here=__file__, what=what, out=str(out))
    kept: dict[Path, bytes] = {}
    for sign in at:
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as child:
            for line in child.stdout:
                if line.startswith(sign):
                    child.send_signal(signal.SIGKILL)
                    break
        assert child.returncode == -signal.SIGKILL
        for path, before in kept.items():
            assert path.read_bytes().startswith(before)
        written = {path: path.read_bytes() for path in out.rglob("items.jsonl")}
        kept = {path: content[: content.rfind(b"\n") + 1] for path, content in written.items()}
    finished = globals()[what](out)
    found = sorted(out.rglob("items.jsonl"))
    assert len(found) == journals
    for path in found:
        assert path.read_bytes().startswith(kept.get(path, b""))
        assert [json.loads(line)["key"] for line in path.read_text().splitlines()] == [str(i) for i in range(MANY)]
    assert finished == globals()[what](tmp_path / "unbroken")
