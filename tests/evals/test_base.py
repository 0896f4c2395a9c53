"""Figures carry the intervals they say they carry; data files are read line by line and nothing is lost unseen."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sg_guardrails.core.errors import GuardError
from sg_guardrails.evals.base import Figure, Paired, present, read_lines


def test_a_rate_has_wilsons_interval():
    figure = Figure.rate(45, 50)
    z, p, n = 1.959964, 0.9, 50
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert (figure.value, figure.n) == (0.9, 50)
    assert figure.low == pytest.approx(centre - half, abs=1e-6)
    assert figure.high == pytest.approx(centre + half, abs=1e-6)


@pytest.mark.parametrize("hits", [0, 7])
def test_a_rate_at_the_border_keeps_an_interval_inside_0_and_1(hits):
    figure = Figure.rate(hits, 7)
    assert 0 <= figure.low <= figure.value <= figure.high <= 1
    assert figure.high - figure.low > 0.2


def test_nothing_counted_is_no_figure():
    assert Figure.rate(0, 0) == Figure(None, 0)
    assert Figure.resampled([], lambda means: means[..., 0]) == Figure(None, 0)


def test_a_resampled_mean_has_the_interval_of_theory():
    values = np.random.default_rng(3).normal(5, 2, 400)
    figure = Figure.resampled([[value] for value in values], lambda means: means[..., 0])
    half = 1.96 * values.std() / math.sqrt(400)
    assert figure.value == pytest.approx(values.mean())
    assert figure.low == pytest.approx(values.mean() - half, abs=0.05)
    assert figure.high == pytest.approx(values.mean() + half, abs=0.05)


def test_a_ratio_without_a_denominator_is_undefined():
    assert Figure.resampled([[0.0, 0.0]] * 4, lambda means: means[..., 0] / means[..., 1]).value is None


def test_mcnemar_is_the_exact_binomial_on_the_discordant_pairs():
    pairs = [(True, True)] * 40 + [(True, False)] * 9 + [(False, True)] * 1 + [(False, False)] * 5
    test = Paired.test(pairs)
    assert (test.both, test.only_first, test.only_second, test.neither) == (40, 9, 1, 5)
    assert test.p == pytest.approx(2 * (1 + 10) / 2**10)
    assert Paired.test([(True, True)] * 3).p == 1.0


def test_lines_that_are_no_objects_are_named_and_the_rest_is_read(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\n   \n{"a": 2\n[3]\n\xff\xfe\n{"a": 4}')
    rows, troubles = read_lines(file, source="nowhere")
    assert [(number, row["a"]) for number, row in rows] == [(1, 1), (7, 4)]
    assert [trouble.where for trouble in troubles] == ["rows.jsonl:4", "rows.jsonl:5", "rows.jsonl:6"]
    assert {trouble.kind for trouble in troubles} == {"broken lines"}


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be"])
def test_a_file_as_powershell_writes_it_is_read(tmp_path, codec):
    mark = {"utf-16": b"", "utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}[codec]
    (tmp_path / "rows.jsonl").write_bytes(mark + '{"a": "\u00e9"}\r\n{"a": 2}\r\n'.encode(codec))
    rows, troubles = read_lines(tmp_path / "rows.jsonl")
    assert ([row["a"] for _, row in rows], troubles) == (["\u00e9", 2], [])


@pytest.mark.parametrize("text", ['[{"a": 1}, {"a": 2}]', '[\n {"a": 1},\n {"a": 2}\n]'])
def test_a_json_array_is_told_from_lines(tmp_path, text):
    (tmp_path / "rows.json").write_text(text)
    _, troubles = read_lines(tmp_path / "rows.json")
    assert "one object per line is read, no JSON array" in str(troubles[0])
    assert [trouble.kind for trouble in troubles] == ["broken lines"] * len(troubles)


def test_a_line_nested_too_deep_is_broken_not_fatal(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("[" * 200_000 + "\n" + '{"a": 1}\n')
    rows, troubles = read_lines(file, source="nowhere")
    assert (len(rows), len(troubles)) == (1, 1)


def test_a_missing_file_is_named_with_where_its_owners_publish_it(tmp_path):
    with pytest.raises(GuardError, match=r"gone\.json is missing; its owners publish it at https://example\.org"):
        present(tmp_path / "gone.json", source="https://example.org")
    with pytest.raises(GuardError, match=r"gone\.json is missing$"):
        read_lines(tmp_path / "gone.json")
    with pytest.raises(GuardError, match="cannot be read"):
        read_lines(tmp_path, source="nowhere")
    with pytest.raises(GuardError, match=r"missing|cannot be read"):
        present(tmp_path / ("n" * 300))
