"""Audio of any length comes out as frames, every sample once and in order."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from model.turns.frames import FrameBuffer


@given(lengths=st.lists(st.integers(0, 25)), frame_samples=st.integers(1, 9))
def test_frames_are_the_stream_cut_up(lengths: list[int], frame_samples: int) -> None:
    """How the stream arrives does not show in the frames; the last one is completed by silence."""
    stream = np.arange(1, 1 + sum(lengths), dtype=np.float32)
    frames, taken = FrameBuffer(frame_samples), []
    for chunk in np.split(stream, np.cumsum(lengths)[:-1] if lengths else []):
        frames.append(chunk)
        while frames.num_frames:
            taken.append(frames.take())
    assert frames.num_samples == len(stream) % frame_samples
    frames.complete()
    while frames.num_frames:
        taken.append(frames.take())
    assert {len(frame) for frame in taken} <= {frame_samples}
    made = np.concatenate([*taken, np.zeros(0, dtype=np.float32)])
    assert np.array_equal(made[: len(stream)], stream)
    assert not made[len(stream) :].any()
    assert len(made) - len(stream) < frame_samples


def test_cleared_buffer_is_empty() -> None:
    """Clearing forgets whole frames and parts alike."""
    frames = FrameBuffer(4)
    frames.append(np.ones(7, dtype=np.float32))
    frames.clear()
    frames.complete()
    assert (frames.num_frames, frames.num_samples) == (0, 0)
