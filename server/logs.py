"""Write the log: one line an event to standard error, and of each kind only so many.

What peers cause can happen thousands of times a second; a log that grows with it fills the disk and
hides what matters. So of one kind of line `MAX_LINES` are written in `WINDOW_S`, and the next one
after that says how many were left out.
"""

import asyncio
import logging
import sys
import time
from collections.abc import Callable
from typing import Any

import structlog

MAX_LINES, WINDOW_S = 50, 10.0
# Texts with numbers in them are told apart by their beginnings, and no more kinds are remembered.
_KIND_CHARS, _MAX_KINDS = 40, 500

_loop_log = logging.getLogger("asyncio")


class Throttle:
    """Say which lines are written.

    Args:
        clock: seconds that do not jump.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._windows: dict[str, tuple[float, int]] = {}  # kind: began at, lines in it

    def passes(self, kind: str) -> tuple[bool, int]:
        """Return whether a line of a kind is written, and how many before it were not."""
        kind, now_s = kind[:_KIND_CHARS], self._clock()
        # Bounded: whoever finds a way to make new kinds of lines only resets the counts.
        if kind not in self._windows and len(self._windows) >= _MAX_KINDS:
            self._windows.clear()
        began_s, num_lines = self._windows.get(kind, (now_s, 0))
        # For example, 5,000 wrong keys in ten seconds: 50 lines are written, and the first one
        # after these ten seconds says that 4,950 were left out.
        num_left_out = 0
        if now_s - began_s >= WINDOW_S:
            num_left_out = max(0, num_lines - MAX_LINES)
            began_s, num_lines = now_s, 0
        self._windows[kind] = (began_s, num_lines + 1)
        return num_lines < MAX_LINES, num_left_out


class _Filter(logging.Filter):
    """Throttle what libraries log."""

    def __init__(self, throttle: Throttle) -> None:
        super().__init__()
        self._throttle = throttle

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether a record is written."""
        is_written, num_left_out = self._throttle.passes(f"{record.name} {record.msg}")
        if num_left_out:
            record.msg = f"{record.msg} ({num_left_out} more like this)"
        return is_written


def throttled(throttle: Throttle) -> structlog.typing.Processor:
    """Return a processor of structlog that throttles what the gateway logs."""

    def process(_: Any, __: str, event: Any) -> Any:
        is_written, num_left_out = throttle.passes(str(event.get("event")))
        if not is_written:
            raise structlog.DropEvent
        if num_left_out:
            event["more_like_this"] = num_left_out
        return event

    return process


def set_up_logging() -> None:
    """Begin to write the log."""
    throttle = Throttle()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    for handler in logging.getLogger().handlers:
        handler.addFilter(_Filter(throttle))
    # It logs what servers sent, with tracebacks; what went wrong is said in one line of ours.
    logging.getLogger("mcp").setLevel(logging.CRITICAL)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            throttled(throttle),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(key_order=["timestamp", "level", "event"]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def log_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what the event loop could not raise anywhere; a peer's doing in one line.

    Where there are no descriptors left, the loop says so for every connection that it cannot
    accept, with a traceback each.
    """
    error = context.get("exception")
    if isinstance(error, OSError):
        _loop_log.error("%s: %s", context.get("message"), error)
        return
    loop.default_exception_handler(context)
