"""See pictures: how large they are, and which colour they have on the average."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

from kernels.arithmetic import ceil_div
from model.messages import Pixels

# A pure red has the hue 0, and so has 360: red lies at both ends of the circle.
# Hues in degrees, and what a colour is called up to there; from the last one on it is red again.
_HUES = (
    (15, "red"),
    (45, "orange"),
    (70, "yellow"),
    (165, "green"),
    (195, "cyan"),
    (255, "blue"),
    (290, "purple"),
    (345, "pink"),
    (360, "red"),
)
_LEAST_SATURATION = 0.15
_BLACK, _WHITE = 0.2, 0.85
_TOKEN_SIDE = 32


@dataclass(frozen=True, slots=True)
class Seen:
    """What there is to say about a picture.

    Attributes:
        width: in pixels.
        height: in pixels.
        rgb: its mean colour, 0 to 255 each.
    """

    width: int
    height: int
    rgb: tuple[int, int, int]

    def __str__(self) -> str:
        """Write it as a script can match it: `red 640x480`."""
        return f"{self.colour} {self.width}x{self.height}"

    @property
    def colour(self) -> str:
        """Name the mean colour."""
        # A dark colour is black whatever its hue, and one with hardly any colour is grey. Only
        # after that the hue counts: the hue of a dark brown, for example, is red.
        hue, saturation, value = colorsys.rgb_to_hsv(*(channel / 255 for channel in self.rgb))
        if value < _BLACK:
            return "black"
        if saturation < _LEAST_SATURATION:
            return "white" if value > _WHITE else "grey"
        return next(name for up_to, name in _HUES if hue * 360 <= up_to)

    @property
    def hexadecimal(self) -> str:
        """Write the mean colour as `#dc1e1e`."""
        return "#" + bytes(self.rgb).hex()

    @property
    def num_tokens(self) -> int:
        """Count its tokens: one for each square of 32 pixels, begun ones included."""
        return ceil_div(self.width, _TOKEN_SIDE) * ceil_div(self.height, _TOKEN_SIDE)


def look(pixels: Pixels) -> Seen:
    """Return what there is to say about a picture."""
    height, width, _ = pixels.shape
    red, green, blue = (round(float(mean)) for mean in pixels.mean(axis=(0, 1)))
    return Seen(width, height, (red, green, blue))
