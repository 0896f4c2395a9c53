"""The guard's logic with fakes: every way in, failures that never pass, batches, records (real: test_local.py)."""

from __future__ import annotations

import asyncio
import json
import threading

import numpy as np
import pytest
import structlog

from sg_guardrails import (
    Answer,
    DeadlineError,
    GuardError,
    Image,
    Key,
    MediaError,
    ModelError,
    Policy,
    PolicyError,
    Prompt,
    SamplingError,
    SmoothGuard,
    UnsafeOutputError,
    edge,
    perturb,
)
from sg_guardrails.core import waiting
from sg_guardrails.core.threads import Threads
from sg_guardrails.testing import FakeSampler, fake_audio, fake_embedder, fake_image, fake_scorers, fake_sentiment

KEY = Key(b"a secret for the tests")
PROMPT = Prompt.ask("What color is it?", fake_image())
RED, BLUE = "The shape is red.", "The shape is blue."


def guard(script, *rules, scorers=None, embedder=fake_embedder, **sections) -> SmoothGuard:
    named = [{"id": f"r{index}", **rule} for index, rule in enumerate(rules)]
    smoothing = {"copies": 4, **sections.pop("smoothing", {})}
    policy = Policy.parse({"name": "p", "rules": named, "smoothing": smoothing, **sections})
    sampler = script if isinstance(script, FakeSampler) else FakeSampler(script)
    return SmoothGuard(
        policy, sampler=sampler, embedder=embedder, sentiment=fake_sentiment, scorers=scorers or fake_scorers(), key=KEY
    )


def everyway(guarded: SmoothGuard, prompt: Prompt):
    """`check` in each of its forms."""
    return {
        "check": guarded.check(prompt),
        "check_many": guarded.check_many([prompt])[0],
        "acheck": asyncio.run(guarded.acheck(prompt)),
    }


def test_the_majority_answers_in_every_form():
    for outcome in everyway(guard(lambda copy: BLUE if copy.seed is None else RED), PROMPT).values():
        assert (outcome.status, outcome.text, outcome.clean) == ("passed", RED, 0)
        assert outcome.vote.labels == (0, 1, 1, 1, 1)
        assert outcome.vote.agreement == 0.8
        assert [answer.text for answer in outcome.answers] == [BLUE, RED, RED, RED, RED]
        assert {"sample", "vote", "judge", "total"} <= outcome.timings.keys()
        assert outcome.raise_if_blocked() is outcome


def test_an_unsafe_majority_is_blocked_in_every_form():
    for outcome in everyway(
        guard([RED, "so bad", "so bad", "so bad", "so bad", *["so bad"] * 9], {"when": {"words": ["bad"]}}), PROMPT
    ).values():
        assert (outcome.status, outcome.answer) == ("blocked", None)
        assert "bad" not in outcome.text
        with pytest.raises(UnsafeOutputError) as caught:
            outcome.raise_if_blocked()
        assert "bad" not in str(caught.value)


def test_an_unsafe_minority_is_outvoted():
    outcome = guard(lambda copy: "so bad" if copy.seed is None else RED, {"when": {"words": ["bad"]}}).check(PROMPT)
    assert (outcome.status, outcome.text) == ("passed", RED)


def test_no_majority_abstains():
    answers = iter(["a", "b", "c", "d", "e"])
    outcome = guard(lambda copy: next(answers), {"when": {"agreement_below": 0.5}, "action": "rewrite"}).check(PROMPT)
    assert (outcome.status, outcome.abstained) == ("rewritten", True)
    assert outcome.text == Policy.parse({"name": "x"}).texts.abstained


def test_the_clean_answer_that_differs_is_flagged_and_replaced():
    rule = {"where": "winner", "when": {"disagrees": "clean"}, "action": "flag"}
    outcome = guard(lambda copy: BLUE if copy.seed is None else RED, rule).check(PROMPT)
    assert (outcome.status, outcome.text) == ("flagged", RED)
    assert guard(lambda copy: RED, rule).check(PROMPT).status == "passed"


