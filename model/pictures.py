"""Bring pictures into the form that a model sees: square, small, in patches."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]
"""RGB, uint8 [height, width, 3]."""


def to_patches(picture: Picture, size: int, patch_size: int) -> npt.NDArray[np.float32]:
    """Cut a picture into patches, row by row.

    A picture of another size is first made square, by leaving out what stands over on the longer
    side, and then shrunk or enlarged: each pixel becomes the mean of what it covers.

    Args:
        picture: uint8 [height, width, 3], RGB.
        size: pixels of the square's side.
        patch_size: pixels of a patch's side; divides `size`.

    Returns:
        float32 [patches, 3 * patch_size ** 2] in -1 to 1.

    Raises:
        ValueError: it is no such picture.
    """
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(f"expected uint8 [height, width, 3], got {picture.dtype} {picture.shape}")
    if not picture.size:
        raise ValueError("the picture has no pixels")
    square = _square(picture)
    shrunk = _resampled(_resampled(square.astype(np.float32), size, 0), size, 1)
    count = size // patch_size
    # [rows of patches, columns of patches, patch_size, patch_size, 3]
    cut = shrunk.reshape(count, patch_size, count, patch_size, 3).transpose(0, 2, 1, 3, 4)
    patches: npt.NDArray[np.float32] = cut.reshape(count * count, -1) / 127.5 - 1.0
    return patches


def _square(picture: Picture) -> Picture:
    height, width, _ = picture.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return picture[top : top + side, left : left + side]


def _resampled(pixels: npt.NDArray[Any], size: int, axis: int) -> npt.NDArray[np.float32]:
    """Resample one axis by area: exact means, also of parts of pixels."""
    # A worked example: a row of three pixels becomes two. Each new one covers one and a half: the
    # first is (p0 + p1 / 2) / 1.5. The running sums [0, p0, p0 + p1, p0 + p1 + p2] are read at 0,
    # 1.5 and 3, between two of them where need be. What lies between two readings, divided by 1.5,
    # is a mean. So it takes the same work whatever the sizes are.
    length = pixels.shape[axis]
    if length == size:
        return pixels
    sums = np.cumsum(np.moveaxis(pixels, axis, 0), axis=0, dtype=np.float64)
    sums = np.concatenate([np.zeros_like(sums[:1]), sums])
    edges = np.linspace(0.0, length, size + 1)
    low = np.minimum(edges.astype(int), length - 1)
    part = (edges - low)[(...,) + (None,) * (sums.ndim - 1)]
    totals = sums[low] * (1.0 - part) + sums[low + 1] * part
    means = np.diff(totals, axis=0) * (size / length)
    resampled: npt.NDArray[np.float32] = np.moveaxis(means, 0, axis).astype(np.float32)
    return resampled
