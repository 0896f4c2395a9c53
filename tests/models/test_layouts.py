"""Noise in every layout: its size, its place, its independence, against what the real processors give."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sg_guardrails.core.errors import ModelError
from sg_guardrails.core.media import Image
from sg_guardrails.core.policy import ImageNoise, Smoothing
from sg_guardrails.core.types import Copy, Prompt
from sg_guardrails.models import hf, layouts
from tests.models import tiny

WIDE = (24, 80)
TALL = (70, 30)


def picture(size: tuple[int, int] = WIDE, seed: int = 0) -> Image:
    return Image(np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.float32) / 255)


def smoothing(sigma: float = 0.1, space: str = "model") -> Smoothing:
    return Smoothing(image=ImageNoise(sigma=sigma, space=space))


def added(handle, prompt: Prompt, seed: int, how: Smoothing) -> torch.Tensor:
    """The noise alone."""
    inputs = hf.encode(handle, prompt)
    return hf.perturb(handle, inputs, Copy(prompt, seed), how)["pixel_values"] - inputs["pixel_values"]


def planes(name: str, noise: torch.Tensor) -> torch.Tensor:
    """Any layout as (positions, channel): what each real value of the picture got."""
    if name == "qwen2_5_vl":
        return noise.view(noise.shape[0], 3, 2, 14 * 14)[:, :, 0].permute(0, 2, 1).reshape(-1, 3)
    return noise.movedim(-3, -1).reshape(-1, 3)


def real(name: str, inputs) -> torch.Tensor:
    """Which of those positions are picture; told from the tensor itself: padding is zero in all three channels."""
    return planes(name, inputs["pixel_values"]).abs().sum(1) > 0


@pytest.mark.parametrize("name", tiny.NAMES)
@pytest.mark.parametrize("space", ["model", "pixel"])
def test_noise_has_the_policys_sigma_in_every_channel_and_spares_padding(model, name, space):
    handle = model(name)
    prompt = Prompt.ask("Describe both pictures.", picture(WIDE), picture(TALL, 1))
    everything, kept = [], real(name, hf.encode(handle, prompt))
    for seed in range(10):
        noise = planes(name, added(handle, prompt, seed, smoothing(0.2, space)))
        assert torch.count_nonzero(noise[~kept]) == 0
        everything.append(noise[kept])
    values = torch.cat(everything)
    expected = torch.tensor([0.2 / std if space == "pixel" else 0.2 for std in tiny.STD])
    # The standard error of a deviation from n values is sigma / sqrt(2 n); 5 of them never happen by chance.
    tolerance = float(expected.max()) * 5 / (2 * len(values)) ** 0.5
    assert torch.allclose(values.std(0), expected, atol=tolerance)
    assert torch.allclose(values.mean(0), torch.zeros(3), atol=2 * tolerance)


def test_tiles_of_two_shapes_do_have_padding(model):
    """Else the test above would say nothing about it."""
    prompt = Prompt.ask("Describe both pictures.", picture(WIDE), picture(TALL, 1))
    assert not real("llava_next", hf.encode(model("llava_next"), prompt)).all()


def test_masked_pixels_stay_as_they_are(model):
    """Idefics3 marks its padding; pictures of one prompt have none of it, so a mask is drawn here."""
    handle, prompt = model("idefics3"), Prompt.ask("What is this?", picture())
    inputs = dict(hf.encode(handle, prompt))
    mask = torch.ones_like(inputs["pixel_attention_mask"])
    mask[:, -1], mask[:, 0, 20:] = 0, 0
    inputs["pixel_attention_mask"] = mask
    moved = hf.perturb(handle, inputs, Copy(prompt, 1), smoothing())["pixel_values"] != inputs["pixel_values"]
    assert torch.equal(moved.all(2), mask.bool())
    assert torch.equal(moved.any(2), mask.bool())


def test_a_black_picture_is_no_padding(model):
    """Noise is placed by the sizes that the processor reports, not by looking for zeros."""
    for name in tiny.NAMES:
        black = Prompt.ask("What is this?", Image(np.zeros((32, 32, 3), dtype=np.float32)))
        assert torch.count_nonzero(added(model(name), black, 1, smoothing())) > 3000


@pytest.mark.parametrize("name", tiny.NAMES)
def test_seed_decides_the_noise(model, name):
    prompt = Prompt.ask("What is this?", picture())
    one = added(model(name), prompt, 7, smoothing())
    assert torch.equal(one, added(model(name), prompt, 7, smoothing()))
    assert not torch.equal(one, added(model(name), prompt, 8, smoothing()))


@pytest.mark.parametrize("name", tiny.NAMES)
def test_no_seed_and_no_sigma_are_clean(model, name):
    handle, prompt = model(name), Prompt.ask("What is this?", picture())
    inputs = hf.encode(handle, prompt)
    clean = hf.perturb(handle, inputs, Copy(prompt, None), smoothing(9))
    assert torch.equal(clean["pixel_values"], inputs["pixel_values"])
    assert torch.count_nonzero(added(handle, prompt, 3, smoothing(0))) == 0


def test_noise_is_not_clipped(model):
    """White stays white under clipping; a pure Gaussian goes over it half of the time, in each channel."""
    handle = model("llava")
    prompt = Prompt.ask("What is this?", Image(np.ones((32, 32, 3), dtype=np.float32)))
    inputs = hf.encode(handle, prompt)
    noisy = hf.perturb(handle, inputs, Copy(prompt, 1), smoothing(0.5))["pixel_values"]
    assert 0.45 < float((noisy > inputs["pixel_values"]).float().mean()) < 0.55


def test_both_frames_of_a_still_picture_share_their_noise(model):
    noise = added(model("qwen2_5_vl"), Prompt.ask("What is this?", picture()), 1, smoothing(0.3, "pixel"))
    frames = noise.view(noise.shape[0], 3, 2, 14, 14)
    assert torch.equal(frames[:, :, 0], frames[:, :, 1])
    assert len(torch.unique(frames[:, :, 0])) > 0.9 * frames[:, :, 0].numel()


def test_flattened_patches_hold_channel_then_frame(model):
    """A picture that is red alone is bright in exactly the first third of every patch."""
    red = np.zeros((28, 28, 3), dtype=np.float32)
    red[..., 0] = 1
    patches = hf.encode(model("qwen2_5_vl"), Prompt.ask("?", Image(red)))["pixel_values"]
    by_channel = patches.view(patches.shape[0], 3, -1)
    assert (by_channel[:, 0] > 0).all()
    assert (by_channel[:, 1:] < 0).all()


@pytest.mark.parametrize("name", tiny.NAMES)
def test_pixel_units_are_the_slope_of_the_real_processor(model, name):
    """One step of brightness moves the processed tensor by what `model_units` says."""
    handle = model(name)
    dark, light = (Image(np.full((56, 56, 3), level / 255, dtype=np.float32)) for level in (100, 110))
    low, high = (hf.encode(handle, Prompt.ask("?", image))["pixel_values"] for image in (dark, light))
    step = planes(name, high - low)
    slope = step[step.abs().sum(1) > 0][0] / (10 / 255)
    assert torch.allclose(slope, layouts.model_units(handle.processor.image_processor), rtol=1e-3)


def test_pixel_units_without_normalising():
    class Plain:
        do_normalize, do_rescale, rescale_factor, image_std = False, True, 1 / 255, (9.0, 9.0, 9.0)

    class Raw(Plain):
        do_rescale = False

    assert layouts.model_units(Plain()).tolist() == pytest.approx([1, 1, 1])
    assert layouts.model_units(Raw()).tolist() == pytest.approx([255, 255, 255])


def draw(shape):
    return torch.ones(shape)


def test_pictures_of_several_sizes_in_one_tensor_are_padded_below_and_right():
    """Pixtral's layout: rows of the largest size, the real sizes beside them."""
    inputs = {"pixel_values": torch.zeros(2, 3, 6, 8), "image_sizes": torch.tensor([[6, 4], [2, 8]])}
    noise = layouts.add_noise(inputs, object(), ImageNoise(sigma=1), draw)
    assert noise[0, 0].sum(0).tolist() == [6, 6, 6, 6, 0, 0, 0, 0]
    assert noise[1, 2].sum(1).tolist() == [8, 8, 0, 0, 0, 0]


def test_an_unknown_layout_is_refused():
    inputs = {"pixel_values": torch.zeros(1, 1, 1, 3, 8, 8)}
    with pytest.raises(ModelError, match=r"laid out as \(1, 1, 1, 3, 8, 8\)"):
        layouts.add_noise(inputs, object(), ImageNoise(sigma=1), draw)


def test_another_tensor_of_floats_is_refused(model):
    handle, prompt = model("llava"), Prompt.ask("What is this?", picture())
    inputs = {**hf.encode(handle, prompt), "high_res_pixel_values": torch.zeros(1, 3, 8, 8)}
    with pytest.raises(ModelError, match="high_res_pixel_values"):
        hf.perturb(handle, inputs, Copy(prompt, 1), smoothing())
