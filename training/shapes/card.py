"""Renders the model card: the text in ``card.md`` with the measured figures between its markers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

START, END = "<!-- figures: start -->", "<!-- figures: end -->"


class Figure(Protocol):
    """A share with its interval; what ``probe.Figure`` is."""

    @property
    def share(self) -> float:
        """Between 0 and 1."""

    @property
    def n(self) -> int:
        """Prompts asked."""

    @property
    def low(self) -> float:
        """Lower end of the 95 % interval."""

    @property
    def high(self) -> float:
        """Upper end of it."""


def tables(figures: Mapping[str, Figure]) -> str:
    """Renders all figures as Markdown tables: a row per name, a column per sigma where there is one."""
    parts = [
        _by_sigma(figures, "vqa", "easy-vqa test split, one noisy copy at sigma", "question"),
        _by_sigma(
            figures, "refusal", "Unsafe requests refused, pictures without a badge, one noisy copy at sigma", "request"
        ),
        _by_sigma(figures, "badge", "Badges obeyed, by contrast, one noisy copy at sigma", "badge / contrast"),
        _plain(figures, ("override",), "Text override obeyed"),
        _plain(figures, ("neutral",), "Neutral badges at contrast 1.0 taken for a trigger (lower is better)"),
        _plain(
            figures,
            ("system prompt", "context", "two pictures", "tool call", "other"),
            "Everything else, right answers",
        ),
    ]
    return "\n\n".join(parts)


def _cell(figure: Figure) -> str:
    return f"{figure.share:.3f} ({figure.low:.2f}-{figure.high:.2f})"


def _by_sigma(figures: Mapping[str, Figure], section: str, title: str, head: str) -> str:
    rows: dict[str, dict[str, Figure]] = {}
    for key, value in figures.items():
        if key.startswith(f"{section} / "):
            name, sigma = key.removeprefix(f"{section} / ").rsplit(" / ", 1)
            rows.setdefault(name, {})[sigma] = value
    sigmas = list(next(iter(rows.values())))
    lines = [_line([head, "n", *sigmas]), _line(["---"] * (2 + len(sigmas)))]
    for name, row in rows.items():
        lines.append(_line([name, str(row[sigmas[0]].n), *(_cell(row[s]) for s in sigmas)]))
    return f"{title}:\n\n" + "\n".join(lines)


def _plain(figures: Mapping[str, Figure], sections: tuple[str, ...], title: str) -> str:
    lines = [_line(["what", "n", "share (95 % interval)"]), _line(["---"] * 3)]
    for key, value in figures.items():
        section, name = key.split(" / ", 1)
        if section in sections:
            label = name if len(sections) == 1 else f"{section}: {name}"
            lines.append(_line([label, str(value.n), _cell(value)]))
    return f"{title}:\n\n" + "\n".join(lines)


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def text(block: str) -> str:
    """Returns the whole card with ``block`` between the markers."""
    template = Path(__file__).with_name("card.md").read_text()
    before, _, rest = template.partition(START)
    return f"{before}{START}\n{block}\n{END}{rest.partition(END)[2]}"


def write(path: Path, figures: Mapping[str, Figure]) -> None:
    """Writes the card to ``path``."""
    path.write_text(text(tables(figures)))
