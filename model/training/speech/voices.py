"""The voices: which train, which answer, and which stay unheard for evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.arithmetic import ceil_div
from model.training.speech.espeak import espeak_speech
from model.training.speech.festival import festival_speech
from model.training.speech.flite import flite_speech
from model.training.speech.kokoro import HELD_OUT_KOKORO, KOKORO_VOICES, has_kokoro, kokoro_speech
from model.training.speech.piper import JOE, piper_speech
from model.training.speech.types import (
    SAMPLE_RATE_HZ,
    SILENCE,
    Phone,
    Speech,
    SynthesisError,
    Word,
)

_EDGE_S = 0.04
_RING_S = 0.06
_FADE_S = 0.01
_LEVEL = 0.08  # RMS of the speech frames, full scale 1
_PEAK = 0.9


@dataclass(frozen=True, slots=True)
class Voice:
    """A speaker: an engine's voice and how it is played.

    `stretch` multiplies durations, `pitch` the fundamental frequency, `pitch_range` the melody's
    width (where the engine can). `weight` is the relative chance of being picked from a pool.
    """

    name: str
    engine: str
    engine_voice: str
    stretch: float = 1.0
    pitch: float = 1.0
    pitch_range: float = 1.0
    weight: float = 1.0


_ACCENTS = (
    "en-us",
    "en",
    "en-gb-x-rp",
    "en-gb-scotland",
    "en-gb-x-gbclan",
    "en-gb-x-gbcwmd",
    "en-029",
    "en-us-nyc",
)
_FEMALE = (
    "f1",
    "f2",
    "f3",
    "f4",
    "Alicia",
    "Andrea",
    "Annie",
    "anika",
    "aunty",
    "belinda",
    "linda",
    "steph",
    "steph2",
    "steph3",
    "grandma",
    "shelby",
)
_MALE = (
    "m1",
    "m2",
    "m3",
    "m4",
    "m5",
    "m7",
    "m8",
    "Alex",
    "Andy",
    "Denis",
    "Diogo",
    "Gene",
    "Henrique",
    "Hugo",
    "Jacky",
    "Lee",
    "Marco",
    "Mario",
    "Michael",
    "Mike",
    "adam",
    "antonio",
    "benjamin",
    "david",
    "ed",
    "edward",
    "klatt",
    "klatt4",
    "max",
    "paul",
    "pablo",
    "rob",
    "robert",
    "travis",
    "victor",
    "zac",
)

# Stands for two of Kokoro's voices, drawn anew every time.
MIXED = "kokoro_mix"

# Never part of training, for good: what is measured on them says how strangers are understood.
# That is why f5 and m6 are in no list above, with whatever accent.
HELD_OUT_VOICES: tuple[Voice, ...] = (
    Voice("cmu_us_slt_arctic_hts", "festival", "cmu_us_slt_arctic_hts"),
    Voice("ked_diphone", "festival", "ked_diphone"),
    Voice("en-us+f5", "espeak", "en-us+f5"),
    Voice("en-gb-x-rp+m6", "espeak", "en-gb-x-rp+m6"),
)
HELD_OUT_NEURAL_VOICES: tuple[Voice, ...] = tuple(
    Voice(name, "kokoro", name) for name in HELD_OUT_KOKORO
)
# Of another family than all that trains: what is measured on it owes nothing to Kokoro's habits.
SECOND_SYNTHESISER: tuple[Voice, ...] = (Voice(JOE, "piper", JOE),)

ASSISTANT_VOICES: tuple[Voice, ...] = (
    Voice("alloy", "kokoro", "af_alloy"),
    Voice("ash", "kokoro", "am_michael"),
    Voice("ballad", "kokoro", "bm_fable"),
    Voice("coral", "kokoro", "af_heart"),
    Voice("echo", "kokoro", "am_puck"),
    Voice("sage", "kokoro", "bf_emma"),
    Voice("shimmer", "kokoro", "bf_isabella"),
    Voice("verse", "kokoro", "bm_george"),
)


def _espeak_pool() -> tuple[Voice, ...]:
    """Pair every made-up speaker with three accents, so that women and men weigh the same."""
    pool: list[Voice] = []
    for variants, share in ((_FEMALE, 20.0), (_MALE, 20.0)):
        pairs = [f"en-us+{variant}" for variant in variants]
        for index, variant in enumerate(variants):
            # Speaker 0 has the accents 0, 1 and 2, speaker 1 those from 3 to 5, speaker 2 the
            # accents 6, 7 and 0: after eight speakers each accent was had three times.
            accents = (_ACCENTS[(3 * index + offset) % len(_ACCENTS)] for offset in range(3))
            pairs.extend(f"{accent}+{variant}" for accent in accents if accent != "en-us")
        pool.extend(Voice(pair, "espeak", pair, weight=share / len(pairs)) for pair in pairs)
    return tuple(pool)


TRAIN_VOICES: tuple[Voice, ...] = (
    Voice("slt", "flite", "slt", weight=16.0),
    Voice("rms", "flite", "rms", weight=16.0),
    Voice("awb", "flite", "awb", weight=16.0),
    Voice("kal16", "flite", "kal16", weight=8.0),
    Voice("kal_diphone", "festival", "kal_diphone", weight=6.0),
    *_espeak_pool(),
    *(Voice(name, "kokoro", name, weight=54.0 / len(KOKORO_VOICES)) for name in KOKORO_VOICES),
    Voice(MIXED, "kokoro", MIXED, weight=54.0),
)


VOICE_BY_NAME = {voice.name: voice for voice in (*TRAIN_VOICES, *ASSISTANT_VOICES)}
"""Every voice that users or assistants of any trained weights had."""


def available(pool: tuple[Voice, ...]) -> tuple[Voice, ...]:
    """Leave out the voices whose packages were not fetched."""
    return pool if has_kokoro() else tuple(v for v in pool if v.engine != "kokoro")


def _mixed(rng: np.random.Generator) -> str:
    """Draw a mix of two voices: a speaker whom nobody has heard yet."""
    first, second = rng.choice(len(KOKORO_VOICES), size=2, replace=False)
    share = float(rng.uniform(0.3, 0.7))
    return f"{KOKORO_VOICES[first]}*{share:.3f}+{KOKORO_VOICES[second]}*{1 - share:.3f}"


def pick_voice(rng: np.random.Generator, pool: tuple[Voice, ...]) -> Voice:
    """Draw a voice by weight and play it a little differently every time.

    The durations are scaled by .8 to 1.25 and the pitch by up to four semitones either way.
    """
    weights = np.array([voice.weight for voice in pool])
    voice = pool[int(rng.choice(len(pool), p=weights / weights.sum()))]
    return replace(
        voice,
        engine_voice=_mixed(rng) if voice.engine_voice == MIXED else voice.engine_voice,
        stretch=voice.stretch * float(np.exp(rng.uniform(np.log(0.8), np.log(1.25)))),
        pitch=voice.pitch * float(2.0 ** (np.clip(rng.normal(0.0, 1.8), -4.0, 4.0) / 12)),
        pitch_range=voice.pitch_range * float(rng.uniform(0.6, 1.5)),
    )


def _speech_frames(pcm: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether each 10 ms frame is louder than 45 dB below the loudest: bool [frames]."""
    hop = SAMPLE_RATE_HZ // 100
    frames = ceil_div(len(pcm), hop)
    padded = np.zeros(frames * hop, np.float32)
    padded[: len(pcm)] = pcm
    power = np.mean(padded.reshape(frames, hop) ** 2, axis=1)
    loud: NDArray[np.bool_] = power > power.max() * 10**-4.5
    return loud


