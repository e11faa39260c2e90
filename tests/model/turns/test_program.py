"""The turn program: what is fed, what may be put out, and what the session is told."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from model.errors import EngineError
from model.messages import (
    AppendAudio,
    AppendText,
    Cancel,
    CommitAudio,
    EndOfTurn,
    InputTranscript,
    InputTranscriptDelta,
    Recite,
    Respond,
    ResponseDone,
    ResponseStarted,
    ResponseText,
    ResponseWord,
    Usage,
)
from model.turns.steps import Mask

MakeStage = Callable[..., Any]  # a test names what its model says
FRAME = np.zeros(8, dtype=np.float32)
PREFIX = ["<bos>", "<voice0>"]


def audio(num_frames: float) -> AppendAudio:
    """Return that many frames of audio."""
    return AppendAudio("s", np.zeros(round(num_frames * len(FRAME)), dtype=np.float32))


def test_prefix_is_fed_before_anything_is_asked(stage: MakeStage) -> None:
    """A session costs its prefix once, when it is opened."""
    s = stage().run()
    assert s.fed == [("PREFIX", "<bos>"), ("PREFIX", "<voice0>")]
    assert s.masks == [Mask.NOTHING]


def test_spoken_turn_and_reply_follow_the_layout(stage: MakeStage) -> None:
    """A whole turn in steps: listening, transcript, reply in words, reply aloud, end."""
    s = stage(
        "<pad> what <pad> is <end>",
        transcripts=["what is"],
        replies=["parley hi"],
        spoken=["<pad> parley <pad> hi"],
    )
    s.run(audio(6), CommitAudio("s", "u1"), Respond("s", 1, "a1"))
    assert s.fed == [
        ("PREFIX", "<bos>"),
        ("PREFIX", "<voice0>"),
        ("LISTEN", "<pad>"),
        ("LISTEN", "<pad>"),
        ("LISTEN", "▁what"),
        ("LISTEN", "<pad>"),
        ("LISTEN", "▁is"),
        ("LISTEN", "<end>"),
        ("TEXT", "<user>"),
        ("TEXT", "▁what"),
        ("TEXT", "▁is"),
        ("TEXT", "<reply>"),
        ("TEXT", "▁par"),
        ("TEXT", "ley"),
        ("TEXT", "▁hi"),
        ("SPEAK", "<speak>"),
        ("SPEAK", "<pad>"),
        ("SPEAK", "▁par"),
        ("SPEAK", "ley"),
        ("SPEAK", "<pad>"),
        ("SPEAK", "▁hi"),
        ("TEXT", "<eos>"),
    ]
    assert s.outputs == [
        InputTranscriptDelta("s", "what"),
        InputTranscriptDelta("s", " is"),
        EndOfTurn("s", audio_ms=400),
        InputTranscript("s", "u1", "what is"),
        ResponseStarted("s", 1, Usage(5, 6), prefix_tokens=2),
        ResponseText("s", 1, "par"),
        ResponseText("s", 1, "ley"),
        ResponseText("s", 1, " hi"),
        ResponseWord("s", 1, "parley", start_ms=(1 + 2) * 80),
        ResponseWord("s", 1, "hi", start_ms=(4 + 2) * 80),
        ResponseDone("s", 1, "completed", Usage(5, 6, 0, 0, 3, 5)),
    ]


def test_typed_turn_has_the_shape_of_a_transcript(stage: MakeStage) -> None:
    """A typed item and a request for a reply go in as one call."""
    s = stage(replies=["hi"], spoken=["hi"])
    s.run()
    del s.calls[:]
    s.send(AppendText("s", "u", "user", "what is"), Respond("s", 1, "a"))
    s.step()
    assert s.calls == [4]
    assert s.words() == [*PREFIX, "<user>", "▁what", "▁is", "<reply>"]


def test_replayed_conversation_equals_its_text(stage: MakeStage) -> None:
    """Items of either side enter in order, and a reply can follow several user items."""
    s = stage(replies=["hi"], spoken=[""])
    s.run(
        AppendText("s", "1", "user", "hi"),
        AppendText("s", "2", "assistant", "hi"),
        AppendText("s", "3", "system", "what"),
        AppendText("s", "4", "user", "what"),
        AppendText("s", "5", "user", "is"),
        Respond("s", 1, "6", audio=False),
    )
    assert " ".join(s.words()[2:]) == (
        "<user> ▁hi <reply> ▁hi <eos> <user> ▁what <user> ▁is <reply> ▁hi <eos>"
    )


def test_endless_words_are_ended(stage: MakeStage) -> None:
    """Transcripts and reply texts have a longest length."""
    s = stage(
        transcripts=["hi " * 99],
        replies=["hi " * 99],
        spoken=[""],
        max_transcript_pieces=3,
        max_reply_pieces=4,
    )
    s.run(audio(1), CommitAudio("s", "u"), Respond("s", 1, "a"))
    assert s.words()[3:] == [
        "<user>",
        *["▁hi"] * 3,
        "<reply>",
        *["▁hi"] * 4,
        "<speak>",
        "<eos>",
    ]


def test_cancel_ends_a_reply_at_once(stage: MakeStage) -> None:
    """After a cancel the turn has one more output, its end; what follows is another turn's."""
    s = stage(replies=["hi", "what"], spoken=["<pad> " * 50, "what"])
    s.send(Respond("s", 1, "a"))
    for _ in range(6):
        s.step()
    before, num_audio = list(s.outputs), len(s.audio)
    s.send(Cancel("s", 1), Cancel("s", 1))
    assert [type(output) for output in s.outputs[len(before) :]] == [ResponseDone]
    assert s.outputs[-1].reason == "cancelled"
    assert len(s.audio) == num_audio
    s.spoken.pop(0)
    s.run(Respond("s", 2, "b"))
    assert {output.turn for output in s.outputs[len(before) + 1 :]} == {2}


