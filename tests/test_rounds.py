"""Rounds: copies asked until the vote is settled, two levels of noise, drafts, deadlines (real: test_local.py)."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sg_guardrails import DeadlineError, Key, MediaError, Policy, PolicyError, Prompt, SamplingError, SmoothGuard
from sg_guardrails.core.types import Answer
from sg_guardrails.core.waiting import left_behind
from sg_guardrails.testing import FakeSampler, fake_embedder, fake_image, fake_scorers, fake_sentiment

KEY = Key(b"a secret for the tests")
PROMPT = Prompt.ask("What color is it?", fake_image())
RED, BLUE, GREEN = "The shape is red.", "The shape is blue.", "The shape is green."


class Levels(FakeSampler):
    """Also remembers the noise of each call."""

    def __init__(self, script):
        super().__init__(script)
        self.noise: list[tuple[int, float]] = []

    def __call__(self, copies, smoothing):
        self.noise.append((len(copies), smoothing.image.sigma))
        return super().__call__(copies, smoothing)


def guard(script, *rules, draft=None, clock=None, **sections) -> SmoothGuard:
    named = [{"id": f"r{index}", **rule} for index, rule in enumerate(rules)]
    policy = Policy.parse({"name": "p", "rules": named, **sections})
    more = {} if clock is None else {"clock": clock}
    return SmoothGuard(
        policy,
        sampler=script if isinstance(script, FakeSampler) else Levels(script),
        embedder=fake_embedder,
        sentiment=fake_sentiment,
        scorers=fake_scorers(),
        key=KEY,
        emit=lambda *_, **__: None,
        draft=draft,
        **more,
    )


def in_order(*answers):
    """A script: the clean copy says the first answer, the perturbed ones the others in the order of `copies`."""

    def script(copy):
        seeds = [one.seed for one in guard("x").copies(copy.prompt)]
        return answers[seeds.index(copy.seed)]

    return script


def early(script, mode="exact", *rules, **sections):
    smoothing = {"early": mode, **sections.pop("smoothing", {})}
    return guard(script, *rules, smoothing=smoothing, **sections)


# Exact


def test_a_settled_vote_asks_no_further():
    guarded = early(RED)
    outcome = guarded.check(PROMPT)
    assert (outcome.status, outcome.text, outcome.asked, len(outcome.answers)) == ("passed", RED, 6, 6)
    assert (outcome.degraded, outcome.vote.agreement) == (None, 1.0)
    assert guarded._sampler.calls == 1


def test_an_unsettled_vote_goes_on_until_it_is_settled():
    guarded = early(in_order(BLUE, *[RED] * 10))
    outcome = guarded.check(PROMPT)
    assert (outcome.text, outcome.clean, outcome.asked, guarded._sampler.calls) == (RED, 0, 9, 2)
    torn = early(in_order(*[RED, BLUE] * 5, RED)).check(PROMPT)
    assert (torn.text, torn.asked) == (RED, 11)


@pytest.mark.parametrize("share", [0.2, 0.0])
def test_a_rule_that_a_minority_can_trigger_is_waited_for(share):
    """What the later copies say would block: the early vote must not have missed it."""
    near = "The shape is red. bad"
    rule = {"share": share, "where": "any", "when": {"words": ["bad"]}}
    script = in_order(*[RED] * 8, near, near, near)
    assert guard(script, rule).check(PROMPT).status == "blocked"
    assert early(script, "exact", rule).check(PROMPT).status == "blocked"


def test_many_requests_share_their_rounds():
    def script(copy):
        return RED if copy.prompt.question == "sure?" or (copy.seed or 0) % 2 else BLUE

    prompts = [Prompt.ask(question, fake_image()) for question in ("sure?", "torn?", "sure?")]
    guarded = early(script)
    outcomes = guarded.check_many(prompts)
    single = [early(script).check(prompt) for prompt in prompts]
    assert [one.asked for one in outcomes] == [one.asked for one in single]
    assert [one.text for one in outcomes] == [one.text for one in single]
    assert outcomes[0].asked == 6 < outcomes[1].asked
    rounds = [count for count, _ in guarded._sampler.noise]
    assert rounds[0] == 18
    assert sum(rounds) == sum(one.asked for one in outcomes)


def test_one_bad_request_sinks_no_other_in_any_round():
    def script(copy):
        if copy.prompt.question == "broken" and len(guarded._sampler.asked) > 12:
            raise MediaError("no")
        return BLUE if (copy.seed or 0) % 2 else RED

    guarded = early(script)
    outcomes = guarded.check_many([Prompt.ask("broken", fake_image()), PROMPT])
    assert [one.status for one in outcomes] == ["error", "passed"]


def test_every_form_decides_early():
    guarded = early(RED)
    outcomes = [
        guarded.check(PROMPT),
        guarded.check_many([PROMPT])[0],
        asyncio.run(guarded.acheck(PROMPT)),
        guarded.review(PROMPT, RED),
        guarded.review_many([(PROMPT, RED)])[0],
        asyncio.run(guarded.areview(PROMPT, RED)),
    ]
    assert [outcome.asked for outcome in outcomes] == [6] * 6


def test_a_caller_who_samples_by_itself_asks_in_rounds_too():
    guarded = early(RED)
    first = guarded.copies(PROMPT, [])
    assert first == guarded.copies(PROMPT)[:6]
    assert guarded.copies(PROMPT, [RED] * 6) == []
    assert guarded.copies(PROMPT, [BLUE] + [RED] * 5) == guarded.copies(PROMPT)[6:9]
    assert guarded.decide(PROMPT, [RED] * 6, clean=0).degraded is None
    assert guarded.decide(PROMPT, [RED] * 5, clean=0).status == "error"
    told = "not all copies were answered; 6 of 11 copies had settled the vote"
    assert guard(RED).decide(PROMPT, [RED] * 6, clean=0).degraded == told
    assert guard(RED).decide(PROMPT, [RED] * 5, clean=0).status == "error"


def test_a_scorer_that_breaks_while_deciding_is_an_error_and_no_pass():
    def broken(texts):
        raise RuntimeError("down")

    guarded = early(RED, "exact", {"when": {"scorer": "hostility"}})
    guarded._scorers["hostility"] = broken
    assert guarded.check(PROMPT).status == "error"


POOL = (
    RED, BLUE, "The image shows a red shape.", "red", "Yes.", "No.", "I'm sorry, but I can't help with that.",
    "The shape is red. It is so bad.", "so bad", "", "I hate it", "two cats",
)  # fmt: skip
BAD = ("The shape is red. It is so bad.", "so bad")
conditions = st.sampled_from(
    [
        *[{"words": ["bad"]}] * 5,
        {"regex": ["red|two"]},
        {"scorer": "refusal"},
        {"not": {"scorer": "refusal"}},
        {"agreement_below": 0.7},
        {"disagrees": "clean"},
        {"disagrees": "candidate"},
        {"all": [{"words": ["red"]}, {"agreement_below": 0.8}]},
        {"any": [{"words": ["yes"]}, {"disagrees": "clean"}]},
        {"tool_calls": {"unanimous": True}},
        {"tool_calls": {"denied": ["pay"]}},
    ]
)


def written(rule):
    """Without the keys that such a rule does not take."""
    where, rewrites = rule["where"], rule["action"] == "rewrite"
    mute = {
        "share": where in ("candidate", "user"),
        "rewrite": not rewrites or (where in ("winner", "user") and rule["rewrite"] == "representative"),
    }
    return {key: value for key, value in rule.items() if not mute.get(key, False)}


rules = st.lists(
    st.fixed_dictionaries(
        {
            "when": conditions,
            "where": st.sampled_from(["answer", "winner", "any", "any", "candidate", "user", "clusters", "tools"]),
            "share": st.sampled_from([0.0, 0.2, 0.5, 0.6, 1.0]),
            "action": st.sampled_from(["flag", "rewrite", "rewrite", "block"]),
            "rewrite": st.sampled_from(["text", "representative", "safest"]),
        }
    )
    .filter(lambda rule: rule["where"] != "user" or "tool_calls" not in rule["when"])
    .map(written),
    max_size=3,
)
CALL = Answer("", Answer.parse({"tool_calls": [{"name": "pay", "arguments": {}}]}).tool_calls)


@st.composite
def ballots(draw):
    """Torn from the start, or settled to all appearances when the last answers come to turn it."""
    leader = draw(st.sampled_from((*POOL, CALL, *BAD * 3, *[RED] * 6)))
    others = st.sampled_from((*POOL, CALL, *BAD * 5))
    if draw(st.booleans()):
        return [leader if draw(st.integers(0, 9)) < 7 else draw(others) for _ in range(11)]
    sure, last = draw(st.integers(6, 9)), draw(others)
    return [leader] * sure + [last if draw(st.integers(0, 9)) < 7 else draw(others) for _ in range(11 - sure)]


def told(outcome):
    """What must not depend on how early the vote was decided."""
    findings = () if outcome.verdict is None else outcome.verdict.findings
    return (
        outcome.status,
        outcome.text,
        outcome.abstained,
        sorted({(finding.rule, finding.where) for finding in findings}),
    )


@settings(deadline=None, max_examples=150)
@given(
    ballots(), rules, st.sampled_from([0.0, 0.5, 0.7]), st.sampled_from([None, RED, "so bad", "Yes."]), st.booleans()
)
def test_exact_says_what_the_full_vote_says(answers, drawn, least, candidate, clean):
    script = in_order(*answers) if clean else in_order(RED, *answers[1:])
    sections = {"voting": {"min_agreement": least}}
    smoothing = {"include_clean": clean}
    full = guard(script, *drawn, smoothing=smoothing, **sections)
    soon = early(script, "exact", *drawn, smoothing=smoothing, **sections)
    if candidate is None:
        whole, part = full.check(PROMPT), soon.check(PROMPT)
    else:
        whole, part = full.review(PROMPT, candidate), soon.review(PROMPT, candidate)
    assert told(part) == told(whole)
    assert part.asked <= whole.asked
    if part.vote is not None and part.asked < whole.asked:
        # The winner is the same cluster: it speaks with the same words.
        assert part.answers[part.vote.choice] == whole.answers[whole.vote.choice]


# Sequential


def test_sequential_stops_sooner_and_doubts_longer():
    assert early(RED, "sequential").check(PROMPT).asked == 5
    assert early(RED, "sequential", smoothing={"alpha": 0.02}).check(PROMPT).asked == 4
    assert early(RED, "sequential", smoothing={"alpha": 0.07}).check(PROMPT).asked == 3
    fooled = early(in_order(BLUE, *[RED] * 10), "sequential").check(PROMPT)
    assert (fooled.text, fooled.asked > 5) == (RED, True)


def test_sequential_counts_the_cluster_and_not_the_wording():
    script = in_order(*["The image shows a red shape.", RED, "The shape is red!", "red"] * 2, RED, RED, RED)
    assert early(script, "sequential").check(PROMPT).asked < early(script).check(PROMPT).asked


def test_sequential_without_a_clean_copy_and_with_text_only():
    assert early(RED, "sequential", smoothing={"include_clean": False}).check(PROMPT).asked == 5
    assert early(RED, "sequential").check(Prompt.ask("hello")).asked == 1


# Two levels of noise

ADAPTIVE = {"adaptive": {"start_copies": 3, "max_scale": 2.0}, "copies": 10, "image": {"sigma": 0.1}}


def test_without_doubt_a_few_copies_decide():
    guarded = guard(RED, smoothing=ADAPTIVE)
    outcome = guarded.check(PROMPT)
    assert (outcome.text, outcome.asked, len(outcome.answers)) == (RED, 4, 4)
    assert guarded._sampler.noise == [(4, 0.1)]


@pytest.mark.parametrize("doubt", ["clean", "noisy"])
def test_doubt_raises_the_noise_and_the_fresh_copies_vote(doubt):
    def script(copy):
        first = len(guarded._sampler.asked) <= 4
        if doubt == "clean":
            return BLUE if copy.seed is None else RED
        return (GREEN if copy == guarded._sampler.asked[1] else BLUE) if first else RED

    guarded = guard(script, smoothing=ADAPTIVE)
    outcome = guarded.check(PROMPT)
    assert (outcome.text, outcome.asked, len(outcome.answers)) == (RED, 15, 11)
    assert guarded._sampler.noise == [(4, 0.1), (11, 0.2)]
    seeds = [copy.seed for copy in guarded._sampler.asked if copy.seed is not None]
    assert len(seeds) == len(set(seeds)) == 13
    assert seeds[3:] == [copy.seed for copy in guarded.copies(PROMPT)[1:]]
    again = guard(script, smoothing=ADAPTIVE)
    guarded = again
    assert again.check(PROMPT).text == outcome.text
    assert [copy.seed for copy in again._sampler.asked if copy.seed is not None] == seeds


def test_the_second_level_may_decide_early():
    guarded = guard(lambda copy: BLUE if copy.seed is None else RED, smoothing={**ADAPTIVE, "early": "exact"})
    assert guarded.check(PROMPT).asked == 4 + 9


def test_levels_of_many_requests_are_asked_apart():
    guarded = guard(
        lambda copy: BLUE if copy.seed is None and copy.prompt.question == "torn?" else RED, smoothing=ADAPTIVE
    )
    outcomes = guarded.check_many([Prompt.ask(question, fake_image()) for question in ("sure?", "torn?", "sure?")])
    assert [one.asked for one in outcomes] == [4, 15, 4]
    assert guarded._sampler.noise == [(12, 0.1), (11, 0.2)]


def test_more_at_the_start_than_in_doubt_is_no_policy():
    with pytest.raises(PolicyError, match="start_copies"):
        guard(RED, smoothing={"copies": 3, "adaptive": {"start_copies": 3}})


# Deadlines


def policy_with(policy, **limits):
    return policy.model_copy(update={"limits": policy.limits.model_copy(update=limits)})


class Clock:
    """Seconds that pass with each call of the model."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def slow(script, clock):
    def ask(copy):
        clock.now += 0.25  # a round of six takes a second and a half
        return script(copy)

    return ask


