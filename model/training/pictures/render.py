"""Draw scenes: turned, shaded, blurred and noisy, as a photograph of paper or a screen would be.

Everything is drawn at twice the size from what is inside a shape and what is not, and then
shrunk, which smooths the edges.
"""

from __future__ import annotations

from collections.abc import Callable
from math import pi

import numpy as np
from numpy.typing import NDArray

from model.pictures import Picture
from model.training.pictures.scene import COLOURS, DIGITS, DIRECTIONS, Scene

Rng = np.random.Generator
Plane = NDArray[np.float32]
Mask = NDArray[np.bool_]

_SCALE = 2  # drawn larger than asked for

_RGB: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 40),
    "blue": (35, 80, 205),
    "green": (40, 155, 60),
    "yellow": (240, 212, 40),
    "orange": (245, 135, 25),
    "purple": (130, 55, 165),
    "black": (25, 25, 25),
    "white": (245, 245, 245),
}
_GREYS = ((200, 195, 185), (165, 165, 165), (225, 215, 195), (140, 145, 150), (190, 205, 215))

# Five by seven dots each.
_DOTS = (
    "01110 10001 10011 10101 11001 10001 01110",
    "00100 01100 00100 00100 00100 00100 01110",
    "01110 10001 00001 00010 00100 01000 11111",
    "11110 00001 00001 01110 00001 00001 11110",
    "00010 00110 01010 10010 11111 00010 00010",
    "11111 10000 11110 00001 00001 10001 01110",
    "00110 01000 10000 11110 10001 10001 01110",
    "11111 00001 00010 00100 01000 01000 01000",
    "01110 10001 10001 01110 10001 10001 01110",
    "01110 10001 10001 01111 00001 00010 01100",
)


def render(scene: Scene, size: int) -> Picture:
    """Draw a scene: uint8 [size, size, 3], RGB; the same scene always gives the same picture."""
    rng = np.random.default_rng(scene.seed)
    side = size * _SCALE
    canvas = _background(scene, rng, side)
    match scene.kind:
        case "shapes":
            _draw_shapes(canvas, scene, rng)
        case "digit":
            digit = DIGITS.index(scene.value)
            x, y = _plane(side, (0.5, 0.5), 0.36 * rng.uniform(0.75, 1.1), rng.uniform(-0.35, 0.35))
            _paint(canvas, _digit(x, y, digit), _colour(rng, _dark(rng)), rng)
        case "arrow":
            turn = (pi / 2, -pi / 2, pi, 0.0)[DIRECTIONS.index(scene.value)]
            x, y = _plane(
                side,
                (rng.uniform(0.42, 0.58), rng.uniform(0.42, 0.58)),
                0.36 * rng.uniform(0.7, 1.1),
                turn + rng.uniform(-0.3, 0.3),
            )
            _paint(canvas, _arrow(x, y, rng), _colour(rng, _dark(rng)), rng)
        case "other":
            _draw_anything(canvas, rng)
        case "colour":
            pass
    return _photographed(canvas, rng, size)


def _background(scene: Scene, rng: Rng, side: int) -> Plane:
    if scene.kind == "colour":
        base = np.array(_colour(rng, scene.value), np.float32)
    else:
        taken = {colour for _, colour in scene.shapes}
        choices = [*_GREYS, *(_RGB[c] for c in ("white",) if c not in taken)]
        base = np.array(choices[int(rng.integers(len(choices)))], np.float32)
    return np.broadcast_to(base, (side, side, 3)).copy()


def _dark(rng: Rng) -> str:
    return str(rng.choice([c for c in COLOURS if c not in ("white", "yellow")]))


def _colour(rng: Rng, name: str) -> NDArray[np.float32]:
    spread = 8.0 if name in ("black", "white") else 20.0
    shade: NDArray[np.float32] = np.array(_RGB[name], np.float32)
    return np.clip(shade + rng.uniform(-spread, spread, 3), 0, 255).astype(np.float32)


def _plane(
    side: int, centre: tuple[float, float], radius: float, turn: float
) -> tuple[Plane, Plane]:
    """Coordinates of each pixel from a turned shape's own middle, its radius being 1; y goes up."""
    # A worked example: on a canvas of 4 pixels the middles are at 0.125, 0.375, 0.625 and 0.875.
    # For a shape at 0.5 with the radius 0.25 they are at -1.5, -0.5, 0.5 and 1.5 of its own
    # measure, so a circle covers the two in the middle.
    line = (np.arange(side, dtype=np.float32) + 0.5) / side
    x, y = (line[None, :] - centre[0]) / radius, (centre[1] - line[:, None]) / radius
    along: Plane = (np.cos(turn) * x + np.sin(turn) * y).astype(np.float32)
    across: Plane = (np.cos(turn) * y - np.sin(turn) * x).astype(np.float32)
    return along, across


def _circle(x: Plane, y: Plane) -> Mask:
    return x * x + y * y < 0.85


def _square(x: Plane, y: Plane) -> Mask:
    return np.maximum(np.abs(x), np.abs(y)) < 0.8


def _triangle(x: Plane, y: Plane) -> Mask:
    return (y > -0.6) & (1.75 * np.abs(x) + y < 1.1)