def test_observe_hands_on_the_models_own_answer():
    outcome = guard(
        lambda copy: BLUE if copy.seed is None else "bad", {"when": {"words": ["bad"]}}, mode="observe"
    ).check(PROMPT)
    assert (outcome.status, outcome.text, outcome.verdict.would_have) == ("passed", BLUE, "block")


def test_text_only_prompts_take_one_sample_and_are_judged():
    guarded = guard(["so bad"], {"when": {"words": ["bad"]}})
    assert guarded.check(Prompt.ask("hello")).status == "blocked"
    assert [copy.seed for copy in guarded._sampler.asked] == [None]


def test_many_prompts_are_one_batch_and_keep_their_order():
    guarded = guard(lambda copy: copy.prompt.question)
    prompts = [Prompt.ask(f"question {index}", fake_image()) for index in range(3)]
    assert [outcome.text for outcome in guarded.check_many(prompts)] == ["question 0", "question 1", "question 2"]
    assert (guarded._sampler.calls, len(guarded._sampler.asked)) == (1, 15)
    assert guarded.check_many([]) == []


def test_one_bad_request_sinks_no_other():
    def script(copy):
        if copy.prompt.question == "broken":
            raise MediaError("this model takes no clips")
        return RED

    outcomes = guard(script).check_many([PROMPT, Prompt.ask("broken", fake_audio()), PROMPT])
    assert [outcome.status for outcome in outcomes] == ["passed", "error", "passed"]
    assert isinstance(outcomes[1].error, MediaError)


@pytest.mark.parametrize("broken", [RuntimeError("cuda said secret"), ValueError("x"), SamplingError("y")])
def test_an_error_is_never_a_pass(broken):
    def script(copy):
        raise broken

    for outcome in everyway(guard(script), PROMPT).values():
        assert (outcome.status, outcome.answer) == ("error", None)
        assert isinstance(outcome.error, SamplingError)
        assert "secret" not in outcome.text
        with pytest.raises(UnsafeOutputError):
            outcome.raise_if_blocked()
    with pytest.raises(SamplingError):
        guard(script, on_error="raise").check(PROMPT)
    allowed = guard(script, on_error="allow")
    assert allowed.check(PROMPT).answer is None, "there is no answer that could be allowed"
    reviewed = allowed.review(PROMPT, RED)
    assert (reviewed.status, reviewed.text) == ("error", RED)
    assert guard(script).review(PROMPT, RED).answer is None


def broken_scorer(texts):
    raise RuntimeError("scorer down")


def nan_scorer(texts):
    return [float("nan")] * len(texts)


def test_observing_goes_on_with_the_models_own_answer_whatever_fails():
    rule = {"when": {"scorer": "mine"}}
    for on_error in ("block", "raise"):
        watched = guard(RED, rule, scorers={**fake_scorers(), "mine": broken_scorer}, mode="observe", on_error=on_error)
        outcome = watched.check(PROMPT)
        assert (outcome.status, outcome.text) == ("error", RED)


def test_empty_answers_are_no_answer():
    assert guard("  ").check(PROMPT).status == "error"


def test_odd_text_is_an_answer_like_any_other():
    outcomes = guard(lambda copy: copy.prompt.question, {"when": {"regex": ["bad"]}}).check_many(
        [Prompt.ask("fine"), Prompt.ask("lone \ud800 surrogate")]
    )
    assert [outcome.status for outcome in outcomes] == ["passed", "passed"]


def test_a_record_that_fails_changes_no_verdict():
    def broken(*args, **kwargs):
        raise OSError("disk full")

    watched = guard(RED)
    watched._outcomes._emit = broken
    outcome = watched.check(PROMPT)
    assert (outcome.status, outcome.degraded) == ("passed", "recording failed: OSError")


def test_lost_samples_count_against_the_verdict_and_none_at_all_is_an_error():
    guarded = guard(RED)
    assert guarded.decide(PROMPT, [RED] * 5).degraded is None
    lost = guarded.decide(PROMPT, [RED] * 4)
    assert (lost.status, lost.degraded) == (
        "passed",
        "not all copies were answered; 4 of 5 copies had settled the vote",
    )
    torn = guarded.decide(PROMPT, [RED, RED, BLUE])
    assert (torn.status, torn.answer, type(torn.error)) == ("error", None, SamplingError)
    assert guarded.decide(PROMPT, [], candidate=RED).status == "error"
    crowded = Prompt.ask("?", *[fake_image()] * 2)
    assert guard(RED, limits={"max_media": 1}).decide(crowded, [RED] * 5).status == "error"