def test_a_deadline_stops_an_unsettled_vote():
    clock = Clock()
    script = slow(in_order(*[RED, BLUE, GREEN] * 4), clock)
    guarded = guard(script, clock=clock, limits={"deadline_seconds": 1.0})
    outcome = guarded.check(PROMPT)
    assert (outcome.status, outcome.answer) == ("error", None)
    assert isinstance(outcome.error, DeadlineError)
    assert isinstance(outcome.error, TimeoutError)
    assert len(guarded._sampler.asked) == 6


def test_answers_in_hand_decide_where_the_rest_could_not_change_the_verdict():
    clock = Clock()
    outcome = guard(slow(lambda _: RED, clock), clock=clock, limits={"deadline_seconds": 2.0}).check(PROMPT)
    assert (outcome.status, outcome.text, outcome.asked) == ("passed", RED, 6)
    assert outcome.degraded == "the deadline passed; 6 of 11 copies had settled the vote"
    clock = Clock()
    outcome = guard(slow(lambda _: RED, clock), clock=clock, limits={"deadline_seconds": 9.0}).check(PROMPT)
    assert (outcome.asked, outcome.degraded) == (11, None)


def test_with_time_to_spare_a_full_vote_is_one_call_again():
    """Two calls until one was seen to take less than a quarter of what asking has (0.75 of the deadline)."""
    clock = Clock()
    guarded = guard(slow(lambda _: RED, clock), clock=clock, limits={"deadline_seconds": 9.0})

    def calls():
        before = len(guarded._sampler.noise)
        outcome = guarded.check(PROMPT)
        return [count for count, _ in guarded._sampler.noise[before:]], outcome.asked

    assert calls() == ([6, 5], 11), "nothing is known of the model's time yet"
    guarded.policy = policy_with(guarded.policy, deadline_seconds=8.1)
    assert calls() == ([11], 11), "6 copies took 1.5 s: four times that is room enough in 6.1"
    assert calls() == ([6, 5], 11), "11 took 2.75 s, and four times that is not"
    guarded.policy = policy_with(guarded.policy, deadline_seconds=2.75 * 4 / 0.75)
    assert calls() == ([11], 11)


