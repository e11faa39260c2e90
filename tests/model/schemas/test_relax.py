"""The nearest schema that a grammar can hold, and what it leaves out."""

import json
from typing import Any

import pytest

from model.errors import GrammarError
from model.schemas.desk import Desk
from model.schemas.grammar import Alphabet, Matcher
from model.schemas.relax import relaxed, without_look_around

Schema = dict[str, Any]


def accepts(schema: Schema, value: object) -> bool:
    """Tell whether the grammar of a schema accepts `{"a": value}`."""
    parameters = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    matcher = Matcher(json.dumps(parameters), Alphabet())
    data = json.dumps({"a": value}, separators=(",", ":")).encode()
    return matcher.allows(list(data)) and _takes(matcher, data)


def _takes(matcher: Matcher, data: bytes) -> bool:
    for byte in data:
        matcher.take(byte)
    return matcher.is_complete


@pytest.mark.parametrize(
    ("pattern", "left"),
    [
        (r"^(?!0$)\d+$", r"^\d+$"),
        (r"^(?=.*(a|b))[ab]+$", r"^[ab]+$"),
        (r"^\w+(?<!_)$", r"^\w+$"),
        (r"\bword\b", "word"),
        (r"[(?=]\(?=", r"[(?=]\(?="),
        (r"a)", None),
        (r"(a", None),
        (r"[a", None),
    ],
)
def test_groups_that_only_look_are_left_out(pattern: str, left: str | None) -> None:
    """And nothing else is, whatever looks like them."""
    assert without_look_around(pattern) == left


@pytest.mark.parametrize(
    ("schema", "good", "also"),
    [
        ({"type": "array", "uniqueItems": True, "items": {"type": "integer"}}, [1, 2], [1, 1]),
        ({"type": "string", "pattern": r"^(?!0$)\d+$"}, "10", "0"),
        ({"type": "string", "not": {"const": "x"}}, "y", "x"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, 1.5, 1),
        ({"type": "integer", "maximum": 1 << 64}, 5, 1 << 65),
    ],
)
def test_everything_good_is_still_accepted(schema: Schema, good: object, also: object) -> None:
    """And some that is not, for which the text is checked afterwards."""
    assert accepts(schema, good)
    assert accepts(schema, also)
    parameters = json.dumps({"type": "object", "properties": {"a": schema}})
    assert Desk().misfit(parameters, json.dumps({"a": good})) is None
    assert Desk().misfit(parameters, json.dumps({"a": also})) is not None


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        (
            {"type": "object", "propertyNames": {"enum": ["x"]}, "additionalProperties": {}},
            {"x": 1},
            {"y": 1},
        ),
        ({"type": "object", "propertyNames": {"pattern": "^x+$"}}, {"xx": 1}, {"y": 1}),
        ({"type": "array", "items": [{"type": "null"}], "maxItems": 1}, [None], [1]),
        ({"type": "integer", "minimum": 3, "exclusiveMinimum": True}, 4, 3),
        ({"type": "integer", "minLength": 3.0, "multipleOf": 5}, 10, 11),
    ],
)
def test_what_can_be_said_otherwise_is_kept(schema: Schema, good: object, bad: object) -> None:
    """In the words of older drafts, or in keywords that a grammar does not have."""
    assert accepts(schema, good)
    assert not accepts(schema, bad)


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"multipleOf": 100_000_007}, "multipleOf of 100000007 takes more than the 1024 states"),
        ({"multipleOf": 10.25}, "multipleOf of 10.25"),
        ({"multipleOf": 10**400}, "multipleOf of 1329 bits"),
        ({"anyOf": [{"multipleOf": 600}, {"multipleOf": 500}]}, "multipleOf of 500"),
        ({"const": [1 << 64]}, "the integer 18446744073709551616 has more than 64 bits"),
        ({"enum": [{"a": -(1 << 70)}]}, "more than 64 bits"),
        ({"minItems": 1 << 64}, "minItems of 18446744073709551616 is out of reach"),
    ],
)
def test_what_is_out_of_reach_is_refused(schema: Schema, reason: str) -> None:
    """With a reason, before anything is compiled."""
    with pytest.raises(GrammarError, match=reason):
        relaxed({"properties": {"a": schema}}, lambda _: True)


@pytest.mark.parametrize("multiple", [1024, 0.01, 1000.0, 1e9 / 1e9])
def test_multiples_in_reach_are_kept(multiple: float) -> None:
    """Their digits are what counts, not the point among them."""
    assert relaxed({"multipleOf": multiple}, lambda _: True).schema == {"multipleOf": multiple}


def test_half_a_surrogate_pair_is_refused() -> None:
    """As a key, too; it is no text that a model could write."""
    for text in (r'{"properties": {"\ud800": {}}}', r'{"properties": {"a": {"const": "\udc00"}}}'):
        assert Desk().check(text).refused == "it has half a surrogate pair, which is no text"
