"""A model id or folder becomes a Handle: model and processor, loaded once and shared by every guard that holds it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal
from weakref import WeakValueDictionary

import torch
import transformers
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoProcessor,
    PreTrainedConfig,
    PreTrainedModel,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

from sg_guardrails.core.errors import ModelError
from sg_guardrails.core.forking import Lock
from sg_guardrails.models import hub
from sg_guardrails.models.builtin import builtin_path
from sg_guardrails.models.weights import Attention, Quantization, Weights

Medium = Literal["image", "audio"]
HINT = "name another with `model: {id: ...}` in the policy or --model, or try the policy `builtin`"
SAMPLING = ("temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff")
BEAMS = ("early_stopping", "length_penalty")


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Handle:
    """A loaded model, shared by guards. torch's number of threads is left as the process has set it."""

    id: str
    model: PreTrainedModel
    processor: Any
    """What turns text and media into tensors: ``apply_chat_template(messages, ...) -> str``, a call with ``text``,
    ``images`` and ``audio``, and the attributes ``tokenizer`` and ``image_processor`` or ``feature_extractor``."""
    device: torch.device
    dtype: torch.dtype
    takes: frozenset[Medium]
    """The media that the model can see or hear."""
    lock: Lock = field(default_factory=partial(Lock, threading.RLock), repr=False)
    """Held while the model runs: tokenizers and some models (Qwen's position offsets) keep state between calls."""

    @classmethod
    def of(cls, id: str, model: PreTrainedModel, processor: Any) -> Handle:  # noqa: A002 - the policy's word
        """Wrap a model that is loaded already; its generation settings become greedy."""
        takes: set[Medium] = set()
        if hasattr(processor, "image_processor"):
            takes.add("image")
        if hasattr(processor, "feature_extractor"):
            takes.add("audio")
        _make_greedy(model, processor)
        return cls(id, model.eval(), processor, model.device, model.dtype, frozenset(takes))

    @property
    def transcribes(self) -> bool:
        """True for a speech-to-text model without chat (Whisper): it writes down one clip and reads no question."""
        return isinstance(self.model, WhisperForConditionalGeneration)


_loaded: WeakValueDictionary[tuple[str, str | None, str, Weights], Handle] = WeakValueDictionary()
_loading = Lock()


def load(
    id: str,  # noqa: A002 - the policy's word
    *,
    revision: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    attention: Attention = "auto",
    quantization: Quantization = "none",
) -> Handle:
    """Load a model, or return the one that is loaded already and still held by somebody.

    Args:
        id: A hub id, a local folder, or ``builtin:NAME``.
        revision: Commit or tag on the hub.
        device: ``auto`` (cuda, else mps, else cpu), or a torch device.
        dtype: ``auto``, or a torch dtype's name. ``auto`` is float32 on a CPU, the checkpoint's own elsewhere; on CUDA
            half precision for one that is stored in float32: bfloat16, or float16 on a GPU without it.
        attention: ``auto`` (flash-attn where it is installed and fits, else what transformers picks), or its name.
        quantization: ``int8`` or ``int4`` holds the weights in 8 or 4 bits (extra ``quantized``).

    Raises:
        ModelError: If it can't be had or isn't a generative model of images or audio, or a package that `attention`
            or `quantization` needs isn't installed. The code of a checkpoint is never run, and only safetensors are
            read.
    """
    where = hub.pick_device(device)
    source = str(builtin_path(id.removeprefix("builtin:"))) if id.startswith("builtin:") else _source(id)
    weights = Weights(dtype, attention, quantization)
    key = (source, revision, str(where), weights)
    with _loading:
        handle = _loaded.get(key)
        if handle is None:
            handle = _loaded[key] = _fetch(id, source, revision, where, weights)
        return handle


def _source(name: str) -> str:
    """The folder for a path, the id itself for the hub. What looks like a path is never asked of the hub."""
    path = Path(name).expanduser()
    if name.strip() and path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"the folder {name} holds no config.json, so it is not a model; {HINT}")
        return str(path.resolve())
    is_path = name.startswith(("/", ".", "~")) or name.endswith("/") or name.count("/") > 1 or "\\" in name
    if is_path or not name.strip():
        raise ModelError(f"there is no model folder {name!r}; {HINT}")
    return name


def _fetch(name: str, source: str, revision: str | None, device: torch.device, weights: Weights) -> Handle:
    """Read from disk; only what isn't there is asked of the hub, after one short question whether it has it."""
    try:
        with hub.quiet():
            try:
                return _read(name, source, revision, device, weights, local=True)
            except OSError:
                if Path(source).is_dir():
                    raise
            hub.ask(name, revision, hint=HINT)
            return _read(name, source, revision, device, weights, local=False)
    except ModelError:
        raise
    except ImportError as error:
        raise ModelError(f"model {name!r} needs a package that is not installed: {_line(error)}; {HINT}") from error
    except Exception as error:  # a broken checkpoint fails in a dozen libraries, each with errors of its own
        raise ModelError(f"model {name!r} cannot be loaded: {_line(error)}; {HINT}") from error


def _read(
    name: str, source: str, revision: str | None, device: torch.device, weights: Weights, *, local: bool
) -> Handle:
    where = {"revision": revision, "local_files_only": local, "trust_remote_code": False}
    config = AutoConfig.from_pretrained(source, **where)
    auto = _auto_class(name, config)
    told = weights.loading(config, _model_class(auto, config), device)
    processor = AutoProcessor.from_pretrained(source, **where)
    model, report = auto.from_pretrained(
        source,
        **told,
        use_safetensors=True,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
        **where,
    )
    if wrong := len(report["missing_keys"]) + len(report["mismatched_keys"]):
        # transformers fills these with random numbers and goes on: such a model would answer noise.
        raise ModelError(f"model {name!r} is broken: {wrong} of its weights are missing or misshapen; {HINT}")
    handle = Handle.of(name, model if "device_map" in told else model.to(device), processor)
    if not handle.takes:
        raise ModelError(f"model {name!r} takes text alone: its processor knows neither pictures nor clips; {HINT}")
    return handle


def _auto_class(name: str, config: PreTrainedConfig) -> Any:
    if isinstance(config, WhisperConfig):
        return WhisperForConditionalGeneration
    if type(config) in transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return AutoModelForImageTextToText
    if type(config) in transformers.MODEL_FOR_MULTIMODAL_LM_MAPPING:
        return AutoModelForMultimodalLM
    raise ModelError(f"model {name!r} ({config.model_type}) does not answer about pictures or clips; {HINT}")


def _model_class(auto: Any, config: PreTrainedConfig) -> type:
    """The model's own class behind an automatic one."""
    mapping = getattr(auto, "_model_mapping", None)
    return auto if mapping is None else mapping[type(config)]  # type: ignore[no-any-return] # untyped in transformers


def _make_greedy(model: PreTrainedModel, processor: Any) -> None:
    """Unset what the checkpoint says about sampling: a copy's answer must depend on its noise alone."""
    config = model.generation_config
    config.update(do_sample=False, num_beams=1, num_return_sequences=1, max_length=None)
    config.update(**dict.fromkeys((*SAMPLING, *BEAMS)))
    if config.pad_token_id is None:
        end = config.eos_token_id[0] if isinstance(config.eos_token_id, list) else config.eos_token_id
        padding = processor.tokenizer.pad_token_id
        config.pad_token_id = end if padding is None else padding


def _line(error: BaseException) -> str:
    """The first sentence of an error's text: one clear line for a terminal."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].split(". ")[0].rstrip(".")[:200] if lines else type(error).__name__
