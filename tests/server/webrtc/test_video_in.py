"""Video on its way in: pictures are taken seldom, key frames are asked for, nothing piles up."""

import random
from itertools import pairwise

import pytest

from server.images.picture import VideoCodec
from server.images.reading import read_frame
from server.webrtc.video_in import ASK_AGAIN_S, MAX_COLLECTING_S, VideoReceiver
from tests.server.webrtc.films import CODECS, COLOURS, Packets, film

_FRAME_S = 1 / 15


class Viewer:
    """A receiver, a clock, and a sender that answers requests for key frames, if it does."""

    def __init__(self, codec: VideoCodec = "vp8", first_number: int = 65_530) -> None:
        self.codec: VideoCodec = codec
        self.now_s = 50.0
        self.number = first_number
        self.timestamp = (1 << 32) - 9_000
        self.ssrc = 5
        self.taken: list[tuple[float, bytes]] = []
        self.asked_s: list[float] = []
        self.receiver = VideoReceiver(
            codec,
            1.0,
            lambda data: self.taken.append((self.now_s, data)),
            lambda: self.asked_s.append(self.now_s),
        )

    def send(self, packets: Packets, lost: tuple[int, ...] = (), seed: int | None = None) -> None:
        """Send a frame, 67 ms after the one before.

        Args:
            packets: of the frame.
            lost: those that do not arrive.
            seed: of the order in which they arrive; None for their own.
        """
        self.now_s += _FRAME_S
        self.timestamp = (self.timestamp + 6_000) & 0xFFFFFFFF
        numbered = []
        for index, packet in enumerate(packets):
            numbered.append((self.number, packet, index == len(packets) - 1))
            self.number = (self.number + 1) & 0xFFFF
        kept = [each for index, each in enumerate(numbered) if index not in lost]
        if seed is not None:
            random.Random(seed).shuffle(kept)
        for number, packet, is_last in kept:
            self.receiver.packet(
                self.ssrc, number, self.timestamp, packet, self.now_s, is_last=is_last
            )

    def colours(self) -> list[tuple[int, ...]]:
        """Return the colours of the pictures."""
        found: list[tuple[int, ...]] = []
        for _, data in self.taken:
            pixels = read_frame(data, codec=self.codec, side=64, max_pixels=1 << 20)
            mean = pixels.reshape(-1, 3).mean(0)
            found.append(min(COLOURS, key=lambda colour: float(abs(mean - colour).sum())))
        return found


@pytest.mark.parametrize("codec", CODECS)
def test_pictures_are_taken_seldom(codec: VideoCodec) -> None:
    """One a second, from key frames that come when they are asked for."""
    frames = film(codec, 60, keys=(0, 19, 38))
    viewer = Viewer(codec)
    for packets in frames:
        viewer.send(packets)
    assert viewer.colours() == [COLOURS[0], COLOURS[1], COLOURS[2]]
    times = [time_s for time_s, _ in viewer.taken]
    assert all(1.0 <= after - before < 1.4 for before, after in pairwise(times))
    # Each is asked for once, a second after the one before; the last has not come.
    assert len(viewer.asked_s) == 3
    waits_s = [asked - taken for asked, taken in zip(viewer.asked_s, times, strict=True)]
    assert all(1.0 <= wait_s < 1.0 + 2 * _FRAME_S for wait_s in waits_s)
    assert viewer.receiver.counts.frames == 3


def test_a_stream_in_its_middle() -> None:
    """A key frame is asked for with the first packet, and again if it does not come."""
    frames = film("vp8", 40, keys=(0, 30))
    viewer = Viewer()
    for packets in frames[1:30]:
        viewer.send(packets)
    assert viewer.taken == []
    gaps = [after - before for before, after in pairwise(viewer.asked_s)]
    assert viewer.asked_s[0] == pytest.approx(50.0 + _FRAME_S)
    assert gaps
    assert all(ASK_AGAIN_S <= gap < ASK_AGAIN_S + 2 * _FRAME_S for gap in gaps)
    viewer.send(frames[30])
    assert viewer.colours() == [COLOURS[0]]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("seed", range(4))
def test_packets_in_any_order(codec: VideoCodec, seed: int) -> None:
    """They are put into their own."""
    viewer = Viewer(codec)
    viewer.send(film(codec, 1, size=(320, 240))[0], seed=seed)
    assert viewer.colours() == [COLOURS[0]]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("lost", [0, 1, -1])
def test_what_is_lost(codec: VideoCodec, lost: int) -> None:
    """A key frame that is not whole is no picture, and another is asked for."""
    frames = film(codec, 12, keys=(0, 11), size=(320, 240))
    viewer = Viewer(codec)
    viewer.send(frames[0], lost=(lost % len(frames[0]),))
    sent_s = viewer.now_s
    assert viewer.taken == []
    for packets in frames[1:11]:
        viewer.send(packets)
    assert viewer.taken == []
    assert viewer.asked_s
    assert viewer.asked_s[0] <= sent_s + MAX_COLLECTING_S + 2 * _FRAME_S
    viewer.send(frames[11])
    assert viewer.colours() == [COLOURS[11 % 3]]


def test_after_a_pause() -> None:
    """A camera that was off is looked at as soon as it is on again."""
    frames = film("vp8", 6, keys=(0, 5))
    viewer = Viewer()
    viewer.send(frames[0])
    viewer.now_s += 300
    viewer.send(frames[1])
    assert viewer.asked_s == [viewer.now_s]
    viewer.send(frames[5])
    assert len(viewer.taken) == 2


def test_another_stream() -> None:
    """Another sender in the same place begins anew."""
    viewer = Viewer()
    viewer.send(film("vp8", 1)[0])
    viewer.now_s += 1
    viewer.ssrc, viewer.number = 6, 9
    viewer.send(film("vp8", 1)[0])
    assert len(viewer.taken) == 2
    assert (viewer.receiver.ssrc, viewer.receiver.first_number) == (6, 9)


def test_a_frame_that_no_decoder_takes() -> None:
    """The next one is asked for at once, and not after a second."""
    frames = film("vp8", 3, keys=(0, 2))
    viewer = Viewer()
    viewer.send(frames[0])
    viewer.receiver.again()
    viewer.send(frames[1])
    assert viewer.asked_s == [viewer.now_s]
    viewer.send(frames[2])
    assert len(viewer.taken) == 2
    assert viewer.receiver.counts.broken == 1


def test_what_never_ends() -> None:
    """A frame without an end is given up; what is kept of others is bounded, too."""
    viewer = Viewer()
    start = film("vp8", 1)[0][0]
    for index in range(5_000):
        within = start if index == 0 else b"\x00" + bytes(1_000)
        viewer.receiver.packet(5, index, 1, within, 50.0 + index / 1000, is_last=False)
    kept = viewer.receiver._frames
    assert sum(frame.num_bytes for frame in kept.values() if not frame.is_dropped) == 0
    assert all(not frame.payloads for frame in kept.values())
    for index in range(100):
        viewer.receiver.packet(5, 5_000 + index, 2 + index, start, 60.0, is_last=False)
    assert len(viewer.receiver._frames) <= 3
    assert viewer.taken == []


def test_packets_that_are_none() -> None:
    """They are counted and dropped."""
    viewer = Viewer("h264")
    for index in range(10):
        viewer.receiver.packet(5, index, index, b"\xff", 50.0, is_last=True)
    viewer.receiver.packet(5, 10, 10, b"", 50.0, is_last=True)
    assert viewer.receiver.counts.broken == 10
    assert viewer.taken == []
