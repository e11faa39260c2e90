"""Callers speak in step with real time, however long a frame takes them."""

import asyncio
import time

import pytest

from benchmarks.pacing import paced


async def test_a_delay_does_not_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is late is caught up with, and what comes after it is on time."""
    now_s = 100.0

    async def sleep(seconds: float) -> None:
        nonlocal now_s
        now_s += max(0.0, seconds)

    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    came = []
    async for number in paced(1.0):
        came.append((number, now_s))
        if number == 5:
            break
        now_s += 2.5 if number == 1 else 0.25
    assert came == [(0, 100.0), (1, 101.0), (2, 103.5), (3, 103.75), (4, 104.0), (5, 105.0)]
