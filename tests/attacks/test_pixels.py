"""Our preprocessing against the processors' own, on real pictures; its gradients against finite differences."""

from __future__ import annotations

import math

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_sample_images
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from sg_guardrails.attacks.pixels import image_of, pixel_values, tensor_of
from sg_guardrails.attacks.resample import resize, to_8_bit
from sg_guardrails.core.errors import ModelError
from sg_guardrails.core.media import Image

PAN = {
    "do_pan_and_scan": True,
    "pan_and_scan_min_crop_size": 32,
    "pan_and_scan_max_num_crops": 4,
    "pan_and_scan_min_ratio_to_activate": 1.2,
}
PROCESSORS = {
    "clip": CLIPImageProcessorPil(),
    "clip 64": CLIPImageProcessorPil(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}),
    "clip padded": CLIPImageProcessorPil(size={"shortest_edge": 60}, crop_size={"height": 75, "width": 63}),
    "clip as is": CLIPImageProcessorPil(do_resize=False, do_center_crop=False, do_normalize=False),
    "siglip": SiglipImageProcessorPil(),
    "llava": LlavaImageProcessorPil(),
    "llava square": LlavaImageProcessorPil(do_pad=True),
    "gemma3": Gemma3ImageProcessorPil(),
    "gemma3 pan and scan": Gemma3ImageProcessorPil(size={"height": 96, "width": 96}, **PAN),
    "qwen": Qwen2VLImageProcessorPil(),
    "qwen small": Qwen2VLImageProcessorPil(size={"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 30}),
    "idefics3": Idefics3ImageProcessorPil(size={"longest_edge": 256}, max_image_size={"longest_edge": 100}),
    "idefics3 whole": Idefics3ImageProcessorPil(do_image_splitting=False, size={"longest_edge": 300}),
    "idefics3 one tile": Idefics3ImageProcessorPil(size={"longest_edge": 364}),
    "smolvlm": SmolVLMImageProcessorPil(size={"longest_edge": 256}, max_image_size={"longest_edge": 64}),
    "llava next": LlavaNextImageProcessorPil(),
}
FULL = {
    "idefics3": Idefics3ImageProcessorPil(),
    "smolvlm": SmolVLMImageProcessorPil(size={"longest_edge": 2048}, max_image_size={"longest_edge": 512}),
    "gemma3": Gemma3ImageProcessorPil(size={"height": 896, "width": 896}),
    "llava 1.5": CLIPImageProcessorPil(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}),
}
"""As the real checkpoints set them."""


def _pictures() -> dict[str, np.ndarray]:
    china, flower = load_sample_images().images
    return {
        "china": china,
        "flower": flower,
        "portrait": china[:, :290],
        "narrow": china[:, :70],
        "low": flower[200:240],
        "small": flower[100:164, 200:264],
    }


PICTURES = _pictures()


def image(pixels: np.ndarray) -> Image:
    return Image(pixels.astype(np.float32) / np.float32(255))


def assert_equal_to_processor(processor, given: Image) -> None:
    expected = processor(images=given.to_pil(), return_tensors="pt")["pixel_values"]
    ours = pixel_values(processor, tensor_of(given))
    assert ours.shape == expected.shape
    assert float((ours - expected).abs().max()) < 1e-4


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("kind", PROCESSORS)
def test_values_are_the_processors_own_on_photographs(kind, name):
    assert_equal_to_processor(PROCESSORS[kind], image(PICTURES[name]))


@pytest.mark.slow
@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("kind", FULL)
def test_values_are_the_processors_own_at_full_size(kind, name):
    assert_equal_to_processor(FULL[kind], image(PICTURES[name]))


@pytest.mark.parametrize("kind", ["clip", "gemma3", "qwen", "idefics3", "smolvlm", "llava next"])
def test_values_are_the_processors_own_on_typographic_pictures(kind, shared):
    for path in sorted((shared / "data" / "figstep").glob("*.png"))[:2]:
        assert_equal_to_processor(PROCESSORS[kind], Image.open(path))


