"""The user's turn: heard as it comes, transcribed at its end, forgotten on demand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from model.judgement import EAGERNESS
from model.messages import (
    AppendAudio,
    AppendText,
    Cancel,
    CheckTurn,
    ClearAudio,
    CommitAudio,
    EndOfTurn,
    InputTranscript,
    Respond,
    ResponseText,
    TurnChecked,
)

MakeStage = Callable[..., Any]  # a test names what its model says
FRAME = np.zeros(8, dtype=np.float32)
PREFIX = ["<bos>", "<voice0>"]


def audio(num_frames: float) -> AppendAudio:
    """Return that many frames of audio."""
    return AppendAudio("s", np.zeros(round(num_frames * len(FRAME)), dtype=np.float32))


def test_right_live_transcript_is_confirmed_in_one_call(stage: MakeStage) -> None:
    """The last frame, <user> and the draft go in together; the draft stands."""
    s = stage("what is your name", transcripts=["what is your name"])
    s.run(audio(5))
    del s.calls[:]
    s.run(CommitAudio("s", "u"))
    assert s.calls == [5]
    assert s.outputs[-1] == InputTranscript("s", "u", "what is your name")


def test_reply_begins_in_the_call_that_confirms_the_transcript(stage: MakeStage) -> None:
    """A reply asked for with the commit has its first word after one call."""
    s = stage("what is", transcripts=["what is"], replies=["hi"], spoken=[""])
    s.run(audio(3))
    del s.calls[:]
    s.send(CommitAudio("s", "u"), Respond("s", 1, "a"))
    s.step()
    assert s.calls == [4]
    assert s.made[-2:] == [InputTranscript("s", "u", "what is"), ResponseText("s", 1, "hi")]


@pytest.mark.parametrize("what", ["wrong draft", "cancelled", "other voice"])
def test_reply_begun_too_early_leaves_no_trace(stage: MakeStage, what: str) -> None:
    """<reply> is fed ahead only in case; if it was not its time, it never was."""
    final = "what is your" if what == "wrong draft" else "what is"
    s = stage("what is", transcripts=[final], replies=["hi"], spoken=[""])
    s.run(audio(3))
    voice = "bob" if what == "other voice" else None
    s.send(CommitAudio("s", "u"), Respond("s", 1, "a", voice=voice))
    if what == "cancelled":
        s.send(Cancel("s", 1))
    s.run()
    reply = [] if what == "cancelled" else ["<reply>", "▁hi", "<speak>", "<eos>"]
    start = s.words().index("<user>")
    assert s.words()[start:] == ["<user>", *(f"▁{word}" for word in final.split()), *reply]


def scored(text: str, logprob: float) -> tuple[tuple[str, float], ...]:
    """Return the tokens of a text, all of them equally likely."""
    words = [word if n == 0 else f" {word}" for n, word in enumerate(text.split())]
    return tuple((word, float(np.float32(logprob))) for word in words)


@pytest.mark.parametrize(
    ("live", "final"),
    [
        ("what is", "what is your name"),
        ("what is your name", "what is"),
        ("hi is your", "what is your"),
        ("what your name", "what is your name"),
        ("", "what is"),
        ("what is", ""),
    ],
)
def test_wrong_live_transcript_leaves_no_trace(stage: MakeStage, live: str, final: str) -> None:
    """The final transcript is what the model writes, whatever the draft was."""
    s = stage(live, transcripts=[final])
    s.run(audio(5), CommitAudio("s", "u"))
    assert s.outputs[-1] == InputTranscript("s", "u", final)
    start = s.words().index("<user>")
    assert s.words()[start + 1 :] == [f"▁{word}" for word in final.split()]
    assert s.outputs[-1].logprobs == scored(final, -0.1)


@pytest.mark.parametrize(
    ("live", "final"),
    [
        ("what your", "what is your name"),
        ("hi", "what is your"),
        ("hi is your name", "what is"),
    ],
)
def test_likelier_live_transcript_stands(stage: MakeStage, live: str, final: str) -> None:
    """What the model begins to write is given up once it is less likely than what it heard."""
    s = stage(live, transcripts=[final], replies=["hi"], spoken=[""], scores=(-3.0, -3.5))
    s.run(audio(5))
    s.send(CommitAudio("s", "u"), Respond("s", 1, "a"))
    s.run()
    (transcript,) = [each for each in s.outputs if isinstance(each, InputTranscript)]
    assert transcript == InputTranscript("s", "u", live)
    assert {logprob for _, logprob in transcript.logprobs} <= {-3.0, -3.5}
    assert [token for token, _ in transcript.logprobs] == [token for token, _ in scored(live, 0)]
    start = s.words().index("<user>")
    expected = [f"▁{word}" for word in live.split()]
    assert s.words()[start + 1 :] == [*expected, "<reply>", "▁hi", "<speak>", "<eos>"]


def test_commit_waits_for_audio_and_completes_the_last_frame(stage: MakeStage) -> None:
    """Audio that was sent before the commit is heard before it, to the last sample."""
    s = stage(transcripts=["hi"])
    s.run(audio(0.5), audio(1.2), CommitAudio("s", "u"))
    assert [kind for kind, _ in s.fed].count("LISTEN") == 2
    assert s.outputs == [InputTranscript("s", "u", "hi")]


def test_commit_of_nothing_is_an_empty_turn(stage: MakeStage) -> None:
    """Without audio nothing enters the conversation."""
    s = stage().run(CommitAudio("s", "u1"), audio(0), CommitAudio("s", "u2"))
    assert s.outputs == [InputTranscript("s", "u1", ""), InputTranscript("s", "u2", "")]
    assert s.words() == PREFIX


def test_cleared_audio_was_never_there(stage: MakeStage) -> None:
    """Clearing goes back to the turn's start, whole frames and parts of one alike."""
    s = stage("what", transcripts=["hi"])
    s.run(AppendText("s", "t", "user", "hi"), audio(2.5), ClearAudio("s"))
    s.run(audio(1), CommitAudio("s", "u"))
    assert s.words() == [*PREFIX, "<user>", "▁hi", "<pad>", "<user>", "▁hi"]
    assert s.program.take_events() == []


