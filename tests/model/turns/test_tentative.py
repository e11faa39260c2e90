"""A user's turn that was over, perhaps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from model.errors import EngineError
from model.messages import (
    AppendAudio,
    AppendText,
    Cancel,
    ClearAudio,
    CommitAudio,
    InputTranscript,
    InputTranscriptDelta,
    Reopen,
    Respond,
    ResponseDone,
)

MakeStage = Callable[..., Any]  # a test names what its model says
COMMIT = CommitAudio("s", "u", is_tentative=True)
REOPEN = Reopen("s", "u")
RESPOND = Respond("s", 1, "a")


def audio(num_frames: float) -> AppendAudio:
    """Return that many frames of audio."""
    return AppendAudio("s", np.zeros(round(num_frames * 8), dtype=np.float32))


@pytest.mark.parametrize("num_steps", range(14))
def test_reopened_turn_goes_on_where_it_was(stage: MakeStage, num_steps: int) -> None:
    """At whatever point the user goes on, everything since the commit is gone."""
    s = stage(
        "what is your",
        transcripts=["what is", "what is your"],
        replies=["hi parley", "hi"],
        spoken=["hi parley", ""],
    )
    s.run(audio(2.5))
    s.send(COMMIT, RESPOND)
    for _ in range(num_steps):
        s.step()
    s.outputs.clear()
    s.transcripts, s.replies, s.spoken = s.transcripts[-1:], s.replies[-1:], s.spoken[-1:]
    s.run(REOPEN)
    assert s.outputs == []
    assert s.words()[2:] == ["<pad>", "▁what"]
    # The half frame is still there.
    s.run(audio(0.5), CommitAudio("s", "u"), Respond("s", 2, "b", audio=False))
    assert s.words()[2:] == [
        *["<pad>", "▁what", "▁is"],
        *["<user>", "▁what", "▁is", "▁your"],
        *["<reply>", "▁hi", "<eos>"],
    ]
    told = [o for o in s.outputs if not isinstance(o, InputTranscriptDelta)]
    assert told[0] == InputTranscript("s", "u", "what is your")
    assert told[-1].turn == 2


def test_commit_that_still_waits_is_taken_out_of_the_queue(stage: MakeStage) -> None:
    """Reopened before its audio was heard, a turn was never over; nor was a response asked for."""
    s = stage("what is", transcripts=["what is"])
    s.send(audio(2), COMMIT, RESPOND, REOPEN, audio(1))
    s.run(CommitAudio("s", "u"))
    assert [o for o in s.outputs if not isinstance(o, InputTranscriptDelta)] == [
        InputTranscript("s", "u", "what is")
    ]


@pytest.mark.parametrize("num_frames", [0, 0.5])
def test_turn_without_a_frame_can_be_reopened(stage: MakeStage, num_frames: float) -> None:
    """Too little for a transcript is not lost either."""
    s = stage("what", transcripts=["what"], replies=["hi", "hi"])
    s.run(audio(num_frames), COMMIT, Respond("s", 1, "a", audio=False), REOPEN)
    assert s.words()[2:] == []
    s.run(audio(1 - num_frames), CommitAudio("s", "u"))
    assert s.num_frames == 1
    assert s.outputs[-1] == InputTranscript("s", "u", "what")


def test_reply_in_another_voice_is_taken_back(stage: MakeStage) -> None:
    """The voice that the prefix names is what it was."""
    s = stage(transcripts=["what"], replies=["hi"])
    s.run(audio(1), COMMIT, Respond("s", 1, "a", voice="bob", audio=False), REOPEN)
    assert s.words() == ["<bos>", "<voice0>", "<pad>"]


@pytest.mark.parametrize(
    "command",
    [audio(1), ClearAudio("s"), AppendText("s", "t", "user", "hi"), CommitAudio("s", "v")],
)
def test_later_command_makes_it_final(stage: MakeStage, command: object) -> None:
    """What comes next in the conversation confirms it; audio that was left over is dropped."""
    s = stage(transcripts=["what"], replies=["hi"])
    s.run(audio(1.5), COMMIT, Respond("s", 1, "a", audio=False), command)
    assert s.num_frames == 1 + isinstance(command, AppendAudio)
    with pytest.raises(EngineError, match="'u'"):
        s.send(REOPEN)


def test_response_and_cancel_leave_it_open(stage: MakeStage) -> None:
    """A response that was cancelled goes with the rest when the user goes on."""
    s = stage(transcripts=["what"], replies=["hi"], spoken=["<pad> " * 9])
    s.run(audio(1), COMMIT)
    s.send(RESPOND)
    for _ in range(4):
        s.step()
    s.send(Cancel("s", 1))
    assert isinstance(s.outputs[-1], ResponseDone)
    s.run(REOPEN)
    assert s.words()[2:] == ["<pad>"]


@pytest.mark.parametrize("before", [[], [audio(1)], [audio(1), CommitAudio("s", "u")]])
def test_only_what_is_tentative_can_be_reopened(stage: MakeStage, before: list[object]) -> None:
    """Going back to where nothing was remembered is refused."""
    s = stage(transcripts=["what"])
    s.run(*before)
    with pytest.raises(EngineError):
        s.send(REOPEN)