def test_a_call_that_came_too_late_is_remembered_for_a_while():
    clock = Clock()
    rounds = []

    def script(copy):
        if copy.seed is None and len(rounds) == 2:
            clock.now += 999
        return RED

    guarded = guard(script, clock=clock, limits={"deadline_seconds": 30.0})
    for _ in range(12):
        before = len(guarded._sampler.noise)
        guarded.check(PROMPT)
        rounds.append(len(guarded._sampler.noise) - before)
    assert rounds == [2, 1, 1, 2, 2, 2, 2, 1, 1, 1, 1, 1]


def test_each_stage_counts_what_is_its_own_and_all_of_them_all_that_passed():
    clock = Clock()

    def taking(seconds, rows):
        def call(items):
            clock.now += seconds
            return rows(items)

        return call

    def script(copy):
        clock.now += 1
        if copy.seed is None:
            return "The shape is plainly red." if copy.prompt.media else "No."  # its own judge
        return RED

    policy = Policy.parse(
        {
            "name": "p",
            "smoothing": {"early": "exact"},
            "rules": [{"id": "r", "when": {"judge": {"question": "Is it rude?"}}}],
        }
    )
    guarded = SmoothGuard(
        policy,
        sampler=FakeSampler(script),
        embedder=taking(0.125, fake_embedder),
        sentiment=taking(0.03125, fake_sentiment),
        scorers=fake_scorers(),
        key=KEY,
        emit=lambda *_, **__: None,
        clock=clock,
    )
    for outcome in (guarded.check(PROMPT), guarded.review(PROMPT, RED)):
        assert (outcome.status, outcome.asked, len(outcome.vote.weights)) == ("passed", 9, 1)
        spent = dict(outcome.timings)
        total = spent.pop("total")
        assert spent.pop("sample") == 9000, "nine copies; neither the vectors between the rounds nor the judge"
        assert spent.pop("embed") == 125, "two wordings in one call"
        assert spent.pop("vote") == 31.25
        assert spent.pop("judge") == 2000, "two wordings"
        assert spent == {"plan": 0}
        assert total == 11_156.25
    assert clock.now == 2 * 11.15625


