"""The loader: whatever the bytes, it ends soon, with a whole policy or a PolicyError that names the file."""

from __future__ import annotations

import functools
import json
from typing import get_args

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sg_guardrails import Policy, PolicyError
from sg_guardrails.core import layers
from sg_guardrails.core.judge import Case, judge
from sg_guardrails.core.rules import Rule
from sg_guardrails.core.types import ACTIONS, Answer, ToolCall, Vote

quick = settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates()
SECTIONS = sorted(Policy.model_fields)
KEYS = st.sampled_from([*SECTIONS, "id", "when", "words", "regex", "scorer", "not", "all", "sigma", "copies", "above"])
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.text(max_size=5), inner, max_size=5)
)
PIECES = st.sampled_from(["x", "", " ", "\u200b", "a*", "(", "evil", "*", ".*", "org/model", "v1", "guard"])
JUNK = PIECES | SCALARS | st.lists(PIECES | SCALARS, max_size=3)
"""What a key may or may not take."""
WORDS = st.lists(st.sampled_from(["x", "evil", "two words"]), min_size=1, max_size=2)
SHARES = st.sampled_from([0.1, 0.5, 0.9])
OF = st.sampled_from(["answer", "user", "picture"])
PATTERNS = st.dictionaries(st.sampled_from(["x", "*"]), st.sampled_from(["x", "[a-z]+"]), min_size=1, max_size=2)
TOOLS = st.dictionaries(st.sampled_from(["x", "Y"]), PATTERNS, min_size=1, max_size=2)


def sections(needed, optional, *, junk):
    """Mappings with what is needed and some of the rest; under `junk`, values of any kind too."""
    mixed = {key: value | JUNK if junk else value for key, value in {**needed, **optional}.items()}
    return st.fixed_dictionaries({key: mixed[key] for key in needed}, optional={key: mixed[key] for key in optional})


def conditions(*, junk):
    part = functools.partial(sections, junk=junk)
    named = {"allowed": WORDS, "denied": WORDS, "unanimous": st.booleans()}
    calls = part({}, {**named, "arguments": TOOLS, "denied_arguments": TOOLS})
    asked = part({"question": st.just("Is it rude?")}, {"model": st.just("org/judge"), "revision": st.just("v1")})
    atoms = st.one_of(
        part({"words": WORDS}, {"of": OF}),
        part({"regex": WORDS}, {"of": OF}),
        part({"near": WORDS}, {"above": SHARES, "of": OF}),
        part({"scorer": st.just("refusal")}, {"above": SHARES, "of": OF}),
        part({"language_other_than": st.just("en")}, {}),
        part({"agreement_below": SHARES}, {}),
        part({"disagrees": st.sampled_from(["clean", "candidate"])}, {}),
        part({"tool_calls": calls}, {}),
        part({"judge": asked}, {"above": SHARES, "of": OF}),
        part({"classifier": part({"id": st.just("org/x")}, {"label": WORDS.map(min), "revision": WORDS.map(min)})}, {}),
    )
    joined = st.sampled_from(["all", "any"])
    return st.recursive(
        atoms,
        lambda inner: (
            st.builds(lambda key, inside: {key: inside}, joined, st.lists(inner, min_size=1 - junk, max_size=3))
            | inner.map(lambda inside: {"not": inside})
        ),
        max_leaves=4,
    )


def merged(*mappings):
    return st.tuples(*mappings).map(lambda found: {key: value for one in found for key, value in one.items()})


TEXT = st.just("Hm.")
PLACES = st.one_of(
    sections({"where": st.sampled_from(["answer", "any", "winner", "tools"])}, {"share": SHARES}, junk=False),
    sections({"where": st.just("clusters")}, {"share": SHARES, "over": SHARES}, junk=False),
    sections({"where": st.sampled_from(["user", "picture", "candidate"])}, {}, junk=False),
)
DEEDS = st.one_of(
    sections({}, {"action": st.sampled_from(["allow", "flag"])}, junk=False),
    sections({"action": st.sampled_from(["block", "raise"])}, {"text": TEXT}, junk=False),
    sections(
        {"action": st.just("rewrite")},
        {"text": TEXT, "rewrite": st.sampled_from(["text", "representative", "safest", "redact", "model"])},
        junk=False,
    ),
)
HEAD = {"id": st.sampled_from("abcdef"), "when": conditions(junk=False)}
SOUND = merged(sections(HEAD, {"category": st.just("harm")}, junk=False), PLACES, DEEDS)
"""Rules that are mostly valid: some of their keys don't go together."""
CHOSEN = {
    name: st.sampled_from(get_args(Rule.model_fields[name].annotation))
    for name in ("severity", "where", "action", "rewrite", "mode")
}
ANY_RULES = sections(
    {**HEAD, "when": conditions(junk=True)},
    {**CHOSEN, "category": st.just("harm"), "share": SHARES, "over": SHARES, "text": TEXT},
    junk=True,
)
RULES = st.one_of(SOUND, SOUND, SOUND, ANY_RULES)
CATEGORIES = st.one_of(
    st.just({}),
    st.just({}),
    st.dictionaries(st.sampled_from(["general", "harm"]), st.sampled_from(ACTIONS), max_size=1),
    st.dictionaries(PIECES, JUNK, max_size=2),
)


