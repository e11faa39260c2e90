"""Sound is kept as long as there is room, whole or not at all."""

import base64

import numpy as np
import pytest

from server.protocol.items.recordings import Recordings

RATE_HZ = 16_000


def _tone(num_samples: int) -> np.ndarray:
    return np.sin(np.arange(num_samples, dtype=np.float32) / 7).astype(np.float32) / 2


def test_what_is_kept_is_what_was_heard() -> None:
    """Chunks make one sound, to the precision of 16 bits."""
    recordings = Recordings(1 << 20, RATE_HZ)
    recordings.begin("a")
    recordings.add("a", _tone(1_000)[:300])
    recordings.add("a", _tone(1_000)[300:])
    pcm = recordings.pcm("a")
    assert pcm is not None
    np.testing.assert_allclose(pcm, _tone(1_000), atol=1 / 32_768)
    assert recordings.pcm("b") is None


def test_clients_get_it_at_their_rate() -> None:
    """A second is 24,000 samples of 16 bits."""
    recordings = Recordings(1 << 20, RATE_HZ)
    recordings.begin("a")
    recordings.add("a", _tone(RATE_HZ))
    encoded = recordings.base64("a")
    assert encoded is not None
    samples = np.frombuffer(base64.b64decode(encoded), dtype="<i2")
    assert len(samples) == 24_000
    # The ends, where sound begins and stops at once, ring.
    assert np.abs(samples[100:-100]).max() == pytest.approx(32_768 / 2, rel=0.01)


def test_the_oldest_sound_goes_first_and_goes_whole() -> None:
    """There is never a part of an item's sound, not even of one that goes on."""
    recordings = Recordings(4_000, RATE_HZ)
    for item_id in ("a", "b", "c"):
        recordings.begin(item_id)
        recordings.add(item_id, _tone(800))
    assert recordings.pcm("a") is None
    assert recordings.pcm("b") is not None
    recordings.add("b", _tone(800))
    assert recordings.pcm("b") is None
    recordings.add("b", _tone(10))
    assert recordings.pcm("b") is None
    assert recordings.pcm("c") is not None
    # Room that was given back is there again.
    recordings.begin("d")
    recordings.add("d", _tone(1_000))
    assert recordings.pcm("c") is not None


def test_sound_is_shortened_and_forgotten() -> None:
    """What was not heard is not there to be asked for, and leaves room."""
    recordings = Recordings(2_000, RATE_HZ)
    recordings.begin("a")
    recordings.add("a", _tone(1_000))
    recordings.shorten("a", 10)
    pcm = recordings.pcm("a")
    assert pcm is not None
    np.testing.assert_allclose(pcm, _tone(1_000)[:160], atol=1 / 32_768)
    recordings.begin("b")
    recordings.add("b", _tone(840))
    assert recordings.pcm("a") is not None
    recordings.shorten("a", 0)
    assert recordings.base64("a") is None
    recordings.forget("a")
    recordings.shorten("a", 0)
    assert recordings.pcm("a") is None


def test_no_event_is_larger_than_clients_take() -> None:
    """Of a long sound clients get none: half of it would be taken for the whole."""
    recordings = Recordings(1 << 22, RATE_HZ)
    for item_id, seconds in (("fits", 15), ("long", 17)):
        recordings.begin(item_id)
        recordings.add(item_id, np.zeros(seconds * RATE_HZ, dtype=np.float32))
    encoded = recordings.base64("fits")
    assert encoded is not None
    assert len(encoded) < 1 << 20
    assert recordings.base64("long") is None
