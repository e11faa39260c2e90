"""Video as a camera sends it, made beforehand: a key frame, and frames that follow it."""

from fractions import Fraction
from typing import Any

import av
import numpy as np

_PACKET_BYTES = 1_200
_NUM_OTHERS = 30
_BITRATE = 1_000_000


class Film:
    """Hold some frames of VP8 in packets (RFC 7741).

    Args:
        size: width and height.
        fps: frames a second.

    Attributes:
        key: the packets of a key frame.
        others: those of the frames after it.
    """

    def __init__(self, size: tuple[int, int] = (640, 480), fps: int = 15) -> None:
        self.fps = fps
        context: Any = av.CodecContext.create("libvpx", "w")
        context.width, context.height = size
        # One key frame, at the beginning: a further one comes when it is asked for, and is the
        # first again.
        context.pix_fmt, context.time_base, context.gop_size = "yuv420p", Fraction(1, fps), 10_000
        context.bit_rate = _BITRATE
        context.options = {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"}
        frames = [
            self._packets(bytes(packet))
            for index in range(1 + _NUM_OTHERS)
            for packet in context.encode(self._picture(index, *size))
        ]
        self.key, *self.others = frames

    @staticmethod
    def _picture(index: int, width: int, height: int) -> av.VideoFrame:
        """Return a scene that moves a little, and has grain."""
        x, y = np.meshgrid(np.arange(width) + 4 * index, np.arange(height))
        # A camera's picture has noise, which an encoder cannot foresee: without it frames would be
        # tiny.
        grain = np.random.default_rng(index).normal(0, 4, (height, width, 1))
        scene = np.stack([128 + 100 * np.sin(x / 31), 128 + 100 * np.cos(y / 23), x % 256], 2)
        image = (scene + grain).clip(0, 255).astype(np.uint8)
        frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p")
        frame.pts = index
        return frame

    @staticmethod
    def _packets(data: bytes) -> list[bytes]:
        pieces = [data[at : at + _PACKET_BYTES] for at in range(0, len(data), _PACKET_BYTES)]
        # RFC 7741, section 4.2: one byte of descriptor, whose S bit (0x10) marks where a frame
        # begins.
        return [(b"\x10" if index == 0 else b"\x00") + piece for index, piece in enumerate(pieces)]
