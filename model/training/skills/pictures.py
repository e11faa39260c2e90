"""Questions about pictures of a tiny world, and answers: see `model.training.pictures`."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from model.training.pictures.scene import COLOURS, DIGITS, DIRECTIONS, SHAPES, Scene, draw_scene
from model.training.skills.phrasing import Core, Mood, Split, Turn, choose_wording, make_cores

SKILL = "pictures"
CANNOT_TELL = "sorry i can not tell"

_WHAT: dict[Mood, tuple[str, ...]] = {
    "question": (
        "what is this",
        "what is that",
        "what is in the picture",
        "what do you see",
        "what can you see",
        "what does the picture show",
        "what am i showing you",
    ),
    "command": ("tell me what you see", "look at this", "describe the picture", "say what it is"),
}
_COLOUR: dict[Mood, tuple[str, ...]] = {
    "question": (
        "which colour is it",
        "what colour is it",
        "what colour is this",
        "which colour do you see",
        "what is the colour",
    ),
    "command": ("tell me the colour", "name the colour"),
}
_COUNT: dict[Mood, tuple[str, ...]] = {
    "question": (
        "how many are there",
        "how many shapes are there",
        "how many things are in the picture",
        "how many things do you see",
        "how many do you see",
    ),
    "command": ("count the shapes", "count the things in the picture"),
}
_DIRECTION: dict[Mood, tuple[str, ...]] = {
    "question": (
        "where does the arrow point",
        "which way does the arrow point",
        "where does it point",
        "which way does it go",
    ),
    "command": ("tell me where the arrow points", "say which way it points"),
}
_DIGIT: dict[Mood, tuple[str, ...]] = {
    "question": ("which number is it", "what number is this", "which number do you see"),
    "command": ("read the number", "read it to me"),
}


def _cores(templates: dict[Mood, tuple[str, ...]]) -> tuple[Core, ...]:
    return tuple(c for mood, texts in templates.items() for c in make_cores(SKILL, mood, texts))


_ASKED = {
    "what": _cores(_WHAT),
    "colour": _cores(_COLOUR),
    "count": _cores(_COUNT),
    "direction": _cores(_DIRECTION),
    "digit": _cores(_DIGIT),
}
# The usual questions for each kind of picture; now and then another one is asked.
_FITTING = {
    "shapes": ("what", "colour", "count", "count"),
    "digit": ("what", "digit", "digit"),
    "colour": ("what", "colour", "colour"),
    "arrow": ("what", "direction", "direction", "direction"),
    "other": ("what", "colour", "count", "direction", "digit"),
}
_STRAY_SHARE = 0.1


def answer(scene: Scene, about: str) -> str:
    """Return the right reply to a question about a picture."""
    # "Which colour is it" has an answer only if all shapes have the same: of a red circle and a
    # blue star nobody can tell.
    shapes, is_one_colour = scene.shapes, len({colour for _, colour in scene.shapes}) == 1
    match scene.kind, about:
        case "shapes", "what":
            reply = " and ".join(f"a {colour} {shape}" for shape, colour in shapes)
        case "shapes", "count":
            reply = ("one", "two", "three")[len(shapes) - 1]
        case "shapes", "colour" if is_one_colour:
            reply = f"it is {shapes[0][1]}"
        case "digit", "what" | "digit":
            reply = f"the number {scene.value}"
        case "colour", "what" | "colour":
            reply = f"it is {scene.value}"
        case "arrow", "what":
            reply = "an arrow"
        case "arrow", "direction":
            reply = f"it points {scene.value}"
        case _:
            reply = CANNOT_TELL
    return reply


def sample(rng: Random, split: Split) -> tuple[Turn, ...]:
    """Show a picture and ask one to three things about it."""
    scene = draw_scene(rng)
    turns = []
    for number in range(rng.choices((1, 2, 3), (0.6, 0.3, 0.1))[0]):
        # Now and then something is asked that the picture does not show. Without that the model
        # would learn to answer with anything.
        about = rng.choice(tuple(_ASKED) if rng.random() < _STRAY_SHARE else _FITTING[scene.kind])
        user = choose_wording(rng, split, _ASKED[about])
        # The picture comes with the first question; the others are about what was seen.
        shown = "" if number else scene.written()
        turns.append(Turn(user, answer(scene, about), SKILL, picture=shown))
    return tuple(turns)


def blind(rng: Random, split: Split) -> Turn:
    """Ask about a picture that nobody showed."""
    about = rng.choice(tuple(_ASKED))
    return Turn(choose_wording(rng, split, _ASKED[about]), CANNOT_TELL, SKILL)


def replies() -> Iterator[str]:
    """Yield every reply but those about several shapes."""
    yield from (CANNOT_TELL, "an arrow", "one", "two", "three")
    yield from (f"a {colour} {shape}" for colour in COLOURS for shape in SHAPES)
    yield from (f"it is {colour}" for colour in COLOURS)
    yield from (f"the number {digit}" for digit in DIGITS)
    yield from (f"it points {direction}" for direction in DIRECTIONS)


def texts() -> Iterator[str]:
    """Yield texts that together hold every word of the skill."""
    yield from replies()
    yield "and"
    for cores in _ASKED.values():
        for core in cores:
            yield from (core.text, *core.train, *core.held_out)
