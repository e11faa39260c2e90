"""Speech changes its speed and keeps its pitch."""

import numpy as np
import pytest

from server.audio.speed import SpeedChanger
from tests.server.sounds import silence, voice

RATE_HZ = 16_000
SPEEDS = [0.25, 0.5, 0.9, 1.1, 1.5, 2.0, 4.0]


def _changed(pcm: np.ndarray, speed: float, chunk: int = 1_280) -> np.ndarray:
    changer = SpeedChanger(RATE_HZ, speed)
    chunks = [changer.feed(pcm[start : start + chunk]) for start in range(0, len(pcm), chunk)]
    return np.concatenate((*chunks, changer.finish()))


def _tone(hz: float, seconds: float = 1.0) -> np.ndarray:
    time_s = np.arange(int(RATE_HZ * seconds)) / RATE_HZ
    return (0.4 * np.sin(2 * np.pi * hz * time_s)).astype(np.float32)


def _pitch_hz(pcm: np.ndarray) -> float:
    """Estimate the usual pitch of a voice, from the autocorrelation of 30 ms frames."""
    frame, longest, shortest = 480, RATE_HZ // 70, RATE_HZ // 250
    pitches = []
    for start in range(0, len(pcm) - frame - longest, frame):
        still = pcm[start : start + frame]
        moved = np.lib.stride_tricks.sliding_window_view(
            pcm[start + shortest : start + longest + frame], frame
        )
        likeness = moved @ still / np.sqrt((moved**2).sum(axis=1) * (still**2).sum() + 1e-9)
        pitches.append(RATE_HZ / (shortest + int(likeness.argmax())))
    return float(np.median(pitches))


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("num_samples", [0, 1, 479, 12_345])
def test_length_is_exact(speed: float, num_samples: int) -> None:
    """A stream is as long as its speed says, to the sample."""
    pcm = voice(1.0)[:num_samples]
    assert len(_changed(pcm, speed)) == round(num_samples / speed)


@pytest.mark.parametrize("speed", SPEEDS)
def test_lateness_is_bounded(speed: float) -> None:
    """Never more comes out than went in at that speed, and what is held back is little."""
    changer = SpeedChanger(RATE_HZ, speed)
    num_out = 0
    for num_chunks in range(1, 60):
        num_out += len(changer.feed(np.zeros(320, dtype=np.float32)))
        due = num_chunks * 320 / speed
        assert num_out <= due
        assert num_out > due - 0.038 * RATE_HZ / speed - 0.015 * RATE_HZ


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("hz", [90, 200, 440])
def test_a_tone_stays_the_same_tone(speed: float, hz: float) -> None:
    """Its pitch is kept, and all its power stays at that pitch."""
    changed = _changed(_tone(hz), speed)
    spectrum = np.abs(np.fft.rfft(changed * np.hanning(len(changed)))) ** 2
    hz_per_bin = RATE_HZ / len(changed)
    assert spectrum.argmax() * hz_per_bin == pytest.approx(hz, abs=hz_per_bin)
    near = np.abs(np.arange(len(spectrum)) * hz_per_bin - hz) < 5 * hz_per_bin
    assert spectrum[near].sum() > 0.98 * spectrum.sum()


@pytest.mark.parametrize("speed", SPEEDS)
def test_a_voice_keeps_its_pitch_and_loudness(speed: float) -> None:
    """Played faster or slower, it is the same voice, and as loud to within about a decibel."""
    pcm = voice(2.0)
    changed = _changed(pcm, speed)
    assert _pitch_hz(changed) == pytest.approx(_pitch_hz(pcm), rel=0.1)
    # At four times the speed neighbours in the output come from vowels far apart.
    assert np.std(changed) == pytest.approx(np.std(pcm), rel=0.13)


def test_what_is_said_moves_with_the_speed() -> None:
    """A word in the middle is found in the middle, and is stretched itself."""
    pcm = np.concatenate((silence(1.0), voice(1.0), silence(1.0)))
    loud = np.flatnonzero(np.abs(_changed(pcm, 0.5)) > 0.01) / RATE_HZ
    assert loud[0] == pytest.approx(2.0, abs=0.05)
    assert loud[-1] == pytest.approx(4.0, abs=0.05)


@pytest.mark.parametrize("speed", [0.5, 1.5])
def test_cutting_does_not_matter(speed: float) -> None:
    """One big chunk says the same as many small ones."""
    pcm = voice(1.0)
    at_once = _changed(pcm, speed, chunk=10**9)
    np.testing.assert_array_equal(_changed(pcm, speed, chunk=77), at_once)


def test_speed_one_is_no_change_at_all() -> None:
    """Every sample passes through, at once."""
    changer = SpeedChanger(RATE_HZ, 1.0)
    pcm = voice(0.5)
    assert changer.feed(pcm) is pcm
    assert not len(changer.finish())


def test_a_finished_stream_starts_anew() -> None:
    """Nothing of the old stream is heard in the next one."""
    changer = SpeedChanger(RATE_HZ, 1.5)
    changer.feed(voice(1.0))
    changer.finish()
    rest = np.concatenate((changer.feed(silence(1.0)), changer.finish()))
    assert len(rest) == round(RATE_HZ / 1.5)
    assert not rest.any()


@pytest.mark.parametrize("speed", [0.2, 4.5])
def test_other_speeds_do_not_exist(speed: float) -> None:
    """What the configuration lets through is what can be done."""
    with pytest.raises(AssertionError, match="out of range"):
        SpeedChanger(RATE_HZ, speed)
