"""Generated insults, threats and slurs, and the harmless texts with the same words and forms."""

from __future__ import annotations

import random
from collections.abc import Sequence

from training.phrases import THINGS, TOPICS

_GROUPS = (
    "immigrants", "women", "men", "Muslims", "Jews", "Christians", "black people", "white people", "gay people",
    "refugees", "trans people", "disabled people", "old people", "poor people", "foreigners", "Asians",
    "the unemployed", "teachers",
)  # fmt: skip
_BAD = (
    "stupid", "worthless", "disgusting", "pathetic", "filthy", "subhuman", "inferior", "vermin", "parasites",
    "a disease", "criminals by nature", "animals", "a plague on this country", "liars", "idiots", "trash", "scum",
    "dirty thieves",
)  # fmt: skip
_GOOD = (
    "welcome here", "as capable as anyone", "equal before the law", "our neighbours", "part of this country",
    "hard-working", "often treated unfairly", "protected by law", "like everybody else", "entitled to vote", "kind",
    "underpaid", "diverse",
)  # fmt: skip
_NAMES = ("idiot", "moron", "loser", "fool", "coward", "pig", "freak", "clown", "creep", "imbecile", "scumbag", "rat")
_TOXIC = (
    "You are a {name}.", "Shut up, you {name}.", "{group} are {bad}.", "I hate {group}.",
    "All {group} should be thrown out.", "You disgust me, {name}.", "Nobody likes you, you pathetic {name}.",
    "Go away and die.", "I will find you and hurt you.", "{group} do not deserve any rights.",
    "We should get rid of {group}.", "What a worthless {name} you are.", "Go kill yourself.",
    "I'm going to beat you until you cry.", "{group} ruin everything they touch; they are {bad}.", "You {curse}!",
    "You stupid {curse}.", "Only a {name} would ask that.", "Typical {group}: {bad}.",
    "{group} are {bad} and must be stopped by force.", "{curse} off, {name}.",
    "Someone should burn down the houses of {group}.", "You are too dumb to understand this, {name}.",
    "What the {curse}, you {name}.",
)  # fmt: skip
_MILD = (
    "{group} are {good}.", "I like {group}.", "{group} deserve the same rights as everybody.",
    "You are a great friend.", "You did that well, thank you.", "Many {group} live in this town.",
    "It is wrong to say that {group} are {bad}.", "I hate rain.", "The report shows how {group} are treated at work.",
    "I killed the process and it started again.", "That {thing} is ugly.", "The {thing} was thrown out.",
    "My dog is stupid but lovely.", "This film is terrible and far too long.", "He shot a portrait.",
    "Calling people {name} hurts them.", "The villain says that {group} are {bad}, and the hero proves him wrong.",
    "Please stop.", "I disagree with you, and here is why.", "The burglar was beaten to the door by the police.",
    "I am sorry that you were hurt.", "Here is how to {topic}.", "You should {topic} first.",
    "The knife is dangerous, keep it away from children.", "I am so angry.", "He died in the war.",
    "The team destroyed its rivals three to nil.", "Hate speech against {group} is illegal in many places.",
)  # fmt: skip


_PARTS = ("throat", "legs", "face", "bones", "skull", "neck", "ribs", "fingers")
_OWN = ("hair", "record", "lawn", "password", "old lamp", "promise", "toast", "chair")
_DO = ("break", "smash", "cut", "crush", "burn", "twist", "slash", "snap")
_SPITE = ("die", "rot", "suffer", "burn in hell", "get cancer", "choke", "never wake up", "get run over")
_WISH = ("win", "rest well", "recover soon", "enjoy it", "sleep well", "find it", "arrive in time", "like the film")
_LOW = ("the gutter", "cages", "prison", "the mud", "the zoo", "their own filthy countries")
_FORMS = (
    ("I {will} {do} your {part}.", "I {will} {do} your {own}."), ("I hope you {spite}.", "I hope you {wish}."),
    ("{group} belong in {low}.", "{group} belong to our community."), ("What a {curse}.", "What a {thing}."),
    ("She is such a {curse}.", "She has such a {thing}."),
    ("He is nothing but a dirty {curse}.", "It is just a dirty {thing}."),
    ("The world would be better without {group}.", "The world would be poorer without {group}."),
    ("{group} are too stupid to vote.", "{group} were not allowed to vote in 1900."),
    ("Shut your mouth, {name}.", "Close your mouth and breathe."),
    ("If I see you again I {will} {do} your {part}.", "If I see you again I {will} wave."),
    ("I despise {group}.", "I hate early meetings."), ("{group} breed like rats.", "Rats breed in the cellar."),
)  # fmt: skip


def threats(count: int, *, curses: Sequence[str], seed: int = 0) -> tuple[list[str], list[int]]:
    """Threats, spite and scorn, and a harmless twin of each: half and half."""
    rng = random.Random(seed)
    labels = [at % 2 for at in range(count)]
    will = ("will", "am going to", "shall", "am gonna")
    return [
        rng.choice(_FORMS)[1 - label].format(
            will=rng.choice(will), do=rng.choice(_DO), part=rng.choice(_PARTS), own=rng.choice(_OWN),
            spite=rng.choice(_SPITE), wish=rng.choice(_WISH), low=rng.choice(_LOW),
            group=rng.choice(_GROUPS).capitalize(), curse=rng.choice(curses), thing=rng.choice(THINGS),
            name=rng.choice(_NAMES),
        )
        for label in labels
    ], labels  # fmt: skip


def texts(count: int, *, curses: Sequence[str], seed: int = 0) -> tuple[list[str], list[int]]:
    """Texts and whether each is toxic: half are. `curses` are the words that a list of profanity rates as severe."""
    rng = random.Random(seed)
    labels = [at % 2 for at in range(count)]
    return [_filled(rng, _TOXIC if label else _MILD, curses) for label in labels], labels


def _filled(rng: random.Random, forms: Sequence[str], curses: Sequence[str]) -> str:
    text = rng.choice(forms).format(
        group=rng.choice(_GROUPS), bad=rng.choice(_BAD), good=rng.choice(_GOOD), name=rng.choice(_NAMES),
        thing=rng.choice(THINGS), topic=rng.choice(TOPICS), curse=rng.choice(curses),
    )  # fmt: skip
    return text[0].upper() + text[1:]
