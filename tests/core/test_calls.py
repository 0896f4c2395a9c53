"""Tool calls: who may be called, with what, and everything that arguments say."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sg_guardrails import Policy, PolicyError, ToolCall
from sg_guardrails.core.calls import Calls, disorderly, strings, wording


def wrong(rules, name, **arguments):
    return disorderly([ToolCall(name, arguments)], Calls.model_validate(rules))


@pytest.mark.parametrize("name", ["Shell", "SHELL", "sh\u0435ll", "\uff53hell", "sh\u200bell"])
def test_denied_names_fold_and_allowed_ones_do_not(name):
    assert wrong({"denied": ["shell"]}, name)
    assert wrong({"allowed": ["shell"]}, name)
    assert not wrong({"allowed": ["shell"]}, "shell")


def test_another_spelling_of_tool_or_argument_evades_no_pattern():
    rules = {"arguments": {"send_mail": {"to": r"[a-z]+@ours\.example"}}}
    assert not wrong(rules, "Send_Mail", TO="bob@ours.example")
    assert wrong(rules, "Send_Mail", to="eve@evil.example")
    assert wrong(rules, "send_mail", To="eve@evil.example")
    assert wrong(rules, "send_mail", to="BOB@ours.example")  # what is allowed is allowed as it is written


DENIES = {"denied_arguments": {"run": {"command": r"\brm\s+-rf\b"}}}


@pytest.mark.parametrize(
    "value",
    [
        "rm -rf /",
        "RM -RF /",
        "r\u200bm  -rf",
        "\uff52\uff4d -rf",
        "echo hi\nrm -rf /",
        ["ls", "rm -rf /"],
        {"deep": [{"er": ("x", "rm -rf /")}]},
        {"rm -rf": 1},
        json.dumps({"cmd": "rm\u0020-rf /"}),
        '{"cmd": "\\u0072m -rf /"}',
        json.dumps({"args": json.dumps(["RM -rf"])}),
        json.dumps("rm\n-rf"),
    ],
)
def test_a_denied_pattern_is_found_wherever_an_argument_holds_it(value):
    assert wrong(DENIES, "run", command=value)
    assert wrong(DENIES, "RUN", Command=value)
    assert wrong({"denied_arguments": {"*": {"*": r"\brm\s+-rf\b"}}}, "anything", x=value)
    assert not wrong(DENIES, "run", other=value)
    assert not wrong(DENIES, "other", command=value)


@pytest.mark.parametrize("value", ["ls", ["form -rf"], None, 3, 2.5, True, {}, [], "{not json", "[" * 5000])
def test_other_arguments_pass(value):
    assert not wrong(DENIES, "run", command=value)


def test_numbers_and_their_like_are_read_as_json():
    assert wrong({"denied_arguments": {"pay": {"amount": "^[0-9]{5,}$"}}}, "pay", amount=10_000)
    assert wrong({"denied_arguments": {"pay": {"*": "true"}}}, "pay", confirmed=True)
    assert not wrong({"denied_arguments": {"pay": {"*": "(?-i)TRUE"}}}, "pay", confirmed=True)


def test_a_calls_wording_hides_nothing_that_its_arguments_say():
    call = ToolCall("post", {"body": "click\nhere", "more": json.dumps({"x": "say\tevil"})})
    assert next(wording(call)) == call.canonical
    assert {"click\nhere", "say\tevil"} <= set(wording(call))
    assert list(wording(ToolCall("a", {"b": "plain"}))) == ['["a", {"b": "plain"}]']


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
)


@given(JSONS)
def test_every_string_is_seen_through_two_layers_of_json(value):
    plain = set(strings(value))
    assert plain <= set(strings([value]))
    if isinstance(value, dict | list) and value:
        assert plain <= set(strings(json.dumps(value)))
        assert plain <= set(strings(json.dumps({"arguments": json.dumps(value)})))


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({"allowed": ["Shell"], "denied": ["shell"]}, "both allowed and denied"),
        ({"allowed": ["search"], "arguments": {"serach": {"q": "x"}}}, "never looked at"),
        ({"allowed": ["search"], "denied_arguments": {"mail": {"q": "x"}}}, "never looked at"),
        ({"arguments": {"search": {}}}, "no argument"),
        ({"denied_arguments": {"*": {}}}, "no argument"),
        ({"arguments": {"search": {"q": "(?s).*"}}}, "every value"),
        ({"denied_arguments": {"search": {"q": "x*"}}}, "every text"),
        ({"denied": ["\u200b"]}, "nothing that can be seen"),
        ({"arguments": {" ": {"q": "x"}}}, "at least 1 character"),
        ({"denied": []}, "needs allowed"),
        ({"unanimous": False}, "needs allowed"),
    ],
)
def test_what_could_never_be_out_of_order_is_refused(rules, said):
    with pytest.raises(ValidationError, match=said):
        Calls.model_validate(rules)


def test_allowed_tools_may_have_patterns_and_any_tool_denied_ones():
    rules = {"allowed": ["search"], "arguments": {"Search": {"q": ".{1,9}"}}, "denied_arguments": {"*": {"*": "evil"}}}
    assert not wrong(rules, "search", q="cats")
    assert wrong(rules, "search", q="EVIL")


def test_a_mistake_in_a_pattern_is_told_with_its_line(tmp_path):
    file = tmp_path / "p.yaml"
    text = "name: p\nrules:\n- id: a\n  when:\n    tool_calls:\n      arguments:\n        mail:\n          to: '('\n"
    file.write_text(text)
    with pytest.raises(PolicyError) as caught:
        Policy.load(file)
    [told] = caught.value.mistakes
    assert told.startswith(f"{file}:8: rules.0.when.tool_calls.arguments.mail.to (rule 'a'): pattern '(' is not RE2")


@pytest.mark.parametrize("rules", [{"*": {"path": "/safe/.*"}}, {"read": {"*": "/safe/.*"}}])
def test_an_allow_list_for_any_name_is_refused_since_it_would_look_at_none(rules):
    with pytest.raises(ValidationError, match="denied_arguments alone"):
        Calls.model_validate({"arguments": rules})
