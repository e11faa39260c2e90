"""What waits for a client is bounded, in number and in size."""

import pytest

from server.protocol.events import EndReason, Hangup
from server.session.outbox import Outbox, SlowReaderError

MEBIBYTE = "x" * (1 << 20)


async def test_order_is_kept() -> None:
    """Events come out as they went in, the end last."""
    outbox = Outbox(3)
    end = Hangup(EndReason.HUNG_UP, "")
    for item in ("a", "b", end):
        outbox.put(item)
    assert [await outbox.get() for _ in range(3)] == ["a", "b", end]


async def test_too_many_events_are_refused() -> None:
    """There is room again once one was taken."""
    outbox = Outbox(2)
    outbox.put("a")
    outbox.put("b")
    with pytest.raises(SlowReaderError, match="2 events"):
        outbox.put("c")
    await outbox.get()
    outbox.put("c")


async def test_too_much_is_refused() -> None:
    """A few big events wait as badly as many small ones."""
    outbox = Outbox(1_000)
    for _ in range(64):
        outbox.put(MEBIBYTE)
    with pytest.raises(SlowReaderError):
        outbox.put("a")
    await outbox.get()
    outbox.put(MEBIBYTE)
