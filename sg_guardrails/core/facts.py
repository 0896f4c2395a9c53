"""What an answer states, as words: clauses of content words, which are denied, numbers, and what modifies what."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from sg_guardrails.core.lexicon import lemmas
from sg_guardrails.core.stance import sentences

_UNITS = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
_NUMBERS = {word: float(value) for value, word in enumerate(_UNITS.split())}
_TENS = {word: 10.0 * (value + 2) for value, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split())}
_SCALES = {"hundred": 1e2, "thousand": 1e3, "million": 1e6, "billion": 1e9, "dozen": 12.0}
_WORDS = {"both": 2.0, "pair": 2.0, "couple": 2.0, "duo": 2.0, "twin": 2.0, "trio": 3.0, "single": 1.0, "once": 1.0, "twice": 2.0, "half": 0.5, "third": 1 / 3}
_ORDINALS = {
    word: f"#{i + 1}"
    for i, word in enumerate("first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth".split())
}
_REWRITES = tuple(
    (re.compile(pattern), into)
    for pattern, into in (
        (r"\bno one\b|\bno-one\b|\bno (?:person|people)\b", "nobody"),
        (r"\bblack[- ]and[- ]white\b|\bmonochrome\b|\bgr[ae]yscale\b", "not in color"),
        (r"\bpart of\b|\bkind of\b|\btype of\b|\bsort of\b|\bpiece of\b|\bslice of\b", ""),
        (r"\bnot only\b", ""),
        (r"\b(?:taking|takes|took|take) off\b", "takeoff"),
        (r"\bon top of\b", "on"),
        (r"\b(?:in front of|ahead of)\b", "front"),
        (r"\b(?:at the back of|to the rear of)\b", "behind"),
        (r"\bleft[- ]hand\b", "left"),
        (r"\bright[- ]hand\b", "right"),
        (r"\bnext to\b|\bby the side of\b|\bclose to\b|\balongside\b", "beside"),
        (r"\b(?:dark|light|bright|deep|pale) (?=(?:red|blue|green|yellow|orange|purple|pink|brown|gray|grey)\b)", ""),
        (r"\bhalf past (\w+)\b", r"@h30 \1"),
        (r"\b(?:a )?quarter past (\w+)\b", r"@h15 \1"),
        (r"\b(\d{1,2}|[a-z]+) o'?clock\b", r"@h00 \1"),
        (r"\bthree[- ]quarters?\b", "75 percent"),
        (r"\b(?:one|a)[- ]half\b|\bhalf\b", "50 percent"),
        (r"\b(?:one|a) quarter\b|\bquarter of\b", "25 percent"),
        (r"\b(?:a|one) third of\b", "33 percent"),
        (r"\ba (?=hundred|thousand|million|dozen|couple|pair|trio)", ""),
        (r"(?<=\d)(?:km/h|kph|kmh)\b|\bkm/h\b|\bkph\b|\bkilomet(?:er|re)s? (?:per|an) hour\b", " kmh "),
        (r"\bmiles (?:per|an) hour\b", " mph "),
        (r"(?<=\d) ?km\b", " kilometer"),
        (r"(?<=\d) ?cm\b", " centimeter"),
        (r"(?<=\d) ?kg\b", " kilogram"),
        (r"(?<=\d) ?m\b", " meter"),
        (r"metre", "meter"),
        (r"\$ ?([\d.,]*\d)", r"\1 dollar"),
        (r"€ ?([\d.,]*\d)|(?<=\d) ?€", r"\1 euro"),
        (r"£ ?([\d.,]*\d)", r"\1 pound"),
        (r"(?<=\d) ?%", " percent"),
        (r"(?<=\d),(?=\d{3}\b)", ""),
    )
)
_TOKEN = re.compile(r"\d{1,2}:\d{2}|\d+(?:\.\d+)?(?:st|nd|rd|th)?|@\w+|[^\W\d_]+(?:'[^\W\d_]+)?|[.,;:!?]|[^\w\s]", re.UNICODE)

NEGATORS = frozenset(
    "not no never none neither nor nobody nothing nowhere without lack lacks lacking lacked absent hardly barely devoid missing "
    "unoccupied vacant deserted empty bald stationary motionless bare cannot".split()
)
_KEPT_NEGATORS = {"bald": "hair", "stationary": "move", "motionless": "move", "nobody": "person", "unoccupied": "", "vacant": "", "deserted": "person"}
_FUNCTION = frozenset(
    """a an the this that these those it its he she they them his her their him i we you my your our me us is are was were be been being am do does did
    done has have had having will would can could may might must should shall and or but so as of at to from for with than then there here which who whom
    whose what where when why how also too very quite really rather just only even still some any each every all such own same other another one's if while
    because since about roughly approximately around nearly almost exactly some about s t d ll re ve not no yes by in while although though both either
    well now currently please sure okay more most much indeed actually simply clearly apparently possibly probably likely perhaps maybe it's
    himself herself itself themselves someone's own per via upon within among amongst between during until after before again ever total altogether
    'a however additionally furthermore overall moreover various certain""".split()
)
_FRAME = frozenset(
    """image images picture pictures photo photos photograph photographs snapshot pic scene shot depict depicts depicting depicted show shows showing shown
    showed display displays displayed see seen seeing view visible appear appears appearing appeared seem seems look looks contain contains containing
    contained include includes including included feature features featuring featured present presents presented represent represents locate located
    position positioned situated place placed find found exist exists call called describe described illustrate illustrates capture captures captured
    portray portrays taken take can answer question color colour colored coloured shape side kind type sort object objects thing things item items
    identify identified evidence sign count say number give given believe think there's consist consists exactly use used set name named
    speaker clip audio recording video frame screenshot hear heard area corner part particular background foreground anywhere appearance
    turn turned made make makes took place""".split()
)
"""Words that frame an answer and state nothing about its subject."""
RELATIONS = frozenset("left right above below under over on off inside outside behind front top bottom up down upper lower toward towards away into out underneath beneath".split())


