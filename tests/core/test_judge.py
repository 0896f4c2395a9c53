"""The judge: what each condition matches, shares, actions, and what is handed on."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sg_guardrails import Answer, GuardError, Policy, PolicyError, ToolCall, Vote
from sg_guardrails.core.conditions import Seen, matches
from sg_guardrails.core.judge import Case, hand_on, judge, missing_parts, missing_scorers
from sg_guardrails.testing import fake_scorers

REDACT = {"action": "rewrite", "rewrite": "redact", "share": 0}


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


def test_what_earlier_parts_have_settled_asks_no_later_one():
    def unasked(texts):
        pytest.fail("asked")

    scorers = {"mine": unasked}
    bad, mine = {"words": ["bad"]}, {"scorer": "mine"}
    for when, text, found in (
        ({"all": [bad, mine]}, "good", False),
        ({"any": [bad, mine]}, "bad", True),
        ({"all": [{"any": [bad, mine]}, {"not": {"all": [{"words": ["worse"]}, mine]}}]}, "bad", True),
    ):
        (rule,) = policy({"when": when}).rules
        assert matches(rule.when, [Seen.of(Answer(text))], Case(scorers=scorers)).tolist() == [found]


def test_some_texts_unsettled_ask_the_later_part_of_all():
    (rule,) = policy({"when": {"all": [{"words": ["bad"]}, {"scorer": "mine"}]}}).rules
    asked = Case(scorers={"mine": lambda texts: [1.0] * len(texts)})
    assert matches(rule.when, [Seen.of(Answer("good")), Seen.of(Answer("bad"))], asked).tolist() == [False, True]


def test_where_a_rule_looks():
    spoken = case("good", "good", "bad", members=2, candidate="fine", question="bad")
    one = ("candidate", "user")
    where = {
        place: action({"words": ["bad"]}, spoken, where=place, **({} if place in one else {"share": 0.3}))
        for place in ("answer", "winner", "any", *one)
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


def test_a_rules_own_text_stands_before_its_categorys_and_that_before_the_policys():
    texts = {"blocked": "policy's", "categories": {"harm": "category's"}}
    bad = {"when": {"words": ["bad"]}, "category": "harm"}
    for rule in (bad, {**bad, "action": "rewrite"}, {**bad, "action": "rewrite", "rewrite": "redact"}):
        assert handed({**rule, "text": "rule's"}, case("bad"), texts={**texts, "redacted": "bad"})[2] == "rule's"
        assert handed(rule, case("bad"), texts={**texts, "redacted": "bad"})[2] == "category's"
    plain = {"when": {"words": ["bad"]}}
    assert handed({**plain, "text": "rule's", "action": "raise"}, case("bad"))[2] == "rule's"
    mild = {**plain, "action": "rewrite", "text": "mild"}
    rules = policy(mild, {**plain, "text": "strict"})
    assert hand_on(rules, judge(rules, case("bad")), case("bad"))[2] == "strict"


def test_a_contradicting_candidate_gives_way_to_the_majority():
    rule = {"where": "candidate", "when": {"disagrees": "candidate"}, "action": "rewrite", "rewrite": "representative"}
    seen = case("red", "red", candidate=Answer("blue", (ToolCall("paint"),)), disagrees=lambda kind: True)
    assert handed(rule, seen) == ("rewritten", Answer("red"), "red")


def test_a_majority_that_is_at_fault_itself_never_stands_in():
    rules = policy(
        {"where": "candidate", "when": {"disagrees": "candidate"}, "action": "rewrite", "rewrite": "representative"},
        {"where": "answer", "when": {"words": ["bad"]}, "action": "rewrite", "rewrite": "representative"},
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


# What a policy can look at beyond words and scores


def looks(*answers, question="", **changes):
    return replace(case(*answers, question=question), **changes)


@pytest.mark.parametrize(
    "hidden", ["\u0435vil", "\u0415V\u0399L", "ev\u0131l", "\u1d07\u1d20\u026a\u029f", "\u0435\u0475\u0456\u04cf"]
)
def test_words_and_patterns_are_found_in_look_alike_letters(hidden):
    assert action({"words": ["evil"]}, case(f"visit {hidden} now")) == "block"
    assert action({"regex": ["(?i)visit evil"]}, case(f"visit {hidden} now")) == "block"


def test_the_language_of_answer_and_user():
    other = {"language_other_than": "en"}
    assert action(other, case("Der Hund sitzt auf dem Sofa.")) == "block"
    assert action(other, case("The dog is on the sofa.")) == "allow"
    assert action({**other, "of": "user"}, case("A dog.", question="Was ist auf dem Bild?")) == "block"


def test_any_text_condition_can_look_at_user_and_pictures():
    seen = looks("fine", question="nice", pictured=lambda: ["ignore this", "say evil"])
    assert action({"words": ["evil"], "of": "picture"}, seen) == "block"
    assert action({"words": ["nice"], "of": "user"}, seen) == "block"
    assert action({"words": ["nice"]}, seen) == "allow"
    both = {"all": [{"scorer": "unsafe_request", "of": "picture"}, {"not": {"scorer": "refusal"}}]}
    assert action(both, looks("Sure.", pictured=lambda: ["how to kill it"])) == "block"
    assert action(both, looks("I cannot.", pictured=lambda: ["how to kill it"])) == "allow"
    assert action(both, looks("Sure.")) == "allow"


def test_one_picture_of_many_and_one_turn_of_many_are_enough():
    many = looks("fine", asked=("bad", "b", "c", "d"), pictured=lambda: ["a", "b", "c", "bad"])
    found = judge(policy({"where": "picture", "when": {"words": ["bad"]}}), many).findings
    assert [(finding.where, finding.share) for finding in found] == [("picture", 0.25)]
    assert action({"words": ["bad"]}, many, where="user") == "block"


def test_pictures_are_read_only_for_rules_that_ask():
    def never():
        raise AssertionError("nobody asked for the pictures' text")

    assert action({"words": ["x"]}, looks("a", pictured=never)) == "allow"


def test_every_cluster_of_a_share():
    split = case("good", "good", "good", "bad", "bad", members=3)
    assert action({"words": ["bad"]}, split) == "allow"
    assert action({"words": ["bad"]}, split, where="clusters") == "block"
    assert action({"words": ["bad"]}, split, where="clusters", over=0.5) == "allow"
    assert judge(policy({"where": "clusters", "when": {"words": ["bad"]}}), split).findings[0].where == "cluster"


def test_the_answer_under_review_counts_where_clusters_do():
    under_review = looks("good", candidate=Answer("bad"))
    assert action({"words": ["bad"]}, under_review, where="clusters") == "block"
    alone = Case(candidate=Answer("bad"))
    assert action({"words": ["bad"]}, alone, where="clusters") == "block"


@pytest.mark.parametrize("said", ["pass\u0332word", "pass\U000e0100word", "pass\u180bword", "pa\u0301ssword"])
def test_marks_on_letters_hide_nothing(said):
    for when in ({"words": ["password"]}, {"regex": ["password"]}):
        assert action(when, case(f"Enter your {said} now.")) == "block"


def call(name, **arguments):
    return {"text": "", "tool_calls": [{"name": name, "arguments": arguments}]}


@pytest.mark.parametrize(
    ("rule", "answer", "found"),
    [
        ({"allowed": ["search"]}, call("search", q="cats"), False),
        ({"allowed": ["search"]}, call("delete"), True),
        ({"allowed": ["search"]}, "no call at all", False),
        ({"allowed": []}, call("search"), True),
        ({"denied": ["shell"]}, call("SHELL"), True),
        ({"denied": ["shell"]}, call("sh\u0435ll"), True),
        ({"denied": ["shell"]}, call("search"), False),
        ({"arguments": {"mail": {"to": r"[a-z]+@ours\.example"}}}, call("mail", to="bob@ours.example"), False),
        ({"arguments": {"mail": {"to": r"[a-z]+@ours\.example"}}}, call("mail", to="bob@ours.example.evil"), True),
        ({"arguments": {"mail": {"to": "[a-z]+"}}}, call("mail", to=["a", "b"]), True),
        ({"arguments": {"mail": {"to": "[a-z]+"}}}, call("mail", subject="hi"), False),
        ({"arguments": {"mail": {"n": "[0-9]"}}}, call("mail", n=3), False),
        ({"arguments": {"mail": {"n": "[0-9]"}}}, call("other", n="x"), False),
    ],
)
def test_tool_calls_in_order(rule, answer, found):
    assert (action({"tool_calls": rule}, case(answer), share=0) == "block") is found


def test_a_call_passes_only_where_every_copy_makes_it():
    rule = {"tool_calls": {"unanimous": True}}
    pay = call("pay", to="bob")
    assert action(rule, case(pay, pay, pay)) == "allow"
    assert action(rule, case(pay, pay, call("pay", to="eve"), members=2)) == "block"
    assert action(rule, case(pay, pay, "no call", members=2)) == "block"
    assert action(rule, case("fine", "fine", pay, members=2)) == "allow"
    assert action(rule, case("fine", "fine", candidate=pay)) == "block"
    assert action(rule, case(pay, pay, candidate=pay)) == "allow"
    assert action(rule, case(candidate=pay)) == "allow"


def test_words_and_patterns_see_what_arguments_hide_in_json_and_line_breaks():
    for body in ("click\nhere", '{"deep": ["click\\u0020here"]}', ["a", {"b": "click\there"}]):
        for place in ("answer", "tools"):
            assert action({"words": ["click here"]}, case(call("post", body=body)), where=place) == "block"
            assert action({"regex": [r"click\s+here"]}, case(call("post", body=body)), where=place) == "block"


def test_patterns_may_span_lines_and_hold_to_them():
    answer = "Sure.\n  Password:  \n\nhunter2"
    assert action({"regex": [r"(?m)^Password:$"]}, case(answer)) == "block"
    assert action({"regex": [r"Password:\n\nhunter"]}, case(answer)) == "block"
    assert action({"regex": [r"(?m)^hunter2$"], "of": "user"}, case("a", question=answer)) == "block"
    assert action({"regex": [r"(?m)^hunter2$"]}, looks("a", pictured=lambda: [answer]), where="picture") == "block"
    assert action({"regex": [r"(?m)^Sure$"]}, case(answer)) == "allow"
    redacted = handed({**REDACT, "when": {"regex": [r"(?m)^hunter\d$"]}}, case(answer))
    assert redacted[2] == "Sure.\n  Password:  \n\n[removed]"


def test_tools_are_looked_at_without_the_text():
    answer = {"text": "secret", "tool_calls": [{"name": "send", "arguments": {"body": "plain"}}]}
    assert action({"words": ["secret"]}, case(answer), where="tools") == "allow"
    assert action({"words": ["plain"]}, case(answer), where="tools") == "block"
    assert action({"words": ["plain"]}, case("x", candidate=answer), where="tools") == "block"


# Judges, examples, classifiers


ASKS = {"judge": {"question": "Does it insult anybody?"}}


def test_a_judges_probability_is_held_against_the_bound():
    asked = []

    def fair(items):
        asked.extend(items)
        return [0.7 if "fool" in item.text else 0.1 for item in items]

    insult = looks("You fool.", question="Hm?", judges={"guard": fair})
    assert action(ASKS, insult) == "block"
    assert action({**ASKS, "above": 0.8}, insult) == "allow"
    assert action(ASKS, looks("Blue.", judges={"guard": fair})) == "allow"
    assert "Hm?" in asked[0].instruction.question
    assert action({**ASKS, "of": "user"}, looks("x", question="fool", judges={"guard": fair})) == "block"
    assert [turn.role for turn in asked[-1].turns.messages] == ["user"]


def test_a_judge_is_told_whose_words_it_judges():
    asked = []

    def judging(items):
        asked.extend(items)
        return [0.0] * len(items)

    whole = {"question": "Hm?", "pictured": lambda: ["a sign"], "judges": {"guard": judging}}
    guard = {"judge": {"preset": "llama_guard"}}

    def told(when, **rule):
        asked.clear()
        action(when, looks("An answer.", **whole), **rule)
        [item] = asked
        return (
            item.text,
            [turn.role for turn in item.turns.messages],
            "ONLY THE LAST Agent" in item.instruction.question,
        )

    assert told(guard) == ("An answer.", ["user", "assistant"], True)
    assert told(guard, where="user") == ("Hm?", ["user"], False)
    assert told(guard, where="picture") == ("a sign", ["user"], False)
    assert told({**guard, "of": "user"}) == ("Hm?", ["user"], False)
    assert told({**guard, "of": "picture"}) == ("a sign", ["user"], False)
    assert told({**guard, "of": "picture"}, where="user") == ("a sign", ["user"], False)


def test_a_pinned_judge_goes_by_model_and_revision():
    rule = {"when": {"judge": {"question": "Is it rude?", "model": "org/judge", "revision": "v1"}}}
    assert missing_parts(policy(rule), [], ["org/judge"], reads_pictures=True) == ["the judge 'org/judge@v1'"]
    pinned = looks("x", judges={"org/judge@v1": lambda items: [1.0], "org/judge": lambda items: [0.0]})
    assert action(rule["when"], pinned) == "block"


@pytest.mark.parametrize("given", [[0.1, 0.2], [float("nan")], [1.5], [-0.1], [], "0"])
def test_a_judge_that_gives_no_probability_is_an_error(given):
    with pytest.raises(GuardError):
        judge(policy({"when": {"not": ASKS}}), looks("a", judges={"guard": lambda items: given}))


def test_what_a_guard_lacks_is_told_in_words():
    rules = policy(
        {"when": {"any": [ASKS, {"judge": {"preset": "llama_guard", "model": "ours"}}]}},
        {"when": {"classifier": {"id": "org/toxic", "label": "bad", "revision": "v1"}}},
        {"when": {"scorer": "magic"}},
        {"when": {"near": ["a"]}, "where": "picture"},
    )
    assert missing_parts(rules, ["refusal"], ["guard"], reads_pictures=False) == [
        "a reader of text in pictures (pip install 'sg-guardrails[ocr]')",
        "the classifier org/toxic v1 bad",
        "the judge 'ours'",
        "the scorer 'magic'",
    ]
    held = ["magic", "classifier org/toxic v1 bad"]
    assert missing_parts(rules, held, ["guard", "ours"], reads_pictures=True) == []
    for lacking in (
        {"judge": {"preset": "llama_guard", "model": "ours"}},
        {"near": ["a"]},
        {"classifier": {"id": "x"}},
    ):
        with pytest.raises(PolicyError):
            judge(policy({"when": lacking}), case("x"))


CONDITIONS = [
    {"words": ["bad", "two words"]},
    {"regex": ["b.d"]},
    {"language_other_than": "en"},
    {"scorer": "refusal"},
    {"scorer": "unsafe_request", "of": "user"},
    {"agreement_below": 0.6},
    {"disagrees": "candidate"},
    {"tool_calls": {"denied": ["x"]}},
    {"words": ["bad"], "of": "picture"},
    ASKS,
]
TEXTS = st.lists(
    st.sampled_from(["bad", "I cannot", "fine", "Der Hund ist auf dem Sofa", "two  words", ""]), min_size=1
)


@settings(deadline=None)  # the first example loads the language model
@given(st.sampled_from(CONDITIONS), st.sampled_from(CONDITIONS), TEXTS, st.booleans())
def test_a_condition_and_its_denial_part_all_texts(one, other, texts, pictured):
    when, rest = (policy({"when": {key: [one, other]}}).rules[0].when for key in ("all", "any"))
    denied = policy({"when": {"not": {"all": [one, other]}}}).rules[0].when
    neither = policy({"when": {"all": [{"not": one}, {"not": other}]}}).rules[0].when
    whole = looks(
        *texts, question="bad", pictured=lambda: ["bad"] * pictured, judges={"guard": lambda items: [0.5] * len(items)}
    )
    seen = [Seen.of(answer) for answer in whole.answers]
    assert (matches(when, seen, whole) ^ matches(denied, seen, whole)).all()
    assert (matches(rest, seen, whole) ^ matches(neither, seen, whole)).all()


# Rewriting


def test_a_match_is_taken_out_and_the_rest_stays_as_it_was():
    rule = {**REDACT, "when": {"words": ["evil.example", "bad"]}}
    assert (
        handed(rule, case("Go to  Ev\u200bil.example,\nnow. BAD bad!"))[2]
        == "Go to  [removed],\nnow. [removed] [removed]!"
    )
    assert handed(rule, case("b\u00e1d \u0184\u0430d"), texts={"redacted": "#"})[2].startswith("#")
    digits = {**REDACT, "when": {"regex": [r"[0-9]{4}", r"[0-9]+-[0-9]+"]}}
    assert handed(digits, case("card 1234-5678 ok"))[2] == "card [removed] ok"


def test_what_cannot_be_taken_out_is_blocked():
    rule = {**REDACT, "when": {"words": ["evil"]}}
    answer = {"text": "evil", "tool_calls": [{"name": "visit", "arguments": {"url": "evil"}}]}
    assert handed(rule, case(answer), texts={"blocked": "no"}) == ("blocked", None, "no")
    assert handed(rule, case("evil"), texts={"redacted": "evil"})[0] == "blocked"
    other = {"when": {"words": ["good"]}}
    rules = policy(rule, {**other, "action": "rewrite", "rewrite": "redact", "where": "candidate"})
    seen = case("evil", candidate="good evil")
    assert hand_on(rules, judge(rules, seen), seen)[2] == "[removed] [removed]"


def test_redact_needs_something_to_take_out():
    for when, where in (
        ({"scorer": "refusal"}, "answer"),
        ({"not": {"words": ["x"]}}, "answer"),
        ({"words": ["x"]}, "user"),
        ({"words": ["x"], "of": "picture"}, "answer"),
    ):
        with pytest.raises(PolicyError, match="redact"):
            policy({**REDACT, "when": when, "where": where})


@given(st.text(st.sampled_from("evil EVIL\u0435\u200b\u0301\u00e9.\n-\uff49"), max_size=30))
def test_redaction_never_leaves_a_match(text):
    rule = {**REDACT, "when": {"any": [{"words": ["evil", "e"]}, {"regex": ["(?i)l+i"]}]}}
    rules, seen = policy(rule), case(text + " evil")
    status, answer, said = hand_on(rules, judge(rules, seen), seen)
    assert status in ("rewritten", "blocked")
    if status == "rewritten":
        assert judge(rules, case(said)).action == "allow"
    else:
        assert answer is None


def test_the_safest_cluster_speaks():
    rule = {"when": {"words": ["bad"]}, "action": "rewrite", "rewrite": "safest"}
    labels = (0, 0, 0, 1, 1, 2)
    answers = [Answer(text) for text in ("bad", "bad", "good", "fine", "bad", "clean")]
    seen = Case((), answers, Vote(labels, 0, 0, 0.5, True, (3.0, 2.0, 1.0)), scorers=fake_scorers())
    assert handed(rule, seen) == ("rewritten", Answer("clean"), "clean")
    assert handed(rule, case("bad", "bad"), texts={"blocked": "no"}) == ("blocked", None, "no")
    assert handed(rule, case(candidate="bad"))[0] == "blocked"


def test_the_model_rewrites_once_and_is_judged_again():
    rule = {"when": {"words": ["bad"]}, "action": "rewrite", "rewrite": "model"}
    asked = []

    def rewriter(said):
        return lambda text: (asked.append(text), said)[1]

    assert handed(rule, looks("so bad", rewriter=rewriter("so good"))) == ("rewritten", Answer("so good"), "so good")
    assert asked == ["so bad"]
    for said in ("still bad", "", "  "):
        assert handed(rule, looks("bad", rewriter=rewriter(said)))[0] == "blocked"
    assert handed(rule, looks("bad"))[0] == "blocked"
    assert len(asked) == 4


def test_a_rewriter_that_fails_leaves_nothing_to_hand_on():
    def broken(text):
        raise RuntimeError("out of memory")

    rule = {"when": {"words": ["bad"]}, "action": "rewrite", "rewrite": "model"}
    assert handed(rule, looks("bad", rewriter=broken), texts={"blocked": "no"}) == ("blocked", None, "no")


def test_rules_that_want_different_rewritings_get_the_policys_text():
    found = {"when": {"words": ["bad"]}}
    rules = policy({**found, **REDACT}, {**found, "action": "rewrite", "rewrite": "safest"})
    seen = case("bad", "good", members=1)
    assert hand_on(rules, judge(rules, seen), seen) == ("rewritten", None, rules.texts.rewritten)
