"""Guardrail for agents that see images and hear audio: re-ask under noise, vote by meaning, judge by policy."""

from sg_guardrails.core.errors import (
    DeadlineError,
    GuardError,
    MediaError,
    ModelError,
    PolicyError,
    SamplingError,
    UnsafeOutputError,
)
from sg_guardrails.core.inquiry import Inquiry, chat_judge
from sg_guardrails.core.media import Audio, Image, MediaLimits, base64_bytes, data_uri_bytes, decode
from sg_guardrails.core.noise import Key, perturb
from sg_guardrails.core.policy import Policy
from sg_guardrails.core.types import Answer, Copy, Finding, Message, Outcome, Prompt, ToolCall, Verdict, Vote
from sg_guardrails.edge import UnresolvableMediaError
from sg_guardrails.guard import SmoothGuard

from . import edge

__version__ = "0.1.0"
__all__ = [
    "Answer",
    "Audio",
    "Copy",
    "DeadlineError",
    "Finding",
    "GuardError",
    "Image",
    "Inquiry",
    "Key",
    "MediaError",
    "MediaLimits",
    "Message",
    "ModelError",
    "Outcome",
    "Policy",
    "PolicyError",
    "Prompt",
    "SamplingError",
    "SmoothGuard",
    "ToolCall",
    "UnresolvableMediaError",
    "UnsafeOutputError",
    "Verdict",
    "Vote",
    "base64_bytes",
    "chat_judge",
    "data_uri_bytes",
    "decode",
    "edge",
    "perturb",
]
