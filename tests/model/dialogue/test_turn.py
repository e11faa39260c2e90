"""The turn program: what is fed, what may be put out, and what the session is told."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from model.dialogue.phase import TRANSITIONS, Cue, Phase
from model.dialogue.steps import Mask
from model.engine.messages import (
    AppendAudio,
    AppendText,
    Cancel,
    ClearAudio,
    CommitAudio,
    EndOfTurn,
    InputTranscript,
    InputTranscriptDelta,
    Respond,
    ResponseDone,
    ResponseText,
    ResponseWord,
    Truncate,
    Usage,
)
from model.errors import EngineError

MakeStage = Callable[..., Any]  # a test names what its model says
FRAME = np.zeros(8, dtype=np.float32)
PREFIX = ["<bos>", "<voice0>"]


def audio(num_frames: float) -> AppendAudio:
    """Return that many frames of audio."""
    return AppendAudio("s", np.zeros(round(num_frames * len(FRAME)), dtype=np.float32))


def test_every_phase_can_be_reached_and_left() -> None:
    """The transition table has no dead end and no phase that nothing leads to."""
    assert {start for start, _ in TRANSITIONS} == set(Phase)
    assert set(TRANSITIONS.values()) == set(Phase)
    assert {cue for _, cue in TRANSITIONS} == set(Cue)


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
        ResponseText("s", 1, "par"),
        ResponseText("s", 1, "ley"),
        ResponseText("s", 1, " hi"),
        ResponseWord("s", 1, "parley", start_ms=(1 + 2) * 80),
        ResponseWord("s", 1, "hi", start_ms=(4 + 2) * 80),
        ResponseDone("s", 1, "completed", Usage(5, 6, 0, 0, 3, 5)),
    ]


def test_codes_are_fed_back_delayed(stage: MakeStage) -> None:
    """Every frame's codes enter the next step; codes of no frame are absent."""
    s = stage(transcripts=["hi"], replies=["hi"], spoken=["<pad> hi"])
    s.run(audio(2), CommitAudio("s", "u"), Respond("s", 1, "a"))
    absent = [-1, -1, -1]
    listen = [user for (kind, _), (user, _) in zip(s.fed, s.codes, strict=True) if kind == "LISTEN"]
    assert listen == [[0, 0, 0], [1, 1, 1]]
    rows = [i for i, (kind, _) in enumerate(s.fed) if kind == "SPEAK"]
    spoken = [s.codes[i][1] for i in rows]
    assert spoken == [absent, [100 + rows[0], -1, -1], [100 + rows[1]] * 3]
    assert s.decoded == [*spoken[1:], [-1, 100 + rows[2], 100 + rows[2]], absent]
    others = [s.codes[i] for i, (kind, _) in enumerate(s.fed) if kind in {"TEXT", "PREFIX"}]
    assert all(codes == (absent, absent) for codes in others)


@pytest.mark.parametrize("num_frames", [0, 1, 2, 3, 10])
def test_reply_audio_is_whole_frames_without_the_decoder_lag(
    stage: MakeStage, num_frames: int
) -> None:
    """What the decoder holds back is skipped at the start and flushed at the end."""
    s = stage(replies=[""], spoken=["<pad> " * num_frames])
    s.run(Respond("s", 1, "a"))
    assert sum(s.audio) == num_frames * len(FRAME)
    assert all(0 <= samples <= len(FRAME) for samples in s.audio)


def test_first_audio_needs_two_speaking_steps(stage: MakeStage) -> None:
    """Nothing is held back beyond the codec's look-ahead: latency is counted in these steps."""
    s = stage(replies=[""], spoken=["<pad> <pad> <pad>"])
    s.send(Respond("s", 1, "a"))
    while sum(s.audio) == 0:
        assert s.step()
    assert [kind for kind, _ in s.fed].count("SPEAK") == 2


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
    assert s.outputs[-2:] == [InputTranscript("s", "u", "what is"), ResponseText("s", 1, "hi")]


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


def test_text_reply_makes_no_audio(stage: MakeStage) -> None:
    """Without audio a reply ends with its words."""
    s = stage(replies=["hi"]).run(Respond("s", 1, "a", audio=False))
    assert s.audio == []
    assert s.outputs == [
        ResponseText("s", 1, "hi"),
        ResponseDone("s", 1, "completed", Usage(2, 0, 0, 0, 1, 0)),
    ]


