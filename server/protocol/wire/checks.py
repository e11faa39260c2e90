"""Check JSON values at the edge and refuse them in the Realtime API's own words.

Every function takes the value and the path under which the client sent it, and returns the value
with its type known. The texts and codes are those of the hosted service, because applications
match on them.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

from server.config.server import DEFAULTS
from server.errors import ClientError

# The texts, codes and paths are those of the hosted service, as far as they were observed. Some
# examples:
#
#     {"audio": 5}                invalid_type: expected a string, but got an integer instead.
#     {"threshold": 2}            decimal_above_max_value, with the path of `threshold`
#     {"type": "sesion.update"}   invalid_value: Supported values are: 'session.update', ...
#
# Source: Realtime API reference, server events, error: type, code, message, param, event_id.
MIN_INTEGER, MAX_INTEGER = -(1 << 63), (1 << 63) - 1
_MAX_SHOWN_BITS = 128
MAX_DEPTH = 64  # of what an event holds: what is read can then always be written again
MAX_VALUES = 20_000  # that an event holds, inner ones and keys included
MAX_TEXT_CHARS = DEFAULTS.max_text_chars
_IMAGE_PLACE = re.compile(r"(?:item|response\.input\[\d+\])\.content\[\d+\]\.image_url")

ChoiceT = TypeVar("ChoiceT", bound=str)  # where the options are those of a `Literal`, it is that
T_co = TypeVar("T_co", covariant=True)


class Parser(Protocol[T_co]):
    """Check a value that a client sent under a path, and return it with its type known."""

    def __call__(self, value: object, path: str, /) -> T_co:
        """Return the value, or what it stands for.

        Raises:
            ClientError: naming the path.
        """
        ...


JsonObject: TypeAlias = dict[str, Any]
"""A JSON object as parsed; `Any`, because its values are what the checks are about."""


def kind_of(value: object) -> str:
    """Name a JSON value's type with its article, as the error texts do."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int():
            return "an integer"
        case float():
            return "a decimal"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"


def wrong_type(value: object, path: str, expected: str) -> ClientError:
    """Make the error for a value of the wrong JSON type."""
    return ClientError(
        f"Invalid type for '{path}': expected {expected}, but got {kind_of(value)} instead.",
        code="invalid_type",
        param=path,
    )


def missing(path: str) -> ClientError:
    """Make the error for a parameter that is required and absent."""
    return ClientError(
        f"Missing required parameter: '{path}'.", code="missing_required_parameter", param=path
    )


def unknown_parameter(path: str, hint: str = "") -> ClientError:
    """Make the error for a key that the API does not have; a hint says what may be meant."""
    message = f"Unknown parameter: '{path}'."
    return ClientError(f"{message} {hint}".rstrip(), code="unknown_parameter", param=path)


def unsupported(path: str, reason: str) -> ClientError:
    """Make the error for something that the API has and this server does not."""
    return ClientError(
        f"Unsupported parameter: '{path}'. {reason}", code="unsupported_parameter", param=path
    )


def quoted_list(options: Sequence[str]) -> str:
    """Write options as `'a', 'b', and 'c'`."""
    quoted = [f"'{option}'" for option in options]
    if len(quoted) < 2:
        return "".join(quoted)
    if len(quoted) == 2:
        return " and ".join(quoted)
    return f"{', '.join(quoted[:-1])}, and {quoted[-1]}"


def invalid_choice(value: str, path: str, options: Sequence[str]) -> ClientError:
    """Make the error for a string that is not one of the options."""
    return ClientError(
        f"Invalid value: '{value}'. Supported values are: {quoted_list(options)}.",
        code="invalid_value",
        param=path,
    )


def object_at(value: object, path: str) -> JsonObject:
    """Return the value if it is an object."""
    if not isinstance(value, dict):
        raise wrong_type(value, path, "an object")
    return value


def array_at(value: object, path: str) -> list[Any]:
    """Return the value if it is an array."""
    if not isinstance(value, list):
        raise wrong_type(value, path, "an array")
    return value


def string_at(value: object, path: str, *, max_length: int | None = None) -> str:
    """Return the value if it is a string of at most `max_length` characters."""
    if not isinstance(value, str):
        raise wrong_type(value, path, "a string")
    if not is_text(value):
        # JSON can escape half a character, which cannot be encoded.
        raise ClientError(
            f"Invalid '{path}': the string is not valid Unicode.", code="invalid_value", param=path
        )
    if max_length is not None and len(value) > max_length:
        raise _too_long(value, path, max_length)
    return value


def _too_long(value: str, path: str, max_length: int) -> ClientError:
    return ClientError(
        f"Invalid '{path}': string too long. Expected a string with maximum length {max_length}, "
        f"but got a string with length {len(value)} instead.",
        code="string_above_max_length",
        param=path,
    )


def is_text(value: str) -> bool:
    """Tell whether a string has no half of a surrogate pair."""
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def boolean_at(value: object, path: str) -> bool:
    """Return the value if it is true or false."""
    if not isinstance(value, bool):
        raise wrong_type(value, path, "a boolean")
    return value


