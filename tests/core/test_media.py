"""Decoding: formats, bounds before decoding, and nothing fetched."""

from __future__ import annotations

import base64
import copy
import io
import pickle
import struct
import zlib

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as pillow

from sg_guardrails import Audio, Image, MediaError, MediaLimits, Prompt, base64_bytes, data_uri_bytes, decode
from sg_guardrails.core.media import within


def encoded(format_: str, size=(5, 3), **options) -> bytes:
    buffer = io.BytesIO()
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[0, 0] = (255, 0, 0)
    pillow.fromarray(pixels).save(buffer, format=format_, **options)
    return buffer.getvalue()


def clip(format_="WAV", *, rate=8000, channels=1, frames=800, subtype=None) -> bytes:
    buffer = io.BytesIO()
    wave = 0.5 * np.sin(np.arange(frames) / 5)
    soundfile.write(buffer, np.stack([wave] * channels, 1), rate, format=format_, subtype=subtype)
    return buffer.getvalue()


@pytest.mark.parametrize(("format_", "options"), [("PNG", {}), ("WEBP", {"lossless": True}), ("GIF", {})])
def test_lossless_formats_keep_each_pixel(format_, options):
    image = Image.from_bytes(encoded(format_, **options))
    assert image.pixels.shape == (3, 5, 3)
    assert image.pixels.dtype == np.float32
    assert image.pixels[0, 0].tolist() == [1, 0, 0]
    assert image.pixels[1:].max() == 0


def test_jpeg_is_read():
    assert Image.from_bytes(encoded("JPEG", quality=95)).pixels.shape == (3, 5, 3)


def test_a_gif_gives_its_first_frame():
    frames = [pillow.new("RGB", (4, 4), color) for color in ((255, 0, 0), (0, 255, 0))]
    buffer = io.BytesIO()
    frames[0].save(buffer, format="GIF", save_all=True, append_images=frames[1:])
    assert Image.from_bytes(buffer.getvalue()).pixels[0, 0].tolist() == [1, 0, 0]


def test_exif_orientation_is_applied():
    picture = pillow.new("RGB", (5, 3))
    exif = picture.getexif()
    exif[0x0112] = 6  # rotate by 90 degrees to stand upright
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", exif=exif)
    assert Image.from_bytes(buffer.getvalue()).pixels.shape == (5, 3, 3)


def test_transparent_pixels_show_white_and_not_what_hides_under_them():
    hidden = pillow.new("RGBA", (2, 2), (255, 0, 0, 0))
    buffer = io.BytesIO()
    hidden.save(buffer, format="PNG")
    assert Image.from_bytes(buffer.getvalue()).pixels.min() == 1


def test_sixteen_bit_greys_keep_their_shades():
    ramp = pillow.fromarray(np.linspace(0, 65535, 256, dtype=np.uint16).reshape(16, 16))
    buffer = io.BytesIO()
    ramp.save(buffer, format="PNG")
    pixels = Image.from_bytes(buffer.getvalue()).pixels
    assert len(np.unique(pixels)) == 256
    assert float(pixels.mean()) == pytest.approx(0.5, abs=0.01)


def test_channels_that_cancel_are_refused():
    wave = 0.5 * np.sin(np.arange(800) / 5)
    buffer = io.BytesIO()
    soundfile.write(buffer, np.stack([wave, -wave], 1), 8000, format="WAV")
    with pytest.raises(MediaError, match="cancel"):
        Audio.from_bytes(buffer.getvalue())


@pytest.mark.parametrize("format_", ["BMP", "TIFF", "PPM", "ICO", "TGA"])
def test_other_formats_are_refused(format_):
    with pytest.raises(MediaError, match="not a PNG"):
        Image.from_bytes(encoded(format_, size=(16, 16)))


def test_a_bomb_is_refused_by_its_header_and_never_unpacked():
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    with pytest.raises(MediaError, match="pixels"):
        Image.from_bytes(bomb)


