"""The fuzzer of schemas, for a moment; `python -m tests.fuzz.schemas` goes on for longer."""

from collections import Counter

from hypothesis import HealthCheck, given, settings

from tests.fuzz.schemas import SCHEMAS, trying


def test_any_schema_gets_a_verdict() -> None:
    """And a process that goes on working."""
    counts: Counter[str] = Counter()
    with trying(counts) as attempt:

        @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
        @given(SCHEMAS)
        def run(schema: object) -> None:
            attempt(schema)

        run()
    assert counts["schemas"] >= 60
    assert counts["taken"]
    assert counts["refused"]
