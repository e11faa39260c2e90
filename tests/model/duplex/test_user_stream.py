"""A user who streams, one who stops, and one who sends everything at once."""

from __future__ import annotations

import numpy as np
import pytest

from model.duplex.user_stream import StreamRules, UserStream
from model.errors import ConfigError

FRAME, FRAME_S = 8, 0.08
RULES = StreamRules(late_ms=240, idle_ms=400)


def make() -> UserStream:
    """Return a stream that nothing has come on."""
    return UserStream(FRAME, FRAME_S, RULES)


def ones(num: int) -> np.ndarray:
    """Return samples of one."""
    return np.ones(num, dtype=np.float32)


def take_due(stream: UserStream, now_s: float) -> list[float]:
    """Take all frames that are due; returns how much of each was sent."""
    taken = []
    while (due_s := stream.due_s()) is not None and due_s <= now_s:
        frame = stream.take(now_s)
        assert frame.shape == (FRAME,)
        taken.append(float(frame.sum()))
    return taken


def test_nothing_happens_before_the_first_audio() -> None:
    """Nor after an empty append; a wish for a response begins it as well."""
    stream = make()
    assert stream.due_s() is None
    stream.append(ones(0), 5.0)
    assert stream.due_s() is None
    stream.wake(7.0)
    assert stream.due_s() == pytest.approx(7.24)


def test_frames_are_heard_as_they_arrive() -> None:
    """However they are cut; half a frame waits for its other half, not for long."""
    stream = make()
    stream.append(ones(3), 1.0)
    assert stream.due_s() == pytest.approx(1.24)
    stream.append(ones(7), 1.05)
    assert stream.due_s() == 1.05
    assert take_due(stream, 1.06) == [8.0]
    # The next belongs at 1.14, and is waited for.
    assert stream.due_s() == pytest.approx(1.38)
    stream.append(ones(6), 1.3)
    assert take_due(stream, 1.3) == [8.0]


def test_silence_takes_the_place_of_what_does_not_come() -> None:
    """All that was waited for at once, then frame by frame in real time, until nothing is left."""
    stream = make()
    stream.append(ones(8 + 2), 1.0)
    assert take_due(stream, 1.0) == [8.0]
    assert take_due(stream, 1.31) == []
    assert take_due(stream, 1.33) == [2.0, 0.0, 0.0, 0.0]  # with what had come of the first
    assert take_due(stream, 1.38) == []
    assert take_due(stream, 1.41) == [0.0]
    assert not stream.is_idle
    assert take_due(stream, 1.49) == [0.0]
    assert stream.is_idle
    stream.rest()
    assert stream.due_s() is None
    stream.append(ones(8), 9.0)
    assert take_due(stream, 9.0) == [8.0]
    assert not stream.is_idle


def test_much_at_once_is_heard_at_once() -> None:
    """And silence follows a commit without waiting."""
    stream = make()
    stream.append(ones(30), 1.0)
    assert stream.num_waiting_frames == 4
    stream.commit()
    assert take_due(stream, 1.0) == [8.0] * 3
    assert stream.due_s() == pytest.approx(1.08)
    assert take_due(stream, 1.08) == [6.0]
    assert take_due(stream, 1.2) == [0.0]
    # More audio takes the commit back.
    stream.append(ones(8), 1.3)
    assert take_due(stream, 1.3) == [8.0]
    assert stream.due_s() == pytest.approx(1.3 + FRAME_S + 0.24)


def test_a_model_that_fell_behind_does_not_race() -> None:
    """It makes up for what was waited for, not for the time it was busy."""
    stream = make()
    stream.append(ones(8), 1.0)
    assert take_due(stream, 1.0) == [8.0]
    assert len(take_due(stream, 60.0)) == 5


def test_lateness_is_measured_against_speech() -> None:
    """What comes at once is not late as long as it is heard as fast as it was said."""
    stream = make()
    stream.append(ones(8 * 20), 1.0)
    for k in range(20):
        stream.take(1.0 + 0.05 * k)
        assert stream.late_s == 0.0
    stream.append(ones(8), 5.0)
    stream.take(5.03)
    assert stream.late_s == pytest.approx(0.03)
    # A user who goes on talking while the model is slow.
    for k in range(4):
        stream.append(ones(8), 6.0 + FRAME_S * k)
    stream.take(6.5)
    assert stream.late_s == pytest.approx(0.5)
    stream.take(6.6)
    assert stream.late_s == pytest.approx(0.6 - FRAME_S)


def test_cleared_audio() -> None:
    """Is gone, whole frames and parts."""
    stream = make()
    stream.append(ones(20), 1.0)
    stream.clear()
    assert stream.num_waiting_frames == 0
    assert stream.due_s() == pytest.approx(1.24)


@pytest.mark.parametrize("name", ["late_ms", "idle_ms"])
def test_rules_that_cannot_work(name: str) -> None:
    """Are refused by name."""
    with pytest.raises(ConfigError, match=name):
        StreamRules(**{name: -1})
