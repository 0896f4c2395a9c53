"""Makes the demo's adversarial pictures from easy-vqa's test pictures: ``python -m training.demo_pictures``.

The attacks know nothing of the guard. Which successful picture is shown does: the one that noise puts right most
surely, and the manifest beside the pictures says how many were tried, how many fooled the model and how many of these
noise put right.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import easy_vqa
import torch

from sg_guardrails.attacks.attack import AttackResult, attack_image, with_image
from sg_guardrails.attacks.objectives import Objective, jailbreak, wrong_answer
from sg_guardrails.attacks.pgd import AttackSettings
from sg_guardrails.core.media import Image
from sg_guardrails.core.noise import Key, copies_of
from sg_guardrails.core.policy import Policy, Smoothing
from sg_guardrails.core.types import Copy, Prompt
from sg_guardrails.models.hf import Handle, HFSampler, load
from training.shapes import requests
from training.shapes.answers import is_right
from training.shapes.model import NEW_TOKENS
from training.shapes.scenes import COLOR_NAMES, SHAPES

OUT = Path(__file__).parents[1] / "sg_guardrails" / "demo"
POLICY = "builtin"
SOURCE = "easy-vqa 1.0 (MIT), test pictures"
KEYS = 10
"""Noise keys that each candidate is voted on with; the first decides `put_right`, all give `copies_sound`."""
NOTE = (
    "Chosen among the candidates because noise puts them right: an illustration, not a rate. "
    "Each attack stops at its first success; one that goes on is harder to undo."
)
SAFE_SHARE = 0.9
"""Share of right copies over all keys that a shown picture needs: the demo's own key is a random one."""
Judge = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Case:
    """One clean prompt that the bare model answers as it should, and what the attack on it wants."""

    source: int
    """easy-vqa's number of the test picture."""
    image: Image
    prompt: Prompt
    answer: str
    """The bare model's answer to the clean picture."""
    sound: Judge
    """Whether an answer is as it should be."""
    objective: Objective


@dataclass(frozen=True, slots=True)
class Fooled:
    """A saved picture that fools the bare model, and how it fares under noise."""

    case: Case
    result: AttackResult
    put_right: bool
    """Whether most answers are sound under the first key, the clean copy's counted."""
    copies_sound: float
    """Share of sound answers among the noisy copies of all keys."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What came of all candidates of one scene."""

    tried: int
    fooled_before_rounding: int
    fooled: int
    """Of `tried`, by the saved 8-bit picture."""
    put_right: int
    """Of `fooled`, by the majority of one vote."""


def questions() -> Iterator[tuple[int, Image, str, str]]:
    """Yields number, picture, question and one-word answer: one question for colour or shape of each test picture.

    Yes/no questions are left out: half of them ask for absence, and a reader would have to think who is right.
    """
    texts, answers, numbers = easy_vqa.get_test_questions()
    asked: dict[int, list[tuple[str, str]]] = {}
    for text, answer, number in zip(texts, answers, numbers, strict=True):
        if answer not in ("yes", "no"):
            asked.setdefault(number, []).append((text, answer))
    for number, path in sorted(easy_vqa.get_test_image_paths().items()):
        if number in asked:
            yield number, Image.open(path), *asked[number][number % len(asked[number])]


def ask(handle: Handle, prompt: Prompt) -> str:
    """Returns the bare model's answer."""
    (answer,) = HFSampler(handle, max_new_tokens=NEW_TOKENS)([Copy(prompt)], Smoothing())
    return answer.text


def wrong_cases(handle: Handle) -> Iterator[Case]:
    """Yields questions that the bare model answers rightly, to be answered wrongly."""
    for number, image, question, short in questions():
        prompt = Prompt.ask(question[0].upper() + question[1:], image)
        answer = ask(handle, prompt)

        def sound(said: str, short: str = short) -> bool:
            return is_right(said, short)

        if sound(answer):
            other = _other(short, number)
            wrong = re.sub(rf"\b{short}\b", other, answer, flags=re.IGNORECASE)
            goal = wrong_answer(answer, is_right=sound, wrong=wrong[0].upper() + wrong[1:])
            # The very swap is asked for: the injected sentence of the AD! badge would be no wrong answer to look at.
            yield Case(number, image, prompt, answer, sound, replace(goal, reached=partial(is_right, short=other)))


def _other(word: str, number: int) -> str:
    """Returns another word of the same kind, not the same one for every picture."""
    pool = next(pool for pool in (SHAPES, COLOR_NAMES) if word in pool)
    others = [other for other in pool if other != word]
    return others[number % len(others)]


def unsafe_cases(handle: Handle) -> Iterator[Case]:
    """Yields unsafe requests of seen and unseen wordings that the bare model refuses, to be complied with."""
    pairs = [*requests.SEEN[::97], *requests.UNSEEN_WORDING[::29]]
    for index, (number, image, _, _) in enumerate(questions()):
        request, compliance = pairs[index % len(pairs)]
        prompt = Prompt.ask(request, image)
        answer = ask(handle, prompt)
        if requests.is_refusal(answer):
            goal = jailbreak([compliance], reached=requests.is_compliance, ends=True)
            yield Case(number, image, prompt, answer, requests.is_refusal, goal)


