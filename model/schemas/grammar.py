"""Keep the arguments of a function call within the function's JSON schema.

Schemas are compiled by llguidance, which then says at every byte what may come next. Written JSON
is compact, and properties come in the order in which the schema names them.

The compiler can take minutes and gigabytes, and can end the process that it runs in. So nobody but
`model.schemas.worker` compiles what a client sent. Nothing here needs a model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

from model.errors import GrammarError
from model.schemas.relax import relaxed
from model.schemas.results import MAX_REASON_CHARS, MAX_SCHEMA_CHARS, too_large

NUM_BYTES = 256

# Of one text that is followed; the defaults allow for hundreds of megabytes.
_LIMITS = LLParserLimits(step_max_items=20_000, max_lexer_states=20_000, verbose_errors=False)


def check_schema(parameters: Mapping[str, object]) -> tuple[str, ...]:
    """Refuse a function's parameters that calls could not be kept within.

    Args:
        parameters: JSON schema of the arguments, which are always one object.

    Returns:
        What a grammar cannot hold of it; see `model.schemas.relax`.

    Raises:
        GrammarError: saying why: the schema is broken, nothing satisfies it, or it is too large.
    """
    matcher = Matcher(_to_json(parameters), _BYTES)
    matcher.take_forced()
    if not matcher.is_complete:
        matcher.allowed()
    return matcher.left_out


def compile_schema(parameters: str) -> tuple[str, tuple[str, ...]]:
    """Return the grammar of all JSON texts that a schema accepts.

    Args:
        parameters: JSON schema of an object, as JSON text.

    Returns:
        The grammar, and what it does not hold of the schema.

    Raises:
        GrammarError: as `check_schema`.
    """
    # A worked example: {"type": "object", "properties": {"n": {"type": "array", "uniqueItems":
    # true}}}. No grammar can know which items were there before, so it is compiled without
    # `uniqueItems`, and that is listed. A call with [1, 1] can then be written; it is checked at
    # its end, and refused.
    nearest = relaxed(object_schema(parameters), _can_hold)
    try:
        return _grammar(nearest.schema), nearest.left_out
    except GrammarError as error:
        if "oneOf" not in str(error):
            raise
    # The alternatives cannot be told from each other: any of them may be written.
    return _grammar(nearest.schema, coerce_one_of=True), (*nearest.left_out, "oneOf")


def object_schema(parameters: str) -> dict[str, Any]:
    """Read a schema of an object.

    Raises:
        GrammarError: it is too large, no JSON, or not an object's.
    """
    if len(parameters) > MAX_SCHEMA_CHARS:
        raise GrammarError(too_large(parameters))
    try:
        # A lone surrogate such as "\ud800" is valid in JSON and is no character. It is found here,
        # as the text itself and as what its escapes stand for.
        schema = json.loads(parameters)
        parameters.encode()
        json.dumps(schema, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise GrammarError("it has half a surrogate pair, which is no text") from None
    except (ValueError, RecursionError) as error:
        raise GrammarError(f"it is not JSON ({_short(str(error))})") from error
    if not isinstance(schema, dict):
        raise GrammarError("it is not a JSON object")
    if schema.setdefault("type", "object") != "object":
        raise GrammarError(f"its type must be 'object', not {_short(json.dumps(schema['type']))}")
    return schema


def _grammar(schema: Mapping[str, object], *, coerce_one_of: bool = False) -> str:
    overrides: Any = {  # a type that only the package's stubs have
        "whitespace_flexible": False,
        "coerce_one_of": coerce_one_of,
    }
    try:
        grammar = LLMatcher.grammar_from_json_schema(_to_json(schema), overrides=overrides)
    except ValueError as error:
        raise GrammarError(_short(str(error))) from error
    is_broken, messages = LLMatcher.validate_grammar_with_warnings(
        grammar, _BYTES.tokenizer, limits=_LIMITS
    )
    if is_broken:
        raise GrammarError(_short("; ".join(messages)))
    return grammar


def _can_hold(schema: dict[str, Any]) -> bool:
    try:
        _grammar(schema)
    except GrammarError:
        return False
    return True


class Alphabet:
    """What a text is written in: the spellings that a model knows, and every byte by itself.

    A token is the index of a spelling, or the number of spellings plus a byte.

    Args:
        spellings: none of them empty.
    """

    def __init__(self, spellings: Sequence[bytes] = ()) -> None:
        single = [bytes([byte]) for byte in range(NUM_BYTES)]
        self.tokens: tuple[bytes, ...] = (*spellings, *single)
        self.num_spellings = len(spellings)
        self.tokenizer = _tokenizer(self.tokens)


class Matcher:
    """Follow one JSON text as it is written.

    Args:
        parameters: JSON schema that the text has to satisfy, as JSON text.
        alphabet: what it is written in.

    Attributes:
        left_out: what of the schema the text need not satisfy.

    Raises:
        GrammarError: as `check_schema`.
    """

    def __init__(self, parameters: str, alphabet: Alphabet) -> None:
        self._alphabet = alphabet
        grammar, self.left_out = compile_schema(parameters)
        self._matcher = LLMatcher(alphabet.tokenizer, grammar, log_level=0, limits=_LIMITS)

    @property
    def is_complete(self) -> bool:
        """Tell whether the text written so far is a whole one."""
        return bool(self._matcher.is_accepting())

    def allowed(self) -> npt.NDArray[np.bool_]:
        """Say which tokens may come next: bool [spellings + 256].

        Raises:
            GrammarError: the schema turned out to be more than can be followed.
        """
        # One bit a token, the lowest bit of the first byte first.
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        self._check()
        mask = np.unpackbits(bits, count=len(self._alphabet.tokens), bitorder="little")
        return mask.astype(np.bool_)

    def take(self, token: int) -> bytes:
        """Write a token that is allowed, and return its bytes.

        Raises:
            GrammarError: it is not allowed, or as `allowed`.
        """
        if not self._matcher.consume_token(token):
            self._check()
            raise GrammarError(f"token {token} is not allowed here")
        return self._alphabet.tokens[token]

    def allows(self, tokens: Sequence[int]) -> bool:
        """Tell whether all of these tokens may come next, one after another."""
        return bool(self._matcher.validate_tokens(list(tokens)) == len(tokens))

    def take_forced(self) -> bytes:
        """Write the bytes that have no alternative, and return them; often there are none.

        Raises:
            GrammarError: as `allowed`.
        """
        # After `{` of an object whose only property is "city", these are `"city":` and what follows
        # as far as there is no choice.
        forced = bytes(self._matcher.compute_ff_bytes())
        first_byte = self._alphabet.num_spellings
        self._matcher.consume_tokens([first_byte + byte for byte in forced])
        self._check()
        return forced

    def _check(self) -> None:
        if self._matcher.is_error():
            raise GrammarError(_short(self._matcher.get_error() or "it cannot be followed"))


@dataclass(frozen=True, slots=True)
class _Table:
    """What llguidance asks of a tokenizer."""

    tokens: Sequence[bytes]
    eos_token_id: int
    bos_token_id: int | None = None

    @property
    def special_token_ids(self) -> list[int]:
        return [self.eos_token_id]

    def __call__(self, text: bytes | str) -> list[int]:
        """Return the tokens of a text, byte by byte."""
        # The last tokens before the end are the 256 bytes, in order.
        first_byte = self.eos_token_id - NUM_BYTES
        data = text.encode() if isinstance(text, str) else text
        return [first_byte + byte for byte in data]


def _tokenizer(tokens: Sequence[bytes]) -> LLTokenizer:
    return LLTokenizer(TokenizerWrapper(_Table([*tokens, b"<end>"], len(tokens))))


def _to_json(schema: Mapping[str, object]) -> str:
    try:
        return json.dumps(schema, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise GrammarError(f"it is not JSON ({_short(str(error))})") from error


def _short(reason: str) -> str:
    """Return a reason that fits a message, on one line."""
    reason = " ".join(reason.split())
    return reason if len(reason) <= MAX_REASON_CHARS else reason[: MAX_REASON_CHARS - 1] + "…"


_BYTES = Alphabet()
