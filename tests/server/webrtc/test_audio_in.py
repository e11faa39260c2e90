"""Audio on its way in: order, gaps, pauses, wraps, and networks that lose, delay and reorder."""

import heapq
import random

import numpy as np
import numpy.typing as npt
import pytest

from server.webrtc.audio_in import FILL_AFTER_S, MAX_SPREAD_S, MIN_SPREAD_S, AudioReceiver
from server.webrtc.opus import OpusDecoder, OpusEncoder

RATE_HZ = 16_000
FRAME = 320
SSRC = 7


def tone(num_frames: int) -> npt.NDArray[np.float32]:
    """Make a steady tone, of which a hole is heard."""
    return (0.3 * np.sin(2 * np.pi * 300 * np.arange(num_frames * FRAME) / RATE_HZ)).astype(
        np.float32
    )


class Listener:
    """A receiver, a clock and a sender's packets."""

    def __init__(self, num_frames: int = 50, first_number: int = 0, first_time: int = 0) -> None:
        self.heard: list[npt.NDArray[np.float32]] = []
        self.now_s = 100.0
        self.receiver = AudioReceiver(OpusDecoder(RATE_HZ), RATE_HZ, self.heard.append)
        encoder = OpusEncoder(RATE_HZ, 32_000)
        encoder.expect_loss(10)
        pcm = tone(num_frames)
        self.packets = [encoder.encode(pcm[i * FRAME : (i + 1) * FRAME]) for i in range(num_frames)]
        self.first_number, self.first_time = first_number, first_time

    def arrive(self, index: int, *, after_s: float = 0.0, pause: int = 0) -> None:
        """Let a packet arrive; what is due before it is done in time."""
        self.wait(after_s)
        number = (self.first_number + index) & 0xFFFF
        time = (self.first_time + index * 960 + pause) & 0xFFFFFFFF
        self.receiver.packet(SSRC, number, time, self.packets[index], self.now_s)

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        end_s = self.now_s + seconds
        while (deadline_s := self.receiver.deadline_s) is not None and deadline_s <= end_s:
            self.now_s = max(self.now_s, deadline_s)
            self.receiver.due(self.now_s)
        self.now_s = end_s

    @property
    def num_frames(self) -> float:
        """Return how much was handed over, in frames."""
        return sum(map(len, self.heard)) / FRAME


def test_in_order_nothing_waits() -> None:
    """A packet is heard when it comes."""
    listener = Listener()
    for index in range(5):
        listener.arrive(index, after_s=0.02)
        assert listener.num_frames == index + 1


def test_what_comes_out_of_order_is_put_in_order() -> None:
    """Only what is behind the missing packet waits for it."""
    listener, ordered = Listener(), Listener()
    for index in (0, 1, 3, 2, 4):
        listener.arrive(index, after_s=0.01)
    for index in range(5):
        ordered.arrive(index)
    assert np.array_equal(np.concatenate(listener.heard), np.concatenate(ordered.heard))
    assert listener.receiver.counts.concealed == 0


def test_a_lost_packet_is_concealed_in_time() -> None:
    """The gap is waited for as long as the network needs, and then it is filled."""
    listener = Listener()
    for index in range(10):
        listener.arrive(index, after_s=0.02)
    listener.arrive(11, after_s=0.04)
    assert listener.num_frames == 10
    # A quiet network: hardly more than the least, and 20 ms of it are over when the next is there.
    assert listener.receiver.spread_s < MIN_SPREAD_S + 0.015
    listener.wait(listener.receiver.spread_s - 0.02)
    assert listener.num_frames == 12
    assert listener.receiver.counts.concealed == 1
    concealed = np.concatenate(listener.heard)[10 * FRAME : 11 * FRAME]
    assert np.sqrt(np.mean(concealed**2)) > 0.1  # it sounds on
    listener.arrive(10)
    assert listener.receiver.counts.late == 1
    assert listener.num_frames == 12


@pytest.mark.parametrize("num_lost", [2, 5, 9])
def test_a_longer_hole_keeps_time(num_lost: int) -> None:
    """However many packets are lost, what follows is heard in its place."""
    listener = Listener()
    listener.arrive(0)
    listener.arrive(1 + num_lost)
    listener.wait(MAX_SPREAD_S - 0.02)
    assert listener.num_frames == 2 + num_lost


@pytest.mark.parametrize(("number", "time"), [(65_530, 0), (0, 2**32 - 9_600), (65_535, 2**32 - 1)])
def test_numbers_and_times_begin_anew(number: int, time: int) -> None:
    """Nothing is lost when 16 bits or 32 are full."""
    listener = Listener(first_number=number, first_time=time)
    for index in (0, 1, 2, 3, 4, 5, 7, 6, 8, 9, 10, 11):
        listener.arrive(index, after_s=0.02)
    assert listener.num_frames == 12
    assert listener.receiver.counts.concealed == 0


