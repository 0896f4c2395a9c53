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
README = (ROOT / "README.md").read_text(encoding="utf-8")


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


def short(figure):
    return f"{figure['value']:.2f}".removeprefix("0")


def test_the_readmes_table_holds_the_json():
    cells = {
        (row["cell"]["family"], row["cell"]["budget"], row["cell"]["attacker"]): row for row in READ["builtin"]["cells"]
    }
    shown = re.findall(r"^\| (jailbreak|hijack|wrong) \| (\w+)(?:/255)? \| (.*)", README, re.MULTILINE)
    assert len(shown) == 15
    for family, budget, told in shown:
        rows = [cells[place] for who in ("static", "adaptive") if (place := (family, budget, who)) in cells]

        def beside(figures):
            return " / ".join(map(short, figures))

        held = f"**{beside(row['unruled'] or row['guarded']['guard'] for row in rows)}**"
        ruled = f" ({beside(row['guarded']['guard'] for row in rows)})" if family == "hijack" else ""
        bare, paper = beside(row["bare"] for row in rows), beside(row["paper"] for row in rows)
        assert told == f"{bare} | {paper} | {held}{ruled} |"
