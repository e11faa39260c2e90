"""Pictures of any size become the patches that a model sees."""

import numpy as np
import pytest

from model.pictures import to_patches


def test_patches_are_cut_row_by_row() -> None:
    """Each patch holds its own pixels, from black at -1 to white at 1."""
    picture = np.zeros((4, 4, 3), np.uint8)
    picture[:2, 2:] = 255
    patches = to_patches(picture, 4, 2)
    assert patches.shape == (4, 12)
    assert patches.mean(1).tolist() == [-1.0, 1.0, -1.0, -1.0]


@pytest.mark.parametrize(("height", "width"), [(64, 64), (50, 90), (301, 200), (7, 5), (1, 1)])
def test_any_size_keeps_the_mean_of_its_middle(height: int, width: int) -> None:
    """Shrunk or enlarged by area, what is seen is as bright as what was shown."""
    picture = np.random.default_rng(1).integers(0, 256, (height, width, 3)).astype(np.uint8)
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    middle = picture[top : top + side, left : left + side]
    patches = to_patches(picture, 64, 16)
    assert patches.shape == (16, 768)
    assert patches.mean() * 127.5 + 127.5 == pytest.approx(middle.mean(), abs=0.01)


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_what_is_no_picture_is_refused(picture: np.ndarray) -> None:
    """Saying what came instead."""
    with pytest.raises(ValueError, match=r"expected uint8|no pixels"):
        to_patches(picture, 64, 16)