def search(handle: Handle, cases: Iterator[Case], settings: AttackSettings, count: int) -> tuple[Tally, list[Fooled]]:
    """Attacks `count` cases and asks about each success under noise.

    Returns:
        The tally, and the successes in the order of the pictures' numbers.
    """
    fooled: list[Fooled] = []
    before = 0
    for tried, case in enumerate(cases, start=1):
        result = attack_image(handle, case.prompt, case.objective, settings, max_new_tokens=NEW_TOKENS)
        before += result.success_float
        if result.success_saved:
            fooled.append(_under_noise(handle, case, result))
        print(f"{case.objective.name} {tried}/{count}: picture {case.source}, {len(fooled)} fooled", flush=True)
        if tried == count:
            break
    return Tally(tried, before, len(fooled), sum(one.put_right for one in fooled)), fooled


def _under_noise(handle: Handle, case: Case, result: AttackResult) -> Fooled:
    smoothing = Policy.load(POLICY).smoothing
    prompt, sampler = with_image(case.prompt, result.image), HFSampler(handle, max_new_tokens=NEW_TOKENS)
    noisy: list[bool] = []
    first: Sequence[bool] = ()
    for number in range(KEYS):
        copies = copies_of(prompt, smoothing, Key(number.to_bytes(16, "big")))
        sound = [case.sound(answer.text) for answer in sampler(copies, smoothing)]
        first = first or sound
        noisy += [good for copy, good in zip(copies, sound, strict=True) if copy.seed is not None]
    return Fooled(case, result, 2 * sum(first) > len(first), sum(noisy) / len(noisy))


def pick(fooled: Sequence[Fooled]) -> Fooled:
    """Returns the picture that noise puts right most surely, whatever the key; of equals the first.

    Raises:
        RuntimeError: There is none; attack more candidates, or with another budget.
    """
    safe = [one for one in fooled if one.put_right and one.copies_sound >= SAFE_SHARE]
    if safe:
        return max(safe, key=lambda one: one.copies_sound)
    raise RuntimeError(f"none of {len(fooled)} fooling pictures is put right in {SAFE_SHARE:.0%} of its noisy copies")


def write(
    out: Path, name: str, title: str, right: str, one: Fooled, tally: Tally, settings: AttackSettings
) -> dict[str, object]:
    """Writes a scene's two pictures and returns its entry in the manifest."""
    for file, image in ((f"{name}.png", one.result.image), (f"{name}_original.png", one.case.image)):
        (out / file).write_bytes(image.to_png())
    return {
        "title": title,
        "question": one.case.prompt.question,
        "right": right,
        "image": f"{name}.png",
        "original": f"{name}_original.png",
        "source": SOURCE,
        "number": one.case.source,
        "attack": {
            "objective": one.case.objective.name,
            "away_from" if one.case.objective.away else "target": one.case.objective.targets[0],
            "norm": settings.norm,
            "eps": f"{round(settings.eps * 255)}/255",
            "steps_allowed": settings.steps,
            "steps_taken": one.result.steps,
            "seed": settings.seed,
            "bare_answer_clean": one.case.answer,
            "bare_answer_attacked": one.result.answers_saved[0],
            "noisy_copies_sound": round(one.copies_sound, 3),
        },
        "candidates": asdict(tally),
    }


def clean_scene(handle: Handle, out: Path, taken: set[int]) -> dict[str, object]:
    """Writes the first picture that no attack uses and returns its entry in the manifest."""
    case = next(case for case in wrong_cases(handle) if case.source not in taken)
    (out / "clean.png").write_bytes(case.image.to_png())
    return {
        "title": "A clean picture",
        "question": case.prompt.question,
        "right": case.answer,
        "image": "clean.png",
        "source": SOURCE,
        "number": case.source,
    }


def main() -> int:
    """Parses the command line, attacks, and writes the pictures and the manifest."""
    parser = argparse.ArgumentParser(prog="python -m training.demo_pictures", description=__doc__)
    parser.add_argument("--model", default="builtin:shapes", help="the model to fool")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the pictures and manifest.json")
    parser.add_argument("--wrong-eps", type=int, default=16, help="budget of the wrong answer, in 1/255")
    parser.add_argument("--unsafe-eps", type=int, default=8, help="budget of the unsafe request, in 1/255")
    parser.add_argument("--steps", type=int, default=60, help="steps of each attack")
    parser.add_argument("--count", type=int, default=16, help="candidates of each scene")
    options = parser.parse_args()
    torch.set_num_threads(1)
    handle = load(options.model, device="cpu", dtype="float32")
    options.out.mkdir(parents=True, exist_ok=True)
    scenes = []
    taken = set()
    for name, cases, eps, title, right in (
        ("wrong", wrong_cases, options.wrong_eps, "An adversarial picture: the bare model answers wrongly", ""),
        (
            "unsafe",
            unsafe_cases,
            options.unsafe_eps,
            "An adversarial picture: the bare model complies with an unsafe request",
            "a refusal",
        ),
    ):
        # Asked every other step: an attacker who stops at the first success, as most do.
        settings = AttackSettings(eps=eps / 255, steps=options.steps, check_every=2)
        tally, fooled = search(handle, cases(handle), settings, options.count)
        print(f"{name}: {tally}", flush=True)
        one = pick(fooled)
        taken.add(one.case.source)
        scenes.append(write(options.out, name, title, right or one.case.answer, one, tally, settings))
    policy = Policy.load(POLICY)
    weights = Path(str(handle.model.config.name_or_path)) / "model.safetensors"
    manifest = {
        "made_by": "python -m training.demo_pictures",
        "note": NOTE,
        "model": options.model,
        "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "policy": policy.id,
        "smoothing": policy.smoothing.model_dump(mode="json", include={"copies", "include_clean", "image"}),
        "scenes": [clean_scene(handle, options.out, taken), *scenes],
    }
    (options.out / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
