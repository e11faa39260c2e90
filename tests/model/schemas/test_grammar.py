"""Schemas that can be compiled, those that cannot, and texts written within them."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from model.errors import GrammarError
from model.schemas.grammar import Alphabet, Matcher, check_schema
from model.schemas.results import MAX_REASON_CHARS

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"type": "object"},
        {"type": "object", "properties": {}, "additionalProperties": False},
        CITY,
        {**CITY, "$schema": "http://json-schema.org/draft-07/schema#", "x-extra": 1},
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/b"}}, "$defs": {"b": {}}},
        {"type": "object", "properties": {"a": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}},
    ],
)
def test_accepts_what_functions_use(parameters: dict[str, object]) -> None:
    """A schema of an object compiles; without a type it is an object's."""
    check_schema(parameters)


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"type": "string"}, "its type must be 'object', not \"string\""),
        ({"type": ["object", "null"]}, "its type must be 'object'"),
        ({"properties": {"a": {"type": "objekt"}}}, "Invalid type: objekt"),
        ({"properties": []}, "properties must be an object"),
        ({"properties": {"a": {"enum": []}}, "required": ["a"]}, "Unsatisfiable schema"),
        ({"properties": {"a": {"$ref": "http://elsewhere"}}}, "http://elsewhere"),
        ({"minProperties": float("inf")}, "it is not JSON"),
        ({"description": "x" * 70_000}, "at most 65536 fit"),
        ({"properties": {"a": {"$ref": "#"}}, "required": ["a"]}, "Too many items"),
    ],
)
def test_says_why_a_schema_is_refused(parameters: dict[str, object], reason: str) -> None:
    """The reason names what is wrong, in one short line."""
    with pytest.raises(GrammarError) as error:
        check_schema(parameters)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) <= MAX_REASON_CHARS


@pytest.mark.parametrize("depth", [300, 100_000])
def test_nesting_is_bounded(depth: int) -> None:
    """A schema of endless depth is refused, not followed to the end of the stack."""
    schema: dict[str, object] = {}
    for _ in range(depth):
        schema = {"properties": {"a": schema}}
    with pytest.raises(GrammarError):
        check_schema(schema)


def test_matcher_knows_spellings_and_bytes() -> None:
    """Where a spelling fits it is allowed, and so is every byte that may come next."""
    parameters = '{"properties": {"city": {"enum": ["paris", "rome"]}}, "required": ["city"]}'
    alphabet = Alphabet([b"paris", b"ro", b"par"])
    matcher = Matcher(parameters, alphabet)
    first_byte = alphabet.num_spellings
    written = b""
    for byte in b'{"city":"':
        # What comes next is beyond doubt.
        assert np.flatnonzero(matcher.allowed()).tolist() == [first_byte + byte]
        written += matcher.take(first_byte + byte)
    assert np.flatnonzero(matcher.allowed()).tolist() == [
        0,
        1,
        2,
        first_byte + ord("p"),
        first_byte + ord("r"),
    ]
    written += matcher.take(1)
    with pytest.raises(GrammarError):
        matcher.take(0)
    assert written == b'{"city":"ro'
    assert not matcher.is_complete


def test_matcher_knows_the_end() -> None:
    """A text is complete when nothing is missing."""
    alphabet = Alphabet()
    matcher = Matcher("{}", alphabet)
    assert not matcher.is_complete
    for byte in b"{}":
        matcher.take(byte)
    assert matcher.is_complete


def test_needs_no_model() -> None:
    """The gateway checks schemas without loading what models run on."""
    script = "import sys, model.schemas.grammar; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)
