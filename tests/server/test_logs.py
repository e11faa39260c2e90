"""Of one kind of line, so many in a while; the next says how many were left out."""

import asyncio
import logging

import pytest
import structlog

from server.logs import MAX_LINES, WINDOW_S, Throttle, _Filter, log_loop_error, throttled


class Clock:
    """Seconds that the test says."""

    now_s = 0.0

    def __call__(self) -> float:
        """Return them."""
        return self.now_s


def test_lines_beyond_the_bound_are_left_out_and_counted() -> None:
    """By kind: another one has its own bound."""
    clock = Clock()
    throttle = Throttle(clock)
    passed = [throttle.passes("wrong key") for _ in range(MAX_LINES + 7)]
    assert passed == [(True, 0)] * MAX_LINES + [(False, 0)] * 7
    assert throttle.passes("session ended") == (True, 0)
    clock.now_s = WINDOW_S
    assert throttle.passes("wrong key") == (True, 7)
    assert throttle.passes("wrong key") == (True, 0)


def test_kinds_are_bounded_too() -> None:
    """Texts that differ at their ends are one kind, and of kinds not all are remembered."""
    throttle = Throttle(Clock())
    lines = [throttle.passes("a" * 60 + str(number)) for number in range(MAX_LINES + 1)]
    assert lines[-1] == (False, 0)
    for number in range(10_000):
        throttle.passes(f"{number} is a kind")
    assert len(throttle._windows) <= 500


def test_both_logs_are_throttled() -> None:
    """The gateway's own lines, and those of libraries."""
    clock = Clock()
    process = throttled(Throttle(clock))
    for _ in range(MAX_LINES):
        assert process(None, "", {"event": "x"}) == {"event": "x"}
    with pytest.raises(structlog.DropEvent):
        process(None, "", {"event": "x"})
    clock.now_s = WINDOW_S
    assert process(None, "", {"event": "x"}) == {"event": "x", "more_like_this": 1}

    throttle = _Filter(Throttle(clock))

    def line() -> logging.LogRecord:
        return logging.LogRecord("asyncio", logging.ERROR, "", 0, "no room", None, None)

    assert [throttle.filter(line()) for _ in range(MAX_LINES + 2)] == [True] * MAX_LINES + [
        False
    ] * 2
    clock.now_s += WINDOW_S
    last = line()
    assert throttle.filter(last)
    assert last.getMessage() == "no room (2 more like this)"


def test_a_peers_doing_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """A connection that cannot be accepted has no traceback; a fault of ours has."""
    loop = asyncio.new_event_loop()
    try:
        log_loop_error(loop, {"message": "accept failed", "exception": OSError(24, "no files")})
        log_loop_error(loop, {"message": "a fault", "exception": ValueError("ours")})
    finally:
        loop.close()
    peer, ours = caplog.records
    assert peer.getMessage() == "accept failed: [Errno 24] no files"
    assert peer.exc_info is None
    assert ours.exc_info
