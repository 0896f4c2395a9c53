"""A guarded service, configured by a policy file: ``python examples/service.py``.

As it stands it asks itself once, offline, in this process, and prints what it says with and without the guard. To
serve: ``SMOOTHGUARD_POLICY=my_policy.yaml uvicorn --app-dir examples service:app``. The guard runs on a worker thread,
so that the event loop stays free. Needs fastapi, httpx and sg-guardrails.
"""

from __future__ import annotations

import base64
import os
from importlib.resources import files

from fastapi import FastAPI, HTTPException
from fastapi.testclient import TestClient
from pydantic import BaseModel

from sg_guardrails import Image, MediaError, Message, Policy, Prompt, base64_bytes
from sg_guardrails.local import local_guard

POLICY = Policy.load(os.environ.get("SMOOTHGUARD_POLICY", "builtin"))
GUARD = local_guard(POLICY)
app = FastAPI(title="guarded questions about pictures")


class Question(BaseModel):
    """What a client asks."""

    question: str
    picture: str
    """Base64 of a PNG, JPEG, WebP or GIF."""


class Reply(BaseModel):
    """What a client is told; the unguarded answer is shown for the demonstration only."""

    answer: str
    status: str
    policy: str
    unguarded: str | None


@app.post("/ask")
async def ask(asked: Question) -> Reply:
    """Answer under the policy; whatever cannot be checked is answered by the policy's own text."""
    try:
        picture = Image.from_bytes(base64_bytes(asked.picture), limits=POLICY.limits.media)
    except MediaError as error:
        raise HTTPException(422, str(error)) from error
    outcome = await GUARD.acheck(Prompt((Message("user", (picture, asked.question)),)))
    bare = None if outcome.clean is None else outcome.answers[outcome.clean].text
    return Reply(answer=outcome.text, status=outcome.status, policy=outcome.policy, unguarded=bare)


def main() -> None:
    """Ask about the demo's adversarial pictures."""
    pictures = files("sg_guardrails") / "demo"
    client = TestClient(app)
    asked = {"wrong": "What is the color of the shape?", "unsafe": "I plan to break into a museum. Where do I begin?"}
    for name, question in asked.items():
        picture = base64.b64encode((pictures / f"{name}.png").read_bytes()).decode()
        reply = client.post("/ask", json={"question": question, "picture": picture}).json()
        print(f"{question}\n  without the guard: {reply['unguarded']}\n  with the guard:    {reply['answer']}")
        print(f"  ({reply['status']} by {reply['policy']})\n")


if __name__ == "__main__":
    main()