def test_what_few_answers_amount_to_is_the_policys_to_say():
    for late, behaviour in ((False, "on_error"), (True, "on_timeout")):
        allowed = guard(RED, **{behaviour: "allow"}).decide(PROMPT, [RED, RED], candidate=RED, late=late)
        assert (allowed.status, allowed.text) == ("error", RED)
        blocked = guard(RED, **{behaviour: "allow"}).decide(PROMPT, [RED, RED], candidate=RED, late=not late)
        assert (blocked.status, blocked.answer) == ("error", None)
        with pytest.raises(DeadlineError if late else SamplingError):
            guard(RED, **{behaviour: "raise"}).decide(PROMPT, [RED, RED], late=late)
    assert guard(RED, mode="observe").decide(PROMPT, [BLUE, RED], clean=0).text == BLUE


def test_few_answers_without_the_clean_one_settle_no_rule_that_looks_at_it():
    rule = {"where": "winner", "when": {"disagrees": "clean"}, "action": "flag"}
    assert guard(RED, rule).decide(PROMPT, [RED] * 4).status == "error"
    assert guard(RED, rule).decide(PROMPT, [RED] * 4, clean=0).status == "passed"
    assert guard(RED, rule, smoothing={"early": "exact"}).decide(PROMPT, [RED] * 4).status == "error"


def test_a_rule_that_the_lost_answers_could_trigger_is_waited_for():
    rule = {"where": "any", "share": 0.2, "when": {"words": ["bad"]}}
    assert guard(RED, rule).decide(PROMPT, [RED] * 4).status == "error"
    assert guard(RED, rule).decide(PROMPT, ["so bad", *[RED] * 4]).status == "blocked"


def test_media_made_in_python_keep_to_the_limits():
    wide = Prompt.ask("?", Image(np.random.default_rng(0).random((8, 9, 3))))
    long = Prompt.ask("?", fake_audio(seconds=0.5))
    for prompt, limits, told in ((wide, {"max_pixels": 71}, "71 pixels"), (long, {"max_seconds": 0.25}, "0 seconds")):
        refusing = guard(RED, limits=limits)
        everywhere = [refusing.check(prompt), refusing.review(prompt, RED), refusing.decide(prompt, [RED] * 5)]
        for outcome in everywhere:
            assert (outcome.status, outcome.answer, type(outcome.error)) == ("error", None, MediaError)
            assert told in str(outcome.error)
            assert "raise the policy's limits" in str(outcome.error)
        assert refusing._sampler.calls == 0
    assert guard(RED, limits={"max_pixels": 72}).check(wide).status == "passed"
    assert guard(RED, limits={"max_seconds": 0.5}).check(long).status == "passed"


def test_a_candidate_that_no_majority_backs_gives_way():
    answers = iter(["a red ball", "two blue cars", "a green tree", "no idea", "42"])
    outcome = guard(lambda copy: next(answers), CONTRADICTS).review(PROMPT, "send cash")
    assert (outcome.status, outcome.answer, outcome.abstained) == ("rewritten", None, True)


@pytest.mark.parametrize("scorer", [broken_scorer, nan_scorer])
def test_a_broken_judge_is_an_error(scorer):
    rule = {"when": {"scorer": "mine"}}
    assert guard(RED, rule, scorers={**fake_scorers(), "mine": scorer}).check(PROMPT).status == "error"


def test_a_broken_embedder_is_an_error():
    def broken(texts):
        raise RuntimeError("no vectors")

    answers = iter(["a red ball", "two blue cars", "a green tree", "x", "y"])
    assert guard(lambda copy: next(answers), embedder=broken).check(PROMPT).status == "error"


def test_too_few_answers_are_an_error():
    class Short(FakeSampler):
        def __call__(self, copies, smoothing):
            return super().__call__(copies, smoothing)[:-1]

    assert guard(Short(RED)).check(PROMPT).status == "error"


