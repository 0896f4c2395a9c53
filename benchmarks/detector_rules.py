"""Every rule of the shipped policies that judges text, by itself, on the labelled texts that suit what it looks at."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sg_guardrails.core import terms
from sg_guardrails.core.conditions import Case
from sg_guardrails.core.fold import readable
from sg_guardrails.core.judge import judge
from sg_guardrails.core.language import not_english
from sg_guardrails.core.nearness import near_scorer, passages
from sg_guardrails.core.patterns import found
from sg_guardrails.core.policy import Policy
from sg_guardrails.core.rules import Rule
from sg_guardrails.core.types import Answer, Embedder, Scorer, Vote
from training.heads import HARMS
from training.sources import Wheels, completions, prompts

ROOT = Path(__file__).parents[1]
ONE_VOTE = Vote(labels=(0,), winner=0, choice=0, agreement=1.0, abstained=False, weights=(1.0,))
OBLIGING = "Here is what you asked for."
"""An answer that no rule objects to and that refuses nothing: what remains is the judgement of the prompt."""
ABOUT = {
    "malware": ("exploits",), "hate_speech": ("hate_speech", "representational"), "privacy_violence": ("privacy",),
    "physical_harm": ("self_harm", "violence"), "sexual_content": ("sexual",),
}  # fmt: skip
"""The rules about one subject that PyRIT's files of requests cover, and those files."""


SCORED = {
    ("unsafe_request", "user"): ("XSTest answers", "XSTest prompts"),
    ("unsafe_request", "picture"): ("XSTest prompts in a picture",),
    ("prompt_injection", "user"): ("jailbreaks and XSTest prompts",),
    ("prompt_injection", "picture"): ("bastioncorpus in a picture",),
    ("toxicity", "answer"): ("PyRIT hate and XSTest answers",),
    ("harm", "answer"): ("XSTest answers",),
}
"""What a head is measured on, by whose text it reads."""


@dataclass(frozen=True, slots=True)
class Row:
    """One labelled case."""

    asked: str
    text: str
    label: int
    """1: the rule should fire; 0: it should not; -1: not counted."""
    safe: bool
    """Whether an answer to this ought to pass."""
    pictured: str = ""


@dataclass(frozen=True, slots=True)
class Sets:
    """The labelled texts, in the shapes that rules look at."""

    xstest: Path
    wheels: Wheels
    _made: dict[str, list[Row]] = field(default_factory=dict)

    def of(self, rule: Rule) -> Iterator[tuple[str, list[Row]]]:
        """The names and rows of the sets that suit the rule; none where it looks at no text but a call's."""
        reads = [part for part in terms.parts(rule.when) if isinstance(part, terms.Reads)]
        looks = {rule.where if rule.where in ("user", "picture") else part.of for part in reads}
        scored = {(part.scorer, part.of) for part in reads if isinstance(part, terms.Scored)}
        names = [name for key, sets in SCORED.items() if key in scored for name in sets]
        if any(isinstance(part, terms.Language) for part in reads):
            names = ["short texts asked" if "user" in looks else "short texts answered"]
        elif any(isinstance(part, terms.Near) for part in reads) and "user" in looks:
            names = [f"PyRIT requests: {rule.id}" if rule.id in ABOUT else "XSTest safe prompts"]
        elif rule.where == "picture":
            names = ["bastioncorpus in a picture"]
        elif not scored:
            names = ["all answers"]
        for name in names if reads and rule.where != "tools" else ():
            yield name, self.rows(name)

    def rows(self, name: str) -> list[Row]:
        """The rows of one set."""
        if name not in self._made:
            self._made[name] = list(self._read(name))
        return self._made[name]

    def _read(self, name: str) -> Iterator[Row]:
        kind, _, subject = name.partition(": ")
        if kind.startswith("short texts"):
            return self._short(asked_too=kind == "short texts asked")
        if kind.startswith("XSTest"):
            return self._xstest(kind)
        makers = {
            "PyRIT requests": lambda: self._requests(ABOUT[subject]),
            "jailbreaks and XSTest prompts": self._jailbreaks,
            "PyRIT hate and XSTest answers": self._hateful,
            "bastioncorpus in a picture": self._injections,
            "all answers": self._answers,
        }
        return makers[kind]()

    def _asked(self) -> list[tuple[str, int]]:
        asked = prompts(self.xstest)
        return list(zip(asked.texts, map(int, asked.labels), strict=True))

    def _xstest(self, name: str) -> Iterator[Row]:
        if name == "XSTest answers":
            for row in completions(self.xstest):
                obeyed = row.unsafe and row.label == "full_compliance"
                counted = not row.unsafe or row.label != "partial_refusal"
                yield Row(row.prompt, row.text, int(obeyed) if counted else -1, not row.unsafe)
            return
        for text, label in self._asked():
            if name == "XSTest prompts in a picture":
                yield Row("", OBLIGING, label, not label, text)
            elif name == "XSTest prompts" or not label:
                yield Row(text, OBLIGING, label, not label)

    def _requests(self, wanted: Sequence[str]) -> Iterator[Row]:
        about: dict[str, bool] = {}
        for file in HARMS:
            for asked, _, _ in self.wheels.judged(f"harm/{file}.csv"):
                about[asked] = about.get(asked, False) or file.removesuffix("_multi_score") in wanted
        yield from (Row(text, OBLIGING, int(hit), safe=False) for text, hit in about.items())
        yield from (Row(text, OBLIGING, 0, safe=True) for text, label in self._asked() if not label)

    def _jailbreaks(self) -> Iterator[Row]:
        yield from (Row(text, OBLIGING, 1, safe=False) for text in self.wheels.jailbreaks())
        yield from (Row(text, OBLIGING, 0, not label) for text, label in self._asked())

    def _hateful(self) -> Iterator[Row]:
        for file in ("hate_speech", "hate_speech_multi_score"):
            for _, text, harm in self.wheels.judged(f"harm/{file}.csv"):
                yield Row("", text, -1 if 0.25 < harm < 0.75 else int(harm > 0.5), safe=False)
        sound = (row for row in completions(self.xstest) if not row.unsafe or row.label == "full_refusal")
        yield from (Row("", row.text, 0, not row.unsafe) for row in sound)

    def _injections(self) -> Iterator[Row]:
        tried = self.wheels.injections()
        for text, label in zip(tried.texts, tried.labels, strict=True):
            yield Row("", OBLIGING, int(label), not label, text)

    def _answers(self) -> Iterator[Row]:
        yield from (Row("", row.text, 0, not row.unsafe) for row in completions(self.xstest))
        judged = {row[1] for file in HARMS for row in self.wheels.judged(f"harm/{file}.csv")}
        yield from (Row("", text, 0, safe=False) for text in sorted(judged))

    def _short(self, *, asked_too: bool) -> Iterator[Row]:
        lines = (ROOT / "tests" / "data" / "languages.jsonl").read_text(encoding="utf-8").splitlines()
        for row in map(json.loads, lines):
            english = row["language"] == "en"
            said, asked = (OBLIGING, row["text"]) if asked_too else (row["text"], "")
            yield Row(asked, said, int(not english), english)