@dataclass(frozen=True, slots=True)
class Token:
    """One content word of an answer."""

    word: str
    """The word; for a number its value as text, for an ordinal ``#n``."""
    clause: int
    """Which clause of the answer it stands in."""
    place: int
    """Its place among all tokens of the answer, function words counted."""
    number: float | None = None
    """The value, where it is a number."""


@dataclass(frozen=True, slots=True)
class Clause:
    """One clause: its content words, and whether it denies them."""

    tokens: tuple[Token, ...]
    denied: bool
    """An odd number of negators."""
    denies: frozenset[str]
    """The nouns that a "no", "without" or "lacks" denies outright."""
    text: str


@dataclass(frozen=True, slots=True)
class Statement:
    """What an answer states."""

    clauses: tuple[Clause, ...]
    words: tuple[str, ...]
    """Every token of the text in order, function words and frame included."""

    @property
    def tokens(self) -> tuple[Token, ...]:
        """The content words in order."""
        return tuple(token for clause in self.clauses for token in clause.tokens)


@lru_cache(maxsize=4096)
def state(text: str) -> Statement:
    """Read a plain text (`stance.plain`) as clauses of content words."""
    for pattern, into in _REWRITES:
        text = pattern.sub(into, text)
    clauses: list[Clause] = []
    words: list[str] = []
    for sentence in sentences(text):
        for part in _clauses(sentence):
            clauses.append(_clause(part, len(clauses), words))
    return Statement(tuple(clauses), tuple(words))


_CLAUSE_BREAK = re.compile(
    r"[,;:] |\.\.\.| - | (?:but|while|whereas|although|though|because|which|who) "
    r"| and (?=(?:(?:the|a|an|his|her|their|its|this|that|there|it|he|she|they|\w+)\s+){0,4}(?:is|are|was|were|has|have|does|do|no|not|without)\b)"
)


def _clauses(sentence: str) -> list[str]:
    return [part for part in _CLAUSE_BREAK.split(sentence) if part.strip()] or [sentence]