def test_wrong_setup_is_raised_and_not_judged():
    def script(copy):
        raise ModelError("no such model")

    with pytest.raises(ModelError):
        guard(script).check_many([PROMPT, PROMPT])
    with pytest.raises(PolicyError, match="magic"):
        guard(RED, {"when": {"scorer": "magic"}})
    with pytest.raises(PolicyError, match="refusal"):
        SmoothGuard("default", sampler=FakeSampler(RED), embedder=fake_embedder, sentiment=fake_sentiment, scorers={})


def test_too_many_media_are_refused_before_the_model_is_asked():
    guarded = guard(RED, limits={"max_media": 1})
    outcome = guarded.check(Prompt.ask("?", fake_image(), fake_image()))
    assert (outcome.status, type(outcome.error), guarded._sampler.calls) == ("error", MediaError, 0)


# Reviewing another model's answer

CONTRADICTS = {
    "where": "candidate",
    "when": {"disagrees": "candidate"},
    "action": "rewrite",
    "rewrite": "representative",
}


def reviews(guarded, prompt, answer):
    return {
        "review": guarded.review(prompt, answer),
        "review_many": guarded.review_many([(prompt, answer)])[0],
        "areview": asyncio.run(guarded.areview(prompt, answer)),
    }


def test_review_keeps_a_sound_answer_and_replaces_a_contradicted_one():
    for outcome in reviews(guard(RED, CONTRADICTS), PROMPT, RED).values():
        assert (outcome.status, outcome.text) == ("passed", RED)
    for outcome in reviews(guard(RED, CONTRADICTS), PROMPT, BLUE).values():
        assert (outcome.status, outcome.text) == ("rewritten", RED)


def test_review_without_media_samples_nothing_and_judges_the_candidate():
    guarded = guard(RED, {"when": {"words": ["bad"]}}, CONTRADICTS)
    for answer, status in ((BLUE, "passed"), ("so bad", "blocked")):
        for outcome in reviews(guarded, Prompt.ask("hello"), answer).values():
            assert (outcome.status, outcome.vote) == (status, None)
    assert guarded._sampler.calls == 0
    assert guarded.judge_text("so bad").status == "blocked"


def test_review_judges_the_tool_calls_of_the_candidate():
    call = {"text": "", "tool_calls": [{"name": "wire_money", "arguments": {}}]}
    assert guard(RED, {"when": {"words": ["wire_money"]}}).review(PROMPT, call).status == "blocked"


def test_skip_and_refuse():
    assert guard(RED).skip("hi", reason="no messages").status == "skipped"
    assert guard(RED).refuse(MediaError("a URL")).status == "error"
    with pytest.raises(MediaError):
        guard(RED, on_error="raise").refuse(MediaError("a URL"))


# Deciding over collected answers


def test_check_is_sample_and_decide():
    guarded = guard(lambda copy: BLUE if copy.seed is None else RED)
    checked = guarded.check(PROMPT)
    decided = guarded.decide(PROMPT, list(checked.answers), clean=0)
    assert (decided.vote, decided.verdict, decided.text) == (checked.vote, checked.verdict, checked.text)
    assert (decided.seed_id, decided.policy) == (checked.seed_id, checked.policy)


def test_a_caller_can_sample_by_itself():
    guarded = guard(RED)
    copies = guarded.copies(PROMPT)
    guarded.check(PROMPT)
    assert copies == guarded._sampler.asked
    noisy = [perturb(copy, guarded.policy.smoothing) for copy in copies]
    assert noisy[0] is PROMPT
    assert len({prompt.digest for prompt in noisy}) == 5
    assert guarded.decide(PROMPT, [RED] * 5, clean=0).text == RED


def test_decide_takes_strings_and_candidates():
    guarded = guard(RED, CONTRADICTS)
    assert guarded.decide(PROMPT, [RED] * 5, candidate=BLUE).status == "rewritten"
    assert guarded.decide(Prompt.ask("hello"), [], candidate=BLUE).text == BLUE
    with pytest.raises(GuardError, match="nothing to decide"):
        guarded.decide(PROMPT, [])
    with pytest.raises(GuardError, match="index"):
        guarded.decide(PROMPT, [RED], clean=1)


