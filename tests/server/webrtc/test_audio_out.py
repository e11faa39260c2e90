"""Audio on its way out: its pace, its silences, and the end that an interruption makes."""

import itertools

import numpy as np
import pytest

from server.webrtc.audio_out import AudioSender
from server.webrtc.opus import OpusDecoder
from tests.server.fakes import InlineEncoder

RATE_HZ = 16_000
FRAME = 320


class Playing:
    """A sender, its clock, and what it sends."""

    def __init__(self, *, dtx: bool = True) -> None:
        self.now_s = 50.0
        self.packets: list[tuple[float, int, int, bool, bytes]] = []
        self.reports: list[tuple[str, int]] = []
        self.played: list[tuple[float, int]] = []
        self.wakes = 0
        self.sender = AudioSender(
            InlineEncoder(RATE_HZ),
            RATE_HZ,
            lambda *packet: self.packets.append((self.now_s, *packet)),
            lambda item, num: self.reports.append((item, num)),
            lambda pcm, at_s: self.played.append((at_s, len(pcm))),
            self._wake,
            lambda: self.now_s,
            dtx=dtx,
            first_number=65_530,
            first_timestamp=2**32 - 1_000,
        )

    def _wake(self) -> None:
        self.wakes += 1

    def run(self, seconds: float) -> None:
        """Let time pass, with every step on time."""
        end_s = self.now_s + seconds
        while self.sender.due_s <= end_s:
            self.now_s = max(self.now_s, self.sender.due_s)
            self.sender.step(self.now_s)
        self.now_s = end_s

    def say(self, item_id: str, num_samples: int, *, is_whole: bool = True) -> None:
        """Give it a tone."""
        pcm = 0.3 * np.sin(2 * np.pi * 300 * np.arange(num_samples) / RATE_HZ)
        self.sender.play(item_id, pcm.astype(np.float32))
        if is_whole:
            self.sender.end(item_id)


def test_a_reply_goes_out_in_its_own_time() -> None:
    """A frame every 20 ms, numbered and timed, however far ahead it was made."""
    playing = Playing()
    playing.run(1.0)
    before = len(playing.packets)
    playing.say("a", 50 * FRAME)
    playing.run(1.0)
    spoken = playing.packets[before : before + 50]
    assert np.allclose(np.diff([at for at, *_ in spoken]), 0.02)
    numbers = [number for _, number, *_ in spoken]
    assert {(b - a) & 0xFFFF for a, b in itertools.pairwise(numbers)} == {1}
    times = [time for _, _, time, _, _ in spoken]
    assert {(b - a) & 0xFFFFFFFF for a, b in itertools.pairwise(times)} == {960}
    assert [is_first for *_, is_first, _ in spoken] == [True] + [False] * 49
    assert playing.reports[-1] == ("a", 50 * FRAME)


def test_a_reply_does_not_wait_in_silence() -> None:
    """While nothing is said, speech begins at once and not at the next place in time."""
    playing = Playing()
    playing.run(2.213)
    playing.say("a", 5 * FRAME)
    assert playing.wakes == 1
    assert playing.sender.due_s == pytest.approx(playing.now_s)
    begun_s = playing.now_s
    playing.run(0.001)
    at_s, _, time, is_first, _ = playing.packets[-1]
    assert (at_s, is_first) == (begun_s, True)
    # Times are those of the clock, so that the pause is as long as it was.
    expected = 2**32 - 1_000 + round((begun_s - 50.0) * 48_000)
    assert time == expected & 0xFFFFFFFF


def test_silence_costs_next_to_nothing() -> None:
    """Half a second of it follows speech; then there is a packet now and then."""
    playing = Playing()
    playing.say("a", 5 * FRAME)
    playing.run(0.1)
    before = len(playing.packets)
    playing.run(0.5)
    assert len(playing.packets) - before == pytest.approx(25, abs=1)
    before = len(playing.packets)
    playing.run(4.0)
    assert len(playing.packets) - before == pytest.approx(10, abs=1)


def test_without_dtx_silence_is_sent() -> None:
    """For those who count packets and not time."""
    playing = Playing(dtx=False)
    playing.run(2.0)
    assert len(playing.packets) == pytest.approx(100, abs=1)


