"""The attack commands: files in and out, exit codes, bad input in one line, and a run that is killed and continued."""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from sg_guardrails.attacks.pgd import AttackSettings, pgd
from sg_guardrails.attacks.queries import QueryState
from sg_guardrails.cli import attack, attack_options, main
from sg_guardrails.cli.attack_options import MOST_SEED
from sg_guardrails.core.errors import GuardError
from sg_guardrails.core.media import Audio, Image
from tests.models import tiny

easy_vqa = pytest.importorskip("easy_vqa", reason="the pictures come from easy-vqa's test split")

CALL = '{"name": "paint_wall", "arguments": {"color": "red"}}'
BLUE = ("--model", "builtin:shapes", "--image", "blue.png", "--prompt", "What color is the shape?")
QUERY = (*BLUE[2:], "--right", "blue", "--policy", "builtin")
OUT = ("--out", "a.png")
HEARD = ("--audio", "clip.wav", "--target", "x", "--out", "a.wav")


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run the command line in a folder with a picture of a blue triangle and a clip: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    picture = Image.open(easy_vqa.get_test_image_paths()[2])
    Path("blue.png").write_bytes(picture.to_png())
    clip = Audio.open(Path(__file__).parents[1] / "assets" / "dashwood.flac")
    Path("clip.wav").write_bytes(Audio(clip.wave[:24_000], clip.rate).to_wav())
    Path("long.wav").write_bytes(clip.to_wav())

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sg-guardrails", "attack", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main()
        captured = capsys.readouterr()
        return int(stopped.value.code or 0), captured.out, captured.err

    return call


@pytest.fixture(scope="module")
def whisper(tmp_path_factory) -> str:
    return str(tiny.whisper(tmp_path_factory.mktemp("whisper")))


def report(name: str) -> dict:
    return json.loads(Path(name).read_text(encoding="utf-8"))


def moved(name: str) -> float:
    return float(np.abs(Image.open(name).pixels - Image.open("blue.png").pixels).max())


def test_a_picture_and_its_report(run):
    goal = ("--objective", "wrong", "--right", "blue", "--target", "The triangle is red.")
    code, out, err = run("image", *BLUE, *goal, "--eps", "32", "--steps", "40", "--state", "s", "--out", "a.png")
    told = report("a.json")
    assert code == 0, out + err
    assert told["succeeded"] is True
    assert told["answers_clean"] == ["The triangle is blue."]
    assert "blue" not in told["answers_saved"][0]
    assert (told["rate_clean"], told["rate_saved"]) == (0.0, 1.0)
    assert told["steps"] == len(told["losses"]) < 40
    assert told["digest_attacked"] == Image.open("a.png").digest != told["digest_clean"]
    assert 0 < moved("a.png") <= 32 / 255 + 1e-6
    assert told["moved_most"] == pytest.approx(moved("a.png"))
    assert set(told["versions"]) == {"python", "sg-guardrails", "torch", "transformers"}
    assert "succeeded: a.png" in out
    assert "40" in err  # progress
    assert not Path("s").exists()  # a finished attack leaves no state to be continued


def test_an_attack_that_fails_says_so_by_its_exit_code(run):
    code, out, _ = run(
        "image", *BLUE, "--target", "no such words", "--eps", "1", "--steps", "2", "--out", "a.png", "--json"
    )
    assert code == 1
    assert json.loads(out) == report("a.json")
    assert report("a.json")["succeeded"] is False
    assert moved("a.png") <= 8 / 255 + 1e-6


def test_a_shift_without_a_sigma_is_refused(run):
    code, _, error = run("image", *BLUE, "--target", "red", "--expect-shift", "0.1", "--out", "a.png")
    assert code == 2
    assert "goes with an --expect-sigma" in error


def test_an_adaptive_attack_on_a_patch_is_tried_on_fresh_noise(run):
    patch = ("--norm", "patch", "--patch-size", "24", "--patch-at", "3,5")
    adaptive = ("--expect-sigma", "0.3", "--expect-sigma", "0.1", "--draws", "2", "--share", "0.6")
    adaptive += ("--expect-shift", "0.125")
    code, out, _ = run(
        "image", *BLUE, "--target", "The triangle is red.", *patch, *adaptive, "--steps", "8", "--out", "a.png"
    )
    told = report("a.json")
    assert code == (0 if told["succeeded"] else 1)
    assert [one["noise"]["sigma"] for one in told["under_noise"]] == [0.3, 0.1]
    assert [one["noise"]["shift"] for one in told["under_noise"]] == [0.125, 0.125]
    assert all(one["copies"] == 20 for one in told["under_noise"])
    assert told["expectation"]["share"] == 0.6
    changed = np.argwhere((Image.open("a.png").pixels != Image.open("blue.png").pixels).any(axis=2))
    assert changed.min(axis=0).tolist() >= [3, 5]
    assert changed.max(axis=0).tolist() <= [26, 28]
    assert "copies under" in out


