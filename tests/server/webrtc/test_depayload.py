"""Packets of each codec are told apart and put together; what is none is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.images.picture import VideoCodec
from server.images.reading import read_frame
from server.webrtc.depayload import Place, depayload, look
from tests.server.images.files import RED
from tests.server.webrtc.films import CODECS, film


@pytest.mark.parametrize("codec", CODECS)
def test_frames(codec: VideoCodec) -> None:
    """A key frame begins with its first packet, and its packets together are decoded."""
    frames = film(codec, 4, keys=(0, 3), size=(320, 240))
    assert len(frames[0]) > 2, "it is larger than a packet"
    for index, packets in enumerate(frames):
        places = [look(codec, packet) for packet in packets]
        assert places[0] is (Place.KEY if index in (0, 3) else Place.OTHER)
        assert Place.OTHER not in places or index in (1, 2)
    for index in (0, 3):
        data = b"".join(depayload(codec, packet) for packet in frames[index])
        pixels = read_frame(data, codec=codec, side=320, max_pixels=1 << 20)
        assert pixels.shape == (240, 320, 3)
        assert np.abs(pixels.reshape(-1, 3).mean(0) - RED).max() < 15


@pytest.mark.parametrize("codec", CODECS)
@given(payload=st.binary(max_size=40))
def test_anything(codec: VideoCodec, payload: bytes) -> None:
    """Whatever a client sends is read or refused."""
    for read in (look, depayload):
        try:
            read(codec, payload)
        except ValueError:
            continue


@pytest.mark.parametrize(
    ("codec", "payload"),
    [
        ("vp8", b""),
        ("vp8", b"\x90"),
        ("h264", b"\x67"),
        ("h264", b"\x78\x00\x09\x67"),
        ("h264", b"\x78\x00\x00"),
        ("h265", b"\x40\x01"),
        ("h265", b"\x60\x01\x00"),
        ("h265", b"\x60\x01\x00\x09\x40"),
        ("h265", b"\x62\x01\x93"),
    ],
)
def test_what_is_cut_short(codec: VideoCodec, payload: bytes) -> None:
    """Headers and units that are not whole are refused."""
    with pytest.raises(ValueError, match=r"."):
        look(codec, payload)
