"""A reply that was heard only in part."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from model.messages import (
    AppendAudio,
    AppendText,
    Cancel,
    CommitAudio,
    Respond,
    ResponseWord,
    Truncate,
)

MakeStage = Callable[..., Any]  # a test names what its model says
FRAME = np.zeros(8, dtype=np.float32)
PREFIX = ["<bos>", "<voice0>"]


def audio(num_frames: float) -> AppendAudio:
    """Return that many frames of audio."""
    return AppendAudio("s", np.zeros(round(num_frames * len(FRAME)), dtype=np.float32))


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
        """There is nothing to shorten in what was never to be heard."""
        s = stage(replies=["hi"]).run(
            Respond("s", 1, "a", audio=False), AppendText("s", "b", "assistant", "what")
        )
        before = s.words()
        s.run(Truncate("s", "a", 90), Truncate("s", "b", 90), Truncate("s", "c", 0))
        assert s.words() == before

    def test_written_item_can_be_taken_back_as_a_whole(self, stage: MakeStage) -> None:
        """Nothing heard means never there, whatever kind of item it was."""
        s = stage(replies=["hi"]).run(
            Respond("s", 1, "a", audio=False), AppendText("s", "b", "assistant", "what")
        )
        s.run(Truncate("s", "a", 0))
        assert s.words() == [*PREFIX, "<reply>", "▁what", "<eos>"]
        s.run(Truncate("s", "b", 0))
        assert s.words() == PREFIX
