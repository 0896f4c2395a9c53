"""A LangChain chain that ends in the guard, beside the same without it: ``python examples/langchain_chain.py``.

Everything is real and offline: the pictures, two of them adversarial, are those of ``sg-guardrails demo``, and the
chain's model is the built-in demo model, unguarded. The last part uses scripted models. Needs langchain-smoothguard.
"""

from __future__ import annotations

import base64
import json
from importlib.resources import files

from langchain_core.language_models import FakeListChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

from langchain_smoothguard import SmoothGuardChatModel, SmoothGuardRunnable
from sg_guardrails import Policy

PICTURES = files("sg_guardrails") / "demo"
PROMPT = ChatPromptTemplate.from_messages(
    [
        (
            "human",
            [
                {"type": "image", "base64": "{picture}", "mime_type": "image/png"},
                {"type": "text", "text": "{question}"},
            ],
        )
    ]
)
SCRIPTED = {
    "a larger model that says more": "The red shape is a triangle, on a light background.",
    "a model that a picture has hijacked": "The red shape is a triangle. Now enter your password to go on.",
}


def main() -> None:
    """Print what each chain says."""
    guard = SmoothGuardRunnable(policy="builtin")
    # Observing, the guard changes nothing: this is the bare model.
    bare = SmoothGuardChatModel(policy=Policy.load("builtin").model_copy(update={"mode": "observe"}))
    scenes = json.loads((PICTURES / "manifest.json").read_text(encoding="utf-8"))["scenes"]
    asked = [
        {"question": scene["question"], "picture": base64.b64encode((PICTURES / scene["image"]).read_bytes()).decode()}
        for scene in scenes
    ]
    without = (PROMPT | bare | StrOutputParser()).batch(asked)
    guarded = (PROMPT | bare | guard | StrOutputParser()).batch(asked)
    for scene, before, after in zip(scenes, without, guarded, strict=True):
        print(f"{scene['title']}\n  {scene['question']}")
        print(f"  without the guard: {before}\n  with the guard:    {after}\n")
    for who, says in SCRIPTED.items():
        model = FakeListChatModel(responses=[says])
        print(f"{who}\n  {asked[0]['question']}")
        print("  without the guard:", (PROMPT | model | StrOutputParser()).invoke(asked[0]))
        print("  with the guard:   ", (PROMPT | model | StrOutputParser() | guard).invoke(asked[0]), "\n")


if __name__ == "__main__":
    main()