def _clause(text: str, index: int, words: list[str]) -> Clause:
    raw = _numbered(_TOKEN.findall(text))
    denials, denied_nouns, tokens = 0, [], []
    open_denial = False
    for word, number in raw:
        place = len(words)
        words.append(word)
        if number == 0:
            denials, open_denial = denials + 1, True
            continue
        opposed = _prefixed(word)
        if word in NEGATORS or opposed:
            denials += 1
            open_denial = word in {"no", "without", "lack", "lacks", "lacking", "none", "nor", "neither", "missing"}
            kept = opposed or _KEPT_NEGATORS.get(word)
            if kept:
                tokens.append(Token(kept, index, place))
            if word == "nobody":
                denied_nouns.append("person")
            continue
        if number is None and (word in _FUNCTION or not word[0].isalnum() and word[0] != "#"):
            open_denial = open_denial and word in {"of", "the", "any", "a", "an", "single"}
            continue
        if number is None and word in _FRAME:
            open_denial = open_denial and word in {"sign", "evidence", "visible", "part"}
            continue
        tokens.append(Token(word, index, place, number))
        if open_denial and number is None:
            denied_nouns.append(word)
            open_denial = False
    return Clause(tuple(tokens), bool(denials % 2), frozenset(denied_nouns), text.strip())


def _prefixed(word: str) -> str | None:
    """The word that an "un-", "in-" or "dis-" denies, where the lexicon calls the two opposites: unhappy is not happy."""
    from sg_guardrails.core.lexicon import entry

    for prefix in ("un", "in", "im", "ir", "dis", "non"):
        if word.startswith(prefix) and len(word) > len(prefix) + 3:
            base = word[len(prefix) :].lstrip("-")
            known = entry(word)
            if known is not None and base in known.opposites or (prefix == "un" and known is None and len(lemmas(base)) > 1):
                return base
    return None


def _numbered(raw: list[str]) -> list[tuple[str, float | None]]:
    """Number words joined and read: "twenty - one" is 21, "two dozen" 24; ordinals become ``#n``, times stay text."""
    out: list[tuple[str, float | None]] = []
    i = 0
    while i < len(raw):
        word = raw[i]
        if word in {"@h30", "@h15", "@h00"} and i + 1 < len(raw):
            hour = _NUMBERS.get(raw[i + 1], None)
            hour = float(raw[i + 1]) if hour is None and raw[i + 1].isdigit() else hour
            out.append((f"{int(hour or 0)}:{word[2:]}", None))
            i += 2
            continue
        if match := re.fullmatch(r"(\d+)(?:st|nd|rd|th)", word):
            out.append((f"#{int(match[1])}", None))
        elif word in _ORDINALS:
            out.append((_ORDINALS[word], None))
        elif re.fullmatch(r"\d{1,2}:\d{2}", word):
            out.append((word.lstrip("0"), None))
        elif (value := _value(word)) is not None:
            value, i = _joined(raw, i, value)
            out.append((f"{value:g}", value))
        else:
            out.append((word, None))
        i += 1
    return out


def _value(word: str) -> float | None:
    for table in (_NUMBERS, _TENS, _SCALES, _WORDS):
        if word in table:
            return table[word]
    return float(word) if re.fullmatch(r"\d+(?:\.\d+)?", word) and word.isascii() else None


def _joined(raw: list[str], i: int, value: float) -> tuple[float, int]:
    while i + 1 < len(raw):
        step = 2 if raw[i + 1] in {"-", "and"} and i + 2 < len(raw) else 1
        following = raw[i + step]
        if following in _SCALES and raw[i] not in _WORDS:
            value *= _SCALES[following]
        elif following in _NUMBERS and raw[i] in _TENS and step <= 2 and raw[i + 1] != "and":
            value += _NUMBERS[following]
        elif raw[i] in _SCALES and raw[i + 1] == "and" and (following in _NUMBERS or following in _TENS):
            value += _NUMBERS.get(following, 0) or _TENS.get(following, 0)
        else:
            break
        i += step
    return value, i


def same_number(one: float, other: float) -> bool:
    """Equal values, a rounding error apart."""
    return abs(one - other) <= 1e-6 * max(1.0, abs(one), abs(other))
