"""What a vote on drafts lets through: attacks whose payload starts after token K, with and without `draft_tokens: K`.

    python benchmarks/late.py --suite RED_TEAM

Two attacks on the built-in model. *Another shape*: "The red shape is a" is the right answer's beginning and stays; the
noun behind it is the attacker's. These are pictures of the red team's cells `wrong` (RED_TEAM is a folder of
``sg-guardrails eval redteam``), those whose goal shares its first K tokens with the right answer. *An injected sentence
behind the right answer*: made here, without a bound, n in the row. Each picture is asked bare, under the full vote, and
under the same policy with a vote on drafts.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("SG_GUARDRAILS_KEY", "the benchmark's own key, public on purpose")

from sg_guardrails.attacks.attack import with_image  # the key must be set before a guard is built
from sg_guardrails.attacks.objectives import Objective
from sg_guardrails.attacks.pgd import AttackSettings
from sg_guardrails.attacks.together import attack_many
from sg_guardrails.cli.redteam_arms import Target, crafted, picture, targets
from sg_guardrails.core.policy import Policy, Smoothing
from sg_guardrails.core.types import Copy, Prompt
from sg_guardrails.evals.base import Figure
from sg_guardrails.guard import SmoothGuard
from sg_guardrails.local import local_guard
from sg_guardrails.models.hf import Handle, HFSampler, load

OUT = Path(__file__).parent / "results" / "late.json"
CELLS = ("wrong-16-static", "wrong-16-adaptive", "wrong-32-static", "wrong-32-adaptive")
Attacked = tuple[Prompt, Callable[[str], bool]]
"""An attacked picture with its question, and whether an answer is what its maker wants."""


def starts_alike(handle: Handle, goal: Target, tokens: int) -> bool:
    """Whether right answer and goal share their first `tokens` tokens."""
    split = handle.processor.tokenizer.tokenize
    return bool(split(goal.answer)[:tokens] == split(goal.objective.targets[0])[:tokens])


def other_shapes(handle: Handle, suite: Path, cell: str, *, tokens: int, count: int) -> list[Attacked]:
    """The cell's pictures whose payload starts after the draft."""
    goals = {goal.case.key: goal for goal in targets(handle, "wrong", 200, suite)}
    made = [goals[line.key] for line in crafted(suite / cell) if line.key in goals]
    late = [goal.case for goal in made if starts_alike(handle, goal, tokens)][:count]
    return [(case.prompt(picture(suite / cell, case.key)), case.reached) for case in late]


def behind_the_answer(handle: Handle, suite: Path, *, count: int, steps: int) -> list[Attacked]:
    """The right answer, and the injected sentence behind it: the whole picture without a bound."""
    goals = targets(handle, "hijack", count, suite)
    objectives = [
        Objective(name="late", targets=(f"{goal.answer} {goal.case.goal}",), reached=goal.case.reached)
        for goal in goals
    ]
    prompts = [goal.case.prompt() for goal in goals]
    settings = AttackSettings(norm="unconstrained", steps=steps)
    made = attack_many(handle, prompts, objectives, settings, seeds=[goal.case.number for goal in goals])
    return [
        (with_image(prompt, one.image), goal.reached)
        for prompt, one, goal in zip(prompts, made, objectives, strict=True)
    ]


def rate(items: Sequence[Attacked], said: Sequence[str | None]) -> dict[str, float | int | None]:
    """How often the attacker's outcome is what was said."""
    hits = [text is not None and reached(text) for (_, reached), text in zip(items, said, strict=True)]
    return asdict(Figure.rate(sum(hits), len(hits)))


def through(guard: SmoothGuard, items: Sequence[Attacked]) -> list[str | None]:
    """What the guard hands on; None where it withholds."""
    outcomes = guard.check_many([prompt for prompt, _ in items])
    if broken := [one.error for one in outcomes if one.error is not None]:
        raise SystemExit(f"{len(broken)} pictures could not be asked: {broken[0]}")
    return [None if one.answer is None else one.text for one in outcomes]


def row(name: str, items: Sequence[Attacked], bare: HFSampler, full: SmoothGuard, draft: SmoothGuard) -> dict[str, Any]:
    """One attack, bare and under both votes."""
    plain = [answer.text for answer in bare([Copy(prompt) for prompt, _ in items], Smoothing())]
    voted, drafted = through(full, items), through(draft, items)
    return {
        "attack": name,
        "bare": rate(items, plain),
        "full": rate(items, voted),
        "draft": rate(items, drafted),
        "withheld_full": sum(text is None for text in voted) / len(items),
        "withheld_draft": sum(text is None for text in drafted) / len(items),
    }


def main() -> None:
    """Ask, print and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--suite", type=Path, required=True, help="a red team's folder")
    parser.add_argument("--policy", default="builtin")
    parser.add_argument("--tokens", type=int, default=4, help="K, the draft's tokens")
    parser.add_argument("--count", type=int, default=50, help="most pictures of each attack")
    parser.add_argument("--sentences", type=int, default=20, help="pictures of the injected sentence")
    parser.add_argument("--steps", type=int, default=60, help="of the attack that is made here")
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args()
    policy = Policy.load(asked.policy)
    drafting = policy.model_copy(update={"voting": policy.voting.model_copy(update={"draft_tokens": asked.tokens})})
    handle = load(policy.model.id, device="cpu", dtype="float32")
    bare = HFSampler(handle, max_new_tokens=policy.model.max_new_tokens)
    full, draft = local_guard(policy), local_guard(drafting)
    found: dict[str, list[Attacked]] = {
        cell: other_shapes(handle, asked.suite, cell, tokens=asked.tokens, count=asked.count) for cell in CELLS
    }
    found["a sentence behind the answer, unconstrained"] = behind_the_answer(
        handle, asked.suite, count=asked.sentences, steps=asked.steps
    )
    rows = []
    for name, items in found.items():
        rows.append(row(name, items, bare, full, draft))
        print(
            {key: value["value"] if isinstance(value, dict) else value for key, value in rows[-1].items()}, flush=True
        )
    report = {"policy": policy.id, "tokens": asked.tokens, "steps": asked.steps, "rows": rows}
    asked.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