class Everything(dict):
    """A scorer or a judge under any name."""

    def get(self, key, default=None):
        return lambda items: [0.5] * len(items)


CASE = Case(
    ("x",),
    [Answer("x", (ToolCall("x", {"x": "x"}),))],
    Vote((0,), 0, 0, 1.0, False, (1.0,)),
    Answer("evil"),
    scorers=Everything(),
    judges=Everything(),
    pictured=lambda: ["x"],
)


def load(folder, content):
    """The policy in a file of this content, or None where it was refused in the one way allowed."""
    file = folder / "p.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    try:
        policy = Policy.load(file)
    except PolicyError as error:
        if "p.yaml" not in str(error) and "base.yaml" not in str(error):
            raise
        return None
    # Accepted means accepted whole: it has a hash, is valid again as it stands, and says the same.
    again = Policy.parse(json.loads(json.dumps(policy.model_dump(mode="json", by_alias=True))))
    assert again.hash == policy.hash
    return policy


@given(st.binary(max_size=200))
@quick
def test_any_bytes(tmp_path, content):
    load(tmp_path, content)


@given(st.lists(st.sampled_from([*"{}[]:,-&*!|>#%@?'\"\n \t\\0123456789xeE.+_~=<", "name: p", "rules:", "\n- "])))
@quick
def test_any_punctuation(tmp_path, marks):
    load(tmp_path, "".join(marks))


@given(st.dictionaries(KEYS, TREES, max_size=6))
@quick
def test_any_tree_of_values(tmp_path, tree):
    load(tmp_path, yaml.safe_dump({"name": "p", **tree}, allow_unicode=True))


@given(st.lists(RULES, max_size=2), CATEGORIES, CATEGORIES)
@settings(quick, max_examples=60)
def test_any_rules_are_accepted_whole_or_refused(tmp_path, listed, actions, texts):
    tree = {"name": "p", "rules": listed, "actions": actions, "texts": {"categories": texts}}
    policy = load(tmp_path, yaml.safe_dump(tree, allow_unicode=True))
    if policy is not None:
        judge(policy, CASE)  # what validates can be judged


@given(RULES, RULES)
@quick
def test_any_rule_laid_over_another_is_accepted_whole_or_refused(tmp_path, base, top):
    (tmp_path / "base.yaml").write_text(yaml.safe_dump({"name": "base", "rules": [base]}), encoding="utf-8")
    load(tmp_path, yaml.safe_dump({"name": "p", "extends": "base.yaml", "rules": [{**top, "id": base["id"]}]}))


@given(st.sampled_from(SECTIONS), TREES)
@quick
def test_a_wrong_value_in_one_section_is_never_half_accepted(tmp_path, section, value):
    policy = load(tmp_path, yaml.safe_dump({"name": "p", section: value}, allow_unicode=True))
    if policy is not None and section != "extends":
        assert Policy.parse({"name": "p", section: value}).hash == policy.hash


