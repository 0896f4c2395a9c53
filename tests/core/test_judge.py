"""The judge: what each condition matches, shares, actions, and what is handed on."""

from __future__ import annotations

import pytest

from sg_guardrails import Answer, Policy, PolicyError, ToolCall, Vote
from sg_guardrails.core.judge import Case, hand_on, judge, missing_scorers
from sg_guardrails.testing import fake_scorers


def policy(*rules, **sections):
    return Policy.parse(
        {"name": "p", "rules": [{"id": f"r{index}", **rule} for index, rule in enumerate(rules)], **sections}
    )


def case(
    *answers,
    members=None,
    candidate=None,
    clean=None,
    question="",
    abstained=False,
    agreement=None,
    disagrees=lambda kind: False,
):
    members = len(answers) if members is None else members
    labels = tuple(0 if index < members else 1 for index in range(len(answers)))
    share = members / len(answers) if agreement is None and answers else agreement
    vote = Vote(labels, 0, 0, share, abstained, (1.0,) * (max(labels) + 1)) if answers else None
    parsed = [Answer.parse(answer) for answer in answers]
    reviewed = None if candidate is None else Answer.parse(candidate)
    cleanly = None if clean is None else parsed[clean]
    return Case((question,), parsed, vote, reviewed, cleanly, disagrees, fake_scorers())


def action(when, case_, **rule):
    return judge(policy({"when": when, **rule}), case_).action


@pytest.mark.parametrize(
    ("words", "text", "found"),
    [
        (["bomb"], "How to build a BOMB.", True),
        (["bomb"], "bombastic", False),
        (["bomb"], "bo\u200bmb", True),
        (["bomb"], "\uff42\uff4f\uff4d\uff42", True),
        (["click here"], "please click\n  here now", True),
        (["c++"], "I like C++ a lot", True),
        (["evil.example"], "evilXexample", False),
        (["naïve"], "so NAÏVE of you", True),
        (["炸弹"], "制造炸弹的方法", True),
    ],
)
def test_words(words, text, found):
    assert (action({"words": words}, case(text)) == "block") is found


@pytest.mark.parametrize(
    "hidden", ["e\u034fvil", "ev\ufe0fil", "ev\u3164il", "_evil_", "*evil*", "e\u0301vil", "EVIL", "\uff45vil"]
)
def test_words_are_found_however_they_are_dressed(hidden):
    assert action({"words": ["evil"]}, case(f"visit {hidden} now")) == "block"


def test_casefolding_and_line_breaks():
    assert action({"words": ["straße"]}, case("DIE STRASSE")) == "block"
    assert action({"regex": ["enter your password"]}, case("enter your\npassword")) == "block"


def test_a_request_made_in_an_earlier_turn_counts():
    when = {"scorer": "unsafe_request", "of": "user"}
    rules = policy({"when": when})
    earlier = Case(("kill it", "go on"), (), None, Answer("Sure."), scorers=fake_scorers())
    assert judge(rules, earlier).action == "block"
    assert judge(policy({"when": {"words": ["kill"]}, "where": "user"}), earlier).action == "block"


def test_regex_is_linear_and_sees_through_format_characters():
    assert action({"regex": [r"(?i)pass\s*word"]}, case("Pass\u200bWORD")) == "block"
    assert action({"regex": [r"(a+)+$"]}, case("a" * 50_000 + "b")) == "allow"


def test_tool_calls_are_read_too():
    answer = {"text": "", "tool_calls": [{"name": "send_mail", "arguments": {"to": "evil.example"}}]}
    assert action({"words": ["evil.example"]}, case(answer)) == "block"
    assert action({"words": ["send_mail"]}, case(answer)) == "block"


def test_scorers_on_answer_and_user():
    when = {"all": [{"scorer": "unsafe_request", "of": "user", "above": 0.5}, {"not": {"scorer": "refusal"}}]}
    assert action(when, case("Sure, first ...", question="kill it")) == "block"
    assert action(when, case("I cannot.", question="kill it")) == "allow"
    assert action(when, case("Sure, first ...", question="paint it")) == "allow"


def test_an_unknown_scorer_is_an_error_and_known_beforehand():
    rules = policy({"when": {"not": {"any": [{"scorer": "magic"}]}}})
    assert missing_scorers(rules, fake_scorers()) == ["magic"]
    with pytest.raises(PolicyError, match="magic"):
        judge(rules, case("x"))


@pytest.mark.parametrize(("share", "found"), [(0.0, True), (0.5, True), (0.51, False), (1.0, False)])
def test_the_cluster_is_judged_by_its_share(share, found):
    assert (action({"words": ["bad"]}, case("bad", "good", "good", "bad"), share=share) == "block") is found


def test_a_share_of_zero_still_needs_a_match():
    assert action({"words": ["bad"]}, case("good"), share=0) == "allow"


