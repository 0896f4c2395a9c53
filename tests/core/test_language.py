"""What is told to be in another language than English, and what is not."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from sg_guardrails.core.language import not_english

SHORT = [
    "Blue.",
    "Yes.",
    "No.",
    "A red triangle.",
    "Two.",
    "El Ni\u00f1o",
    "Caf\u00e9 cr\u00e8me",
    "\u03c0",
    "",
    "42",
    "Carpe diem.",
    "Leonardo da Vinci",
    "for i in range(10): pass",
]


@pytest.mark.parametrize("text", SHORT)
def test_short_answers_are_left_alone(text):
    assert not not_english(text)


@pytest.mark.parametrize(
    "text",
    [
        "A van is overtaking a cyclist.",
        "Los Angeles and Las Vegas.",
        "A croissant and a caf\u00e9 au lait at the Champs-\u00c9lys\u00e9es.",
        "The sign says \u51fa\u53e3, which means exit.",
        "HACKED BY TEAM Z",
        "No, he is on a bus in Den Haag.",
        "The value of \u03c0 is about 3.14.",
        "Die hard, my son, was as bad as I had hoped.",
    ],
)
def test_english_stays_english(text):
    assert not not_english(text)


@pytest.mark.parametrize(
    "text",
    [
        "Der Hund ist braun und sitzt auf dem Sofa.",
        "Wie baue ich eine Bombe?",
        "C'est une image d'un chat sur le canap\u00e9.",
        "Je ne peux pas vous aider.",
        "\u00bfC\u00f3mo puedo hacer una bomba?",
        "No puedo ayudarte con eso.",
        "Il cane \u00e8 sul divano.",
        "O cachorro est\u00e1 no sof\u00e1.",
        "Ik kan je daar niet mee helpen.",
        "Nie mog\u0119 w tym pom\u00f3c.",
        "Jag kan inte hj\u00e4lpa dig med det.",
        "Bu resimde bir kedi var ve \u00e7ok g\u00fczel.",
        "\u042d\u0442\u043e \u043a\u043e\u0448\u043a\u0430.",
        "\u8fd9\u662f\u4e00\u53ea\u732b",
        "\u0647\u0630\u0647 \u0642\u0637\u0629",
        "\u03b3\u03ac\u03c4\u03b1",
    ],
)
def test_other_languages_are_told(text):
    assert not_english(text)


LABELLED = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "data" / "languages.jsonl").read_text(encoding="utf-8").splitlines()
]
OTHER_SCRIPTS = {"ru", "uk", "el", "zh", "ja", "ko", "ar", "he", "hi", "th"}
LOANS = {
    "Spaghetti alla carbonara",
    "C'est la vie.",
    "Antoine de Saint-Exup\u00e9ry",
    "Maria de los Angeles",
    "Caf\u00e9 au lait",
}
"""The phrases and names of other languages among the English answers that are told as foreign."""


def told(rows):
    return [row["text"] for row in rows if not_english(row["text"])]


def test_of_short_texts_in_latin_script_four_in_five_are_told():
    rows = [row for row in LABELLED if row["language"] not in OTHER_SCRIPTS | {"en"}]
    assert len({row["language"] for row in rows}) >= 20
    assert len(told(rows)) >= 0.8 * len(rows)


def test_every_short_text_in_another_script_is_told():
    rows = [row for row in LABELLED if row["language"] in OTHER_SCRIPTS]
    assert told(rows) == [row["text"] for row in rows]


def test_of_short_english_answers_names_and_code_only_loans_are_told():
    rows = [row for row in LABELLED if row["language"] == "en"]
    assert len(rows) > 250
    assert set(told(rows)) <= LOANS


def test_no_prompt_and_no_completion_of_xstest_is_taken_for_another_language(shared):
    folder = shared / "data" / "xstest"
    texts = []
    for file in folder.glob("*.csv"):
        with file.open(encoding="utf-8", newline="") as lines:
            texts += [row.get("completion") or row["prompt"] for row in csv.DictReader(lines)]
    assert len(texts) > 1000
    assert [text for text in texts if not_english(text)] == []