def test_speaking_may_only_follow_the_plan(stage: MakeStage) -> None:
    """While speaking, the model may pause, end, or say the next piece that it wrote."""
    s = stage(replies=["hi what"], spoken=["<pad> hi <pad> what <pad>"])
    s.send(Respond("s", 1, "a"))
    also = []
    while (steps := s.program.plan()) is not None:
        if steps.masks == (Mask.SPEAK,):
            also.append(steps.also)
        s.step()
    hi, what = (s.program._vocabulary.encode(word)[0] for word in ("hi", "what"))
    assert also == [hi, hi, what, what, -1, -1]


@pytest.mark.parametrize(
    ("limits", "spoken", "num_frames", "reason"),
    [
        ({"max_reply_frames": 5}, "<pad> " * 99, 5, "max_output_tokens"),
        ({"max_tail_frames": 3}, "hi " + "<pad> " * 99, 5, "completed"),
        ({"max_tail_frames": 3, "frames_per_piece": 2}, "<pad> " * 99, 6, "completed"),
    ],
)
def test_endless_reply_is_ended(
    stage: MakeStage, limits: dict[str, int], spoken: str, num_frames: int, reason: str
) -> None:
    """A model that does not stop speaking is stopped, and its audio is still flushed."""
    s = stage(replies=["hi"], spoken=[spoken], **limits)
    s.run(Respond("s", 1, "a"))
    assert s.outputs[-1].reason == reason
    assert s.outputs[-1].usage.output_audio_tokens == num_frames
    assert sum(s.audio) == num_frames * len(FRAME)
    assert s.fed[-1] == ("TEXT", "<eos>")


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


@pytest.mark.parametrize("limit", [1, 2, 3, 5])
def test_max_output_tokens_counts_words_and_frames(stage: MakeStage, limit: int) -> None:
    """A reply of two words and many frames ends exactly at its limit."""
    s = stage(replies=["hi what"], spoken=["<pad> " * 50])
    s.run(Respond("s", 1, "a", max_output_tokens=limit))
    done = s.outputs[-1]
    assert (done.reason, done.usage.output_tokens) == ("max_output_tokens", limit)


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
        AppendAudio("s", np.zeros(4)),
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


class TestTruncation:
    """A reply that was heard in part."""

    # Two words: "parley" from 240 ms on, "hi" from 480 ms on, nine frames in all.
    SPOKEN = "<pad> parley <pad> hi <pad> <pad> <pad> <pad>"

    def replied(self, stage: MakeStage) -> Any:
        """Return a stage on which one turn was spoken."""
        s = stage(
            transcripts=["what", "is"], replies=["parley hi", "what"], spoken=[self.SPOKEN, ""]
        )
        return s.run(audio(1), CommitAudio("s", "u1"), Respond("s", 1, "a1"))

    @pytest.mark.parametrize(
        ("heard_ms", "plan", "spoken"),
        [
            (0, None, None),
            (79, None, None),
            (240, None, None),
            (241, "▁par ley", "<speak> <pad> ▁par ley"),
            (320, "▁par ley", "<speak> <pad> ▁par ley <pad>"),
            (480, "▁par ley", "<speak> <pad> ▁par ley <pad> <pad> <pad>"),
            (481, "▁par ley ▁hi", "<speak> <pad> ▁par ley <pad> ▁hi <pad>"),
            (700, "▁par ley ▁hi", "<speak> <pad> ▁par ley <pad> ▁hi" + " <pad>" * 3),
            (9999, "▁par ley ▁hi", "<speak> <pad> ▁par ley <pad> ▁hi" + " <pad>" * 4),
        ],
    )
    def test_only_what_was_heard_was_said(
        self, stage: MakeStage, heard_ms: int, plan: str | None, spoken: str | None
    ) -> None:
        """Words and frames stay as far as they were heard, the words written ahead included."""
        s = self.replied(stage)
        before = s.words()[: s.words().index("<reply>")]
        s.run(Truncate("s", "a1", heard_ms))
        kept = [] if plan is None else f"<reply> {plan} {spoken} <eos>".split()
        assert s.words() == before + kept

    def test_later_turn_moves_along(self, stage: MakeStage) -> None:
        """A truncation that comes late changes the past below a turn in progress."""
        s = self.replied(stage)
        s.run(audio(2), Truncate("s", "a1", 250), audio(1), CommitAudio("s", "u2"))
        assert s.words()[-10:] == [
            *["<speak>", "<pad>", "▁par", "ley", "<eos>"],
            *["<pad>"] * 3,
            *["<user>", "▁is"],
        ]

    def test_truncating_again_keeps_less(self, stage: MakeStage) -> None:
        """An item can be truncated more than once, and gone is gone."""
        s = self.replied(stage)
        s.run(Truncate("s", "a1", 700), Truncate("s", "a1", 250))
        assert s.words()[-5:] == ["<speak>", "<pad>", "▁par", "ley", "<eos>"]
        s.run(Truncate("s", "a1", 700))
        assert s.words()[-5:] == ["<speak>", "<pad>", "▁par", "ley", "<eos>"]

    def test_truncated_while_it_was_made(self, stage: MakeStage) -> None:
        """The usual interruption: cancel, then say how much was heard."""
        s = stage(replies=["parley hi"], spoken=[self.SPOKEN])
        s.send(Respond("s", 1, "a1"))
        while not any(isinstance(output, ResponseWord) for output in s.outputs):
            s.step()
        s.run(Cancel("s", 1), Truncate("s", "a1", 250))
        assert s.words() == [
            *PREFIX,
            "<reply>",
            *["▁par", "ley", "<speak>", "<pad>", "▁par", "ley", "<eos>"],
        ]

    def test_unknown_or_unspoken_item_is_left_alone(self, stage: MakeStage) -> None:
        """There is nothing to take back of what was never to be heard."""
        s = stage(replies=["hi"]).run(
            Respond("s", 1, "a", audio=False), AppendText("s", "b", "assistant", "what")
        )
        before = s.words()
        s.run(Truncate("s", "a", 0), Truncate("s", "b", 0), Truncate("s", "c", 0))
        assert s.words() == before