def test_items_follow_each_other() -> None:
    """The second begins where the first ends, within a frame, and each is counted."""
    playing = Playing()
    playing.say("a", 3 * FRAME + 100, is_whole=False)
    playing.say("b", 2 * FRAME)
    playing.run(0.2)
    assert ("b", FRAME) not in playing.reports  # the rest of the first is not there yet
    playing.sender.end("a")
    playing.run(0.2)
    assert playing.reports[-2:] == [("b", FRAME - 100 + FRAME), ("b", 2 * FRAME)]
    assert ("a", 3 * FRAME + 100) in playing.reports


def test_what_is_stopped_is_not_heard() -> None:
    """Within one frame there is silence, and the count stays at what was sent."""
    playing = Playing()
    playing.say("a", 500 * FRAME)
    playing.run(0.2)
    sent = playing.reports[-1]
    playing.sender.stop("a")
    playing.sender.stop("a")
    before = len(playing.packets)
    playing.run(0.3)
    assert playing.reports[-1] == sent
    decoder = OpusDecoder(RATE_HZ)
    heard = [decoder.decode(payload) for *_, payload in playing.packets]
    loudness = [float(np.sqrt(np.mean(pcm**2))) for pcm in heard]
    assert loudness[before - 1] > 0.1
    assert max(loudness[before + 2 :]) < 0.01
    # The next reply is heard as ever.
    playing.say("b", 5 * FRAME)
    playing.run(0.2)
    assert playing.reports[-1] == ("b", 5 * FRAME)


def test_a_loop_that_stood_still_leaves_a_gap() -> None:
    """Nothing is sent in a burst; times say how long it was."""
    playing = Playing()
    playing.say("a", 100 * FRAME)
    playing.run(0.1)
    before = len(playing.packets)
    playing.now_s += 0.5
    playing.run(0.1)
    assert len(playing.packets) - before <= 16
    assert playing.sender.counts.slots_skipped >= 24


def test_what_is_paused_goes_on_at_the_very_sample() -> None:
    """Within a frame there is silence; what faded out is heard again, and nothing is missing."""
    playing = Playing()
    playing.say("a", 100 * FRAME)
    playing.run(0.2)
    sent = playing.reports[-1]
    playing.sender.pause()
    playing.sender.pause()
    before = len(playing.packets)
    playing.run(1.0)
    assert playing.reports[-1] == sent
    playing.sender.resume()
    playing.run(3.0)
    assert playing.reports[-1] == ("a", 100 * FRAME)
    assert [num for _, num in playing.reports] == [FRAME * (n + 1) for n in range(100)]
    decoder = OpusDecoder(RATE_HZ)
    loudness = [
        float(np.sqrt(np.mean(decoder.decode(payload) ** 2))) for *_, payload in playing.packets
    ]
    assert loudness[before - 1] > 0.1
    assert max(loudness[before + 2 : before + 20]) < 0.01
    at_s = [at for at, *_ in playing.packets]
    # At once: two frames of the codec's delay, and the one that fades in.
    resumed = next(n for n in range(before + 2, len(at_s)) if loudness[n] > 0.1)
    assert at_s[resumed] - at_s[before] <= 1.0 + 3 * 0.02 + 1e-6


def test_a_reply_that_is_stopped_in_a_pause_is_not_heard_again() -> None:
    """And the next one is, once the pause is over."""
    playing = Playing()
    playing.say("a", 100 * FRAME)
    playing.run(0.2)
    playing.sender.pause()
    playing.run(0.2)
    playing.sender.stop("a")
    playing.say("b", 5 * FRAME)
    playing.run(0.5)
    assert playing.reports[-1][0] == "a"
    playing.sender.resume()
    playing.sender.resume()
    playing.run(0.5)
    assert playing.reports[-1] == ("b", 5 * FRAME)


def test_what_is_heard_is_told_with_its_time() -> None:
    """For whoever looks for its echo: every frame of sound, at its place on the grid."""
    playing = Playing()
    playing.run(1.0)
    assert not playing.played
    playing.say("a", 3 * FRAME)
    playing.run(1.0)
    moments = [at_s for at_s, _ in playing.played]
    assert [num for _, num in playing.played] == [FRAME] * 3
    assert np.allclose(np.diff(moments), 0.02)