@settings(deadline=None, max_examples=60)
@given(
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    out=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    kind=st.sampled_from([PIL.Image.BILINEAR, PIL.Image.BICUBIC, PIL.Image.LANCZOS]),
    seed=st.integers(0, 999),
)
def test_resize_is_pillows_to_the_bit(size, out, kind, seed):
    # Black and white give the most overshoot, so that both cuts to 8 bits are met.
    pixels = np.random.default_rng(seed).integers(0, 2, (*size, 3), dtype=np.uint8) * 255
    expected = np.asarray(PIL.Image.fromarray(pixels).resize((out[1], out[0]), kind))
    ours = resize(to_8_bit(tensor_of(image(pixels))), out, kind)
    assert np.array_equal(ours.permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("kind", PROCESSORS)
def test_gradients_match_finite_differences_without_rounding(kind):
    processor, x = PROCESSORS[kind], tensor_of(image(PICTURES["china"][100:150, 100:170])) * 0.8 + 0.1
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(pixel_values(processor, x).shape, generator=generator).double()

    def value(at: torch.Tensor) -> torch.Tensor:
        return (weight * pixel_values(processor, at, rounding=False).double()).sum()

    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(leaf), leaf)
    assert float(gradient.abs().max()) > 0
    direction = torch.randn(x.shape, generator=generator)
    h = 2e-3
    numeric = float(value(x + h * direction) - value(x - h * direction)) / (2 * h)
    assert numeric == pytest.approx(float((gradient * direction).sum()), rel=2e-3)


@pytest.mark.parametrize("kind", PROCESSORS)
def test_gradients_pass_straight_through_the_rounding(kind):
    processor, x = PROCESSORS[kind], tensor_of(image(PICTURES["flower"][100:150, 100:170])) * 0.6 + 0.2
    weight = torch.randn(pixel_values(processor, x).shape, generator=torch.Generator().manual_seed(1))
    gradients = []
    for rounding in (True, False):
        leaf = x.clone().requires_grad_()
        gradients += torch.autograd.grad((weight * pixel_values(processor, leaf, rounding=rounding)).sum(), leaf)
    # No value is near 0 or 255 here, so the cuts let everything pass and the two agree.
    assert torch.allclose(gradients[0], gradients[1], rtol=1e-4, atol=1e-4)


def test_both_orders_of_axes_are_taken():
    x = tensor_of(image(PICTURES["small"]))
    processor = PROCESSORS["clip"]
    assert torch.equal(pixel_values(processor, x), pixel_values(processor, x.permute(1, 2, 0)))


def test_a_torchvision_processor_keeps_its_own_values_and_our_gradient():
    class Torchvision(CLIPImageProcessorPil):
        backend = "torchvision"

        def __call__(self, *args, **kwargs):
            given = super().__call__(*args, **kwargs)
            return {"pixel_values": given["pixel_values"] + 0.01}  # rounds in another way than Pillow

    Torchvision.__name__ = "CLIPImageProcessorFast"
    x = tensor_of(image(PICTURES["small"]))
    leaf = x.clone().requires_grad_()
    ours = pixel_values(Torchvision(), leaf)
    assert torch.allclose(ours, pixel_values(PROCESSORS["clip"], x) + 0.01, atol=1e-5)
    (gradient,) = torch.autograd.grad(ours.sum(), leaf)
    other = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(pixel_values(PROCESSORS["clip"], other, rounding=False).sum(), other)
    assert torch.allclose(gradient, expected)


def test_what_has_no_differentiable_form_is_refused():
    class StrangeImageProcessor:
        pass

    x = tensor_of(image(PICTURES["small"]))
    with pytest.raises(ModelError, match="StrangeImageProcessor"):
        pixel_values(StrangeImageProcessor(), x)
    with pytest.raises(ModelError, match="do_pad"):
        pixel_values(CLIPImageProcessorPil(do_pad=True), x)
    with pytest.raises(ModelError, match="picture"):
        pixel_values(PROCESSORS["clip"], x[:2])
    with pytest.raises(ValueError, match="BOX"):
        resize(to_8_bit(x), (32, 32), PIL.Image.BOX)


def test_an_image_of_a_tensor_is_what_its_png_holds():
    x = torch.rand((3, 9, 11), generator=torch.Generator().manual_seed(0))
    saved = image_of(x)
    assert np.array_equal(Image.from_bytes(saved.to_png()).pixels, saved.pixels)
    assert float((tensor_of(saved) - x).abs().max()) <= 0.5 / 255 + 1e-6
    assert math.isclose(float(tensor_of(image_of(torch.ones((3, 2, 2)))).min()), 1.0)