@pytest.mark.parametrize(
    ("spoken", "words"),
    [
        ("<pad> <pad>", [("hi", 80), ("parley", 80), ("what", 80)]),
        ("<pad> hi <pad>", [("hi", 240), ("parley", 240), ("what", 240)]),
        ("hi <pad> <par", [("hi", 160), ("parley", 320), ("what", 320)]),
        ("", [("hi", 0), ("parley", 0), ("what", 0)]),
    ],
)
def test_every_word_of_a_reply_has_its_place(
    stage: MakeStage, spoken: str, words: list[tuple[str, int]]
) -> None:
    """Words that the model ends without putting out again are placed at the end of the audio."""
    s = stage(replies=["hi parley what"], spoken=[spoken.replace("<par", "")])
    if spoken.endswith("<par"):
        s.spoken[0].append(s.program._vocabulary.encode("parley")[0])
    s.run(Respond("s", 1, "a"))
    placed = [(o.text, o.start_ms) for o in s.outputs if isinstance(o, ResponseWord)]
    assert placed == words
    assert s.outputs[-1].reason == "completed"


def test_usage_counts_what_earlier_responses_paid_for(stage: MakeStage) -> None:
    """Input is the whole conversation; cached is what the response before has seen or said."""
    s = stage(transcripts=["hi"], replies=["hi", "hi"], spoken=["hi", "hi"])
    s.run(audio(2), CommitAudio("s", "u"), Respond("s", 1, "a"))
    s.run(AppendText("s", "t", "user", "what is"), Respond("s", 2, "b"))
    first, second = (o.usage for o in s.outputs if isinstance(o, ResponseDone))
    assert (first.input_text_tokens, first.input_audio_tokens) == (4, 2)
    assert first.input_cached_tokens == 0
    # Prefix 2, <user> hi, <reply> hi, <eos>; 2 frames heard and 2 steps spoken: all paid for.
    assert (second.input_cached_text_tokens, second.input_cached_audio_tokens) == (7, 4)
    assert (second.input_text_tokens, second.input_audio_tokens) == (10, 4)
    assert second.total_tokens == second.input_tokens + second.output_tokens


def test_text_deltas_add_up_to_the_text(stage: MakeStage) -> None:
    """Deltas carry their spaces; joined they are the words."""
    s = stage("what is your name", replies=["i am parley"], spoken=[""])
    s.run(audio(4), Respond("s", 1, "a"))
    heard = [o.text for o in s.outputs if isinstance(o, InputTranscriptDelta)]
    said = [o.text for o in s.outputs if isinstance(o, ResponseText)]
    assert "".join(heard) == "what is your name"
    assert "".join(said) == "i am parley"
    assert all(text.startswith(" ") for _, text in pairwise(heard))
