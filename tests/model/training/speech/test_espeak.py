"""espeak-ng speaks, and its words and phones are where they are heard."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from model.training.speech.espeak import espeak_speech
from model.training.speech.types import SAMPLE_RATE_HZ, SynthesisError

pytestmark = pytest.mark.usefixtures("espeak")

TEXT = "hello it's ten of the o'clock isn't it bob's cat, and i am not"


@pytest.mark.parametrize("voice", ["en-us+f3", "en-gb-x-rp+m3", "en-gb-scotland", "en-029+klatt"])
def test_every_word_has_its_place(voice: str) -> None:
    """Every word has its place."""
    speech = espeak_speech(voice, TEXT)
    assert [word.text for word in speech.words] == TEXT.replace(",", "").split()
    assert all(word.end_s - word.start_s > 0.03 for word in speech.words)
    assert all(a.end_s <= b.start_s for a, b in pairwise(speech.words))
    assert speech.phones[-1].end_s == pytest.approx(speech.duration_s)
    assert all(a.end_s == pytest.approx(b.start_s) for a, b in pairwise(speech.phones))


def test_sibilants_are_where_the_labels_say() -> None:
    """Sibilants are where the labels say."""
    speech = espeak_speech("en-us+f3", "yes she sees six pieces of ice")
    shares: dict[bool, list[float]] = {True: [], False: []}
    for phone in speech.phones:
        piece = speech.pcm[
            round(phone.start_s * SAMPLE_RATE_HZ) : round(phone.end_s * SAMPLE_RATE_HZ)
        ].astype(np.float64)
        if phone.symbol in {"s", "sh", "iy", "ih", "eh", "ay"} and len(piece) > 400:
            power = np.abs(np.fft.rfft(piece)) ** 2
            high = power[len(power) * 3500 // 8000 :].sum() / power.sum()
            shares[phone.symbol in {"s", "sh"}].append(float(high))
    assert len(shares[True]) >= 5
    assert np.median(shares[True]) > 0.6
    assert np.median(shares[False]) < 0.2


def test_the_pause_between_clauses_is_silence() -> None:
    """The pause between clauses is silence."""
    speech = espeak_speech("en-us", "no, yes")
    assert speech.words[1].start_s - speech.words[0].end_s > 0.1
    assert "pau" in [p.symbol for p in speech.phones if p.start_s < speech.words[1].start_s][1:]


@pytest.mark.parametrize("voice", ["en-gb+f2", "en-us+nobody", "nowhere"])
def test_a_refused_voice_is_an_error_and_not_the_last_voice(voice: str) -> None:
    """A refused voice is an error and not the last voice."""
    espeak_speech("en-us", "hello")
    with pytest.raises(SynthesisError, match="no voice"):
        espeak_speech(voice, "hello")
    assert espeak_speech("en-us", "hello").duration_s > 0.2


def test_stretch_is_obeyed() -> None:
    """Stretch is obeyed."""
    plain = espeak_speech("en-us", TEXT).duration_s
    assert espeak_speech("en-us", TEXT, stretch=1.2).duration_s / plain == pytest.approx(
        1.2, abs=0.05
    )
