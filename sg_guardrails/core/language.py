"""Whether a text is in another language than English: by its script, its function words, else by py3langid's model."""

from __future__ import annotations

import re
import unicodedata
from functools import cache, lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

_LEAST_WORDS = 4
"""Fewer Latin words tell too little: names, loans and one-word answers look alike in many languages."""
_LEAST_HITS = 2
_LEAST_SMALL = 2
"""Words without a capital that the model needs: foreign names seldom have two ("Leonardo da Vinci")."""
_SURE = 0.5
"""The least probability of one other language; the classes below share the rest."""
_NO_ENGLISH = 0.02
"""The greatest probability of English beside it. With these two no English text of XSTest is told as foreign, nor are
names and code among the short answers of tests/data/languages.jsonl (benchmarks/conditions.py)."""
_READ = 300
"""Characters that the model reads: it walks through them in Python."""
_CANDIDATES = (
    "en", "de", "fr", "es", "it", "pt", "nl", "pl", "sv", "da", "no", "fi", "tr", "id", "ms", "vi", "ro", "cs",
    "sk", "hu", "sl", "hr", "bs", "lt", "lv", "et", "ca", "gl", "eu", "sq", "sw", "tl", "af", "ga", "cy", "is",
    "mt", "so", "az", "uz", "ha", "yo", "zu", "xh", "mg",
)  # fmt: skip
"""Languages in Latin script that the model may name; of all its 139, rare ones take short texts from large ones."""
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)?")

# Function words that only English has, and those of other languages that are no English words ("die", "van", "on" and
# their like count for neither side).
_ENGLISH = (
    "the of and it you that for are with they be this from but not what were we when your can said there each which "
    "she how their if will about out many then them these some her would him into has could than been its who now my "
    "did get may here i'm it's can't don't please sorry cannot any should because such"
)
_OTHERS = {
    "spanish": "de la que el los se las por para con una su al lo como más pero sus le ya este sí porque esta entre y "
    "cuando muy sin sobre también hasta hay donde quien desde todo nos durante ni ese eso mi qué es en un está del "
    "puedo cómo ser son",
    "french": "de la le et les des en du un une que est pour qui dans par au sur ne se ce il sont avec vous je à ou "
    "nous cette être elle mais si leur aux été ont même tout fait ça c'est votre mon puis peux à pas",
    "german": "der und das ist ich nicht ein eine den von zu mit sich auf für dem des im auch es sie wir wie aus bei "
    "oder nach wenn werden kann über nur noch einen einer aber vor zum zur diese dieser mein kein sind haben wird du "
    "ihr uns dass",
    "italian": "di che la il un per una sono con non mi si ho lo ti le cosa della del nel gli dei alla delle più è "
    "anche ma questo questa perché io se hai tutto nella quando puoi posso dal sul",
    "portuguese": "de que não um para uma os com se na por mais dos como mas ao ele das tem seu sua ou ser à é "
    "quando muito há nos já está eu também só pelo pela até isso ela entre você em da uma",
    "dutch": "de het een en ik je niet dat zijn op te voor er maar om hem dan zou wat mijn dit zo ze zich bij ook naar "
    "heb hoe heeft deze kan wij jij nog uit aan met",
    "polish": "się nie na że jest jak co za od po czy dla przez przy tym jego ale już być są może ten który oraz mnie "
    "tylko",
    "swedish": "och att det som en på är av för till inte om ett jag sig från vi så kan när hur nu då ska de eller "
    "hon du",
    "danish": "og jeg det en til er som på de med af ikke der sig et vi havde ham hun nu fra du hvad hvordan kan",
    "turkish": "ve bir bu için ile çok da ben gibi ama kadar nasıl değil mı sonra olarak olan ya şey sen",  # noqa: RUF001 - a Turkish i
    "indonesian": "yang dan di itu dengan untuk tidak ini dari dalam akan pada juga saya ke karena tersebut bisa ada "
    "mereka lebih sudah atau saat oleh adalah kita kamu bagaimana apa",
    "vietnamese": "và của là có không được trong một các người với những này để khi đã tôi từ như đến bạn làm thế",
    "romanian": "și în de la cu pe că nu un din mai pentru este să ce care sunt au fost sau dar ca prin după cum",
    "czech": "se na je že jsem jako jak ale ve po za jsou při který není nebo",
    "finnish": "ja ei se että hän oli mutta niin kun joka ovat myös tai kuin minä sinä mitä miten jos ole olen",
    "hungarian": "az és hogy nem egy ez meg de csak már volt mint ki ha vagy még azt mit hogyan",
}
_ENGLISH_WORDS = frozenset(_ENGLISH.split())
_WORDS = {name: frozenset(words.split()) - _ENGLISH_WORDS for name, words in _OTHERS.items()}


def not_english(text: str) -> bool:
    """Whether a text is told to be in another language than English. In doubt it is not.

    More than half of its letters in another script than Latin (two at least); or, in Latin script, four words or more
    of which at least two are among one other language's commonest or accented, and more than twice as many as are among
    English's; or two words without a capital, none of them English's, where the model of py3langid (BSD-3-Clause;
    Lui and Baldwin, ACL 2012) is sure of another language. So single words ("Bleu."), names and a foreign passage in an
    English text are not told.
    """
    letters = [char for char in text if char.isalpha()]
    foreign = sum(not _latin(char) for char in letters)
    if 2 * foreign > len(letters):
        return foreign >= 2
    found = _WORD.findall(text)
    words = [word.casefold().replace("\u2019", "'") for word in found]
    english = sum(word in _ENGLISH_WORDS for word in words)
    other = max(sum(word in known or not word.isascii() for word in words) for known in _WORDS.values())
    if len(words) >= _LEAST_WORDS and other >= _LEAST_HITS and other > 2 * english:
        return True
    return english == 0 and sum(word.islower() for word in found) >= _LEAST_SMALL and _foreign(text[:_READ])


def _foreign(text: str) -> bool:
    ranked = _identifier().rank(text)
    english = next(probability for name, probability in ranked if name == "en")
    return bool(english < _NO_ENGLISH and ranked[0][1] >= _SURE)


@cache
def _identifier() -> LanguageIdentifier:
    # Half a second and 100 MB: only where a text is not decided without it.
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # noqa: PLC0415 - see above

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(_CANDIDATES)
    return identifier


@lru_cache(maxsize=4096)
def _latin(char: str) -> bool:
    return char.isascii() or unicodedata.name(unicodedata.normalize("NFKC", char)[0], "").startswith("LATIN")
