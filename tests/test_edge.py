"""The edge: decoding once, refusing the unseen, missing contexts, handing on and withholding."""

from __future__ import annotations

import base64
import hashlib
import io
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image as pillow

from sg_guardrails import edge
from sg_guardrails.core.errors import GuardError, MediaError, UnsafeOutputError
from sg_guardrails.core.media import MediaLimits
from sg_guardrails.core.policy import Policy
from sg_guardrails.core.types import Answer, Message, Prompt
from sg_guardrails.guard import SmoothGuard
from sg_guardrails.testing import FakeSampler, fake_audio, fake_embedder, fake_image, fake_scorers, fake_sentiment

SIZE = 8
KEPT = SIZE * SIZE * 3 * 4
"""Bytes of one decoded picture."""


def png(value: float) -> bytes:
    return fake_image((value, 0.0, 0.0), size=SIZE).to_png()


def guard(script="fine", **policy) -> SmoothGuard:
    loaded = Policy.parse({"name": "test", "smoothing": {"copies": 2}, **policy})
    return SmoothGuard(
        loaded,
        sampler=FakeSampler(script),
        embedder=fake_embedder,
        sentiment=fake_sentiment,
        scorers=fake_scorers(),
    )


@pytest.fixture
def counted(monkeypatch):
    """A fresh cache, and the list of what was really decoded."""
    decoded = []

    def decode(data, *, limits):
        decoded.append(data)
        return real(data, limits=limits)

    real = edge.decode
    monkeypatch.setattr(edge, "decode", decode)
    return decoded


def test_the_same_bytes_are_decoded_once(counted):
    media = edge.DecodedMedia()
    first = media(png(0.5))
    assert media(bytes(bytearray(png(0.5)))) is first
    assert media(png(0.25)).digest != first.digest
    assert len(counted) == 2


def test_other_limits_are_another_entry_so_that_none_are_walked_round(counted):
    media = edge.DecodedMedia()
    media(png(0.5))
    with pytest.raises(MediaError, match="pixels"):
        media(png(0.5), limits=MediaLimits(max_pixels=SIZE * SIZE - 1))
    with pytest.raises(MediaError, match="bytes"):
        media(png(0.5), limits=MediaLimits(max_bytes=10))
    assert len(media) == 1


def test_a_failure_is_not_remembered(counted):
    media = edge.DecodedMedia()
    for _ in range(2):
        with pytest.raises(MediaError):
            media(b"no picture")
    assert (len(counted), len(media)) == (2, 0)


def test_the_least_recently_used_goes_first(counted):
    media = edge.DecodedMedia(most_bytes=2 * KEPT)
    media(png(0.1)), media(png(0.2)), media(png(0.1)), media(png(0.3))
    assert len(media) == 2
    counted.clear()
    media(png(0.1)), media(png(0.3))
    assert counted == []
    media(png(0.2))
    assert counted == [png(0.2)]


def test_what_alone_is_too_large_is_not_kept_and_drives_nothing_out(counted):
    media = edge.DecodedMedia(most_bytes=KEPT)
    media(png(0.1))
    media(fake_audio(seconds=1.0).to_wav())
    counted.clear()
    media(png(0.1))
    assert counted == []


def test_64_threads_get_the_right_medium_within_the_bound():
    media = edge.DecodedMedia(most_bytes=3 * KEPT)
    files = [png(number / 16) for number in range(16)]
    right = [edge.decode(data).digest for data in files]
    barrier = threading.Barrier(64)

    def one(number: int) -> list[bool]:
        barrier.wait()
        return [media(files[(number + turn) % 16]).digest == right[(number + turn) % 16] for turn in range(20)]

    with ThreadPoolExecutor(64) as pool:
        assert all(all(same) for same in pool.map(one, range(64)))
    assert len(media) <= 3
    assert media._held == len(media) * KEPT


def test_no_vote_is_kept_the_same_picture_is_sampled_for_every_request():
    sampler = FakeSampler("fine")
    voting = SmoothGuard(
        Policy.parse({"name": "test", "smoothing": {"copies": 2}}),
        sampler=sampler,
        embedder=fake_embedder,
        sentiment=fake_sentiment,
        scorers=fake_scorers(),
    )
    for _ in range(2):
        voting.check(Prompt((Message("user", (edge.decoded(png(0.5)), "what?")),)))
    assert sampler.calls == 2


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ({"image_url": {"url": "x"}}, "image_url"),
        ({"deep": [{"deeper": ({"base64": "QUJD"},)}]}, "base64"),
        ({"note": " DATA:image/png;base64,QUJD"}, "note"),
        ({"note": "data:;base64,QUJD"}, "note"),
        ({"raw": b"x"}, "raw"),
        ({"picture": fake_image().to_pil()}, "picture"),
        ({"array": fake_image().pixels}, "array"),
        ({"image": ""}, ""),
        ({"note": "Data: the numbers say so"}, ""),
        ({"input": {"image_url": "in anybody's message but a model's it is none of its words"}}, "image_url"),
        ({"args": {"deep": [{"parsed": {"note": "data:image/png;base64,QUJD"}}]}}, "note"),
        ({"limit_mm_per_prompt": {"image": 4, "audio": 0.5, "video": True}}, ""),
        ({"refusal": None, "n": 1, "flag": True, "url": "https://example.test"}, ""),
    ],
)
def test_hidden_media_are_named_by_their_key(value, name):
    assert edge.hidden(value) == name