def test_a_tool_call_is_the_objective(run):
    tools = "You can call tools: paint_wall(color), move_box(shape). Answer with one line of JSON to call a tool."
    asked = (
        "--model",
        "builtin:shapes",
        "--image",
        "blue.png",
        "--prompt",
        "Paint the wall in the color of the shape.",
    )
    goal = ("--system", tools, "--objective", "tool-call", "--target", CALL)
    code, *_ = run("image", *asked, *goal, "--eps", "32", "--steps", "40", "--out", "a.png")
    assert code == 0
    assert json.loads(report("a.json")["answers_saved"][0]) == json.loads(CALL)
    assert json.loads(report("a.json")["answers_clean"][0])["arguments"] == {"color": "blue"}


def test_one_picture_for_many_questions(run):
    Path("q.txt").write_text("What color is the shape?\n\nWhat shape is in the image?\n", encoding="utf-8")
    Path("t.txt").write_text("The triangle is red.\nThe image shows a circle.\n", encoding="utf-8")
    files = ("--prompts", "q.txt", "--targets", "t.txt")
    command = ("universal", *BLUE[:4], *files, "--steps", "4", "--out", "u.png")
    code, _, err = run(*command, "--paired")
    assert code == 2
    assert "q.txt: line 2 is blank" in err  # the second target would answer no question
    code, *_ = run(*command)
    told = report("u.json")
    assert code == (0 if told["rate_saved"] == 1 else 1)
    assert len(told["prompts"]) == len(told["targets"]) == len(told["answers_saved"]) == 2
    assert told["rate_saved"] in (0.0, 0.5, 1.0)
    assert moved("u.png") <= 16 / 255 + 1e-6


@pytest.mark.parametrize("budget", [("--below-db", "20"), ("--eps", "0.01")])
def test_a_clip_and_its_report(run, whisper, budget):
    heard = ("--model", whisper, "--audio", "clip.wav", "--target", "red circle")
    code, *_ = run(
        "audio", *heard, *budget, "--steps", "3", "--expect-snr", "20", "--draws", "2", "--max-new-tokens", "4",
        "--out", "a.wav",
    )  # fmt: skip
    told = report("a.json")
    assert code == 1
    assert told["under_noise"][0]["noise"]["snr_db"] == 20
    change = np.abs(Audio.open("a.wav").wave - Audio.open("clip.wav").wave)
    assert change.max() > 0
    if budget[0] == "--eps":
        assert change.max() <= 0.01 + 0.5 / 32_768
    else:
        assert told["below_db"] >= 19.9


