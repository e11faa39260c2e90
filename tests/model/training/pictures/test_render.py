"""The tiny world: what is drawn is what the scene says."""

from random import Random

import numpy as np
import pytest

from model.training.pictures.render import render
from model.training.pictures.scene import Scene, draw_scene


def test_scenes_survive_being_written() -> None:
    """A line holds everything; the same line gives the same picture."""
    rng = Random(1)
    for _ in range(200):
        scene = draw_scene(rng)
        assert Scene.read(scene.written()) == scene
    assert np.array_equal(render(scene, 32), render(Scene.read(scene.written()), 32))
    with pytest.raises(ValueError, match="no such kind of picture: 'song'"):
        Scene.read("song:1:x")


def test_every_scene_can_be_drawn() -> None:
    """Any kind and any seed: RGB of the size asked for, and something to be seen."""
    rng = Random(2)
    for _ in range(200):
        scene = draw_scene(rng)
        picture = render(scene, 32)
        assert picture.shape == (32, 32, 3)
        assert picture.dtype == np.uint8
        if scene.kind in ("shapes", "digit", "arrow"):
            assert picture.reshape(-1, 3).astype(float).std(0).max() > 4


def test_colours_are_theirs() -> None:
    """Red is redder than it is blue or green, whatever the light."""
    for seed in range(40):
        mean = render(Scene("colour", seed, "red"), 32).reshape(-1, 3).mean(0)
        assert mean[0] > 1.5 * max(mean[1], mean[2])


def test_arrows_point_where_they_should() -> None:
    """The half with the head is the broader one."""
    for direction, axis, is_first in (
        ("left", 1, True), ("right", 1, False), ("up", 0, True), ("down", 0, False),
    ):  # fmt: skip
        right = 0
        for seed in range(30):
            picture = render(Scene("arrow", seed, direction), 64).astype(float)
            edge = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
            places = np.argwhere(np.abs(picture - edge.mean(0)).sum(2) > 130)
            along, across = places[:, axis], places[:, 1 - axis]
            is_near = along < (along.min() + along.max()) / 2
            first, second = np.ptp(across[is_near]), np.ptp(across[~is_near])
            right += (first > second) == is_first
        assert right >= 25, (direction, right)
