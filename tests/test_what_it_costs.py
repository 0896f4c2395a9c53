"""The page's figures are the committed JSON's; a killed run goes on; no figure of other code stays unnoticed."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from rich.console import Console

from benchmarks import cost_page, measured
from benchmarks.early_replayed import KEY, Group, Recorded, replayed, row, told
from sg_guardrails.core import noise
from sg_guardrails.core.media import Image
from sg_guardrails.core.policy import Policy
from sg_guardrails.core.types import Answer, Prompt
from sg_guardrails.testing import fake_embedder

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "what_it_costs.md").read_text(encoding="utf-8")
ROWS = ((10, None, 1), (4, None, 1), (10, 16, 8))


@pytest.fixture
def cost(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.setenv("SG_GUARDRAILS_KEY", "a key of sixteen bytes and more")
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    return importlib.import_module("cost")


class Cells:
    """Measures nothing; breaks where it is told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int | None, int]] = []
        self.breaks_at: tuple[int, int | None, int] | None = None

    def __call__(self, _: object, *, copies: int, tokens: int | None, requests: int) -> dict[str, object]:
        self.asked.append((copies, tokens, requests))
        if self.asked[-1] == self.breaks_at:
            raise KeyboardInterrupt
        return {"copies": copies, "tokens": tokens, "requests": requests, "ratio": {}}


