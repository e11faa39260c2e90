"""Values are refused in the hosted service's words, because applications match on them."""

from typing import Any

import pytest

from server.errors import ClientError
from server.protocol.wire.checks import (
    choice_at,
    decimal_at,
    integer_at,
    object_at,
    quoted_list,
    refuse_deep,
    string_at,
)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, "null"),
        (True, "a boolean"),
        (1, "an integer"),
        (1.5, "a decimal"),
        ("x", "a string"),
        ([], "an array"),
    ],
)
def test_types_are_named(value: Any, kind: str) -> None:
    """With their articles."""
    with pytest.raises(ClientError) as caught:
        object_at(value, "session.audio")
    assert caught.value.message == (
        f"Invalid type for 'session.audio': expected an object, but got {kind} instead."
    )


@pytest.mark.parametrize(
    ("options", "text"),
    [([], ""), (["a"], "'a'"), (["a", "b"], "'a' and 'b'"), (["a", "b", "c"], "'a', 'b', and 'c'")],
)
def test_lists_of_options(options: list[str], text: str) -> None:
    """With a comma before the last of three."""
    assert quoted_list(options) == text


def test_enums_and_ranges() -> None:
    """Bounds belong to the range; a whole number may be written as a decimal."""
    assert integer_at(1500.0, "x", low=1500, high=1500) == 1500
    assert decimal_at(1, "x", low=0, high=1) == 1.0
    for check, code in (
        (lambda: choice_at("x", "p", ("a", "b", "c")), "invalid_value"),
        (lambda: integer_at(2, "p", high=1), "integer_above_max_value"),
        (lambda: decimal_at(0.3, "p", low=0.6), "decimal_below_min_value"),
        (lambda: integer_at(True, "p"), "invalid_type"),
        (lambda: integer_at(1.5, "p"), "invalid_type"),
        (lambda: string_at("a" * 40, "item.id", max_length=32), "string_above_max_length"),
        (lambda: string_at("\udc00", "p"), "invalid_value"),
    ):
        with pytest.raises(ClientError) as caught:
            check()
        assert caught.value.code == code


def test_depth_is_bounded() -> None:
    """What is read can then be written again."""
    value: Any = {}
    for level in range(60):
        value = {"a": [value]} if level % 2 else {"a": value}
    refuse_deep({"a": {"b": [1]}}, "p")
    with pytest.raises(ClientError, match="nested too deeply"):
        refuse_deep(value, "p")
