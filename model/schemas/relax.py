"""Bring a JSON schema into the form that a grammar can hold.

A grammar says, byte by byte, what may follow. It cannot count what is there already, look ahead, or
say what must not be. Where a schema asks for that, the nearest schema that a grammar can hold takes
its place: every text that the schema accepts is still accepted, and some others are. What was left
out is listed, and whoever writes a text checks it against the whole schema afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, cast

from model.errors import GrammarError

Json = dict[str, Any]
"""A schema, or a part of one, as parsed."""

MAX_MULTIPLE_STATES = 1024
# Deeper than any function needs, and far from where recursion ends.
MAX_DEPTH = 64
_INT64 = 1 << 63

# Keywords that a grammar holds as they are, if their values need no change.
_KEPT_WORDS = """
type const enum required properties additionalProperties patternProperties minProperties
maxProperties items prefixItems minItems maxItems minimum maximum exclusiveMinimum exclusiveMaximum
multipleOf minLength maxLength pattern format anyOf allOf oneOf $ref $defs definitions
"""
# Keywords that say something which would have to be kept.
_CONSTRAINT_WORDS = """
not if then else uniqueItems propertyNames contains minContains maxContains dependencies
dependentRequired dependentSchemas unevaluatedItems unevaluatedProperties additionalItems
$dynamicRef $recursiveRef
"""
_KEPT, _CONSTRAINTS = frozenset(_KEPT_WORDS.split()), frozenset(_CONSTRAINT_WORDS.split())
_MAPS_OF_SCHEMAS = ("properties", "patternProperties", "$defs", "definitions")
_LISTS_OF_SCHEMAS = ("anyOf", "allOf", "oneOf", "prefixItems")
_SCHEMAS = ("additionalProperties", "items")
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_SIZES = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")


@dataclass(frozen=True, slots=True)
class Relaxed:
    """A schema that a grammar can hold.

    Attributes:
        schema: the nearest one.
        left_out: what of the original it does not say, each as `keyword` or `keyword 'value'`.
    """

    schema: Json
    left_out: tuple[str, ...]


def relaxed(schema: Json, can_hold: Callable[[Json], bool]) -> Relaxed:
    """Return the nearest schema that a grammar can hold.

    Args:
        schema: JSON schema of an object, of any draft from 4 on.
        can_hold: tells whether a grammar can be made of a small schema of a string.

    Raises:
        GrammarError: the schema is nested too deeply, has a number that is out of reach, or needs
            too many states.
    """
    work = _Relaxing(schema, can_hold)
    made = work.part(schema, 0)
    assert isinstance(made, dict)
    return Relaxed(made, tuple(work.left_out))


@dataclass(slots=True)
class _Relaxing:
    """Go through one schema."""

    root: Json
    can_hold: Callable[[Json], bool]
    left_out: dict[str, None] = field(default_factory=dict)  # in order, each once
    num_states: int = 0

    def part(self, schema: object, depth: int) -> object:
        """Return a schema's nearest; what is no schema is for the compiler to refuse."""
        if depth > MAX_DEPTH:
            raise GrammarError(f"it is nested more than {MAX_DEPTH} levels deep")
        if not isinstance(schema, dict):
            return schema
        made = {key: value for key, value in schema.items() if key in _KEPT}
        for key in schema:
            if key in _CONSTRAINTS:
                self._without(key, schema, made)
        self._numbers(made)
        self._strings(made)
        self._counts(made)
        for key in ("const", "enum"):
            if key in made:
                _refuse_long_integers(made[key])
        return self._inner(made, depth + 1)

    def _inner(self, made: Json, depth: int) -> Json:
        for key in _MAPS_OF_SCHEMAS:
            parts = made.get(key)
            if isinstance(parts, dict):
                made[key] = {name: self.part(part, depth) for name, part in parts.items()}
        for key in _LISTS_OF_SCHEMAS:
            parts = made.get(key)
            if isinstance(parts, list):
                made[key] = [self.part(part, depth) for part in parts]
        for key in _SCHEMAS:
            if key in made:
                made[key] = self.part(made[key], depth)
        return made

    def _without(self, key: str, schema: Json, made: Json) -> None:
        """Say in other words what a constraint says, or leave it out."""
        value = schema[key]
        if key == "uniqueItems" and value is False:
            return
        if key == "propertyNames" and _names_said_otherwise(self._meant(value), made):
            return
        if key == "additionalItems":  # before draft 2020: of `items` that is a list
            return
        self.left_out[key] = None

    def _meant(self, schema: object) -> object:
        """Return what a schema that is only a name of one is the name of."""
        if not isinstance(schema, dict) or set(schema) != {"$ref"}:
            return schema
        _, _, place = str(schema["$ref"]).partition("#/")
        definitions, _, name = place.partition("/")
        named = self.root.get(definitions) if definitions in ("$defs", "definitions") else None
        return named.get(name, schema) if isinstance(named, dict) else schema

    def _numbers(self, made: Json) -> None:
        items = made.get("items")
        if isinstance(items, list):  # draft 7 and before
            made["prefixItems"] = items
            del made["items"]
        # Draft 4 wrote {"minimum": 5, "exclusiveMinimum": true}. Today that is {"exclusiveMinimum":
        # 5}.
        # Source: JSON Schema draft 4, validation, section 5.1.3; draft 2020-12, validation, section
        # 6.2.5.
        for bound, limit in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
            if isinstance(made.get(bound), bool):  # draft 4
                is_exclusive = made.pop(bound)
                if is_exclusive and limit in made:
                    made[bound] = made.pop(limit)
        # A bound that no integer of 64 bits reaches would overflow in the compiler. It is left out,
        # and what was written is held to it at the end.
        for bound in _BOUNDS:
            if _is_number(made.get(bound)) and abs(made[bound]) >= _INT64:
                del made[bound]
                self.left_out[bound] = None
        for size in _SIZES:
            value = made.get(size)
            if isinstance(value, float) and value.is_integer():
                made[size] = value = int(value)
            if isinstance(value, int) and abs(value) >= _INT64:
                raise GrammarError(f"{size} of {_shown(value)} is out of reach")
        multiple = made.get("multipleOf")
        if _is_number(multiple):
            self._count_states(cast("float", multiple))

    def _count_states(self, multiple: float) -> None:
        # A grammar follows the remainder digit by digit: multiples of 7 take 7 states, those of
        # 0.25 as many as those of 25.
        if isinstance(multiple, int) and abs(multiple) > MAX_MULTIPLE_STATES:
            states = MAX_MULTIPLE_STATES + 1
        else:
            states = _coefficient(multiple)
        self.num_states += states
        if self.num_states > MAX_MULTIPLE_STATES:
            raise GrammarError(
                f"multipleOf of {_shown(multiple)} takes more than the {MAX_MULTIPLE_STATES} "
                "states that all of a schema may take"
            )

    def _strings(self, made: Json) -> None:
        name = made.get("format")
        if name is not None:
            of_strings = made.get("type", "string")
            is_string = of_strings == "string" or (
                isinstance(of_strings, list) and "string" in of_strings
            )
            if not is_string or not isinstance(name, str):
                del made["format"]
            elif not self.can_hold({"type": "string", "format": name}):
                del made["format"]  # one that is not known says nothing, by the standard
        pattern = made.get("pattern")
        if isinstance(pattern, str):
            nearest = self._pattern(pattern)
            if nearest is None:
                del made["pattern"]
            else:
                made["pattern"] = nearest
        patterns = made.get("patternProperties")
        if isinstance(patterns, dict):
            held = {name: self._pattern(name) for name in patterns}
            # A property's name decides which schema its value has. If the name's pattern cannot be
            # held, it is not known which, so any value must be allowed.
            if any(nearest != name for name, nearest in held.items()):
                # Whatever it is called, it is no less allowed than before.
                del made["patternProperties"]
                made.pop("additionalProperties", None)

    def _pattern(self, pattern: str) -> str | None:
        """Return the nearest pattern that a grammar holds, None if that is any text."""
        if self.can_hold({"type": "string", "pattern": pattern}):
            return pattern
        self.left_out[f"pattern {_quoted(pattern)}"] = None
        nearest = without_look_around(pattern)
        if nearest not in (None, pattern) and self.can_hold({"type": "string", "pattern": nearest}):
            return nearest
        return None

    def _counts(self, made: Json) -> None:
        """Leave out how many properties there must be, beyond those that are named."""
        least, required = made.get("minProperties"), made.get("required")
        num_named = len(required) if isinstance(required, list) else 0
        # A grammar can demand one property, and all that are required by name. It cannot demand
        # "any three", since it does not count.
        if isinstance(least, int) and least > max(1, num_named):
            del made["minProperties"]
            self.left_out["minProperties"] = None


