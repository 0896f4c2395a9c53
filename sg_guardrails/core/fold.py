"""Text as a reader sees it: nothing invisible, look-alike letters made plain, and the way back for redaction."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

_SELECTORS = ((0x180B, 0x180F), (0xFE00, 0xFE0F), (0xE0100, 0xE01EF))
_INVISIBLE = frozenset("\u034f\u115f\u1160\u3164\uffa0") | frozenset(
    chr(code) for first, last in _SELECTORS for code in range(first, last + 1)
)
"""Letters and marks by category that show nothing; format characters (Cf) are told by theirs."""

# Letters that readers take for Latin ones: after Unicode's confusables (UTS 39), narrowed to single letters of the
# scripts used for it, with lower-case Cyrillic that only stands in by shape and the phonetic small capitals added.
_LOOKALIKES = str.maketrans(
    "АВЕЅІЈКМНОРСТУХҮԚԜѴЗаеѕіјкмнорстухүԛԝѵһӏԁвѐёїґ"
    "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧαβεηικνορτυχγωϲϳ"
    "օոսհյցցՍՕ"
    "ᎠᎡᎢᎪᎫᎬᎳᎷᎻᏀᏃᏞᏢᏟᏚᏴᏙᏦ"  # noqa: RUF001 - look-alikes are what this table is of
    "ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢıɑɡłŁøØđĐħĦ",
    "ABESIJKMHOPCTYXYQWV3aesijkmhopctyxyqwvhldbeeir"
    "ABEZHIKMNOPTYXabenikvoptuxywcj"
    "onuhjggUO"
    "DRTAJEWMHGZLPCSBVK"
    "abcdefghijklmnoprstuvwyziaglLoOdDhH",
)


def readable(text: str) -> str:
    """The text as a reader sees it: NFKC, no invisible characters, single spaces."""
    if text.isascii():
        return " ".join(text.split())
    whole = unicodedata.normalize("NFKC", text.encode("utf-8", "replace").decode("utf-8"))
    return " ".join("".join(char for char in whole if not _hidden(char)).split())


def lined(text: str) -> str:
    """`readable`, line by line: the breaks between lines stay, each as one line feed."""
    return "\n".join(readable(line) for line in text.splitlines())


def plain(text: str) -> str:
    """`text` with each letter that is mistaken for a Latin one in that one's place; as long as before."""
    return text if text.isascii() else text.translate(_LOOKALIKES)


def unmarked(text: str) -> str:
    """`text` without the marks that are set on, under or through its letters."""
    if text.isascii():
        return text
    return "".join(char for char in unicodedata.normalize("NFKD", text) if not unicodedata.combining(char))


def bare(text: str) -> str:
    """Plain, casefolded and without accents, on both sides of a comparison: none of them must hide a word."""
    if text.isascii():
        return text.casefold()
    return plain(unmarked(plain(text).casefold()))


def traced(text: str, *, stripped: bool = False) -> tuple[str, list[int]]:
    """`readable` (and `bare` where `stripped`), and for each of its characters where in `text` it comes from.

    A character and the marks that follow it are read together, as normalisation does. Where normalisation joins more
    than that (Hangul's parts), the result differs from `readable`'s: callers look again at what they made of it.
    """
    out: list[str] = []
    origin: list[int] = []
    for start, cluster in _clusters(text):
        seen = "".join(char for char in unicodedata.normalize("NFKC", cluster) if not _hidden(char))
        for char in bare(seen) if stripped else seen:
            if not char.isspace():
                out.append(char)
                origin.append(start)
            elif out and out[-1] != " ":
                out.append(" ")
                origin.append(start)
    return "".join(out), origin


def _clusters(text: str) -> Iterator[tuple[int, str]]:
    start = 0
    for at in range(1, len(text)):
        if not unicodedata.combining(text[at]):
            yield start, text[start:at]
            start = at
    if text:
        yield start, text[start:]


def _hidden(char: str) -> bool:
    return char in _INVISIBLE or unicodedata.category(char) == "Cf"