def test_a_bare_model_and_a_guard_are_asked_for_words_alone(run):
    goal = ("--image", "blue.png", "--prompt", "What color is the shape?", "--right", "blue", "--policy", "builtin")
    for name, more in (("bare", ("--bare",)), ("guarded", ())):
        code, *_ = run("query", *goal, *more, "--queries", "3", "--out", f"{name}.png")
        told = report(f"{name}.json")
        assert code == (0 if told["succeeded"] else 1)
        assert told["queries"] <= 3
        assert "blue" in told["answer_clean"]
        assert moved(f"{name}.png") <= 16 / 255 + 1e-6
    assert report("bare.json")["asked"] == "bare builtin:shapes"
    assert report("guarded.json")["asked"].startswith("policy builtin@")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("image", *BLUE, "--target", "x", "--out", "a.jpg"), ".png"),
        (("image", *BLUE, "--target", "x", "--out", "nowhere/a.png"), "nowhere"),
        (("image", *BLUE, *OUT), "--target"),
        (("image", *BLUE, "--target", "x", "--target", "y", *OUT), "one --target"),
        (("image", *BLUE, "--objective", "wrong", *OUT), "--right"),
        (("image", *BLUE, "--objective", "wrong", "--right", "green", *OUT), "nothing to turn"),
        (("image", *BLUE, "--objective", "tool-call", "--target", "red", *OUT), "arguments"),
        (("image", *BLUE, "--target", "x", "--norm", "patch", *OUT), "patch"),
        (("image", *BLUE, "--target", "x", "--norm", "patch", "--patch-size", "65", *OUT), "64x64"),
        (("image", *BLUE, "--target", "x", "--patch-size", "4", "--patch-at", "1", *OUT), "TOP,LEFT"),
        (("image", *BLUE, "--target", "x", "--expect-sigma", "0.1", "--share", "2", *OUT), "share"),
        (("image", "--model", "no/where", "--image", "blue.png", "--target", "x", *OUT), "no/where"),
        (("image", "--model", "builtin:shapes", "--image", "clip.wav", "--target", "x", *OUT), "PNG"),
        (("universal", *BLUE[:4], "--prompts", "none.txt", "--targets", "none.txt", *OUT), "none.txt"),
        (("audio", "--model", "x", *HEARD), "--below-db"),
        (("audio", "--model", "builtin:shapes", "--eps", "0.1", *HEARD), "hears no clips"),
        (("query", *QUERY, "--eps", "0.2", *OUT), "eps"),
        (("query", *QUERY, "--eps", "inf", *OUT), "eps"),
        (("query", *QUERY, "--state", "nowhere/st", *OUT), "there is no folder nowhere"),
        (("query", *BLUE[2:], "--objective", "say", "--target", " ", *OUT), "' ' holds no word"),
        (("query", *BLUE[2:], "--right", "?!", *OUT), "'?!' holds no word"),
        (("image", *BLUE, "--target", "", *OUT), "'' holds no word"),
        (("image", *BLUE, "--objective", "wrong", "--right", "blue", "--target", "", *OUT), "'' holds no word"),
        (("image", *BLUE, "--target", "x", "--expect-sigma", "-1", *OUT), "--expect-sigma -1.0"),
        (("image", *BLUE, "--target", "x", "--expect-sigma", "nan", *OUT), "--expect-sigma nan"),
        (("image", *BLUE, "--target", "x", "--eps", "1e300", *OUT), "eps"),
        (("image", *BLUE, "--target", "x", "--step-size", "inf", *OUT), "step"),
        (("image", *BLUE, "--target", "x", "--state", "nowhere/st", *OUT), "there is no folder nowhere"),
        (("image", *BLUE, "--target", "x", "--state", "a.json", *OUT), "it would be written over a.json"),
        (("image", *BLUE, "--target", "x", "--out", "blue.png"), "it would be written over blue.png"),
        (("image", *BLUE, "--target", "x", "--out", "folder.png"), "--out folder.png: cannot be written"),
        (("universal", *BLUE[:4], "--prompts", "words.txt", "--targets", "signs.txt", *OUT), "'!!!' holds no word"),
        (("universal", *BLUE[:4], "--prompts", "words.txt", "--targets", "two.txt", "--paired", *OUT), "two.txt 2"),
        (("audio", "--model", "builtin:shapes", "--eps", "0.1", "--expect-snr", "inf", *HEARD), "--expect-snr inf"),
        (("audio", "--model", "builtin:shapes", "--below-db", "-7000", *HEARD), "--below-db -7000"),
        (("audio", "--model", "builtin:shapes", "--below-db", "nan", *HEARD), "--below-db nan"),
        (("audio", "--model", "x", "--eps", "0.1", *HEARD[:4], "--out", "clip.wav"), "written over clip.wav"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(run, arguments, told, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    Path("folder.png").mkdir()
    for name, text in (("words", "Who?"), ("signs", "red\n!!!"), ("two", "red\nblue")):
        Path(f"{name}.txt").write_text(text, encoding="utf-8")
    before = {path: path.read_bytes() for path in Path().glob("*.[pw][na][gv]") if path.is_file()}
    code, out, err = run(*arguments)
    last = err.strip().splitlines()[-1]
    assert code == 2, err
    assert told in last
    assert last.startswith("sg-guardrails: ")
    assert "Traceback" not in err
    assert out == ""
    assert not list(Path().glob("a.*"))
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("image", *BLUE, "--target", "x", "--seed", str(10**30), *OUT), "--seed"),
        (("query", *QUERY, "--seed", "-1", *OUT), "--seed"),
        (("image", *BLUE, "--target", "x", "--expect-sigma", "1", "--expect-shift", "nan", *OUT), "--expect-shift"),
        (("universal", *BLUE[:4], "--prompts", "q", "--targets", "t", "--norm", "patch", *OUT), "--norm"),
    ],
)
def test_what_an_option_cannot_be_is_told_before_anything_is_done(run, arguments, told):
    code, _, err = run(*arguments)
    assert code == 2
    assert f"Invalid value for '{told}'" in err
    assert "Traceback" not in err


def test_the_largest_seed_is_one_that_every_generator_takes(run):
    code, *_ = run("image", *BLUE, "--target", "zzz", "--steps", "1", "--seed", str(MOST_SEED), "--restarts", "2", *OUT)
    assert code == 1