def test_a_killed_run_goes_on_and_other_code_is_measured_again(
    cost: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells, quiet, path = Cells(), Console(quiet=True), tmp_path / "cost.json"
    monkeypatch.setattr(cost, "cell", cells)

    def run(code: str, *, keep: bool = False) -> list[tuple[int, int | None, int]]:
        cells.asked = []
        cost.Store(path, code, "p@1", keep=keep).measured(ROWS, None, quiet)
        return cells.asked

    cells.breaks_at = ROWS[1]
    with pytest.raises(KeyboardInterrupt):
        run("one")
    cells.breaks_at = None
    assert run("one") == [*ROWS[1:]]
    assert run("one") == []
    assert run("two", keep=True) == []
    assert {row["code"] for row in json.loads(path.read_text())["rows"]} == {"one"}
    assert run("two") == [*ROWS]
    rows = json.loads(path.read_text())["rows"]
    assert {row["code"] for row in rows} == {"two"}
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d", row["date"]) for row in rows)


def test_parts_are_measured_once_for_each_code(cost: ModuleType, tmp_path: Path) -> None:
    done: list[str] = []
    pieces = {"one": lambda: done.append("one"), "other": lambda: done.append("other")}
    for code in ("a", "a", "b"):
        cost.Store(tmp_path / "cost.json", code, "p@1", keep=False).parted(pieces, Console(quiet=True))
    assert done == ["one", "other", "one", "other"]


def test_parts_can_be_measured_alone(cost: ModuleType) -> None:
    pieces = {"one": lambda: 1, "other": lambda: 2}
    assert list(cost.chosen(pieces, ["other"])) == ["other"]
    assert cost.chosen(pieces, ()) == pieces
    with pytest.raises(KeyError, match="third"):
        cost.chosen(pieces, ["third"])


def test_every_row_that_was_wanted_is_in_the_table(cost: ModuleType) -> None:
    rows = cost.cells(small=True, few=False, lengths=())
    assert len(rows) == len(set(rows))
    wanted = {(n, length, r) for n in (4, 10, 20) for length in (16, 128, 512) for r in (1, 8)}
    assert wanted <= set(rows)
    assert set(cost.cells(small=True, few=True, lengths=())) < set(rows)
    assert all(tokens is not None for _, tokens, _ in cost.cells(small=False, few=False, lengths=()))
    assert {tokens for _, tokens, _ in cost.cells(small=True, few=False, lengths=(0, 16))} == {None, 16}


def test_the_digest_is_of_what_is_loaded_and_of_the_files_named(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text("a = 1\n")
    before = measured.digest(own)
    assert measured.digest(own) == before != measured.digest()
    own.write_text("a = 2\n")
    assert measured.digest(own) != before


def test_the_page_holds_the_json() -> None:
    assert cost_page.page(PAGE, cost_page.read_all()) == PAGE


def test_another_figure_or_another_code_makes_another_page() -> None:
    read = cost_page.read_all()
    changed = json.loads(json.dumps(read))
    changed[cost_page.CPU]["rows"][0]["ratio"]["full"] = 12.34
    assert "12.34" in cost_page.page(PAGE, changed)
    mixed = json.loads(json.dumps(read))
    mixed[cost_page.CPU]["rows"][0]["code"] = "of another day"
    assert "on different code" in cost_page.page(PAGE, mixed)
    assert "of another day (1)" in cost_page.page(PAGE, mixed)
    parted = json.loads(json.dumps(read))
    for part in parted[cost_page.CPU]["parts"].values():
        part["code"] = "of one day"
    parted[cost_page.CPU]["parts"]["floor"]["code"] = "of another day"
    assert "of another day (1: `floor`)" in cost_page.page(PAGE, parted)


@pytest.mark.parametrize(
    ("wall", "process", "by_wall", "by_process"),
    [(1.501, 1.4, "met, at the edge", "**missed**"), (1.4, 1.7, "**missed**", "met")],
)
def test_callers_at_once_are_told_by_both_clocks(wall: float, process: float, by_wall: str, by_process: str) -> None:
    read = json.loads(json.dumps(cost_page.read_all()))
    read[cost_page.CPU]["parts"]["requests_per_second"]["found"]["times"] = {"wall": wall, "process": process}
    lines = cost_page.page(PAGE, read).splitlines()
    assert any("by the wall |" in line and line.endswith(f"| {wall:.2f} | {by_wall} |") for line in lines)
    assert any("by process time |" in line and line.endswith(f"| {process:.2f} | {by_process} |") for line in lines)


@pytest.mark.parametrize(
    ("low", "high", "found", "told"),
    [
        (0.9, 1.1, 1.0, "met"),
        (0.9, 1.1, 1.095, "met, at the edge"),
        (0.9, 1.1, 1.11, "**missed**"),
        (0.9, 1.1, 0.89, "**missed**"),
        (None, 2.5, 2.3, "met"),
        (None, 2.5, 2.51, "**missed**"),
        (2.5, None, 2.51, "met, at the edge"),
    ],
)
def test_a_target_is_met_or_missed(low: float | None, high: float | None, found: float, told: str) -> None:
    assert cost_page.verdict(low, high, found) == told


def test_the_page_names_the_settings_of_the_bare_answer_and_the_spread_of_the_rounds() -> None:
    read = cost_page.read_all()
    rows = read[cost_page.CPU]["rows"]
    single = sum(len(row["bare_seconds_by_settings"]) == 1 for row in rows)
    assert f"In the {single} rows of a fixed length the bare answer was measured as sdpa, dynamic alone." in PAGE
    low, high = cost_page.asked_for(rows)["spread"]["sequential"]
    assert f"| {low:.2f} | {high:.2f} |" in PAGE


def test_compiled_is_compared_like_for_like() -> None:
    ways = cost_page.read_all()[cost_page.CPU]["parts"]["engines_ms"]["found"]
    compiled = ways["sdpa, static, compiled"]
    assert f"like for like {compiled['full'] / compiled['bare']:.2f} times" in PAGE
    assert f"not the vote pays {ways['sdpa, dynamic']['full'] / compiled['bare']:.2f} times" in PAGE


# Deciding early, replayed --------------------------------------------------------------------------------------------

RED, BLUE, NO = "The circle is red.", "The circle is blue.", "I'm sorry, I cannot help with that."


@pytest.fixture(scope="module")
def policy() -> Policy:
    shipped = Policy.load("builtin")
    return shipped.model_copy(update={"voting": shipped.voting.model_copy(update={"refusal_veto": None})})


def group(*said: list[str]) -> Group:
    shades = [Image(np.full((8, 8, 3), number / 10, np.float32)) for number in range(len(said))]
    prompts = [Prompt.ask("What colour is the circle?", shade) for shade in shades]
    return Group("made", [(one, tuple(map(Answer, texts))) for one, texts in zip(prompts, said, strict=True)])


def test_each_copy_says_again_what_was_recorded_of_it(policy: Policy) -> None:
    made = group([f"answer {number}" for number in range(11)], [RED] * 11)
    (first, _), (second, _) = made.said
    plan = [copy for prompt in (second, first) for copy in noise.copies_of(prompt, policy.smoothing, KEY)]
    said = [answer.text for answer in Recorded(made, policy.smoothing)(plan, policy.smoothing)]
    assert said == [RED] * 11 + [f"answer {number}" for number in range(11)]


def test_the_guards_own_rounds_are_replayed(policy: Policy) -> None:
    turned = [RED] * 4 + [BLUE] * 7
    made = group([RED] * 11, turned, [RED] * 6 + [BLUE] * 5)
    done = replayed(policy, made, fake_embedder)
    assert [one.asked for one in done["full"]] == [11, 11, 11]
    assert [one.asked for one in done["exact"]] == [6, 11, 6]
    assert all(told(a, b) for a, b in zip(done["full"], done["exact"], strict=True))
    hasty = done["sequential 0.1"]
    assert hasty[1].asked < 11
    assert hasty[1].text == RED
    assert [told(a, b) for a, b in zip(done["full"], hasty, strict=True)] == [True, False, True]
    found = row("made", "sequential 0.1", done["full"], hasty)
    assert found["same_verdict"]["rate"] == pytest.approx(2 / 3)
    assert not found["met"]


def test_what_is_withheld_in_both_is_the_same_to_the_caller(policy: Policy) -> None:
    torn = [RED] * 4 + [BLUE] * 4 + [NO] * 3
    done = replayed(policy, group(torn), fake_embedder)
    assert done["full"][0].answer is None
    assert told(done["full"][0], done["exact"][0])
    whole = replayed(policy, group([RED] * 11), fake_embedder)["full"][0]
    assert not told(done["full"][0], whole)
