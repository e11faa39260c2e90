"""Schemas that people send every day: those of pydantic's types, and those that zod writes."""

import datetime as dt
import enum
import ipaddress
import pathlib
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar

import pydantic
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from typing_extensions import TypedDict

Schema = dict[str, Any]

T = TypeVar("T")


class Colour(enum.Enum):
    """Names."""

    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    """Numbers."""

    LOW = 1
    HIGH = 2


class Address(BaseModel):
    """A nested model."""

    street: str
    zip_code: Annotated[str, StringConstraints(pattern=r"^\d{5}$")] = Field(alias="zip")
    tags: list[str] = []


class Node(BaseModel):
    """A model of itself."""

    name: str
    children: list["Node"] = []


class Cat(BaseModel):
    """One of two that are told apart."""

    kind: Literal["cat"]
    lives: int = 9


class Dog(BaseModel):
    """The other."""

    kind: Literal["dog"]
    is_good: bool = True


class Point(NamedTuple):
    """A tuple with names."""

    x: float
    y: float


class Movie(TypedDict, total=False):
    """A dictionary with names."""

    title: str
    year: int


@dataclass
class Order:
    """A dataclass."""

    item: str
    count: int = 1


class Page(BaseModel, Generic[T]):
    """A generic model."""

    entries: list[T]
    total: int


class Strict(BaseModel):
    """No other keys."""

    model_config = ConfigDict(extra="forbid")
    a: int


class Open(BaseModel):
    """Any other keys."""

    model_config = ConfigDict(extra="allow")
    a: int


# What a parameter is declared as.
PYDANTIC: dict[str, Any] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
    "none": None,
    "any": Any,
    "bytes": bytes,
    "object": dict,
    "date": dt.date,
    "time": dt.time,
    "datetime": dt.datetime,
    "timedelta": dt.timedelta,
    "aware datetime": pydantic.AwareDatetime,
    "past date": pydantic.PastDate,
    "uuid": uuid.UUID,
    "uuid4": pydantic.UUID4,
    "decimal": Decimal,
    "decimal of digits": Annotated[Decimal, Field(max_digits=6, decimal_places=2)],
    "decimal above": Annotated[Decimal, Field(gt=0, le=100)],
    "constr": pydantic.constr(min_length=1, max_length=20),
    "pattern": pydantic.constr(pattern=r"^[A-Z]{2}\d+$"),
    "stripped": pydantic.constr(strip_whitespace=True, to_lower=True),
    "conint": pydantic.conint(ge=0, lt=10),
    "multiple": pydantic.conint(multiple_of=5),
    "multiple float": pydantic.confloat(multiple_of=0.5),
    "positive float": pydantic.PositiveFloat,
    "negative int": pydantic.NegativeInt,
    "finite": pydantic.FiniteFloat,
    "strict int": pydantic.StrictInt,
    "list": list[int],
    "bare list": list,
    "conlist": pydantic.conlist(str, min_length=1, max_length=3),
    "set": set[str],
    "frozenset": frozenset[int],
    "conset": pydantic.conset(int, min_length=1, max_length=4),
    "tuple": tuple[int, str],
    "long tuple": tuple[int, ...],
    "sequence": Sequence[float],
    "named tuple": Point,
    "dict": dict[str, int],
    "dict of models": dict[str, Address],
    "dict of patterns": dict[Annotated[str, StringConstraints(pattern="^[a-z]+$")], int],
    "dict of enums": dict[Colour, int],
    "dict of ints": dict[int, str],
    "dict of any": dict[str, Any],
    "mapping": Mapping[str, list[str]],
    "typed dict": Movie,
    "dataclass": Order,
    "optional": int | None,
    "union": int | str,
    "union of models": Cat | Order | list[int],
    "discriminated": Annotated[Cat | Dog, Field(discriminator="kind")],
    "literal": Literal["a", "b"],
    "mixed literal": Literal["a", 1, True] | None,
    "enum": Colour,
    "int enum": Level,
    "nested": Address,
    "recursive": Node,
    "generic": Page[Address],
    "strict model": Strict,
    "open model": Open,
    "http url": pydantic.HttpUrl,
    "any url": pydantic.AnyUrl,
    "postgres": pydantic.PostgresDsn,
    "ipv4": ipaddress.IPv4Address,
    "ipv6": ipaddress.IPv6Address,
    "network": ipaddress.IPv4Network,
    "any address": pydantic.IPvAnyAddress,
    "path": pathlib.Path,
    "file": pydantic.FilePath,
    "json": pydantic.Json[list[int]],
    "secret": pydantic.SecretStr,
    "base64": pydantic.Base64Str,
    "byte size": pydantic.ByteSize,
    "regex": re.Pattern[str],
    "email like": Annotated[str, Field(json_schema_extra={"format": "email"})],
    "described": Annotated[str, Field(description="d", examples=["x"], deprecated=True)],
    "default": Annotated[int, Field(default=3, title="T")],
}


