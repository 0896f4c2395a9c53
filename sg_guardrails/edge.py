"""What every integration does at its edge: media decoded once, the unseen refused, an outcome handed on or withheld.

For those who bring the guard to a framework. No torch here; `sg_guardrails.local` builds the guard.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, TypedDict

from sg_guardrails.core import forking, waiting
from sg_guardrails.core.errors import GuardError, MediaError, UnsafeOutputError
from sg_guardrails.core.media import DEFAULT_LIMITS, Image, Media, MediaLimits, decode
from sg_guardrails.samples import Samples as _Samples

if TYPE_CHECKING:
    from sg_guardrails.core.types import Answer, Outcome
    from sg_guardrails.guard import SmoothGuard

OnUnsafe = Literal["policy", "raise", "replace"]
"""``policy``: only the action ``raise`` raises; ``raise``: whatever is not handed on; ``replace``: never raises."""
OnMissing = Literal["error", "judge_text", "pass"]
"""What becomes of an answer whose messages cannot be found."""
MOST_BYTES = 256_000_000
"""What the decoded media that are kept may take, bytes."""

HIDING = frozenset(
    [
        *("image", "images", "image_url", "input_image", "audio", "input_audio", "audio_url", "video", "videos"),
        *("video_url", "inline_data", "inlineData", "base64", "file_data", "fileData", "blob"),
    ]
)
"""Keys that hold media in one dialect or another; beside a text, or beside another medium, they hide one."""
SCHEMAS = frozenset(["properties", "$defs", "definitions", "parameter_definitions", "input_examples"])
"""Keys of a tool's or an answer's schema: what stands under them are names, ``image`` among them, and no payloads."""
MODELS_OWN = frozenset(
    [
        *("input", "args", "arguments", "partial_json", "tool_calls", "function_call", "parsed"),
        *("redactedContent", "reasoning_content"),
    ]
)
"""Keys under which a model's own words stand, in its own messages: they are texts to whoever reads them."""
DATA_URI = re.compile(r"\s*data:([\w.+-]+/|[;,])", re.IGNORECASE)
SIGNATURES = (
    *(b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"RIFX", b"fLaC", b"OggS", b"ID3"),
    *(b"%PDF-", b"\x1aE\xdf\xa3", b"II*\0", b"MM\0*"),
)
"""How media begin, whatever their label says."""
# No complete file of these formats is shorter than a GIF of 26 bytes, 35 letters: 32 stand at the beginning of each.
# With blanks within, since decoders skip them.
_BASE64 = re.compile(r"(?:\s*+[A-Za-z0-9+/_-]){32}")


class UnresolvableMediaError(MediaError):
    """A message holds media that the guard cannot see: a URL, a file id, a path, a video, an unknown block."""


class DecodedMedia:
    """`decode` that remembers: a conversation sends its pictures again with every turn.

    Keyed by the bytes' sha256 and the limits, least recently used out first. It spares decoding only: a vote belongs
    to media *with their messages*, and none is kept. Failures are not kept either. Safe for any number of threads.

    Args:
        most_bytes: What the decoded arrays may take together; a medium that alone takes more is not kept.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most, self._held = most_bytes, 0
        self._media: OrderedDict[tuple[bytes, MediaLimits], Media] = OrderedDict()
        self._lock = forking.Lock()

    def __len__(self) -> int:
        """How many media are held."""
        return len(self._media)

    def __call__(self, data: bytes, *, limits: MediaLimits = DEFAULT_LIMITS) -> Media:
        """The medium, as `decode` gives it. Raises MediaError as `decode` does."""
        if len(data) > limits.max_bytes:
            return decode(data, limits=limits)  # which refuses it, without a hash over what may be huge
        key = (hashlib.sha256(data).digest(), limits)
        with self._lock:
            known = self._media.get(key)
            if known is not None:
                self._media.move_to_end(key)
                return known
        medium = decode(data, limits=limits)
        with self._lock:
            if key not in self._media and _bytes(medium) <= self._most:
                self._media[key] = medium
                self._held += _bytes(medium)
            while self._held > self._most:
                self._held -= _bytes(self._media.popitem(last=False)[1])
        return medium


def _bytes(medium: Media) -> int:
    return medium.pixels.nbytes if isinstance(medium, Image) else medium.wave.nbytes


on_a_thread = waiting.on_a_thread
"""Awaits a call on a worker thread; a task that is cancelled takes its copies out of the model's queue. A deadline
begins when it is called. Where too many tasks wait, the guard in it asks no model and its policy's ``on_error``
decides; where even those are too many, it raises SamplingError."""
Samples = _Samples
"""What a caller's own model said to the copies, asked within the policy's deadline."""
decoded = DecodedMedia()
"""The process's own: integrations decode through it."""


