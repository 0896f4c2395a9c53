"""OpenTelemetry: what spans and metrics hold, what they never hold, and Prometheus behind them."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as gen_ai
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics

from sg_guardrails import Policy, Prompt, SmoothGuard
from sg_guardrails.record.telemetry import Telemetry
from sg_guardrails.testing import FakeSampler, fake_embedder, fake_image, fake_scorers, fake_sentiment

RULES = [
    {"id": "bad", "category": "harm", "when": {"words": ["bad"]}, "action": "block"},
    {"id": "seen", "when": {"words": ["watched"]}, "action": "block", "mode": "observe"},
]
PROMPT = Prompt.ask("a private question", fake_image())


@pytest.fixture
def collected():
    spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    return spans, reader, tracers, MeterProvider([reader])


def guard(collected, script, **sections):
    _, _, tracers, meters = collected
    return SmoothGuard(
        Policy.parse({"name": "p", "rules": RULES, "smoothing": {"copies": 4}, **sections}),
        sampler=FakeSampler(script),
        embedder=fake_embedder,
        sentiment=fake_sentiment,
        scorers=fake_scorers(),
        emit=Telemetry(tracer_provider=tracers, meter_provider=meters),
    )


def points(reader, name):
    data = reader.get_metrics_data()
    found = [
        metric
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == name
    ]
    return [] if not found else list(found[0].data.data_points)


def test_a_decision_is_a_span_with_its_findings_as_evaluations(collected):
    checked = guard(collected, "a bad private answer")
    checked.check(PROMPT)
    [span] = collected[0].get_finished_spans()
    assert span.name == "guard p"
    assert span.attributes["smoothguard.status"] == "blocked"
    assert span.attributes["smoothguard.policy.hash"] == checked.policy.hash
    assert span.attributes[gen_ai.GEN_AI_REQUEST_MODEL] == checked.policy.model.id
    assert span.attributes[gen_ai.GEN_AI_OPERATION_NAME] == "chat"
    assert span.attributes[gen_ai.GEN_AI_PROVIDER_NAME] == "sg_guardrails"
    assert span.attributes[gen_ai.GEN_AI_REQUEST_CHOICE_COUNT] == 5
    [event] = span.events
    assert event.name == "gen_ai.evaluation.result"
    assert event.attributes[gen_ai.GEN_AI_EVALUATION_NAME] == "bad"
    assert event.attributes[gen_ai.GEN_AI_EVALUATION_SCORE_LABEL] == "block"
    assert span.end_time > span.start_time


def test_nothing_said_or_shown_is_in_them(collected):
    guard(collected, "a bad private answer").check(PROMPT)
    told = collected[0].get_finished_spans()[0].to_json() + collected[1].get_metrics_data().to_json()
    assert "private" not in told
    assert PROMPT.digest not in told
    assert PROMPT.media[0].digest not in told


def test_decisions_are_counted_by_status_rule_and_policy(collected):
    reader = collected[1]
    checked = guard(collected, ["bad"] * 5 + ["watched"] * 5 + ["one", "two", "three", "four", "five"])
    for _ in range(3):
        checked.check(PROMPT)
    counted = {
        (
            point.attributes["smoothguard.status"],
            point.attributes["smoothguard.would_have"],
            point.attributes["smoothguard.abstained"],
        ): point.value
        for point in points(reader, "smoothguard.outcomes")
    }
    assert counted == {("blocked", "none", False): 1, ("passed", "block", False): 1, ("passed", "none", True): 1}
    rules = {
        (point.attributes["smoothguard.rule"], point.attributes["smoothguard.observed"]): point.value
        for point in points(reader, "smoothguard.findings")
    }
    assert rules == {("bad", False): 1, ("seen", True): 1}
    [copies] = points(reader, "smoothguard.copies")
    assert (copies.count, copies.sum) == (3, 15)
    stages = {point.attributes["smoothguard.stage"] for point in points(reader, "smoothguard.duration")}
    assert {"sample", "vote", "judge", "total"} <= stages


def test_latency_is_a_histogram_by_the_conventions_name_and_by_stage(collected):
    checked = guard(collected, "fine")
    timings = [checked.check(PROMPT).timings["total"] for _ in range(3)]
    [whole] = points(collected[1], gen_ai_metrics.GEN_AI_CLIENT_OPERATION_DURATION)
    assert whole.count == 3
    assert whole.sum == pytest.approx(sum(timings) / 1000)
    assert len(whole.bucket_counts) == 15
    assert set(whole.attributes) == {"gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model"}
    by_stage = {point.attributes["smoothguard.stage"]: point for point in points(collected[1], "smoothguard.duration")}
    assert by_stage["total"].sum == pytest.approx(whole.sum)
    assert all(point.attributes["smoothguard.policy.hash"] == checked.policy.hash for point in by_stage.values())


def test_an_error_is_told_by_its_type_alone(collected):
    def script(copy):
        raise ValueError("the user wrote: my private words")

    guard(collected, script).check(PROMPT)
    [span] = collected[0].get_finished_spans()
    assert span.attributes["error.type"] == "SamplingError"
    assert not span.status.is_ok
    assert "private" not in span.to_json()
    [point] = points(collected[1], "smoothguard.outcomes")
    assert point.attributes["smoothguard.status"] == "error"


def test_a_degraded_decision_is_counted_as_such(collected):
    guard(collected, "x").decide(PROMPT, ["fine"] * 3)
    [point] = points(collected[1], "smoothguard.outcomes")
    assert (point.attributes["smoothguard.degraded"], point.attributes["smoothguard.status"]) == (True, "passed")


def test_the_span_is_the_callers_child(collected):
    with collected[2].get_tracer("service").start_as_current_span("request") as parent:
        guard(collected, "x").check(PROMPT)
    child = next(span for span in collected[0].get_finished_spans() if span.name == "guard p")
    assert child.parent.span_id == parent.get_span_context().span_id


def test_prometheus_reads_the_same_counts():
    exporter = pytest.importorskip("opentelemetry.exporter.prometheus")
    client = pytest.importorskip("prometheus_client")
    meters = MeterProvider([exporter.PrometheusMetricReader()])
    try:
        guard((None, None, TracerProvider(), meters), "bad").check(PROMPT)
        page = client.generate_latest(client.REGISTRY).decode()
    finally:
        meters.shutdown()
    lines = [line for line in page.splitlines() if line.startswith("smoothguard_outcomes")]
    assert any('smoothguard_status="blocked"' in line and line.endswith(" 1.0") for line in lines), page
    assert "smoothguard_duration_seconds_bucket" in page


def test_without_a_provider_nothing_is_sent_and_nothing_fails():
    checked = SmoothGuard(
        "default",
        sampler=FakeSampler("x"),
        embedder=fake_embedder,
        sentiment=fake_sentiment,
        scorers=fake_scorers(),
        emit=Telemetry(),
    )
    assert checked.check(PROMPT).degraded is None
