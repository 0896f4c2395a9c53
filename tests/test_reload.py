"""Reloading: the new policy takes over whole or not at all, is noted, and no check changes policy on its way."""

from __future__ import annotations

import inspect
import os
import threading

import pytest
import structlog

from sg_guardrails import Answer, GuardError, ModelError, Policy, PolicyError, Prompt, SmoothGuard
from sg_guardrails.record import policy_changed
from sg_guardrails.record.audit import AuditFile, read
from sg_guardrails.reload import ReloadingGuard, reloading
from sg_guardrails.testing import FakeSampler, fake_embedder, fake_image, fake_scorers, fake_sentiment

PROMPT = Prompt.ask("?", fake_image())


def build(policy, sampler=None):
    return SmoothGuard(
        policy,
        sampler=sampler or FakeSampler("an answer"),
        embedder=fake_embedder,
        sentiment=fake_sentiment,
        scorers=fake_scorers(),
    )


def write(path, copies, extra=""):
    path.write_text(f"name: p\nsmoothing: {{copies: {copies}}}\n{extra}")
    os.utime(path, ns=(copies * 10**9, copies * 10**9))  # the clock of a fast file system may stand still


@pytest.fixture
def file(tmp_path):
    write(tmp_path / "p.yaml", 3)
    return tmp_path / "p.yaml"


@pytest.fixture
def notes():
    return []


@pytest.fixture
def guard(file, notes):
    return reloading(file, build=build, note=notes.append)


def asked(guard):
    return guard.check(PROMPT).asked


def test_a_changed_file_takes_over_and_is_noted(guard, file, notes):
    old = guard.policy.id
    assert asked(guard) == 4
    write(file, 5)
    assert asked(guard) == 4
    change = guard.refresh()
    assert asked(guard) == 6
    assert (change.old, change.new, change.error) == (old, guard.policy.id, None)
    assert notes == [change]
    assert guard.refresh() is None
    assert guard.check(PROMPT).policy == guard.policy.id != old


@pytest.mark.parametrize("broken", ["name: [", "name: p\nsmothing: {}\n", "name: p\nextends: nowhere\n", None])
def test_an_invalid_policy_is_refused_and_the_old_one_stays(guard, file, notes, broken):
    old = guard.policy.id
    file.unlink() if broken is None else file.write_text(broken)
    change = guard.refresh()
    assert (change.old, change.new) == (old, None)
    assert str(file) in change.error or "p.yaml" in change.error
    assert asked(guard) == 4
    assert guard.refresh() is None, "told once, not at every look"
    write(file, 7)
    assert guard.refresh().new == guard.policy.id
    assert asked(guard) == 8
    assert len(notes) == 2


def test_a_policy_whose_model_cannot_be_loaded_is_refused(file, notes):
    class NoModel(FakeSampler):
        def warm_up(self):
            raise ModelError("no such model")

    guard = reloading(
        file,
        build=lambda policy: build(policy, NoModel("x") if policy.smoothing.copies == 5 else None),
        note=notes.append,
    )
    write(file, 5)
    assert guard.refresh().error == "no such model"
    assert asked(guard) == 4


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def looking(file, notes, clock):
    """A guard that looks at every call, whose models load only while `loadable` is true."""

    def made(policy):
        if not made.loadable:
            made.tries.append(clock.now)
            raise ModelError("out of reach")
        return build(policy)

    made.loadable, made.tries = True, []
    guard = ReloadingGuard(file, build=made, note=notes.append, check_every=0, clock=clock)
    return guard, made


def test_what_was_refused_for_a_passing_cause_is_tried_again_after_growing_waits(looking, file, notes, clock):
    guard, made = looking
    made.loadable = False
    write(file, 5)
    for now in range(800):
        clock.now = float(now)
        assert guard.current.policy.smoothing.copies == 3
    assert made.tries == [0, 1, 3, 7, 15, 31, 63, 127, 255, 511]
    assert [note.error for note in notes] == ["out of reach"], "one record, not one a try"
    made.loadable = True
    clock.now = 811.0
    assert asked(guard) == 6
    assert (notes[1].new, len(notes)) == (guard.policy.id, 2)


