"""What the guard costs a text-only message beside the model itself: the runnable against a bare RunnableLambda.

Run: ``python benchmarks/overhead.py [--calls N]``. Scorers, embedder and models are fakes, and the records are dropped:
what is left is LangChain's own cost of a step, reading the messages, the policy's rules, and the verdict. ``invoke``,
``ainvoke`` name their messages; ``chain`` is a chat model before the step, whose messages the recorder has to find.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableLambda

from benchmarks.measured import digest, today
from langchain_smoothguard import SmoothGuardRunnable
from sg_guardrails import Policy, SmoothGuard
from sg_guardrails.testing import FakeSampler, fake_embedder, fake_scorers, fake_sentiment

RESULT = Path(__file__).parent / "results" / "overhead.json"
BOUND_MS = 1.0
"""The project's bound for the median of ``invoke``."""


def same(value: Any) -> Any:
    """The bare step."""
    return value


async def asame(value: Any) -> Any:
    """The bare step, asynchronous."""
    return value


def timed(call: Callable[[], Any], calls: int) -> list[float]:
    """Milliseconds of each call, after a tenth as many to warm up."""
    for _ in range(calls // 10):
        call()
    times = []
    for _ in range(calls):
        began = time.perf_counter()
        call()
        times.append((time.perf_counter() - began) * 1000)
    return times


def timed_async(step: Any, value: Any, calls: int) -> list[float]:
    """As `timed`, all awaited on one loop."""

    async def run() -> list[float]:
        times = []
        for number in range(calls // 10 + calls):
            began = time.perf_counter()
            await step.ainvoke(value)
            if number >= calls // 10:
                times.append((time.perf_counter() - began) * 1000)
        return times

    return asyncio.run(run())


def figures(times: list[float]) -> dict[str, float]:
    """Median and 95th percentile, milliseconds."""
    return {"median_ms": round(statistics.median(times), 4), "p95_ms": round(statistics.quantiles(times, n=20)[-1], 4)}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--json", type=Path, default=RESULT)
    options = parser.parse_args()
    code = digest(Path(__file__))
    guard = SmoothGuard(
        Policy.load("default"),
        sampler=FakeSampler("unasked"),
        embedder=fake_embedder,
        sentiment=fake_sentiment,
        scorers=fake_scorers(),
        emit=lambda *_, **__: None,
    )
    step, bare = SmoothGuardRunnable(guard=guard, recorder="explicit"), RunnableLambda(same, afunc=asame)
    asked = [HumanMessage("What is the capital of France?")]
    value = {"messages": asked, "output": AIMessage("It is Paris.")}
    model = FakeListChatModel(responses=["It is Paris."])
    plain = model | bare
    unguarded = figures(timed(lambda: plain.invoke(asked), options.calls))
    finding = model | SmoothGuardRunnable(guard=guard)  # from here on the recorder follows every run of the process
    results = {
        "chain": {"bare": unguarded, "guarded": figures(timed(lambda: finding.invoke(asked), options.calls))},
        "invoke": {
            "bare": figures(timed(lambda: bare.invoke(value), options.calls)),
            "guarded": figures(timed(lambda: step.invoke(value), options.calls)),
        },
        "ainvoke": {
            "bare": figures(timed_async(bare, value, options.calls)),
            "guarded": figures(timed_async(step, value, options.calls)),
        },
    }
    added = {name: round(one["guarded"]["median_ms"] - one["bare"]["median_ms"], 4) for name, one in results.items()}
    report = {
        "date": today(),
        "code": code,
        "calls": options.calls,
        "policy": guard.policy.id,
        **results,
        "added_median_ms": added,
        "bound_ms": BOUND_MS,
        "within_bound": {name: cost < BOUND_MS for name, cost in added.items()},
    }
    options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
