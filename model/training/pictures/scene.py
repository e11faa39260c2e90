"""What a picture shows."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Literal, Self

SceneKind = Literal["shapes", "digit", "colour", "arrow", "other"]

KINDS: tuple[SceneKind, ...] = ("shapes", "digit", "colour", "arrow", "other")
SHAPES = ("circle", "square", "triangle", "star")
COLOURS = ("red", "blue", "green", "yellow", "orange", "purple", "black", "white")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
DIRECTIONS = ("up", "down", "left", "right")
MOST_SHAPES = 3


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that is to be known of a picture, and how chance makes the rest.

    Attributes:
        kind: of picture; "other" is what this world has no words for.
        seed: of what it looks like.
        value: the digit, colour or direction in words; empty for other kinds.
        shapes: shape and colour of each, from left to right; empty for other kinds.
    """

    kind: SceneKind
    seed: int
    value: str = ""
    shapes: tuple[tuple[str, str], ...] = ()

    @property
    def is_shown_last(self) -> bool:
        """Say whether it is shown after the words of the question, as a camera's picture is."""
        return self.seed // 8 % 2 == 1

    def written(self) -> str:
        """Return one line that `read` reads."""
        shown = self.value or ",".join(f"{shape} {colour}" for shape, colour in self.shapes)
        return f"{self.kind}:{self.seed}:{shown}"

    @classmethod
    def read(cls, line: str) -> Self:
        """Read what `written` wrote.

        Raises:
            ValueError: it is something else.
        """
        # "shapes:123:circle red,star blue" is a red circle and a blue star, and 123 decides where
        # exactly they stand.
        name, seed, shown = line.split(":")
        kind = next((kind for kind in KINDS if kind == name), None)
        if kind is None:
            raise ValueError(f"no such kind of picture: {name!r}")
        if kind != "shapes":
            return cls(kind, int(seed), shown)
        pairs = (pair.split(" ") for pair in shown.split(","))
        return cls(kind, int(seed), shapes=tuple((shape, colour) for shape, colour in pairs))


def draw_scene(rng: Random) -> Scene:
    """Draw what to show."""
    # Shapes are most frequent, since they are the hardest: several things, each with a colour, in
    # an order.
    kind = rng.choices(KINDS, (0.45, 0.2, 0.1, 0.15, 0.1))[0]
    seed = rng.randrange(1 << 31)
    match kind:
        case "shapes":
            shapes = tuple(
                (rng.choice(SHAPES), rng.choice(COLOURS))
                for _ in range(rng.randint(1, MOST_SHAPES))
            )
            return Scene(kind, seed, shapes=shapes)
        case "digit":
            return Scene(kind, seed, rng.choice(DIGITS))
        case "colour":
            return Scene(kind, seed, rng.choice(COLOURS))
        case "arrow":
            return Scene(kind, seed, rng.choice(DIRECTIONS))
        case "other":
            return Scene(kind, seed)
