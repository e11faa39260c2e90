"""flite speaks, and says where its words and phones are."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from model.training.speech.flite import FLITE_VOICES, flite_speech, load_library, written_words
from model.training.speech.perturb import median_f0
from model.training.speech.types import PHONES, SynthesisError


def test_phones_are_distinct_and_start_with_silence() -> None:
    """Phones are distinct and start with silence."""
    assert PHONES[0] == "pau"
    assert len(set(PHONES)) == len(PHONES) == 41


def test_written_words_have_no_punctuation_around_them() -> None:
    """Written words have no punctuation around them."""
    assert written_words("it's \"ten\", o'clock - no?") == ["it's", "ten", "o'clock", "-", "no"]


def test_missing_library_names_its_package() -> None:
    """Missing library names its package."""
    with pytest.raises(SynthesisError, match="apt install some-package"):
        load_library("libparley-has-no-such.so.1", "some-package")


@pytest.mark.usefixtures("flite")
@pytest.mark.parametrize("voice", FLITE_VOICES)
def test_words_and_phones_tile_the_audio(voice: str) -> None:
    """Words and phones tile the audio."""
    speech = flite_speech(voice, "ten ten, it's bob's")
    assert [word.text for word in speech.words] == ["ten", "ten", "it's", "bob's"]
    assert speech.phones[0].start_s == 0.0
    assert speech.phones[-1].end_s == speech.duration_s
    assert all(a.end_s == b.start_s for a, b in pairwise(speech.phones))
    assert all(a.end_s <= b.start_s for a, b in pairwise(speech.words))
    first = [p.symbol for p in speech.phones if p.start_s < speech.words[0].end_s]
    assert first == ["pau", "t", "eh", "n"]


@pytest.mark.usefixtures("flite")
@pytest.mark.parametrize("voice", ["slt", "kal16"])
def test_a_text_always_sounds_alike(voice: str) -> None:
    """A text always sounds alike."""
    once = flite_speech(voice, "hello there")
    flite_speech(voice, "something else", pitch=1.2, stretch=1.1)
    again = flite_speech(voice, "hello there")
    np.testing.assert_array_equal(once.pcm, again.pcm)


@pytest.mark.usefixtures("flite")
@pytest.mark.parametrize("voice", ["slt", "awb", "kal16"])
def test_stretch_and_pitch_do_what_they_say(voice: str) -> None:
    """Stretch and pitch do what they say."""
    text = "what is the capital of france"
    plain = flite_speech(voice, text)
    assert flite_speech(voice, text, stretch=1.2).duration_s / plain.duration_s == pytest.approx(
        1.2, abs=0.03
    )
    higher = flite_speech(voice, text, pitch=1.25)
    ratio = median_f0(higher.pcm.astype(np.float32)) / median_f0(plain.pcm.astype(np.float32))
    assert ratio == pytest.approx(1.25, abs=0.12)


@pytest.mark.usefixtures("flite")
@pytest.mark.parametrize(("voice", "text"), [("slt", " ... "), ("nobody", "hello")])
def test_what_cannot_be_said_is_an_error(voice: str, text: str) -> None:
    """What cannot be said is an error."""
    with pytest.raises(SynthesisError):
        flite_speech(voice, text)