def test_bytes_and_pixels_are_bounded():
    data = encoded("PNG")
    with pytest.raises(MediaError, match="bytes"):
        Image.from_bytes(data, limits=MediaLimits(max_bytes=len(data) - 1))
    with pytest.raises(MediaError, match="pixels"):
        Image.from_bytes(data, limits=MediaLimits(max_pixels=14))
    assert Image.from_bytes(data, limits=MediaLimits(max_bytes=len(data), max_pixels=15)).pixels.size == 45


@pytest.mark.parametrize("format_", ["WAV", "FLAC"])
def test_clips_are_read_and_channels_averaged(format_):
    audio = Audio.from_bytes(clip(format_, channels=2))
    assert audio.wave.shape == (800,)
    assert audio.rate == 8000
    assert audio.seconds == pytest.approx(0.1)
    assert np.allclose(audio.wave, 0.5 * np.sin(np.arange(800) / 5), atol=1e-3)


def test_other_clips_are_refused():
    with pytest.raises(MediaError, match="WAV or FLAC"):
        Audio.from_bytes(clip("OGG", rate=16000, frames=16000))
    with pytest.raises(MediaError, match="WAV or FLAC"):
        Audio.from_bytes(b"RIFF\x00\x00\x00\x00WAVE")


def test_a_clip_is_bounded_by_its_header():
    data = clip(frames=8001)
    with pytest.raises(MediaError, match="seconds"):
        Audio.from_bytes(data, limits=MediaLimits(max_seconds=1))
    with pytest.raises(MediaError, match="samples"):
        Audio.from_bytes(data, limits=MediaLimits(max_samples=8000))


def test_a_wav_survives_the_round_trip():
    audio = Audio.from_bytes(clip())
    again = Audio.from_bytes(audio.to_wav())
    assert np.abs(audio.wave - again.wave).max() < 1e-4


def test_a_png_survives_the_round_trip_exactly():
    image = Image(np.random.default_rng(0).integers(0, 256, (7, 9, 3)).astype(np.float32) / 255)
    again = Image.from_bytes(image.to_png())
    assert np.array_equal(image.pixels, again.pixels)
    assert image.digest == again.digest


def test_digests_name_content_and_shape():
    flat = np.zeros((2, 6, 3), np.float32)
    assert Image(flat).digest == Image(flat.copy()).digest
    assert Image(flat).digest != Image(flat.reshape(3, 4, 3)).digest
    assert Audio(np.zeros(4), 8000).digest != Audio(np.zeros(4), 16000).digest


def test_arrays_cannot_be_changed_afterwards():
    pixels = np.zeros((2, 2, 3), np.float32)
    image = Image(pixels)
    pixels[:] = 1
    assert image.pixels.max() == 0
    with pytest.raises(ValueError, match="read-only"):
        image.pixels[0, 0, 0] = 1


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((2, 2)), np.zeros((2, 2, 4)), np.zeros((0, 2, 3)), np.full((2, 2, 3), 2.0), np.full((2, 2, 3), np.nan)],
)
def test_pixels_that_are_no_picture_are_refused(pixels):
    with pytest.raises(MediaError):
        Image(pixels)


@pytest.mark.parametrize("wave", [np.zeros((2, 2)), np.zeros(0), np.array([np.inf])])
def test_samples_that_are_no_clip_are_refused(wave):
    with pytest.raises(MediaError):
        Audio(wave)


def test_data_uris_are_decoded():
    data = encoded("PNG")
    text = base64.b64encode(data).decode()
    assert data_uri_bytes(f"data:image/png;base64,{text}") == data
    assert data_uri_bytes(f"DATA:image/png;charset=x;BASE64,{text[:10]}\n {text[10:]}") == data
    assert data_uri_bytes("data:,a%20b") == b"a b"
    assert Image.from_data_uri(f"data:image/png;base64,{text}").pixels.shape == (3, 5, 3)
    assert base64_bytes(base64.urlsafe_b64encode(bytes(range(256))).decode().rstrip("=")) == bytes(range(256))


@pytest.mark.parametrize(
    "uri", ["http://h/x.png", "https://h/x.png", "file:///etc/passwd", "ftp://h", "/etc/passwd", "", "data:no-comma"]
)
def test_nothing_but_data_uris_is_read(uri):
    with pytest.raises(MediaError):
        Image.from_data_uri(uri)


