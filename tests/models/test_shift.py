"""Pictures moved in every layout: the same move in all of a picture's places, and no value lost or made."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sg_guardrails.attacks.pixels import pixel_values, tensor_of
from sg_guardrails.attacks.slots import PictureSlot
from sg_guardrails.core.errors import ModelError
from sg_guardrails.core.media import Image
from sg_guardrails.core.policy import ImageNoise, Smoothing
from sg_guardrails.core.types import Copy, Prompt
from sg_guardrails.models import hf, layouts
from tests.models import tiny

SHIFT = ImageNoise(sigma=0, shift=0.25)


def picture(size: tuple[int, int], seed: int = 0) -> Image:
    return Image(np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.float32) / 255)


def fixed(*shares: float):
    """Numbers that move a picture by exactly these shares: what erf makes of them is the share over the shift."""
    return lambda shape: (
        math.sqrt(2) * torch.erfinv(torch.tensor(shares) / SHIFT.shift) if shape == (2,) else torch.zeros(shape)
    )


@pytest.mark.parametrize("name", sorted(set(tiny.NAMES) - {"llava_next"}))
def test_values_are_only_ordered_anew(model, name):
    handle = model(name)
    prompt = Prompt.ask("Describe both pictures.", picture((24, 80)), picture((70, 30), 1))
    inputs = hf.encode(handle, prompt)
    clean = inputs["pixel_values"]
    seen = []
    for seed in range(4):
        moved = hf.perturb(handle, inputs, Copy(prompt, seed), Smoothing(image=SHIFT))["pixel_values"]
        assert torch.equal(moved.flatten().sort().values, clean.flatten().sort().values)
        assert not any(torch.equal(moved, other) for other in (clean, *seen))
        seen.append(moved)


@pytest.mark.parametrize("name", tiny.NAMES)
def test_a_copy_is_never_moved_where_the_policy_does_not_say_so(model, name):
    handle, prompt = model(name), Prompt.ask("What is this?", picture((24, 80)))
    inputs = hf.encode(handle, prompt)
    still = hf.perturb(handle, inputs, Copy(prompt, 3), Smoothing(image=ImageNoise(sigma=0)))
    assert torch.equal(still["pixel_values"], inputs["pixel_values"])


def test_tiles_with_bars_around_the_picture_are_refused(model):
    """LLaVA-Next drops the bars after its tower: a picture moved into them would be dropped with them."""
    handle, prompt = model("llava_next"), Prompt.ask("What is this?", picture((24, 80)))
    with pytest.raises(ModelError, match=r"smoothing\.image\.shift"):
        hf.perturb(handle, hf.encode(handle, prompt), Copy(prompt, 3), Smoothing(image=SHIFT))


def test_a_plane_is_moved_as_the_picture_would_be(model):
    """LLaVA's processor keeps a picture of its own size as it is, so moving before and after it come to the same."""
    handle = model("llava")
    side = hf.encode(handle, Prompt.ask("?", picture((32, 32))))["pixel_values"].shape[-1]
    image = picture((side, side))
    inputs = hf.encode(handle, Prompt.ask("?", image))
    moved = layouts.add_noise(inputs, handle.processor.image_processor, SHIFT, fixed(0.125, -0.2))
    rows, columns = round(0.125 * side), round(-0.2 * side)
    by_hand = Image(np.roll(image.pixels, (rows, columns), axis=(0, 1)))
    assert torch.allclose(moved, hf.encode(handle, Prompt.ask("?", by_hand))["pixel_values"], atol=1e-5)


def test_patches_are_moved_across_their_borders(model):
    """Qwen2.5-VL's patches, blocks and frames: a move by a share that is no patch's width."""
    handle = model("qwen2_5_vl")
    images = picture((28, 56)), picture((56, 28), 1)
    inputs = hf.encode(handle, Prompt.ask("?", *images))
    processor = handle.processor.image_processor
    heights = (inputs["image_grid_thw"][:, 1:] * processor.patch_size).tolist()
    assert heights == [[28, 56], [56, 28]]  # none is resized, so a picture moved by hand is one moved in patches
    moved = layouts.add_noise(inputs, processor, SHIFT, fixed(0.1, -0.2))
    by_hand = [
        Image(np.roll(one.pixels, (round(0.1 * high), round(-0.2 * wide)), axis=(0, 1)))
        for one, (high, wide) in zip(images, heights, strict=True)
    ]
    assert torch.allclose(moved, hf.encode(handle, Prompt.ask("?", *by_hand))["pixel_values"], atol=1e-5)


def test_padding_stays_where_it_is():
    """Pixtral's layout: a picture smaller than its tensor is moved inside its own bounds."""
    pixels = torch.zeros(2, 3, 6, 8)
    pixels[0, :, :6, :4] = torch.arange(24.0).view(6, 4) + 1
    pixels[1, :, :2, :8] = torch.arange(16.0).view(2, 8) + 1
    inputs = {"pixel_values": pixels, "image_sizes": torch.tensor([[6, 4], [2, 8]])}
    half = replace_shift(0.5)
    moved = layouts.add_noise(
        inputs, object(), half, lambda shape: torch.full(shape, 9.0) if shape == (2,) else torch.zeros(shape)
    )
    assert torch.equal(moved[0, :, :6, :4], pixels[0, :, :6, :4].roll((3, 2), (-2, -1)))
    assert torch.equal(moved[1, :, :2, :8], pixels[1, :, :2, :8].roll((1, 4), (-2, -1)))
    assert torch.equal(moved == 0, pixels == 0)


def replace_shift(shift: float) -> ImageNoise:
    return SHIFT.model_copy(update={"shift": shift})


def test_an_adaptive_attack_sees_through_the_move(model):
    """The gradient of a moved copy comes back to the pixels it came from."""
    handle = model("llava")
    side = hf.encode(handle, Prompt.ask("?", picture((32, 32))))["pixel_values"].shape[-1]
    image = picture((side, side))
    slot = PictureSlot.of(handle, Prompt.ask("?", image))
    leaf = tensor_of(image).requires_grad_()
    (row,) = slot.noisy(leaf, [SHIFT], fixed(0.125, 0.0))
    row["pixel_values"][..., round(0.125 * side), 0].sum().backward()
    where = leaf.grad.abs().sum(0).nonzero().tolist()
    assert where == [[0, 0]]
    assert pixel_values(slot.image_processor, leaf).shape == row["pixel_values"].shape