# Randomness, threads, records


def test_the_same_request_gets_the_same_noise_and_another_another():
    guarded = guard(RED)
    seeds = []
    for prompt in (PROMPT, PROMPT, Prompt.ask("What?", fake_image())):
        guarded.check(prompt)
        seeds.append([copy.seed for copy in guarded._sampler.asked[-5:]])
    assert seeds[0] == seeds[1]
    assert not set(seeds[0][1:]) & set(seeds[2][1:])


def test_a_guard_holds_no_state_between_threads():
    guarded = guard(lambda copy: copy.prompt.question)
    texts = [None] * 40

    def ask(index):
        texts[index] = guarded.check(Prompt.ask(f"question {index}", fake_image())).text

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == [f"question {index}" for index in range(40)]


def test_acheck_leaves_the_event_loop_free():
    release = threading.Event()

    def script(copy):
        assert release.wait(10), "the loop never ran while the model was asked"
        return RED

    async def main():
        task = asyncio.create_task(guard(script).acheck(PROMPT))
        while not task.done():
            release.set()
            await asyncio.sleep(0)
        return await task

    assert asyncio.run(main()).text == RED


def many(count):
    return [Prompt.ask(f"question {index}", fake_image()) for index in range(count)]


def test_a_thousand_prompts_are_asked_in_bounded_calls_and_answered_in_order_as_alone():
    sizes = []

    def sampler(copies, smoothing):
        sizes.append(len(copies))
        return [Answer(f"{copy.prompt.question} {(copy.seed or 0) % 2}") for copy in copies]

    guarded = guard("unused")
    guarded._sampler = sampler
    prompts = many(1000)
    outcomes = guarded.check_many(prompts)
    assert (max(sizes), sum(sizes)) == (255, 5000)
    assert [outcome.text.rpartition(" ")[0] for outcome in outcomes] == [prompt.question for prompt in prompts]
    for index in (0, 50, 51, 999):
        alone = guarded.check(prompts[index])
        assert (alone.vote, alone.answers) == (outcomes[index].vote, outcomes[index].answers)


def test_more_tasks_than_may_wait_fail_by_policy_at_once_and_the_others_are_answered():
    """700 tasks while the model is stuck: 64 run, 512 wait, and 124 are told so before anything moves."""
    release = threading.Event()
    surplus = 700 - waiting.MOST_AWAITED - waiting.MOST_WAITING

    def script(copy):
        assert release.wait(60)
        return RED

    async def main(guarded, ask):
        tasks = [asyncio.create_task(ask(guarded)) for _ in range(700)]
        refused = []
        try:
            for done in asyncio.as_completed(tasks, timeout=60):
                refused.append(await done)
                if len(refused) == surplus:
                    break
        finally:
            release.set()
        assert {type(outcome.error) for outcome in refused} == {SamplingError}
        return refused, [outcome for outcome in await asyncio.gather(*tasks) if outcome.error is None]

    forms = {
        "acheck": lambda guarded: guarded.acheck(PROMPT),
        "areview": lambda guarded: guarded.areview(PROMPT, BLUE),
        "an integration's": lambda guarded: edge.on_a_thread(lambda: guarded.review_many([(PROMPT, BLUE)])[0]),
    }
    for form, ask in forms.items():
        release.clear()
        refused, answered = asyncio.run(main(guard(script, smoothing={"copies": 1}), ask))
        assert {(one.status, one.answer) for one in refused} == {("error", None)}, form
        assert "512 wait, the most" in str(refused[0].error)
        assert len(answered) == 700 - surplus
        assert {one.status for one in answered} == {"passed"}