def choice_at(value: object, path: str, options: Sequence[ChoiceT]) -> ChoiceT:
    """Return the value if it is one of the options."""
    text = string_at(value, path)
    for option in options:
        if option == text:
            return option
    raise invalid_choice(text, path, options)


def _check_range(value: float, path: str, noun: str, low: float | None, high: float | None) -> None:
    for bound, word, sign, is_out in (
        (low, "below minimum value", ">=", low is not None and value < low),
        (high, "above maximum value", "<=", high is not None and value > high),
    ):
        if is_out:
            message = (
                f"Invalid '{path}': {noun} {word}. Expected a value {sign} {bound}, "
                f"but got {_shown(value)} instead."
            )
            code = f"{noun}_{'below_min' if sign == '>=' else 'above_max'}_value"
            raise ClientError(message, code=code, param=path)


def integer_at(value: object, path: str, *, low: int = MIN_INTEGER, high: int = MAX_INTEGER) -> int:
    """Return the value if it is a whole number (1500.0 is one) within the bounds, inclusive.

    No bound is beyond 64 bits, where neither numpy nor JSON's other readers could follow.
    """
    # JavaScript has one type of number, and some clients write 1500.0. True is an int in Python,
    # and not a number in JSON.
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong_type(value, path, "an integer")
    _check_range(value, path, "integer", low, high)
    return value


def decimal_at(
    value: object, path: str, *, low: float | None = None, high: float | None = None
) -> float:
    """Return the value if it is a number within the bounds, inclusive."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise wrong_type(value, path, "a decimal")
    _check_range(value, path, "decimal", low, high)
    if isinstance(value, int):
        value = integer_at(value, path)  # not every longer one is a float
    return float(value)


def _shown(value: float) -> str:
    """Write a number; of an integer of hundreds of digits, how many bits it has."""
    if isinstance(value, int) and value.bit_length() > _MAX_SHOWN_BITS:
        return f"an integer of {value.bit_length()} bits"
    return str(value)


def refuse_unknown_keys(value: JsonObject, path: str, known: Iterable[str]) -> None:
    """Refuse an object that has a key which the API does not know."""
    allowed = frozenset(known)
    for key in value:
        if key not in allowed:
            raise unknown_parameter(f"{path}.{key}" if path else key)


def refuse_deep(value: JsonObject, path: str) -> None:
    """Refuse a free-form object whose values are nested too deeply to be handled."""
    # Level by level and not by recursion: depth is what is in question.
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        containers = [each for each in level if isinstance(each, (dict, list))]
        if not containers:
            return
        level = [
            inner
            for each in containers
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
    raise _too_deep(path)


def _too_deep(path: str) -> ClientError:
    return ClientError(
        f"Invalid '{path}': nested too deeply. Expected at most {MAX_DEPTH} levels.",
        code="invalid_value",
        param=path,
    )


def refuse_oversized(event: JsonObject, *, max_text_chars: int = MAX_TEXT_CHARS) -> None:
    """Refuse an event that holds too much, before anything is done with it.

    Everything that clients write is bounded here: no string is longer than `max_text_chars`, but
    for sound, which is under a key "audio", and pictures of items, under "image_url", both of which
    have bounds of their own; nothing is nested deeper
    than `MAX_DEPTH`; and there are at most `MAX_VALUES` values.

    Raises:
        ClientError: with the path of the first thing that is too much.
    """
    level: list[tuple[str, Any]] = [("", event)]
    num_values = 0
    for _ in range(MAX_DEPTH + 2):  # the event and what is in it are not nested
        inner: list[tuple[str, Any]] = []
        for path, container in level:
            num_values += len(container)
            if num_values > MAX_VALUES:
                raise ClientError(
                    f"Invalid event: too many values. Expected at most {MAX_VALUES}, inner ones "
                    "included.",
                    code="invalid_value",
                    param=path or None,
                )
            if isinstance(container, dict):
                _refuse_long(container, path, max_text_chars)
                inner += [
                    (f"{path}.{key}" if path else key, value)
                    for key, value in container.items()
                    if isinstance(value, (dict, list))
                ]
                continue
            for index, value in enumerate(container):
                if isinstance(value, (dict, list)):
                    inner.append((f"{path}[{index}]", value))
                elif isinstance(value, str) and len(value) > max_text_chars:
                    raise _too_long(value, f"{path}[{index}]", max_text_chars)
        if not inner:
            return
        level = inner
    raise _too_deep(level[0][0].partition(".")[0])


def _refuse_long(fields: JsonObject, path: str, max_text_chars: int) -> None:
    for key, value in fields.items():
        if len(key) > max_text_chars:
            raise _too_long(key, f"{path}.{key[:64]}…", max_text_chars)
        if isinstance(value, str) and len(value) > max_text_chars and key != "audio":
            place = f"{path}.{key}" if path else key
            if not is_image_place(place):
                raise _too_long(value, place, max_text_chars)


def is_image_place(path: str) -> bool:
    """Say whether a picture can stand at a path of an event."""
    return _IMAGE_PLACE.fullmatch(path) is not None


def required(value: JsonObject, key: str, path: str) -> object:
    """Return an object's value for a key that must be there."""
    if key not in value:
        raise missing(f"{path}.{key}" if path else key)
    return value[key]
