"""One way of writing what can be written in many: numbers, times of day, measures, set phrases."""
# ruff: noqa: E501 - a pattern broken over lines is harder to read than a long one

from __future__ import annotations

import re
from collections.abc import Callable

from sg_guardrails.core.lexicon import ordered

_NUMBERS = {word: float(value) for value, word in enumerate(ordered("units"))}
_TENS = {word: 10.0 * (value + 2) for value, word in enumerate(ordered("tens"))}
_MINUTES = {"ten": "10", "fifteen": "15", "twenty": "20", "thirty": "30", "forty": "40", "fifty": "50"}
"""Said after an hour: "seven thirty"."""
_SCALES = {"hundred": 1e2, "thousand": 1e3, "million": 1e6, "billion": 1e9, "dozen": 12.0}
_WORDS = {
    "both": 2.0,
    "pair": 2.0,
    "couple": 2.0,
    "duo": 2.0,
    "twin": 2.0,
    "trio": 3.0,
    "single": 1.0,
    "once": 1.0,
    "twice": 2.0,
    "half": 0.5,
    "third": 1 / 3,
}
_ORDINALS = {word: f"#{value + 1}" for value, word in enumerate(ordered("ordinals"))}
_NUMERAL = rf"(?:\d{{1,3}}(?:\.\d+)?|{'|'.join(word for word in (*_NUMBERS, *_TENS) if word != 'a')})"
_ORDINAL = rf"(?:\d+(?:st|nd|rd|th)|{'|'.join(_ORDINALS)})"
_SECONDS = {"second": 1.0, "minute": 60.0, "hour": 3600.0}
_UNITS = {**_SECONDS, "week": 7.0, "kilometer": 1000.0, "kilogram": 1000.0, "decade": 10.0, "century": 100.0}
_INTO = {"minute": "second", "hour": "second", "week": "day", "kilometer": "meter", "kilogram": "gram", "decade": "year", "century": "year"}  # fmt: skip


def _read_numeral(word: str) -> float:
    return float(word) if word[0].isdigit() else _NUMBERS.get(word, _TENS.get(word, 0.0))


def _score(found: re.Match[str]) -> str:
    return f"{_read_numeral(found[1]):g}-{_read_numeral(found[2]):g}"


def _measured(found: re.Match[str]) -> str:
    """A length of time, distance or weight in the smaller unit: "a minute and a half" is "90 second"."""
    amount, unit, half = found["n"], found["unit"], found["half"]
    value = 0.5 if amount.startswith("half") else 1.0 if amount in {"a", "an"} else _read_numeral(amount)
    return f"{(value + (0.5 if half or found['mid'] else 0.0)) * _UNITS[unit]:g} {_INTO[unit]}"


def _clock(found: re.Match[str]) -> str:
    """A time of day as hours on a twelve-hour clock and its half of the day."""
    hour = int(_read_numeral(found["h"]))
    night = found["part"] == "at night"
    half = "a" if found["part"] == "in the morning" or (night and hour in {12, 1, 2, 3, 4}) else "p"
    return f"{hour}:{found['m'] or '00'} {half}mtime" if 1 <= hour <= 12 else found[0]


def _afternoon(found: re.Match[str]) -> str:
    hour = int(found[1])
    return f"{hour - 12}:{found[2]} pmtime" if 13 <= hour <= 23 else found[0]


def _until(found: re.Match[str]) -> str:
    """Minutes past or to an hour: "ten to five" is 4:50."""
    minutes = {"half": 30, "quarter": 15, "a quarter": 15}.get(found[1]) or int(_read_numeral(found[1]))
    hour = int(_read_numeral(found[3]))
    if not 0 < minutes < 60 or not 1 <= hour <= 12:
        return found[0]
    hour, minutes = (hour, minutes) if found[2] == "past" else ((hour - 2) % 12 + 1, 60 - minutes)
    return f"{hour}:{minutes:02d}"