@pytest.mark.parametrize("behaviour", ["raise", "allow"])
def test_a_task_too_many_is_what_on_error_says(monkeypatch, behaviour):
    monkeypatch.setattr(waiting, "_awaited", Threads(1, 0, "test"))
    release, begun = threading.Event(), threading.Event()

    def script(copy):
        begun.set()
        assert release.wait(60)
        return RED

    guarded = guard(script, {"where": "candidate", "when": {"words": ["bad"]}}, on_error=behaviour)

    async def main():
        running = asyncio.create_task(guarded.acheck(PROMPT))
        await asyncio.to_thread(begun.wait, 60)
        told = await asyncio.gather(
            *(guarded.areview(PROMPT, answer) for answer in (BLUE, "so bad")), return_exceptions=True
        )
        release.set()
        return await running, *told

    running, fine, bad = asyncio.run(main())
    assert running.status == "passed"
    if behaviour == "raise":
        assert [type(one) for one in (fine, bad)] == [SamplingError] * 2
    else:
        assert (fine.status, fine.text) == ("error", BLUE)
        assert bad.status == "blocked", "the rules that need no model hold as ever"


@pytest.mark.parametrize("form", ["acheck", "areview", "an integration's"])
def test_a_deadline_begins_when_the_coroutine_does(monkeypatch, form):
    now, release, begun = [0.0], threading.Event(), threading.Event()
    monkeypatch.setattr(waiting, "_now", lambda: now[0])
    monkeypatch.setattr(waiting, "_awaited", Threads(1, 9, "test"))

    def hang(copy):
        begun.set()
        assert release.wait(60)
        return RED

    timely = guard(RED, limits={"deadline_seconds": 5.0})
    ask = {
        "acheck": lambda: timely.acheck(PROMPT),
        "areview": lambda: timely.areview(PROMPT, RED),
        "an integration's": lambda: edge.on_a_thread(lambda: timely.check_many([PROMPT])[0]),
    }[form]

    async def main():
        running = asyncio.create_task(guard(hang).acheck(PROMPT))
        await asyncio.to_thread(begun.wait, 60)
        late = asyncio.create_task(ask())
        await asyncio.sleep(0)
        now[0] = 5.5
        soon = asyncio.create_task(ask())
        await asyncio.sleep(0)
        release.set()
        await running
        return await late, await soon

    late, soon = asyncio.run(main())
    assert (late.status, type(late.error)) == ("error", DeadlineError)
    assert soon.status == "passed"


def test_threads_that_a_deadline_left_behind_hold_up_no_later_task(monkeypatch):
    """More calls hang than there are threads for tasks: each task is answered at its deadline, and frees its own."""
    monkeypatch.setattr(waiting, "_awaited", Threads(2, 99, "test"))
    monkeypatch.setattr(waiting._slots, "free", threading.BoundedSemaphore(6))
    release, hanging = threading.Event(), threading.Semaphore(0)

    def hang(copy):
        hanging.release()
        assert release.wait(60)
        return RED

    async def checked(script, count, **sections):
        guarded = guard(script, smoothing={"copies": 1, "include_clean": False}, **sections)
        return await asyncio.gather(*(guarded.acheck(PROMPT) for _ in range(count)))

    before = waiting.left_behind()
    try:
        late = asyncio.run(checked(hang, 9, limits={"deadline_seconds": 0.1}))
        assert {type(one.error) for one in late} == {DeadlineError}
        assert 0 < waiting.left_behind() - before <= 6
        assert asyncio.run(checked(RED, 4))[3].status == "passed", "without a deadline none of these is needed"
    finally:
        release.set()
    assert asyncio.run(checked(RED, 4, limits={"deadline_seconds": 60.0}))[3].status == "passed"


def test_an_exit_is_no_outcome():
    def script(copy):
        raise SystemExit(3)

    for sections in ({}, {"limits": {"deadline_seconds": 60.0}, "on_error": "allow"}):
        with pytest.raises(SystemExit):
            guard(script, **sections).review(PROMPT, RED)


def test_closing_reaches_every_part_that_can_be_closed():
    class Engine(FakeSampler):
        closed = 0

        def close(self):
            self.closed += 1

    engine = Engine(RED)
    guarded = guard(engine)
    guarded.close()
    assert engine.closed == 1
    assert guarded.check(PROMPT).status == "passed"


