"""Linear heads over hashed words, turns of phrase and a sentence embedding: no torch, no pickle (card: README.md)."""

from __future__ import annotations

import hashlib
import re
import unicodedata
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.utils import murmurhash3_32

from sg_guardrails.core import fold
from sg_guardrails.core.errors import ModelError
from sg_guardrails.core.forking import Lock
from sg_guardrails.models.heads import cues as phrases

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from sg_guardrails.core.types import Embedder

BINS = 2**13
"""Buckets of the hashed words: 32 kB of weights, few enough collisions on answers of this length."""
OPENING = 60
"""Words read at once: an answer takes its stance at its opening, and the rest dilutes it (card, "Choices")."""
WINDOW = 20
"""Words in one window of a head that reads the whole text: about the length of a request, so that little dilutes it."""

_TOKEN = re.compile(r"[a-z0-9]+(?:'[a-z]+)?")
# Letters and digits of any script, wherever they stand: a text without spaces has windows too.
_WORD_START = re.compile(r"[^\W_]+")
_PLAIN = str.maketrans({"\u2018": "'", "\u2019": "'", "\u02bc": "'", "`": "'"})
# One spelling per meaning: "can't", "can not" and "cannot" share their weights.
_SPELLINGS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\bcan(?:'?t| not)\b"), "cannot"),
    (re.compile(r"\bwon'?t\b"), "will not"),
    (re.compile(r"n't\b"), " not"),
    (re.compile(r"\b(do|does|did|is|are|was|were|could|would|should|has|have|had)nt\b"), r"\1 not"),
    (re.compile(r"\bi'?m\b"), "i am"),
    (re.compile(r"'ll\b"), " will"),
)


# Figures that stand for letters inside a word ("1gn0re"); at its end they may be a number ("covid19").
_FIGURED = re.compile(r"(?<!\w)(?=[a-z013457]*[a-z][013457]+[a-z]|[013457][a-z]{4})[a-z013457]+(?!\w)", re.IGNORECASE)
_FIGURES = str.maketrans("013457", "oieast")


def legible(text: str) -> str:
    """The text as a reader takes it: nothing invisible, look-alike letters and figures inside words as Latin letters.

    A text of mostly another script keeps its letters.
    """
    seen = fold.readable(text)
    if not seen.isascii():
        letters = [char for char in seen if char.isalpha()]
        if 2 * sum(char.isascii() for char in letters) >= len(letters):
            seen = fold.plain(seen)
    return _FIGURED.sub(lambda match: match.group().translate(_FIGURES), seen)


def encodable(text: str) -> str:
    """The text with lone surrogates replaced by ``?``: no tokenizer or hash takes them."""
    return text.encode("utf-8", "replace").decode("utf-8")


def plain(text: str) -> str:
    """The text in NFKC and lower case, contractions written out."""
    written = unicodedata.normalize("NFKC", encodable(text)).translate(_PLAIN).lower()
    for pattern, spelling in _SPELLINGS:
        written = pattern.sub(spelling, written)
    return written


def tokens(text: str) -> list[str]:
    """The words of the opening of the plain text."""
    return [match.group() for match in islice(_TOKEN.finditer(plain(text)), OPENING)]


def _ngrams(text: str) -> Iterator[str]:
    words = ["<s>", *tokens(text), "</s>"]
    yield from words[1:-1]
    for first, second in pairwise(words):
        yield f"{first} {second}"


def hashed(texts: Sequence[str]) -> csr_matrix:
    """``(N, BINS)`` unit rows of words and word pairs, hashed (MurmurHash3, signed): no vocabulary to pickle."""
    return HashingVectorizer(n_features=BINS, analyzer=_ngrams, binary=True, norm="l2").transform(list(texts))


def worded(text: str, weights: NDArray[np.float64]) -> float:
    """``hashed([text]) @ weights`` without the matrix, whose checks cost more than its sums."""
    buckets = {abs(int(murmurhash3_32(ngram))) % BINS for ngram in _ngrams(text)}
    return float(weights[sorted(buckets)].sum() / np.sqrt(len(buckets)))


def cues(texts: Sequence[str]) -> NDArray[np.float64]:
    """``(N, K)``: the turns of phrase of `heads.cues`, at half weight: K of them stand beside unit vectors."""
    return phrases.cues([plain(text) for text in texts]) / 2


def opening(text: str) -> str:
    """The text up to its first OPENING words."""
    later = next(islice(_WORD_START.finditer(text), OPENING, None), None)
    return text if later is None else text[: later.start()]


