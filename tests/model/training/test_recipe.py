"""Recipes are strict values."""

from __future__ import annotations

import pytest

from model.errors import ConfigError
from model.training.cli import load_recipe
from model.training.recipe import Recipe


def test_recipe_round_trips() -> None:
    """What is written beside a run makes the same run again."""
    recipe = Recipe(seed=3, lm_steps=10)
    assert Recipe.from_dict(recipe.to_dict()) == recipe


def test_overrides_reach_nested_values() -> None:
    """--set takes dotted keys."""
    recipe = load_recipe(None, ["lm_steps=5", "lm.num_layers=2", "codec.channels=64"])
    assert (recipe.lm_steps, recipe.lm.num_layers, recipe.codec.channels) == (5, 2, 64)


@pytest.mark.parametrize(
    ("override", "message"),
    [("lm_stepz=1", "lm_stepz"), ("seed", "KEY=VALUE"), ("seed=x", "number")],
)
def test_mistakes_are_named(override: str, message: str) -> None:
    """An unknown key or a wrong type is refused by name."""
    with pytest.raises(ConfigError, match=message):
        load_recipe(None, [override])
