"""Policies: strict YAML, extends, the hash, and clear errors."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sg_guardrails import Policy, PolicyError
from sg_guardrails.core.conditions import looks_at_pictures, missing_scorers
from sg_guardrails.core.layers import shipped
from sg_guardrails.core.terms import Classified, Judged, Language, Regex, parts

RULE = {"id": "a", "when": {"words": ["x"]}}
DEFAULT_RULES = {rule.id for rule in Policy.load("default").rules}


def write(folder, name, text):
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


SHIPPED = (
    *("agent_tools", "audio", "builtin", "default", "mm_safetybench"),
    *("observe", "paper", "strict"),
)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_policies_are_valid(name):
    policy = Policy.load(name)
    assert policy.name == name
    assert policy.on_error == "block"
    assert policy.unresolvable_media == "block"
    assert policy.mode == ("observe" if name == "observe" else "enforce")
    assert missing_scorers(policy, ("refusal", "unsafe_request", "hostility", "toxicity", "prompt_injection")) == []


def test_each_shipped_policy_names_its_schema_and_has_cases():
    for file in shipped().glob("*.yaml"):
        text = file.read_text(encoding="utf-8")
        assert text.startswith("# yaml-language-server: $schema=schema.json\n#"), file.name
        assert (shipped() / "tests" / file.name).is_file(), file.name


def test_the_default_policy_needs_no_model_but_its_own_and_the_embedder():
    policy = Policy.load("default")
    conditions = [part for rule in policy.rules for part in parts(rule.when)]
    assert not any(isinstance(part, Judged | Classified) for part in conditions)
    assert not looks_at_pictures(policy)
    languages = [rule for rule in policy.rules if any(isinstance(part, Language) for part in parts(rule.when))]
    assert {(rule.where, rule.action) for rule in languages} == {("user", "flag"), ("answer", "flag")}


def test_the_thirteen_scenarios_and_the_five_that_accept_a_disclaimer():
    rules = {rule.id: rule for rule in Policy.load("mm_safetybench").rules if rule.id not in DEFAULT_RULES}
    assert len(rules) == 13
    assert sum(rule.action == "block" for rule in rules.values()) == 8
    five = {rule.category for rule in rules.values() if rule.action == "rewrite"}
    assert five == set(Policy.load("mm_safetybench").texts.categories)


def test_builtin_changes_model_smoothing_and_veto_only():
    default, builtin = Policy.load("default"), Policy.load("builtin")
    same = {"name", "description", "extends", "model", "smoothing", "voting"}
    assert default.model_dump(exclude=same) == builtin.model_dump(exclude=same)
    assert default.voting == builtin.voting.model_copy(update={"refusal_veto": None})
    assert builtin.model.id == "builtin:shapes"
    assert builtin.smoothing.copies == default.smoothing.copies


def test_paper_is_the_published_method():
    paper = Policy.load("paper")
    assert (paper.smoothing.copies, paper.smoothing.include_clean) == (10, True)
    assert (paper.smoothing.image.space, paper.smoothing.image.sigma) == ("model", 0.1)
    assert (paper.voting.method, paper.voting.k, paper.voting.representative) == ("kmeans", 2, "centroid")
    assert (paper.voting.embedder.id, paper.voting.embedder.pooling) == ("FacebookAI/roberta-base", "mean_all")


def test_the_examples_of_the_documentation_are_valid():
    page = Path(__file__).parents[2] / "docs" / "policies.md"
    blocks = re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    policies = [Policy.parse({"name": "p", **yaml.safe_load(block)}) for block in blocks]
    assert [rule.action for policy in policies for rule in policy.rules] == ["block", "raise"]


def keys(section):
    """Every key below a section, without those of the rules, which the page tells in tables of their own."""
    for name, field in section.model_fields.items():
        yield field.alias or name
        if name != "rules":
            kinds = get_args(field.annotation) or (field.annotation,)
            yield from (key for kind in kinds if hasattr(kind, "model_fields") for key in keys(kind))


@pytest.mark.parametrize("key", sorted(set(keys(Policy))))
def test_the_page_on_the_language_names_every_key(key):
    page = (Path(__file__).parents[2] / "docs" / "policies.md").read_text(encoding="utf-8")
    assert re.search(rf"(?<!\w){key}\b", page)


def test_all_shipped_files_are_covered():
    assert {file.stem for file in shipped().glob("*.yaml")} == set(SHIPPED)


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({"name": "x", "smothing": {}}, "smothing"),
        ({"name": "x", "smoothing": {"copies": 0}}, "smoothing.copies"),
        ({"name": "x", "smoothing": {"image": {"sigma": -1}}}, "smoothing.image.sigma"),
        ({"name": "x", "smoothing": {"audio": {"sigma": 0.1, "snr_db": 10}}}, "smoothing.audio"),
        ({"name": "x", "smoothing": {"audio": {}}}, "smoothing.audio"),
        ({"name": "x", "rules": [RULE, RULE]}, "rules"),
        ({"name": "x", "rules": [{"id": "a", "when": {"wrods": ["x"]}}]}, "rules.0.when"),
        ({"name": "x", "rules": [{"id": "a", "when": {"words": ["x"], "regex": ["x"]}}]}, "rules.0.when"),
        ({"name": "x", "rules": [{"id": "a", "when": {"words": []}}]}, "rules.0.when"),
        ({"name": "x", "rules": [{"id": "a", "when": {"regex": ["(("]}}]}, "rules.0.when"),
        ({"name": "x", "rules": [{"id": "a", "when": {"regex": [r"(a)\\1(?=b)"]}}]}, "rules.0.when"),
        ({"name": "x", "rules": [{"id": "a", "action": "delete", "when": {"words": ["x"]}}]}, "rules.0.action"),
        ({"name": "x", "on_error": "pass"}, "on_error"),
        ({"name": "x", "rules": [{"id": "a", "when": {"words": [" "]}}]}, "rules.0.when"),
        ({"name": "x", "rules": [{"id": "a", "when": {"scorer": "refusal", "above": float("nan")}}]}, "above"),
        ({"name": "x", "rules": [{"id": "a", "when": {"scorer": "refusal", "above": 5}}]}, "above"),
        ({"name": "x", "rules": [{"id": "a", "when": {"judge": {}}}]}, "question"),
        ({"name": "x", "rules": [{"id": "a", "when": {"judge": {"preset": "llama_guard", "question": "x"}}}]}, "own"),
        ({"name": "x", "rules": [{"id": "a", "when": {"tool_calls": {}}}]}, "tool_calls"),
        ({"name": "x", "rules": [{"id": "a", "when": {"tool_calls": {"arguments": {"f": {"x": "("}}}}}]}, "RE2"),
        ({"name": "x", "rules": [{"id": "a", "when": {"language_other_than": "de"}}]}, "language_other_than"),
        ({"name": "x", "rules": [{"id": "a", "when": {"near": []}}]}, "near"),
        ({"name": "x", "rules": [{"id": "a", "when": {"classifier": "org/name"}}]}, "classifier"),
        ({"name": "x", "rules": [{"id": "a", "when": {"words": ["x"]}, "rewrite": "delete"}]}, "rewrite"),
        ({"name": "x", "version": 2}, "version"),
        ({}, "name"),
    ],
)
def test_a_wrong_field_is_named(data, field):
    with pytest.raises(PolicyError, match=field):
        Policy.parse(data)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- a\n- b\n",
        "name: [",
        "name: x\nname: y\n",
        "name: x\nrules:\n- {id: a, when: {words: [x]}, id: b}\n",
        "name: !!python/object:os.system x\n",
        "name: x\n\tindented: 1\n",
        "? [a]\n: b\n",
        "name: 2020-13-45\n",
    ],
)
def test_yaml_that_is_not_a_policy_is_refused(tmp_path, text):
    with pytest.raises(PolicyError):
        Policy.load(write(tmp_path, "p.yaml", text))


def test_aliases_are_refused_before_they_grow(tmp_path):
    lines = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40))]
    with pytest.raises(PolicyError, match="aliases"):
        Policy.load(write(tmp_path, "bomb.yaml", "\n".join(lines)))


def test_yaml_that_is_not_text_or_too_large_is_refused(tmp_path):
    (tmp_path / "p.yaml").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(PolicyError):
        Policy.load(tmp_path / "p.yaml")
    (tmp_path / "p.yaml").write_bytes(b"#" * 1_000_001)
    with pytest.raises(PolicyError, match="larger"):
        Policy.load(tmp_path / "p.yaml")


@given(st.text(max_size=60))
def test_no_text_raises_anything_but_policy_error(tmp_path_factory, text):
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_text(text, encoding="utf-8", errors="replace")
    try:
        Policy.load(file)
    except PolicyError:
        pass


def test_a_missing_policy_names_the_shipped_ones():
    with pytest.raises(PolicyError, match="default"):
        Policy.load("no-such-policy")


def test_extends_lays_sections_and_rules_over_each_other(tmp_path):
    rules = "rules:\n- {id: a, when: {words: [x]}}\n- {id: b, when: {words: [y]}, action: flag}\n"
    write(tmp_path, "base.yaml", "name: base\nsmoothing: {copies: 4, audio: {snr_db: 9}}\n" + rules)
    changes = "rules:\n- {id: a, action: raise}\n- {id: c, when: {regex: ['z']}}\n"
    text = "name: top\nextends: base.yaml\nsmoothing: {audio: {sigma: 0.1}}\n" + changes
    top = Policy.load(write(tmp_path, "top.yaml", text))
    assert top.smoothing.copies == 4
    assert (top.smoothing.audio.sigma, top.smoothing.audio.snr_db) == (0.1, None)
    assert [(rule.id, rule.action) for rule in top.rules] == [("a", "raise"), ("b", "flag"), ("c", "block")]
    assert top.rules[0].when.words == ("x",)
    assert isinstance(top.rules[2].when, Regex)


def test_a_rule_cannot_vanish_by_being_named_twice(tmp_path):
    write(tmp_path, "base.yaml", "name: base\nrules:\n- {id: a, when: {words: [x]}}\n")
    text = "name: top\nextends: base.yaml\nrules:\n- {id: a, action: flag}\n- {id: a, action: block}\n"
    top = write(tmp_path, "top.yaml", text)
    with pytest.raises(PolicyError, match="twice") as caught:
        Policy.load(top)
    assert str(caught.value).startswith(f"{top}:5: rules: id 'a'")
    alone = write(
        tmp_path, "alone.yaml", "name: p\nrules:\n- {id: a, when: {words: [x]}}\n- id: a\n  when: {words: [y]}\n"
    )
    with pytest.raises(PolicyError, match="twice") as caught:
        Policy.load(alone)
    assert str(caught.value).startswith(f"{alone}:4: rules.1.id (rule 'a'): ")


def test_extends_stays_in_its_folder_and_runs_in_no_circle(tmp_path):
    folder = tmp_path / "inner"
    folder.mkdir()
    write(tmp_path, "outside.yaml", "name: outside\n")
    for base in ("../outside.yaml", str(tmp_path / "outside.yaml"), "missing", "[1]"):
        with pytest.raises(PolicyError) as caught:
            Policy.load(write(folder, "p.yaml", f"name: p\n\nextends: {base}\n"))
        assert str(caught.value).startswith(f"{folder / 'p.yaml'}:3: extends: ")
    write(folder, "a.yaml", "name: a\nextends: b.yaml\n")
    write(folder, "b.yaml", "name: b\nmode: observe\nextends: a.yaml\n")
    with pytest.raises(PolicyError, match=r"'a\.yaml' runs in a circle") as caught:
        Policy.load(folder / "a.yaml")
    assert str(caught.value).startswith(f"{folder / 'b.yaml'}:3: extends: ")
    assert Policy.load(write(folder, "ok.yaml", "name: ok\nextends: default\n")).rules == Policy.load("default").rules


def test_the_hash_follows_meaning(tmp_path):
    first = Policy.load(write(tmp_path, "a.yaml", "name: p\nsmoothing: {copies: 10}\n"))
    spelled = Policy.load(write(tmp_path, "b.yaml", "# a comment\nname: p\n"))
    changed = Policy.load(write(tmp_path, "c.yaml", "name: p\nsmoothing: {copies: 9}\n"))
    assert first.hash == spelled.hash != changed.hash
    assert first.id == f"p@{first.hash}"
    assert len(bytes.fromhex(first.hash)) == 8
    assert first.hash != Policy.parse({"name": "p", "voting": {"embedder": {"revision": "v1"}}}).hash


def test_policies_cannot_be_changed_in_place():
    policy = Policy.parse({"name": "x"})
    with pytest.raises(ValueError, match="frozen"):
        policy.on_error = "allow"


@pytest.mark.parametrize(("written", "mode"), [("off", "off"), ("exact", "exact"), ('"sequential"', "sequential")])
def test_a_bare_off_is_the_word_and_not_yamls_false(tmp_path, written, mode):
    file = write(tmp_path, "mine.yaml", f"name: mine\nsmoothing: {{early: {written}}}\n")
    assert Policy.load(file).smoothing.early == mode
    assert Policy.load(file).limits.deadline_seconds is None


@pytest.mark.parametrize(
    ("section", "field"),
    [
        ({"smoothing": {"early": True}}, "smoothing.early"),
        ({"smoothing": {"alpha": 0}}, "smoothing.alpha"),
        ({"smoothing": {"adaptive": {"start_copies": 1}}}, "smoothing.adaptive.start_copies"),
        ({"smoothing": {"adaptive": {"max_scale": 0.5}}}, "smoothing.adaptive.max_scale"),
        ({"smoothing": {"copies": 3, "adaptive": {"start_copies": 3}}}, "smoothing"),
        ({"smoothing": {"adaptive": {}}, "voting": {"refusal_veto": 0.1}}, "smoothing.adaptive"),
        ({"voting": {"draft_tokens": 0}}, "voting.draft_tokens"),
        ({"voting": {"cache": -1}}, "voting.cache"),
        ({"limits": {"deadline_seconds": 0}}, "limits.deadline_seconds"),
        ({"on_timeout": "ready"}, "on_timeout"),
    ],
)
def test_sections_of_deciding_early_refuse_what_makes_no_sense(section, field):
    with pytest.raises(PolicyError, match=field):
        Policy.parse({"name": "x", **section})


@pytest.mark.parametrize(
    "limits", [{"deadline_seconds": float("inf")}, {"deadline_seconds": 1e10}, {"max_seconds": float("inf")}]
)
def test_a_bound_without_end_is_no_bound(limits):
    with pytest.raises(PolicyError, match=next(iter(limits))):
        Policy.parse({"name": "p", "limits": limits})


def test_a_veto_waits_for_every_copy_and_two_levels_do_not(tmp_path):
    laid = write(tmp_path, "mine.yaml", "name: mine\nextends: builtin\nsmoothing: {adaptive: {start_copies: 5}}\n")
    with pytest.raises(PolicyError, match=r"mine.yaml.*a veto by refusals waits for every copy"):
        Policy.load(laid)
    laid.write_text(laid.read_text() + "voting: {refusal_veto: null}\n")
    assert Policy.load(laid).smoothing.adaptive.start_copies == 5