def test_end_of_turn_is_told_again_only_after_more_words(stage: MakeStage) -> None:
    """A repeated <end> in silence is the same end."""
    s = stage("hi <end> <end> <pad> what <end>").run(audio(6))
    ends = [output.audio_ms for output in s.outputs if isinstance(output, EndOfTurn)]
    assert ends == [160, 480]


ENDS = {"low": 0.9, "medium": 0.6, "high": 0.3}


def test_a_head_says_how_sure_it_is_of_the_end(stage: MakeStage) -> None:
    """Each eagerness has its threshold, and the newest frame counts."""
    s = stage("<end> i am", sure=[0.2, 0.4, 0.7, 0.5, 0.95], ends=ENDS)
    finished: dict[str, list[str]] = {}
    for frame in range(5):
        s.run(audio(1), *(CheckTurn("s", f"{name}{frame}", name) for name in EAGERNESS))
    for output in s.made:
        if isinstance(output, TurnChecked) and output.is_finished:
            finished.setdefault(output.key[-1], []).append(output.key[:-1])
    assert finished == {
        "1": ["high"],
        "2": ["medium", "high"],
        "3": ["high"],
        "4": ["low", "medium", "high"],
    }
    # Told once each time that it becomes so, by the threshold in the middle; <end> says nothing.
    assert [o.audio_ms for o in s.made if isinstance(o, EndOfTurn)] == [240, 400]


def test_without_thresholds_the_piece_counts(stage: MakeStage) -> None:
    """A head that nobody has calibrated is not asked."""
    s = stage("hi <end>", sure=[1.0, 0.0, 0.0])
    s.run(audio(1), CheckTurn("s", "a"), audio(2), CheckTurn("s", "b", "low"))
    assert [o.is_finished for o in s.made if isinstance(o, TurnChecked)] == [False, True]


def test_audio_during_a_reply_is_heard_after_it(stage: MakeStage) -> None:
    """The model takes turns: what the user says meanwhile waits, and nothing of it is lost."""
    s = stage(transcripts=["hi"], replies=["hi"], spoken=["<pad> hi <pad>"])
    s.send(Respond("s", 1, "a"))
    s.step()
    s.run(audio(2), CommitAudio("s", "u"))
    kinds = [kind for kind, _ in s.fed]
    assert kinds.index("LISTEN") > max(i for i, kind in enumerate(kinds) if kind == "SPEAK")
    assert s.outputs[-1] == InputTranscript("s", "u", "hi")


@pytest.mark.parametrize("later", ["reply", "text"])
def test_uncommitted_audio_comes_after_what_enters_the_conversation(
    stage: MakeStage, later: str
) -> None:
    """Audio that is not committed is not part of the conversation yet, though it was fed."""
    s = stage("what", transcripts=["what"], replies=["hi"], spoken=["hi"])
    s.run(audio(2))
    s.run(
        Respond("s", 1, "a") if later == "reply" else AppendText("s", "t", "user", "hi"),
        audio(1),
        CommitAudio("s", "u"),
    )
    kinds = [kind for kind, _ in s.fed]
    start = kinds.index("LISTEN")
    assert kinds[start - 1] == "TEXT"
    assert s.words()[start:] == ["<pad>", "▁what", "<pad>", "<user>", "▁what"]
    users = [
        user[0] for (kind, _), (user, _) in zip(s.fed, s.codes, strict=True) if kind == "LISTEN"
    ]
    assert users == [0, 1, 2]
