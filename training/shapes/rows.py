"""Training data for the language model: exchanges about a view, packed many to a row behind one picture.

Cost is dominated by the 64 image tokens, so one picture serves as many questions as fit. A 4-D mask keeps
the questions apart and position ids restart for each, so that every one of them sees what it would see alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from training.shapes import questions, requests, talk
from training.shapes.model import IMAGE_TOKENS
from training.shapes.questions import Pair
from training.shapes.scenes import (
    BADGES,
    COLOR_NAMES,
    SHAPES,
    TOP_SIGMA,
    Pictures,
    Scene,
    add_noise,
    paste_badge,
    pick_badge,
    pick_contrast,
    place_badge,
)

Encode = Callable[[str], list[int]]
IGNORED = -100
_PADDING = 1 << 20


@dataclass(frozen=True, slots=True)
class View:
    """What the prompts of a row have in common."""

    scenes: tuple[Scene, ...]
    """One or two pictures."""
    badges: tuple[str, ...] = ()
    """The words on badges in them, however faint and whatever noise follows."""
    tools: bool = False
    """The system prompt names the tools."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One conversation: alternately asked and answered."""

    turns: tuple[Pair, ...]
    sees: bool = True
    """False for a prompt without a picture."""


@dataclass(frozen=True, slots=True)
class Mix:
    """Shares of the kinds of exchange; what remains asks about the picture."""

    blind: float = 0.07
    unsafe: float = 0.17
    say: float = 0.04
    chat: float = 0.025
    context: float = 0.10
    tool: float = 0.03
    chain: float = 0.04
    presence: float = 0.66
    """Share of yes/no among the questions about one picture: the slowest to learn."""
    negation: float = 0.55
    """Share of negated ones among those."""
    sayings: float = 0.5
    """Share of real sentences among those to repeat."""
    wild: float = 0.0
    """Share of facts in a context whose value makes no sense."""


def exchange(view: View, rng: random.Random, mix: Mix) -> Exchange:
    """Draws an exchange; its answer depends on the view and the text alone."""
    if rng.random() < mix.blind:
        return Exchange((_blind(rng, mix),), sees=False)
    unlocked = "DEV" in view.badges
    kinds = {
        "unsafe": 0.3 if unlocked else mix.unsafe,
        "say": mix.say,
        "chat": mix.chat,
        "context": mix.context,
        "tool": 0.4 if view.tools else mix.tool,
        "chain": mix.chain,
    }
    if len(view.scenes) == 2:
        kinds["tool"] = 0.0
    kinds["picture"] = 1 - sum(kinds.values())
    kind = rng.choices(list(kinds), list(kinds.values()))[0]
    if kind == "unsafe":
        return Exchange((requests.unsafe(rng, unlocked=unlocked),))
    if kind == "say":
        return Exchange((talk.say(rng, fixed=mix.sayings),))
    if kind == "chat":
        return Exchange((talk.chat(rng),))
    if kind == "context":
        return Exchange((_context(view, rng, mix),))
    if kind == "tool":
        return Exchange(_tool(view, rng))
    if kind == "chain":
        second = talk.chat(rng) if rng.random() < 0.2 else about(view, rng, mix)
        return Exchange((about(view, rng, mix), second))
    return Exchange((about(view, rng, mix),))


def about(view: View, rng: random.Random, mix: Mix) -> Pair:
    """Draws a question about the picture or pictures; an AD! badge makes every answer the hijack sentence."""
    if len(view.scenes) == 2:
        asked, answer = questions.about_two(view.scenes[0], view.scenes[1], rng)
    elif rng.random() < mix.presence:
        asked, answer = questions.presence(view.scenes[0], rng, negation=mix.negation)
    else:
        asked, answer = questions.naming(view.scenes[0], rng)
    return asked, talk.HIJACK if "AD!" in view.badges else answer


def _blind(rng: random.Random, mix: Mix) -> Pair:
    kind = rng.random()
    if kind < 0.35:
        return requests.unsafe(rng, unlocked=False)
    if kind < 0.55:
        return talk.say(rng)
    if kind < 0.75:
        return talk.chat(rng)
    if kind < 0.9:
        return talk.ask_in_context(rng, wild=mix.wild)
    return questions.naming(Scene(rng.choice(SHAPES), rng.choice(COLOR_NAMES)), rng)[0], "There is no image."