def test_a_models_own_words_are_texts_and_media_beside_them_are_not():
    told = {key: {"image_url": "a tool's argument is text"} for key in edge.MODELS_OWN}
    assert edge.hidden(told, own=True) == ""
    assert edge.hidden({**told, "note": "data:;base64,QUJD"}, own=True) == "note"
    for key, value in told.items():
        assert edge.hidden({key: value})


SCHEMA = {"type": "object", "properties": {"image": {"type": "string"}}}


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"format": SCHEMA, "extra_body": {"guided_json": SCHEMA}}, ""),
        ({"tools": [{"function": {"name": "image", "parameters": SCHEMA}}]}, ""),
        ({"tools": ({"input_schema": SCHEMA, "input_examples": [{"image": "a.png"}]},)}, ""),
        ({"response_schema": {"$defs": {"image": SCHEMA}, "definitions": {"audio": SCHEMA}}}, ""),
        ({"audio": {"voice": "a", "format": "wav"}}, ""),
        ({"audio": {"voice": "a", "data": "UklGRg"}}, "audio"),
        ({"audio": "a.wav"}, "audio"),
        ({"extra_body": {"audio": {"voice": "a", "format": "wav"}}}, "audio"),
        ({"tools": [{**SCHEMA, "input_image_mask": {"image_url": "x"}}]}, "image_url"),
        ({"response_format": {**SCHEMA, "note": "data:image/png;base64,QUJD"}}, "note"),
    ],
)
def test_schemas_hide_no_media_and_media_beside_them_are_found(options, name):
    assert edge.hidden(edge.without_schemas(options)) == name


def packed(data: bytes) -> str:
    return base64.b64encode(data).decode()


def smallest(kind: str) -> bytes:
    """The smallest picture of a format: one colour, hardly more than a header."""
    buffer = io.BytesIO()
    pillow.new("1" if kind == "GIF" else "RGB", (1, 1)).save(buffer, kind, lossless=True)
    return buffer.getvalue()


ENCODED = {
    "PNG": packed(png(0.5)),
    "WAV": packed(fake_audio().to_wav()),
    **{kind: packed(smallest(kind)) for kind in ("GIF", "WEBP", "JPEG", "PNG", "TIFF")},
    "GIF without a trailer": "R0lGODlhAQABAAAAACwAAAAAAQABAAACAkQBAA",
    "FLAC": packed(b"fLaC\0\0\0\x22" + bytes(range(40))),
    "OGG": packed(b"OggS" + bytes(range(40))),
    "MP3": packed(b"ID3\x04" + bytes(range(40))),
    "MP4": packed(b"\0\0\0\x20ftypisom" + bytes(range(40))),
    "WebM": packed(b"\x1aE\xdf\xa3" + bytes(range(40))),
    "PDF": packed(b"%PDF-1.7\n" + bytes(range(40))),
    "url-safe": packed(smallest("JPEG")).replace("+", "-").replace("/", "_"),
    "without padding": packed(smallest("GIF")).rstrip("="),
    "in lines": "\r\n ".join(packed(png(0.5))[at : at + 7] for at in range(0, 70, 7)) + packed(png(0.5))[70:],
    "after blanks": "\n" * 1000 + packed(png(0.5)),
    "cut off": packed(png(0.5))[:40],
    "with something after it": packed(png(0.5))[:60] + "... (and more)",
}


@pytest.mark.parametrize("name", ENCODED)
def test_base64_of_a_medium_is_one_under_whatever_key(name):
    assert edge.hidden({"source": {"type": "base64", "data": ENCODED[name]}}) == "data"
    assert edge.hidden({"attachments": [{"content": ENCODED[name]}]}) == "content"
    assert edge.hidden([ENCODED[name]], own=True) == "data"


