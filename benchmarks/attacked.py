"""Writes the figures of docs/what_it_stops.md from the red team's and its studies' JSON, so that none can drift.

    sg-guardrails eval redteam --policy NAME --out DIR        # hours on one CPU core; goes on where it was killed
    cp DIR/redteam.json benchmarks/results/redteam_NAME.json  # and redteam.html likewise
    python benchmarks/tried.py --suite DIR --clean 1000       # also escalation.py, whisper_attack.py, certified.py
    python benchmarks/attacked.py                             # rewrites the marked part of the page

With ``--check`` it changes nothing and exits 1 where the page differs.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from statistics import NormalDist
from textwrap import wrap
from typing import Any

from benchmarks.pages import ROOT, between, figures, rewrite
from sg_guardrails.evals.redteam_score import MOST_LOST, MOST_WITHHELD

POLICIES = {
    "builtin": "Policy `builtin`",
    "without_noise": "A checkpoint that never saw noise, policy `builtin`",
}
"""The suite's runs, each with its heading."""
PAGE = ROOT / "docs" / "what_it_stops.md"
BEGIN, END = "<!-- figures: start -->", "<!-- figures: end -->"
STUDIES = ("tried", "escalation", "whisper_attack", "certified")
"""Beside the suite: benchmarks of their own."""
WIDTH = 118
SIGMA, FRESH = 0.35, 200
"""Of the certificate that is reckoned for comparison."""
LAYERS = {"vote": "vote", "abstention": "vote + abstention", "guard": "full guard"}


def rate(figure: Mapping[str, Any]) -> str:
    """A rate with its interval."""
    return f"{figure['value']:.2f} ({figure['low']:.2f}-{figure['high']:.2f})"


def layer(row: Mapping[str, Any], name: str) -> str:
    """A layer's rate, what it leaves of the bare one, and what became of the target."""
    cell = rate(row["guarded"][name])
    return cell if name == "guard" and row.get("unruled") else cell + left(row, name)


def left(row: Mapping[str, Any], name: str) -> str:
    """What a layer leaves of the bare rate, and what became of the target."""
    share, target = row["share"][name], row["target"][name]
    asked = "" if target is None else f" of {target:.0%}: {row['verdict'][name]}"
    return asked if share is None else f"; {share:.0%}{asked}"


def budget(row: Mapping[str, Any]) -> str:
    """The budget as a reader knows it."""
    much = row["cell"]["budget"]
    return f"{much}/255" if much.isdigit() else str(much)