@pytest.mark.parametrize(
    "path",
    [
        "http://h/x.png",
        "https://h/x.png",
        "file:///etc/passwd",
        "data:image/png;base64,AAAA",
        "no/such/file.png",
        "a\0b",
        None,
    ],
)
def test_open_refuses_urls_and_missing_files(path):
    with pytest.raises(MediaError):
        Image.open(path)
    with pytest.raises(MediaError):
        Audio.open(path)


def test_open_reads_no_more_than_the_bound(tmp_path):
    file = tmp_path / "large.png"
    file.write_bytes(encoded("PNG") + b"\0" * 5000)
    with pytest.raises(MediaError, match="bytes"):
        Image.open(file, limits=MediaLimits(max_bytes=1000))


def test_decode_goes_by_signature():
    assert isinstance(decode(clip()), Audio)
    assert isinstance(decode(clip("FLAC")), Audio)
    assert isinstance(decode(encoded("WEBP")), Image)


@given(st.binary(max_size=400))
def test_hostile_bytes_never_raise_anything_but_media_error(data):
    for prefix in (
        b"",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff",
        b"GIF89a",
        b"RIFF\x10\0\0\0WEBP",
        b"RIFF\x10\0\0\0WAVEfmt ",
        b"fLaC",
    ):
        try:
            decode(prefix + data)
        except MediaError:
            pass


@given(st.data())
def test_truncated_and_flipped_files_never_raise_anything_but_media_error(data):
    whole = data.draw(
        st.sampled_from([encoded("PNG"), encoded("JPEG"), encoded("GIF"), encoded("WEBP"), clip(), clip("FLAC")])
    )
    cut = bytearray(whole[: data.draw(st.integers(1, len(whole)))])
    cut[data.draw(st.integers(0, len(cut) - 1))] ^= data.draw(st.integers(0, 255))
    try:
        decode(bytes(cut))
    except MediaError:
        pass


def test_real_clips_and_pictures(shared):
    speech = Audio.open(shared / "data/speech/sense_and_sensibility_01_austen_64kb-0880.wav")
    assert speech.rate == 16_000
    assert 1 < speech.seconds < 10
    picture = Image.open(shared / "data/figstep/query_ForbidQI_1_1_6.png")
    assert picture.pixels.shape == (760, 760, 3)


def test_decoded_media_keep_to_the_limits_too():
    noise = np.random.default_rng(0)
    picture, clip_ = Image(noise.random((3, 5, 3))), Audio(noise.uniform(-1, 1, 16_000).astype(np.float32), 8_000)
    within(picture, MediaLimits(max_pixels=15))
    within(clip_, MediaLimits(max_seconds=2, max_samples=16_000))
    over = ((picture, {"max_pixels": 14}), (clip_, {"max_seconds": 1.9}), (clip_, {"max_samples": 15_999}))
    for medium, limits in over:
        with pytest.raises(MediaError, match="raise the policy's limits"):
            within(medium, MediaLimits(**limits))


@pytest.mark.parametrize("again", [lambda one: pickle.loads(pickle.dumps(one)), copy.deepcopy, copy.copy])
def test_a_copy_is_read_only_and_keeps_its_digest(again):
    image, sound = Image.from_bytes(encoded("PNG")), Audio.from_bytes(clip())
    pixels, wave = again(image).pixels, again(sound).wave
    assert not pixels.flags.writeable
    assert not wave.flags.writeable
    assert (again(image).digest, again(sound).digest) == (image.digest, sound.digest)
    assert (again(sound).rate, again(Prompt.ask("?", image, sound)).digest) == (
        sound.rate,
        Prompt.ask("?", image, sound).digest,
    )


def test_a_pickle_cannot_give_pixels_another_digest():
    image, other = Image(np.zeros((2, 2, 3))), Image(np.ones((2, 2, 3)))
    packed = pickle.dumps(image).replace(image.digest.encode(), other.digest.encode())
    assert pickle.loads(packed).digest == image.digest
