"""Rules: what validates can act, and what cannot is refused with its file, line and path."""

from __future__ import annotations

import json

import pytest

from sg_guardrails import Policy, PolicyError

WORDS = "when: {words: [x]}"
ASKS = "{judge: {question: 'Is it rude?'}}"


def refused(folder, rule, rest=""):
    """The one mistake of a policy whose only rule is `rule`, a line for each line."""
    file = folder / "p.yaml"
    lines = "".join(f"  {line}\n" for line in rule.split("\n"))
    file.write_text(f"name: p\nrules:\n- id: a\n{lines}{rest}", encoding="utf-8")
    with pytest.raises(PolicyError) as caught:
        Policy.load(file)
    [mistake] = caught.value.mistakes
    return mistake.removeprefix(f"{file}:")


@pytest.mark.parametrize(
    ("rule", "line", "path", "said"),
    [
        # A place where the condition sees nothing
        ("where: user\nwhen: {tool_calls: {denied: [x]}}", 5, "when.tool_calls", "no tool call"),
        ("where: picture\nwhen:\n  not:\n    tool_calls: {denied: [x]}", 7, "when.not.tool_calls", "no tool call"),
        (
            "where: user\nwhen:\n  all:\n  - words: [x]\n  - any: [{tool_calls: {unanimous: true}}, {words: [y]}]",
            8,
            "when.all.1.any.0.tool_calls",
            "no tool call",
        ),
        # Keys that change nothing
        (f"{WORDS}\nrewrite: redact", 5, "rewrite", "action is block"),
        (f"{WORDS}\nrewrite: text", 5, "rewrite", "needs action: rewrite"),
        (f"{WORDS}\naction: flag\nrewrite: safest", 6, "rewrite", "action is flag"),
        (f"where: winner\n{WORDS}\naction: rewrite\nrewrite: representative", 7, "rewrite", "where: winner"),
        (f"where: user\n{WORDS}\naction: rewrite\nrewrite: representative", 7, "rewrite", "where: user"),
        (f"where: tools\n{WORDS}\naction: rewrite\nrewrite: redact", 7, "rewrite", "to take out"),
        (f"where: user\n{WORDS}\nshare: 0.5", 6, "share", "takes no share"),
        (f"where: candidate\n{WORDS}\nshare: 1", 6, "share", "takes no share"),
        (f"{WORDS}\nover: 0.2", 5, "over", "clusters alone"),
        (f"{WORDS}\naction: flag\ntext: Hm.", 6, "text", "nobody would read"),
        (f"{WORDS}\ntext: ''", 5, "text", "at least 1 character"),
        # Words and patterns that are in every text or in none
        ('when: {words: [x, "\\u200b"]}', 4, "when.words.1", "nothing that can be seen"),
        ('when: {words: ["\\u0301"]}', 4, "when.words.0", "nothing that can be seen"),
        ('when: {near: ["\\u200b \\ufe0f"]}', 4, "when.near.0", "nothing that can be seen"),
        ("when:\n  regex:\n  - ok\n  - 'a*'", 7, "when.regex.1", "every text"),
        ("when: {regex: ['[^\\x00-\\x{10FFFF}]']}", 4, "when.regex.0", "no text"),
        ("when: {regex: ['(\\pL+ ){0,200}']}", 4, "when.regex.0", "too large"),
        ("when: {regex: ['(\\pL{1,100}){1,10}']}", 4, "when.regex.0", "too large"),
        # Bounds that every text reaches, or none
        ("when: {scorer: refusal, above: 0}", 4, "when.above", "greater than 0"),
        ("when: {scorer: refusal, above: -0.5}", 4, "when.above", "greater than 0"),
        ("when: {scorer: ' '}", 4, "when.scorer", "at least 1 character"),
        ("when: {near: [x], above: -1}", 4, "when.above", "greater than -1"),
        ("when: {near: [x], above: 1}", 4, "when.above", "less than 1"),
        ("when: {classifier: {id: x}, above: 0}", 4, "when.above", "greater than 0"),
        ("when: {classifier: {id: x, label: ''}}", 4, "when.classifier.label", "at least 1 character"),
        ("when: {judge: {question: Hm}, above: 0}", 4, "when.above", "greater than 0"),
        ("when: {judge: {question: Hm, revision: v1}}", 4, "when.judge", "model.revision"),
        ("when: {judge: {preset: shieldgemma, question: ' '}}", 4, "when.judge", "empty"),
        ("when: {judge: {question: Hm, endpoint: {url: 'http://x/v1'}}}", 4, "when.judge", "model.endpoint"),
        (
            "when: {judge: {question: Hm, model: m, revision: v1, endpoint: {url: 'http://x/v1'}}}",
            4,
            "when.judge",
            "started with",
        ),
        ("when: {judge: {preset: llama_guard, model: m, conversation: true}}", 4, "when.judge", "served llama_guard"),
        # Conditions that settle nothing
        ("when: {all: []}", 4, "when.all", "at least 1 item"),
        ("when: {any: []}", 4, "when.any", "at least 1 item"),
        ("when: {all: [{words: [x]}, {not: {words: [x]}}]}", 4, "when.all.1", "never hold"),
        ("when:\n  any:\n  - not: {words: [x]}\n  - words: [x]", 6, "when.any.0", "always holds"),
        ("when: {not: {any: [" + ASKS + ", {not: " + ASKS + "}]}}", 4, "when.not.any.1", "always holds"),
    ],
)
def test_a_rule_that_could_never_act_is_refused_with_its_place(tmp_path, rule, line, path, said):
    mistake = refused(tmp_path, rule)
    assert mistake.startswith(f"{line}: rules.0.{path} (rule 'a'): ")
    assert said in mistake


