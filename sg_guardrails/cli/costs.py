"""What a policy costs, in words: answers asked, the measured factor of a bare answer's time, and what asks besides."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from sg_guardrails.core import early
from sg_guardrails.core.conditions import looks_at_pictures
from sg_guardrails.core.policy import Policy
from sg_guardrails.core.rules import Rule
from sg_guardrails.core.terms import Classified, Judged, parts

_RESULTS = "benchmarks/results/cost_builtin_shapes_cpu.json"


@dataclass(frozen=True, slots=True)
class Factor:
    """A whole request's time as a multiple of a bare answer's, where it was measured."""

    least: float
    """The shortest of the measured medians that fit the policy."""
    most: float
    """The longest of them, all copies asked."""
    copies: tuple[int, ...]
    """The numbers of copies measured: the policy's own, or its neighbours on either side."""
    lengths: tuple[int | None, ...]
    """Tokens of the answers measured; None: as long as the model made them."""


def answers(policy: Policy) -> tuple[int, int]:
    """The least and the most answers that the model gives to one request with media."""
    smoothing = policy.smoothing
    clean = int(smoothing.include_clean)
    full = smoothing.copies + clean
    if smoothing.adaptive is not None:
        first = smoothing.adaptive.start_copies + clean
        return first, first + full  # the clean copy is asked at each level
    if smoothing.early == "off":
        return full, full
    settled = early.enough(policy, full)
    if smoothing.early == "sequential":
        settled = clean + early.fewest(0, 0, full - clean, settled - clean, smoothing.alpha)
    return settled, full


@lru_cache(maxsize=1)
def measured() -> dict[str, Any]:
    """The committed benchmark: package data in a wheel, `benchmarks/results` in a checkout."""
    packaged = Path(__file__).with_name("cost.json")
    path = packaged if packaged.is_file() else Path(__file__).parents[2] / _RESULTS
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def factor(policy: Policy) -> Factor | None:
    """What the benchmark says of such a policy; None where nothing like it was measured."""
    smoothing = policy.smoothing
    in_one_batch = answers(policy)[1] <= policy.model.copies_per_batch
    if policy.model.endpoint is not None or smoothing.adaptive is not None or not in_one_batch:
        return None
    rows = [row for row in measured()["rows"] if row["requests"] == 1]
    known = sorted({row["copies"] for row in rows})
    below = [copies for copies in known if copies <= smoothing.copies]
    above = [copies for copies in known if copies >= smoothing.copies]
    if not below or not above:
        return None
    near = tuple(dict.fromkeys((below[-1], above[0])))
    fitting = [row for row in rows if row["copies"] in near]
    of_all = [row["ratio"]["full"] for row in fitting]
    arm = _arm(policy)
    decided = [row["ratio"][arm] for row in fitting if arm in row["ratio"]]
    return Factor(min(decided or of_all), max(of_all), near, tuple(dict.fromkeys(row["tokens"] for row in fitting)))


def _arm(policy: Policy) -> str:
    """The benchmark's name of the schedule at its best; under a veto nearly every copy is asked, whatever the rule."""
    if policy.smoothing.early == "off" or policy.voting.refusal_veto is not None:
        return "full"
    if policy.smoothing.early == "exact":
        return "early"
    return "sequential" if policy.voting.draft_tokens is None else "draft"


def costs(policy: Policy) -> Iterator[str]:
    """Lines that begin with "Cost:"."""
    least, most = answers(policy)
    count = f"{most}" if least == most else f"{least} to {most}"
    batches = -(-most // policy.model.copies_per_batch)
    yield (
        f"Cost: {count} answers of the model to a request instead of 1, in {batches} "
        f"{'batch' if batches == 1 else 'batches'} of at most {policy.model.copies_per_batch}; an answer under review "
        "without media costs none."
    )
    yield f"Cost: {_time(policy, most)}"
    yield from _besides(policy, most)


def _time(policy: Policy, most: int) -> str:
    found = factor(policy)
    bound = f"at most about {most} times a bare answer where the device has no room to spare"
    if found is None:
        return f"the time of such a schedule was not measured; by count it is {bound}, and less in batches."
    about = measured()["about"]
    where = f"with {about['model']} on {about['device']}, {about['threads']} thread(s)"
    copies = " and ".join(map(str, found.copies))
    lengths = " and ".join("their own length" if tokens is None else f"{tokens} tokens" for tokens in found.lengths)
    times = " to ".join(dict.fromkeys((f"{found.least:.1f}", f"{found.most:.1f}")))
    settled = " (the least where clean pictures settle it early, the most where all copies are asked)"
    return (
        f"expect a whole request to take {times} times as long as a bare answer"
        f"{'' if _arm(policy) == 'full' else settled}: measured {where}, {copies} copies, answers of {lengths}. "
        f"Another model or device differs: measure yours (docs/what_it_costs.md). By count, {bound}."
    )


def _besides(policy: Policy, most: int) -> Iterator[str]:
    """What is asked beside the copies."""
    conditions = [(rule, part) for rule in policy.rules for part in parts(rule.when)]
    models = sorted({part.classifier.id for _, part in conditions if isinstance(part, Classified)})
    if models:
        yield f"Cost: the classifiers {', '.join(models)} read each text that their rules look at."
    for rule, part in conditions:
        if isinstance(part, Judged):
            judge = "the policy's model" if part.judge.model == "guard" else part.judge.model
            yield f"Cost: rule {rule.id} asks {judge} as LLM judge, one more answer for {_texts(rule, part, most)}."
    if any(rule.action == "rewrite" and rule.rewrite == "model" for rule in policy.rules):
        yield "Cost: one more answer of the model where a rule has it rewrite, and what judges that again."
    if looks_at_pictures(policy):
        yield "Cost: reads the text of every picture once a request (OCR, the extra `ocr`; not in the factor above)."


def _texts(rule: Rule, part: Judged, most: int) -> str:
    if "user" in (part.of, rule.where):
        return "each user turn"
    if "picture" in (part.of, rule.where):
        return "each picture"
    if rule.where == "candidate":
        return "each answer under review"
    return f"each different answer that it looks at (up to {most}) and the answer under review"
