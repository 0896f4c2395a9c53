"""Which calls an answer's words are from."""

import json

import pytest

from llama_index_smoothguard.capture import Call, account_for

LOG = "The gate closes at nine, says the log."
OWN = {
    "word for word": ([LOG], LOG),
    "in other letters and marks": ([LOG], "the gate CLOSES at nine - says the log"),
    "a part": ([f"Thought: easy. Answer: {LOG}"], "At nine."),
    "with words around it": ([LOG], f"In short: {LOG} (Source: log 4)"),
    "joined": (["Yes", "No"], "Response 1: Yes\n---------------------\nResponse 2: No"),
    "the same twice": (["Yes", "Yes"], "Response 1: Yes\n---------------------\nResponse 2: Yes"),
    "short": (["Answer: yes"], "Yes."),
    "no word at all": (["?"], "..."),
}
ANOTHERS = {
    "no call": ([], LOG),
    "no call, no word": ([], "..."),
    "a call that said nothing": (["", None], LOG),
    "other words": (["Which gate is it?"], LOG),
    "a choice": (["1"], "The gate at dock 1 is closed."),
    "a part of a word": (["he"], "The sheep are here."),
    "a reference alone": (["[1]"], "[1] The gate closes at nine."),
    "words that stand in any answer": (["yes", "1", "2", "3", "use 2"], "Choice 1: use 2 of 3 sticks"),
    "few of many words": (["The gate"], LOG),
}


def calls(said):
    return [Call("q", said=one) for one in said]


@pytest.mark.parametrize("name", OWN)
def test_an_answer_in_the_calls_words_is_theirs(name):
    said, text = OWN[name]
    assert account_for(calls(said), text)


@pytest.mark.parametrize("name", ANOTHERS)
def test_an_answer_in_other_words_is_not(name):
    said, text = ANOTHERS[name]
    assert not account_for(calls(said), text)


def test_a_structured_answer_is_compared_by_its_values():
    said = '```json\n{"log": 12, "place": {"name": "north gate", "docks": [1, 2]}}\n```'
    answer = '{"log":12,"place":{"name":"North gate","docks":[1,2]},"note":"none"}'
    assert account_for([Call("q", said=said)], answer)
    assert account_for([Call("q", said="", beside=("", said))], answer)
    assert not account_for([Call("q", said='{"choice": 3, "log": true}')], answer)
    assert not account_for([Call("q", said="1"), Call("q", said="use 2")], '{"plan": "use 2 of 3 sticks, or 1"}')
    assert not account_for([Call("q", said="[{" * 9000 + "}]" * 9000)], answer)


def test_brackets_that_nothing_closes_are_no_json():
    for said in ("{" * 200_000, "[" * 200_000, "}" * 200_000 + "{", "{]" * 100_000):
        assert not account_for([Call("q", said=said)], LOG)
    assert account_for([Call("q", said="so } it is: {" + f'"log": "{LOG}"' + "} [")], f'{{"log": "{LOG}"}}')
    many = json.dumps({"log": LOG, "numbers": list(range(200_000))})
    assert account_for([Call("q", said=f"```{many}```")], LOG)
