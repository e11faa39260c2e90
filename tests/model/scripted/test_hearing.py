"""What a turn is understood as, and when."""

from __future__ import annotations

import numpy as np
import pytest

from model.scripted.hearing import HeardEnd, Hearing, Understood
from model.scripted.script import Hear
from tests.model.scripted.stage import silence, sound

FRAME_MS = 80
FRAME_SAMPLES = 1920


def hearing(*entries: Hear) -> Hearing:
    """Return ears that have heard nothing."""
    return Hearing(entries, set(), frame_samples=FRAME_SAMPLES, frame_ms=FRAME_MS)


def said(ears: Hearing, duration_ms: int = 800) -> str:
    """Hear and commit a turn."""
    ears.hear(sound(duration_ms))
    heard = ears.commit(is_tentative=False)
    assert heard is not None
    return heard.text


def test_entries_are_heard_in_order_and_used_up() -> None:
    """After the last one nothing is understood; what may be repeated is never used up."""
    ears = hearing(Hear(text="one"), Hear(text=" two  three "))
    assert [said(ears) for _ in range(3)] == ["one", "two three", ""]
    ears = hearing(Hear(text="one"), Hear(text="again", repeat=True))
    assert [said(ears) for _ in range(3)] == ["one", "again", "again"]


def test_entries_can_be_for_lengths() -> None:
    """The first that fits is taken, whatever its place."""
    ears = hearing(
        Hear(text="long", min_ms=2000),
        Hear(text="short", max_ms=1000, repeat=True),
        Hear(text="middle", min_ms=1000, max_ms=2000),
    )
    assert [said(ears, ms) for ms in (800, 1520, 800, 2400)] == ["short", "middle", "short", "long"]


@pytest.mark.parametrize("chunk", [100, 1920, 5000, 100_000])
def test_words_come_with_the_audio_however_it_is_cut(chunk: int) -> None:
    """A word each 300 ms, up to the whole text; spaces between them."""
    ears = hearing(Hear(text="how are you today"))
    pcm = sound(960)
    news = [n for i in range(0, len(pcm), chunk) for n in ears.hear(pcm[i : i + chunk])]
    assert news == ["how", " are", " you"]
    assert ears.hear(sound(2400)) == [" today"]
    assert ears.commit(is_tentative=False) == Understood("how are you today", 42)


def test_last_frame_counts_unless_the_commit_is_tentative() -> None:
    """A frame that is not full is completed with silence, or left out."""
    ears = hearing(Hear(text="a", repeat=True))
    ears.hear(sound(170))
    assert ears.commit(is_tentative=True) == Understood("a", 2)
    ears.reopen()
    assert ears.commit(is_tentative=False) == Understood("a", 3)
    ears.hear(sound(40))
    assert ears.commit(is_tentative=True) is None


def test_nothing_heard_uses_nothing_up() -> None:
    """A turn without audio is no turn, and neither is one that was cleared."""
    ears = hearing(Hear(text="one"))
    assert ears.commit(is_tentative=False) is None
    ears.hear(sound(800))
    ears.clear()
    assert ears.commit(is_tentative=False) is None
    assert said(ears) == "one"


def test_reopened_turn_goes_on_as_if_nothing_had_been() -> None:
    """Words, length and what is used up are those of a turn that was never committed."""
    ears, plain = (hearing(Hear(text="one two three"), Hear(text="other")) for _ in range(2))
    first, second = sound(500), sound(700)
    before = ears.hear(first)
    assert ears.commit(is_tentative=True) == Understood("one two three", 6)
    ears.reopen()
    assert before + ears.hear(second) == plain.hear(first) + plain.hear(second)
    assert ears.commit(is_tentative=False) == plain.commit(is_tentative=False)
    assert said(ears) == "other"


def test_quiet_after_sound_is_an_end_of_turn() -> None:
    """It is reported once, and again after more sound; silence alone is none."""
    ears = hearing(Hear(text=""))
    assert ears.hear(silence(800)) == []
    assert ears.hear(sound(400)) == []
    assert ears.hear(silence(800)) == [HeardEnd(800 + 400 + 240)]
    assert ears.hear(np.concatenate((sound(80), silence(800)))) == [HeardEnd(2000 + 80 + 240)]


def test_unfinished_turn_never_sounds_finished() -> None:
    """For turns that only a long silence ends."""
    ears = hearing(Hear(text="well i", unfinished=True), Hear(text="x"))
    assert ears.hear(np.concatenate((sound(800), silence(2000)))) == ["well", " i"]


def test_words_have_the_probabilities_of_the_script() -> None:
    """One each, spaces included; none where it gives none."""
    ears = hearing(Hear(text="how are", logprobs=(-0.5, -1)), Hear(text="you"))
    ears.hear(np.zeros(FRAME_SAMPLES, np.float32))
    heard = ears.commit(is_tentative=False)
    assert heard == Understood("how are", 1, (("how", -0.5), (" are", -1.0)))
    ears.hear(np.zeros(FRAME_SAMPLES, np.float32))
    assert ears.commit(is_tentative=False) == Understood("you", 1)
