"""Mistakes: file, line, path, and the nearest valid key, through extends too."""

from __future__ import annotations

import pytest

from sg_guardrails import Policy, PolicyError


def mistakes(folder, text, name="p.yaml"):
    (folder / name).write_text(text)
    with pytest.raises(PolicyError) as caught:
        Policy.load(folder / name)
    return caught.value.mistakes


@pytest.mark.parametrize(
    ("text", "line", "path", "said"),
    [
        ("name: p\nsmothing: {}\n", 2, "smothing", "did you mean 'smoothing'?"),
        ("name: p\n\nsmoothing:\n  image:\n    sgima: 1\n", 5, "smoothing.image.sgima", "'sigma'"),
        ("name: p\ncopies: 3\n", 2, "copies", "'smoothing.copies'"),
        ("name: p\non_error: blok\n", 2, "on_error", "'block'"),
        ("name: p\nsmoothing:\n  copies: 0\n", 3, "smoothing.copies", "greater than or equal to 1"),
        ("name: p\nrules:\n- id: a\n  when: {wrods: [x]}\n", 4, "rules.0.when (rule 'a')", "'words'"),
        ("name: p\nrules:\n- id: a\n- id: b\n", 3, "rules.0.when (rule 'a')", "this key is needed"),
        (
            "name: p\nrules:\n- id: a\n  when:\n    all:\n    - not:\n        scorer: x\n        abvoe: 0.3\n",
            8,
            "rules.0.when.all.0.not.abvoe (rule 'a')",
            "'above'",
        ),
        ("name: p\nrules:\n- id: a\n  when:\n    regex:\n    - ok\n    - '(('\n", 7, "rules.0.when.regex.1", "RE2"),
        ("name: p\nrules: [{id: a, when: {words: [x]}, colour: red}]\n", 2, "rules.0.colour", "no such key"),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path, text, line, path, said):
    found = [mistake for mistake in mistakes(tmp_path, text) if f": {path}" in mistake]
    assert found, mistakes(tmp_path, text)
    assert found[0].startswith(f"{tmp_path / 'p.yaml'}:{line}: ")
    assert said in found[0]


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("name: p\n  x: [\n", 2, "mapping values"),
        ("name: p\nrules: []\nname: q\n", 3, "'name' stands twice"),
        ("name: p\nmode: *x\n", 2, "aliases"),
        ("name: p\nextends: nowhere\n", 2, "'nowhere'"),
        ("name: p\nlimits: {max_bytes: " + "9" * 50 + "}\n", 2, "characters"),
    ],
)
def test_yaml_that_cannot_be_read_is_told_with_its_line(tmp_path, text, line, said):
    [mistake] = mistakes(tmp_path, text)
    assert mistake.startswith(f"{tmp_path / 'p.yaml'}:{line}: ")
    assert said in mistake


def test_the_file_that_holds_the_key_is_named(tmp_path):
    base, top = tmp_path / "base.yaml", tmp_path / "top.yaml"
    base.write_text("name: base\nsmoothing:\n  copeis: 3\nrules:\n- id: a\n  when: {words: [x]}\n  share: 2\n")
    found = mistakes(
        tmp_path,
        "name: top\nextends: base.yaml\nrules:\n- id: b\n  actoin: flag\n- {id: a, action: flag}\n",
        "top.yaml",
    )
    places = {mistake.split(": ")[1].split(" (")[0]: mistake.split(": ")[0] for mistake in found}
    assert places["smoothing.copeis"] == f"{base}:3"
    assert places["rules.0.share"] == f"{base}:7"
    assert places["rules.1.actoin"] == f"{top}:5"


def test_every_mistake_is_told_at_once_up_to_a_bound(tmp_path):
    text = "name: p\n" + "".join(f"nonsense{number}: 1\n" for number in range(40))
    assert len(mistakes(tmp_path, text)) == 20
    assert len(mistakes(tmp_path, "name: p\nmodle: {}\nvotign: {}\n")) == 2


def test_a_mapping_that_came_from_no_file_is_told_by_its_path():
    with pytest.raises(PolicyError, match=r"^mine: smothing: there is no such key"):
        Policy.parse({"name": "p", "smothing": {}}, where="mine")