def test_the_waits_end_at_a_longest_one_and_begin_anew_with_another_file(looking, file, clock):
    guard, made = looking
    made.loadable = False
    write(file, 5)
    for now in range(2000):
        clock.now = float(now)
        assert guard.current.policy.smoothing.copies == 3
    assert made.tries[-3:] == [1111, 1411, 1711]
    write(file, 6)
    assert guard.current.policy.smoothing.copies == 3
    assert made.tries[-1] == 1999
    clock.now = 2000.0
    assert guard.current.policy.smoothing.copies == 3
    assert made.tries[-1] == 2000


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read every file")
def test_a_file_that_becomes_readable_again_takes_over_without_being_touched(looking, file, notes, clock):
    guard, _ = looking
    write(file, 5)
    file.chmod(0)
    assert asked(guard) == 4
    file.chmod(0o600)
    clock.now = 1.0
    assert asked(guard) == 6
    assert [note.new for note in notes] == [None, guard.policy.id]


def test_a_file_that_cannot_be_opened_for_a_moment_takes_over_afterwards(looking, file, notes, clock, monkeypatch):
    guard, _ = looking
    real = Policy.load

    def denied(source):
        raise PolicyError(f"{source}: cannot be read: PermissionError")

    write(file, 5)
    monkeypatch.setattr(Policy, "load", denied)
    assert asked(guard) == 4
    monkeypatch.setattr(Policy, "load", real)
    clock.now = 1.0
    assert asked(guard) == 6
    assert [note.new for note in notes] == [None, guard.policy.id]


def test_a_refresh_tries_a_refused_policy_again(looking, file, notes):
    guard, made = looking
    made.loadable = False
    write(file, 5)
    assert guard.refresh().error == "out of reach"
    assert guard.refresh() is None
    made.loadable = True
    assert guard.refresh().new == guard.policy.id
    assert guard.refresh() is None
    assert len(notes) == 2


def test_a_file_put_back_as_it_was_ends_the_refusal_in_the_record_too(guard, file, notes):
    was = file.read_text()
    file.write_text("name: [")
    guard.refresh()
    file.write_text(was)
    change = guard.refresh()
    assert (change.old, change.new, change.error) == (guard.policy.id, guard.policy.id, None)
    assert guard.refresh() is None
    assert len(notes) == 2


def test_a_file_that_changes_while_it_is_read_is_not_taken_half(looking, file, notes, clock, monkeypatch):
    guard, _ = looking
    real = Policy.load

    def while_written(source):
        policy = real(source)
        write(file, 6, "rules: [{id: any, when: {regex: ['.']}}]\n")
        return policy

    write(file, 5)
    monkeypatch.setattr(Policy, "load", while_written)
    assert asked(guard) == 4
    assert "changed while it was read" in notes[0].error
    monkeypatch.setattr(Policy, "load", real)
    assert guard.check(PROMPT).status == "blocked"
    assert asked(guard) == 7


def test_a_comment_changes_no_policy(guard, file, notes):
    write(file, 3, "# a remark\n")
    assert guard.refresh() is None
    assert notes == []


def test_what_the_file_extends_is_watched_too(tmp_path, notes):
    base = tmp_path / "base.yaml"
    write(base, 3)
    (tmp_path / "top.yaml").write_text("name: top\nextends: base.yaml\n")
    guard = reloading(tmp_path / "top.yaml", build=build, note=notes.append)
    write(base, 6)
    assert guard.refresh() is not None
    assert asked(guard) == 7


def test_there_must_be_a_valid_policy_to_begin_with(tmp_path):
    (tmp_path / "p.yaml").write_text("name: p\nsmothing: {}\n")
    with pytest.raises(PolicyError, match="smothing"):
        reloading(tmp_path / "p.yaml", build=build)
    with pytest.raises(PolicyError, match="missing"):
        reloading(tmp_path / "missing.yaml", build=build)


def test_calls_look_by_themselves_where_asked_to(file, notes):
    now = [0.0]
    guard = ReloadingGuard(file, build=build, note=notes.append, check_every=10, clock=lambda: now[0])
    write(file, 5)
    now[0] = 9
    assert asked(guard) == 4
    now[0] = 10
    assert asked(guard) == 6
    write(file, 6)
    now[0] = 11
    assert asked(guard) == 6
    now[0] = 20
    assert asked(guard) == 7


