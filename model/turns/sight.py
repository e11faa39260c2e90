"""Let conversations hold pictures: patch by patch, a step each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model.messages import Pixels
from model.pictures import to_patches

# Clients' pictures come this many times as large as the model sees them: what stands over on the
# longer side is left out first, and what is left is shrunk. A picture of 640 x 480 comes as 256 x
# 192 where the model sees 64 x 64, of which 192 x 192 count.
_LARGER = 4


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """One patch of a picture.

    Attributes:
        values: float32 [3 * patch_size ** 2] in -1 to 1.
        place: its number in the picture, row by row.
    """

    values: npt.NDArray[np.float32]
    place: int


@dataclass(frozen=True, slots=True)
class Sight:
    """Say how a model sees.

    Attributes:
        picture_size: pixels of a picture's side, as the model sees it.
        patch_size: pixels of a patch's side.
    """

    picture_size: int
    patch_size: int

    @property
    def image_side(self) -> int:
        """Return the largest side of the pictures that are taken, in pixels."""
        return _LARGER * self.picture_size

    def patches(self, pixels: Pixels) -> list[Patch]:
        """Cut a picture, uint8 [height, width, 3], into patches.

        Raises:
            ValueError: it is no picture.
        """
        values = to_patches(pixels, self.picture_size, self.patch_size)
        return [Patch(row, place) for place, row in enumerate(values)]
