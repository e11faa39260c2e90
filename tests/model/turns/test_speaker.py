"""The assistant's turn: words first, then audio that follows them, and an end in any case."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from model.messages import (
    AppendAudio,
    AppendText,
    CommitAudio,
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


def test_text_reply_makes_no_audio(stage: MakeStage) -> None:
    """Without audio a reply ends with its words."""
    s = stage(replies=["hi"]).run(Respond("s", 1, "a", audio=False))
    assert s.audio == []
    assert s.outputs == [
        ResponseStarted("s", 1, Usage(2), prefix_tokens=2),
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
    assert also == [(hi,), (hi,), (what,), (what,), (), ()]


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


@pytest.mark.parametrize("limit", [1, 2, 3, 5])
def test_max_output_tokens_counts_words_and_frames(stage: MakeStage, limit: int) -> None:
    """A reply of two words and many frames ends exactly at its limit."""
    s = stage(replies=["hi what"], spoken=["<pad> " * 50])
    s.run(Respond("s", 1, "a", max_output_tokens=limit))
    done = s.outputs[-1]
    assert (done.reason, done.usage.output_tokens) == ("max_output_tokens", limit)


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
