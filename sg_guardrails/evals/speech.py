"""Word error rate on read speech, for models that transcribe."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from sg_guardrails.core.errors import GuardError
from sg_guardrails.core.media import DEFAULT_LIMITS, MediaLimits
from sg_guardrails.core.types import Prompt
from sg_guardrails.evals.base import Figure, Item, Row, Scores, Trouble, open_clip, present

SOURCE = "https://www.openslr.org/12 (LibriSpeech)"
SUFFIXES = (".flac", ".wav")


def plain_words(text: str) -> list[str]:
    """Lower case, no punctuation, apostrophes kept."""
    return re.findall(r"[\w']+", text.casefold())


@dataclass(frozen=True)
class Speech:
    """Clips with their transcripts."""

    clips: tuple[tuple[str, Path, str], ...]
    """Id, file and transcript of each."""
    troubles: tuple[Trouble, ...]
    words: Callable[[str], list[str]] = plain_words
    """How a transcript becomes words to compare: models spell numbers and titles in their own ways."""
    prompt: str = "Transcribe the speech."
    """For models that take one; Whisper takes none."""
    limits: MediaLimits = DEFAULT_LIMITS
    name: str = "speech"
    headline: str = "wer"
    outcome: str = "transcribed without an error"

    @classmethod
    def read(
        cls, data: Path, *, words: Callable[[str], list[str]] = plain_words, limits: MediaLimits = DEFAULT_LIMITS
    ) -> Speech:
        """Read LibriSpeech's layout: ``*.trans.txt`` of lines ``ID TRANSCRIPT``, ``ID.flac`` or ``ID.wav`` beside it.

        Raises:
            GuardError: If there is no transcript; names where LibriSpeech is published.
        """
        clips: list[tuple[str, Path, str]] = []
        troubles: list[Trouble] = []
        files = sorted(present(data, source=SOURCE).rglob("*.trans.txt"))
        if not files:
            raise GuardError(f"{data} holds no *.trans.txt; LibriSpeech's owners publish it at {SOURCE}")
        for file in files:
            for number, line in enumerate(file.read_text("utf-8", errors="replace").splitlines(), start=1):
                name, _, said = line.strip().partition(" ")
                where = f"{file.name}:{number}"
                if not name:
                    continue
                clip = next(
                    (path for end in SUFFIXES if (path := file.parent / f"{Path(name).name}{end}").exists()), None
                )
                if not words(said):
                    troubles.append(Trouble(where, "has no transcript", "broken lines"))
                elif clip is None:
                    troubles.append(Trouble(where, f"{name}.flac or {name}.wav is missing", "missing clips"))
                else:
                    clips.append((name, clip, said))
        return cls(tuple(clips), tuple(troubles), words, limits=limits)

    @cached_property
    def items(self) -> list[Item]:
        """Every clip as an item; it is opened when it is asked about."""
        return [Item(name, "all", self._prompt(path), said, self.prompt, path) for name, path, said in self.clips]

    def _prompt(self, path: Path) -> Callable[[], Prompt]:
        return lambda: Prompt.ask(self.prompt, open_clip(path, self.limits))

    @cached_property
    def _said(self) -> dict[str, list[str]]:
        return {name: self.words(said) for name, _, said in self.clips}

    def hit(self, row: Row) -> bool | None:
        """Whether every word is right."""
        if not row.counts or row.key not in self._said:
            return None
        return self._errors(row) == 0

    def scores(self, rows: Sequence[Row]) -> Scores:
        """Word error rate (words substituted, deleted, inserted over words spoken) and the share without an error."""
        counted = [row for row in rows if row.counts and row.key in self._said]
        table = [(float(self._errors(row)), float(len(self._said[row.key]))) for row in counted]
        return {
            "all": {
                "wer": Figure.resampled(table, lambda means: means[..., 0] / means[..., 1]),
                "exact": Figure.rate(sum(errors == 0 for errors, _ in table), len(table)),
            }
        }

    def _errors(self, row: Row) -> int:
        """A stopped answer transcribes nothing: every word is deleted."""
        return word_errors(self._said[row.key], self.words(row.text) if row.status == "answered" else [])


def word_errors(spoken: Sequence[str], heard: Sequence[str]) -> int:
    """Levenshtein's distance between two lists of words."""
    from rapidfuzz.distance import Levenshtein  # noqa: PLC0415 - an extra: only this benchmark needs it

    return int(Levenshtein.distance(spoken, heard))
