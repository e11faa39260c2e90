"""Fill placeholders in the texts of a script: `you said {last_user}`."""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import Any

NAMES = frozenset({"last_user", "last_reply", "history", "output", "instructions", "turn"})
"""Placeholders that every text may use, besides the named groups of its reply's patterns."""

_FORMATTER = string.Formatter()


def placeholders(text: str) -> set[str]:
    """Return the names of the placeholders in a template.

    Raises:
        ValueError: a brace stands alone, or a placeholder is more than a name.
    """
    names = set()
    try:
        parts = list(_FORMATTER.parse(text))
    except ValueError as error:
        raise ValueError(f"{error}; write {{{{ and }}}} for braces") from None
    for _, name, form, conversion in parts:
        if name is None:
            continue
        if not name.isidentifier() or form or conversion:
            raise ValueError(f"a placeholder is a name in braces, got {{{name}}}")
        names.add(name)
    return names


def filled(value: Any, values: Mapping[str, str]) -> Any:  # Any: whatever JSON can hold
    """Fill the placeholders of all texts in a JSON value, keys aside.

    Args:
        value: whose templates were checked with `placeholders`.
        values: of the placeholders, by name.
    """
    match value:
        case str():
            return value.format_map(values)
        case dict():
            return {key: filled(part, values) for key, part in value.items()}
        case list():
            return [filled(part, values) for part in value]
        case _:
            return value
