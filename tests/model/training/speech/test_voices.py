"""Pools of voices that do not mix, and speech that is trimmed and levelled."""

from __future__ import annotations

import numpy as np
import pytest

from model.training.speech import voices as voices_module
from model.training.speech.kokoro import HELD_OUT_KOKORO, KOKORO_VOICES
from model.training.speech.types import SAMPLE_RATE_HZ, Phone, Speech, SynthesisError, Word
from model.training.speech.voices import (
    ASSISTANT_VOICES,
    HELD_OUT_VOICES,
    MIXED,
    TRAIN_VOICES,
    Voice,
    available,
    pick_voice,
    synthesise,
    trimmed,
)


def test_held_out_speakers_never_train() -> None:
    """Held out speakers never train."""
    train = {voice.engine_voice for voice in TRAIN_VOICES}
    for voice in HELD_OUT_VOICES:
        assert voice.engine_voice not in train
        _, plus, variant = voice.engine_voice.partition("+")
        if plus:
            assert not any(name.endswith(f"+{variant}") for name in train)


def test_names_are_unique_and_assistants_are_trained_on() -> None:
    """Names are unique and assistants are trained on."""
    names = [voice.name for voice in TRAIN_VOICES]
    assert len(set(names)) == len(names) > 100
    assert {voice.engine_voice for voice in ASSISTANT_VOICES} <= {
        v.engine_voice for v in TRAIN_VOICES
    }


def test_picks_are_deterministic_and_follow_the_weights() -> None:
    """Picks are deterministic and follow the weights."""
    once = [pick_voice(np.random.default_rng(3), TRAIN_VOICES) for _ in range(3)]
    assert once[0] == once[1] == once[2]
    pool = (Voice("a", "flite", "slt", weight=3.0), Voice("b", "flite", "rms"))
    rng = np.random.default_rng(0)
    picks = [pick_voice(rng, pool) for _ in range(400)]
    assert 260 < sum(pick.name == "a" for pick in picks) < 340
    assert all(0.8 <= pick.stretch <= 1.25 for pick in picks)
    assert len({pick.pitch for pick in picks}) > 300


def test_a_mix_is_of_two_voices_that_may_train() -> None:
    """Mixes are new speakers, drawn alike by the same seed, and never of a held-out voice."""
    pool = tuple(voice for voice in TRAIN_VOICES if voice.engine_voice == MIXED)
    names = [pick_voice(np.random.default_rng(i), pool).engine_voice for i in range(200)]
    assert names[3] == pick_voice(np.random.default_rng(3), pool).engine_voice
    assert len(set(names)) == 200
    for name in names:
        voices, weights = zip(*(part.split("*") for part in name.split("+")), strict=True)
        assert len(set(voices)) == 2
        assert set(voices) <= set(KOKORO_VOICES)
        assert sum(map(float, weights)) == pytest.approx(1.0)
    assert not set(KOKORO_VOICES) & set(HELD_OUT_KOKORO)


def test_voices_that_were_not_fetched_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe goes on with the voices that are there."""
    monkeypatch.setattr(voices_module, "has_kokoro", lambda: False)
    engines = {voice.engine for voice in available(TRAIN_VOICES)}
    assert engines == {"espeak", "festival", "flite"}
    monkeypatch.setattr(voices_module, "has_kokoro", lambda: True)
    assert available(TRAIN_VOICES) == TRAIN_VOICES


def _tone_between_silences() -> Speech:
    """A second: .3 s silence, .4 s tone, .3 s silence."""
    pcm = np.zeros(SAMPLE_RATE_HZ, np.int16)
    time = np.arange(6400) / SAMPLE_RATE_HZ
    pcm[4800:11200] = (1000 * np.sin(2 * np.pi * 200 * time)).astype(np.int16)
    phones = (Phone("pau", 0.0, 0.3), Phone("aa", 0.3, 0.7), Phone("pau", 0.7, 1.0))
    return Speech(pcm, (Word("ah", 0.3, 0.7),), phones)


def test_trimming_keeps_forty_milliseconds_and_moves_the_times() -> None:
    """Trimming keeps forty milliseconds and moves the times."""
    speech = trimmed(_tone_between_silences())
    assert speech.duration_s == pytest.approx(0.48)
    assert (speech.words[0].start_s, speech.words[0].end_s) == pytest.approx((0.04, 0.44))
    assert [p.symbol for p in speech.phones] == ["pau", "aa", "pau"]
    sound = speech.pcm.astype(np.float32)[700:7000] / 32768
    assert np.sqrt(np.mean(sound**2)) == pytest.approx(0.08, rel=0.1)


def test_trimming_adds_silence_where_the_engine_left_none() -> None:
    """Trimming adds silence where the engine left none."""
    speech = _tone_between_silences()
    bare = Speech(speech.pcm[4800:11200], (Word("ah", 0.0, 0.4),), (Phone("aa", 0.0, 0.4),))
    padded = trimmed(bare)
    assert [p.symbol for p in padded.phones] == ["pau", "aa", "pau"]
    assert padded.words[0].start_s == pytest.approx(0.04)
    assert not padded.pcm[:600].any()


def test_silence_is_not_speech() -> None:
    """Silence is not speech."""
    silent = Speech(np.zeros(8000, np.int16), (Word("ah", 0.0, 0.1),), (Phone("pau", 0.0, 0.5),))
    with pytest.raises(SynthesisError, match="silence"):
        trimmed(silent)


def test_an_unknown_engine_is_named() -> None:
    """An unknown engine is named."""
    with pytest.raises(SynthesisError, match="'abacus'"):
        synthesise(Voice("x", "abacus", "x"), "hello")


@pytest.mark.usefixtures("espeak")
@pytest.mark.parametrize(
    "voice",
    [voice for voice in TRAIN_VOICES if voice.engine == "espeak"],
    ids=lambda voice: voice.name,
)
def test_every_espeak_voice_exists(voice: Voice) -> None:
    """Every espeak voice exists."""
    speech = synthesise(voice, "yes")
    assert 0.2 < speech.duration_s < 1.5
    assert speech.phones[0].symbol == "pau"


@pytest.mark.usefixtures("flite")
@pytest.mark.parametrize("voice", ASSISTANT_VOICES, ids=lambda voice: voice.name)
def test_assistant_voices_start_where_the_first_word_starts(voice: Voice) -> None:
    """Assistant voices start where the first word starts."""
    speech = synthesise(voice, "Hello There")
    assert [word.text for word in speech.words] == ["hello", "there"]
    assert speech.words[0].start_s == pytest.approx(0.04, abs=0.001)
