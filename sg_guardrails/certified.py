"""A certified check: some copies choose an anchor, fresh ones are counted against it alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from sg_guardrails.asking import Asking, Poll
from sg_guardrails.core import certify, noise
from sg_guardrails.core.errors import GuardError, PolicyError
from sg_guardrails.core.types import Answer, Certificate, Prompt, Sampler
from sg_guardrails.core.vote import wording
from sg_guardrails.panel import Panel


def certified(
    prompt: Prompt,
    panel: Panel,
    asking: Asking,
    key: noise.Key,
    *,
    copies: int,
    anchor: int,
    confidence: float,
    judge_error: float,
) -> Poll:
    """The anchor's copies with their vote, which carries the certificate.

    All copies are noisy, of one sigma, and asked whole: no clean copy, early stop, second level or draft, whatever the
    policy says of them, since any of these would let an answer decide which answers are counted.

    Args:
        prompt: Pictures and text.
        panel: Votes and judges, by its policy.
        asking: How the model is reached.
        key: Of the noise.
        copies: Fresh copies to count.
        anchor: Copies that choose the anchor.
        confidence: Of each of the two statements.
        judge_error: Share of answers that the rules may call safe wrongly.

    Raises:
        PolicyError, GuardError: If no certificate would be valid; says what to change.
    """
    policy = panel.policy
    one = policy.smoothing.image.model_copy(update={"second_sigma": None})
    changes = {"copies": anchor + copies, "include_clean": False, "adaptive": None, "early": "off", "image": one}
    smoothing = policy.smoothing.model_copy(update=changes)
    certify.refuse_uncertifiable(prompt, smoothing, policy.voting, copies=copies, anchor=anchor)
    if not 0 <= judge_error < 1:
        raise GuardError(f"judge_error is a share of answers in [0, 1), got {judge_error}")
    values = _noisy_values(asking.sampler, prompt)
    poll = Poll(prompt, None, smoothing, noise.copies_of(prompt, smoothing, key))
    poll.due = len(poll.plan)
    asking.ask([poll])
    if poll.error is not None:
        return poll
    first, fresh = poll.answers[:anchor], poll.answers[anchor:]
    elected = panel.elect(first)
    sigma = smoothing.image.sigma
    agreeing, safe = panel.agreeing(first[elected.choice], fresh), _safe(panel, prompt, fresh)
    bound = partial(certify.bound, sigma=sigma, values=values, confidence=confidence)
    answer, verdict = bound("answer", agreeing, copies), bound("verdict", safe, copies, error=judge_error)
    proof = Certificate(elected.choice, answer, verdict, sigma, values, confidence, judge_error)
    poll.answers, poll.plan = first, poll.plan[:anchor]
    poll.vote = replace(elected, certificate=proof)
    return poll


def _noisy_values(sampler: Sampler, prompt: Prompt) -> int:
    count = getattr(sampler, "noisy_values", None)
    if count is None:
        raise PolicyError(
            "this sampler gives no certificate: noise must be added after resizing and without clipping, "
            "as a local Hugging Face model does; drop model.endpoint"
        )
    return int(count(prompt))


def _safe(panel: Panel, prompt: Prompt, answers: Sequence[Answer]) -> int:
    """How many answers, each judged as if it were the only one, break no rule; rules that only observe count too."""
    known: dict[tuple[str, ...], bool] = {}
    for answer in answers:
        if (said := wording(answer)) not in known:
            known[said] = panel.safe(prompt, answer)
    return sum(known[wording(answer)] for answer in answers)