@pytest.mark.parametrize(
    "content",
    [
        "name: p\nmodel: " + "[" * 100_000,
        "name: p\nmodel: " + "{a: " * 50_000,
        "- " * 100_000,
        "? " * 100_000,
        "name: p\nrules:\n- id: a\n  when: " + "{not: " * 400 + "{words: [x]}" + "}" * 400,
        "name: p\nsmoothing: {copies: " + "9" * 500_000 + "}",
        "name: p\nsmoothing: {copies: " + "1:" * 300_000 + "1}",
        "name: p\nsmoothing: {image: {sigma: " + "1:" * 300_000 + "1.5}}",
        "name: p\nsmoothing: {image: {sigma: .nan}}",
        "name: p\nsmoothing: {image: {sigma: .inf}}",
        "name: p\nsmoothing: {image: {sigma: 1e999}}",
        "name: p\nsmoothing: {copies: 10.5}",
        "name: p\nsmoothing: {copies: 0x" + "f" * 39 + "}",
        "name: p\nsmoothing: {copies: yes}",
        "name: &a p\ndescription: *a\n",
        "a: &a {b: 1}\nname: p\n<<: *a\n",
        "name: p\nname: p\n",
        "name: p\nrules: [{id: a, when: {words: [x]}, when: {words: [y]}}]",
        "name: p\n? {a: b}\n: c\n",
        "name: p\ntexts: {categories: {? [a] : b}}\n",
        "name: !!binary aGk=\n",
        "name: p\nrules: !!set {a, b}\n",
        "name: p\nrules: !!omap [a: b]\n",
        "name: p\ndescription: !!python/object/apply:os.system [id]\n",
        "name: p\n---\nname: q\n",
        "%YAML 9.9\n---\nname: p\n",
        'name: p\ndescription: "\\ud800"\n',
        'name: p\ntexts: {categories: {"\\ud800": x}}\n',
        "name: p\nversion: 1.5\n",
        "name: p\nmodel: {max_new_tokens: on}\n",
        "name: p\nvoting: {min_agreement: true}\n",
        "name: p\nrules: [{id: a, share: no, when: {words: [x]}}]\n",
        "name: p\nrules: [{id: a, when: {words: !!set {x, y}}}]\n",
        "\ufeffname: [p\n",
        b"\xff\xfe\x00\xd8",
        "name: p\x00q\n",
    ],
    ids=lambda content: repr(content[:40]),
)
def test_hostile_files_are_refused(tmp_path, content):
    assert load(tmp_path, content) is None


def test_a_large_file_of_short_lines_is_read_in_reasonable_work(tmp_path, monkeypatch):
    """One pass over the file: reading twice as much takes about twice the events."""
    counts = []
    for lines in (500, 1000):
        seen = 0
        compose = layers._Strict.compose_node

        def counted(self, parent, index, compose=compose):
            nonlocal seen
            seen += 1
            return compose(self, parent, index)

        with monkeypatch.context() as patched:
            patched.setattr(layers._Strict, "compose_node", counted)
            words = "".join(f"    - word{number}\n" for number in range(lines))
            assert load(tmp_path, "name: p\nrules:\n- id: a\n  when:\n    words:\n" + words) is not None
        counts.append(seen)
    assert counts[1] - counts[0] == 500


@pytest.mark.parametrize(
    "base", ["../outside.yaml", "/etc/passwd", "a/../../outside.yaml", "a\0b", "[x]", "p.yaml", "."]
)
def test_extends_leads_nowhere_else(tmp_path, base):
    (tmp_path / "outside.yaml").write_text("name: outside\n")
    folder = tmp_path / "inner"
    folder.mkdir()
    assert load(folder, f"name: p\nextends: {json.dumps(base)}\n") is None


def test_a_link_out_of_the_folder_is_not_followed(tmp_path):
    (tmp_path / "outside.yaml").write_text("name: outside\n")
    folder = tmp_path / "inner"
    folder.mkdir()
    (folder / "link.yaml").symlink_to(tmp_path / "outside.yaml")
    assert load(folder, "name: p\nextends: link.yaml\n") is None


def test_circles_of_any_length_are_refused(tmp_path):
    for number in range(5):
        (tmp_path / f"{number}.yaml").write_text(f"name: p\nextends: {(number + 1) % 5}.yaml\n")
    with pytest.raises(PolicyError, match="circle"):
        Policy.load(tmp_path / "0.yaml")


def test_a_long_chain_is_laid_in_order(tmp_path):
    (tmp_path / "0.yaml").write_text("name: p0\nsmoothing: {copies: 3}\ntexts: {blocked: zero}\n")
    for number in range(1, 30):
        (tmp_path / f"{number}.yaml").write_text(f"name: p{number}\nextends: {number - 1}.yaml\n")
    policy = Policy.load(tmp_path / "29.yaml")
    assert (policy.name, policy.smoothing.copies, policy.texts.blocked) == ("p29", 3, "zero")
    assert len(layers.chain(tmp_path / "29.yaml")) == 30


def test_a_named_pipe_or_a_folder_is_no_policy(tmp_path):
    with pytest.raises(PolicyError):
        Policy.load(tmp_path)
