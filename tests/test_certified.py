"""A certified check: which copies count, what each bound says, and where none is given."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from scipy.stats import norm

from sg_guardrails import cli
from sg_guardrails.core.certify import lower_bound
from sg_guardrails.core.errors import GuardError, MediaError, PolicyError, SamplingError
from sg_guardrails.core.noise import Key
from sg_guardrails.core.policy import Policy, Smoothing
from sg_guardrails.core.types import Answer, Certificate, Copy, Outcome, Prompt
from sg_guardrails.guard import SmoothGuard
from sg_guardrails.local import local_guard
from sg_guardrails.record import event
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


def guard(sampler, records: list[Outcome] | None = None, *, embedder=fake_embedder, **changes: object) -> SmoothGuard:
    kept = [] if records is None else records
    return SmoothGuard(
        Policy.parse({**POLICY, **changes}),
        sampler=sampler,
        embedder=embedder,
        sentiment=fake_sentiment,
        scorers=fake_scorers(),
        key=Key(b"a key for tests, 16+"),
        emit=lambda outcome, **_: kept.append(outcome),
    )


def proof_of(outcome: Outcome) -> Certificate:
    assert outcome.vote is not None
    assert outcome.vote.certificate is not None
    return outcome.vote.certificate


def after_check(first: list[str], fresh: list[str]) -> Pixels:
    """A model that a check's five copies hear say red; then come the anchor's copies, then the fresh ones."""
    return Pixels(["It is red."] * 5 + first + fresh)


ALL = {"smoothing": {"copies": 4, "image": {"space": "pixel", "sigma": 0.3}}}
"""Without early stop, so that a check asks its five copies."""


def test_fresh_noisy_copies_are_counted_beside_the_checks_own() -> None:
    sampler, records = Pixels("It is red."), list[Outcome]()
    outcome = guard(sampler, records, **ALL).certify(QUESTION, copies=50, anchor_copies=5, confidence=0.99)
    checked, proving = sampler.asked[:5], sampler.asked[5:]
    assert [copy.seed is None for copy in checked] == [True, False, False, False, False]
    assert (len(proving), len({copy.seed for copy in proving}), outcome.asked) == (55, 55, 60)
    assert None not in [copy.seed for copy in proving]
    assert not {copy.seed for copy in checked} & {copy.seed for copy in proving[5:]}
    assert (outcome.status, outcome.text, len(outcome.answers)) == ("passed", "It is red.", 5)
    proof = proof_of(outcome)
    assert (proof.answer.count, proof.answer.copies, proof.values, proof.confidence) == (50, 50, 48, 0.99)
    assert (proof.anchor.text, proof.answer.share_low) == ("It is red.", pytest.approx(0.01 ** (1 / 50)))
    assert records == [outcome]


def test_copies_are_moved_as_the_policy_has_it_and_have_one_sigma() -> None:
    sampler = Pixels("It is red.")
    noise = {"space": "pixel", "sigma": 0.3, "second_sigma": 0.5, "shift": 0.1}
    outcome = guard(sampler, smoothing={"copies": 4, "image": noise}).certify(QUESTION, copies=10, anchor_copies=3)
    smoothing = sampler.noises[-1]
    assert (smoothing.image.sigma, smoothing.image.second_sigma, smoothing.image.shift) == (0.3, None, 0.1)
    proof = proof_of(outcome)
    assert proof.sigma == 0.3
    assert proof.answer.radius == pytest.approx(0.3 * norm.ppf(lower_bound(10, 10)))


def test_each_statement_has_its_own_count() -> None:
    # The anchor's copies say red; of the fresh ones a fifth says blue, and another fifth asks for a password.
    fresh = (["It is red."] * 3 + ["It is blue."] + ["Enter your password."]) * 20
    outcome = guard(after_check(["It is red."] * 5, fresh), **ALL).certify(
        QUESTION, copies=100, anchor_copies=5, judge_error=0.05
    )
    proof = proof_of(outcome)
    assert (proof.answer.count, proof.verdict.count) == (60, 80)
    assert proof.answer.radius is None  # 60 of 100 may be 44% in truth
    assert proof.verdict.share_low == pytest.approx(lower_bound(80, 100) - 0.05)
    assert proof.verdict.radius == pytest.approx(0.3 * norm.ppf(lower_bound(80, 100) - 0.05))
    assert proof.judge_error == 0.05


def test_silence_is_not_safe_and_what_observing_rules_find_is_not_either() -> None:
    observing = {"id": "seen", "when": {"words": ["blue"]}, "action": "block", "mode": "observe"}
    rewriting = {"id": "written", "when": {"words": ["green"]}, "action": "rewrite"}
    fresh = ["It is red."] * 20 + [""] * 10 + ["It is blue."] * 10 + ["It is green."] * 10
    sampler = after_check(["It is red."] * 5, fresh)
    outcome = guard(sampler, **ALL, rules=[RULE, observing, rewriting]).certify(QUESTION, copies=50, anchor_copies=5)
    assert proof_of(outcome).verdict.count == 20


def test_the_anchor_is_the_majority_of_its_own_copies() -> None:
    sampler = after_check(["It is blue.", "It is red.", "It is red."], ["It is red."] * 20)
    proof = proof_of(guard(sampler, **ALL).certify(QUESTION, copies=20, anchor_copies=3))
    assert (proof.anchor.text, proof.answer.count) == ("It is red.", 20)


def test_what_is_near_to_a_neighbour_of_the_anchor_is_not_counted_with_it() -> None:
    turned = {"It is red.": 0.0, "red": 0.7, "reddish": 1.4}

    def embed(texts):
        return np.array([[np.cos(turned[text]), np.sin(turned[text])] for text in texts], dtype=np.float32)

    voting = {"method": "cosine", "similarity": 0.6, "min_agreement": 0.1}
    sampler = after_check(["It is red."] * 3, ["red"] * 30 + ["reddish"] * 30)
    outcome = guard(sampler, **ALL, voting=voting, embedder=embed).certify(QUESTION, copies=60, anchor_copies=3)
    assert proof_of(outcome).answer.count == 30


def test_what_is_handed_on_is_what_a_check_hands_on() -> None:
    """Limits, rules about the clean copy, observing: a certificate beside it changes nothing of them."""

    def clean_differs(copy: Copy) -> str:
        return "It is blue." if copy.seed is None else "It is red."

    differs = {"id": "turned", "when": {"disagrees": "clean"}, "action": "block"}
    for changes in (
        {"limits": {"max_pixels": 4}},
        {"rules": [differs]},
        {"mode": "observe", "rules": [differs]},
        {"voting": {"min_agreement": 0.9}},
    ):
        made, checked = (guard(Pixels(clean_differs), **{**ALL, **changes}) for _ in range(2))
        proven, plain = made.certify(QUESTION, copies=10, anchor_copies=3), checked.check(QUESTION)
        assert (proven.status, proven.text, proven.abstained) == (plain.status, plain.text, plain.abstained)
    assert plain.abstained


def test_the_votes_cache_holds_no_certificate() -> None:
    sampler = Pixels("It is red.")
    once = guard(sampler)
    once.check(QUESTION)
    asked = len(sampler.asked)
    proof_of(once.certify(QUESTION, copies=10, anchor_copies=3))
    checked = once.check(QUESTION)
    assert checked.vote is not None
    assert (checked.vote.certificate, len(sampler.asked)) == (None, asked + 13)


def test_the_record_has_the_proofs_figures_and_not_its_words() -> None:
    outcome = guard(Pixels("It is red.")).certify(QUESTION, copies=10, anchor_copies=3)
    told = event(outcome, QUESTION, Policy.parse(POLICY))["certificate"]
    assert (told["answer"]["count"], told["answer"]["copies"], told["sigma"]) == (10, 10, 0.3)
    assert told["verdict"]["radius"] == proof_of(outcome).verdict.radius
    assert "red" not in json.dumps(told)


class HalfSpace(Pixels):
    """A model whose answer turns at a plane through its input: the radius is exact there (Cohen et al., section 3.2).

    The picture lies `margin` before the plane; along its normal the noise is a number drawn with each copy's seed.
    """

    def __init__(self, margin: float) -> None:
        def script(copy: Copy) -> str:
            drawn = 0.0 if copy.seed is None else 0.3 * np.random.default_rng(copy.seed).standard_normal()
            return "It is red." if margin + drawn > 0 else "It is blue."

        super().__init__(script)


def test_a_radius_never_reaches_behind_the_plane_where_the_answer_turns() -> None:
    # Each may be wrong once in twenty: about three are. With a sigma a fifth too large about sixteen would be.
    margins = np.linspace(0.05, 0.45, 80)
    radii = [
        proof_of(guard(HalfSpace(margin)).certify(picture, copies=100, anchor_copies=5, confidence=0.95)).answer.radius
        for margin, picture in zip(margins, (Prompt.ask("?", fake_image(size=n + 2)) for n in range(80)), strict=True)
    ]
    given = [(margin, radius) for margin, radius in zip(margins, radii, strict=True) if radius is not None]
    wrong = sum(radius > margin for margin, radius in given)
    assert len(given) > 50
    assert wrong <= 8
    assert np.mean([radius / margin for margin, radius in given]) > 0.6  # nor is it timid


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


@pytest.mark.parametrize("answered", [0, 5, 8])
def test_a_failing_model_is_an_error_and_not_a_certificate(answered: int) -> None:
    records = list[Outcome]()
    outcome = guard(Pixels([*["It is red."] * answered, MediaError("torn")]), records, **ALL).certify(QUESTION)
    assert (outcome.status, outcome.answer) == ("error", None)
    assert outcome.vote is None or outcome.vote.certificate is None
    assert records == [outcome]


def test_what_breaks_while_the_fresh_copies_are_judged_is_an_error() -> None:
    def embed(texts):
        if any("blue" in text for text in texts):
            raise RuntimeError("down")
        return fake_embedder(texts)

    sampler = after_check(["It is blue, say."] * 3, ["It is teal and blue."] * 10)
    cosine = {"voting": {"method": "cosine"}}
    outcome = guard(sampler, **ALL, **cosine, embedder=embed).certify(QUESTION, copies=10, anchor_copies=3)
    assert (outcome.status, outcome.answer) == ("error", None)
    again = after_check(["It is blue, say."] * 3, ["It is teal and blue."] * 10)
    raising = guard(again, **ALL, **cosine, on_error="raise", embedder=embed)
    with pytest.raises(SamplingError, match="RuntimeError"):
        raising.certify(QUESTION, copies=10, anchor_copies=3)


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

    assert proof_of(guard(Pixels(script)).certify(QUESTION, copies=10, anchor_copies=3)).answer.count == 10
