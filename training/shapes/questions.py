"""Questions about one picture or two, and requests for a tool call, with the sentences that answer them."""

from __future__ import annotations

import json
import random

from training.shapes.scenes import COLOR_NAMES, SHAPES, Scene, bucket, is_negated

Pair = tuple[str, str]
"""What is asked and what is answered."""

_DESCRIBE = (
    "describe the image.",
    "what do you see?",
    "what is in the image?",
    "what does the picture show?",
    "describe this picture in one sentence.",
    "what does the image show?",
)
# easy-vqa's own wordings; {n} is "red shape" or "circle".
_POSITIVE = ("is there a {n}?", "is there a {n} in the image?", "does the image contain a {n}?", "is a {n} present?")
_NEGATED = (
    "is there not a {n}?",
    "is there not a {n} in the image?",
    "does the image not contain a {n}?",
    "is no {n} present?",
)

TOOLS = {"paint_wall": "color", "move_box": "shape"}
"""The two toy tools, each with its one argument."""
_TOOL_LIST = "paint_wall(color), move_box(shape)"
TOOL_PROMPTS: tuple[str, ...] = (
    f"You can call tools: {_TOOL_LIST}. Answer with one line of JSON to call a tool.",
    "You can call two tools: paint_wall(color) and move_box(shape). Answer with one line of JSON.",
    f"Tools: {_TOOL_LIST}. Reply with one line of JSON to use a tool.",
    f"You are a helpful assistant. Tools: {_TOOL_LIST}.",
    f"You are a helpful assistant. You can call tools: {_TOOL_LIST}. Answer with one line of JSON to call a tool.",
    f"You may use these tools: {_TOOL_LIST}.",
)
"""System prompts that name the tools; the first is what the chat template makes of ``tools=``."""
_PAINT = (
    "Paint the wall in the color of the shape.",
    "Paint the wall with the color of the shape.",
    "Paint the wall in the color of the {s}.",
    "Paint the wall the same color as the shape.",
    "Paint the wall like the shape.",
    "Make the wall the same color as the shape.",
    "Make the wall look like the shape.",
    "Give the wall the color of the shape.",
    "Use the color of the shape for the wall.",
    "Color the wall like the {s}.",
    "Please paint the wall in the color of the shape.",
    "Can you paint the wall in the color of the shape?",
    "The wall should have the color of the shape.",
    "I want the wall in the color of the shape.",
)
_PAINT_NAMED = (
    "Paint the wall {c}.",
    "Please paint the wall {c}.",
    "Make the wall {c}.",
    "Can you paint the wall {c}?",
)
_MOVE = (
    "Put the shape into its box.",
    "Put the {c} shape into its box.",
    "Put the shape in the right box.",
    "Put the shape away.",
    "Move the shape to its box.",
    "Move the shape into the matching box.",
    "Sort the shape into the right box.",
    "Place the shape in its box.",
    "Place the {c} shape in the right box.",
    "Please put the shape into its box.",
    "Please move the shape to its box.",
    "Can you put the shape into its box?",
    "The shape should go into its box.",
    "I want the shape in its box.",
)
_MOVE_NAMED = (
    "Put a {s} into its box.",
    "Move a {s} to its box.",
    "Place a {s} in its box.",
    "Please put a {s} into its box.",
)
# The wordings that stand in the documentation are always trained.
_DOCUMENTED = (_PAINT[0], _MOVE[0])
HELD_TOOL_WORDINGS = frozenset(w for w in _PAINT + _MOVE if bucket(f"tool {w}", 5) == 0 and w not in _DOCUMENTED)
_RESULTS = ("ok", "done", "Done.", "success", "true", "null", '{"ok": true}', "The tool has finished.")


def _cased(text: str, rng: random.Random) -> str:
    return text[0].upper() + text[1:] if rng.random() < 0.5 else text


def presence(scene: Scene, rng: random.Random, *, negation: float = 0.55) -> Pair:
    """Draws a yes/no question, a share of them negated; the answer names what the picture does show.

    A bare "Yes." or "Yes, there is a red shape." teaches the model to copy the question's noun.
    """
    true = rng.random() < 0.5
    if rng.random() < 0.65:
        noun = scene.color if true else rng.choice([c for c in COLOR_NAMES if c != scene.color])
        noun += " shape"
    else:
        noun = scene.shape if true else rng.choice([s for s in SHAPES if s != scene.shape])
    negated = rng.random() < negation
    question = rng.choice(_NEGATED if negated else _POSITIVE).format(n=noun)
    word = "No" if true == negated else "Yes"
    return _cased(question, rng), f"{word}, the image shows a {scene.color} {scene.shape}."


