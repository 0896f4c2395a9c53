"""A certificate beside a check: some copies choose an anchor, fresh ones are counted against it alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from sg_guardrails.asking import Asking, Poll
from sg_guardrails.core import certify, noise
from sg_guardrails.core.errors import GuardError, PolicyError, SamplingError
from sg_guardrails.core.types import Answer, Certificate, Prompt, Sampler
from sg_guardrails.core.vote import wording
from sg_guardrails.panel import Panel


def certified(prompt: Prompt, panel: Panel, asking: Asking, key: noise.Key, sought: certify.Sought) -> Certificate:
    """What can be certified of the picture.

    All copies are noisy, of one sigma, and asked whole: no clean copy, early stop, second level or draft, whatever the
    policy says of them, since any of these would let an answer decide which answers are counted.

    Args:
        prompt: Pictures and text, which `core.certify.refuse_uncertifiable` has let pass.
        panel: Votes and judges, by its policy.
        asking: How the model is reached.
        key: Of the noise.
        sought: How many copies, and how surely.

    Raises:
        PolicyError: If the sampler's noise is not what a certificate is about.
        GuardError: If the copies could not be asked or judged.
    """
    policy, anchor = panel.policy, sought.anchor
    one = policy.smoothing.image.model_copy(update={"second_sigma": None})
    changes = {"copies": anchor + sought.copies, "include_clean": False, "adaptive": None, "early": "off", "image": one}
    smoothing = policy.smoothing.model_copy(update=changes)
    values = noisy_values(asking.sampler, prompt)
    poll = Poll(prompt, None, smoothing, noise.copies_of(prompt, smoothing, key))
    poll.due = len(poll.plan)
    asking.ask([poll])
    if poll.error is not None:
        raise poll.error
    first, fresh = poll.answers[:anchor], poll.answers[anchor:]
    try:
        chosen = first[panel.elect(first).choice]
        agreeing, safe = panel.agreeing(chosen, fresh), _safe(panel, prompt, fresh)
    except GuardError:
        raise
    except Exception as error:
        raise SamplingError(f"judging the copies failed: {type(error).__name__}") from error
    sigma = smoothing.image.sigma
    bound = partial(certify.bound, copies=sought.copies, sigma=sigma, values=values, confidence=sought.confidence)
    answer, verdict = bound("answer", agreeing), bound("verdict", safe, error=sought.judge_error)
    return Certificate(chosen, answer, verdict, sigma, values, sought.confidence, sought.judge_error)


def noisy_values(sampler: Sampler, prompt: Prompt) -> int:
    """Pixel values that take noise. Raises PolicyError for a sampler that cannot tell, or whose noise is clipped."""
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
