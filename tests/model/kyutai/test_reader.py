"""A text is given to a model word by word, when the model asks and when its time is up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from model.kyutai.reader import NEXT_WORD, PAD, Reader, Word


@pytest.mark.golden
@pytest.mark.parametrize("index", [0, 1], ids=["one_stream", "two_streams"])
def test_token_for_token(golden: Path, index: int) -> None:
    """As in Kyutai's own package, whatever the model says."""
    case = json.loads((golden / "tts_state_machine.json").read_text())[index]
    reader = Reader(
        [Word(tuple(pieces), pause) for pieces, pause in case["entries"]],
        rows=case["card"],
        ahead=case["second_stream_ahead"],
        most_steps=case["max_padding"],
        first_steps=case["initial_padding"],
    )
    for chosen, expected, begins in case["trace_pred_out_newword"]:
        num_begun = len(reader.begun)
        assert reader.give(chosen) == expected
        assert len(reader.begun) - num_begun == begins
    assert reader.begun == case["consumption_times"]
    assert reader.ended == case["end_step"]


def test_a_word_comes_when_its_time_is_up() -> None:
    """A model that never asks still gets the text; one that always asks gets no word cut short."""
    words = [Word((7, 8)), Word((9,))]
    slow, eager = (Reader(words, rows=31, most_steps=3, first_steps=1) for _ in range(2))
    assert [slow.give(PAD) for _ in range(7)] == [PAD, NEXT_WORD, 7, 8, PAD, NEXT_WORD, 9]
    assert [eager.give(NEXT_WORD) for _ in range(6)] == [PAD, NEXT_WORD, 7, 8, NEXT_WORD, 9]
    assert eager.ended is None
    eager.give(NEXT_WORD)
    assert eager.ended == 6
