"""Write instructions, functions and their calls in the pieces of a model that speaks.

Its pieces spell lower-case words. So a function is its name and its parameters in words, and a call
the same with the values:

    <tool> set timer <speak> minutes number <speak> it takes a while
    <call> set timer <speak> minutes one five <speak>

`<speak>` ends a name, a parameter and a value, as it does while a call is made (`model.turns.call`
and `model.schemas.spelling`). What the schema leaves no choice about has no end: a truth, or one of
several values.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

from model.messages import Tool
from model.text import Special, normalise, number_words

Encode = Callable[[str], list[int]]

MAX_INSTRUCTION_PIECES = 64
MAX_DESCRIPTION_PIECES = 16
# Texts come from clients, and are written on the engine's thread: no more is read of any than fits.
_MAX_CHARS = 1_000
_MAX_VALUES = 16
_MAX_DEPTH = 4  # of what a function returned

_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_DIGITS = {str(digit): number_words(digit) for digit in range(10)} | {"-": "minus", ".": "point"}


def with_gaps(text: str) -> str:
    """Put a space before every capital within a word: `getWeather` is "get Weather"."""
    # "getHTTPStatus" is left as "get HTTPStatus": a space goes only where a small letter or a digit
    # is followed by a capital.
    return _HUMP.sub(" ", text)


def plain_words(name: str) -> str:
    """Return a name in words: `getWeather` and `get_weather` are both "get weather"."""
    return normalise(with_gaps(name))


def prompt_pieces(
    instructions: str, tools: tuple[Tool, ...], encode: Encode, max_pieces: int
) -> tuple[list[int], tuple[Tool, ...]]:
    """Write what a conversation is to be led by.

    Args:
        instructions: in words; what is longer than `MAX_INSTRUCTION_PIECES` is cut.
        tools: that may be called.
        encode: text to pieces.
        max_pieces: room for all of it.

    Returns:
        The pieces, and the functions among them: those without room are left out.
    """
    pieces: list[int] = []
    words = encode(instructions[:_MAX_CHARS])[:MAX_INSTRUCTION_PIECES]
    # Instructions are the more important part, so they come first and have their room before any
    # function. A function is shown whole or not at all: half of one could be called wrongly.
    if words and len(words) < max_pieces:
        pieces += [Special.SYSTEM, *words]
    fitting = []
    for tool in tools:
        described = tool_pieces(tool, encode)
        if len(pieces) + len(described) > max_pieces:
            break
        pieces += described
        fitting.append(tool)
    return pieces, tuple(fitting)


def tool_pieces(tool: Tool, encode: Encode) -> list[int]:
    """Write a function: its name, the parameters that a call has to give, what it is for."""
    pieces: list[int] = [Special.TOOL, *encode(plain_words(tool.name)), Special.SPEAK]
    for name, schema in required_parameters(tool.parameters).items():
        words = plain_words(name)
        # A worked example: get_weather needs a city, a text, and a unit, one of "celsius" and
        # "fahrenheit". Its pieces are
        #
        #     <tool> get weather <speak> city <speak> unit celsius fahrenheit <speak> the weather
        match schema:
            case {"enum": [*values]}:
                words += "".join(f" {plain_words(str(value))}" for value in values[:_MAX_VALUES])
            case {"type": "integer" | "number"}:
                words += " number"
            case {"type": "boolean"}:
                words += " yes no"
        pieces += [*encode(words), Special.SPEAK]
    return pieces + encode(tool.description[:_MAX_CHARS])[:MAX_DESCRIPTION_PIECES]


def required_parameters(parameters: str) -> dict[str, Any]:
    """Return the schemas of the parameters that a call has to give, in their order."""
    schema = json.loads(parameters)
    if not isinstance(schema, dict):
        return {}
    # Optional parameters are left out: a model of this size is right more often the less there is
    # to read. A call without them is valid.
    properties, required = schema.get("properties"), schema.get("required")
    if not isinstance(properties, dict) or not isinstance(required, list):
        return {}
    return {name: of for name, of in properties.items() if name in required}


def call_pieces(name: str, arguments: str, encode: Encode, parameters: str = "{}") -> list[int]:
    """Write a call as it is made, or as it is remembered.

    Args:
        name: of the function.
        arguments: as JSON text.
        encode: text to pieces.
        parameters: JSON schema of the arguments, as JSON text; an empty one if it is not known.
    """
    pieces: list[int] = [Special.CALL, *encode(plain_words(name)), Special.SPEAK]
    # A client may replay arguments that are not JSON. They are then remembered as plain text.
    try:
        given = json.loads(arguments)
    except ValueError:
        given = arguments
    if not isinstance(given, dict):
        return pieces + encode(str(given)[:_MAX_CHARS])
    schemas: Mapping[str, Any] = required_parameters(parameters)
    for key, value in islice(given.items(), _MAX_VALUES):
        schema = schemas.get(key)
        # A text or a number has an end that the model must put out. Where the schema lists the
        # values, the grammar knows when one is complete.
        is_one_of_few = isinstance(value, bool) or (isinstance(schema, dict) and "enum" in schema)
        pieces += encode(plain_words(key)) + value_pieces(value, encode)
        if not is_one_of_few:
            pieces.append(Special.SPEAK)
    return pieces


def result_text(output: str) -> str:
    """Return in words what a function returned.

    Of a JSON object the keys are said with the values, unless there is but one value, which is then
    no error: `{"sky": "dry", "degrees": 9}` is "sky dry degrees nine", and `{"price": 3}` "three".
    """
    try:
        value = json.loads(output)
    except (ValueError, RecursionError):
        return normalise(output)
    if isinstance(value, dict) and len(value) == 1:
        ((key, only),) = value.items()
        value = {key: only} if "error" in plain_words(key).split() else only
    return normalise(" ".join(_words_of(value, 0)))


def _words_of(value: object, depth: int) -> Iterator[str]:
    # What a function returns may be nested as deeply as it likes. Deeper than four it is not read
    # out anyhow.
    match value:
        case None:
            return
        case bool():
            yield "true" if value else "false"
        case dict() if depth < _MAX_DEPTH:
            for key, inner in value.items():
                yield plain_words(str(key))
                yield from _words_of(inner, depth + 1)
        case list() if depth < _MAX_DEPTH:
            for inner in value:
                yield from _words_of(inner, depth + 1)
        case _:
            yield str(value)


def value_pieces(value: object, encode: Encode) -> list[int]:
    """Write a value: text as its words, a number digit by digit, a truth as yes or no."""
    match value:
        case bool():
            return encode("yes" if value else "no")
        case int() | float():
            # 15 is "one five" and -2.5 is "minus two point five", as the model writes them itself.
            return encode(" ".join(_DIGITS[digit] for digit in str(value) if digit in _DIGITS))
        case str():
            return encode(value[:_MAX_CHARS])
        case _:
            return encode(json.dumps(value)[:_MAX_CHARS])
