"""Try function schemas that nobody foresaw: `python -m tests.fuzz.schemas --seconds N`.

Whatever a schema is, there is a verdict on it; and the arguments that are written within one that
is taken are JSON, and what the whole schema accepts, or the reason is told.
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import TimeoutError as NotDone
from contextlib import contextmanager
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from model.errors import GrammarError
from model.schemas.service import SchemaService
from model.schemas.spelling import spelled
from model.schemas.worker import Bounds
from tests.model.schemas.everyday import PYDANTIC, ZOD, of_pydantic
from tests.model.turns.conftest import VOCABULARY

# Past this, somebody would have noticed.
_ANSWER_S = 60.0
_BATCH = 50

_numbers = (
    st.integers(-3, 12)
    | st.sampled_from([0.01, 0.5, 1e9, 1 << 31, 1 << 63, -(1 << 64), 10**400, 600_011, 1e-300, 1.5])
    | st.floats(allow_nan=False, allow_infinity=False)
)
_texts = st.text(max_size=6) | st.sampled_from(
    ["a", "b", "\ud800", "ы" * 60, "\x00", "é", "x" * 200]
)
_patterns = st.sampled_from(
    [
        "^a+$",
        "(a|b)*c",
        r"^(?=.*\d)\w{3,}$",
        r"(?<!a)b",
        "(",
        "[",
        r"\1",
        "a{1,100000}",
        "((a{1,99}){1,99}){1,99}",
        "(a+)+$",
        r"\p{L}+",
        "(?i)a",
        "^$",
        "",
        "(?!)",
        "a{5,2}",
    ]
)
_formats = st.sampled_from(
    ["date-time", "email", "uuid", "uri", "ipv6", "regex", "binary", "x", ""]
)
_kinds = st.sampled_from(["object", "string", "integer", "number", "array", "boolean", "null", "x"])
_values = st.none() | st.booleans() | _numbers | _texts | st.lists(_numbers | _texts, max_size=3)
_names = st.sampled_from(["a", "b", "$ref", "type", "const"]) | _texts
_refs = st.sampled_from(
    ["#", "#/$defs/a", "#/$defs/b", "#/properties/a", "#/x", "http://x/y", "#a"]
)


def _of(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return schemas whose parts are `inner`."""
    parts, many = st.dictionaries(_names, inner, max_size=3), st.lists(inner, max_size=3)
    keywords = {
        "type": _kinds | st.lists(_kinds, max_size=2),
        **dict.fromkeys(("const", "default"), _values),
        "enum": st.lists(_values, max_size=4) | _values,
        **dict.fromkeys(
            ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas"), parts
        ),
        **dict.fromkeys(("anyOf", "allOf", "oneOf", "prefixItems"), many),
        "items": inner | many,
        **dict.fromkeys(
            ("additionalProperties", "not", "if", "then", "contains", "propertyNames"), inner
        ),
        "required": st.lists(_names, max_size=3) | _texts,
        **dict.fromkeys(
            ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
            _numbers | st.booleans(),
        ),
        **dict.fromkeys(
            ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"),
            _numbers,
        ),
        "uniqueItems": st.booleans(),
        "pattern": _patterns,
        "format": _formats,
        "$ref": _refs,
        "$schema": _texts,
        "nullable": st.booleans(),
    }
    return st.fixed_dictionaries({}, optional=keywords)


_part = st.recursive(
    st.booleans() | _values | st.just({"type": "string"}) | st.just({"$ref": "#/$defs/a"}),
    lambda inner: st.one_of(_of(inner), _of(inner), inner),
    max_leaves=8,
)
_everyday = st.sampled_from([*(of_pydantic(kind) for kind in PYDANTIC.values()), *ZOD.values()])


def _mixed(base: dict[str, Any], more: Any, name: str) -> dict[str, Any]:
    """Put something into an everyday schema that does not belong there."""
    return {**base, "properties": {**base.get("properties", {}), name: more}, "required": [name]}


_deep = st.integers(2, 400).map(
    lambda depth: json.loads('{"properties":{"a":' * depth + "{}" + "}}" * depth)
)
SCHEMAS = st.one_of(_of(_part), st.builds(_mixed, _everyday, _part, _names), _deep)


@contextmanager
def trying(counts: Counter[str]) -> Iterator[Any]:
    """Give a function that tries one schema and counts what came of it."""
    service = SchemaService(spelled(VOCABULARY), Bounds(cpu_s=0.5))

    def attempt(schema: Any) -> None:
        text = json.dumps(schema)
        counts["schemas"] += 1
        try:
            verdict = service.check("fuzz", text).result(_ANSWER_S)
        except NotDone:
            raise AssertionError(f"no verdict within {_ANSWER_S} s on {text}") from None
        if verdict.refused is not None:
            counts["beyond bounds" if "than a schema may" in verdict.refused else "refused"] += 1
            counts["broke"] += "cannot cope" in verdict.refused
            assert "\n" not in verdict.refused
            verdict.refused.encode()
            return
        counts["taken"] += 1
        counts["relaxed"] += bool(verdict.left_out)
        try:
            draft = service.write("fuzz", "f/1", text, (), closes=True).result(_ANSWER_S)
        except GrammarError:
            counts["not followed"] += 1
            return
        if draft.is_complete:
            counts["written"] += 1
            counts["misfits"] += draft.misfit is not None
            assert isinstance(json.loads(draft.text), dict)

    try:
        yield attempt
    finally:
        counts["processes"] = service.num_starts
        service.close()


def main() -> int:
    """Try schemas for a while, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0, help="of the first batch")
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    end_s, batch = time.monotonic() + options.seconds, options.seed
    failure: str | None = None
    with trying(counts) as attempt:
        while failure is None and time.monotonic() < end_s:
            run = seed(batch)(
                settings(
                    max_examples=_BATCH,
                    deadline=None,
                    database=None,
                    phases=[Phase.generate, Phase.shrink],
                    suppress_health_check=list(HealthCheck),
                )(given(SCHEMAS)(attempt))
            )
            try:
                run()
            except Exception as error:  # noqa: BLE001 - it is what is looked for
                failure = f"seed {batch}: {type(error).__name__}: {error}"
                print(failure, file=sys.stderr)
            batch += 1
    for name, number in sorted(counts.items()):
        print(f"{name:16} {number}")
    print(json.dumps({"fuzzer": "schemas", "failure": failure, **counts}))
    return failure is not None


if __name__ == "__main__":
    sys.exit(main())