_REWRITES: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = tuple(
    (re.compile(pattern), into)
    for pattern, into in (
        (r"\bnoon\b|\bmidday\b", "12:00 pmtime"),
        (r"\bmidnight\b", "12:00 amtime"),
        (
            rf"\b(half|a quarter|quarter|five|ten|twenty|5|10|20)(?: minutes)? (past|to) ({_NUMERAL})\b(?! (?:people|percent|\w+s)\b)",
            _until,
        ),
        (
            rf"\b(?:at )?(?P<h>{_NUMERAL})(?::(?P<m>\d\d))?(?: o'?clock)? (?P<part>in the (?:morning|afternoon|evening)|at night)\b",
            _clock,
        ),
        (r"(?<![\d:])(\d{2}):(\d{2})\b(?! ?[ap]\.?m)", _afternoon),
        (
            rf"\b(?:minus|negative) ({_NUMERAL})\b(?: degrees?)?|\b({_NUMERAL})(?: degrees?)?(?: celsius| fahrenheit)? below (?:zero|freezing)\b",
            lambda found: f"-{_read_numeral(found[1] or found[2]):g} degrees",
        ),
        (rf"\b({_NUMERAL})(?: goals?| points?)? to ({_NUMERAL})\b(?! (?:the|a|an)\b)", _score),
        (rf"\b(?:came|comes|come|finish(?:es|ed)?|placed|ended up|ranked|ranks) (?:in )?(?={_ORDINAL}\b)", "placed "),
        (
            r"\bwithout (?:any |much |a )?(?:trouble|difficult(?:y|ies)|problems?|effort|hitch|hesitation|mistakes?|delay|stopping|fail|exception|incident)\b",
            "successfully",
        ),
        (r"\bon time\b", "punctual"),
        (r"\b(?:forg[eo]t|forgets|forgotten|neglect(?:s|ed)?|omit(?:s|ted)?) to\b", "not"),
        (r"\bno (?:more )?(?:space|room|capacity)(?: left| remaining| available)?\b", "full"),
        (
            r"\b(?:is|are|was|were)(?: all| already)? taken\b(?! (?:by|from|in|at|to|on|with|up|off|out|away|over|during))",
            "is occupied",
        ),
        (r"\bagainst (?=\w+ing\b)", "not "),
        (r"\bpop[- ]?up\b", "popup"),
        (r"\bpushed back\b|\bput off\b", "postponed"),
        (r"\b(?:called|calls|calling) off\b", "cancelled"),
        (r"\bstay(?:s|ed|ing)? (?:at )?home\b|\bstay(?:s|ed|ing)? indoors\b", "not travel"),
        (r"\bunder ?water\b", "flooded"),
        (r"\bget(?:s|ting)? better\b|\bgot better\b", "improve"),
        (r"\bgo(?:es|ne|ing)? out\b(?=[.,;]|$)|\bwent out\b(?=[.,;]|$)", "extinguished"),
        (r"\b(?:bans?|forbids?|prohibits?|disallows?)\b", "not allow"),
        (r"\be-mail", "email"),
        (r"\bout of focus\b", "blurry"),
        (r"\bfrom above\b", "aerial"),
        (r"\bno one\b|\bno-one\b|\bno (?:person|people)\b", "nobody"),
        (r"\bblack[- ]and[- ]white\b|\bmonochrome\b|\bgr[ae]yscale\b", "not in color"),
        (r"\bpart of\b|\bkind of\b|\btype of\b|\bsort of\b|\bpiece of\b|\bslice of\b", ""),
        (r"\bnot only\b|\bno more than\b|\bno (?:fewer|less) than\b", ""),
        (r"\b(?:an |the )?absence of\b", "without"),
        (r"\b(?:refuse|decline)(?:s|d|ing)? to\b", "not"),
        (r"\bneither (.{1,40}?) nor\b", r"no \1 or"),
        (r"\bhalf[- ](?:a )?dozen\b", "6"),
        (r"\b(\d{1,2}:\d{2}) ?([ap])\.?m\b\.?", r"\1 \2mtime"),
        (r"\b(\d{1,2}) ?([ap])\.?m\b\.?", r"\1:00 \2mtime"),
        (r"\bfree (?:of|from)\b|\b(?:is|are) missing\b", "without"),
        (r"\b(\w+)-free\b", r"without \1"),
        (r"\bfail(?:s|ed|ing)? to\b", "not"),
        (r"\bout of (?:order|service)\b", "not work"),
        (r"\b(?:prohibited|forbidden|banned|not permitted|disallowed)\b", "not allowed"),
        (r"\bpermitted\b", "allowed"),
        (r"\bbare(?:foot|footed)\b", "without shoes"),
        (r"\bpoorly\b", "not well"),
        (r"\b(?:is|are) (?:un|not )able to\b", "can not"),
        (r"\bunable to\b", "not"),
        (r"\bmade (?:out )?of\b", "of"),
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
        (r"metre", "meter"),
        (r"(?<=\d) ?km\b", " kilometer"),
        (r"(?<=\d) ?kgs?\b", " kilogram"),
        (
            rf"\b(?P<n>half an?|an?|{_NUMERAL})(?P<mid> and a half)?[- ](?P<unit>minute|hour|week|kilometer|kilogram|decade)s?\b(?P<half> and a half)?",
            _measured,
        ),
        (r"\bthree[- ]quarters?\b", "75 percent"),
        (r"\b(?:one|a)[- ]half\b|\bhalf\b", "50 percent"),
        (r"\b(?:one|a) quarter\b|\bquarter of\b", "25 percent"),
        (r"\b(?:a|one) third of\b", "33 percent"),
        (r"\ba (?=hundred|thousand|million|dozen|couple|pair|trio)", ""),
        (r"(?<=\d)(?:km/h|kph|kmh)\b|\bkm/h\b|\bkph\b|\bkilomet(?:er|re)s? (?:per|an) hour\b", " kmh "),
        (r"\bmiles (?:per|an) hour\b", " mph "),
        (r"(?<=\d) ?cm\b", " centimeter"),
        (r"(?<=\d) ?kg\b", " kilogram"),
        (r"(?<=\d) ?m\b", " meter"),
        (r"\$ ?([\d.,]*\d)", r"\1 dollar"),
        (r"€ ?([\d.,]*\d)|(?<=\d) ?€", r"\1 euro"),
        (r"£ ?([\d.,]*\d)", r"\1 pound"),
        (r"(?<=\d) ?%", " percent"),
        (r"(?<=\d),(?=\d{3}\b)", ""),
    )
)


def reworded(text: str) -> str:
    """A plain text (`stance.plain`) with its times, measures and set phrases in one way of writing."""
    for pattern, into in _REWRITES:
        text = pattern.sub(into, text)
    return text


def numbered(raw: list[str]) -> list[tuple[str, float | None]]:
    """Number words joined and read: "twenty - one" is 21, "two dozen" 24; ordinals become ``#n``, times stay text."""
    out: list[tuple[str, float | None]] = []
    i = 0
    while i < len(raw):
        word = raw[i]
        if word in {"@h30", "@h15", "@h00"} and i + 1 < len(raw):
            hour = _NUMBERS.get(raw[i + 1])
            hour = float(raw[i + 1]) if hour is None and raw[i + 1].isdigit() else hour
            out.append((f"{int(hour or 0)}:{word[2:]}", None))
            i += 2
            continue
        if raw[i + 1 : i + 2] and raw[i + 1] in _MINUTES and 1 <= _NUMBERS.get(word, 0) <= 12:
            out.append((f"{int(_NUMBERS[word])}:{_MINUTES[raw[i + 1]]}", None))
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
    return float(word) if re.fullmatch(r"-?\d+(?:\.\d+)?", word) and word.isascii() else None


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