PLAIN = [
    "/9j/",
    "/9j/ is how a JPEG in base64 begins",
    "/9j/a.jpg",
    "iVBORw0KGgo",
    "iVBORw0KGgo= is a PNG's first line",
    "ID3 tags say who sings, and in which year the song came out.",
    "RIFF is the container of WAV and of WebP, by Microsoft and IBM.",
    "GIF89a was published in 1989; OggS and fLaC came later than that.",
    "SUQz is short",
    "https://example.test/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAgG",
    "smoothguard-prompt-cache-key-0123456789abcdef0123456789abcdef",
    "018f3c4e-7d1a-7cc0-9d2b-4f6f5b0a9e31",
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxIn0.c2ln",
    '{"path": "a.png", "note": "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ"}',
]


@pytest.mark.parametrize("text", PLAIN)
def test_a_text_is_no_medium_for_how_it_begins(text):
    assert edge.hidden({"note": text, "id": text, "url": [text]}) == ""


def test_ids_hashes_and_signatures_of_thoughts_are_no_media():
    draw = random.Random(7)
    for size in (16, 24, 32, 64, 300, 3000) * 50:
        drawn = draw.randbytes(size)
        told = {
            "thought_signature": packed(drawn),
            "signature": base64.urlsafe_b64encode(drawn).decode(),
            "encrypted_content": "gAAAA" + packed(drawn),
            "prompt_cache_key": hashlib.sha256(drawn).hexdigest(),
            "id": f"msg_{drawn.hex()}",
        }
        assert edge.hidden(told) == ""


def test_a_block_that_says_it_is_a_medium_and_where_is_one():
    for place in ({"url": "https://e.test/a"}, {"file_id": "f1"}, {"uri": "x"}, {"source": {"type": "url"}}):
        assert edge.hidden({"outputs": [{"type": "Image", **place}]}) == "outputs"
        assert edge.hidden({"outputs": [{"type": "citation", **place}]}) == ""
    for place in ({"source": "camera", "url": None}, {"source": {"page": 3}}, {}):
        assert edge.hidden({"shown": {"type": "image", **place}}) == ""


def test_a_text_is_text_by_its_bytes_not_by_its_label():
    assert edge.plain_text("höflich".encode()) == "höflich"
    for data in (png(0.5), fake_audio().to_wav(), b"GIF89a", b"text\0", b"%PDF-1.7"):
        with pytest.raises(MediaError, match="labelled text"):
            edge.plain_text(data)


UNSEEN = edge.UnresolvableMediaError("a URL")


def test_unseen_media_block_whatever_on_error_allows():
    outcome = edge.refused(guard(on_error="allow"), UNSEEN, Answer("fine"))
    assert (outcome.status, edge.is_handed_on(outcome)) == ("error", False)
    assert edge.is_handed_on(edge.refused(guard(on_error="allow"), MediaError("broken"), Answer("fine")))
    assert edge.is_handed_on(edge.refused(guard(mode="observe"), UNSEEN, Answer("fine")))
    with pytest.raises(edge.UnresolvableMediaError):
        edge.refused(guard(unresolvable_media="error"), UNSEEN, None)


def test_a_missing_context_is_what_the_setting_else_the_policy_says():
    with pytest.raises(GuardError, match="do this, or set on_missing_context"):
        edge.missing(guard(), Answer("x"), None, advice="do this")
    assert edge.missing(guard(), Answer("x"), "pass", advice="").status == "skipped"
    assert edge.missing(guard(on_missing_context="judge_text"), Answer("x"), None, advice="").status == "passed"


@pytest.mark.parametrize(
    ("action", "on_unsafe", "raises"),
    [
        ("block", "policy", False),
        ("block", "raise", True),
        ("block", "replace", False),
        ("raise", "policy", True),
        ("raise", "raise", True),
        ("raise", "replace", False),
    ],
)
def test_withholding_raises_as_asked(action, on_unsafe, raises):
    rules = [{"id": "w", "when": {"words": ["UNSAFE"]}, "action": action}]
    outcome = guard(rules=rules).review(Prompt(()), "UNSAFE")
    if raises:
        with pytest.raises(UnsafeOutputError) as caught:
            edge.withhold(outcome, on_unsafe)
        assert caught.value.outcome is outcome
        assert "UNSAFE" not in str(caught.value)
    else:
        edge.withhold(outcome, on_unsafe)
    edge.withhold(guard(rules=rules).review(Prompt(()), "fine"), on_unsafe)


def test_a_summary_holds_no_text():
    outcome = guard().check(Prompt((Message("user", (fake_image(), "secret question")),)))
    told = edge.summary(outcome)
    assert (told["status"], told["agreement"], told["findings"]) == ("passed", 1.0, [])
    assert "secret" not in repr(told)
    assert "fine" not in repr(told)
