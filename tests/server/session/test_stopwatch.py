"""What a user waits for is divided into parts that add up."""

import pytest
import structlog

from model.messages import Usage
from server.protocol.moments import ReplyBegun, TurnEnded
from server.protocol.response import Response
from server.protocol.server_events import (
    OutputTextDelta,
    ResponseCreated,
    ResponseDone,
    SpeechStopped,
)
from server.protocol.settings.config import SessionConfig
from server.protocol.settings.request import session_request
from server.session.counts import Counts
from server.session.stopwatch import Stopwatch, TurnParts
from tests.fakes.clock import FakeTime

REQUEST = session_request(SessionConfig("sess_1", "echo", "alloy", 0))
RESPONSE = Response("resp_1", None, REQUEST)
WORD = OutputTextDelta("resp_1", "item_1", 0, 0, "hi")


class Timed:
    """A stopwatch, its clock and its counts."""

    def __init__(self, round_trip_s: float | None = 0.04) -> None:
        self.time, self.counts = FakeTime(10.0), Counts()
        log = structlog.get_logger("test")
        self.watch = Stopwatch(log, self.counts, lambda: self.time.now_s, lambda: round_trip_s)

    def parts(self) -> TurnParts:
        """See the first word; returns what it took."""
        begun = self.watch.see(WORD)
        assert begun is not None
        assert begun[0] == "resp_1"
        return begun[1]


def test_a_spoken_turn_has_all_parts() -> None:
    """From the last sound on: silence, reading, and the first word."""
    timed = Timed()
    timed.watch.note(TurnEnded(10.0, 0.5))
    timed.watch.see(SpeechStopped(2000, "item_0"))
    timed.watch.see(ResponseCreated(RESPONSE))
    timed.watch.note(ReplyBegun("resp_1", 10.1))
    timed.time.now_s = 10.25
    parts = timed.parts()
    assert parts.known == pytest.approx(
        {"network": 0.04, "end_of_turn": 0.5, "first_step": 0.1, "first_audio": 0.15}
    )
    assert timed.watch.see(WORD) is None, "only the first one counts"
    assert timed.counts.turn_part_sums == pytest.approx(parts.known)
    assert timed.watch.parts("resp_1") == parts
    timed.watch.see(ResponseDone(Response("resp_1", None, REQUEST, usage=Usage())))
    assert timed.watch.parts("resp_1") is None
    assert not timed.watch._begun_s


def test_what_happened_before_the_turn_was_over_nobody_waited_for() -> None:
    """An early reply was begun in the pause."""
    timed = Timed()
    timed.watch.note(TurnEnded(10.0, 0.5))
    timed.watch.note(ReplyBegun("resp_1", 9.7))
    timed.watch.see(SpeechStopped(2000, "item_0"))
    timed.watch.see(ResponseCreated(RESPONSE))
    timed.time.now_s = 10.03
    assert timed.parts().known == pytest.approx(
        {"network": 0.04, "end_of_turn": 0.5, "first_step": 0.0, "first_audio": 0.03}
    )


def test_what_is_not_known_is_left_out() -> None:
    """A response that a client asked for, of an engine that does not say when it begins."""
    timed = Timed(round_trip_s=None)
    timed.watch.see(ResponseCreated(RESPONSE))
    timed.time.now_s = 10.2
    assert timed.parts().known == pytest.approx({"first_step": 0.2, "first_audio": 0.0})