def test_requests_of_one_call_share_what_was_done_together_and_not_each_others_judging():
    clock = Clock()

    def ponder(texts):
        clock.now += 4 * len(texts)
        return np.zeros(len(texts), np.float32)

    script = slow(lambda copy: copy.prompt.question, clock)
    guarded = guard(script, {"when": {"scorer": "hostility"}}, clock=clock, smoothing={"copies": 3})
    guarded._scorers["hostility"] = ponder
    prompts = [Prompt.ask(question, fake_image()) for question in ("a", "b", "c")]
    outcomes = guarded.check_many(prompts)
    assert [one.timings["sample"] for one in outcomes] == [3000] * 3
    assert [one.timings["judge"] for one in outcomes] == [4000] * 3
    assert [one.timings["total"] for one in outcomes] == [7000] * 3
    decided = guarded.decide(prompts[0], ["a"] * 4, clean=0)
    assert decided.timings == {"vote": 0, "judge": 4000, "total": 4000}


@pytest.mark.parametrize("part", ["sentiment", "scorer", "judge", "reader", "embedder"])
def test_every_part_that_judges_keeps_to_the_deadline(part):
    """Copies answered in time, a part that takes too long: on_timeout decides, and the guard does not wait for it."""
    release = threading.Event()

    def hang(items):
        release.wait(30)
        return np.zeros((len(items), 2) if part == "embedder" else len(items), np.float32)

    rules = {
        "scorer": {"when": {"scorer": "hostility"}},
        "judge": {"when": {"judge": {"model": "mine", "question": "Is it rude?"}}},
        "reader": {"where": "picture", "when": {"words": ["bad"]}},
    }
    policy = Policy.parse(
        {
            "name": "p",
            "rules": [{"id": "r", **rules[part]}] if part in rules else [],
            "limits": {"deadline_seconds": 0.2},
            "on_timeout": "allow",
        }
    )
    scorers = {**fake_scorers(), **({"hostility": hang} if part == "scorer" else {})}
    says = in_order(*[RED] * 9, "red", "red") if part == "embedder" else RED  # one wording needs no vector
    guarded = SmoothGuard(
        policy,
        sampler=FakeSampler(says),
        embedder=hang if part == "embedder" else fake_embedder,
        sentiment=hang if part == "sentiment" else fake_sentiment,
        scorers=scorers,
        key=KEY,
        emit=lambda *_, **__: None,
        judges={"mine": hang},
        reader=hang,
    )
    try:
        checked, reviewed = guarded.check(PROMPT), guarded.review(PROMPT, RED)
        decided = guarded.decide(PROMPT, [RED] * 10 + ["red"], clean=0)
        assert left_behind() > 0
    finally:
        release.set()
    assert [type(one.error) for one in (checked, reviewed, decided)] == [DeadlineError] * 3
    assert (checked.answer, reviewed.text) == (None, RED)


