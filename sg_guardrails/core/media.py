"""Pictures and clips: bytes become bounded float32 arrays, once, here. Nothing is fetched that a message names."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

import numpy as np
import soundfile
from PIL import Image as pillow
from PIL import ImageOps, UnidentifiedImageError

from sg_guardrails.core.errors import MediaError

if TYPE_CHECKING:
    from numpy.typing import NDArray

IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
AUDIO_FORMATS = ("WAV", "FLAC", "WAVEX")


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaLimits:
    """What a medium may cost before it is decoded. Checked against headers first, so that a bomb is never unpacked."""

    max_bytes: int = 20_000_000
    """Encoded size, bytes."""
    max_pixels: int = 25_000_000
    """Width times height, pixels."""
    max_seconds: float = 120.0
    """Length of a clip, seconds."""
    max_samples: int = 32_000_000
    """Frames times channels of a clip after decoding: bounds memory whatever the rate in the header claims."""


DEFAULT_LIMITS = MediaLimits()


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """One decoded picture. Equal digests mean equal pixels."""

    pixels: NDArray[np.float32] = field(repr=False)
    """``(H, W, 3)`` float32, RGB in [0, 1], read-only."""
    digest: str = ""
    """sha256 of shape and pixels, hex: what records hold in the picture's place."""

    def __post_init__(self) -> None:
        pixels = np.array(self.pixels, dtype=np.float32)
        if pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
            raise MediaError(f"an image is an (H, W, 3) array of RGB values, got shape {pixels.shape}")
        if not np.isfinite(pixels).all() or pixels.min() < 0 or pixels.max() > 1:
            raise MediaError("an image's values lie in [0, 1]; divide 8-bit values by 255")
        pixels.flags.writeable = False
        object.__setattr__(self, "pixels", pixels)
        object.__setattr__(self, "digest", _digest(b"image", pixels))

    def __reduce__(self) -> tuple[type[Image], tuple[NDArray[np.float32]]]:
        """Copied and unpickled as made anew: numpy forgets that the pixels are read-only."""
        return Image, (self.pixels,)

    @classmethod
    def open(cls, path: str | Path, *, limits: MediaLimits = DEFAULT_LIMITS) -> Image:
        """Read a PNG, JPEG, WebP or GIF (first frame) that the *caller* named.

        Raises:
            MediaError: If the file is missing, broken, too large or of another kind, or if `path` is a URL.
        """
        return cls.from_bytes(_read(path, limits), limits=limits)

    @classmethod
    def from_bytes(cls, data: bytes, *, limits: MediaLimits = DEFAULT_LIMITS) -> Image:
        """Decode an encoded picture; EXIF orientation is applied, transparency is laid on white.

        Raises:
            MediaError: If the data is broken, too large or not a PNG, JPEG, WebP or GIF.
        """
        _bound("image", len(data), limits.max_bytes, "bytes")
        try:
            with pillow.open(io.BytesIO(data), formats=IMAGE_FORMATS) as picture:
                _bound("image", picture.width * picture.height, limits.max_pixels, "pixels")
                flat = _flat(ImageOps.exif_transpose(picture))
        except MediaError:
            raise
        except pillow.DecompressionBombError as error:
            raise MediaError("the image has more pixels than Pillow decodes") from error
        except UnidentifiedImageError:
            raise MediaError("not a PNG, JPEG, WebP or GIF picture") from None
        except Exception as error:  # Pillow's decoders raise many kinds on hostile bytes; each is a bad picture
            raise MediaError(f"the picture is broken: {type(error).__name__}") from error
        return cls(np.asarray(flat, dtype=np.float32) / np.float32(255))

    @classmethod
    def from_data_uri(cls, uri: str, *, limits: MediaLimits = DEFAULT_LIMITS) -> Image:
        """Decode a ``data:`` URI. Raises MediaError for any other scheme: nothing is fetched."""
        return cls.from_bytes(data_uri_bytes(uri, limits=limits), limits=limits)

    def to_pil(self) -> pillow.Image:
        """The picture as 8-bit RGB for a processor (exact for pictures that came from 8-bit files)."""
        return pillow.fromarray(np.rint(self.pixels * 255).astype(np.uint8), "RGB")

    def to_png(self) -> bytes:
        """The picture as PNG bytes, 8 bits a channel."""
        buffer = io.BytesIO()
        self.to_pil().save(buffer, format="PNG")
        return buffer.getvalue()


