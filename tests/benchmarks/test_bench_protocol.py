"""When the protocol benchmark's bar is met."""

import pytest

from benchmarks.bench_protocol import BAR_P99_MS, BAR_SESSIONS, is_met


@pytest.mark.parametrize(("p99_ms", "expected"), [(BAR_P99_MS, True), (BAR_P99_MS + 0.1, False)])
def test_the_bar_is_about_many_sessions(p99_ms: float, *, expected: bool) -> None:
    """Fewer sessions are only reported."""
    few = {"sessions": 1, "added_p99_ms": 99.0}
    assert is_met([few, {"sessions": BAR_SESSIONS, "added_p99_ms": p99_ms}]) is expected


def test_a_bar_that_was_not_measured_is_not_met() -> None:
    """Nor missed."""
    assert is_met([{"sessions": 16, "added_p99_ms": 1.0}]) is None
