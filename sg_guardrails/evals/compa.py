"""CompA-order (Ghosh et al. 2024, arXiv 2310.08753): which of two or three captions tells a clip's order of events."""

from __future__ import annotations

import csv
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from sg_guardrails.core.errors import GuardError
from sg_guardrails.core.media import DEFAULT_LIMITS, MediaLimits
from sg_guardrails.core.types import Prompt
from sg_guardrails.evals.base import Figure, Item, Row, Scores, Trouble, open_clip, present
from sg_guardrails.evals.files import shown

SOURCE = "https://github.com/Sreyan88/CompA (CompA-order)"
BENCHMARK, FILES = "CompA_order_benchmark.csv", "CompA_order_files"
SLOTS = ("pair", "reversed_pair", "triplet")
WAYS = {2: "two-way", 3: "three-way"}


@dataclass(frozen=True, slots=True)
class Question:
    """One clip with the captions of its row."""

    key: str
    """``<row>:<slot>``."""
    clip: str
    captions: tuple[str, ...]
    right: int
    """Index of the clip's own caption."""


@dataclass(frozen=True)
class CompaOrder:
    """The clips asked about."""

    questions: tuple[Question, ...]
    troubles: tuple[Trouble, ...]
    folder: Path
    limits: MediaLimits = DEFAULT_LIMITS
    name: str = "compa"
    headline: str = "accuracy"
    outcome: str = "right"

    @classmethod
    def read(cls, data: Path, *, one_per_row: bool = False, limits: MediaLimits = DEFAULT_LIMITS) -> CompaOrder:
        """Read ``CompA_order_benchmark.csv`` and ``CompA_order_files/`` of `data`.

        Args:
            data: The official folder.
            one_per_row: Ask one clip of each row, the one that the paper's code drew (random.seed(42 + row));
                otherwise every clip of the row.
            limits: Bounds on clips.

        Raises:
            GuardError: If the table is missing, or the folder holds none of its clips; names where their owners
                publish them.
        """
        path, folder = present(data / BENCHMARK, source=SOURCE), present(data / FILES, source=SOURCE)
        questions: list[Question] = []
        troubles: list[Trouble] = []
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            table = csv.DictReader(file)
            if not {f"{slot}_{part}" for slot in SLOTS[:2] for part in ("file", "caption")} <= set(
                table.fieldnames or ()
            ):
                raise GuardError(f"{path} lacks the columns of CompA-order; its owners publish it at {SOURCE}")
            for number, row in enumerate(table):
                found = [(slot, _cell(row, f"{slot}_file"), _cell(row, f"{slot}_caption")) for slot in SLOTS]
                whole = [(slot, clip, caption) for slot, clip, caption in found if clip and caption]
                if len(whole) < 2:
                    troubles.append(Trouble(f"{BENCHMARK}:{number + 2}", "has fewer than two captions", "broken lines"))
                    continue
                # The paper's own draw, so that its questions are asked; nothing here is a secret.
                drawn = random.Random(42 + number).randint(0, len(whole) - 1)  # noqa: S311
                captions = tuple(caption for *_, caption in whole)
                for right in (drawn,) if one_per_row else range(len(whole)):
                    slot, clip, _ = whole[right]
                    questions.append(Question(f"{number}:{slot}", Path(clip).name, captions, right))
        shown(folder, (folder / asked.clip for asked in questions), source=SOURCE)
        return cls(tuple(questions), tuple(troubles), folder, limits)

    @cached_property
    def items(self) -> list[Item]:
        """Every clip as an item; it is opened when it is asked about."""
        return [self._item(asked) for asked in self.questions]

    def _item(self, asked: Question) -> Item:
        path, text, limits = self.folder / asked.clip, question(asked.captions), self.limits
        return Item(
            asked.key,
            WAYS[len(asked.captions)],
            lambda: Prompt.ask(text, open_clip(path, limits)),
            str(asked.right + 1),
            text,
            path,
        )

    @cached_property
    def _expected(self) -> dict[str, tuple[int, int]]:
        return {asked.key: (asked.right, len(asked.captions)) for asked in self.questions}

    def hit(self, row: Row) -> bool | None:
        """Whether the caption named is the clip's own."""
        if not row.counts or row.key not in self._expected:
            return None
        right, ways = self._expected[row.key]
        return row.status == "answered" and chosen(row.text, ways) == right

    def scores(self, rows: Sequence[Row]) -> Scores:
        """Accuracy for two captions, for three, and over all."""
        hits = [(row.group, hit) for row in rows if (hit := self.hit(row)) is not None]
        groups = {"all": [hit for _, hit in hits]}
        for name in WAYS.values():
            if found := [hit for group, hit in hits if group == name]:
                groups[name] = found
        return {name: {"accuracy": Figure.rate(sum(found), len(found))} for name, found in groups.items()}


def question(captions: Sequence[str]) -> str:
    """The multiple choice as the paper's code words it: it names three numbers beside two captions too."""
    lines = "\n".join(f"{number}. {caption}" for number, caption in enumerate(captions, start=1))
    return (
        "Given the audio above, which of the following captions best describes it?\n"
        f"{lines}\nAnswer with the number (1, 2, or 3) of the best matching caption:"
    )


def chosen(answer: str, ways: int) -> int | None:
    """The index that the answer's first number names; None where it names none of the captions."""
    number = re.search(r"\d+", answer)
    return int(number[0]) - 1 if number and 1 <= int(number[0]) <= ways else None


def _cell(row: dict[str, str | None], name: str) -> str:
    value = (row.get(name) or "").strip()
    return "" if value == "-" else value