def test_what_judges_may_take_the_time_that_asking_left():
    clock = Clock()

    def careful(texts):
        clock.now += 0.9
        return np.zeros(len(texts), np.float32)

    rule = {"when": {"scorer": "hostility"}}
    for seconds, status in ((2.0, "passed"), (0.8, "error")):
        clock.now = 0.0
        guarded = guard(
            RED, rule, {"when": {"scorer": "unsafe_request"}}, clock=clock, limits={"deadline_seconds": seconds}
        )
        guarded._scorers["hostility"] = careful
        assert guarded.check(PROMPT).status == status


def test_a_rewriting_that_comes_too_late_is_blocked_and_its_answer_never_allowed():
    release = threading.Event()

    def script(copy):
        if copy.prompt.media:
            return "so bad"
        release.wait(30)
        return RED

    rule = {"when": {"words": ["bad"]}, "action": "rewrite", "rewrite": "model"}
    allowing = {"on_error": "allow", "on_timeout": "allow", "limits": {"deadline_seconds": 0.3}}
    try:
        outcome = guard(script, rule, **allowing).review(PROMPT, "so bad")
    finally:
        release.set()
    assert (outcome.status, outcome.answer) == ("blocked", None)


def test_new_words_that_cannot_be_judged_are_blocked_and_the_old_never_allowed():
    def fails_on_new(texts):
        if "fine" in " ".join(texts):
            raise RuntimeError("down")
        return np.zeros(len(texts), np.float32)

    def script(copy):
        return "so bad" if copy.prompt.media else "fine now"

    rules = ({"when": {"words": ["bad"]}, "action": "rewrite", "rewrite": "model"}, {"when": {"scorer": "hostility"}})
    guarded = guard(script, *rules, on_error="allow")
    guarded._scorers["hostility"] = fails_on_new
    outcome = guarded.review(PROMPT, "so bad")
    assert (outcome.status, outcome.answer) == ("blocked", None)


