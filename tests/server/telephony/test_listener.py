"""What comes of a caller's sound, in whatever order."""

import numpy as np
import pytest

from server.audio.g711 import encode_g711
from server.audio.resample import StreamResampler
from server.telephony.listener import Listener
from server.telephony.messages import Media, MediaFormat

RATE_HZ = 16_000
LATE = StreamResampler(8_000, RATE_HZ).lateness_samples


def _pieces(count: int) -> list[Media]:
    """Return pieces of 20 ms, each of one level."""
    levels = np.linspace(0.1, 0.9, count, dtype=np.float32)
    data = [encode_g711(np.full(160, level, dtype=np.float32), "mu") for level in levels]
    return [Media(each, n, n * 20) for n, each in enumerate(data, 1)]


def _heard(pieces: list[Media], format_: MediaFormat | None = None) -> np.ndarray:
    listener = Listener(format_ or MediaFormat(), RATE_HZ, is_big=False)
    return np.concatenate([pcm for piece in pieces for pcm in listener.take(piece)])


def test_order_is_restored() -> None:
    """Pieces that overtake each other are heard as they were said; one that comes twice, once."""
    pieces = _pieces(8)
    swapped = [pieces[n] for n in (0, 2, 1, 1, 5, 3, 4, 6, 7)]
    np.testing.assert_array_equal(_heard(swapped), _heard(pieces))


def test_a_piece_that_never_comes_is_silence() -> None:
    """It is waited for until five have come after it."""
    pieces = _pieces(10)
    listener = Listener(MediaFormat(), RATE_HZ, is_big=False)
    sizes = [sum(map(len, listener.take(piece))) for piece in pieces if piece.number != 3]
    assert sizes[2:6] == [0, 0, 0, 0], "four wait"
    assert sizes[6] == 6 * 320, "and with the fifth, 20 ms of silence and all five"
    assert (listener.num_missing, listener.num_late) == (1, 0)
    assert listener.take(pieces[2]) == []
    assert listener.num_late == 1


def test_a_stream_that_counts_anew_is_heard() -> None:
    """And one that does not count at all."""
    first, again = _pieces(3), [Media(each.payload, each.number, None) for each in _pieces(3)]
    far = [Media(each.payload, (each.number or 0) + 5_000, each.time_ms) for each in first]
    plain = [Media(each.payload, None, None) for each in again]
    assert len(_heard([*far, *first])) == len(_heard([*plain, *plain])) == 6 * 320 - 2 * LATE


def test_a_long_hole_is_not_filled() -> None:
    """A caller on hold does not come back to a minute of silence."""
    one, two = _pieces(2)
    later = Media(two.payload, 2, 60_000)
    assert len(_heard([one, later])) == len(_heard([one, two]))


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 24_000])
def test_linear_in_both_orders(rate_hz: int) -> None:
    """The bytes of L16 mean the same in the order that is set."""
    pcm = (np.sin(np.arange(rate_hz // 50)) * 20_000).astype("<i2")
    format_ = MediaFormat("L16", rate_hz)
    little = Listener(format_, RATE_HZ, is_big=False).take(Media(pcm.tobytes(), None, None))
    swapped = pcm.astype(">i2").tobytes()
    big = Listener(format_, RATE_HZ, is_big=True).take(Media(swapped, None, None))
    np.testing.assert_array_equal(little[0], big[0])


def test_a_law() -> None:
    """PCMA is decoded as such."""
    pcm = np.full(160, 0.5, dtype=np.float32)
    heard = _heard([Media(encode_g711(pcm, "a"), None, None)] * 4, MediaFormat("PCMA"))
    assert np.allclose(heard[100:-100], 0.5, atol=0.02)
