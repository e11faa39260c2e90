"""A folder of recordings is scored by what the model heard and answered."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from model.training.evaluation.recordings import hold_recordings
from model.training.store import Clip

TABLE = {("hello there",): "hi", ("two plus two",): "four", ("nine",): "nine it is"}


def recording(number: int, text: str, tone: Any) -> Clip:
    """Write a text as samples that the small engine reads back."""
    pcm = np.round(tone(text) * 32768).clip(-32768, 32767).astype(np.int16)
    return Clip(f"recording:{number}.wav", text, "recording", pcm, (), np.zeros(0, np.uint8))


@pytest.fixture
def clips(write_wave: Any) -> list[Clip]:
    """Give three recordings."""
    return [recording(n, said[0], write_wave) for n, said in enumerate(TABLE, 1)]


def test_all_heard_and_answered(make_engine: Any, clips: list[Clip]) -> None:
    """Only those replies count whose right one is given."""
    engine = make_engine(TABLE)
    report = hold_recordings(engine, clips, {"recording:2.wav": "Four."}, max_parallel=2)
    figures = report.to_json()
    assert not engine.is_running
    assert (figures["recordings"], figures["words"]) == (3, 6)
    assert figures["transcript_wer"] == 0.0
    assert (figures["replies"], figures["reply_exact"]) == (1, 1.0)
    assert [turn["is_exact"] for turn in report.turns()] == [None, True, None]
    assert [turn["said"] for turn in report.turns()] == [said[0] for said in TABLE]


def test_mistakes_are_counted(make_engine: Any, clips: list[Clip]) -> None:
    """A lost word is a word error, and another answer is not the right one."""
    engine = make_engine(
        TABLE, mishear=lambda t: t.replace(" there", ""), misspeak=lambda t: "so " + t
    )
    report = hold_recordings(engine, clips, {"recording:1.wav": "hi"}, max_parallel=8)
    assert report.transcript.errors == 1
    assert report.transcript_exact.hits == 2
    assert report.reply_exact.hits == 0
    assert "recording:1.wav: 1 of 2 words wrong" in report.table()
    assert "answer  so hi  (wrong: hi)" in report.table()
    assert "replies exact: 0 of 1" in report.table()


def test_without_replies_nothing_is_claimed_of_them(make_engine: Any, clips: list[Clip]) -> None:
    """No reply is right or wrong when nobody said what it should be."""
    report = hold_recordings(make_engine(TABLE), clips, {}, max_parallel=8)
    assert report.to_json()["reply_exact"] is None
    assert report.to_json()["reply_exact_low"] is None
    assert "replies exact" not in report.table()