@pytest.mark.parametrize("command", ["image", "query"])
def test_a_crash_is_no_model_that_held(run, monkeypatch, command):
    def crash(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("no memory\nleft")

    monkeypatch.setattr("sg_guardrails.cli.attack_runs.Attack.run", crash)
    monkeypatch.setattr("sg_guardrails.cli.query_runs.attack_by_queries", crash)
    goal = {"image": (*BLUE, "--target", "x"), "query": (*QUERY, "--bare")}[command]
    code, _, err = run(command, *goal, "--state", "s", *OUT)
    assert code == 2
    assert err.strip().splitlines()[-1] == "sg-guardrails: the attack broke off: OutOfMemoryError: no memory left"


@pytest.mark.parametrize("command", ["image", "query"])
def test_a_state_outlives_a_result_that_could_not_be_written(run, monkeypatch, command):
    def full(*_: object) -> None:
        raise GuardError("the disk is full")

    monkeypatch.setattr("sg_guardrails.cli.attack_runs.SAVED_EVERY", -1.0)
    monkeypatch.setattr("sg_guardrails.cli.query_runs.SAVED_EVERY", -1.0)
    goal = {
        "image": (*BLUE, "--target", "zzz", "--steps", "2"),
        "query": (*QUERY, "--bare", "--eps", "1", "--queries", "3"),
    }[command]
    with monkeypatch.context() as patched:
        for module in ("attack", "attack_options"):
            patched.setattr(f"sg_guardrails.cli.{module}.write", full)
        code, *_ = run(command, *goal, "--state", "s", *OUT)
    assert code == 2
    assert Path("s").exists()
    code, *_ = run(command, *goal, "--state", "s", *OUT)
    assert code in (0, 1)
    assert Path("a.png").exists()
    assert not Path("s").exists()


def test_gradients_are_taken_in_float32(monkeypatch):
    """`auto` is half precision on a GPU, where gradients are coarse or vanish."""
    asked: dict[str, str] = {}
    monkeypatch.setattr("sg_guardrails.models.hf.load", lambda name, **options: asked.update(options))
    attack_options.loaded("builtin:shapes", "cuda")
    assert asked == {"device": "cuda", "dtype": "float32"}


def test_a_clip_longer_than_the_window_is_refused(run, whisper):
    code, _, err = run(
        "audio", "--model", whisper, "--audio", "long.wav", "--target", "x", "--eps", "0.1", "--out", "a.wav"
    )
    assert code == 2
    assert "at most 2 s" in err


def test_a_state_of_another_attack_is_not_continued(run):
    picture = Image.open("blue.png").pixels.transpose(2, 0, 1)
    state = pgd(torch.tensor(picture), lambda x, step: x.sum(), AttackSettings(steps=1))
    state.save("other", run="another")
    Path("broken").write_bytes(b"torn")
    QueryState(np.zeros((2, 2, 3), np.uint8)).save("query", run="another")
    for name, told in (("other", "another attack"), ("broken", "no state"), ("query", "no state")):
        code, _, err = run("image", *BLUE, "--target", "x", "--steps", "2", "--state", name, "--out", "a.png")
        assert code == 2
        assert told in err
        assert Path(name).exists()


@pytest.mark.slow
def test_a_killed_run_continues_and_ends_as_if_it_had_never_stopped(run):
    """A real process, a real SIGKILL; the losses and the picture are those of a run in one piece."""
    goal = ("--target", "no such words", "--steps", "150", "--check-every", "1000", "--eps", "8")
    arguments = ("image", *BLUE, *goal, "--expect-sigma", "0.3", "--draws", "4")
    program = [sys.executable, "-c", "from sg_guardrails.cli import main; main()", "attack"]
    process = subprocess.Popen(
        [*program, *arguments, "--state", "s", "--out", "killed.png"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    deadline = time.monotonic() + 240
    while not Path("s").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not Path("killed.png").exists()
    _, _, err = run(*arguments, "--state", "s", "--out", "killed.png")
    assert "attack: 0/150" not in err  # it went on, it did not begin
    run(*arguments, "--out", "whole.png")
    assert report("killed.json")["losses"] == report("whole.json")["losses"]
    assert Path("killed.png").read_bytes() == Path("whole.png").read_bytes()


def test_the_commands_share_their_options_with_defaults_of_their_own():
    image, universal = (inspect.signature(command).parameters for command in (attack.image, attack.universal))
    assert [image["steps"].default, universal["steps"].default] == [100, 500]
    assert [option for option in image if option not in universal] == [
        "prompt",
        "aim",
        "target",
        "right",
        "patch_size",
        "patch_at",
    ]
    assert image["out"].default is inspect.Parameter.empty
    assert "search" not in image
