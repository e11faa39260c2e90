"""The tables of interruptions are made of what they say they are."""

import numpy as np
import pytest

from benchmarks.bench_interruption import (
    BEFORE,
    NOW,
    InterruptionGateError,
    check,
    costs,
    double_talk,
    echo_paths,
)
from benchmarks.interruption_sounds import RATE_HZ, cough, echoed, hum, laid, music, spoken, trimmed
from model.errors import ParleyError
from server.audio.silero import SileroModel


def _can_speak() -> bool:
    try:
        spoken("slt", "hello")
        spoken("en-us", "hello")
    except ParleyError:
        return False
    return True


needs_speech = pytest.mark.skipif(not _can_speak(), reason="needs flite and espeak-ng")


def test_sounds_are_the_same_every_time() -> None:
    """Seeds decide, and they are as long as they should be."""
    for make in (cough, hum, music):
        assert np.array_equal(make(3), make(3))
        assert not np.array_equal(make(3)[:3_000], make(4)[:3_000])
    assert all(len(hum(seed)) < 0.3 * RATE_HZ for seed in range(20))


def test_an_echo_is_later_and_quieter() -> None:
    """By what it is asked to be."""
    far = np.zeros(RATE_HZ, np.float32)
    far[1_000:1_400] = 0.1 * np.random.default_rng(0).standard_normal(400)
    echo = echoed(far, 100, -20)
    # Its band is limited, so a trace of it comes before it.
    assert np.abs(echo[: 1_000 + 1_600 - 50]).max() < 0.01 * np.abs(echo).max()
    assert np.argmax(np.abs(echo)) >= 1_000 + 1_600 - 2
    assert len(echo) == len(far)


def test_sounds_are_laid_at_their_places() -> None:
    """What reaches beyond the end is cut."""
    bed = laid(10, [(2, np.ones(3, np.float32)), (8, np.ones(5, np.float32))])
    assert bed.tolist() == [0, 0, 1, 1, 1, 0, 0, 0, 1, 1]
    assert (
        len(
            trimmed(
                np.concatenate((np.zeros(1_600), np.ones(1_600), np.zeros(1_600))).astype(
                    np.float32
                )
            )
        )
        == 1_600
    )


@needs_speech
def test_a_table_of_each_kind() -> None:
    """An echo is taken out and interrupts no more; a user does."""
    model = SileroModel()
    (row,) = echo_paths(model, (100,), (-6,), 6.0)
    assert row["before_interrupted"]
    assert (row["held"], row["interrupted"]) == (0, 0)
    assert row["less_after_3_s_db"] > 20
    (talk,) = double_talk(model, (None,))
    assert talk["found"] == "14/14"
    check([row], [talk], [])
    with pytest.raises(InterruptionGateError, match="its own reply"):
        check([{**row, "interrupted": 1}], [talk], [])
    assert BEFORE != NOW


@needs_speech
def test_costs_are_counted() -> None:
    """For both rates that engines have."""
    assert [row["rate_hz"] for row in costs(0.5)] == [16_000, 24_000]
