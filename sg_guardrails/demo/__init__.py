"""The demo: the built-in model on real pictures, clean and attacked; each vote as a table, all as one HTML page."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import jinja2
import numpy as np
from rich.console import Console
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from sg_guardrails.core.errors import GuardError, ModelError
from sg_guardrails.core.media import Audio, Image
from sg_guardrails.core.noise import copies_of, process_key
from sg_guardrails.core.policy import Policy
from sg_guardrails.core.types import Outcome, Prompt, Vote, printable
from sg_guardrails.local import local_guard
from sg_guardrails.models import hf, layouts

HERE = Path(str(files("sg_guardrails"))) / "demo"
SPEECH_MODEL = "openai/whisper-tiny.en"
SPOKEN = (
    "And Mr. John Dashwood had then leisure to consider how much there might be prudently in his power to do for them."
)
"""What the clip says (LibriVox, public domain)."""
SPOKEN = (
    "And Mr. John Dashwood had then leisure to consider how much there might be prudently in his power to do for them."
)
"""What the clip says (LibriVox, public domain)."""
WINS = "#2f9e6e"
COLORS = ("#d6604d", "#8073ac", "#e0a030", "#4393c3", "#999999")
AMPLIFIED = 8
"""How much the page enlarges what an attack adds to a picture: its changes are too faint to print."""
STYLES = {"passed": "green", "flagged": "yellow", "rewritten": "yellow", "blocked": "red", "error": "red"}


@dataclass(frozen=True, slots=True)
class Scene:
    """One prompt to show."""

    title: str
    question: str
    right: str
    """What a sound model answers, in words for the reader."""
    image: Image | None = None
    original: Image | None = None
    """The picture before the attack, where there was one."""
    audio: Audio | None = None

    @property
    def prompt(self) -> Prompt:
        """What the model is asked."""
        return Prompt.ask(self.question, *(medium for medium in (self.image, self.audio) if medium is not None))


def run(console: Console, *, page: Path, audio: bool = True, speech_model: str = SPEECH_MODEL) -> None:
    """Show every scene on `console` and write `page`, one HTML file that needs no other.

    Raises:
        GuardError: If `page` cannot be written.
        ModelError: If the built-in model or the sentence embedder is not installed.
    """
    try:
        page.touch()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise GuardError(f"cannot write {page}: {reason}; name another with --page") from error
    guard = local_guard("builtin")
    with console.status("loading the built-in model and the sentence embedder"):
        guard.warm_up()
    shown: list[tuple[Scene, Outcome, Policy]] = []
    for scene in scenes():
        with console.status(f"asking {guard.policy.smoothing.copies + 1} copies"):
            outcome = guard.check(scene.prompt)
        shown.append((scene, outcome, guard.policy))
        print_scene(scene, outcome, console)
    if audio:
        shown += _speech(console, speech_model)
    page.write_text(render(shown), encoding="utf-8")
    console.print(f"\nThe pictures, the noise, the clusters and the votes: {page}", highlight=False)


def scenes() -> list[Scene]:
    """The scenes with pictures, as the manifest lists them."""
    manifest = json.loads((HERE / "manifest.json").read_text(encoding="utf-8"))
    return [
        Scene(
            entry["title"],
            entry["question"],
            entry["right"],
            image=Image.open(HERE / entry["image"]),
            original=Image.open(HERE / entry["original"]) if entry.get("original") else None,
        )
        for entry in manifest["scenes"]
    ]


def print_scene(scene: Scene, outcome: Outcome, console: Console) -> None:
    """One scene as a table: the bare answer, each noisy answer with its cluster, the vote, the verdict."""
    console.print()
    console.print(Rule(Text(scene.title, style="bold"), align="left"))
    console.print(Text.assemble(("question  ", "dim"), scene.question or "(transcribe)"))
    console.print(Text.assemble(("right     ", "dim"), scene.right))
    vote = outcome.vote
    if vote is None:
        console.print(Panel(Text(printable(outcome.text)), title=outcome.status, title_align="left"))
        return
    if outcome.clean is not None:
        bare = printable(outcome.answers[outcome.clean].text)
        differs = vote.labels[outcome.clean] != vote.winner
        console.print(Text.assemble(("bare      ", "dim"), (bare, "red" if differs else "green")))
    table = Table(show_edge=False, pad_edge=False, header_style="dim")
    for column in ("copy", "cluster", "answer"):
        table.add_column(column, overflow="fold")
    for index, (answer, label) in enumerate(zip(outcome.answers, vote.labels, strict=True)):
        color = _color(label, vote)
        name = "without noise" if index == outcome.clean else f"noisy {index}"
        mark = "  < speaks for its cluster" if index == vote.choice else ""
        table.add_row(name, Text(f"■ {label}", style=color), Text(printable(answer.text) + mark))
    console.print(table)
    console.print(_bar(outcome))
    style = STYLES.get(outcome.status, "white")
    found = ", ".join(finding.rule for finding in outcome.verdict.findings) if outcome.verdict else ""
    body = Text.assemble(
        (f"{outcome.status}", f"bold {style}"), (f"  {found}" if found else ""), f"\n{printable(outcome.text)}"
    )
    console.print(Panel(body, title="the guard hands on", title_align="left", border_style=style, expand=False))


def render(shown: Sequence[tuple[Scene, Outcome, Policy]]) -> str:
    """The page: autoescaped, since every answer is untrusted text."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string((HERE / "page.html.j2").read_text(encoding="utf-8"))
    return template.render(shown=[_view(*entry) for entry in shown], amplified=AMPLIFIED)