def test_answers_in_hand_decide_too_where_the_sampler_breaks_later():
    def script(copy):
        if len(guarded._sampler.asked) > 6:
            raise SamplingError("the user wrote: hunter2")
        return RED

    guarded = guard(script, limits={"deadline_seconds": 30.0})
    outcome = guarded.check(PROMPT)
    assert (outcome.status, outcome.asked) == ("passed", 6)
    assert outcome.degraded == "not all copies were answered; 6 of 11 copies had settled the vote"


def test_what_a_timeout_becomes_is_the_policys_to_say():
    def torn(**sections):
        clock = Clock()
        script = slow(in_order(*[RED, BLUE, GREEN] * 4), clock)
        return guard(script, clock=clock, limits={"deadline_seconds": 1.0}, **sections)

    assert torn(on_error="allow").review(PROMPT, RED).answer is None, "on_error has no say in it"
    allowed = torn(on_timeout="allow").review(PROMPT, RED)
    assert (allowed.status, allowed.text) == ("error", RED)
    with pytest.raises(DeadlineError):
        torn(on_timeout="raise").check(PROMPT)
    watched = torn(mode="observe", on_timeout="raise").review(PROMPT, RED)
    assert (watched.status, watched.text) == ("error", RED)


def test_under_a_deadline_what_is_settled_passes_and_observing_hands_on_what_the_model_said():
    def torn(**sections):
        clock = Clock()
        table = in_order(RED, *[BLUE, GREEN, RED] * 4)
        script = slow(lambda copy: RED if copy.prompt.question == "sure?" else table(copy), clock)
        prompts = [Prompt.ask(question, fake_image()) for question in ("torn?", "sure?")]
        guarded = guard(script, clock=clock, limits={"deadline_seconds": 4.0}, **sections)
        return guarded.check_many(prompts)

    assert [(one.status, one.degraded is None) for one in torn()] == [("error", True), ("passed", False)]
    assert [one.degraded for one in torn(smoothing={"early": "exact"})] == [None, None]
    late, settled = torn(mode="observe", on_timeout="raise")
    assert (late.status, late.text, late.candidate, late.asked) == ("error", RED, None, 6)
    assert settled.status == "passed"


