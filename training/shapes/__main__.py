"""Runs every stage and measures the result: ``python -m training.shapes --out DIR [--work DIR]``."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import LlavaProcessor

from training.shapes import card, gates, probe, ship, vision
from training.shapes.language import Reader, Stage, train_reader
from training.shapes.model import build_model, build_processor, build_tokenizer, encoder
from training.shapes.rows import Mix, Packer, corpus
from training.shapes.scenes import TOP_SIGMA, Pictures, draw, join, load_easy_vqa

DRAWN = 16_000
TOWER_STEPS = 1_600
STAGES = (
    (Stage("language", steps=1_000, rate=1.5e-3, floor=0.5, faint=False, seed=200), gates.FIRST),
    (
        Stage(
            "fine print",
            steps=1_250,
            horizon=2_200,
            rate=1.2e-3,
            floor=0.02,
            faint=True,
            seed=300,
            mix=Mix(say=0.07, context=0.11, negation=0.55, sayings=0.2),
            hint=0.1,
            match=0.5,
        ),
        gates.MIDDLE,
    ),
    (
        Stage(
            "reading",
            steps=850,
            rate=7e-4,
            floor=0.02,
            faint=True,
            seed=400,
            mix=Mix(say=0.08, context=0.25, chain=0.05, sayings=0.2, wild=0.5),
            hint=0.1,
            match=0.5,
            pairs_every=4,
        ),
        gates.LAST,
    ),
)
"""The language model's stages, each with what it must reach: full-contrast badges, badges of all contrasts, then more
of contexts and of two pictures."""
CHECKPOINT_EVERY = 250
EXTRA_ROUNDS = 2
"""How often a stage whose gate fails is continued, at half its length, before the run stops."""


class GateError(RuntimeError):
    """A stage did not learn what the next one builds on."""


def until_it_passes(name: str, steps: int, train: Callable[[int, int], None], gate: Callable[[], list[str]]) -> None:
    """Trains, and while the gate fails trains on, a bounded number of times.

    Args:
        name: of the stage, for the error.
        steps: of the first round; later ones take half.
        train: is given the steps and the round, which goes into the seed.
        gate: returns what falls short.

    Raises:
        GateError: something still falls short after the last round.
    """
    short: list[str] = []
    for turn in range(1 + EXTRA_ROUNDS):
        train(steps if turn == 0 else steps // 2, turn)
        short = gate()
        if not short:
            return
        print(f"{name}: not yet: {'; '.join(short)}", flush=True)
    raise GateError(f"stage {name!r} stopped after {1 + EXTRA_ROUNDS} rounds: {'; '.join(short)}")


def tower_stage(work: Path, data: Pictures, noise: float) -> vision.Tower:
    """Trains the vision tower, or reads it where ``work`` already holds it."""
    path = work / "tower.pt"
    if path.exists():
        return vision.load_tower(path)
    dev, _ = load_easy_vqa("dev")
    torch.manual_seed(1)
    tower = vision.Tower()

    def train(steps: int, turn: int) -> None:
        vision.train_tower(tower, data, steps=steps, seed=100 + turn, noise=noise)
        vision.save_tower(tower, work / f"tower-{turn}.pt")

    until_it_passes("tower", TOWER_STEPS, train, lambda: vision.tower_gate(tower, dev, noise=noise))
    vision.save_tower(tower, path)
    return tower


def language_stages(work: Path, tower: vision.Tower, data: Pictures, noise: float) -> tuple[Reader, LlavaProcessor]:
    """Trains the language model on top of the tower, stage by stage, or reads the stages ``work`` holds."""
    tokenizer = build_tokenizer(corpus(60_000, seed=12))
    processor = build_processor(tokenizer)
    torch.manual_seed(2)
    reader = Reader(build_model(tokenizer))
    # At these sizes plain matrix products beat the fused kernel by a tenth; the answers are the same.
    reader.model.set_attn_implementation({"text_config": "eager"})
    reader.model.model.vision_tower.load_state_dict(tower.tower.state_dict())
    for stage, floors in STAGES:
        path = work / f"{stage.name.replace(' ', '-')}.pt"
        if path.exists():
            reader.load_state_dict(torch.load(path, weights_only=True))
            continue

        def train(steps: int, turn: int, stage: Stage = stage, path: Path = path) -> None:
            seed = stage.seed + turn
            packer = Packer(data, encoder(tokenizer), seed=seed, faint=stage.faint, mix=stage.mix, noise=noise)
            for step in train_reader(reader, packer, stage, steps=steps, rate=stage.rate * 0.5**turn):
                if (step + 1) % CHECKPOINT_EVERY == 0:
                    torch.save(reader.state_dict(), path.with_suffix(".part"))
            torch.save(reader.state_dict(), path.with_suffix(f".{turn}"))

        def gate(floors: dict[str, float] = floors) -> list[str]:
            asked = {name: floor for name, floor in floors.items() if noise or not name.endswith(" .1")}
            return gates.language_gate(reader.model, processor, asked)

        until_it_passes(stage.name, stage.steps, train, gate)
        torch.save(reader.state_dict(), path)
    return reader, processor


def main() -> int:
    """Parses the command line, runs the stages in order, ships the model and writes its card."""
    parser = argparse.ArgumentParser(prog="python -m training.shapes", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder that receives model, processor and card")
    parser.add_argument(
        "--work", type=Path, default=Path(tempfile.gettempdir(), "shapes"), help="folder of the stages' checkpoints"
    )
    parser.add_argument(
        "--noise",
        type=float,
        default=TOP_SIGMA,
        help="most Gaussian noise on a training picture, pixel units; 0 makes the checkpoint that never saw noise",
    )
    parser.add_argument("--threads", type=int, default=1, help="threads for torch; figures shipped come from one")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    options.work.mkdir(parents=True, exist_ok=True)
    data = join(load_easy_vqa("train")[0], draw(DRAWN, random.Random(11)))
    reader, processor = language_stages(
        options.work, tower_stage(options.work, data, options.noise), data, options.noise
    )
    ship.save(reader.model, processor, options.out)
    card.write(options.out / ship.CARD, probe.measure(options.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