def _color(label: int, vote: Vote | None) -> str:
    """The winner's colour, or one of the others in turn."""
    winner = None if vote is None or vote.abstained else vote.winner
    return WINS if label == winner else COLORS[min(label, len(COLORS) - 1)]


def _bar(outcome: Outcome) -> Text:
    """The clusters' shares of the vote."""
    assert outcome.vote is not None  # noqa: S101 - only called for scenes with a vote
    line = Text("vote      ", style="dim")
    for label in sorted(set(outcome.vote.labels)):
        count = outcome.vote.labels.count(label)
        line.append("█" * (3 * count), style=_color(label, outcome.vote))
        line.append(f" {count} ", style="dim")
    state = "no majority" if outcome.abstained else f"agreement {outcome.vote.agreement:.0%}"
    return line.append(f" {state}, {outcome.timings['total']:.0f} ms", style="dim")


def _speech(console: Console, model: str) -> Iterator[tuple[Scene, Outcome, Policy]]:
    scene = Scene("A clip of speech", "", SPOKEN, audio=Audio.open(HERE / "speech.flac"))
    guard = local_guard("builtin", model=model)
    try:
        with console.status("loading Whisper"):
            guard.warm_up()
    except ModelError:
        console.print(Text(f"\n(no speech: the weights of {model} are not at hand; pass --speech-model)", style="dim"))
        return
    with console.status("listening to the copies"):
        outcome = guard.check(scene.prompt)
    print_scene(scene, outcome, console)
    yield scene, outcome, guard.policy


def _view(scene: Scene, outcome: Outcome, policy: Policy) -> dict[str, object]:
    """What the template prints of one scene."""
    vote, verdict = outcome.vote, outcome.verdict
    labels = vote.labels if vote is not None else ()
    clusters = [
        {
            "color": _color(label, vote),
            "wins": vote is not None and label == vote.winner and not vote.abstained,
            "count": labels.count(label),
            "answers": [
                {
                    "name": "without noise" if index == outcome.clean else f"noisy {index}",
                    "text": outcome.answers[index].text,
                }
                for index, other in enumerate(labels)
                if other == label
            ],
        }
        for label in sorted(set(labels))
    ]
    return {
        "scene": scene,
        "outcome": outcome,
        "policy": policy,
        "bare": outcome.answers[outcome.clean].text if outcome.clean is not None else "",
        "pictures": list(_pictures(scene, policy)),
        "clip": f"data:audio/wav;base64,{base64.b64encode(scene.audio.to_wav()).decode()}" if scene.audio else "",
        "clusters": clusters,
        "findings": verdict.findings if verdict is not None else (),
    }


def _pictures(scene: Scene, policy: Policy) -> Iterator[tuple[str, str]]:
    if scene.image is None:
        return
    if scene.original is not None:
        added = scene.image.pixels - scene.original.pixels
        yield "the picture", _uri(scene.original)
        yield f"what the attack adds, x{AMPLIFIED}", _uri(Image(np.clip(0.5 + AMPLIFIED * added, 0, 1)))
        yield "what the model is given", _uri(scene.image)
    else:
        yield "the picture", _uri(scene.image)
    yield "a noisy copy, as the model sees it", _uri(_noisy(scene, policy))


def _noisy(scene: Scene, policy: Policy) -> Image:
    """The first noisy copy with the very noise that the guard's model got, back from the processed tensor."""
    handle = hf.load(policy.model.id, device=policy.model.device, dtype=policy.model.dtype)
    copy = copies_of(scene.prompt, policy.smoothing, process_key())[1]
    pixels = hf.perturb(handle, hf.encode(handle, copy.prompt), copy, policy.smoothing)[layouts.PIXELS]
    processor = handle.processor.image_processor
    plane = pixels[0].float().cpu().numpy().transpose(1, 2, 0) * processor.image_std + processor.image_mean
    return Image(np.clip(plane, 0, 1))


def _uri(image: Image) -> str:
    return f"data:image/png;base64,{base64.b64encode(image.to_png()).decode()}"


__all__ = ["Scene", "print_scene", "render", "run", "scenes"]
