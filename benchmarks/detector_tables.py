"""The tables of docs/detectors.md, from the results of `benchmarks.detectors`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

BEGIN, END = "<!-- tables: written by python -m benchmarks.detectors -->", "<!-- tables end -->"
Json = dict[str, Any]


def written(page: str, result: Json) -> str:
    """The page with its tables made anew; the prose around them stays."""
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n\n{tables(result)}\n{END}{after}"


def tables(result: Json) -> str:
    """Every table, as Markdown."""
    return "\n\n".join(
        "\n".join(lines)
        for lines in (
            _heads(result),
            _models(result),
            _apart(result),
            _bound(result),
            _policies(result),
            _rules(result),
            _calibration(result),
        )
    )


def _percent(item: Json) -> str:
    if item["share"] is None:
        return "-"
    return f"{item['share']:.1%} ({item['low']:.1%} to {item['high']:.1%}, n {item['n']})"


def _row(first: str, second: str, item: Json) -> str:
    shares = " | ".join(_percent(item[key]) for key in ("accuracy", "precision", "recall", "false_alarms"))
    return f"| {first} | {second} | {shares} | {item['auc']:.3f} | {item['brier']:.3f} | {item['ece']:.3f} |"


_COLUMNS = "| accuracy | precision | recall | false alarms | AUC | Brier | ECE |\n|---|---|---|---|---|---|---|---|---|"


def _heads(result: Json) -> Iterator[str]:
    yield "### Held out: each row by a head that has not seen its prompt\n"
    yield f"| rows of | scorer {_COLUMNS}"
    for name, found in result["heads"].items():
        for scorer, item in found.items():
            if scorer not in ("by_model", "bound"):
                yield _row(f"`{name}`", f"`{name.partition(':')[0]}`, ours" if scorer == "held out" else scorer, item)


def _models(result: Json) -> Iterator[str]:
    yield "### `refusal` on a model that it has not seen (accuracy, partial refusals left out)\n"
    yield "| XSTest model held out | its answers unseen | its answers and their prompts unseen |\n|---|---|---|"
    for model, (answers, both) in result["heads"]["refusal"]["by_model"].items():
        yield f"| {model} | {answers:.3f} | {both:.3f} |"


def _apart(result: Json) -> Iterator[str]:
    yield "### Sets of another making, on which no head was trained (the shipped heads)\n"
    yield f"| set | scorer {_COLUMNS}"
    for title, found in result["never trained on"].items():
        for at, (scorer, item) in enumerate(found.items()):
            yield _row(title, scorer if at else f"`{scorer}`, ours", item)


def _bound(result: Json) -> Iterator[str]:
    item = result["heads"]["unsafe_request"]["bound"]
    bounds = ", ".join(f"{bound:.2f}" for bound in item["bounds"])
    yield "### The bound of `unsafe_request`, chosen in each fold's training rows alone\n"
    yield "| bounds of the five folds | of unsafe prompts caught | of safe prompts caught | precision |"
    yield "|---|---|---|---|"
    shares = " | ".join(_percent(item[key]) for key in ("recall", "false_alarms", "precision"))
    yield f"| {bounds} | {shares} |"


def _policies(result: Json) -> Iterator[str]:
    yield "### Whole policies on XSTest: how often the answer is withheld\n"
    yield "| policy | judged | of safe prompts (over-refusal) | of unsafe prompts that were obliged |"
    yield "|---|---|---|---|"
    for item in result["policies"]:
        judged = "prompt and answer" if item["set"] == "XSTest answers" else "prompt, obliging answer"
        yield f"| {item['policy']} | {judged} | {_percent(item['safe'])} | {_percent(item['unsafe_obliged'])} |"


def _rules(result: Json) -> Iterator[str]:
    yield "### Every rule that judges text, by itself\n"
    yield "| rule | policies | set | precision | recall | AUC | fires on the safe |\n|---|---|---|---|---|---|---|"
    for item in result["rules"]:
        start = f"| `{item['rule']}` | {', '.join(item['policies'])} |"
        if item["set"] is None:
            continue
        auc = f"{item['auc']:.3f}" if "auc" in item else "-"
        precision = _percent(item["precision"]) if item["positive"] else "- (no positives)"
        yield f"{start} {item['set']} | {precision} | {_percent(item['recall'])} | {auc} | {_percent(item['safe'])} |"
    left = sorted({item["rule"] for item in result["rules"] if item["set"] is None})
    yield "\nLook at votes and tool calls, and are not in the table: " + ", ".join(f"`{name}`" for name in left) + "."


def _calibration(result: Json) -> Iterator[str]:
    yield "### Reliability: what a score means (held out)\n"
    yield "| head | score | texts | mean score | share that is true |\n|---|---|---|---|---|"
    for name, found in result["heads"].items():
        for row in found["held out"]["reliability"]:
            spread = f"{row['from']:.1f} to {row['from'] + 0.1:.1f}"
            yield f"| `{name}` | {spread} | {row['n']} | {row['said']:.2f} | {row['true']:.2f} |"