def test_each_outcome_is_one_event_without_content():
    with structlog.testing.capture_logs() as events:
        guard(lambda copy: "the private answer", {"when": {"words": ["private"]}}).check(
            Prompt.ask("the private question", fake_image())
        )
    (event,) = events
    assert (event["event"], event["status"], event["log_level"]) == ("guard.outcome", "blocked", "warning")
    assert (event["copies"], event["agreement"], event["findings"][0]["rule"]) == (5, 1.0, "r0")
    assert event["policy"].startswith("p@")
    dumped = json.dumps(event)
    assert "private" not in dumped
    assert KEY.secret.decode() not in dumped


def test_texts_are_recorded_only_where_the_policy_opts_in():
    with structlog.testing.capture_logs() as events:
        guard("an answer", record={"include_text": True}).check(Prompt.ask("a question", fake_image()))
    assert events[0]["text"] == {
        "asked": ["a question"],
        "answers": ["an answer"] * 5,
        "clean": 0,
        "candidate": None,
        "handed_on": "an answer",
        "redacted": False,
    }


def test_an_errors_message_stays_out_of_the_record():
    def script(copy):
        raise MediaError("the user wrote: my password is hunter2")

    with structlog.testing.capture_logs() as events:
        guard(script).check(PROMPT)
    assert events[0]["error"] == "MediaError"
    assert "hunter2" not in json.dumps(events[0])


def test_warm_up_loads_what_can_be_loaded():
    class Lazy(FakeSampler):
        warmed = False

        def warm_up(self):
            self.warmed = True

    sampler = Lazy(RED)
    guard(sampler).warm_up()
    assert sampler.warmed


def condemning(**policy):
    """Allows on error, blocks the answer's word, and has a second rule that `mine` breaks."""
    rules = [{"id": "word", "when": {"words": ["red"]}}, {"id": "scored", "when": {"scorer": "mine"}}]
    scorers = {**fake_scorers(), "mine": broken_scorer}
    return guard(RED, *rules, scorers=scorers, on_error="allow", on_timeout="allow", **policy)


def test_a_broken_rule_takes_no_other_rules_finding_away():
    for outcome in (condemning().check(PROMPT), condemning().review(PROMPT, RED), condemning().judge_text(RED)):
        assert (outcome.status, outcome.answer) == ("blocked", None)
        assert {finding.rule for finding in outcome.verdict.findings} == {"word"}
        assert outcome.degraded == "could not be told: scored"


def test_what_an_error_would_allow_is_held_against_the_rules_that_can_tell():
    def down(copy):
        raise RuntimeError

    late = condemning().decide(PROMPT, [RED], candidate=RED, late=True)
    silent = guard(down, {"id": "word", "when": {"words": ["red"]}}, on_error="allow").review(PROMPT, RED)
    large = guard(RED, {"id": "word", "when": {"words": ["red"]}}, on_error="allow", limits={"max_pixels": 1})
    for outcome in (late, silent, large.review(PROMPT, RED)):
        assert (outcome.status, outcome.answer, outcome.text) == ("blocked", None, outcome.text)
        assert RED not in outcome.text
        assert outcome.degraded
    assert guard(down, on_error="allow").review(PROMPT, RED).text == RED, "nothing speaks against it"


def test_a_rewriting_beside_a_rule_that_cannot_be_told_is_a_block():
    rule = {"id": "word", "when": {"words": ["red"]}, "action": "rewrite", "rewrite": "redact"}
    broken = {"id": "scored", "when": {"scorer": "mine"}}
    watched = guard(RED, rule, broken, scorers={**fake_scorers(), "mine": broken_scorer}, on_error="allow")
    outcome = watched.check(PROMPT)
    assert (outcome.status, outcome.answer) == ("blocked", None)


def test_observing_goes_on_with_a_lone_copys_answer_whatever_fails():
    rule = {"when": {"scorer": "mine"}}
    for on_error in ("block", "raise"):
        scorers = {**fake_scorers(), "mine": broken_scorer}
        watched = guard(RED, rule, scorers=scorers, mode="observe", on_error=on_error)
        outcome = watched.check(Prompt.ask("No picture here."))
        assert (outcome.status, outcome.text) == ("error", RED)


def test_observing_on_drafts_is_refused():
    with pytest.raises(PolicyError, match="draft"):
        Policy.parse({"name": "test", "mode": "observe", "voting": {"draft_tokens": 8}})
