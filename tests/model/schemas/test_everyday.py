"""The schemas that people send every day are taken."""

import json
from typing import Any

import pytest

from model.schemas.desk import Desk
from tests.model.schemas.everyday import PYDANTIC, ZOD, Schema, of_pydantic

# What a grammar cannot hold of them: everything else is kept while it is written.
CHECKED_LATE = {
    "set": {"uniqueItems"},
    "frozenset": {"uniqueItems"},
    "conset": {"uniqueItems"},
    "discriminated": {"oneOf"},
    "record of short keys": {"propertyNames"},
    "email": {"pattern"},
    "look-around": {"pattern"},
    "look-behind": {"pattern"},
    "unique": {"uniqueItems"},
    "overlapping": {"oneOf"},
    "overlapping numbers": {"oneOf"},
    "unsigned 64": {"maximum"},
    "never": {"not"},
    "not": {"not"},
    "condition": {"if", "then"},
    "dependent": {"dependentRequired"},
    "at least two": {"minProperties"},
    "contains": {"contains", "minContains"},
}


def _check(name: str, schema: Schema) -> None:
    verdict = Desk().check(json.dumps(schema))
    assert verdict.refused is None
    assert {part.split()[0] for part in verdict.left_out} == CHECKED_LATE.get(name, set())


@pytest.mark.parametrize("name", PYDANTIC)
def test_types_of_pydantic_are_taken(name: str) -> None:
    """Each as the only parameter of a function."""
    kind: Any = PYDANTIC[name]
    _check(name, of_pydantic(kind))


@pytest.mark.parametrize("name", ZOD)
def test_schemas_of_zod_are_taken(name: str) -> None:
    """As its converters to JSON schema write them, of any draft."""
    _check(name, ZOD[name])
