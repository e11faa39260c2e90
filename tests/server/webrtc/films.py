"""Make video of one colour a frame, in packets, as browsers send it."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
from aiortc.codecs.h264 import H264Encoder
from aiortc.codecs.vpx import VpxPayloadDescriptor

from server.images.picture import VideoCodec
from tests.server.images.files import BLUE, GREEN, RED

COLOURS = (RED, GREEN, BLUE)
CODECS: tuple[VideoCodec, ...] = ("vp8", "h264", "h265")
_ENCODERS = {"vp8": "libvpx", "h264": "libx264", "h265": "libx265"}
_PACKET_BYTES = 1_200

Packets = list[bytes]


def film(
    codec: VideoCodec, num_frames: int, keys: Sequence[int] = (0,), size: tuple[int, int] = (96, 64)
) -> list[Packets]:
    """Return each frame's packets; frame i has the colour `COLOURS[i % 3]`, with some noise.

    Args:
        codec: to encode with.
        num_frames: in all.
        keys: the frames that are key frames.
        size: width and height.
    """
    context: Any = av.CodecContext.create(_ENCODERS[codec], "w")
    context.width, context.height = size
    context.pix_fmt, context.time_base, context.gop_size = "yuv420p", Fraction(1, 30), 10_000
    context.bit_rate = 4_000_000
    context.options = {
        "vp8": {"deadline": "realtime", "lag-in-frames": "0"},
        "h264": {"tune": "zerolatency", "preset": "ultrafast"},
        "h265": {
            "tune": "zerolatency",
            "preset": "ultrafast",
            "x265-params": "log-level=none:repeat-headers=1:scenecut=0",
            "forced-idr": "1",
        },
    }[codec]
    noise = np.random.default_rng(0)
    frames: list[Packets] = []
    for index in range(num_frames):
        image = np.full((size[1], size[0], 3), COLOURS[index % 3], dtype=np.int16)
        image += noise.integers(-20, 21, image.shape, dtype=np.int16)
        frame = av.VideoFrame.from_ndarray(image.clip(0, 255).astype(np.uint8), format="rgb24")
        frame = frame.reformat(format="yuv420p")
        frame.pts = index
        if index in keys:
            frame.pict_type = av.video.frame.PictureType.I
        frames += [[*_packets(codec, bytes(packet))] for packet in context.encode(frame)]
    assert len(frames) == num_frames
    return frames


def _packets(codec: VideoCodec, data: bytes) -> Iterator[bytes]:
    if codec == "vp8":
        for start in range(0, len(data), _PACKET_BYTES):
            head = VpxPayloadDescriptor(int(start == 0), 0, picture_id=17)
            yield bytes(head) + data[start : start + _PACKET_BYTES]
    elif codec == "h264":
        units = H264Encoder._split_bitstream(data)
        yield from H264Encoder._packetize(units)
    else:
        yield from _h265(data)


def _h265(data: bytes) -> Iterator[bytes]:
    """Packetise as RFC 7798 has it: small units together, large ones in fragments."""
    units = [unit for unit in _annex_b(data) if unit]
    small = [unit for unit in units if len(unit) < 300]
    large = [unit for unit in units if len(unit) >= 300]
    if len(small) > 1:
        sized = b"".join(len(unit).to_bytes(2, "big") + unit for unit in small)
        yield bytes([48 << 1, 1]) + sized
    else:
        yield from small
    for unit in large:
        kind, rest = (unit[0] >> 1) & 0x3F, unit[2:]
        pieces = [rest[at : at + _PACKET_BYTES] for at in range(0, len(rest), _PACKET_BYTES)]
        if len(pieces) == 1:
            yield unit
            continue
        for index, piece in enumerate(pieces):
            flags = 0x80 * (index == 0) | 0x40 * (index == len(pieces) - 1)
            yield bytes([(unit[0] & 0x81) | 49 << 1, unit[1], flags | kind]) + piece


def _annex_b(data: bytes) -> list[bytes]:
    units = data.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1")
    return units[1:]