@dataclass(frozen=True, slots=True, eq=False)
class Audio:
    """One decoded clip, mono. Equal digests mean equal samples."""

    wave: NDArray[np.float32] = field(repr=False)
    """``(T,)`` float32 in [-1, 1], read-only."""
    rate: int = 16_000
    """Samples a second, Hz."""
    digest: str = ""
    """sha256 of rate and samples, hex."""

    def __post_init__(self) -> None:
        wave = np.array(self.wave, dtype=np.float32)
        if wave.ndim != 1 or wave.size == 0:
            raise MediaError(f"a clip is a (T,) array of mono samples, got shape {wave.shape}")
        if not np.isfinite(wave).all():
            raise MediaError("a clip's samples are finite numbers")
        if not isinstance(self.rate, int) or not 1_000 <= self.rate <= 384_000:
            raise MediaError(f"a clip's rate lies between 1,000 and 384,000 Hz, got {self.rate}")
        wave = np.clip(wave, -1, 1)
        wave.flags.writeable = False
        object.__setattr__(self, "wave", wave)
        object.__setattr__(self, "digest", _digest(f"audio{self.rate}".encode(), wave))

    def __reduce__(self) -> tuple[type[Audio], tuple[NDArray[np.float32], int]]:
        """As an `Image`'s."""
        return Audio, (self.wave, self.rate)

    @property
    def seconds(self) -> float:
        """Length of the clip, seconds."""
        return float(self.wave.size / self.rate)

    @classmethod
    def open(cls, path: str | Path, *, limits: MediaLimits = DEFAULT_LIMITS) -> Audio:
        """Read a WAV or FLAC that the *caller* named; several channels are averaged.

        Raises:
            MediaError: If the file is missing, broken, too long or of another kind, or if `path` is a URL.
        """
        return cls.from_bytes(_read(path, limits), limits=limits)

    @classmethod
    def from_bytes(cls, data: bytes, *, limits: MediaLimits = DEFAULT_LIMITS) -> Audio:
        """Decode WAV or FLAC bytes.

        Raises:
            MediaError: If the data is broken, too long or of another kind.
        """
        _bound("clip", len(data), limits.max_bytes, "bytes")
        try:
            with soundfile.SoundFile(io.BytesIO(data)) as clip:
                if clip.format not in AUDIO_FORMATS:
                    raise MediaError(f"not a WAV or FLAC clip (it is {clip.format})")
                _bound("clip", clip.frames / max(clip.samplerate, 1), limits.max_seconds, "seconds")
                _bound("clip", clip.frames * clip.channels, limits.max_samples, "samples")
                wave = clip.read(dtype="float32", always_2d=True)
                rate = clip.samplerate
        except soundfile.LibsndfileError as error:
            raise MediaError("not a readable WAV or FLAC clip") from error
        if wave.shape[0] == 0:
            raise MediaError("the clip holds no samples")
        return cls(_mono(wave), rate)

    @classmethod
    def from_data_uri(cls, uri: str, *, limits: MediaLimits = DEFAULT_LIMITS) -> Audio:
        """Decode a ``data:`` URI. Raises MediaError for any other scheme: nothing is fetched."""
        return cls.from_bytes(data_uri_bytes(uri, limits=limits), limits=limits)

    def to_wav(self) -> bytes:
        """The clip as 16-bit WAV bytes."""
        buffer = io.BytesIO()
        soundfile.write(buffer, self.wave, self.rate, format="WAV", subtype="PCM_16")
        return buffer.getvalue()


Media = Image | Audio


def within(medium: Media, limits: MediaLimits) -> None:
    """Raise MediaError where a decoded medium has more pixels, seconds or samples than the limits allow."""
    if isinstance(medium, Image):
        _bound("image", medium.pixels.shape[0] * medium.pixels.shape[1], limits.max_pixels, "pixels")
    else:
        _bound("clip", medium.seconds, limits.max_seconds, "seconds")
        _bound("clip", medium.wave.size, limits.max_samples, "samples")


