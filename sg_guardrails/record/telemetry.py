"""OpenTelemetry spans and metrics of each decision (extra ``otel``). Nothing is sent but where you configure it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sg_guardrails.core.errors import GuardError
from sg_guardrails.core.policy import Policy
from sg_guardrails.core.types import Outcome, Prompt

try:
    from opentelemetry import metrics, trace
    from opentelemetry.trace import Status, StatusCode
except ImportError as error:
    raise GuardError('telemetry needs OpenTelemetry: pip install "sg-guardrails[otel]"') from error

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

Attributes = dict[str, str | bool | int | float]
NAME = "sg_guardrails"
SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Bounds of the latency histogram, s: text rules take a millisecond, eleven answers of a large model take seconds."""
_CLIENT_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
"""The bounds that the GenAI conventions advise for ``gen_ai.client.operation.duration``, s."""
COPIES = (0, 1, 2, 3, 5, 8, 11, 16, 21, 31, 51, 101, 1001)


class Telemetry:
    """An `emit` that makes a span of each decision and counts it. No prompt, answer or digest of either is in it.

    Names are OpenTelemetry's GenAI conventions where these have one (``gen_ai.request.model``, the event
    ``gen_ai.evaluation.result`` of each finding), else they begin with ``smoothguard.``. Metrics:
    ``gen_ai.client.operation.duration`` (a whole decision by model, s), ``smoothguard.outcomes`` (by status, policy and
    its hash, and the flags abstained, degraded and would_have), ``smoothguard.findings`` (by rule and policy),
    ``smoothguard.copies`` and ``smoothguard.duration`` (by stage, s). The span is made when the decision stands, with
    the times it took, as a child of the caller's current span.

    Args:
        tracer_provider: Where spans go; None takes the process's global provider, which drops them until you set one.
        meter_provider: Likewise for metrics.
    """

    def __init__(
        self, *, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
    ) -> None:
        self._tracer = trace.get_tracer(NAME, tracer_provider=tracer_provider)
        meter = metrics.get_meter(NAME, meter_provider=meter_provider)
        self._outcomes = meter.create_counter("smoothguard.outcomes", unit="{decision}", description="Decisions made.")
        self._findings = meter.create_counter("smoothguard.findings", unit="{finding}", description="Rules matched.")
        self._copies = meter.create_histogram(
            "smoothguard.copies",
            unit="{answer}",
            description="Answers that the model was asked for.",
            explicit_bucket_boundaries_advisory=COPIES,
        )
        self._whole = meter.create_histogram(
            "gen_ai.client.operation.duration",
            unit="s",
            description="GenAI operation duration.",
            explicit_bucket_boundaries_advisory=_CLIENT_SECONDS,
        )
        self._duration = meter.create_histogram(
            "smoothguard.duration",
            unit="s",
            description="Time by stage.",
            explicit_bucket_boundaries_advisory=SECONDS,
        )

    def __call__(self, outcome: Outcome, *, prompt: Prompt, policy: Policy) -> None:
        """Record the decision."""
        del prompt
        name, _, digest = outcome.policy.partition("@")
        under: Attributes = {"smoothguard.policy.name": name, "smoothguard.policy.hash": digest}
        self._count(outcome, under)
        if "total" in outcome.timings:
            self._whole.record(outcome.timings["total"] / 1000, _operation(outcome, policy))
        end = time.time_ns()
        span = self._tracer.start_span(
            f"guard {name}",
            start_time=end - int(outcome.timings.get("total", 0.0) * 1e6),
            attributes=_attributes(outcome, policy) | under,
        )
        _findings_of(span, outcome)
        if outcome.error is not None:
            span.set_status(Status(StatusCode.ERROR))
        span.end(end)

    def _count(self, outcome: Outcome, under: Attributes) -> None:
        self._outcomes.add(1, _state(outcome) | under)
        for finding in outcome.verdict.findings if outcome.verdict is not None else ():
            rule: Attributes = {
                "smoothguard.rule": finding.rule,
                "smoothguard.category": finding.category,
                "smoothguard.action": finding.action,
                "smoothguard.observed": finding.observed,
            }
            self._findings.add(1, rule | under)
        if outcome.asked or outcome.answers:
            self._copies.record(outcome.asked or len(outcome.answers), under)
        for stage, milliseconds in outcome.timings.items():
            self._duration.record(milliseconds / 1000, {**under, "smoothguard.stage": stage})


def _state(outcome: Outcome) -> Attributes:
    would = outcome.verdict.would_have if outcome.verdict is not None else None
    return {
        "smoothguard.status": outcome.status,
        "smoothguard.abstained": outcome.abstained,
        "smoothguard.degraded": outcome.degraded is not None,
        "smoothguard.would_have": would or "none",
    }


def _operation(outcome: Outcome, policy: Policy) -> Attributes:
    """What the conventions want to know of every operation."""
    asked: Attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": NAME,
        "gen_ai.request.model": policy.model.id,
    }
    # The type alone: an error's message may quote what a user or an attacker wrote.
    return asked if outcome.error is None else {**asked, "error.type": type(outcome.error).__name__}


def _attributes(outcome: Outcome, policy: Policy) -> Attributes:
    smoothing = policy.smoothing
    attributes: Attributes = {
        **_operation(outcome, policy),
        "gen_ai.request.choice.count": outcome.asked or len(outcome.answers),
        "smoothguard.seed_id": outcome.seed_id,
        "smoothguard.sigma_image": smoothing.image.sigma,
        "smoothguard.noise_space": smoothing.image.space,
        "smoothguard.shift_image": smoothing.image.shift,
    }
    if outcome.vote is not None:
        attributes["smoothguard.agreement"] = outcome.vote.agreement
        attributes["smoothguard.clusters"] = len(outcome.vote.weights)
    return attributes | _state(outcome)


def _findings_of(span: Span, outcome: Outcome) -> None:
    for finding in outcome.verdict.findings if outcome.verdict is not None else ():
        span.add_event(
            "gen_ai.evaluation.result",
            {
                "gen_ai.evaluation.name": finding.rule,
                "gen_ai.evaluation.score.value": finding.share,
                "gen_ai.evaluation.score.label": finding.action,
                "smoothguard.observed": finding.observed,
                "smoothguard.where": finding.where,
                "smoothguard.severity": finding.severity,
            },
        )
