"""Where talk begins and ends: words, loudness, and patience with pauses."""

from __future__ import annotations

import numpy as np
import pytest

from model.duplex.talk import Frame, Talk, TalkRules
from model.errors import ConfigError

RULES = TalkRules(loud=0.1, quiet=0.05, loud_frames=3, quiet_frames=2)


def follow(frames: str) -> str:
    """Return what becomes of frames: `w` a word, `L` loud, `m` in between, `.` quiet.

    A number for each frame of how many belong to talk now, with a stroke where it is over.
    """
    talk, written = Talk(RULES), ""
    levels = {"w": 0.0, "L": 0.2, "m": 0.07, ".": 0.01}
    for call, kind in enumerate(frames):
        pcm = np.full(4, levels[kind], dtype=np.float32)
        taken, is_over = talk.feed(Frame(call, 5, kind == "w", pcm))
        assert [frame.call for frame in taken] == list(range(call + 1 - len(taken), call + 1))
        written += f"{len(taken)}{'|' if is_over else ''}"
    return written


@pytest.mark.parametrize(
    ("frames", "becomes"),
    [
        ("..w..", "00111|"),  # a word begins it, quiet ends it
        ("LL.LL", "00000"),  # a click is nothing
        (".LLL..", "000311|"),  # sound without words is talk, from its first loud frame on
        ("mmmm", "0000"),  # below the level that begins it
        ("wmmm.m..", "11111111|"),  # above the level that ends it
        ("Lw", "02"),  # the sound before a word belongs to it
        ("w.w..", "11111|"),  # a short pause is within what is said
        ("w..LL", "111|00"),  # and then it begins anew
    ],
)  # fmt: skip
def test_talk(frames: str, becomes: str) -> None:
    """Two levels, so that neither a breath begins nor a soft word ends anything."""
    assert follow(frames) == becomes


def test_talk_that_is_stopped() -> None:
    """Begins anew only with the next word, or as many loud frames as ever."""
    talk = Talk(RULES)
    loud = np.full(4, 0.2, dtype=np.float32)
    talk.feed(Frame(0, 5, is_word=True, pcm=loud))
    talk.stop()
    assert not talk.is_on
    counts = [len(talk.feed(Frame(1 + i, 3, is_word=False, pcm=loud))[0]) for i in range(3)]
    assert counts == [0, 0, 3]


@pytest.mark.parametrize(
    "rules", [{"quiet": 0.2}, {"quiet": 0.0}, {"loud_frames": 0}, {"quiet_frames": 0}]
)
def test_rules_that_cannot_work(rules: dict[str, float]) -> None:
    """Are refused by name."""
    with pytest.raises(ConfigError, match=next(iter(rules))):
        TalkRules(**rules)  # type: ignore[arg-type]  # a field each
