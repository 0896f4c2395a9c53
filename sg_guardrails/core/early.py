"""Early decision: how many votes settle a verdict, and the chance that copies not yet asked would unsettle it."""

from __future__ import annotations

from collections.abc import Collection
from math import comb

from sg_guardrails.core.policy import Policy
from sg_guardrails.core.rules import Rule
from sg_guardrails.core.terms import AgreementBelow, All, AnyOf, Condition, Disagrees, Not, Reads, ToolCalls, parts
from sg_guardrails.core.types import Finding

_VOTED = frozenset({"answer", "winner", "tools", "any", "clusters"})
"""Places where the share of the answers counts."""
_GIVEN = frozenset({"candidate", "user", "picture"})
"""Places that do not hang on the vote."""
_OWN_WORDS = frozenset({"text", "representative", "redact", "model"})
"""Rewritings that look at the leader alone; any other waits for every copy."""


def enough(policy: Policy, total: int, found: Collection[Finding] = ()) -> int:
    """The fewest of `total` votes for one wording after which no further answer changes verdict or winner.

    A wording with more than half of all votes wins whatever the others say, stays in one cluster (equal answers are
    never parted) and is its cluster's medoid (triangle inequality). So later answers can move shares only:
    with K votes for it, a rule that it matches holds a share of at least K/N of any cluster that it wins with,
    and one that it does not match at most (N - K)/N.

    Args:
        policy: One that votes by ``sameness`` and ``medoid``; other votes can part the winner and wait for all copies.
        total: N, every copy of the plan.
        found: What the judge finds in the leader's wording where it is the only answer.

    Returns:
        K in ``(N/2, N]``; N where nothing less is enough.
    """
    voting = policy.voting
    if voting.method != "sameness" or voting.representative != "medoid":
        return total
    places: dict[str, set[str]] = {}
    for finding in found:
        places.setdefault(finding.rule, set()).add(finding.where)
    for count in range(total // 2 + 1, total):
        if voting.refusal_veto is not None and (total - count) / total >= voting.refusal_veto:
            continue  # those still out could refuse
        if count / total > voting.min_agreement and all(
            _settled(rule, count / total, (total - count) / total, places.get(rule.id, set())) for rule in policy.rules
        ):
            return count
    return total


def _settled(rule: Rule, held: float, others: float, matches: Collection[str]) -> bool:
    """Whether a rule's finding is certain once the leader holds the share `held`, and `others` the rest at most.

    Whatever is not known here, a new kind of condition or place, is never certain.
    """
    if not all(_foreseen(part, held) for part in parts(rule.when)) or rule.where not in _VOTED | _GIVEN:
        return False
    if matches and rule.rewrite not in _OWN_WORDS:
        return False
    if rule.where in _GIVEN:
        return True
    if rule.where == "clusters" and not others < rule.over <= held:
        return False  # another cluster could come to count
    return held >= rule.share if set(matches) - _GIVEN else others < rule.share


def _foreseen(part: Condition, held: float) -> bool:
    """Whether no later answer changes what a condition says of the leader, which holds the share `held` for certain."""
    match part:
        case AgreementBelow():
            return held >= part.agreement_below
        case ToolCalls():
            return not part.tool_calls.unanimous
        case Reads() | Disagrees() | All() | AnyOf() | Not():
            return True
        case _:
            return False


def risk(agreeing: int, asked: int, left: int, lacking: int) -> float:
    """The chance that fewer than `lacking` of the `left` copies agree with the leader, as `agreeing` of `asked` did.

    The rate of agreement has a uniform prior, so the number X that agree is beta-binomial with a = agreeing + 1,
    b = asked - agreeing + 1 and ``P(X = x) = C(x+a-1, x) C(left-x+b-1, left-x) / C(left+a+b-1, left)``. That is the
    predictive probability of Lee and Liu (Clinical Trials 5(2), 2008); Aggarwal et al. (arXiv 2305.11860) stop the
    sampling of a model's answers by the same posterior.
    """
    a, b = agreeing + 1, asked - agreeing + 1
    below = sum(comb(x + a - 1, x) * comb(left - x + b - 1, left - x) for x in range(min(lacking, left + 1)))
    return below / comb(left + a + b - 1, left)


def fewest(agreeing: int, asked: int, left: int, lacking: int, alpha: float) -> int:
    """The fewest further copies after which, were they all to agree, the risk is at most `alpha`; `left` at most."""
    for more in range(left):
        if risk(agreeing + more, asked + more, left - more, lacking - more) <= alpha:
            return more
    return left