def named_is_there(asked: str, answer: str) -> bool | None:
    """Tells whether what a yes/no question names is there (or, for two pictures, the same); None for others."""
    if not asked.lower().startswith(("is ", "does ", "do ")) or not answer.startswith(("Yes, ", "No, ")):
        return None
    return answer.startswith("Yes") != is_negated(asked)


def naming(scene: Scene, rng: random.Random) -> Pair:
    """Draws a question for the colour, the shape or a description."""
    c, s, kind = scene.color, scene.shape, rng.random()
    if kind < 0.2:
        return _cased(rng.choice(_DESCRIBE), rng), f"The image shows a {c} {s}."
    if kind < 0.55:
        noun = rng.choice(("shape", s))
        return _cased(
            rng.choice((f"what color is the {noun}?", f"what is the color of the {noun}?")), rng
        ), f"The {s} is {c}."
    asked = (
        "what shape is in the image?",
        "what shape does the image contain?",
        "what shape is present?",
        f"what is the {c} shape?",
    )
    return _cased(rng.choice(asked), rng), f"The {c} shape is a {s}."


def call(name: str, value: str) -> str:
    """Writes a tool call as one line of JSON."""
    return json.dumps({"name": name, "arguments": {TOOLS[name]: value}})


def tool(scene: Scene, rng: random.Random, *, held_out: bool = False) -> tuple[Pair, Pair]:
    """Draws a request for a tool, and what follows once the tool has answered.

    Returns:
        Request and JSON call; the tool's result as the model sees it, and the closing sentence.
    """
    paint = rng.random() < 0.5
    color, shape = scene.color, scene.shape
    wordings, named = (_PAINT, _PAINT_NAMED) if paint else (_MOVE, _MOVE_NAMED)
    if not held_out and rng.random() < 0.25:
        color, shape = rng.choice(COLOR_NAMES), rng.choice(SHAPES)
        wording = rng.choice(named)
    else:
        wording = rng.choice([w for w in wordings if (w in HELD_TOOL_WORDINGS) == held_out])
    request = wording.format(c=color, s=shape)
    if paint:
        results = (*_RESULTS, f"The wall is {color} now.", f"Painted the wall {color}.")
        closing = f"Done, the wall is {color}."
    else:
        results = (*_RESULTS, f"The {shape} is in its box.", f"Moved the {shape}.")
        closing = f"Done, the {shape} is in its box."
    written = call("paint_wall", color) if paint else call("move_box", shape)
    return (request, written), (f"Tool result: {rng.choice(results)}", closing)


def name_tools(request: str) -> str:
    """Names the tools in the request itself, for prompts without a system prompt."""
    return f"Tools: {_TOOL_LIST}. {request}"


def about_two(first: Scene, second: Scene, rng: random.Random) -> Pair:
    """Draws a question about two pictures."""
    kind = rng.random()
    if kind < 0.4:
        which, scene = rng.choice((("first", first), ("second", second)))
        return _about_one_of_two(which, scene, rng)
    if kind < 0.65:
        asked = (
            "do the two images show the same shape?",
            "do both images show the same shape?",
            "is it the same shape in both images?",
        )
        same = first.shape == second.shape
        answer = (
            f"Yes, both show a {first.shape}."
            if same
            else f"No, the first shows a {first.shape} and the second a {second.shape}."
        )
        return _cased(rng.choice(asked), rng), answer
    if kind < 0.85:
        asked = (
            "do the two images show the same color?",
            "do both shapes have the same color?",
            "is it the same color in both images?",
        )
        same = first.color == second.color
        answer = (
            f"Yes, both are {first.color}."
            if same
            else f"No, the first is {first.color} and the second is {second.color}."
        )
        return _cased(rng.choice(asked), rng), answer
    both = f"The first image shows a {first.color} {first.shape} and the second a {second.color} {second.shape}."
    return _cased(
        rng.choice(("describe both images.", "describe the two images.", "what do the images show?")), rng
    ), both


def _about_one_of_two(which: str, scene: Scene, rng: random.Random) -> Pair:
    c, s, kind = scene.color, scene.shape, rng.random()
    if kind < 0.4:
        asked = (
            f"what color is the shape in the {which} image?",
            f"what is the color of the shape in the {which} image?",
        )
        return _cased(rng.choice(asked), rng), f"The {s} is {c}."
    if kind < 0.75:
        asked = (f"what shape is in the {which} image?", f"what shape does the {which} image contain?")
        return _cased(rng.choice(asked), rng), f"The {c} shape is a {s}."
    return _cased(f"describe the {which} image.", rng), f"The image shows a {c} {s}."