def of_pydantic(kind: Any) -> Schema:
    """Return the schema of a function with one parameter of a type."""
    return pydantic.create_model("Arguments", value=(kind, ...)).model_json_schema()


def _object(value: Schema, **more: Any) -> Schema:
    """Return a function's schema as zod's converters write it."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": {"value": value},
        "required": ["value"],
        "additionalProperties": False,
        **more,
    }


_EMAIL = (
    r"^(?!\.)(?!.*\.\.)([A-Za-z0-9_'+\-\.]*)[A-Za-z0-9_+-]"
    r"@([A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}$"
)
_DATE = (
    r"^(?:(?:\d\d[2468][048]|\d\d[13579][26]|\d\d0[48]|[02468][048]00|[13579][26]00)-02-29"
    r"|\d{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)"
    r"|(?:02)-(?:0[1-9]|1\d|2[0-8])))$"
)
_STRING = {"type": "string"}
ZOD: dict[str, Schema] = {
    "record": _object(
        {"type": "object", "propertyNames": _STRING, "additionalProperties": {"type": "number"}}
    ),
    "record of enum": _object(
        {
            "type": "object",
            "propertyNames": {"type": "string", "enum": ["a", "b"]},
            "additionalProperties": _STRING,
            "required": ["a", "b"],
        }
    ),
    "record of pattern": _object(
        {
            "type": "object",
            "propertyNames": {"pattern": "^[a-z]+$"},
            "additionalProperties": {"type": "number"},
        }
    ),
    "record of short keys": _object(
        {"type": "object", "propertyNames": {"minLength": 2}, "additionalProperties": _STRING}
    ),
    "email": _object({"type": "string", "format": "email", "pattern": _EMAIL}),
    "date": _object({"type": "string", "format": "date", "pattern": _DATE}),
    "look-around": _object({"type": "string", "pattern": r"^(?=.*[A-Z])(?=.*\d)[A-Za-z\d]{8,}$"}),
    "look-behind": _object({"type": "string", "pattern": r"^\w+(?<!_)$"}),
    "not unique": _object({"type": "array", "items": _STRING, "uniqueItems": False}),
    "unique": _object({"type": "array", "items": _STRING, "uniqueItems": True}),
    "overlapping": _object({"oneOf": [_STRING, {"type": "string", "maxLength": 3}]}),
    "overlapping numbers": _object({"oneOf": [{"type": "integer"}, {"type": "number"}]}),
    "tuple of draft 7": _object(
        {"type": "array", "items": [{"type": "number"}, _STRING], "minItems": 2, "maxItems": 2}
    ),
    "tuple with rest": _object(
        {"type": "array", "items": [_STRING], "additionalItems": {"type": "number"}}
    ),
    "exclusive of draft 4": _object({"type": "number", "minimum": 0, "exclusiveMinimum": True}),
    "nullable": _object({"type": "string", "nullable": True}),
    "nullable type": _object({"type": ["string", "null"]}),
    "formats": _object({"type": "string", "format": "cuid2"}),
    "jwt": _object({"type": "string", "format": "jwt"}),
    "int64": _object({"type": "integer", "format": "int64"}),
    "safe integer": _object(
        {"type": "integer", "minimum": -9007199254740991, "maximum": 9007199254740991}
    ),
    "unsigned 64": _object({"type": "integer", "minimum": 0, "maximum": 18446744073709551615}),
    "base64": _object({"type": "string", "format": "base64", "contentEncoding": "base64"}),
    "default": _object({"type": "string", "default": "x", "examples": ["y"]}),
    "anything": _object({}),
    "never": _object({"anyOf": [_STRING, {"not": {}}]}),
    "not": _object({"type": "string", "not": {"enum": ["a"]}}),
    "passthrough": _object(_STRING, additionalProperties={}),
    "catchall": _object(_STRING, additionalProperties={"type": "number"}),
    "refined": _object(_STRING, **{"$comment": "c", "title": "T", "readOnly": True}),
    "lazy": {
        **_object({"$ref": "#/definitions/Node"}),
        "definitions": {
            "Node": {
                "type": "object",
                "properties": {
                    "name": _STRING,
                    "next": {"anyOf": [{"$ref": "#/definitions/Node"}, {"type": "null"}]},
                },
                "required": ["name"],
            }
        },
    },
    "condition": _object(
        _STRING, **{"if": {"required": ["value"]}, "then": {"properties": {"value": _STRING}}}
    ),
    "dependent": _object(_STRING, dependentRequired={"value": ["value"]}),
    "at least two": _object(
        {"type": "object", "additionalProperties": _STRING, "minProperties": 2}
    ),
    "contains": _object({"type": "array", "contains": _STRING, "minContains": 1}),
    "intersection": _object(
        {
            "allOf": [
                {"type": "object", "properties": {"a": _STRING}, "required": ["a"]},
                {"type": "object", "properties": {"b": _STRING}, "required": ["b"]},
            ]
        }
    ),
}
