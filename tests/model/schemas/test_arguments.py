"""Arguments of calls: whatever a model chooses, its function's schema accepts them."""

from __future__ import annotations

import json
import string
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import GrammarError
from model.schemas.arguments import MAX_BYTES, Arguments
from model.schemas.grammar import check_schema
from model.schemas.spelling import Speller
from model.text import NUM_SPECIAL, number_words
from model.vocabulary import TurnVocabulary

WORDS = ["paris", "rome", "yes", "no", "minus", "point", *(number_words(i) for i in range(10))]
PIECES = [f"<{i}>" for i in range(NUM_SPECIAL)]
PIECES += [f"▁{word}" for word in WORDS] + list(string.ascii_lowercase) + ["▁"]
SPELLER = Speller(TurnVocabulary(pieces=PIECES, encode=lambda _: [], voices={"ann": 9}))
END = SPELLER.end


def parameters(**properties: Any) -> dict[str, Any]:
    """Return the schema of an object that has all these properties."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def write(schema: dict[str, Any], *words: str) -> tuple[str, Arguments]:
    """Let a model choose these pieces one after another, <end> for the end of a value."""
    arguments = Arguments(json.dumps(schema), SPELLER)
    text = arguments.go_on()
    for word in words:
        text += arguments.choose(END if word == "<end>" else PIECES.index(word))
        text += arguments.go_on()
    return text, arguments


@pytest.mark.parametrize("schema", [{}, {"type": "object", "properties": {}}])
def test_nothing_to_say_needs_no_model(schema: dict[str, Any]) -> None:
    """A function without arguments is called with an empty object, and so if all are optional."""
    text, arguments = write(schema)
    assert text == "{}"
    assert arguments.is_complete
    assert not arguments.choices


@pytest.mark.parametrize(
    ("schema", "words", "text"),
    [
        ({"type": "string"}, "▁paris ▁rome s <end>", '"paris romes"'),
        ({"type": "string"}, "<end>", '""'),
        ({"enum": ["Rome", "Paris", "PARIS"]}, "▁paris", '"Paris"'),
        ({"enum": ["in rome", "in paris"]}, "▁paris", '"in paris"'),
        ({"type": "string", "pattern": "^[A-Z]{2}$"}, "x q", '"XQ"'),
        ({"type": "integer"}, "▁minus ▁one ▁zero <end>", "-10"),
        ({"type": "number"}, "▁two ▁point ▁five <end>", "2.5"),
        ({"type": "boolean"}, "▁no", "false"),
        ({"const": 'é"'}, "", r'"é\""'),
        ({"type": ["null", "boolean"]}, "▁yes", "true"),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 1}, "▁one <end>", "[1]"),
    ],
)
def test_words_become_values(schema: dict[str, Any], words: str, text: str) -> None:
    """Pieces spell what the schema has room for; the end of the words ends the value."""
    written, arguments = write(parameters(a=schema), *words.split())
    assert arguments.is_complete
    assert json.loads(written) == json.loads(f'{{"a":{text}}}')


def test_model_is_asked_only_where_there_is_a_choice() -> None:
    """Names, punctuation and single possibilities are written without it."""
    schema = parameters(city={"type": "string"}, unit={"const": "celsius"}, on={"type": "boolean"})
    text, arguments = write(schema, "▁paris", "<end>")
    assert text == '{"city":"paris","unit":"celsius","on":'
    assert {PIECES[piece] for piece in arguments.choices} == {"▁yes", "▁no"}


def test_number_does_not_grow_forever() -> None:
    """After as many digits as a reader can hold, a number ends."""
    text, arguments = write(parameters(a={"type": "integer"}), *["▁nine"] * 15)
    assert arguments.is_complete
    assert json.loads(text) == {"a": 999_999_999_999_999}


names = st.sampled_from(["city", "a", "Unit", "x_1", "né", 'say "hi"', "0"])
scalars = st.one_of(
    st.builds(
        lambda low, extra: {"type": "string", "minLength": low, "maxLength": low + extra},
        st.integers(0, 5),
        st.integers(0, 5),
    ),
    st.sampled_from(
        [
            {"type": "string"},
            {"type": "boolean"},
            {"type": "null"},
            {"type": "string", "pattern": "^(ab)*c$"},
            {"type": "string", "pattern": "^[à-ü]{2,4}$"},
            {"type": "string", "format": "date"},
            {"type": "string", "format": "uuid"},
            {"type": ["string", "null"]},
            {},
        ]
    ),
    st.builds(
        lambda kind, low, extra: {"type": kind, "minimum": low, "maximum": low + extra},
        st.sampled_from(["integer", "number"]),
        st.integers(-1000, 1000),
        st.integers(0, 2000),
    ),
    st.builds(
        lambda step, low: {"type": "integer", "multipleOf": step, "minimum": low},
        st.integers(1, 30),
        st.integers(-50, 50),
    ),
    st.builds(
        lambda values: {"enum": values},
        st.lists(
            st.one_of(st.text(max_size=5), st.integers(-99, 99), st.none(), st.booleans()),
            min_size=1,
            max_size=4,
        ),
    ),
)


def objects(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return schemas of objects with such properties."""

    def build(properties: dict[str, Any], mask: int, additional: Any) -> dict[str, Any]:
        required = [name for i, name in enumerate(properties) if mask >> i & 1]
        return {
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": additional,
        }

    return st.builds(
        build,
        st.dictionaries(names, values, max_size=4),
        st.integers(0, 15),
        st.one_of(st.booleans(), values),
    )


