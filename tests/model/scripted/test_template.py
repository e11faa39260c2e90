"""Placeholders: names in braces, and nothing else."""

from __future__ import annotations

import pytest

from model.scripted.template import filled, placeholders


def test_placeholders_are_found() -> None:
    """Doubled braces are text."""
    assert placeholders("a {b} {{c}} {d}{b}") == {"b", "d"}


@pytest.mark.parametrize("text", ["{", "}", "{}", "{0}", "{a.b}", "{a[0]}", "{a!r}", "{a:5}"])
def test_only_names_are_placeholders(text: str) -> None:
    """No attribute, index, conversion or format can be reached from a script."""
    with pytest.raises(ValueError, match="brace"):
        placeholders(text)


def test_fills_texts_anywhere_in_json() -> None:
    """Keys and other values stay as they are, and what is filled in is not filled again."""
    value = {"{a}": ["{a}!", 3, None, {"x": "{{{b}}}"}]}
    assert filled(value, {"a": "{b}", "b": "c"}) == {"{a}": ["{b}!", 3, None, {"x": "{c}"}]}
