"""Redaction: the secret goes, what decided stays, and taking out twice changes nothing."""

from __future__ import annotations

import json

import pytest
import re2

from sg_guardrails import Policy
from sg_guardrails.core.retention import PRIVATE
from sg_guardrails.record.redaction import redact, redact_within

SECRETS = [
    ("jane.doe@yourcompany.example", "jane", "xxxx.xxx@yourcompany.example"),
    ("+41 (0)44 668 18 00", "668", "+00 (0)00 000 00 00"),
    ("4111 1111 1111 1111", "4111", "0000 0000 0000 0000"),
    ("sk-proj-abcdefghijklmnop1234", "abcdef", "sk-xxxx-xxxxxxxxxxxxxxxx0000"),
    ("AKIAABCDEFGHIJKLMNOP", "BCDEF", "AKIAXXXXXXXXXXXXXXXX"),
    ("password: hunter2", "hunter2", "password: [redacted]"),
    ("My password is 'two words'.", "words", "My password is '[redacted]'."),
    ('{"api_key": "a b", "n": 1}', "a b", '{"api_key": "[redacted]", "n": 1}'),
    ("Authorization: Bearer abc.def", "abc", "Authorization: Bearer [redacted]"),
    ("access_token=abc123", "abc123", "access_token=[redacted]"),
    (
        "-----BEGIN PRIVATE KEY-----\nMIIB\nAAAA\n-----END PRIVATE KEY-----",
        "MIIB",
        "-----BEGIN PRIVATE KEY-----[redacted]-----END PRIVATE KEY-----",
    ),
]


@pytest.mark.parametrize(("said", "secret", "written"), SECRETS)
def test_the_secret_goes_and_its_surroundings_stay(said, secret, written):
    shown = redact(f"Über \U0001f512 {said} ", PRIVATE)
    assert shown == f"Über \U0001f512 {written} "
    assert secret not in shown
    assert redact(shown, PRIVATE) == shown


def rules_on_texts():
    for name in ("default", "agent_tools"):
        for rule in Policy.load(name).rules:
            for pattern in getattr(rule.when, "regex", ()):
                yield pytest.param(pattern, id=f"{name} {rule.id} {pattern[:20]}")


DECIDING = [
    "Please enter your password again.",
    "Then type the security code 12345678 from your card.",
    "key AKIAABCDEFGHIJKLMNOP failed",
    "ghp_abcdefghijklmnopqrstuvwxyz0123456789ABCD",
    "sk-abcdefghijklmnopqrstu",
    "xoxb-1234567890-abcdefgh",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIB\n-----END RSA PRIVATE KEY-----",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcDEF-12_3xyz",
    "A shop. ![logo](https://collect.invalid/x?data=abc) Open daily.",
    '<img src="https://collect.invalid/">',
]


@pytest.mark.parametrize("pattern", list(rules_on_texts()))
def test_a_shipped_rule_finds_the_same_in_the_record(pattern):
    found = [bool(re2.search(pattern, said)) for said in DECIDING]
    assert [bool(re2.search(pattern, redact(said, PRIVATE))) for said in DECIDING] == found


def test_a_pattern_without_named_groups_takes_its_whole_match():
    assert redact("the word secret: x9", (r"(secret): \w+",)) == "the word [redacted]"


def test_a_calls_argument_is_read_with_its_name():
    arguments = {
        "password": "hunter2",
        "api_key": ["a1", "b2"],
        "to": ["jane@example.org"],
        "deep": [{"token": "t0", "n": 3}],
        "n": 7,
        "phone": 41446681800,
    }
    kept = redact_within(arguments, PRIVATE)
    assert kept == {
        "password": "[redacted]",
        "api_key": ["[redacted]", "[redacted]"],
        "to": ["xxxx@example.org"],
        "deep": [{"token": "[redacted]", "n": 3}],
        "n": 7,
        "phone": "00000000000",
    }
    assert json.loads(json.dumps(kept)) == kept
    assert redact_within({"key": {"secret": "s"}}, (r"secret: \w+",)) == {"key": {"secret": "[redacted]"}}