def _names_said_otherwise(names: object, made: Json) -> bool:
    """Say what properties are called by naming them, and tell whether that was possible."""
    if not isinstance(names, dict):
        return names is True
    # {"propertyNames": {"pattern": "^x-"}, "additionalProperties": {"type": "string"}} becomes
    # {"patternProperties": {"^x-": {"type": "string"}}, "additionalProperties": false}: the same
    # objects, in words that a grammar can hold.
    said = {key: value for key, value in names.items() if key in _KEPT and key != "type"}
    if not said and names.get("type", "string") == "string":
        return True  # all names are strings
    if made.get("properties") or made.get("patternProperties"):
        return False
    values = made.get("additionalProperties", True)
    if set(said) == {"pattern"} and isinstance(said["pattern"], str):
        made["patternProperties"] = {said["pattern"]: values}
    elif set(said) == {"enum"} and _are_strings(said["enum"]):
        made["properties"] = dict.fromkeys(said["enum"], values)
    elif set(said) == {"const"} and _are_strings([said["const"]]):
        made["properties"] = {said["const"]: values}
    else:
        return False
    made["additionalProperties"] = False
    return True


def _are_strings(values: object) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def without_look_around(pattern: str) -> str | None:
    """Return a pattern without the groups that only look, None if it cannot be told apart.

    What is left accepts all that the pattern does, and more: `^(?!0$)[0-9]+$` becomes `^[0-9]+$`.
    """
    made: list[str] = []
    skipped_from: int | None = None  # depth outside the look-around group that is left out
    depth, at, is_class = 0, 0, False
    # A worked example: `^(?!0$)[0-9]+$`. At `(?!` the depth is 0, and from there on nothing is kept
    # until a `)` brings the depth back to 0. A parenthesis within a class, as in `[(]`, or after a
    # backslash is a character like any other.
    while at < len(pattern):
        char = pattern[at]
        piece = pattern[at : at + 2] if char == "\\" else char
        if char == "\\":
            pass
        elif is_class:
            is_class = char != "]"
        elif char == "[":
            is_class = True
        elif char == "(":
            looks = pattern.startswith(("(?=", "(?!", "(?<=", "(?<!"), at)
            if looks and skipped_from is None:
                skipped_from = depth
            depth += 1
        elif char == ")":
            depth -= 1
            if depth < 0:
                return None
            if skipped_from == depth:
                skipped_from, piece = None, ""
        if skipped_from is None and piece not in ("\\b", "\\B"):
            made.append(piece)
        at += len(piece) or 1
    return "".join(made) if depth == 0 and not is_class else None


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _coefficient(multiple: float) -> int:
    """Count the states of a multiple: its digits as one whole number, 25 for 0.25."""
    if multiple <= 0 or not math.isfinite(multiple):
        return 1  # which the compiler refuses
    digits = Decimal(str(multiple)).normalize()
    exponent = digits.as_tuple().exponent
    assert isinstance(exponent, int)
    scaled = digits.scaleb(-exponent) if exponent < 0 else digits
    return int(min(scaled, Decimal(MAX_MULTIPLE_STATES + 1)))


def _refuse_long_integers(value: object) -> None:
    """Refuse a constant that the compiler's numbers do not reach."""
    level = [value]
    while level:
        each = level.pop()
        if isinstance(each, int) and not -_INT64 <= each < _INT64:
            raise GrammarError(f"the integer {_shown(each)} has more than 64 bits")
        if isinstance(each, Mapping):
            level += each.values()
        elif isinstance(each, list):
            level += each


def _shown(number: float) -> str:
    """Write a number shortly; Python itself refuses to write the longest ones."""
    if isinstance(number, int) and abs(number) >= 10**24:
        return f"{number.bit_length()} bits"
    return str(number)


def _quoted(text: str, most: int = 40) -> str:
    return repr(text if len(text) <= most else text[: most - 1] + "…")
