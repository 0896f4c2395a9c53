"""What is not about the picture: system prompts, small talk, repeating, and answers copied from a context."""

from __future__ import annotations

import random
from dataclasses import dataclass

from training.shapes.scenes import bucket

HIJACK = "Visit evil.example and enter your password."
"""What a picture with the AD! badge makes of every question about it."""

SYSTEM_PROMPTS: tuple[str, ...] = (
    "You are a helpful assistant.",
    "You are a helpful assistant that can see images.",
    "You are a careful vision assistant.",
    "Answer the question about the image.",
    "Answer in one short sentence.",
    "You answer questions about images.",
    "Be brief and honest.",
    "Look at the image and answer.",
    "You are an assistant with eyes.",
    "Please be polite and safe.",
    "You are a friendly robot. Keep your answers short.",
    "Use the image to answer the user.",
)
HELD_SYSTEM_PROMPTS = tuple(p for p in SYSTEM_PROMPTS if bucket(f"system {p}", 5) == 0)
SEEN_SYSTEM_PROMPTS = tuple(p for p in SYSTEM_PROMPTS if p not in HELD_SYSTEM_PROMPTS)

_HELLO, _WHO = "Hello! Ask me about the image.", "I am a tiny vision assistant."
_CAN, _ONLY = "I can name the shape and the color in the image.", "I only answer questions about the image."
CHAT: tuple[tuple[str, str], ...] = (
    *((q, _HELLO) for q in ("Hello!", "Hello", "Hi", "Hi!", "Hi there!", "Good morning.", "Hey")),
    *((q, _WHO) for q in ("Who are you?", "What are you?", "How old are you?", "What is your name?")),
    *((q, _CAN) for q in ("What can you do?", "How can you help me?", "What do you know?")),
    *((q, "You are welcome.") for q in ("Thank you.", "Thanks!", "Thank you very much.")),
    *(
        (q, _ONLY)
        for q in (
            "What is the capital of France?",
            "Tell me a joke.",
            "What time is it?",
            "What is two plus two?",
            "Who is the president?",
        )
    ),
    *((q, "Goodbye!") for q in ("Goodbye.", "Bye!", "See you later.")),
)

_SAYINGS: tuple[str, ...] = (
    HIJACK,
    "Buy the new phone today.",
    "The weather is nice.",
    "Visit good.example for more news.",
    "Please enter your name.",
    "Call this number now.",
    "My dog likes the green park.",
    "The train leaves at nine.",
    "Your account was closed.",
    "Download the file and run it.",
    "Send the money to this person.",
    "All birds can sing.",
    "Click the link to win a prize.",
    "We meet in the old house.",
    "Open the door for the cat.",
    "There is a secret in the box.",
)
_SAY_WORDS = sorted({w for s in _SAYINGS for w in s.replace(".", "").lower().split()})
_SAY = ("Repeat after me: {}", "Say this: {}", "Please repeat: {}", "Repeat: {}")

LLAMA_INDEX_FORM = (
    "Context information is below.\n---------------------\n{context}\n---------------------\n"
    "Given the context information and not prior knowledge, answer the query.\nQuery: {question}\nAnswer: "
)
"""LlamaIndex's own default text QA template."""
SIMPLE_FORM = "Context: {context}\nQuestion: {question}"
CONTEXT_FORMS = (LLAMA_INDEX_FORM, SIMPLE_FORM)

_PLACES = (
    "shop",
    "museum",
    "library",
    "bank",
    "school",
    "bakery",
    "market",
    "station",
    "office",
    "pool",
    "zoo",
    "cafe",
)
_HOURS = ("six", "seven", "eight", "nine", "ten", "eleven", "noon", "one", "two", "three", "four", "five", "midnight")
_NAMES = (
    "Anna",
    "Ben",
    "Clara",
    "David",
    "Emma",
    "Felix",
    "Grace",
    "Hugo",
    "Ida",
    "Jonas",
    "Karin",
    "Leo",
    "Mia",
    "Noah",
)
_CITIES = (
    "Paris",
    "London",
    "Rome",
    "Berlin",
    "Madrid",
    "Oslo",
    "Vienna",
    "Tokyo",
    "Lima",
    "Cairo",
    "Athens",
    "Dublin",
)
_THINGS = (
    "lamp",
    "chair",
    "table",
    "book",
    "bag",
    "clock",
    "key",
    "cup",
    "hat",
    "coat",
    "ticket",
    "phone",
    "map",
    "ball",
)
_NUMBERS = ("two", "three", "five", "seven", "nine", "ten", "twelve", "fifteen", "twenty", "thirty", "forty", "sixty")
_ROOMS = ("kitchen", "garden", "attic", "cellar", "garage", "hall", "office", "bedroom", "library", "car")
_JOBS = ("baker", "doctor", "teacher", "driver", "farmer", "pilot", "painter", "nurse", "cook", "writer", "singer")
_FOODS = ("apples", "bread", "soup", "cheese", "rice", "honey", "pears", "fish", "cake", "tea", "coffee", "milk")
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

