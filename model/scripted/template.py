"""Fill placeholders in the texts of a script: `you said {last_user}`, `it is {image.colour}`."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import Any

NAMES = frozenset(
    {
        "last_user",
        "last_reply",
        "history",
        "output",
        "instructions",
        "turn",
        "images",
        "image.width",
        "image.height",
        "image.colour",
        "image.rgb",
    }
)
"""Placeholders that every text may use, besides the named groups of its reply's patterns."""


class _Formatter(string.Formatter):
    """Take a name with a dot as one name, and not as an attribute of something."""

    def get_field(
        self, field_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[Any, str]:
        """Return the value of a placeholder."""
        del args
        return kwargs[field_name], field_name


_FORMATTER = _Formatter()


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
    # The parts of "it is {image.colour}" are ("it is ", "image.colour", "", None). A format such as
    # {turn:03d} or {turn!r} is refused: it would work for some values and fail for others while a
    # call goes on.
    for _, name, form, conversion in parts:
        if name is None:
            continue
        if not (name.isidentifier() or name in NAMES) or form or conversion:
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
            return _FORMATTER.vformat(value, (), values)
        case dict():
            return {key: filled(part, values) for key, part in value.items()}
        case list():
            return [filled(part, values) for part in value]
        case _:
            return value
