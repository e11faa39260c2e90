"""What was played while something was recorded."""

from itertools import pairwise

import numpy as np
import pytest

from server.audio.far_end import FarEnd

RATE_HZ = 1_000  # a sample a millisecond
FRAME_S = 0.02
Samples = np.ndarray


def _counted(num: int, first: int = 1) -> Samples:
    """Return sound of which each sample says where it lies."""
    return np.arange(first, first + num, dtype=np.float32)


def _playing(seconds: float = 5.0) -> FarEnd:
    far_end = FarEnd(RATE_HZ)
    far_end.play(_counted(int(seconds * RATE_HZ)), 0.0)
    return far_end


def _heard_at(far_end: FarEnd, moments_s: list[float]) -> list[Samples]:
    return [far_end.take(FRAME_S, now_s) for now_s in moments_s]


def test_what_arrives_now_was_recorded_just_before() -> None:
    """In real time, frame after frame, without a seam."""
    far_end = _playing()
    taken = _heard_at(far_end, [(n + 1) * FRAME_S for n in range(50)])
    assert np.array_equal(np.concatenate(taken), _counted(1_000))


def test_silence_lies_before_and_between_and_after() -> None:
    """A reply begins when it is sent; the next follows it, or comes later."""
    far_end = FarEnd(RATE_HZ)
    far_end.play(_counted(30), 1.0)
    far_end.play(_counted(30, 31), 1.0)
    far_end.play(_counted(10, 61), 1.2)
    taken = far_end.take(1.5, 1.5)
    expected = np.zeros(1_500)
    expected[1_000:1_060] = _counted(60)
    expected[1_200:1_210] = _counted(10, 61)
    assert np.array_equal(taken, expected)


def test_frames_paced_by_a_clock_follow_each_other() -> None:
    """Their moments are not exact to the sample."""
    far_end = FarEnd(RATE_HZ)
    for number, jitter_s in enumerate((0.0, 0.003, -0.002, 0.004, 0.0)):
        far_end.play(_counted(20, 1 + 20 * number), number * FRAME_S + jitter_s)
    assert np.array_equal(far_end.take(0.1, 0.1), _counted(100))


def test_jitter_of_the_network_does_not_move_the_reference() -> None:
    """Late sound lies where it would have been, had it come in time."""
    rng = np.random.default_rng(0)
    moments_s = [(n + 1) * FRAME_S + late for n, late in enumerate(rng.uniform(0, 0.06, 200))]
    moments_s = list(np.maximum.accumulate([FRAME_S, *moments_s[1:]]))
    taken = _heard_at(_playing(), moments_s)
    assert np.array_equal(np.concatenate(taken), _counted(4_000))


def test_sound_that_came_late_at_first_moves_back_at_once() -> None:
    """Otherwise its echo would be of something that had not been played."""
    far_end = _playing()
    far_end.take(FRAME_S, 0.120)  # a hundred milliseconds late
    taken = _heard_at(far_end, [0.04, 0.06])
    assert taken[0][-1] == 40
    assert taken[1][-1] == 60


def test_a_client_whose_clock_is_slow_is_followed() -> None:
    """Where all that comes for a while is late, the reading moves on: 200 ppm, for five minutes."""
    far_end = FarEnd(RATE_HZ)
    lag_ms = []
    for number in range(15_000):
        now_s = (number + 1) * FRAME_S * 1.0002
        far_end.play(_counted(20, 1 + round(now_s * RATE_HZ)), now_s)
        taken = far_end.take(FRAME_S, now_s)
        if taken[-1]:
            lag_ms.append(now_s * 1000 - taken[-1])
    assert max(lag_ms) < 70
    assert sum(abs(after - before) > 15 for before, after in pairwise(lag_ms)) <= 3


@pytest.mark.parametrize("pace", [2.0, 8.0, 1e9])
def test_sound_faster_than_speech_has_no_reference(pace: float) -> None:
    """Nobody's microphone records faster than it is spoken; 300 ms of it are forgiven."""
    far_end = _playing(20.0)
    taken = [far_end.take(0.1, 1.0 + 0.1 * n / pace) for n in range(100)]
    assert not np.concatenate(taken[50:]).any()
    # Live again: as if nothing had been.
    now_s = 1.0 + 10.0 / pace + 3.0
    assert far_end.take(FRAME_S, now_s)[-1] == pytest.approx(now_s * RATE_HZ, abs=1)


def test_after_a_pause_it_begins_anew() -> None:
    """A client that was muted is not read where it was."""
    far_end = _playing(10.0)
    far_end.take(FRAME_S, 0.02)
    assert far_end.take(FRAME_S, 5.0)[-1] == 5_000


def test_what_is_stopped_is_not_played() -> None:
    """A client that was interrupted forgets what it has."""
    far_end = _playing()
    far_end.stop(0.5)
    taken = far_end.take(1.0, 1.0)
    assert np.array_equal(taken[:500], _counted(500))
    assert not taken[500:].any()
    far_end.play(_counted(10), 1.0)
    assert far_end.take(0.01, 1.01)[0] == 1


def test_lengths_add_up() -> None:
    """A third of a millisecond is now a sample, now none."""
    far_end = _playing()
    taken = [far_end.take(1 / 3_000, (n + 1) / 3_000) for n in range(3_000)]
    assert sum(map(len, taken)) == 1_000


def test_what_is_kept_is_bounded() -> None:
    """Whether nobody listens, or minutes are sent at once."""
    far_end = FarEnd(RATE_HZ)
    for number in range(6_000):
        far_end.play(np.ones(100, np.float32), number * 0.1)
    unread = sum(len(pcm) for _, pcm in far_end._played)
    assert unread <= 2.2 * RATE_HZ
    for _ in range(6_000):
        far_end.play(np.ones(100, np.float32), 600.0)
    assert sum(len(pcm) for _, pcm in far_end._played) <= 33 * RATE_HZ
