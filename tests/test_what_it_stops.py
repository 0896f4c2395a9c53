"""The page's figures are the committed JSON's."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

ROOT = Path(__file__).parents[1]
MAKER = runpy.run_path(str(ROOT / "benchmarks" / "attacked.py"))
READ = MAKER["read_all"]()
PAGE = (ROOT / "docs" / "what_it_stops.md").read_text(encoding="utf-8")


def test_the_page_holds_the_json():
    assert MAKER["page"](PAGE, READ) == PAGE


def test_another_figure_would_make_another_page():
    changed = json.loads(json.dumps(READ))
    changed["builtin"]["cells"][0]["bare"]["value"] = 0.123
    assert "0.12 (" in MAKER["page"](PAGE, changed)
    assert MAKER["page"](PAGE, changed) != PAGE


def test_every_cell_has_its_row_and_nothing_else_has_a_rate():
    table = PAGE.split(MAKER["BEGIN"])[1].split(MAKER["END"])[0]
    rows = [line for line in table.splitlines() if re.match(r"\| (jailbreak|hijack|wrong|late)\b", line)]
    claims = [row for row in rows if " to " in row]
    assert len(rows) - len(claims) == sum(len(READ[name]["cells"]) for name in MAKER["POLICIES"])
    assert claims
    prose = PAGE.replace(table, "")
    assert not re.findall(r"0\.\d\d", prose)
