"""Replies on their way out: pieces, marks, and what is heard by them."""

import base64
import json
from typing import Any

import numpy as np
import pytest

from model.messages import Pcm
from server.audio.g711 import decode_g711
from server.audio.resample import StreamResampler
from server.telephony.messages import MediaFormat, Writer
from server.telephony.speaker import PIECE_MS, Speaker

RATE_HZ = 16_000
LATE = StreamResampler(RATE_HZ, 8_000).lateness_samples // 2
PIECE = RATE_HZ * PIECE_MS // 1000


class Line:
    """A speaker, and a provider that plays when it is told to."""

    def __init__(self, format_: MediaFormat | None = None, *, is_big: bool = False) -> None:
        self.sent: list[dict[str, Any]] = []
        self.reports: list[tuple[str, int]] = []
        self.sounded: list[Pcm] = []
        self.num_hushed = 0
        self.speaker = Speaker(
            Writer("twilio", "MZ1"),
            format_ or MediaFormat(),
            RATE_HZ,
            lambda text: self.sent.append(json.loads(text)),
            lambda item_id, place: self.reports.append((item_id, place)),
            self.sounded.append,
            self._hush,
            is_big=is_big,
        )

    def _hush(self) -> None:
        self.num_hushed += 1

    @property
    def marks(self) -> list[str]:
        """Return the marks that were sent."""
        return [each["mark"]["name"] for each in self.sent if each["event"] == "mark"]

    @property
    def data(self) -> list[bytes]:
        """Return the payloads that were sent."""
        media = [each["media"] for each in self.sent if each["event"] == "media"]
        return [base64.b64decode(each["payload"]) for each in media]

    def come_back(self, count: int) -> None:
        """Send back the first marks that did not come back yet."""
        for name in self.marks[-self.speaker.num_unheard :][:count]:
            self.speaker.came_back(name)


def _ramp(pieces: float) -> Pcm:
    return np.linspace(-0.5, 0.5, int(PIECE * pieces), dtype=np.float32)


def test_an_item_is_heard_piece_by_piece() -> None:
    """Each mark says how far; the last one says all of it, to the sample."""
    line = Line()
    line.speaker.play("a", _ramp(2.5))
    assert len(line.marks) == 2, "the rest waits for more"
    line.speaker.end("a")
    assert len(line.marks) == 3
    assert [len(each) for each in line.data] == [320 - LATE, 320, 320], "whole packets"
    assert line.reports == []
    line.come_back(3)
    assert line.reports == [("a", PIECE), ("a", 2 * PIECE), ("a", PIECE * 5 // 2)]
    assert not line.speaker.is_playing
    sound = decode_g711(b"".join(line.data), "mu")
    assert np.allclose(sound[10:780], _ramp(2.5)[20:1560:2], atol=0.02)
    assert sum(map(len, line.sounded)) == PIECE * 5 // 2


def test_no_more_than_a_second_is_ahead() -> None:
    """Marks that come back make room."""
    line = Line()
    line.speaker.play("a", _ramp(60))
    assert len(line.marks) == 25
    line.come_back(3)
    assert len(line.marks) == 28


def test_what_is_stopped_is_cleared_and_its_marks_say_nothing() -> None:
    """What follows it is sent anew."""
    line = Line()
    line.speaker.play("a", _ramp(5))
    line.speaker.end("a")
    line.speaker.play("b", _ramp(2))
    stale = line.marks
    line.speaker.came_back(stale[0])
    line.speaker.stop("a")
    assert [each["event"] for each in line.sent].count("clear") == 1
    assert line.num_hushed == 1
    for name in stale[1:]:
        line.speaker.came_back(name)
    assert line.reports == [("a", PIECE)]
    assert len(line.marks) == 8 + 2, "b was sent again"
    line.speaker.end("b")
    line.come_back(9)
    assert line.reports[1:] == [("b", PIECE), ("b", 2 * PIECE), ("b", 2 * PIECE)]
    line.speaker.stop("none")


def test_it_goes_on_where_it_was_paused() -> None:
    """At the last mark that came back, with the same sound."""
    line = Line()
    line.speaker.play("a", _ramp(5))
    line.come_back(2)
    line.speaker.pause()
    line.speaker.pause()
    line.speaker.play("a", _ramp(1))
    sent = len(line.sent)
    assert line.sent[-1]["event"] == "clear"
    line.speaker.resume()
    line.speaker.resume()
    again = [each["event"] for each in line.sent[sent:]]
    assert again == ["media", "mark"] * 4
    first = decode_g711(line.data[5], "mu")
    assert np.allclose(first[20:], _ramp(5)[2 * PIECE + 40 :: 2][: len(first) - 20], atol=0.02)
    line.speaker.end("a")
    line.come_back(9)
    assert line.reports[-1] == ("a", 6 * PIECE)


def test_a_pause_while_nothing_plays_clears_nothing() -> None:
    """What comes meanwhile waits."""
    line = Line()
    line.speaker.pause()
    line.speaker.play("a", _ramp(1))
    assert line.sent == []
    line.speaker.resume()
    assert len(line.marks) == 1


def test_an_item_that_ends_late_ends_with_a_mark() -> None:
    """All of its sound had been heard before it was known that nothing more comes."""
    line = Line()
    line.speaker.play("a", _ramp(1))
    line.come_back(1)
    line.speaker.end("a")
    assert len(line.data[-1]) == 160, "20 ms, the end of its sound and silence"
    line.come_back(1)
    assert line.reports == [("a", PIECE), ("a", PIECE)]
    assert not line.speaker.is_playing


def test_a_lost_mark_is_made_up_by_the_next() -> None:
    """What is before it was heard as well, whatever item it was of."""
    line = Line()
    line.speaker.play("a", _ramp(1))
    line.speaker.end("a")
    line.speaker.play("b", _ramp(1))
    line.speaker.came_back(line.marks[2])
    assert line.reports == [("a", PIECE), ("b", PIECE)]
    line.speaker.came_back("never sent")
    assert len(line.reports) == 2


@pytest.mark.parametrize(
    ("encoding", "rate_hz"), [("PCMA", 8_000), ("L16", 16_000), ("L16", 8_000)]
)
def test_other_formats(encoding: Any, rate_hz: int) -> None:
    """Sound of the length that it has; L16 in the order that is set."""
    size = 2 if encoding == "L16" else 1
    both = []
    for is_big in (False, True):
        line = Line(MediaFormat(encoding, rate_hz), is_big=is_big)
        line.speaker.play("a", _ramp(3))
        line.speaker.end("a")
        both.append(b"".join(line.data))
    assert len(line.marks) == 4, "the last one closes it"
    least = 3 * PIECE_MS * rate_hz // 1000 * size
    assert least <= len(both[0]) <= least + rate_hz // 50 * size
    if encoding == "L16":
        both[1] = np.frombuffer(both[1], dtype=">i2").astype("<i2").tobytes()
    assert both[0] == both[1]