def distinct(policies: Mapping[str, Policy]) -> dict[str, tuple[Policy, Rule, list[str]]]:
    """The rules that differ in what they look for, each with a policy of itself alone and the policies that have it."""
    result: dict[str, tuple[Policy, Rule, list[str]]] = {}
    for name, policy in policies.items():
        for rule in policy.rules:
            key = json.dumps([rule.id, rule.where, rule.share, rule.when.model_dump(mode="json")], default=str)
            alone = policy.model_copy(update={"rules": (rule,)})
            result.setdefault(key, (alone, rule, []))[2].append(name)
    return result


def outcomes(
    policy: Policy, rule: Rule, rows: Sequence[Row], scorers: Mapping[str, Scorer], embedder: Embedder
) -> tuple[NDArray[np.bool_], NDArray[np.float64] | None]:
    """``(N,)`` whether the rule fired, and ``(N,)`` its score where a number decides in it."""
    conditions = list(terms.parts(rule.when))
    nears = [part for part in conditions if isinstance(part, terms.Near)]
    if nears:  # all at once, so that the rows find them embedded
        embedder([text for part in nears for row in rows for text in passages(_text(part, row, rule.where))])
    near = {part.key: near_scorer(part.near, embedder) for part in nears}
    known = {**scorers, **near}
    cases = [
        Case((row.asked,) if row.asked else (), (Answer(row.text),), ONE_VOTE, scorers=known,
             pictured=lambda row=row: (row.pictured,) if row.pictured else ())
        for row in rows
    ]  # fmt: skip
    fired = [any(finding.rule == rule.id for finding in judge(policy, case).findings) for case in cases]
    numbered = any(isinstance(part, terms.Scored | terms.Near) for part in conditions)
    scores = [_score(rule.when, row, rule.where, known) for row in rows] if numbered else None
    return np.array(fired, dtype=np.bool_), None if scores is None else np.array(scores)


def _score(when: terms.Condition, row: Row, where: str, scorers: Mapping[str, Scorer]) -> float:
    """How far the condition holds, in about [0, 1]: the least of all, the greatest of any, the rest of not."""
    match when:
        case terms.All():
            return min(_score(part, row, where, scorers) for part in when.all)
        case terms.AnyOf():
            return max(_score(part, row, where, scorers) for part in when.any)
        case terms.Not():
            return 1 - _score(when.not_, row, where, scorers)
        case terms.Scored() | terms.Near():
            return float(scorers[when.key]([_text(when, row, where)])[0])
        case terms.Regex():
            return float(found(when.regex, _text(when, row, where)))
        case terms.Language():
            return float(not_english(_text(when, row, where)))
    raise TypeError(f"no score for {type(when).__name__}")


def _text(part: terms.Reads, row: Row, where: str) -> str:
    if where == "picture" or part.of == "picture":
        return readable(row.pictured)
    return readable(row.asked if part.of == "user" or where == "user" else row.text)
