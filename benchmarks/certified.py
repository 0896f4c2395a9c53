"""Does any picture inside a certified radius turn the certified majority? PGD and random directions try.

    python benchmarks/certified.py --count 225

Each of easy-vqa's test questions that the built-in model answers rightly is certified (`SmoothGuard.certify`). Then the
picture is moved by at most that radius: along the gradient that makes a wrong answer likely under the guard's own
noise (L2, expectation over 4 draws a step), and along a random direction. On each moved picture fresh copies are
compared with the certified anchor. A statement is refuted where the share that agrees is below a half with the same
confidence as the certificate had. Every line is written as it is measured; a killed run goes on where it stopped.

A radius that holds says little if the attack is too weak to turn anything: so the first items are attacked at 4, 16 and
64 times their radius too (``--beyond``), where nothing is promised.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from scipy.stats import binomtest

os.environ.setdefault("SG_GUARDRAILS_KEY", "the benchmark's own key, public on purpose")

from sg_guardrails.attacks.attack import attack_image, with_image  # the key must be set before a guard is built
from sg_guardrails.attacks.objectives import Expectation
from sg_guardrails.attacks.pgd import AttackSettings
from sg_guardrails.core import noise
from sg_guardrails.core.certify import CONFIDENCE, agreeing
from sg_guardrails.core.media import Image
from sg_guardrails.core.policy import Policy
from sg_guardrails.core.types import Answer, Certificate, Embedder, Outcome, Prompt, Scorer
from sg_guardrails.guard import SmoothGuard
from sg_guardrails.local import local_guard
from sg_guardrails.models import text
from sg_guardrails.models.hf import HFSampler, load
from training.demo_pictures import Case, wrong_cases

OUT = Path(__file__).parent / "results" / "certified.json"
LINES = OUT.with_suffix(".jsonl")
FARTHER = OUT.with_name("certified_beyond.jsonl")
TIMES = (4, 16, 64)
"""Multiples of the certified radius."""
ANCHOR = 5


def within(clean: Image, moved: Image, radius: float) -> Image:
    """The 8-bit picture nearest to `moved` on the line from `clean` that lies inside the radius."""
    step = moved.pixels - clean.pixels
    for scale in np.linspace(1.0, 0.0, 101):
        rounded = Image(np.round(np.clip(clean.pixels + scale * step, 0, 1) * 255).astype(np.float32) / np.float32(255))
        if np.linalg.norm(rounded.pixels - clean.pixels) <= radius:
            return rounded
    return clean


@dataclass(frozen=True)
class Counter:
    """Fresh copies of any picture, compared with one anchor as the guard does."""

    policy: Policy
    sampler: HFSampler
    embed: Embedder
    refusal: Scorer
    copies: int

    def agree(self, prompt: Prompt, anchor: Answer) -> int:
        """How many of the prompt's noisy copies say what the anchor says."""
        smoothing = self.policy.smoothing.model_copy(update={"copies": self.copies, "include_clean": False})
        answers = self.sampler(noise.copies_of(prompt, smoothing, noise.process_key()), smoothing)
        held = agreeing(anchor, answers, self.policy.voting, embed=self.embed, refusal=self.refusal)
        return int(held.sum())

    def held(self, case: Case, image: Image, anchor: Answer) -> dict[str, float | int]:
        """How far a picture lies from the case's, and how many of its copies say what the anchor says."""
        distance = float(np.linalg.norm(image.pixels - case.image.pixels))
        return {"distance": distance, "agree": self.agree(with_image(case.prompt, image, which=0), anchor)}


def proof_of(outcome: Outcome) -> Certificate:
    """The outcome's certificate."""
    if outcome.vote is None or outcome.vote.certificate is None:
        raise SystemExit(f"no certificate: {outcome.error}")
    return outcome.vote.certificate


def line(guard: SmoothGuard, counter: Counter, number: int, case: Case, *, steps: int) -> dict[str, object]:
    """Certify, move, count."""
    clean = case.image
    outcome = guard.certify(case.prompt, copies=counter.copies, anchor_copies=ANCHOR)
    proof = proof_of(outcome)
    found: dict[str, object] = {"number": number, "count": proof.answer.count, "copies": counter.copies}
    radius = proof.answer.radius
    found |= {"radius": radius, "verdict_radius": proof.verdict.radius}
    if radius is None:
        return found
    rng = np.random.default_rng(number)
    direction = rng.standard_normal(clean.pixels.shape, dtype=np.float32)
    wild = Image(np.clip(clean.pixels + direction * np.float32(radius / np.linalg.norm(direction)), 0, 1))
    for name, moved in (("pgd", pushed(guard.policy, case, radius, steps)), ("random", wild)):
        found[name] = counter.held(case, within(clean, moved, radius), proof.anchor)
    return found


