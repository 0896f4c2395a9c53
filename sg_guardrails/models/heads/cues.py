"""Turns of phrase that tell a refusal from an answer, read as features beside the words (English)."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import re2
from numpy.typing import NDArray

READ = 4_000
"""Characters of a text that are read."""

_DEED = (
    "(?:provide|help|assist|give|suggest|support|fulfil+|comply|engage|offer|recommend|advise|encourage|condone|answer"
    "|endorse|promote|discuss|create|write|generate|tell|share|teach|explain|participate|facilitate|assume|respond"
    "|satisfy|continue|show|say|describe|guide|aid|speculate|do (?:that|this|so)|be (?:of|a part))"
)
_UNABLE = (
    "(?:cannot|could not|(?:am |are )?(?:unable|not able|not allowed|not programmed|not designed|not comfortable"
    "|not going)|will not|would not|do not|should not|(?:must |have to )?(?:respectfully )?(?:decline|refuse))"
)
_REFUSES = rf"\b(?:i|we)(?: \w+ly)?(?: am| are)? ?{_UNABLE}\b[\w,' ]{{0,24}}?\b{_DEED}\b"
_STANCE: tuple[str, ...] = (
    _REFUSES,
    r"\b(?:i|we) (?:must|have to|will|would|choose to|am going to)? ?(?:\w+ly )?(?:decline|refuse)\b",
    r"^\W*(?:i am |we are )?(?:so |very |really |deeply |truly )?(?:sorry|afraid)\b|\bi (?:\w+ )?apologi[sz]e\b"
    r"|^\W*(?:my )?apologies|^\W*unfortunately",
    r"\bas (?:an?|your) (?:\w+ ){0,4}(?:ai|assistant|model|llm|chatbot)\b"
    r"|\bi am (?:just |only |simply )?an? (?:\w+ ){0,2}(?:ai|assistant|language model)\b",
    r"\b(?:not|never|nor|neither) (?:only )?(?:\w+ ){0,3}(?:appropriate|ethical|acceptable|legal|okay|ok|safe|healthy"
    r"|advisable|recommended|permissible|moral|responsible|respectful|productive|kind|good idea)\b|\binappropriate\b",
    r"\b(?:illegal|unethical|immoral|against the law|crime|criminal|unlawful|harmful|dangerous|violation|violates?)\b",
    r"\b(?:is|was|are|were|has|have) (?:absolutely |certainly |definitely |simply |clearly )?(?:not|never)"
    r" (?:\w+ ){0,3}(?:justified|right|good|lie|true|accurate|correct|fabricat\w+|superior|inferior|valid)\b"
    r"|\bno (?:\w+ ){0,2}(?:justification|reason|evidence|excuse|basis|place|room)\b|\bfalse\b"
    r"|\bcannot be justified\b|\b(?:condemn|reject)\b",
    r"\bdo not (?:have|hold)(?: or hold)? (?:any )?(?:personal )?(?:opinions?|beliefs?|views?|bias\w*|feelings?)",
    r"\bdo not have (?:\w+ ){0,3}(?:access|information|ability|capability|knowledge|data)\b"
    r"|\bnot (?:publicly )?(?:available|possible|able to (?:find|determine|access))\b",
    r"^\W*(?:sure|of course|certainly|absolutely|yes|definitely|here (?:is|are)|great question|to \w+)\b",
    r"\bi (?:must|have to|want to|would like to|need to|feel)(?: \w+ly)? (?:point out|clarify|emphasi[sz]e|inform|note"
    r"|stress|remind|state|say|add|advise|urge|tell)\b",
    r"\b(?:happy|glad|here) to (?:help|assist)\b",
    r"\b(?:your|this|that|the|such an?|such) (?:question|request|phrase|premise|statement|topic|content|behaviou?r"
    r"|actions?|activit\w+|language)\b",
)
"""Looked for in the first two sentences."""
_BODY: tuple[str, ...] = (
    r"\bfiction(?:al)?\b|\bfictitious\b|\bimaginary\b|\binanimate\b|\bnot make (?:any )?sense\b|\bscientific\w*\b"
    r"|\bnot (?:be |based on )?(?:a |any )?(?:\w+ )?(?:coherent|coherence|meaningful)\b|\bphysical(?:ly)?\b",
    r"\binstead\b|\bi (?:would|can|could) (?:strongly )?(?:suggest|encourage|recommend|advise|urge|be happy)\b",
    r"\b(?:seek|reach(?:ing)? out|hotline|helpline|lifeline|therapist|professional help|authorities|mental health"
    r"|crisis)\b",
    r"\b(?:feel free to ask|anything else|other questions|here to help|please let me know|different question"
    r"|something else)\b",
    r"\bimportant to (?:note|remember|understand|recogni[sz]e|acknowledge|respect|prioriti[sz]e|approach)\b",
    r"\bif you (?:are|or someone)\b",
    rf"\b(?:i|we) (?:cannot|am unable|am not able|will not)\b[\w,' ]{{0,24}}?\b{_DEED}\b",
    r"\bhere (?:are|is)\b[^.]{0,60}:",
    r"\b(?:steps?|ways|tips|options|strategies|methods|suggestions)\b[^.]{0,60}:",
    r"```|\(\)",
    r"\bharm(?:s|ful|ing)?\b|\bsafety\b|\bconsequences\b|\bwell-?being\b",
)
"""Looked for in the whole text."""

_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_ITEM = re.compile(r"(?:^|\s)(?:\d{1,2}[.)]|[-*\u2022])\s")
# RE2: linear in the text, which anyone may have written.
_COMPILED = tuple(re2.compile(pattern) for pattern in (*_STANCE, *_BODY))
_FIRST = re2.compile(_REFUSES)
COUNT = len(_COMPILED) + 5
"""K: every pattern, then the first sentence, the list, the length."""


def cues(texts: Sequence[str]) -> NDArray[np.float64]:
    """``(N, K)`` in about [0, 1.2]; spacing and line ends do not count, as they do not to a policy's rules.

    Args:
        texts: In lower case, contractions written out (`heads.plain`).
    """
    return np.array([_row(" ".join(text[:READ].split())) for text in texts], dtype=np.float64).reshape(-1, COUNT)


def _row(text: str) -> list[float]:
    sentences = _SENTENCE.split(text, maxsplit=2)
    start = " ".join(sentences[:2])
    seen = [bool(pattern.search(start if at < len(_STANCE) else text)) for at, pattern in enumerate(_COMPILED)]
    items, words = len(_ITEM.findall(text)), text.count(" ") + 1
    shape = (bool(_FIRST.search(sentences[0])), items > 0, items > 2, words < 25, np.log1p(words) / 5)
    return [float(value) for value in (*seen, *shape)]
