"""A caller: speech at the pace of speech, and what it notices of the replies."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.messages import (
    AppendAudio,
    Close,
    CommitAudio,
    Open,
    Respond,
    ResponseAudio,
    ResponseDone,
    SessionFailed,
    Usage,
)
from server.capacity.caller import Caller
from tests.server.fakes import FRAME, INFO

QUESTION = np.arange(INFO.sample_rate_hz * 45 // 1000, dtype=np.float32)  # 45 ms
DONE = ResponseDone("a", 0, "completed", Usage())


def make_caller() -> Caller:
    """Return a caller who begins at 10 s, and thinks for 2."""
    return Caller("a", INFO, [QUESTION], 10.0, pauses_s=(2.0, 2.0))


def asked() -> Caller:
    """Return one whose first question is over, at 10.045 s."""
    caller = make_caller()
    caller.act(11.0)
    return caller


@given(st.lists(st.floats(0, 0.03), max_size=40))
def test_speech_takes_its_time_whoever_looks_when(steps_s: list[float]) -> None:
    """All of it is sent, in order, each piece when it has been spoken, and then the turn ends."""
    caller, now_s, sent = make_caller(), 9.99, []
    for step_s in [*steps_s, 1.0]:
        now_s += step_s
        is_due = caller.due_s <= now_s
        commands = caller.act(now_s)
        assert is_due == bool(commands)
        sent += commands
        pieces = [command.pcm for command in sent if isinstance(command, AppendAudio)]
        num_spoken = sum(map(len, pieces))
        assert num_spoken <= max(0.0, now_s - 10.0) * INFO.sample_rate_hz + 1
    assert [type(c) for c in sent] == [Open, *[AppendAudio] * 3, CommitAudio, Respond]
    assert np.array_equal(np.concatenate(pieces), QUESTION)
    assert caller.due_s == float("inf")


def test_first_audio_counts_from_the_end_of_the_question() -> None:
    """Not from when the engine was told of it."""
    caller = asked()
    assert caller.waiting_since_s == pytest.approx(10.045)
    caller.take(ResponseAudio("a", 0, FRAME), 11.5)
    caller.take(ResponseAudio("a", 0, FRAME), 11.5)
    assert caller.waiting_since_s is None
    (wait,) = caller.waits
    assert (wait.asked_s, wait.seconds) == pytest.approx((10.045, 1.455))


def test_audio_is_late_when_there_is_nothing_left_to_hear() -> None:
    """A frame lasts 80 ms; after a gap, hearing goes on from there."""
    caller = asked()
    for at_s in (11.0, 11.07, 11.15, 11.30, 11.37):
        caller.take(ResponseAudio("a", 0, FRAME), at_s)
    assert [piece.is_late for piece in caller.spoken] == [False, False, False, True, False]


def test_the_next_question_comes_when_the_reply_was_heard_and_thought_over() -> None:
    """The reply's end may come long before it has been heard."""
    caller = asked()
    for _ in range(10):
        caller.take(ResponseAudio("a", 0, FRAME), 11.0)
    caller.take(DONE, 11.1)
    assert caller.due_s == pytest.approx(11.8 + 2.0 + 0.02)
    assert isinstance(caller.act(14.0)[-1], Respond)
    # What belongs to the last reply is not for this one.
    caller.take(DONE, 14.0)
    caller.take(ResponseAudio("a", 0, FRAME), 14.0)
    assert len(caller.waits) == 1


def test_a_lost_session_is_the_end() -> None:
    """The caller says why, and does nothing more."""
    caller = asked()
    caller.take(SessionFailed("a", "broken"), 11.0)
    assert (caller.failure, caller.act(99.0)) == ("broken", [])
    assert caller.waiting_since_s is None
    assert caller.leave() == Close("a")