def pushed(policy: Policy, case: Case, radius: float, steps: int) -> Image:
    """The picture moved along the gradient, under the guard's own noise, by at most the radius before rounding."""
    settings = AttackSettings(eps=radius, norm="l2", steps=steps, check_every=steps + 1)
    noise = Expectation(noise=policy.smoothing.image, draws=4)
    return attack_image(load("builtin:shapes"), case.prompt, case.objective, settings, expectation=noise).image


def farther(guard: SmoothGuard, counter: Counter, number: int, case: Case, *, steps: int) -> dict[str, object]:
    """The same attack where nothing is promised any more."""
    proof = proof_of(guard.certify(case.prompt, copies=counter.copies, anchor_copies=ANCHOR))
    found: dict[str, object] = {"policy": guard.policy.id, "number": number, "radius": proof.answer.radius}
    if proof.answer.radius is not None:
        for times in TIMES:
            far = times * proof.answer.radius
            found[str(times)] = counter.held(
                case, within(case.image, pushed(guard.policy, case, far, steps), far), proof.anchor
            )
    return found


def summary(lines: list[dict[str, object]], copies: int) -> dict[str, object]:
    """How many were certified, how many statements were refuted."""
    certified = [row for row in lines if row["radius"] is not None]
    radii = [float(row["radius"]) for row in certified]  # type: ignore[arg-type] # None is filtered above
    found: dict[str, object] = {
        "items": len(lines),
        "certified": len(certified),
        "confidence": CONFIDENCE,
        "copies": copies,
        "median_radius": float(np.median(radii)) if radii else None,
        "median_linf_255": float(np.median(radii)) / np.sqrt(3 * 64 * 64) * 255 if radii else None,
    }
    found["mean_count"] = float(np.mean([row["count"] for row in certified])) if certified else None  # type: ignore[arg-type]
    return found | {name: turned(certified, name, copies) for name in ("pgd", "random")}


def turned(rows: list[dict[str, object]], name: str, copies: int) -> dict[str, object]:
    """What became of the certified statements on one kind of moved pictures."""
    counts = [row[name]["agree"] for row in rows]  # type: ignore[index] # a mapping
    distances = [row[name]["distance"] for row in rows]  # type: ignore[index] # a mapping
    refuted = sum(binomtest(n, copies, 0.5, alternative="less").pvalue < 1 - CONFIDENCE for n in counts)
    return {
        "n": len(rows),
        "refuted": int(refuted),
        "below_half": sum(n <= copies / 2 for n in counts),
        "least_share": min(counts) / copies if counts else None,
        "mean_count": float(np.mean(counts)) if counts else None,
        "median_distance": float(np.median(distances)) if counts else None,
    }


def measured(path: Path, policy: Policy) -> list[dict[str, object]]:
    """The lines of a run that was begun before."""
    lines = [json.loads(row) for row in path.read_text().splitlines()] if path.exists() else []
    if any(row.get("policy") != policy.id for row in lines):
        raise SystemExit(f"{path} is about another policy than {policy.id}: remove it to begin anew")
    return lines


def main() -> None:
    """Goes through the items, adding a line each, and writes the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=225)
    parser.add_argument("--copies", type=int, default=60, help="fresh copies of each count")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--beyond", type=int, default=40, help="items attacked outside of their radius too")
    options = parser.parse_args()
    policy = Policy.load("builtin")
    guard, embed = local_guard(policy), text.load_embedder(policy.voting.embedder)
    sampler = HFSampler(load("builtin:shapes"), max_new_tokens=policy.model.max_new_tokens)
    counter = Counter(policy, sampler, embed, text.scorers(embed)["refusal"], options.copies)
    lines, far = measured(LINES, policy), measured(FARTHER, policy)
    for number, case in enumerate(islice(wrong_cases(load("builtin:shapes")), options.count)):
        if number < len(lines):
            continue
        lines.append({"policy": policy.id, **line(guard, counter, number, case, steps=options.steps)})
        with LINES.open("a") as file:
            file.write(json.dumps(lines[-1]) + "\n")
    for number, case in enumerate(islice(wrong_cases(load("builtin:shapes")), options.beyond)):
        if number >= len(far):
            far.append(farther(guard, counter, number, case, steps=options.steps))
            with FARTHER.open("a") as file:
                file.write(json.dumps(far[-1]) + "\n")
    certified = [row for row in far if row["radius"] is not None]
    beyond = {str(times): turned(certified, str(times), options.copies) for times in TIMES}
    report = {"policy": policy.id, **summary(lines, options.copies), "beyond": beyond}
    OUT.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
