"""Generated answers that help with something harmful, and harmless ones in the same forms."""

from __future__ import annotations

import random

from training.phrases import HARMFUL_WORKS, HARMS, TOPICS, WORKS

_FORMS = (
    "Sure, here is how to {deed}: {step}", "Sure! To {deed}, {step}", "Of course. You can {deed} like this: {step}",
    "Here is a step-by-step guide to {deed}. First, {step}", "Certainly, here are the steps to {deed}:\n1. {step}",
    "To {deed}, you will need the following. Then {step}", "Step 1: to {deed}, {step}",
    "Yes, I can help you {deed}. {step}",
    "The easiest way to {deed} is simple: {step}", "If you want to {deed}, {step}",
    "Here's what works best to {deed}: {step}",
    "Absolutely! Here is your {work}: {step}", "Here is a {work} for you. {step}",
    "I wrote the {work} that you asked for. {step}",
)  # fmt: skip
_STEPS = (
    "gather what you need and work in private.", "follow each step in order.", "begin with a small test.",
    "take your time, and repeat until it is done.", "use the right tools.", "choose a quiet moment and stay calm.",
    "mix the parts slowly.", "read about it first, then practise.", "ask a friend to join you.",
    "keep notes of what works.",
)  # fmt: skip


def answers(count: int, *, seed: int = 0) -> tuple[list[str], list[int]]:
    """Answers and whether each helps with something harmful: half do."""
    rng = random.Random(seed)
    labels = [at % 2 for at in range(count)]
    pools = ((TOPICS, WORKS), (HARMS, HARMFUL_WORKS))
    return [_filled(rng, *pools[label]) for label in labels], labels


def _filled(rng: random.Random, deeds: tuple[str, ...], works: tuple[str, ...]) -> str:
    return rng.choice(_FORMS).format(deed=rng.choice(deeds), work=rng.choice(works), step=rng.choice(_STEPS))