def test_a_check_ends_under_the_policy_it_began_with(file, notes):
    started, go_on = threading.Event(), threading.Event()

    def slow(copy):
        started.set()
        assert go_on.wait(20)
        return "an answer"

    guard = reloading(
        file, build=lambda policy: build(policy, FakeSampler(slow) if policy.smoothing.copies == 3 else None)
    )
    before, outcomes = guard.policy.id, []
    thread = threading.Thread(target=lambda: outcomes.append(guard.check(PROMPT)))
    thread.start()
    assert started.wait(20)
    write(file, 5, "rules: [{id: any, when: {regex: ['.']}}]\n")
    after = guard.refresh().new
    assert guard.check(PROMPT).status == "blocked"
    go_on.set()
    thread.join()
    assert (outcomes[0].policy, outcomes[0].asked, outcomes[0].status) == (before, 4, "passed")
    assert guard.policy.id == after != before


def test_threads_see_one_policy_or_the_other_and_never_a_mixture(file, notes):
    guard = reloading(file, build=build, note=notes.append)
    seen, stop = set(), threading.Event()

    def ask():
        while not stop.is_set():
            outcome = guard.check(PROMPT)
            seen.add((outcome.policy, outcome.asked))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    known = {(guard.policy.id, 4)}
    for copies in (4, 5, 6, 3, 7):
        write(file, copies)
        guard.refresh()
        known.add((guard.policy.id, copies + 1))
    stop.set()
    for thread in threads:
        thread.join()
    assert seen <= known


def test_every_call_of_a_guard_goes_to_the_one_in_force():
    public = {
        name
        for name, value in vars(SmoothGuard).items()
        if not name.startswith("_") and (inspect.isfunction(value) or isinstance(value, property))
    }
    assert public <= vars(ReloadingGuard).keys()


async def test_all_forms_answer_under_the_new_policy(guard, file):
    write(file, 3, "rules: [{id: any, when: {regex: ['.']}}]\n")
    guard.refresh()
    answer = Answer("x")
    outcomes = [
        *guard.check_many([PROMPT]),
        await guard.acheck(PROMPT),
        guard.review(PROMPT, answer),
        *guard.review_many([(PROMPT, answer)]),
        await guard.areview(PROMPT, answer),
        guard.judge_text(answer),
        guard.decide(PROMPT, ["x"] * len(guard.copies(PROMPT)), clean=0),
    ]
    assert {(outcome.status, outcome.policy) for outcome in outcomes} == {("blocked", guard.policy.id)}
    assert guard.skip(answer, reason="test").policy == guard.policy.id
    assert guard.refuse(GuardError("test")).policy == guard.policy.id
    guard.warm_up()


def test_changes_are_logged_and_audited(guard, file, tmp_path):
    audit = AuditFile(tmp_path / "audit.jsonl")
    write(file, 5)
    changed = guard.refresh()
    file.write_text("name: p\nsmothing: {}\n")
    refused = guard.refresh()
    with structlog.testing.capture_logs() as events:
        for change in (changed, refused):
            policy_changed(change)
            audit.policy_changed(change)
    assert [(event["event"], event["log_level"]) for event in events] == [
        ("policy.changed", "warning"),
        ("policy.refused", "error"),
    ]
    lines = [record for _, record in read(audit.path)]
    assert [(line["event"], line["new"]) for line in lines] == [
        ("policy.changed", changed.new),
        ("policy.refused", None),
    ]
    assert "smothing" in lines[1]["error"]


def test_a_guard_that_breaks_while_it_loads_is_refused_and_a_broken_log_stops_nothing(file):
    def build(policy):
        if len(built) == 1:
            raise RuntimeError("CUDA out of memory")
        built.append(policy)
        return SmoothGuard(
            policy,
            sampler=FakeSampler("x"),
            embedder=fake_embedder,
            sentiment=fake_sentiment,
            scorers=fake_scorers(),
        )

    def full(change):
        raise OSError("no space left")

    built = []
    guard = reloading(file, build=build, note=full)
    write(file, 7)
    change = guard.refresh()
    assert change is not None
    assert (change.new, "RuntimeError" in change.error) == (None, True)
    assert guard.check(PROMPT).policy == guard.policy.id
