"""Whether a text is in another language than English: by its script, else by its commonest function words."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_LEAST_WORDS = 4
"""Fewer Latin words tell too little: names, loans and one-word answers look alike in many languages."""
_LEAST_HITS = 2
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

    More than half of its letters in another script than Latin (two at least), or, in Latin script, four words or more
    of which at least two are among one other language's commonest or accented, and more than twice as many as are among
    English's. So a short answer in Latin script ("Bleu.") and a foreign passage in an English text are not told.
    """
    letters = [char for char in text if char.isalpha()]
    foreign = sum(not _latin(char) for char in letters)
    if 2 * foreign > len(letters):
        return foreign >= 2
    words = [word.casefold().replace("\u2019", "'") for word in _WORD.findall(text)]
    if len(words) < _LEAST_WORDS:
        return False
    english = sum(word in _ENGLISH_WORDS for word in words)
    other = max(sum(word in known or not word.isascii() for word in words) for known in _WORDS.values())
    return other >= _LEAST_HITS and other > 2 * english


@lru_cache(maxsize=4096)
def _latin(char: str) -> bool:
    return char.isascii() or unicodedata.name(unicodedata.normalize("NFKC", char)[0], "").startswith("LATIN")