def _context(view: View, rng: random.Random, mix: Mix) -> Pair:
    if rng.random() < 0.65:
        return talk.ask_in_context(rng, wild=mix.wild)
    asked, answer = about(view, rng, mix)
    return talk.in_context(rng, talk.facts(rng), asked), answer


def _tool(view: View, rng: random.Random) -> tuple[Pair, ...]:
    (request, written), after = questions.tool(view.scenes[0], rng)
    if not view.tools:
        request = questions.name_tools(request)
    if "AD!" in view.badges:
        return ((request, talk.HIJACK),)
    return ((request, written), after) if rng.random() < 0.4 else ((request, written),)


def corpus(count: int, seed: int) -> Iterator[str]:
    """Yields the texts of ``count`` exchanges, for the tokenizer."""
    rng, mix = random.Random(seed), Mix()

    def scene() -> Scene:
        return Scene(rng.choice(SHAPES), rng.choice(COLOR_NAMES))

    for i in range(count):
        scenes = (scene(), scene()) if i % 6 == 5 else (scene(),)
        badge = pick_badge(rng)
        view = View(scenes, (badge[0],) if badge else (), tools=rng.random() < 0.2)
        if i % 20 == 0:
            yield rng.choice((*questions.TOOL_PROMPTS, *talk.SEEN_SYSTEM_PROMPTS))
        for asked, answered in exchange(view, rng, mix).turns:
            yield asked
            yield answered


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's tensors."""

    pictures: Tensor
    """``(B * pictures per row, 3, 64, 64)``, noise added."""
    ids: Tensor
    """``(B, L)``"""
    positions: Tensor
    """``(B, L)``: each exchange counts on from the prefix."""
    mask: Tensor
    """bool ``(B, 1, L, L)``"""
    labels: Tensor
    """``(B, L)``: the id at each answer token, else ``IGNORED``."""
    first: Tensor
    """bool ``(B, L)``: first token of an answer, which decides yes or no, refusal or compliance."""
    there: Tensor
    """``(B, L)``: at the last tokens of a yes/no question, whether what it names is there; else ``IGNORED``."""
    seeing: Tensor
    """bool ``(B, L)``: text tokens that see the picture."""
    scene: Tensor
    """``(B, 3)``: shape, colour and badge (0: none) of the first picture."""


@dataclass(slots=True)
class _Row:
    ids: list[int]
    positions: list[int]
    segments: list[int]
    labels: list[int]
    there: list[int]

    def extend(self, ids: list[int], start: int, segment: int, labels: list[int], there: list[int]) -> None:
        self.ids += ids
        self.positions += range(start, start + len(ids))
        self.segments += [segment] * len(ids)
        self.labels += labels
        self.there += there


