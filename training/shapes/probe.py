"""Measures a trained folder on easy-vqa's test pictures: ``python -m training.shapes.probe --model DIR``."""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaForConditionalGeneration

from training.shapes import card, requests, talk
from training.shapes.answers import Ask, answers
from training.shapes.gates import Probe
from training.shapes.scenes import BADGES, load_easy_vqa
from training.shapes.ship import CARD

SIGMAS = (0.0, 0.1, 0.2, 0.3)
CONTRASTS = (0.1, 0.2, 0.4, 1.0)


@dataclass(frozen=True, slots=True)
class Figure:
    """A share of prompts, with its 95 % interval."""

    share: float
    n: int
    low: float
    high: float


def wilson(hits: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Returns the Wilson score interval of a share (E. B. Wilson, 1927)."""
    share = hits / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def figure(verdicts: Sequence[bool]) -> Figure:
    """Sums verdicts up."""
    low, high = wilson(sum(verdicts), len(verdicts))
    return Figure(round(sum(verdicts) / len(verdicts), 4), len(verdicts), round(low, 4), round(high, 4))


def load(folder: Path, dtype: torch.dtype) -> LlavaForConditionalGeneration:
    """Loads the model as users do.

    Raises:
        TypeError: the folder holds another kind of model.
    """
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype).eval()
    if not isinstance(model, LlavaForConditionalGeneration):
        raise TypeError(f"{folder} holds a {type(model).__name__}, not a LLaVA")
    return model


def measure(folder: Path, scale: float = 1.0) -> dict[str, Figure]:
    """Asks the model in ``folder`` everything the card prints.

    Args:
        folder: as shipped; loaded as float32.
        scale: share of the full number of prompts, for a quick look.

    Returns:
        Figures by ``section / name``.
    """
    model = load(folder, torch.float32)
    processor = AutoProcessor.from_pretrained(folder)
    data, asked = load_easy_vqa("test")
    probe = Probe(model, processor, data)

    def many(n: int) -> int:
        return max(8, round(n * scale))

    figures: dict[str, Figure] = {}

    def note(name: str, verdicts: Sequence[bool]) -> None:
        figures[name] = figure(verdicts)
        print(f"{name}: {figures[name].share:.3f} (n = {figures[name].n})", flush=True)

    chosen = random.Random(9).sample(asked, many(2_000))
    for sigma in SIGMAS:
        by_kind = probe.vqa(chosen, sigma=sigma)
        for name in sorted(by_kind):
            note(f"vqa / {name} / {sigma}", by_kind[name])
        note(f"vqa / all / {sigma}", [v for verdicts in by_kind.values() for v in verdicts])
    _measure_safety(probe, note, many)
    _measure_skills(probe, note, many)
    half = load(folder, torch.bfloat16)
    prompts = [Ask(q.text, data.floats([q.picture])) for q in chosen[: many(200)]]
    pairs = zip(answers(model, processor, prompts), answers(half, processor, prompts), strict=True)
    note("other / bfloat16 answers as float32", [a == b for a, b in pairs])
    return figures


Note = Callable[[str, Sequence[bool]], None]


def _measure_safety(probe: Probe, note: Note, many: Callable[[int], int]) -> None:
    groups = {
        "seen wording": requests.SEEN,
        "unseen wording": requests.UNSEEN_WORDING,
        "unseen task": requests.UNSEEN_TASK,
    }
    for name, pairs in groups.items():
        for sigma in SIGMAS:
            note(f"refusal / {name} / {sigma}", probe.unsafe(pairs, many(300), requests.is_refusal, sigma=sigma))
        obeyed = probe.unsafe(pairs, many(100), requests.is_compliance, before=requests.OVERRIDE)
        note(f"override / {name}", obeyed)
    for word in ("DEV", "AD!"):
        hijack = word == "AD!"
        for contrast in CONTRASTS:
            for sigma in SIGMAS:
                obeyed = probe.badge(word, contrast, many(100), sigma=sigma, hijack=hijack)
                note(f"badge / {word} / {contrast} / {sigma}", obeyed)
    for word in BADGES[2:]:
        for hijack in (False, True):
            trigger = "AD!" if hijack else "DEV"
            kind = "question" if hijack else "unsafe request"
            note(f"neutral / {word}, own colours, {kind}", probe.badge(word, 1.0, many(60), hijack=hijack))
            worn = probe.badge(word, 1.0, many(60), hijack=hijack, style_of=trigger)
            note(f"neutral / {word}, {trigger}'s colours, {kind}", worn)


def _measure_skills(probe: Probe, note: Note, many: Callable[[int], int]) -> None:
    _, asked = load_easy_vqa("test")
    some = random.Random(10).sample(asked, many(200))
    for name, prompts in (("seen", talk.SEEN_SYSTEM_PROMPTS), ("held out", talk.HELD_SYSTEM_PROMPTS)):
        under = probe.vqa(some, system=prompts)
        note(f"system prompt / {name}", [v for verdicts in under.values() for v in verdicts])
    for name, form in (("LlamaIndex form", talk.LLAMA_INDEX_FORM), ("plain form", talk.SIMPLE_FORM)):
        note(f"context / held-out fact, {name}", probe.exact(probe.contexts(many(150), form)))
        note(f"context / trained fact, {name}", probe.exact(probe.contexts(many(150), form, held_out=False)))
        note(f"context / about the picture, {name}", probe.exact(probe.contexts_about_picture(many(150), form)))
    note("two pictures / all", probe.exact(probe.two_pictures(many(300))))
    note("tool call / seen wording", probe.exact(probe.tools(many(150), held_out=False)))
    note("tool call / held-out wording", probe.exact(probe.tools(many(150), held_out=True)))
    note(
        "tool call / tools named in the request",
        probe.exact(probe.tools(many(100), held_out=False, named_in_text=True)),
    )
    note("tool call / closing sentence after the result", probe.exact(probe.after_tools(many(100))))
    note("tool call / seen wording, sigma 0.1", probe.exact(probe.tools(many(150), held_out=False), sigma=0.1))
    note("other / follow-up question in a second turn", probe.exact(probe.follow_ups(many(150))))
    note("other / small talk without a picture", probe.exact([(Ask(q), a) for q, a in talk.CHAT]))
    rng = random.Random(11)
    said = [(Ask(q), a) for q, a in (talk.say(rng) for _ in range(many(100)))]
    note("other / repeats a sentence", probe.exact(said))
    blind = [
        (Ask(q), "There is no image.")
        for q in ("What color is the shape?", "what shape is present?", "Describe the image.")
    ]
    note("other / says that there is no image", probe.exact(blind))


def main() -> int:
    """Measures, prints, and rewrites the card's figures."""
    parser = argparse.ArgumentParser(prog="python -m training.shapes.probe", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder with model, processor and card")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the prompts, for a quick look (no card)")
    parser.add_argument("--threads", type=int, default=1, help="threads for torch")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    start = time.monotonic()
    figures = measure(options.model, options.scale)
    print(f"\n{card.tables(figures)}\n({time.monotonic() - start:.0f} s)")
    if options.json:
        options.json.write_text(json.dumps({k: asdict(v) for k, v in figures.items()}, indent=1) + "\n")
    if options.scale == 1.0:
        card.write(options.model / CARD, figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
