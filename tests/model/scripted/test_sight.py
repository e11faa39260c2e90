"""What is seen of a picture: its size, its mean colour, and the colour's name."""

from __future__ import annotations

import numpy as np
import pytest

from model.scripted.sight import Seen, look


@pytest.mark.parametrize(
    ("rgb", "colour"),
    [
        ((220, 30, 30), "red"),
        ((220, 30, 60), "red"),
        ((240, 140, 20), "orange"),
        ((240, 220, 20), "yellow"),
        ((30, 180, 60), "green"),
        ((20, 200, 220), "cyan"),
        ((30, 60, 220), "blue"),
        ((120, 40, 200), "purple"),
        ((240, 80, 180), "pink"),
        ((0, 0, 0), "black"),
        ((128, 128, 128), "grey"),
        ((255, 255, 255), "white"),
    ],
)
def test_names_of_colours(rgb: tuple[int, int, int], colour: str) -> None:
    """Whoever looks would say so."""
    assert Seen(1, 1, rgb).colour == colour


@pytest.mark.parametrize("red", range(0, 256, 51))
def test_every_colour_has_a_name(red: int) -> None:
    """There is no gap in the circle of hues."""
    for green in range(0, 256, 17):
        for blue in range(0, 256, 17):
            assert Seen(1, 1, (red, green, blue)).colour


def test_the_mean() -> None:
    """Half black, half red is dark red."""
    pixels = np.zeros((10, 20, 3), dtype=np.uint8)
    pixels[:, :10, 0] = 200
    seen = look(pixels)
    assert seen == Seen(20, 10, (100, 0, 0))
    assert (str(seen), seen.hexadecimal, seen.num_tokens) == ("red 20x10", "#640000", 1)
    assert Seen(33, 64, (0, 0, 0)).num_tokens == 4