def _star(x: Plane, y: Plane) -> Mask:
    angle = np.arctan2(x, y)
    # The angle counts in fifths of a circle, and `near` is its distance from the next tip. At a tip
    # the star reaches 1.1, halfway between two only 0.42.
    near = np.abs((angle / (2 * pi / 5) + 0.5) % 1.0 - 0.5) * 2  # 0 at a tip, 1 between two
    return np.hypot(x, y) < 1.1 - 0.68 * near**0.8


_INSIDE: dict[str, Callable[[Plane, Plane], Mask]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
}


def _digit(x: Plane, y: Plane, digit: int) -> Mask:
    dots = np.array([[d == "1" for d in row] for row in _DOTS[digit].split()])
    column, row = np.floor((x + 0.7) / 1.4 * 5).astype(int), np.floor((1.0 - y) / 2 * 7).astype(int)
    inside = (column >= 0) & (column < 5) & (row >= 0) & (row < 7)
    mask: Mask = inside & dots[row.clip(0, 6), column.clip(0, 4)]
    return mask


def _arrow(x: Plane, y: Plane, rng: Rng) -> Mask:
    """Point to the right."""
    thick, head = rng.uniform(0.1, 0.24), rng.uniform(0.45, 0.7)
    shaft = (x > -0.95) & (x < 0.35) & (np.abs(y) < thick)
    tip = (x >= 0.3) & (np.abs(y) < head * (1.0 - (x - 0.3) / 0.7))
    return shaft | tip


def _draw_shapes(canvas: Plane, scene: Scene, rng: Rng) -> None:
    """Put shapes beside each other, left to right."""
    side, count = len(canvas), len(scene.shapes)
    room = 0.92 / count
    for number, (shape, colour) in enumerate(scene.shapes):
        radius = min(room / 2, 0.32) * rng.uniform(0.78, 0.98)
        middle = 0.04 + room * (number + 0.5)
        centre = middle + rng.uniform(-0.02, 0.02), rng.uniform(0.4, 0.6)
        turn = rng.uniform(-0.3, 0.3) if shape in ("square", "triangle") else rng.uniform(0, 6.28)
        # A circle and a star may be turned as they like. A square on its tip would be a diamond,
        # and a triangle on its tip is hardly one, so those are turned by a little only.
        x, y = _plane(side, centre, radius, turn)
        _paint(canvas, _INSIDE[shape](x, y), _colour(rng, colour), rng)


def _paint(canvas: Plane, mask: Mask, colour: NDArray[np.float32], rng: Rng) -> None:
    if rng.random() < 0.25:  # an outline in a darker shade
        grown = mask.copy()
        for axis in (0, 1):
            for step in (-1, 1):
                grown |= np.roll(mask, step, axis)
        canvas[grown] = colour * 0.5
    canvas[mask] = colour


def _draw_anything(canvas: Plane, rng: Rng) -> None:
    """Something without words: stripes, clouds of colour, scribbles, a crowd of dots."""
    side = len(canvas)
    line = np.arange(side, dtype=np.float32) / side
    way = int(rng.integers(4))
    if way == 0:
        wave = np.sin(line[None] * rng.uniform(10, 60) + line[:, None] * rng.uniform(-40, 40))
        canvas += (wave[..., None] * rng.uniform(-90, 90, 3)).astype(np.float32)
    elif way == 1:
        coarse = rng.uniform(-120, 120, (6, 6, 3)).astype(np.float32)
        canvas += np.kron(coarse, np.ones((side // 6 + 1, side // 6 + 1, 1), np.float32))[
            :side, :side
        ]
    elif way == 2:
        at = rng.uniform(0.2, 0.8, 2) * side
        colour = rng.uniform(0, 255, 3).astype(np.float32)
        step = rng.normal(0, 1, 2)
        for _ in range(side * 5):
            step = 0.95 * step + rng.normal(0, 0.35, 2)
            at = np.clip(at + step, 1, side - 3)
            canvas[int(at[1]) : int(at[1]) + 3, int(at[0]) : int(at[0]) + 3] = colour
    else:
        for _ in range(int(rng.integers(9, 30))):
            x, y = _plane(side, tuple(rng.uniform(0, 1, 2)), rng.uniform(0.03, 0.09), 0.0)
            canvas[_circle(x, y)] = rng.uniform(0, 255, 3)


def _photographed(canvas: Plane, rng: Rng, size: int) -> Picture:
    """Light from one side, a tint, a blur, grain."""
    side = len(canvas)
    line = np.linspace(-1, 1, side, dtype=np.float32)
    slope = rng.uniform(-0.22, 0.22, 2)
    light = 1.0 + slope[0] * line[None, :] + slope[1] * line[:, None]
    tint = rng.uniform(0.92, 1.08, 3).astype(np.float32)
    canvas = canvas * (light[..., None] * tint * rng.uniform(0.75, 1.1)).astype(np.float32)
    # Each pass makes a pixel the mean of its four neighbours: none, one or two passes are a camera
    # that is more or less in focus.
    for _ in range(int(rng.integers(0, 3))):
        moved = [np.roll(canvas, step, axis) for axis in (0, 1) for step in (-1, 1)]
        canvas = np.mean(moved, axis=0)
    small = canvas.reshape(size, _SCALE, size, _SCALE, 3).mean((1, 3))
    small = small + rng.normal(0, rng.uniform(0, 9), small.shape)
    picture: Picture = np.clip(np.round(small), 0, 255).astype(np.uint8)
    return picture
