"""The benchmark of transports measures sound that really came."""

import numpy as np
import pytest

from benchmarks.bench_transport import (
    Microphone,
    matched,
    measure_chromium,
    measure_webrtc,
    measure_websocket,
)
from benchmarks.chromium import CHROMIUM
from benchmarks.probe_server import THRESHOLD


def test_what_arrived_is_paired_with_what_began() -> None:
    """Each burst has the first arrival after it; what has none was lost."""
    assert matched([1.0, 2.0, 3.0], [1.25, 3.125]) == ([250.0, 125.0], 1)


def test_a_microphone_notes_what_it_speaks() -> None:
    """Bursts are whole within a frame, and there is a time for each."""
    microphone = Microphone(48_000, seed=1)
    frames = [microphone() for _ in range(200)]
    loud = [np.flatnonzero(np.abs(frame) > THRESHOLD) for frame in frames]
    bursts = [places for places in loud if len(places)]
    assert len(bursts) == len(microphone.captured_s) > 5
    assert all(places[-1] - places[0] < 240 for places in bursts)


async def test_both_transports_are_measured() -> None:
    """Bursts arrive at the engine and at the client."""
    for measure in (measure_websocket, measure_webrtc):
        result = await measure(2)
        assert result.up
        assert result.down


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
async def test_a_browser_is_measured() -> None:
    """Bursts arrive in both directions, and later than they began."""
    result = await measure_chromium(4)
    assert result.up
    assert result.down
    assert min(result.up + result.down) > 0