def arrays(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return schemas of arrays of such values."""
    return st.builds(
        lambda items, low, extra: {
            "type": "array",
            "items": items,
            "minItems": low,
            "maxItems": low + extra,
        },
        values,
        st.integers(0, 3),
        st.integers(0, 2),
    )


schemas = objects(
    st.recursive(
        scalars,
        lambda inner: st.one_of(
            objects(inner), arrays(inner), st.builds(lambda a, b: {"anyOf": [a, b]}, inner, inner)
        ),
        max_leaves=6,
    )
)


@given(schema=schemas, data=st.data(), num_chosen=st.integers(0, 40))
@settings(max_examples=150, deadline=None)
def test_schema_accepts_whatever_is_chosen(
    schema: dict[str, Any], data: st.DataObject, num_chosen: int
) -> None:
    """Choices at random, and then the end at any time: the arguments validate."""
    check_schema(schema)
    arguments = Arguments(json.dumps(schema), SPELLER)
    text = arguments.go_on()
    for _ in range(num_chosen):
        if not arguments.choices:
            break
        text += arguments.choose(data.draw(st.sampled_from(list(arguments.choices))))
        text += arguments.go_on()
    text += arguments.close()
    assert arguments.is_complete
    jsonschema.validate(json.loads(text), schema)


def test_end_in_the_middle_of_anything_finds_a_way_out() -> None:
    """Loops in a pattern, numbers to be hit and lengths to be reached do not hold the end up."""
    schema = parameters(
        loop={"type": "string", "pattern": "^(ab|ba|cd)*z(xy)+$"},
        hit={"type": "integer", "multipleOf": 7, "minimum": 15},
        long={"type": "string", "minLength": 200},
        tree={"anyOf": [{"$ref": "#"}, {"type": "null"}]},
    )
    text, arguments = write(schema, "a")
    text += arguments.close()
    assert arguments.is_complete
    jsonschema.validate(json.loads(text), schema)


def test_what_never_ends_is_given_up() -> None:
    """Arguments have a longest length, and the schema cannot lift it."""
    schema = parameters(a={"type": "string", "minLength": 10 * MAX_BYTES})
    text, arguments = write(schema)
    text += arguments.close()
    assert not arguments.is_complete
    assert arguments.is_too_long
    assert not arguments.choices
    assert len(text) <= MAX_BYTES + 100


def test_schema_is_checked_again() -> None:
    """What no gateway has checked is refused here."""
    with pytest.raises(GrammarError):
        Arguments('{"type": "string"}', SPELLER)
