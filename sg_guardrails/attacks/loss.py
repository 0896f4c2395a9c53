"""The loss of an attack: how unlikely the targets are, over prompts, targets and draws of the guard's noise."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sg_guardrails.attacks.objectives import Expectation, Objective
from sg_guardrails.attacks.pgd import Loss
from sg_guardrails.attacks.slots import WRITTEN, Row, Slot
from sg_guardrails.core.errors import ModelError
from sg_guardrails.core.types import Message, Prompt
from sg_guardrails.models import chat, speech
from sg_guardrails.models.layouts import Draw
from sg_guardrails.models.loading import Handle

ANSWER = "Ready7391"
"""An answer that no chat template holds of itself, to find its place by."""
NOT_TEXT = ("feature_attention_mask",)
"""Whole-number tensors that may have the text's shape by chance."""


def loss_of(
    handle: Handle,
    slots: Sequence[Slot],
    objective: Objective,
    *,
    expectation: Expectation | None = None,
    seed: int = 0,
) -> Loss:
    """The objective's loss as a function of the attacked medium: mean negative log-likelihood of the target's tokens.

    It draws pairs and noise from `seed` and the step's number alone, so that a resumed attack goes the same way.

    Args:
        handle: The model; float32 gives the best gradients.
        slots: The prompts, each with its place for the medium.
        objective: What is wanted.
        expectation: The guard's noise, for an adaptive attack.
        seed: Of the draws.

    Raises:
        ModelError: If paired targets and prompts differ in number.
    """
    if objective.paired and len(objective.targets) != len(slots):
        raise ModelError(f"{len(objective.targets)} paired targets stand against {len(slots)} prompts")
    targets = [target_tokens(handle, text, ends=objective.ends) for text in objective.targets]
    pairs = pairs_of(objective, len(slots))
    draws = 1 if expectation is None else expectation.draws
    kept = 1 if expectation is None else math.ceil(expectation.share * draws)
    sign = -1.0 if objective.away else 1.0

    def loss(medium: Tensor, step: int) -> Tensor:
        chosen = pairs
        if len(pairs) > objective.batch:
            chosen = random.Random(f"{seed}/{step}").sample(pairs, objective.batch)  # noqa: S311 - no secret: it must repeat
        draw = draws_of(handle, seed, step)
        rows, labels = [], []
        for i, j in chosen:
            slot = slots[i]
            rows += [slot.row(medium)] if expectation is None else slot.noisy(medium, expectation.dealt, draw)
            labels += [targets[j]] * draws
        each = sign * unlikeliness(handle, rows, labels).view(len(chosen), draws)
        return each.topk(kept, dim=1, largest=False).values.mean()

    return loss


def pairs_of(objective: Objective, prompts: int) -> list[tuple[int, int]]:
    """The numbers of prompt and target that belong together, over so many prompts."""
    wanted = range(len(objective.targets))
    return [(i, j) for i in range(prompts) for j in wanted if not objective.paired or i == j]


def draws_of(handle: Handle, seed: int, step: int) -> Draw:
    """Standard normal numbers on the model's device that depend on `seed` and the step's number alone."""
    generator = torch.Generator(handle.device).manual_seed(seed * 1_000_003 + step)

    def draw(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=generator, device=handle.device)

    return draw


def target_tokens(handle: Handle, text: str, *, ends: bool) -> Tensor:
    """``(T,)`` the target's tokens, and the end token where the answer must stop there."""
    tokenizer = handle.processor.tokenizer
    # Whisper writes a space before the first word, as its tokenizer's words in mid-sentence have it.
    spaced = f" {text.strip()}" if handle.transcribes else text
    ids = list(tokenizer(spaced, add_special_tokens=False)["input_ids"])
    if ends and (end := end_token(handle)) is not None:
        ids.append(end)
    if not ids:
        raise ModelError("a target text has at least one token")
    return torch.tensor(ids, device=handle.device)


def end_token(handle: Handle) -> int | None:
    """The token that ends the model's turn: of those that end generation, the one that its chat template writes there.

    A tokenizer's own end token may be another: Gemma 3's is ``<eos>``, its turns close with ``<end_of_turn>``. Where
    the template writes none it is the first that ends generation, and the tokenizer's where nothing is said of these.
    """
    tokenizer, told = handle.processor.tokenizer, handle.model.generation_config.eos_token_id
    ends = [told] if isinstance(told, int) else list(told or ())
    behind = tokenizer(_behind_an_answer(handle.processor), add_special_tokens=False)["input_ids"]
    found: int | None = next((token for token in [*behind, *ends] if token in ends), tokenizer.eos_token_id)
    return found


def _behind_an_answer(processor: Any) -> str:
    """What the chat template writes behind an assistant's text; nothing for a model without one."""
    talk = Prompt((Message("user", ("Ready?",)), Message("assistant", (ANSWER,))))
    try:
        _, found, behind = chat.render(processor, talk).rpartition(ANSWER)
    except ModelError:
        return ""
    return behind if found else ""


def unlikeliness(handle: Handle, rows: Sequence[Row], targets: Sequence[Tensor]) -> Tensor:
    """``(R,)`` mean negative log-likelihood of each row's target, given its prompt and medium (teacher forcing)."""
    text = "input_ids"
    if handle.transcribes:
        text, rows = WRITTEN, [{name: row[name] for name in (speech.FEATURES, WRITTEN)} for row in rows]
    width = max(row[text].shape[1] + len(target) for row, target in zip(rows, targets, strict=True))
    batch: dict[str, Tensor] = {}
    for name, first in rows[0].items():
        if first.is_floating_point():
            batch[name] = torch.cat([row[name] for row in rows]).to(handle.dtype)
        elif first.shape == rows[0][text].shape and name not in NOT_TEXT:
            batch[name] = torch.cat(
                [_extended(row[name], target, width, name, text) for row, target in zip(rows, targets, strict=True)]
            )
        else:
            batch[name] = torch.cat([row[name] for row in rows])
    with handle.lock:
        logits = handle.model(**batch, use_cache=False).logits.float()
    values = []
    for index, (row, target) in enumerate(zip(rows, targets, strict=True)):
        begin = row[text].shape[1] - 1  # the logits at a token foretell the next one
        values.append(functional.cross_entropy(logits[index, begin : begin + len(target)], target))
    return torch.stack(values)


def _extended(given: Tensor, target: Tensor, width: int, name: str, text: str) -> Tensor:
    """One row's text tensor with the target behind it, padded on the right to `width`."""
    behind = target if name == text else torch.full_like(target, int(name == "attention_mask"))
    row = torch.cat([given[0], behind.to(given.dtype)])
    return functional.pad(row, (0, width - len(row))).unsqueeze(0)
