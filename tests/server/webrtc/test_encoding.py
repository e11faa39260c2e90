"""Frames are encoded beside the event loop: in order, as on it, and not after the end."""

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest

from model.messages import Pcm
from server.session.work_thread import WorkThread
from server.webrtc.encoding import ThreadEncoder
from server.webrtc.opus import OpusEncoder

RATE_HZ = 16_000
FRAME = 320


@pytest.fixture
async def thread() -> AsyncIterator[WorkThread]:
    """Run a thread."""
    thread = WorkThread("encoding")
    thread.start()
    yield thread
    await thread.stop()


def _frames(num: int) -> list[Pcm]:
    tone = 0.3 * np.sin(2 * np.pi * 300 * np.arange(num * FRAME) / RATE_HZ)
    return np.split(tone.astype(np.float32), num)


def _fail(error: Exception) -> None:
    raise error


async def _until_done(thread: WorkThread) -> None:
    is_done = asyncio.Event()
    thread.put(lambda: None, lambda _: is_done.set())
    await is_done.wait()


async def test_packets_are_those_of_the_encoder_in_order(thread: WorkThread) -> None:
    """Also where two calls share the thread."""
    frames = _frames(12)
    plain = OpusEncoder(RATE_HZ, 24_000)
    expected = [plain.encode(frame) for frame in frames]
    encoders = [ThreadEncoder(OpusEncoder(RATE_HZ, 24_000), thread, _fail) for _ in range(2)]
    got: list[list[bytes]] = [[], []]
    for frame in frames:
        for encoder, packets in zip(encoders, got, strict=True):
            encoder.encode(frame, packets.append)
    assert got == [[], []], "nothing is done on the event loop"
    await _until_done(thread)
    assert got == [expected, expected]
    for encoder in encoders:
        encoder.close()


async def test_nothing_is_handed_on_after_the_end(thread: WorkThread) -> None:
    """A call that is over sends nothing, and its encoder is freed behind its last frame."""
    encoder = ThreadEncoder(OpusEncoder(RATE_HZ, 24_000), thread, _fail)
    packets: list[bytes] = []
    encoder.encode(_frames(1)[0], packets.append)
    encoder.expect_loss(5)
    encoder.close()
    await _until_done(thread)
    assert packets == []


async def test_what_fails_is_told_and_the_others_go_on(thread: WorkThread) -> None:
    """One call's fault is one call's end."""
    errors: list[Exception] = []
    packets: list[bytes] = []
    failing = ThreadEncoder(OpusEncoder(RATE_HZ, 24_000), thread, errors.append)
    other = ThreadEncoder(OpusEncoder(RATE_HZ, 24_000), thread, _fail)
    failing.encode(_frames(1)[0][:7], packets.append)
    other.encode(_frames(1)[0], packets.append)
    await _until_done(thread)
    assert [type(error) for error in errors] == [AssertionError]
    assert len(packets) == 1
    failing.close()
    other.close()
