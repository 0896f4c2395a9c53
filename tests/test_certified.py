"""A certified check: which copies count, what each bound says, and where none is given."""

from __future__ import annotations

import json
import sys

import pytest

from sg_guardrails import cli
from sg_guardrails.core.errors import GuardError, MediaError, PolicyError
from sg_guardrails.core.noise import Key
from sg_guardrails.core.policy import Policy, Smoothing
from sg_guardrails.core.types import Answer, Copy, Outcome, Prompt
from sg_guardrails.guard import SmoothGuard
from sg_guardrails.local import local_guard
from sg_guardrails.testing import FakeSampler, fake_audio, fake_embedder, fake_image, fake_scorers, fake_sentiment

RULE = {"id": "secret", "when": {"words": ["password"]}, "share": 0.5, "action": "block"}
POLICY = {
    "name": "certified",
    "smoothing": {"copies": 4, "image": {"space": "pixel", "sigma": 0.3}, "early": "exact"},
    "voting": {"cache": 8},
    "rules": [RULE],
}
QUESTION = Prompt.ask("What color is it?", fake_image())


class Pixels(FakeSampler):
    """A fake that says how many pixel values take noise, as the local model does."""

    def __init__(self, script) -> None:
        super().__init__(script)
        self.noises: list[Smoothing] = []

    def __call__(self, copies, smoothing):
        self.noises.append(smoothing)
        return super().__call__(copies, smoothing)

    def noisy_values(self, prompt: Prompt) -> int:
        return 48 * len(prompt.media)


def guard(sampler: FakeSampler, records: list[Outcome] | None = None, **changes: object) -> SmoothGuard:
    kept = [] if records is None else records
    return SmoothGuard(
        Policy.parse({**POLICY, **changes}),
        sampler=sampler,
        embedder=fake_embedder,
        sentiment=fake_sentiment,
        scorers=fake_scorers(),
        key=Key(b"a key for tests, 16+"),
        emit=lambda outcome, **_: kept.append(outcome),
    )


def test_fresh_noisy_copies_are_counted_and_the_clean_one_is_not_asked() -> None:
    sampler, records = Pixels("It is red."), list[Outcome]()
    outcome = guard(sampler, records).certify(QUESTION, copies=50, anchor_copies=5, confidence=0.99)
    assert len(sampler.asked) == 55
    assert None not in [copy.seed for copy in sampler.asked]
    assert len({copy.seed for copy in sampler.asked}) == 55
    assert (outcome.status, outcome.text, len(outcome.answers)) == ("passed", "It is red.", 5)
    assert outcome.vote is not None
    proof = outcome.vote.certificate
    assert proof is not None
    assert (proof.answer.count, proof.answer.copies, proof.values, proof.confidence) == (50, 50, 48, 0.99)
    assert proof.answer.share_low == pytest.approx(0.01 ** (1 / 50))
    assert records == [outcome]


def test_copies_are_moved_as_the_policy_has_it_and_have_one_sigma() -> None:
    sampler = Pixels("It is red.")
    noise = {"space": "pixel", "sigma": 0.3, "second_sigma": 0.5, "shift": 0.1}
    guard(sampler, smoothing={"copies": 4, "image": noise}).certify(QUESTION, copies=10, anchor_copies=3)
    (smoothing,) = sampler.noises
    assert (smoothing.image.sigma, smoothing.image.second_sigma, smoothing.image.shift) == (0.3, None, 0.1)


def test_each_statement_has_its_own_count() -> None:
    # The anchor's copies say red; of the fresh ones a fifth says blue, and another fifth asks for a password.
    said = ["It is red."] * 5 + (["It is red."] * 3 + ["It is blue."] + ["Enter your password."]) * 20
    outcome = guard(Pixels(said)).certify(QUESTION, copies=100, anchor_copies=5, judge_error=0.05)
    assert outcome.vote is not None
    proof = outcome.vote.certificate
    assert proof is not None
    assert (proof.answer.count, proof.verdict.count) == (60, 80)
    assert proof.answer.radius is None  # 60 of 100 may be 44% in truth
    assert proof.verdict.radius is not None
    assert proof.judge_error == 0.05


def test_the_ordinary_cache_never_holds_a_certified_vote() -> None:
    sampler = Pixels("It is red.")
    once = guard(sampler)
    once.certify(QUESTION, copies=10, anchor_copies=3)
    checked = once.check(QUESTION)
    assert checked.vote is not None
    assert checked.vote.certificate is None
    assert len(sampler.asked) > 13


def test_a_sampler_that_clips_its_noise_certifies_nothing() -> None:
    with pytest.raises(PolicyError, match="clipping"):
        guard(FakeSampler("It is red.")).certify(QUESTION)


@pytest.mark.parametrize(
    ("prompt", "changes", "says"),
    [
        (QUESTION, {"smoothing": {"image": {"space": "model", "sigma": 0.1}}}, "space: pixel"),
        (QUESTION, {"voting": {"method": "kmeans"}}, "kmeans"),
        (Prompt.ask("Hello?"), {}, "no picture"),
        (Prompt.ask("?", fake_image(), fake_audio()), {}, "audio"),
    ],
)
def test_what_cannot_be_certified_is_said(prompt: Prompt, changes: dict[str, object], says: str) -> None:
    with pytest.raises((PolicyError, GuardError), match=says):
        guard(Pixels("It is red."), **changes).certify(prompt)


def test_a_failing_model_is_an_error_and_not_a_certificate() -> None:
    outcome = guard(Pixels([MediaError("torn")])).certify(QUESTION)
    assert outcome.status == "error"
    assert outcome.answer is None


def test_a_real_model_is_certified_and_more_copies_certify_more() -> None:
    pixels = fake_image((0.9, 0.9, 0.9), size=64).pixels.copy()
    pixels[20:44, 20:44] = (1.0, 0.0, 0.0)
    prompt = Prompt.ask("What color is the shape?", type(fake_image())(pixels))
    some = local_guard("builtin")
    radii = []
    for copies in (20, 60):
        outcome = some.certify(prompt, copies=copies, anchor_copies=5)
        assert outcome.vote is not None
        assert "red" in outcome.text.casefold()
        proof = outcome.vote.certificate
        assert proof is not None
        assert proof.values == 3 * 64 * 64
        assert proof.answer.count >= 0.9 * copies
        radii.append(proof.answer.radius)
    assert radii[0] is not None
    assert radii[1] is not None
    assert 0 < radii[0] < radii[1] < 0.55


def test_the_command_line_certifies(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    shown = tmp_path_factory.mktemp("pictures") / "red.png"
    shown.write_bytes(fake_image(size=64).to_png())
    words = ["sg-guardrails", "check", "--policy", "builtin", "--image", str(shown), "--prompt", "What color is it?"]
    monkeypatch.setattr(sys, "argv", [*words, "--certify", "--copies", "12", "--json"])
    with pytest.raises(SystemExit):
        cli.main()
    proof = json.loads(capsys.readouterr().out)["vote"]["certificate"]
    assert proof["answer"]["copies"] == 12
    monkeypatch.setattr(sys, "argv", [*words, "--copies", "12"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2


def test_answers_may_hold_calls() -> None:
    call = {"name": "look", "arguments": {"at": "it"}}

    def script(copy: Copy) -> Answer:
        del copy
        return Answer.parse({"text": "", "tool_calls": [call]})

    outcome = guard(Pixels(script)).certify(QUESTION, copies=10, anchor_copies=3)
    assert outcome.vote is not None
    assert outcome.vote.certificate is not None
    assert outcome.vote.certificate.answer.count == 10