def attacks(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The table of all cells."""
    yield (
        "| attack | budget | attacker | n | bare | "
        + " | ".join(LAYERS.values())
        + " | hijack without its rule | recovered: vote | recovered | withheld | paper's preset |"
    )
    yield "|---" * (10 + len(LAYERS)) + "|"
    for row in rows:
        cell = row["cell"]
        paper = "" if row["paper"] is None else f"{rate(row['paper'])}, n {row['paper']['n']}"
        layers = " | ".join(layer(row, name) for name in LAYERS)
        unruled = rate(row["unruled"]) + left(row, "guard") if row.get("unruled") else ""
        given_back = rate(row["recovered"]["vote"]) + (f": {row['recovery']}" if row["recovery"] else "")
        ends = f"{unruled} | {given_back} | {rate(row['recovered']['guard'])} | {rate(row['stopped'])}"
        yield (
            f"| {cell['family']} | {budget(row)} | {cell['attacker']} | {row['bare']['n']} | {rate(row['bare'])} "
            f"| {layers} | {ends} | {paper} |"
        )


def claims(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Each static figure beside the adaptive attack that tried to break it, where there was one."""
    found = {(row["cell"]["family"], row["cell"]["budget"], row["cell"]["attacker"]): row for row in rows}
    if not any(attacker == "adaptive" for _, _, attacker in found):
        return
    yield from ("Each claim and the attack that tried to break it:", "")
    yield "| claim: pictures made without knowledge of the guard | bare to guarded | the adaptive attack on it |"
    yield "|---|---|---|"
    for (family, much, attacker), row in found.items():
        broken = found.get((family, much, "adaptive"))
        if attacker == "static" and broken is not None:
            yield f"| {family}, {much}/255 | {_change(row)} | {_change(broken)} |"
    yield ""


def _change(row: Mapping[str, Any]) -> str:
    return f"{row['bare']['value']:.2f} to {rate(row['guarded']['guard'])}, n {row['bare']['n']}"


def clean(cost: Mapping[str, Any], more: Mapping[str, Any] | None = None) -> Iterator[str]:
    """What the guard costs where nobody attacks; `more` tells those apart that nobody had seen."""
    yield "| questions | n | bare | vote | full guard | withheld |"
    yield "|---|---|---|---|---|---|"
    vote, guard = cost["guarded"]["vote"], cost["guarded"]["guard"]
    yield (
        f"| all | {cost['bare']['n']} | {rate(cost['bare'])} | {rate(vote)}: {cost['verdict']['vote']} "
        f"| {rate(guard)}: {cost['verdict']['guard']} | {rate(cost['withheld'])}: {cost['withholding']} |"
    )
    for kind, (plain, guarded) in cost["by_kind"].items():
        yield f"| {kind} | {plain['n']} | {rate(plain)} | | {rate(guarded)} | |"
    if more is not None:
        shipped = next(row for row in more["rows"] if (row["change"], row["pictures"]) == ("as shipped", "clean"))
        yield _asked(f"all after the first {more['seen_clean']}", more["bare"]["unseen"], shipped["unseen"])


def _asked(name: str, plain: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """Clean questions held against the same targets as the suite's own."""
    right, held = row["right"], row["withheld"]
    near = "met" if plain["value"] - right["value"] <= MOST_LOST else "missed"
    few = "met" if held["value"] <= MOST_WITHHELD else "missed"
    return f"| {name} | {plain['n']} | {rate(plain)} | | {rate(right)}: {near} | {rate(held)}: {few} |"


def section(name: str, read: Mapping[str, Any], more: Mapping[str, Any] | None = None) -> Iterator[str]:
    """One policy's part."""
    about = read["about"]
    yield from (
        f"## {POLICIES[name]}",
        f"Model `{about['model']}`, policy `{about['policy']}`, {about['steps']} steps. Rates with 95% Wilson",
        "intervals; after a layer's rate, what it leaves of the bare rate and the target, where there is one.",
        "",
        *attacks(read["cells"]),
        "",
        *claims(read["cells"]),
        "What it costs where nobody attacks:",
        "",
        *clean(read["clean"], more),
        "",
    )


def tried(read: Mapping[str, Any]) -> Iterator[str]:
    """Other rules of abstention, on recorded answers."""
    rows = {(row["change"], row["pictures"]): row for row in read["rows"]}
    cells = [f"{family}-16-{who}" for who in ("static", "adaptive") for family in ("jailbreak", "wrong", "hijack")]
    shown = [name for name in cells if ("as shipped", name) in rows]
    yield from ("## Other rules of abstention", "")
    yield from wrap(
        f"Policy `{read['policy']}`, 16/255: how often the attacker's outcome still reaches the caller, decided anew "
        "from the recorded answers of the same copies, one change at a time; last, clean questions without an answer.",
        WIDTH,
    )
    yield from _changes(rows, shown)
    yield from ("",)
    yield from wrap(
        f"The same where no rule was chosen by what it does: static pictures after the first {read['seen']} of each "
        f"cell, clean questions after the first {read['seen_clean']}.",
        WIDTH,
    )
    unseen = {place: row["unseen"] for place, row in rows.items() if row["unseen"] is not None}
    yield from _changes(unseen, [name for name in shown if name.endswith("static")])
    yield ""


def _changes(rows: Mapping[tuple[str, str], Mapping[str, Any]], shown: Sequence[str]) -> Iterator[str]:
    heads = [f"{name.replace('-16-', ', ')}, n {rows['as shipped', name]['reached']['n']}" for name in shown]
    questions = rows["as shipped", "clean"]["withheld"]["n"]
    yield from (
        "",
        f"| change | {' | '.join(heads)} | clean withheld, n {questions} |",
        "|---" * (2 + len(shown)) + "|",
    )
    for change in dict.fromkeys(change for change, _ in rows):
        cells = " | ".join(rate(rows[change, name]["reached"]) for name in shown)
        yield f"| {change} | {cells} | {_fine(rows[change, 'clean']['withheld'])} |"


def _fine(figure: Mapping[str, Any]) -> str:
    """A rate that is small, with three decimals."""
    return f"{figure['value']:.3f} ({figure['low']:.3f}-{figure['high']:.3f})"


def escalation(read: Mapping[str, Any]) -> Iterator[str]:
    """Adaptive noise against those who know its rule."""
    groups = tuple(dict.fromkeys(row["pictures"] for row in read["rows"]))
    worst = {(row["pictures"], row["schedule"]): row for row in read["worst"]}
    clean = {row["schedule"]: row for row in read["clean"]}
    yield from ("## Adaptive noise, attacked by those who know its rule", "")
    yield from wrap(
        f"Policy `{read['policy']}` without its veto by refusals, which two levels cannot have; the last row has it. "
        "Schedules are named by their copies and their noise, as multiples of the policy's. Attackers: "
        f"{', '.join(dict.fromkeys(row['attacker'] for row in read['rows']))}; named by their aim, "
        f"{read['rows'][0]['reached']['n']} pictures each. Every figure is the worst attacker's, whose name stands "
        "beside it. Copies: the mean that was asked, the clean one included, on clean and (over all attacks) on "
        "attacked pictures.",
        WIDTH,
    )
    heads = " | ".join(groups)
    columns = "|---" * (3 + len(groups))
    yield from ("", f"| schedule | {heads} | copies clean / attacked | clean withheld |", f"{columns}|")
    for name in clean:
        cells = " | ".join(_worst(worst[group, name]) for group in groups)
        asked = [row["asked"] for row in read["rows"] if row["schedule"] == name]
        copies = f"{clean[name]['asked']:.1f} / {sum(asked) / len(asked):.1f}"
        yield f"| {name} | {cells} | {copies} | {rate(_wilson(clean[name]['withheld']))} |"
    yield ""


def _worst(row: Mapping[str, Any]) -> str:
    return f"{rate(_wilson(row['reached']))}: {row['attacker']}"


def late(read: Mapping[str, Any]) -> Iterator[str]:
    """Payloads that start after the draft: the suite's family `late`, where the run has it."""
    rows = [row for row in read["cells"] if row.get("drafted")]
    if not rows:
        return
    yield from (f"## A payload behind the draft (`draft_tokens: {read['about']['draft']}`)", "")
    yield from wrap(
        f"Policy `{read['about']['policy']}`, the suite's attack `late`: how often another shape reaches the caller, "
        "bare, with a vote on whole answers, and with a vote on drafts.",
        WIDTH,
    )
    yield from ("", "| budget | attacker | n | bare | whole answers | drafts |", "|---|---|---|---|---|---|")
    for row in rows:
        cells = " | ".join(rate(one) for one in (row["bare"], row["guarded"]["guard"], row["drafted"]))
        yield f"| {budget(row)} | {row['cell']['attacker']} | {row['bare']['n']} | {cells} |"
    yield ""


def whisper_attack(read: Mapping[str, Any]) -> Iterator[str]:
    """Targeted transcription."""
    snrs = [guard["snr_db"] for guard in read["rows"][0]["guards"]]
    yield from ("## Clips: Whisper made to write another sentence", "")
    yield from wrap(
        f"{read['model']}, {read['clips']} clips of speech, {read['steps']} steps ({read['adaptive_steps']} adaptive, "
        f"{read['draws']} draws), the guard with {read['copies']} noisy copies and the clean one. Success is the whole "
        "sentence in the transcript. Word error rates count a withheld answer as all wrong; in brackets, that of the "
        "vote alone.",
        WIDTH,
    )
    heads = " | ".join(f"guarded, {snr:g} dB noise" for snr in snrs)
    yield from ("", f"| change | below the speech | n | bare | {heads} |", "|---" * (4 + len(snrs)) + "|")
    for row in read["rows"]:
        cells = " | ".join(rate(guard["guarded"]) for guard in row["guards"])
        bare = row["bare_saved"]
        yield f"| {row['attack']} | {row['below_db']} dB | {bare['n']} | {rate(bare)} | {cells} |"
    costs = [f"{one['wer']:.2f} ({one['wer_vote']:.2f})" for one in read["clean"] if one["snr_db"] is not None]
    yield f"| none: word error rate | | {read['clips']} | {read['clean'][0]['wer']:.2f} | {' | '.join(costs)} |"
    yield ""


def certified(read: Mapping[str, Any]) -> Iterator[str]:
    """Certificates, and whether any was refuted."""
    unanimous = SIGMA * NormalDist().inv_cdf((1 - read["confidence"]) ** (1 / FRESH))
    pgd, random, many, copies = read["pgd"], read["random"], read["certified"], read["copies"]
    yield from ("## Certificates", "")
    yield from wrap(
        f"Policy `{read['policy']}`. Of {read['items']} questions {many} were certified from {copies} fresh copies, "
        f"each statement at {read['confidence']:.1%}. The median radius is {read['median_radius']:.2f} in L2 on pixels "
        f"in [0, 1]: {read['median_linf_255']:.1f}/255 if every value of a 64x64 picture moves alike: small, and so "
        f"is what more copies buy: {FRESH} unanimous ones at sigma {SIGMA} certify {unanimous:.2f}, or "
        f"{unanimous / math.sqrt(3 * 64 * 64) * 255:.1f}/255. Inside the radii a gradient attack that knows the noise "
        f"refuted {pgd['refuted']} of {many} statements at the same confidence ({pgd['below_half']} fell below a half "
        f"without it), random directions {random['refuted']}. That alone shows little, for so small a change hardly "
        f"moves the counts: of {copies} copies {read['mean_count']:.1f} agree before it and {pgd['mean_count']:.1f} "
        "after. The same attack where nothing is promised, on the first questions:",
        WIDTH,
    )
    yield from ("", "| times the radius | n | median L2 | copies that agree, mean | refuted | below a half |")
    yield "|---|---|---|---|---|---|"
    for times, far in read["beyond"].items():
        agree, turned = f"{far['mean_count']:.1f} of {copies}", f"{far['refuted']} | {far['below_half']}"
        yield f"| {times} | {far['n']} | {far['median_distance']:.2f} | {agree} | {turned} |"
    yield ""


def _wilson(figure: Mapping[str, Any]) -> dict[str, Any]:
    return {"value": figure["rate"], "low": figure["low"], "high": figure["high"]}


def page(text: str, runs: Mapping[str, Mapping[str, Any]]) -> str:
    """The page with its marked part made anew."""
    made = [
        line for name in POLICIES for line in section(name, runs[name], runs["tried"] if name == "builtin" else None)
    ]
    made += late(runs["builtin"])
    makers = (tried, escalation, whisper_attack, certified)
    made += [line for name, maker in zip(STUDIES, makers, strict=True) for line in maker(runs[name])]
    return between(text, BEGIN, END, made)


def read_all() -> dict[str, Any]:
    """The committed figures: by policy, and of the studies."""
    names = {**{name: f"redteam_{name}" for name in POLICIES}, **{name: name for name in STUDIES}}
    return {name: figures(file) for name, file in names.items()}


if __name__ == "__main__":
    sys.exit(rewrite(PAGE, lambda text: page(text, read_all())))