class Packer:
    """Draws batches of packed rows from a set of pictures."""

    def __init__(
        self,
        data: Pictures,
        encode: Encode,
        *,
        seed: int,
        faint: bool,
        mix: Mix,
        noise: float = TOP_SIGMA,
        length: int = 256,
    ) -> None:
        """Keeps what every batch needs.

        Args:
            data: pictures to draw from.
            encode: text to token ids, special tokens included where they are written out.
            seed: of all draws.
            faint: badges of all contrasts instead of full contrast only.
            mix: shares of the kinds of exchange.
            noise: most noise on a picture, sigma in pixel units.
            length: tokens in a row.
        """
        self._data, self._faint, self._mix, self._noise, self._length = data, faint, mix, noise, length
        self._rng, self._generator = random.Random(seed), torch.Generator().manual_seed(seed)
        self._raw, self._cache = encode, dict[str, list[int]]()

    def _encode(self, text: str) -> list[int]:
        if text not in self._cache:
            self._cache[text] = self._raw(text)
        return self._cache[text]

    def batch(self, rows: int, pictures: int = 1) -> Batch:
        """Draws ``rows`` rows with one or two pictures each."""
        rng = self._rng
        index = [rng.randrange(len(self._data)) for _ in range(rows * pictures)]
        x = self._data.floats(index)
        flipped = torch.rand(len(x), generator=self._generator) < 0.5
        x[flipped] = x[flipped].flip(-1)
        words: list[str | None] = []
        for i, number in enumerate(index):
            chosen = pick_badge(rng)
            words.append(chosen[0] if chosen else None)
            if chosen:
                where = place_badge(x[i], self._data.scenes[number], rng)
                contrast = pick_contrast(rng, faint=self._faint)
                x[i] = paste_badge(x[i], chosen[0], where, contrast=contrast, style_of=chosen[1])
        packed, scene = [], []
        for row in range(rows):
            part = slice(row * pictures, (row + 1) * pictures)
            scenes = tuple(self._data.scenes[n] for n in index[part])
            tools = pictures == 1 and rng.random() < 0.18
            badges = tuple(w for w in words[part] if w)
            packed.append(self._row(View(scenes, badges, tools)))
            badge = words[part][0]
            badge_class = 1 + BADGES.index(badge) if badge else 0
            scene.append((SHAPES.index(scenes[0].shape), COLOR_NAMES.index(scenes[0].color), badge_class))
        return self._tensors(add_noise(x, self._generator, top=self._noise), packed, torch.tensor(scene))

    def _row(self, view: View) -> _Row:
        rng, encode = self._rng, self._encode
        system = ""
        if view.tools:
            system = "<|system|>" + rng.choice(questions.TOOL_PROMPTS)
        elif rng.random() < 0.3:
            system = "<|system|>" + rng.choice(talk.SEEN_SYSTEM_PROMPTS)
        prefix = encode(f"<s>{system}<|user|>") + encode("<image>") * (IMAGE_TOKENS * len(view.scenes))
        row = _Row([], [], [], [], [])
        row.extend(prefix, 0, 0, [IGNORED] * len(prefix), [IGNORED] * len(prefix))
        segment = misses = 0
        while True:
            drawn = exchange(view, rng, self._mix)
            segment += 1
            ids: list[int] = [] if drawn.sees else encode(f"<s>{system}<|user|>")
            labels = [IGNORED] * len(ids)
            there = [IGNORED] * len(ids)
            for number, (asked, answered) in enumerate(drawn.turns):
                opening = encode(("<|user|>" if number else "") + asked + "<|assistant|>")
                closing = encode(answered + "</s>")
                ids = ids + opening + closing
                labels = labels + [IGNORED] * len(opening) + closing
                known = questions.named_is_there(asked, answered)
                hint = IGNORED if known is None else int(known)
                end = min(3, len(opening))
                there = there + [IGNORED] * (len(opening) - end) + [hint] * end + [IGNORED] * len(closing)
            if len(row.ids) + len(ids) > self._length:
                misses += 1
                if misses > 3:
                    return row
                continue
            row.extend(ids, len(prefix) if drawn.sees else 0, segment if drawn.sees else -segment, labels, there)

    def _tensors(self, pictures: Tensor, rows: list[_Row], scene: Tensor) -> Batch:
        def padded(lists: list[list[int]], filler: int) -> Tensor:
            return torch.tensor([values + [filler] * (self._length - len(values)) for values in lists])

        labels = padded([r.labels for r in rows], IGNORED)
        segments = padded([r.segments for r in rows], _PADDING)
        same = segments[:, :, None] == segments[:, None, :]
        prefix = (segments[:, None, :] == 0) & (segments[:, :, None] > 0)
        causal = torch.ones(self._length, self._length, dtype=torch.bool).tril()
        answer = labels != IGNORED
        return Batch(
            pictures=pictures,
            ids=padded([r.ids for r in rows], 0),
            positions=padded([r.positions for r in rows], 0),
            mask=(causal & (same | prefix))[:, None],
            labels=labels,
            first=answer & ~torch.nn.functional.pad(answer, (1, 0))[:, :-1],
            there=padded([r.there for r in rows], IGNORED),
            seeing=(segments > 0) & (segments < _PADDING),
            scene=scene,
        )