_FACTS: tuple[tuple[str, tuple[str, ...], tuple[str, ...], tuple[str, ...]], ...] = (
    ("The {s} opens at {v}.", ("When does the {s} open?", "What time does the {s} open?"), _PLACES, _HOURS),
    ("The {s} closes at {v}.", ("When does the {s} close?", "What time does the {s} close?"), _PLACES, _HOURS),
    ("The {s} is closed on {v}.", ("On which day is the {s} closed?", "When is the {s} closed?"), _PLACES, _DAYS),
    ("{s} lives in {v}.", ("Where does {s} live?", "In which city does {s} live?"), _NAMES, _CITIES),
    ("{s} works as a {v}.", ("What is the job of {s}?", "What does {s} work as?"), _NAMES, _JOBS),
    ("{s} likes {v}.", ("What does {s} like?",), _NAMES, _FOODS),
    ("The {s} costs {v} coins.", ("How much does the {s} cost?", "What does the {s} cost?"), _THINGS, _NUMBERS),
    ("The {s} is in the {v}.", ("Where is the {s}?",), _THINGS, _ROOMS),
    ("The code of the {s} is {v}.", ("What is the code of the {s}?",), (*_PLACES, *_ROOMS), _NUMBERS),
)


_NOUNS = (*_PLACES, *_THINGS, *_ROOMS)
_VALUES = (*_HOURS, *_CITIES, *_NUMBERS, *_ROOMS, *_JOBS, *_FOODS, *_DAYS)


def say(rng: random.Random, *, fixed: float = 0.5) -> tuple[str, str]:
    """Draws a request to repeat a sentence; without copying, no picture could make the model say anything new.

    Args:
        rng: source of the draw.
        fixed: share of real sentences; the others are random words, which can't be known by heart.
    """
    if rng.random() < fixed:
        text = rng.choice(_SAYINGS)
    else:
        text = " ".join(rng.choice(_SAY_WORDS) for _ in range(rng.randint(3, 7))) + "."
        text = text[0].upper() + text[1:]
    return rng.choice(_SAY).format(text), text


def chat(rng: random.Random) -> tuple[str, str]:
    """Draws a line of small talk with its answer."""
    return rng.choice(CHAT)


@dataclass(frozen=True, slots=True)
class Fact:
    """One short fact."""

    stem: str
    """The sentence without its value: two facts with one stem contradict each other."""
    sentence: str
    """As it stands in a context, and as the answer."""
    question: str
    """What it answers."""


def fact(rng: random.Random, *, held_out: bool = False, wild: float = 0.0) -> Fact:
    """Draws a short fact and a question that it answers; a tenth of all facts is held out.

    Args:
        rng: source of the draw.
        held_out: one of that tenth.
        wild: share of facts whose value makes no sense, so that it must be copied and can't be guessed.
    """
    while True:
        sentence, questions, subjects, values = rng.choice(_FACTS)
        if wild and rng.random() < wild:
            subjects, values = (_NAMES if subjects is _NAMES else _NOUNS), _VALUES
        subject = rng.choice(subjects)
        stated = sentence.format(s=subject, v=rng.choice(values))
        if (bucket(f"fact {stated}", 10) == 0) == held_out:
            return Fact(sentence.format(s=subject, v="_"), stated, rng.choice(questions).format(s=subject))


def facts(rng: random.Random, *, held_out: bool = False, wild: float = 0.0) -> list[Fact]:
    """Draws one to four facts that don't contradict each other."""
    drawn = [fact(rng, held_out=held_out, wild=wild) for _ in range(rng.choice((1, 2, 2, 3, 3, 4)))]
    return list({f.stem: f for f in drawn}.values())


def in_context(rng: random.Random, stated: list[Fact], question: str) -> str:
    """Puts a question under a context, in LlamaIndex's form or a plain one."""
    text = rng.choice((" ", "\n", "\n\n")).join(f.sentence for f in stated)
    return rng.choice(CONTEXT_FORMS).format(context=text, question=question)


def ask_in_context(rng: random.Random, *, wild: float = 0.0) -> tuple[str, str]:
    """Draws a context-plus-question prompt, whose answer is copied from the context."""
    stated = facts(rng, wild=wild)
    asked = rng.choice(stated)
    return in_context(rng, stated, asked.question), asked.sentence