def trimmed(speech: Speech) -> Speech:
    """Cut the silence at both ends to 40 ms and bring the speech to a standard level."""
    loud = np.flatnonzero(_speech_frames(speech.pcm))
    if not len(loud) or not speech.words:
        raise SynthesisError("the synthesiser returned silence")
    # The alignment is exact where a word begins (some voices breathe before it); a last sound may
    # ring on a little.
    first_s, ends_s = speech.words[0].start_s, speech.words[-1].end_s
    # A last sound may ring on after its label ends, by 60 ms at most; what is louder after that is
    # a breath or a click.
    last_s = min(max((int(loud[-1]) + 1) / 100, ends_s), ends_s + _RING_S)
    begin = round((first_s - _EDGE_S) * SAMPLE_RATE_HZ)
    end = round((last_s + _EDGE_S) * SAMPLE_RATE_HZ)
    inside = speech.pcm[max(begin, 0) : end]
    audible = np.zeros(end - begin, np.float32)
    audible[max(-begin, 0) : max(-begin, 0) + len(inside)] = inside.astype(np.float32) / 32768
    fade = np.linspace(0.0, 1.0, round(_FADE_S * SAMPLE_RATE_HZ), dtype=np.float32)
    audible[: len(fade)] *= fade
    audible[-len(fade) :] *= fade[::-1]
    begin_s, length_s = begin / SAMPLE_RATE_HZ, (end - begin) / SAMPLE_RATE_HZ

    speaking = float(_speech_frames(audible).sum()) * SAMPLE_RATE_HZ / 100
    # A worked example: speech of 0.04 is made twice as loud, to 0.08, which is -22 dBFS. If its
    # peak is 0.6, twice that would be 1.2: the peak allows only 0.9 / 0.6 = 1.5, and the clip stays
    # a little quieter.
    level = float(np.sqrt(np.sum(audible**2) / speaking))
    gain = min(_LEVEL / level, _PEAK / float(np.abs(audible).max()))
    pcm = np.round(audible * (gain * 32767)).astype(np.int16)

    def moved(time_s: float) -> float:
        return min(max(time_s - begin_s, 0.0), length_s)

    words = tuple(Word(w.text, moved(w.start_s), moved(w.end_s)) for w in speech.words)
    sounding = [p for p in speech.phones if moved(p.end_s) > moved(p.start_s)]
    # Silences at both ends are cut off first and put back afterwards, as long as they are now.
    while sounding and sounding[0].symbol == SILENCE:
        sounding.pop(0)
    while sounding and sounding[-1].symbol == SILENCE:
        sounding.pop()
    phones = [Phone(p.symbol, moved(p.start_s), moved(p.end_s)) for p in sounding]
    if phones[0].start_s > 0:
        phones.insert(0, Phone(SILENCE, 0.0, phones[0].start_s))
    if phones[-1].end_s < length_s:
        phones.append(Phone(SILENCE, phones[-1].end_s, length_s))
    return Speech(pcm, words, tuple(phones))


_ENGINES: dict[str, Callable[..., Speech]] = {
    "espeak": espeak_speech,
    "festival": festival_speech,
    "flite": flite_speech,
    "kokoro": kokoro_speech,
    "piper": piper_speech,
}


def synthesise(voice: Voice, text: str) -> Speech:
    """Speak `text` (words, numbers written out) with `voice`.

    The result has about 40 ms of silence at either end and a standard level.
    """
    if voice.engine not in _ENGINES:
        raise SynthesisError(f"voice {voice.name!r} wants an unknown engine {voice.engine!r}")
    speak = _ENGINES[voice.engine]
    return trimmed(
        speak(
            voice.engine_voice,
            text.lower(),
            stretch=voice.stretch,
            pitch=voice.pitch,
            pitch_range=voice.pitch_range,
        )
    )