def test_cancel_finds_a_reply_that_has_not_begun(stage: MakeStage) -> None:
    """A request that still waits is taken back; a turn nobody asked for is ignored."""
    s = stage(transcripts=["hi"])
    s.send(audio(3), CommitAudio("s", "u"), Respond("s", 7, "a"), Cancel("s", 7), Cancel("s", 8))
    s.run()
    assert s.outputs == [
        ResponseDone("s", 7, "cancelled", Usage()),
        InputTranscript("s", "u", "hi"),
    ]


def test_given_words_are_said_as_if_they_were_its_own(stage: MakeStage) -> None:
    """In one burst, spoken or written, and remembered; what waits behind them comes after."""
    own, given = (
        stage(replies=["i am parley"], spoken=["i am parley"]),
        stage(spoken=["i am parley"]),
    )
    own.run(Respond("s", 1, "a"))
    given.send(Respond("s", 1, "a", recites=True), Recite("s", 1, "i am"), Respond("s", 2, "b"))
    given.run()
    assert not given.outputs, "it begins when all its words are there"
    given.send(Cancel("s", 2))
    given.run(Recite("s", 1, " parley", is_last=True))
    assert given.outputs[1:] == own.outputs[: len(given.outputs) - 1]
    assert given.outputs[-1] == own.outputs[-1]
    assert given.fed == own.fed
    written = stage()
    written.run(
        Respond("s", 1, "a", audio=False, recites=True), Recite("s", 1, "hi parley", is_last=True)
    )
    assert [o.text for o in written.outputs if isinstance(o, ResponseText)] == ["hi", " par", "ley"]
    assert isinstance(written.outputs[-1], ResponseDone)


def test_a_recital_that_is_cancelled_says_nothing(stage: MakeStage) -> None:
    """Its words may still be on their way, and are nobody's."""
    s = stage(replies=["hi"], spoken=["hi"])
    s.send(Respond("s", 1, "a", recites=True), Recite("s", 1, "i am"), Cancel("s", 1))
    s.run(Recite("s", 1, " parley", is_last=True), Respond("s", 2, "b"))
    assert [o.text for o in s.outputs if isinstance(o, ResponseText)] == ["hi"]


def test_other_voice_starts_the_conversation_over_with_it(stage: MakeStage) -> None:
    """The voice is part of the pinned prefix: changing it feeds everything again."""
    s = stage(replies=["hi"], spoken=["hi"])
    s.run(AppendText("s", "u", "user", "hi"))
    s.run(Respond("s", 1, "a", voice="bob"))
    assert s.words()[:5] == ["<bos>", "<voice1>", "<user>", "▁hi", "<reply>"]


@pytest.mark.parametrize(
    "command",
    [
        Respond("s", 1, "a", voice="nobody"),
        AppendAudio("s", np.zeros(4)),  # type: ignore[arg-type]  # float64 is what is wrong
        AppendAudio("s", np.zeros((1, 4), dtype=np.float32)),
        AppendAudio("s", np.array([np.nan], dtype=np.float32)),
        AppendAudio("s", np.zeros(1000, dtype=np.float32)),
    ],
)
def test_command_that_cannot_be_carried_out_is_refused(stage: MakeStage, command: object) -> None:
    """Bad audio, too much of it, or an unknown voice is an error that names what is wrong."""
    s = stage(max_waiting_samples=999)
    with pytest.raises(EngineError):
        s.send(command)


def test_long_prefill_is_cut_into_calls(stage: MakeStage) -> None:
    """No call is longer than the limit, so that other sessions get their turn."""
    s = stage(replies=["hi"], spoken=["hi"], max_prefill_steps=7)
    s.run(AppendText("s", "u", "user", "hi " * 30), Respond("s", 1, "a"))
    assert max(s.calls) == 7
    assert s.words()[2:33] == ["<user>", *["▁hi"] * 30]


def test_text_deltas_add_up_to_the_text(stage: MakeStage) -> None:
    """Deltas carry their spaces; joined they are the words."""
    s = stage("what is your name", replies=["i am parley"], spoken=[""])
    s.run(audio(4), Respond("s", 1, "a"))
    heard = [o.text for o in s.outputs if isinstance(o, InputTranscriptDelta)]
    said = [o.text for o in s.outputs if isinstance(o, ResponseText)]
    assert "".join(heard) == "what is your name"
    assert "".join(said) == "i am parley"
    assert all(text.startswith(" ") for _, text in pairwise(heard))