def test_a_model_that_hangs_is_not_waited_for():
    release = threading.Event()

    def hang(copy):
        release.wait(30)
        return RED

    try:
        outcome = guard(hang, limits={"deadline_seconds": 0.05}).check(PROMPT)
    finally:
        release.set()
    assert isinstance(outcome.error, DeadlineError)


def test_under_a_deadline_a_samplers_own_timeout_is_a_failure_to_sample():
    def script(copy):
        raise TimeoutError("the engine's")

    outcome = guard(script, limits={"deadline_seconds": 30}).check(PROMPT)
    assert isinstance(outcome.error, SamplingError)


# Drafts

LONG = "The shape is red. It stands on a light table and throws a soft shadow to the left."


def drafted(script=LONG, draft=RED, *rules, **sections):
    voting = {"draft_tokens": 8, **sections.pop("voting", {})}
    return guard(script, *rules, draft=FakeSampler(draft), voting=voting, **sections)


def test_only_the_winners_representative_finishes():
    guarded = drafted(draft=in_order(BLUE, *[RED] * 10))
    outcome = guarded.check(PROMPT)
    assert (outcome.status, outcome.text, outcome.asked) == ("passed", LONG, 12)
    assert guarded._sampler.asked == [guarded.copies(PROMPT)[outcome.vote.choice]]
    assert [answer.text for answer in outcome.answers] == [BLUE, LONG, *[RED] * 9]


def test_a_noisy_copy_finishes_where_the_clean_one_began_alike():
    guarded = drafted()
    outcome = guarded.check(PROMPT)
    (finished,) = guarded._sampler.asked
    assert (outcome.text, outcome.clean, outcome.vote.choice) == (LONG, 0, 1)
    assert finished.seed is not None, "the clean copy is the one that an attacker knows to the bit"


def test_what_comes_after_the_draft_is_judged():
    late = RED + " Now to the so bad part."
    rule = {"when": {"words": ["bad"]}}
    assert drafted(late, RED, rule).check(PROMPT).status == "blocked"


def test_the_drafts_themselves_are_judged_too():
    loud = in_order(*[RED] * 7, *["The shape is red!"] * 4)
    assert drafted(LONG, loud).check(PROMPT).text == LONG
    assert drafted(LONG, loud, {"when": {"regex": ["red!"]}, "share": 0.3}).check(PROMPT).status == "blocked"


def test_a_beginning_that_no_longer_carries_the_vote_is_voted_on_in_full():
    guarded = drafted(BLUE, RED)
    outcome = guarded.check(PROMPT)
    assert (outcome.text, outcome.asked) == (BLUE, 11 + 1 + 11)
    assert outcome.vote.agreement == 1.0


def test_a_draft_is_never_handed_on():
    def broken(copy):
        raise RuntimeError("out of memory")

    assert drafted(broken).check(PROMPT).status == "error"
    assert drafted(draft=broken).check(PROMPT).status == "error"
    assert drafted().check(Prompt.ask("hello")).text == LONG, "a lone copy is asked in full"
    clock = Clock()
    late = drafted(LONG, slow(lambda _: RED, clock), clock=clock, limits={"deadline_seconds": 1.0})
    assert late.check(PROMPT).status == "error"