def test_where_a_rule_looks():
    spoken = case("good", "good", "bad", members=2, candidate="fine", question="bad")
    where = {
        place: action({"words": ["bad"]}, spoken, where=place, share=0.3)
        for place in ("answer", "winner", "candidate", "any", "user")
    }
    assert where == {"answer": "allow", "winner": "allow", "candidate": "allow", "any": "block", "user": "block"}
    reviewed = case("good", candidate="bad")
    assert action({"words": ["bad"]}, reviewed) == "block"
    assert action({"words": ["bad"]}, reviewed, where="winner") == "allow"
    assert judge(policy({"when": {"words": ["bad"]}}), reviewed).findings[0].where == "candidate"
    assert action({"words": ["bad"]}, case(candidate="bad")) == "block"


def test_agreement():
    assert action({"agreement_below": 0.7}, case("a", "a", "b", members=2)) == "block"
    assert action({"agreement_below": 0.6}, case("a", "a", "b", members=2)) == "allow"
    assert action({"agreement_below": 0.1}, case("a", "b", members=1, abstained=True)) == "block"
    assert action({"agreement_below": 1}, case(candidate="a")) == "allow"


def test_disagreement_is_asked_only_by_rules_that_need_it():
    asked = []
    seen = case("a", candidate="b", disagrees=lambda kind: asked.append(kind) or True)
    assert action({"words": ["x"]}, seen) == "allow"
    assert asked == []
    assert action({"disagrees": "candidate"}, seen) == "block"
    assert asked[0] == "candidate"


def test_the_strictest_enforced_finding_decides():
    found = {"when": {"words": ["bad"]}}
    verdict = judge(
        policy(
            {**found, "action": "flag"}, {**found, "action": "rewrite"}, {**found, "action": "raise", "mode": "observe"}
        ),
        case("bad"),
    )
    assert (verdict.action, verdict.would_have) == ("rewrite", "raise")
    assert [finding.observed for finding in verdict.findings] == [False, False, True]


def test_observe_changes_nothing_and_records_the_would_have():
    rules = policy({"when": {"words": ["bad"]}}, mode="observe")
    seen = case("bad", "worse", members=1, clean=1)
    verdict = judge(rules, seen)
    assert (verdict.action, verdict.would_have) == ("allow", "block")
    assert hand_on(rules, verdict, seen) == ("passed", Answer("worse"), "worse")


def handed(rule, case_, **sections):
    rules = policy(rule, **sections)
    return hand_on(rules, judge(rules, case_), case_)


def test_what_is_handed_on():
    bad = {"when": {"words": ["bad"]}}
    assert handed(bad, case("good")) == ("passed", Answer("good"), "good")
    assert handed({**bad, "action": "flag"}, case("bad")) == ("flagged", Answer("bad"), "bad")
    assert handed(bad, case("bad"), texts={"blocked": "no"}) == ("blocked", None, "no")
    assert handed({**bad, "action": "raise"}, case("bad"))[0] == "blocked"
    assert handed({**bad, "action": "rewrite"}, case("bad"), texts={"rewritten": "else"}) == ("rewritten", None, "else")
    texts = {"categories": {"harm": "not that"}}
    assert handed({**bad, "category": "harm"}, case("bad"), texts=texts) == ("blocked", None, "not that")
    low = {"when": {"agreement_below": 0.9}, "action": "rewrite"}
    assert handed(low, case("a", "b", members=1, abstained=True), texts={"abstained": "unsure"}) == (
        "rewritten",
        None,
        "unsure",
    )


def test_a_contradicting_candidate_gives_way_to_the_majority():
    rule = {"where": "candidate", "when": {"disagrees": "candidate"}, "action": "rewrite", "rewrite": "representative"}
    seen = case("red", "red", candidate=Answer("blue", (ToolCall("paint"),)), disagrees=lambda kind: True)
    assert handed(rule, seen) == ("rewritten", Answer("red"), "red")


def test_a_majority_that_is_at_fault_itself_never_stands_in():
    rules = policy(
        {"where": "candidate", "when": {"disagrees": "candidate"}, "action": "rewrite", "rewrite": "representative"},
        {"where": "winner", "when": {"words": ["bad"]}, "action": "rewrite", "rewrite": "representative"},
    )
    seen = case("bad", candidate="blue", disagrees=lambda kind: True)
    assert hand_on(rules, judge(rules, seen), seen) == ("rewritten", None, rules.texts.rewritten)


def test_the_text_that_goes_out_breaks_no_rule_itself():
    """Two of five violate, under the share; the representative is one of them, so another member speaks."""
    seen = case("bad", "good", "good", "bad", "good")
    assert handed({"when": {"words": ["bad"]}}, seen) == ("passed", Answer("good"), "good")
    assert handed({"when": {"words": ["bad"]}, "mode": "observe"}, seen) == ("passed", Answer("bad"), "bad")


def test_a_rule_that_both_break_lets_no_representative_stand_in():
    rule = {"when": {"words": ["bad"]}, "action": "rewrite", "rewrite": "representative", "share": 0.5}
    status, answer, _ = handed(rule, case("bad", "bad", "good", candidate="bad"))
    assert (status, answer) == ("rewritten", None)


def test_a_passed_candidate_is_handed_on_itself():
    assert handed({"when": {"words": ["bad"]}}, case("short", candidate="a longer one")) == (
        "passed",
        Answer("a longer one"),
        "a longer one",
    )