def windows(text: str) -> list[str]:
    """The text in runs of WINDOW words, each sharing half with the next."""
    starts = [match.start() for match in _WORD_START.finditer(text)]
    edges = [0, *starts[1:], len(text)]
    last, step = len(edges) - 1, WINDOW // 2
    return [text[edges[at] : edges[min(at + WINDOW, last)]] for at in range(0, max(last - step, 1), step)]


class Remembered:
    """An Embedder that keeps its last vectors, so that heads which read the same texts share one pass.

    Args:
        embedder: Who embeds what is new.
        size: Texts whose vectors are kept (1.5 kB each for MiniLM); texts themselves are not, only their digests.
    """

    def __init__(self, embedder: Embedder, *, size: int = 1024) -> None:
        self._embedder = embedder
        self._size = size
        self._kept: OrderedDict[bytes, NDArray[np.float32]] = OrderedDict()
        self._lock = Lock()

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """``(N, D)`` float32, as the embedder gives them."""
        keys = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts]
        with self._lock:
            found = {key: self._kept[key] for key in keys if key in self._kept}
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in found}
        if new or not keys:
            made = self._embedder(list(new.values()))
            if not keys:
                return made
            found.update(zip(new, made, strict=True))
        with self._lock:
            for key in keys:
                self._kept[key] = found[key]
                self._kept.move_to_end(key)
            while len(self._kept) > self._size:
                self._kept.popitem(last=False)
        return np.stack([found[key] for key in keys])


@dataclass(frozen=True, slots=True, eq=False)
class LinearHead:
    """A logistic regression as three arrays. A Scorer: probability in [0, 1] per text."""

    words: NDArray[np.float32]
    """``(BINS,)`` weights of the hashed words."""
    meaning: NDArray[np.float32]
    """``(D,)`` weights of the embedding, or ``(0,)`` where the head reads words alone."""
    bias: float
    cues: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    """``(K,)`` weights of the turns of phrase (read in the whole text), or ``(0,)``."""
    windowed: bool = False
    """False: the opening is read (an answer's stance). True: a long text is read in windows and its highest score
    counts (a request may come after any preamble)."""
    embedder: Embedder | None = None
    """The embedder that the head was trained on; not needed where `meaning` is empty."""

    @classmethod
    def load(cls, name: str | Path, *, embedder: Embedder | None = None) -> LinearHead:
        """Read a shipped head by its name (``refusal``), or any by path.

        Raises:
            ModelError: If the file is missing or not a head, or if the head needs an embedder and has none.
        """
        path = name if isinstance(name, Path) else Path(__file__).parent / f"{name}.npz"
        try:
            with np.load(path, allow_pickle=False) as arrays:
                words, meaning = arrays["words"].astype(np.float32), arrays["meaning"].astype(np.float32)
                known, bias, windowed = (
                    arrays["cues"].astype(np.float32),
                    float(arrays["bias"]),
                    bool(arrays["windowed"]),
                )
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise ModelError(f"{path} is not a head: retrain it with `python -m training.heads`") from error
        finite = np.isfinite([words.sum(), meaning.sum(), known.sum(), bias]).all()
        if words.shape != (BINS,) or meaning.ndim != 1 or known.shape not in ((0,), (phrases.COUNT,)) or not finite:
            raise ModelError(f"{path} is not a head of this version: retrain it with `python -m training.heads`")
        if meaning.size and embedder is None:
            raise ModelError(f"the head {path.stem!r} reads MiniLM embeddings: pass load_embedder(EmbedderSection())")
        return cls(words, meaning, bias, known, windowed, embedder)

    def save(self, path: Path) -> None:
        """Write the arrays as .npz; the same arrays give the same bytes."""
        np.savez_compressed(
            path,
            words=self.words,
            meaning=self.meaning,
            cues=self.cues,
            bias=np.float64(self.bias),
            windowed=np.bool_(self.windowed),
        )

    def reads(self, texts: Sequence[str]) -> list[list[str]]:
        """The pieces of each text that are embedded, for those who embed many things in one call."""
        seen = [legible(text) for text in texts]
        return [windows(text) if self.windowed else [opening(text)] for text in seen]

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """``(N,)`` float32 in [0, 1]."""
        parts = self.reads(texts)
        if not parts:
            return np.zeros(0, np.float32)
        flat = [part for row in parts for part in row]
        weights = self.words.astype(np.float64)
        logits = np.array([worded(part, weights) for part in flat]) + self.bias
        if self.meaning.size and self.embedder is not None:
            logits = logits + self.embedder(flat).astype(np.float64) @ self.meaning
        starts = np.cumsum([0, *(len(row) for row in parts[:-1])])
        if self.cues.size and not self.windowed:
            logits = logits + cues([legible(text) for text in texts]) @ self.cues
        return np.asarray(expit(np.maximum.reduceat(logits, starts)), dtype=np.float32)