@pytest.mark.parametrize(
    ("rest", "line", "path", "said"),
    [
        ("texts:\n  categories:\n    generl: Hm.\n", 7, "texts.categories.generl", "did you mean 'general'?"),
        ("actions:\n  harm: block\n", 6, "actions.harm", "no rule has the category 'harm'"),
        ("actions: {general: delete}\n", 5, "actions.general", "'allow', 'flag'"),
    ],
)
def test_what_is_said_of_a_category_that_no_rule_has_is_refused(tmp_path, rest, line, path, said):
    mistake = refused(tmp_path, WORDS, rest)
    assert mistake.startswith(f"{line}: {path}: ")
    assert said in mistake


def test_an_action_that_every_rule_overrides_is_refused(tmp_path):
    mistake = refused(tmp_path, f"{WORDS}\naction: flag", "actions:\n  general: block\n")
    assert mistake.startswith("7: actions.general: each rule")


def test_a_categorys_action_is_that_of_its_rules_that_name_none():
    rules = [
        {"id": "a", "category": "harm", "when": {"words": ["x"]}},
        {"id": "b", "category": "harm", "when": {"words": ["y"]}, "action": "raise"},
        {"id": "c", "when": {"words": ["z"]}},
        {"id": "d", "category": "doubt", "when": {"words": ["z"]}, "rewrite": "redact"},
    ]
    policy = Policy.parse({"name": "p", "actions": {"harm": "flag", "doubt": "rewrite"}, "rules": rules})
    assert [rule.action for rule in policy.rules] == ["flag", "raise", "block", "rewrite"]
    spelled = [{**rule, "action": acting.action} for rule, acting in zip(rules, policy.rules, strict=True)]
    assert Policy.parse({"name": "p", "rules": spelled}).hash == policy.hash


def test_a_file_laid_over_another_changes_the_actions_of_its_categories(tmp_path):
    base = "name: base\nactions: {harm: flag}\nrules:\n- {id: a, category: harm, when: {words: [x]}}\n"
    (tmp_path / "base.yaml").write_text(base)
    (tmp_path / "top.yaml").write_text("name: top\nextends: base.yaml\nactions: {harm: block}\n")
    assert Policy.load(tmp_path / "base.yaml").rules[0].action == "flag"
    assert Policy.load(tmp_path / "top.yaml").rules[0].action == "block"


def test_a_new_action_or_place_takes_the_keys_along_that_it_makes_meaningless(tmp_path):
    base = {
        "id": "a",
        "where": "clusters",
        "over": 0.3,
        "share": 0.1,
        "when": {"words": ["x"]},
        "action": "rewrite",
        "rewrite": "redact",
        "text": "Hm.",
    }
    (tmp_path / "base.yaml").write_text(json.dumps({"name": "base", "rules": [base]}))

    def over(**changes):
        top = {"name": "top", "extends": "base.yaml", "rules": [{"id": "a", **changes}]}
        (tmp_path / "top.yaml").write_text(json.dumps(top))
        return Policy.load(tmp_path / "top.yaml").rules[0]

    assert (over(action="flag").rewrite, over(action="flag").text) == ("text", None)
    assert (over(action="block").rewrite, over(action="block").text) == ("text", "Hm.")
    assert (over(where="candidate").over, over(where="candidate").share) == (0.2, 0.5)
    assert (over(where="any").over, over(where="any").share) == (0.2, 0.1)
    assert over(severity="low").rewrite == "redact"
    with pytest.raises(PolicyError, match="rewrite"):
        over(action="flag", rewrite="model")


def test_a_rule_is_written_out_as_a_file_could_have_it():
    rules = [
        {"id": "a", "where": "user", "when": {"words": ["x"]}},
        {
            "id": "b",
            "where": "clusters",
            "over": 0.4,
            "when": {"words": ["x"]},
            "action": "rewrite",
            "rewrite": "safest",
        },
        {"id": "c", "when": {"words": ["x"]}, "text": "Hm."},
    ]
    policy = Policy.parse({"name": "p", "rules": rules})
    written = policy.model_dump(mode="json", by_alias=True)["rules"]
    assert [sorted({"share", "over", "rewrite", "text"} & rule.keys()) for rule in written] == [
        [],
        ["over", "rewrite", "share"],
        ["share", "text"],
    ]
    assert Policy.parse({"name": "p", "rules": written}) == policy
