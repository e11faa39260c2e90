"""Piper's voice: which word is where, also where espeak-ng joins words."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from model.training.speech.packages import VOICES_DIR
from model.training.speech.piper import first_words, piper_speech
from model.training.speech.types import PHONES, SynthesisError
from model.training.speech.voices import SECOND_SYNTHESISER, TRAIN_VOICES, synthesise

needs_joe = pytest.mark.skipif(
    not ((VOICES_DIR / "joe" / "data").exists() and shutil.which("espeak-ng")),
    reason="needs espeak-ng and Piper's joe: parley train --stage voices",
)


@pytest.mark.parametrize(
    ("groups", "words", "starts"),
    [
        ([4, 5], [4, 2, 3], [0, 1]),  # the last two are joined
        ([5, 4], [2, 3, 4], [0, 2]),  # the first two
        ([4, 2, 3], [4, 2, 3], [0, 1, 2]),  # none
        ([9], [4, 2, 3], [0]),  # all
        ([1, 1], [4, 2, 3], [0, 1]),  # every group has a word, whatever the lengths say
        ([90, 1], [4, 2, 3], [0, 2]),
    ],
)
def test_joined_words_are_found(groups: list[int], words: list[int], starts: list[int]) -> None:
    """Lengths tell which words became one group of phonemes."""
    assert first_words(groups, words) == starts


@needs_joe
@pytest.mark.usefixtures("flite")
def test_words_and_phones_tile_the_audio() -> None:
    """Every word has a place in order, and phones leave no gap."""
    speech = piper_speech("joe", "what comes after the end of the day")
    assert " ".join(w.text for w in speech.words) == "what comes after the end of the day"
    times = [t for w in speech.words for t in (w.start_s, w.end_s)]
    assert times == sorted(times)
    assert speech.phones[0].start_s == 0.0
    assert speech.phones[-1].end_s == pytest.approx(speech.duration_s)
    for one, next_one in zip(speech.phones, speech.phones[1:], strict=False):
        assert one.end_s == pytest.approx(next_one.start_s)
    assert {p.symbol for p in speech.phones} <= set(PHONES)


@needs_joe
@pytest.mark.usefixtures("flite")
def test_same_text_same_audio_whatever_came_before() -> None:
    """The model's noise is seeded by the text, so a score can be repeated."""
    first = piper_speech("joe", "hello there").pcm
    piper_speech("joe", "my name is anna")
    assert np.array_equal(first, piper_speech("joe", "hello there").pcm)


@needs_joe
@pytest.mark.usefixtures("flite")
def test_stretch_makes_it_slower() -> None:
    """Durations grow with `stretch`."""
    plain = synthesise(SECOND_SYNTHESISER[0], "what is seven plus five").duration_s
    slow = piper_speech("joe", "what is seven plus five", stretch=1.5).duration_s
    assert slow > 1.25 * plain


def test_unknown_voice_and_nothing_to_say() -> None:
    """What cannot be spoken is said so."""
    with pytest.raises(SynthesisError, match="no voice 'amy'"):
        piper_speech("amy", "hello")
    with pytest.raises(SynthesisError, match="nothing to say"):
        piper_speech("joe", "?!")


def test_the_second_synthesiser_never_trains() -> None:
    """No voice of training comes from Piper."""
    assert all(voice.engine != "piper" for voice in TRAIN_VOICES)
