"""What other rules of abstention would do, on the answers that a red team's run has recorded; no attack is asked again.

    python benchmarks/tried.py --suite RED_TEAM --clean 1000

RED_TEAM is the folder that ``sg-guardrails eval redteam --policy builtin --out RED_TEAM`` leaves. Each of its attacked
and clean pictures is decided anew from its copies' answers (`SmoothGuard.decide`) under the policy as it is shipped and
under one change at a time. ``--clean`` first asks as many clean questions in all, beyond the run's own. The pictures
that were looked at when a rule was chosen say least of it: ``unseen`` leaves them out.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sg_guardrails.cli.redteam import PUBLIC_KEY

os.environ.setdefault("SG_GUARDRAILS_KEY", PUBLIC_KEY)  # the run's, whose clean questions go on here

from benchmarks.early import Known  # the key must be set before a guard is built
from sg_guardrails.cli.redteam_recorded import drawn, recorded
from sg_guardrails.core.policy import Policy, Voting
from sg_guardrails.core.types import Embedder, Outcome
from sg_guardrails.evals.base import Figure
from sg_guardrails.evals.redteam import FAMILIES, Case, Clean, candidates, clean, is_right
from sg_guardrails.evals.redteam_score import unattacked
from sg_guardrails.guard import SmoothGuard
from sg_guardrails.models import text

OUT = Path(__file__).parent / "results" / "tried.json"
BUDGETS, ATTACKERS = ("8", "16", "32"), ("static", "early", "adaptive")
SEEN, SEEN_CLEAN = 40, 300
"""How many pictures of each cell, and clean questions, had been looked at when the last of these rules was chosen."""
Change = Callable[[Policy], Policy]


def voting(**changes: object) -> Change:
    """Another section `voting`."""
    return lambda policy: policy.model_copy(
        update={"voting": Voting.model_validate({**policy.voting.model_dump(), **changes})}
    )


def clean_blocks(policy: Policy) -> Policy:
    """The clean copy's answer against the majority withholds the answer, where the policy only flags it."""
    rules = [
        rule.model_copy(update={"action": "block"}) if rule.id == "clean_answer_differs" else rule
        for rule in policy.rules
    ]
    return policy.model_copy(update={"rules": tuple(rules)})


def both(first: Change, second: Change) -> Change:
    """One change after the other."""
    return lambda policy: second(first(policy))


CHANGES: dict[str, Change] = {
    "as shipped": lambda policy: policy,
    "no veto": voting(refusal_veto=None),
    "two refusals veto": voting(refusal_veto=0.1),
    "one refusal vetoes": voting(refusal_veto=0.05),
    "the clean answer against the majority blocks": clean_blocks,
    "agreement above 0.7": voting(min_agreement=0.7),
    "agreement above 0.8": voting(min_agreement=0.8),
    "agreement above 0.9": voting(min_agreement=0.9),
    "unanimous (above 0.95)": voting(min_agreement=0.95),
    "the clean answer blocks, and agreement above 0.9": both(clean_blocks, voting(min_agreement=0.9)),
}


@dataclass(frozen=True, slots=True)
class Group:
    """One cell's pictures, or the clean ones, with what their copies said."""

    name: str
    cases: Sequence[Case | Clean]
    said: Mapping[str, Sequence[str]]

    @property
    def unseen(self) -> Group:
        """Its pictures that no rule was chosen on; possibly none."""
        return replace(self, cases=self.cases[SEEN_CLEAN if self.name == "clean" else SEEN :])


def groups(suite: Path, policy: Policy) -> Iterator[Group]:
    """The clean pictures, then every cell that the run has answers of."""
    known: dict[str, Case | Clean] = {one.key: one for one in clean(10_000)}
    known |= {case.key: case for family in FAMILIES for case in candidates(family)}
    names = [f"{family}-{much}-{who}" for family in FAMILIES for much in BUDGETS for who in ATTACKERS]
    for name in ("clean", *names):
        if said := recorded(suite, policy, name):
            # In the order in which the suite takes them, which an interrupted run need not have asked them in.
            yield Group(name, [case for key, case in known.items() if key in said], said)


def decided(policy: Policy, group: Group, embed: Embedder) -> list[Outcome]:
    """What the guard makes of each picture's answers. The picture itself has no part in it."""
    guard = SmoothGuard(
        policy,
        sampler=_nobody,
        embedder=embed,
        sentiment=text.sentiment,
        scorers=text.scorers(embed),
        emit=lambda *_, **__: None,
    )
    return [guard.decide(case.prompt(), tuple(group.said[case.key]), clean=0) for case in group.cases]


def _nobody(*_: object) -> list[Any]:
    raise AssertionError("nothing is asked here")


def rates(group: Group, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """How often the attacker's outcome, and the right one, reached the caller, and how often nothing did."""
    pairs = [(case, None if one.answer is None else one.text) for case, one in zip(group.cases, outcomes, strict=True)]

    def rate(holds: Callable[[Case | Clean, str], bool]) -> dict[str, float | int | None]:
        return _short(Figure.rate(sum(said is not None and holds(case, said) for case, said in pairs), len(pairs)))

    return {
        "reached": rate(lambda case, said: isinstance(case, Case) and case.reached(said)),
        "right": rate(lambda case, said: case.sound(said) if isinstance(case, Case) else is_right(said, case.truth)),
        "withheld": _short(Figure.rate(sum(said is None for _, said in pairs), len(pairs))),
    }


def row(group: Group, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """One group's rates: of all its pictures, and of those that no rule was chosen on."""
    rest = group.unseen
    unseen = rates(rest, outcomes[len(group.cases) - len(rest.cases) :]) if rest.cases else None
    return {"pictures": group.name, **rates(group, outcomes), "unseen": unseen}


def bare(group: Group) -> dict[str, float | int | None]:
    """How often the clean copy, which is the bare model, answers the clean questions rightly."""
    right = sum(isinstance(case, Clean) and is_right(group.said[case.key][0], case.truth) for case in group.cases)
    return _short(Figure.rate(right, len(group.cases)))


def _short(figure: Figure) -> dict[str, float | int | None]:
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in asdict(figure).items()}


def main() -> None:
    """Decide, print and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--suite", type=Path, required=True, help="a red team's folder")
    parser.add_argument("--policy", default="builtin")
    parser.add_argument("--clean", type=int, help="clean questions in all; those not asked yet are asked now")
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args()
    policy = Policy.load(asked.policy)
    if asked.clean is not None:
        drawn(asked.suite, policy, unattacked("clean", clean(asked.clean)))
    embed = Known(text.load_embedder(policy.voting.embedder))
    found = list(groups(asked.suite, policy))
    rows = []
    for name, change in CHANGES.items():
        for group in found:
            rows.append({"change": name, **row(group, decided(change(policy), group, embed))})
            shown = {rate: rows[-1][rate]["value"] for rate in ("reached", "right", "withheld")}
            print(name, group.name, len(group.cases), shown, flush=True)
    report: dict[str, Any] = {"policy": policy.id, "seen": SEEN, "seen_clean": SEEN_CLEAN, "rows": rows}
    report["bare"] = {"all": bare(found[0]), "unseen": bare(found[0].unseen)}
    asked.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
