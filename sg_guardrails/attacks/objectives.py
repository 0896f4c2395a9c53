"""What an attacker wants the model to say, and the loss that measures how far it is from saying it."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sg_guardrails.attacks.pgd import Loss
from sg_guardrails.attacks.pixels import as_called, pixel_values, tensor_of
from sg_guardrails.core.errors import ModelError
from sg_guardrails.core.media import Image
from sg_guardrails.core.policy import ImageNoise
from sg_guardrails.core.types import Prompt, ToolCall
from sg_guardrails.models import chat, layouts
from sg_guardrails.models.hf import encode
from sg_guardrails.models.loading import Handle

Reached = Callable[[str], bool]
TOLERANCE = 1e-4
"""Most that our preprocessing may differ from the processor's, in the model's units."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """Texts to bring about, or to drive away, and the test of whether an answer does."""

    name: str
    """``text``, ``jailbreak``, ``hijack``, ``wrong`` or ``tool_call``."""
    targets: tuple[str, ...]
    """The texts whose likelihood is raised (lowered, where `away`)."""
    reached: Reached = field(repr=False)
    """Whether an answer is what the attacker wants."""
    away: bool = False
    """True for untargeted attacks: any other answer will do."""
    ends: bool = True
    """Whether the answer must stop after the target."""
    paired: bool = False
    """Whether target i belongs to prompt i; else every target stands for every prompt."""
    batch: int = 8
    """Most pairs of prompt and target in one step; of more, each step draws its own."""


def say(text: str) -> Objective:
    """The model must say this (spacing and case do not count; more may follow or come before)."""
    return Objective(name="text", targets=(text,), reached=lambda answer: _plain(text) in _plain(answer))


def hijack(text: str) -> Objective:
    """The model must hand on this injected instruction in place of an answer."""
    return Objective(name="hijack", targets=(text,), reached=lambda answer: _plain(text) in _plain(answer))


def jailbreak(
    targets: Sequence[str], *, reached: Reached | None = None, paired: bool = False, ends: bool = False, batch: int = 8
) -> Objective:
    """The model must comply: a corpus of target texts (Qi et al., arXiv 2306.13213), one picture for all prompts.

    Args:
        targets: What a model without restraint would say.
        reached: Judge of an answer; None takes one that begins with the first three words of a target.
        paired: Whether target i answers prompt i.
        ends: Whether an answer must stop after its target.
        batch: Most pairs in one step (8 in the paper's code).
    """
    openings = tuple(" ".join(_plain(target).split()[:3]) for target in targets)
    judge = reached or (lambda answer: _plain(answer).startswith(openings))
    return Objective(name="jailbreak", targets=tuple(targets), reached=judge, ends=ends, paired=paired, batch=batch)


def wrong_answer(right: str, *, is_right: Reached, wrong: str | None = None) -> Objective:
    """The model must answer wrongly: `right` becomes unlikely, or `wrong` likely where it is given.

    Args:
        right: The answer to the clean picture, as the model words it.
        is_right: Judge of an answer's correctness, whatever the wording.
        wrong: A wrong answer to steer to; None takes any.
    """
    return Objective(
        name="wrong",
        targets=(right if wrong is None else wrong,),
        reached=lambda answer: bool(answer.strip()) and not is_right(answer),
        away=wrong is None,
    )


def tool_call(name: str, arguments: Mapping[str, Any]) -> Objective:
    """The model must emit this call, as one line of JSON."""
    wanted = ToolCall(name, arguments).canonical
    line = json.dumps({"name": name, "arguments": dict(arguments)})

    def emits(answer: str) -> bool:
        return any(call.canonical == wanted for call in chat.read_answer(answer).tool_calls)

    return Objective(name="tool_call", targets=(line,), reached=emits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """Expectation over transformation (Athalye et al., arXiv 1707.07397): the loss over draws of the guard's noise."""

    noise: ImageNoise
    """The guard's, as its policy has it."""
    draws: int = 6
    """Noisy copies a step, fresh in each."""
    share: float = 1.0
    """Share of the copies whose loss counts, the nearest to the goal first; 0.55 pushes a bare majority."""

    def __post_init__(self) -> None:
        if self.draws < 1 or not 0 < self.share <= 1:
            raise ValueError("an expectation takes at least 1 draw and a share in (0, 1]")


@dataclass(frozen=True, slots=True)
class Slot:
    """Where the attacked picture stands in one prompt's tensors."""

    inputs: Mapping[str, Tensor]
    """The clean prompt, encoded (batch size 1)."""
    image_processor: Any
    """As the model's processor calls it."""
    axis: int
    """Along which several pictures follow each other in ``pixel_values``."""
    start: int
    """The picture's first row there."""
    whole: bool
    """True where it is the only picture."""

    @classmethod
    def of(cls, handle: Handle, prompt: Prompt, *, which: int = 0) -> Slot:
        """Encode a prompt and find its picture number `which`.

        Raises:
            ModelError: If the prompt has no such picture, or clips beside it, or if our own preprocessing of it is not
                the processor's: an attack on other values would pass for a robust model.
        """
        pictures = [part for part in prompt.media if isinstance(part, Image)]
        if len(pictures) != len(prompt.media) or which >= len(pictures):
            raise ModelError(f"there is no picture number {which} to attack in the prompt, or it holds clips too")
        inputs = dict(encode(handle, prompt))
        pixels = inputs[layouts.PIXELS]
        # Idefics3 counts prompts along axis 0, their pictures' tiles along axis 1; the others put pictures end to end.
        axis = 1 if pixels.ndim == 5 and pixels.shape[0] < len(pictures) else 0
        processor = as_called(handle.processor)
        with torch.no_grad():
            own = [pixel_values(processor, tensor_of(image)) for image in pictures[: which + 1]]
        slot = cls(inputs, processor, axis, sum(values.shape[axis] for values in own[:-1]), len(pictures) == 1)
        filled = slot.filled(own[-1])
        if filled.shape != pixels.shape or bool((filled - pixels).abs().max() > TOLERANCE):
            raise ModelError(
                f"our preprocessing differs from that of {type(handle.processor.image_processor).__name__}"
            )
        return slot

    def values(self, picture: Tensor, *, rounding: bool = True) -> Tensor:
        """The prompt's ``pixel_values`` with this picture, ``(3, H, W)`` in [0, 1], in its place."""
        return self.filled(pixel_values(self.image_processor, picture, rounding=rounding))

    def filled(self, values: Tensor) -> Tensor:
        """The prompt's ``pixel_values`` with these in the picture's place."""
        clean = self.inputs[layouts.PIXELS]
        values = values.to(clean)
        if self.whole:
            return values
        after = self.start + values.shape[self.axis]
        behind = clean.narrow(self.axis, after, clean.shape[self.axis] - after)
        return torch.cat((clean.narrow(self.axis, 0, self.start), values, behind), dim=self.axis)


def loss_of(
    handle: Handle,
    slots: Sequence[Slot],
    objective: Objective,
    *,
    expectation: Expectation | None = None,
    seed: int = 0,
) -> Loss:
    """The objective's loss as a function of the attacked picture: mean negative log-likelihood of the target's tokens.

    It draws pairs and noise from `seed` and the step's number alone, so that a resumed attack goes the same way.

    Args:
        handle: The model; float32 gives the best gradients.
        slots: The prompts, each with its place for the picture.
        objective: What is wanted.
        expectation: The guard's noise, for an adaptive attack.
        seed: Of the draws.

    Raises:
        ModelError: If paired targets and prompts differ in number.
    """
    if objective.paired and len(objective.targets) != len(slots):
        raise ModelError(f"{len(objective.targets)} paired targets stand against {len(slots)} prompts")
    targets = [_tokens(handle, text, ends=objective.ends) for text in objective.targets]
    count = len(slots)
    pairs = [(i, j) for i in range(count) for j in range(len(targets)) if not objective.paired or i == j]
    draws = 1 if expectation is None else expectation.draws
    kept = 1 if expectation is None else math.ceil(expectation.share * draws)
    sign = -1.0 if objective.away else 1.0

    def loss(picture: Tensor, step: int) -> Tensor:
        chosen = pairs
        if len(pairs) > objective.batch:
            chosen = random.Random(f"{seed}/{step}").sample(pairs, objective.batch)  # noqa: S311 - no secret: it must repeat
        generator = torch.Generator(handle.device).manual_seed(seed * 1_000_003 + step)
        values = pixel_values(slots[0].image_processor, picture)
        rows, labels = [], []
        for i, j in chosen:
            row = {**slots[i].inputs, layouts.PIXELS: slots[i].filled(values)}
            for _ in range(draws):
                rows.append(_noisy(handle, row, expectation, generator))
                labels.append(targets[j])
        each = sign * _nll(handle, rows, labels).view(len(chosen), draws)
        return each.topk(kept, dim=1, largest=False).values.mean()

    return loss


def _noisy(
    handle: Handle, row: Mapping[str, Tensor], expectation: Expectation | None, generator: torch.Generator
) -> Mapping[str, Tensor]:
    if expectation is None:
        return row

    def draw(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=generator, device=handle.device)

    noisy = layouts.add_noise(row, handle.processor.image_processor, expectation.noise, draw)
    return {**row, layouts.PIXELS: noisy}


def _tokens(handle: Handle, text: str, *, ends: bool) -> Tensor:
    """``(T,)`` the target's tokens, and the end token where the answer must stop there."""
    tokenizer = handle.processor.tokenizer
    ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    if ends and tokenizer.eos_token_id is not None:
        ids.append(tokenizer.eos_token_id)
    if not ids:
        raise ModelError("a target text has at least one token")
    return torch.tensor(ids, device=handle.device)


def _nll(handle: Handle, rows: Sequence[Mapping[str, Tensor]], targets: Sequence[Tensor]) -> Tensor:
    """``(R,)`` mean negative log-likelihood of each row's target, given its prompt and picture (teacher forcing)."""
    width = max(row["input_ids"].shape[1] + len(target) for row, target in zip(rows, targets, strict=True))
    batch: dict[str, Tensor] = {}
    for name, first in rows[0].items():
        if first.shape == rows[0]["input_ids"].shape and not first.is_floating_point():
            batch[name] = torch.cat([_extended(name, r[name], t, width) for r, t in zip(rows, targets, strict=True)])
        else:
            batch[name] = torch.cat([row[name] for row in rows])
    batch[layouts.PIXELS] = batch[layouts.PIXELS].to(handle.dtype)
    with handle.lock:
        logits = handle.model(**batch, use_cache=False).logits.float()
    values = []
    for index, (row, target) in enumerate(zip(rows, targets, strict=True)):
        begin = row["input_ids"].shape[1] - 1  # the logits at a token foretell the next one
        values.append(functional.cross_entropy(logits[index, begin : begin + len(target)], target))
    return torch.stack(values)


def _extended(name: str, text: Tensor, target: Tensor, width: int) -> Tensor:
    """One row's text tensor with the target behind it, padded on the right to `width`."""
    behind = target if name == "input_ids" else torch.full_like(target, int(name == "attention_mask"))
    row = torch.cat([text[0], behind.to(text.dtype)])
    return functional.pad(row, (0, width - len(row))).unsqueeze(0)


def _plain(text: str) -> str:
    """Words in lower case, one space apart."""
    return " ".join(re.findall(r"[\w'.@:/-]+", text.casefold()))