def _flat(picture: pillow.Image) -> pillow.Image:
    """8-bit RGB: transparency laid on white, 16-bit greys scaled (Pillow's own conversion would clip them to white)."""
    if picture.mode.startswith("I"):
        grey = np.asarray(picture, dtype=np.float64) / 257
        picture = pillow.fromarray(np.rint(np.clip(grey, 0, 255)).astype(np.uint8), "L")
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    rgba = picture.convert("RGBA")
    return pillow.alpha_composite(pillow.new("RGBA", rgba.size, (255, 255, 255, 255)), rgba).convert("RGB")


def _mono(wave: NDArray[np.float32]) -> NDArray[np.float32]:
    """``(T, C)`` to ``(T,)``, averaged. Raises MediaError where the channels cancel each other."""
    mixed: NDArray[np.float32] = wave.mean(axis=1)
    loudest = float(np.sqrt(np.square(wave, dtype=np.float64).mean(axis=0)).max())
    if float(np.sqrt(np.square(mixed, dtype=np.float64).mean())) < 0.05 * loudest:
        raise MediaError("the clip's channels cancel each other: pass one channel")
    return mixed


def decode(data: bytes, *, limits: MediaLimits = DEFAULT_LIMITS) -> Media:
    """Decode bytes by their own signature, never by a name or a claimed type.

    Raises:
        MediaError: If they are neither a picture nor a clip that is supported, or broken, or too large.
    """
    is_clip = data[:4] == b"fLaC" or (data[:4] in (b"RIFF", b"RIFX") and data[8:12] == b"WAVE")
    return Audio.from_bytes(data, limits=limits) if is_clip else Image.from_bytes(data, limits=limits)


def data_uri_bytes(uri: str, *, limits: MediaLimits = DEFAULT_LIMITS) -> bytes:
    """The payload of a ``data:`` URI (RFC 2397).

    Raises:
        MediaError: If `uri` has another scheme, is malformed or too large.
    """
    if uri[:5].lower() != "data:":
        raise MediaError("only data: URIs are read; nothing is fetched because a message names it")
    # Base64 takes 4 characters for 3 bytes, percent-encoding 3 characters for one.
    _bound("data: URI", len(uri), limits.max_bytes * 3 + 1_000, "characters")
    header, comma, payload = uri.partition(",")
    if not comma:
        raise MediaError("a data: URI has a comma before its payload")
    if not header.lower().endswith(";base64"):
        return unquote_to_bytes(payload.encode("utf-8", "replace"))
    return base64_bytes(payload, limits=limits)


def base64_bytes(text: str, *, limits: MediaLimits = DEFAULT_LIMITS) -> bytes:
    """Decode base64 as messages carry it (standard or URL-safe alphabet, line breaks allowed).

    Raises:
        MediaError: If the text is not base64 or too large.
    """
    _bound("base64 text", len(text), limits.max_bytes * 3 + 1_000, "characters")
    compact = "".join(unquote_to_bytes(text.encode("utf-8", "replace")).decode("ascii", "replace").split()).translate(
        str.maketrans("-_", "+/")
    )
    try:
        return base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise MediaError("the media's base64 text is broken") from error


def _read(path: str | Path, limits: MediaLimits) -> bytes:
    if "://" in str(path) or str(path)[:5].lower() == "data:":
        raise MediaError("a URL is not opened here: download the file yourself and pass its path or bytes")
    try:
        with Path(path).open("rb") as file:
            data = file.read(limits.max_bytes + 1)
    except OSError as error:
        raise MediaError(f"cannot read {path}: {error.strerror or type(error).__name__}") from error
    except (ValueError, TypeError) as error:  # an embedded NUL, or no path at all
        raise MediaError(f"not a path: {error}") from error
    _bound("file", len(data), limits.max_bytes, "bytes")
    return data


def _bound(what: str, size: float, most: float, unit: str) -> None:
    if size > most:
        raise MediaError(f"the {what} has more than {most:,.0f} {unit}; raise the policy's limits if that is meant")


def _digest(kind: bytes, array: NDArray[np.float32]) -> str:
    state = hashlib.sha256(kind + repr(array.shape).encode())
    state.update(np.ascontiguousarray(array).tobytes())
    return state.hexdigest()