def hidden(*values: object, own: bool = False) -> str:
    """The key under which something in `values`, however deep, is a medium; empty where there is none.

    A medium is whatever but a number stands under a key of `HIDING`, bytes, arrays and pictures, a data: URI, 32
    letters or more of base64 that begin as a medium does, and a block that says it is one and where. Of 8 million
    random strings about one begins like that. Not seen: encoded media of other formats (raw samples, MP3 without a
    tag), and other encodings.

    Args:
        values: What stands beside a message's content, or beside a block's payload.
        own: Whether a model wrote the message: what stands under `MODELS_OWN` is then its words. In anybody else's
            message nothing is.
    """
    left: list[tuple[str, object]] = [("data", value) for value in values]
    while left:
        name, value = left.pop()
        if isinstance(value, Mapping):
            left += [(str(key), inner) for key, inner in value.items() if not (own and key in MODELS_OWN)]
            under = (
                key for key, inner in value.items() if key in HIDING and inner and not isinstance(inner, int | float)
            )
            found = str(next(under, ""))
            found = found or (name if _says_where(value) else "")
        elif isinstance(value, list | tuple | set):
            left += [(name, inner) for inner in value]
            continue
        elif isinstance(value, str):
            found = name if DATA_URI.match(value) or _begins_as_medium(value) else ""
        else:
            is_object = callable(getattr(value, "save", None)) or hasattr(value, "__array__")
            found = name if is_object or isinstance(value, bytes | bytearray | memoryview) else ""
        if found:
            return found[:40]
    return ""


def without_schemas(options: Mapping[str, object]) -> dict[str, object]:
    """What a model's call was given beside its messages, for `hidden` to look through.

    Left out are schemas, which describe tools and answers, and the voice that is wished for.
    """
    return {name: _without_schemas(value) for name, value in options.items() if not _is_voice(name, value)}


def _without_schemas(value: object) -> object:
    if isinstance(value, Mapping):
        return {name: _without_schemas(inner) for name, inner in value.items() if name not in SCHEMAS}
    return [_without_schemas(inner) for inner in value] if isinstance(value, list | tuple) else value


def _is_voice(name: str, value: object) -> bool:
    """Whether this is OpenAI's wish for a spoken answer, which stands under the name of a medium."""
    return name == "audio" and isinstance(value, Mapping) and value.keys() <= {"voice", "format"}


def _says_where(block: Mapping[object, object]) -> bool:
    """Whether a block is called a medium by its type, and says from where it is to be had."""
    source = block.get("source")
    says = isinstance(source, Mapping) and source.get("type")  # as Anthropic has it
    says = says or any(block.get(key) for key in ("url", "uri", "file_id"))
    return bool(says) and str(block.get("type")).lower() in HIDING


def _begins_as_medium(text: str) -> bool:
    """Whether a text is the base64 of a medium, by its first 24 bytes: some decoders don't mind what follows."""
    if (found := _BASE64.match(text)) is None:
        return False
    head = base64.b64decode("".join(found[0].split()).translate(str.maketrans("-_", "+/")))
    return head.startswith(SIGNATURES) or head[4:8] == b"ftyp"


def plain_text(data: bytes) -> str:
    """A document's text.

    Raises:
        MediaError: For media that are labelled as text: a model may go by the bytes.
    """
    if data.startswith(SIGNATURES) or b"\0" in data:
        raise MediaError("is labelled text, but is none")
    return data.decode(errors="replace")


def refused(guard: SmoothGuard, error: GuardError, answer: Answer | None) -> Outcome:
    """What the policy makes of media that cannot be seen, or are broken.

    Args:
        guard: Its policy decides.
        error: UnresolvableMediaError for what cannot be seen; any other for what is broken.
        answer: The answer under review, where there is one already.

    Raises:
        GuardError: The error itself, where the policy says so.
    """
    if isinstance(error, UnresolvableMediaError):
        if guard.policy.unresolvable_media == "error":
            raise error
        # "block" holds whatever on_error allows; observing alone lets the answer through.
        answer = answer if guard.policy.mode == "observe" else None
    return guard.refuse(error, candidate=answer)


def missing(guard: SmoothGuard, answer: Answer, setting: OnMissing | None, *, advice: str) -> Outcome:
    """What the setting, else the policy, makes of an answer whose messages were not found.

    Raises:
        GuardError: Under ``error``; it says `advice`.
    """
    match setting or guard.policy.on_missing_context:
        case "judge_text":
            return guard.judge_text(answer)
        case "pass":
            return guard.skip(answer, reason="the messages behind this answer were not found")
        case _:
            raise GuardError(f"{advice}, or set on_missing_context to judge_text or pass")


def is_handed_on(outcome: Outcome) -> bool:
    """Whether the answer under review goes on as it is."""
    return outcome.answer is not None and outcome.status not in ("rewritten", "blocked")


def withhold(outcome: Outcome, on_unsafe: OnUnsafe) -> None:
    """Raise UnsafeOutputError where the answer is not handed on and the setting, or the policy's action, says raise."""
    asked = outcome.verdict is not None and outcome.verdict.action == "raise"
    if not is_handed_on(outcome) and (on_unsafe == "raise" or (on_unsafe == "policy" and asked)):
        raise UnsafeOutputError(f"the answer was {outcome.status} by policy {outcome.policy}", outcome)


class Summary(TypedDict):
    """An outcome in plain values, without texts: what stands under ``smoothguard`` in a framework's metadata."""

    status: str
    policy: str
    agreement: float | None
    abstained: bool
    findings: list[str]
    """The rules that matched."""
    degraded: str | None
    seed_id: str


def summary(outcome: Outcome) -> Summary:
    """The outcome for a framework's metadata."""
    findings = outcome.verdict.findings if outcome.verdict is not None else ()
    return Summary(
        status=outcome.status,
        policy=outcome.policy,
        agreement=None if outcome.vote is None else outcome.vote.agreement,
        abstained=outcome.abstained,
        findings=[finding.rule for finding in findings],
        degraded=outcome.degraded,
        seed_id=outcome.seed_id,
    )
