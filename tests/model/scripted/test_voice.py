"""The sound of words: there, distinct, repeatable, and speech to a voice detector."""

from __future__ import annotations

import numpy as np
import pytest

from model.messages import Pcm
from model.scripted.voice import VOICES, speak_word
from server.audio.resample import StreamResampler
from server.audio.silero import VAD_RATE_HZ, SileroModel, SileroStream

RATE_HZ = 24_000
WORD_SAMPLES = RATE_HZ * 400 // 1000
TEXT = "once upon a time there was a lighthouse at the end of the world 42"


def spoken(voice: str, text: str = TEXT) -> Pcm:
    """Return a whole sentence."""
    return np.concatenate([speak_word(voice, w, WORD_SAMPLES, RATE_HZ) for w in text.split()])


@pytest.mark.parametrize("word", ["i", "lighthouse", "42", "pst", "…", "où", "x" * 200])
def test_any_word_has_a_sound_and_a_pause(word: str) -> None:
    """It has the length asked for, is loud enough, is finite, and ends in silence."""
    pcm = speak_word("alloy", word, WORD_SAMPLES, RATE_HZ)
    assert pcm.dtype == np.float32
    assert pcm.shape == (WORD_SAMPLES,)
    assert np.isfinite(pcm).all()
    assert 0.3 < np.abs(pcm).max() <= 1.0
    assert not pcm[-WORD_SAMPLES // 10 :].any()


def test_same_word_sounds_the_same() -> None:
    """Nothing is drawn at random, in this process or the next."""
    first = speak_word("ash", "river", WORD_SAMPLES, RATE_HZ)
    speak_word.cache_clear()
    np.testing.assert_array_equal(first, speak_word("ash", "river", WORD_SAMPLES, RATE_HZ))


def test_voices_and_words_differ() -> None:
    """No two voices sound alike, and neither do two words of one."""
    sounds = [speak_word(voice, "river", WORD_SAMPLES, RATE_HZ) for voice in VOICES]
    sounds += [speak_word("alloy", word, WORD_SAMPLES, RATE_HZ) for word in ("rever", "apple")]
    for i, a in enumerate(sounds):
        for b in sounds[:i]:
            assert np.abs(a - b).max() > 0.1


@pytest.mark.parametrize("voice", VOICES)
def test_is_speech_to_the_voice_detector(voice: str) -> None:
    """A reply can be played to the server as a user's turn, which silence ends."""
    pcm = np.concatenate((spoken(voice), np.zeros(RATE_HZ, dtype=np.float32)))
    stream = SileroStream(SileroModel())
    probabilities = list(stream.feed(StreamResampler(RATE_HZ, VAD_RATE_HZ).feed(pcm)))
    is_speech = np.array(probabilities) > 0.35  # what keeps a turn going that has begun
    num_spoken = len(spoken(voice)) * len(is_speech) // len(pcm)
    assert is_speech[:num_spoken].mean() > 0.6
    # Never so long a gap within it that it would end the turn.
    gaps = np.diff(np.flatnonzero(is_speech[:num_spoken])) * 32
    assert gaps.max() < 400
    assert not is_speech[num_spoken + 10 :].any()