def test_drafts_go_with_rounds_levels_and_many_requests():
    assert drafted(smoothing={"early": "exact"}).check(PROMPT).asked == 7
    assert drafted(smoothing=ADAPTIVE).check(PROMPT).asked == 5
    guarded = drafted()
    prompts = [Prompt.ask(f"{number}?", fake_image()) for number in range(3)]
    assert [one.text for one in guarded.check_many(prompts)] == [LONG] * 3
    assert (guarded._draft.calls, guarded._sampler.calls) == (1, 1)


def test_a_policy_that_votes_on_drafts_needs_a_drafter():
    with pytest.raises(PolicyError, match="draft"):
        guard(RED, voting={"draft_tokens": 8})


# The vote cache


def test_a_request_that_comes_again_is_not_asked_again_but_judged():
    guarded = guard(RED, {"where": "candidate", "when": {"words": ["bad"]}}, voting={"cache": 2})
    first, again = guarded.check(PROMPT), guarded.check(PROMPT)
    assert (first.asked, again.asked) == (11, 0)
    assert (again.vote, again.text, again.answers) == (first.vote, first.text, first.answers)
    assert guarded.review(PROMPT, "so bad").status == "blocked"
    assert guarded.review(PROMPT, RED).status == "passed"
    assert guarded._sampler.calls == 1


def test_another_picture_question_policy_or_key_is_another_request():
    guarded = guard(RED, voting={"cache": 9})
    for prompt in (PROMPT, Prompt.ask("What?", fake_image()), Prompt.ask("What color is it?", fake_image((0, 1, 0)))):
        assert guarded.check(prompt).asked == 11
    guarded.policy = guarded.policy.model_copy(update={"name": "q"})
    assert guarded.check(PROMPT).asked == 11
    guarded._key = Key(b"another secret for the tests")
    assert guarded.check(PROMPT).asked == 11


def test_the_cache_is_bounded():
    guarded = guard(RED, voting={"cache": 2})
    one, two, three = (Prompt.ask(f"{number}?", fake_image()) for number in range(3))
    for prompt in (one, two, one, three):
        guarded.check(prompt)
    assert [guarded.check(prompt).asked for prompt in (one, three, two)] == [0, 0, 11]


def test_errors_and_degraded_votes_are_not_kept():
    answers = iter(["", RED])
    guarded = guard(lambda copy: next(answers) if copy.seed is None else RED, voting={"cache": 2})
    guarded._sampler._script = [SamplingError("down")]
    assert guarded.check(PROMPT).status == "error"
    guarded._sampler = FakeSampler(RED)
    assert guarded.check(PROMPT).asked == 11
    clock = Clock()
    late = guard(slow(lambda _: RED, clock), clock=clock, limits={"deadline_seconds": 2.0}, voting={"cache": 2})
    assert late.check(PROMPT).degraded is not None
    assert late.check(PROMPT).asked == 6, "asked again, not taken from the cache"


def test_kept_votes_that_do_not_settle_another_candidates_case_are_gone_on_with():
    rule = {"where": "candidate", "when": {"words": ["bad"]}, "action": "rewrite", "rewrite": "safest"}
    guarded = early(RED, "exact", rule, voting={"cache": 2})
    assert guarded.review(PROMPT, RED).asked == 6
    assert guarded.review(PROMPT, RED).asked == 0
    assert guarded.review(PROMPT, "so bad").asked == 5


def test_drafted_votes_are_kept_whole():
    guarded = drafted(voting={"cache": 2})
    assert (guarded.check(PROMPT).asked, guarded.check(PROMPT).asked) == (12, 0)
    assert guarded.check(PROMPT).text == LONG


def test_many_threads_may_share_the_cache():
    guarded = guard(lambda copy: copy.prompt.question, voting={"cache": 4})
    texts = {}

    def ask(number):
        for _ in range(5):
            outcome = guarded.check(Prompt.ask(f"question {number % 6}", fake_image()))
            texts.setdefault(number, set()).add(outcome.text)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == {number: {f"question {number % 6}"} for number in range(12)}
