"""Encodings on the wire: bytes to floats and back."""

import numpy as np
import pytest

from server.audio.g711 import Law, decode_g711, encode_g711
from server.audio.pcm import PcmDecoder, encode_pcm
from server.audio.wire import AudioDecoder, AudioEncoder, WireEncoding


def test_pcm_round_trip_is_exact() -> None:
    """Every 16-bit sample survives."""
    data = np.arange(-32768, 32768).astype("<i2").tobytes()
    assert encode_pcm(PcmDecoder().decode(data)) == data


def test_pcm_clips_instead_of_wrapping() -> None:
    """A sample that is too loud becomes the loudest, not the opposite."""
    assert encode_pcm(np.array([2.0, -2.0], np.float32)) == b"\xff\x7f\x00\x80"


def test_a_sample_cut_in_two_is_put_together() -> None:
    """A dangling byte waits for the next chunk."""
    data = np.array([1000, -2000, 3000], "<i2").tobytes()
    decoder = PcmDecoder()
    pieces = [decoder.decode(data[:3]), decoder.decode(data[3:4]), decoder.decode(data[4:])]
    assert [len(piece) for piece in pieces] == [1, 1, 1]
    assert encode_pcm(np.concatenate(pieces)) == data


# ITU-T G.711: full scale, smallest steps and silence of both laws, as 16-bit values.
@pytest.mark.parametrize(
    ("law", "code", "value"),
    [
        ("mu", 0x80, 32124),
        ("mu", 0x00, -32124),
        ("mu", 0xFF, 0),
        ("mu", 0xFE, 8),
        ("a", 0xAA, 32256),
        ("a", 0x2A, -32256),
        ("a", 0xD5, 8),
        ("a", 0x55, -8),
    ],
)
def test_g711_known_values(law: Law, code: int, value: int) -> None:
    """The tables say what the recommendation says."""
    assert decode_g711(bytes([code]), law)[0] * 32768 == value


@pytest.mark.parametrize("law", ["mu", "a"])
def test_g711_encodes_to_the_nearest_value(law: Law) -> None:
    """Every code decodes to a value that encodes to a code of the same value."""
    codes = bytes(range(256))
    values = decode_g711(codes, law)
    np.testing.assert_array_equal(decode_g711(encode_g711(values, law), law), values)
    loud = np.array([5.0, -5.0], np.float32)
    assert np.abs(decode_g711(encode_g711(loud, law), law)).min() > 0.97


@pytest.mark.parametrize(
    ("encoding", "rate_hz"), [("audio/pcm", 24_000), ("audio/pcmu", 8_000), ("audio/pcma", 8_000)]
)
def test_there_and_back(encoding: str, rate_hz: int) -> None:
    """Speech-band audio comes back as it went, within the encoding's step."""
    time_s = np.arange(16_000) / 16_000
    pcm = (0.3 * np.sin(2 * np.pi * 700 * time_s)).astype(np.float32)
    encoder = AudioEncoder(encoding, rate_hz, 16_000)  # type: ignore[arg-type]  # parametrised
    decoder = AudioDecoder(encoding, rate_hz, 16_000)  # type: ignore[arg-type]  # the same
    data = b"".join(encoder.encode(chunk) for chunk in np.split(pcm, 10)) + encoder.finish()
    back = np.concatenate((decoder.decode(data), decoder.finish()))
    assert len(back) == len(pcm)
    np.testing.assert_allclose(back[200:-200], pcm[200:-200], atol=0.02)


@pytest.mark.parametrize(
    ("encoding", "rate_hz"), [("audio/pcm", 24_000), ("audio/pcmu", 8_000), ("audio/pcma", 8_000)]
)
def test_what_is_sent_has_no_seams(encoding: WireEncoding, rate_hz: int) -> None:
    """Frames encoded one by one are the bytes of the whole, and each is whole samples."""
    pcm = np.random.default_rng(3).uniform(-0.5, 0.5, 12_800).astype(np.float32)
    whole = AudioEncoder(encoding, rate_hz, 16_000)
    streamed = AudioEncoder(encoding, rate_hz, 16_000)
    pieces = [streamed.encode(frame) for frame in np.split(pcm, 10)] + [streamed.finish()]
    assert all(len(piece) % (2 if encoding == "audio/pcm" else 1) == 0 for piece in pieces)
    assert len(pieces[0]) > 0
    sent, at_once = b"".join(pieces), whole.encode(pcm) + whole.finish()
    decoders = [AudioDecoder(encoding, rate_hz, rate_hz) for _ in range(2)]
    # Where a sample lies between two codes, the last bit of a float decides; a seam is louder.
    np.testing.assert_allclose(decoders[0].decode(sent), decoders[1].decode(at_once), atol=0.04)