def test_a_pause_of_the_sender_is_silence() -> None:
    """Where numbers follow each other and times do not, the client sent nothing."""
    listener = Listener()
    listener.arrive(0)
    listener.arrive(1, after_s=0.08, pause=3 * 960)
    assert listener.num_frames == 5
    assert not np.concatenate(listener.heard)[FRAME : 4 * FRAME].any()


def test_a_client_that_stops_sending_is_silent() -> None:
    """Silence goes on in real time, and is not told twice when packets come again."""
    listener = Listener()
    listener.arrive(0)
    listener.wait(FILL_AFTER_S - 0.001)
    assert listener.num_frames == 1
    listener.wait(1.001)
    assert listener.num_frames == pytest.approx(1 + 51, abs=1)
    listener.arrive(1, pause=55 * 960)  # 1.1 s after the first
    assert listener.num_frames == 57
    # A client whose clock stood still meanwhile goes on at once.
    listener.wait(0.5)
    before = listener.num_frames
    listener.arrive(2, pause=55 * 960)
    assert listener.num_frames == before + 1


def test_another_stream_begins_anew() -> None:
    """A new SSRC, or a jump of numbers, is a new beginning and no hole."""
    listener = Listener()
    listener.arrive(0)
    listener.receiver.packet(8, 40_000, 123, listener.packets[1], listener.now_s)
    listener.receiver.packet(8, 50_000, 999_999, listener.packets[2], listener.now_s)
    assert listener.num_frames == 3
    assert listener.receiver.counts.concealed == 0


def test_what_is_not_opus_is_silence() -> None:
    """Broken packets keep their place."""
    listener = Listener()
    listener.packets[1] = b"\xff\xff\xff"
    for index in range(3):
        listener.arrive(index)
    listener.receiver.packet(SSRC, 3, 3 * 960, b"", listener.now_s)  # says nothing
    assert listener.num_frames == 3
    assert listener.receiver.counts.broken == 1


def test_no_flood_is_kept() -> None:
    """Packets behind a gap are held up to a bound; then the gap is given up."""
    listener = Listener(num_frames=200)
    listener.arrive(0)
    for index in range(2, 200):
        listener.arrive(index)
    assert listener.num_frames == 200
    assert listener.receiver.counts.concealed > 0


@pytest.mark.parametrize("seed", range(5))
def test_a_bad_network(seed: int) -> None:
    """With 5 % loss, 60 ms of jitter and reordering, speech is whole and little is guessed."""
    draw = random.Random(seed)
    listener = Listener(num_frames=500)
    arrivals = [
        (index * 0.02 + (draw.uniform(0, 0.06) if index else 0), index)
        for index in range(500)
        if draw.random() > 0.05 or index in (0, 499)
    ]
    heapq.heapify(arrivals)
    lost = 500 - len(arrivals)
    delays: list[float] = []
    start_s = listener.now_s
    while arrivals:
        at_s, index = heapq.heappop(arrivals)
        listener.arrive(index, after_s=start_s + at_s - listener.now_s)
        # How far what was heard is behind what was said.
        delays.append(listener.now_s - start_s - listener.num_frames * 0.02)
    listener.wait(MAX_SPREAD_S - 0.02)
    assert listener.num_frames == 500
    counts = listener.receiver.counts
    assert lost <= counts.concealed <= lost + 25  # a few came after they were given up
    assert 0.05 < listener.receiver.spread_s <= 0.07 + 0.001
    assert np.percentile(delays, 95) < 0.1


@pytest.mark.parametrize("late_s", [0.0, 0.02, 0.035])
def test_what_is_late_itself_waits_no_longer(late_s: float) -> None:
    """A packet is missing for good so long after it was sent, whenever the next one comes."""
    listener = Listener()
    for index in (0, 1, 2, 3, 4):
        listener.arrive(index, after_s=0.02)
    listener.arrive(6, after_s=0.04)
    listener.arrive(7, after_s=0.02)
    listener.arrive(5, after_s=0.01)  # sent 50 ms ago
    listener.arrive(8, after_s=0.01)
    listener.arrive(9, after_s=0.02)
    listener.arrive(11, after_s=0.04 + late_s)
    # 10 was sent 20 ms before 11. It is waited for 50 ms after that, and a little more.
    waited_s = 0.02 + late_s
    assert listener.receiver.deadline_s is not None
    left_s = listener.receiver.deadline_s - listener.now_s
    assert left_s == pytest.approx(0.06 - waited_s, abs=0.002)
