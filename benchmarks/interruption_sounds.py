"""What a microphone hears while the assistant speaks: questions, coughs, "mhm", music, babble.

Everything is made here, from seeds, by the synthesisers that also make the training speech or from
numbers. None of it was recorded: a figure that depends on it says how the rules treat sounds of
this kind, not how often people cough.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from model.training.speech.augment import speech_power
from model.training.speech.espeak import espeak_speech
from model.training.speech.flite import flite_speech
from model.training.speech.perturb import stretched

RATE_HZ = 16_000
Wave = npt.NDArray[np.float32]
Rng = np.random.Generator

QUESTIONS = (
    "what is two plus two",
    "what is the capital of france",
    "my name is peter",
    "can you say that again please",
    "wait what did you say",
    "hold on a moment",
    "count from one to five",
)
SHORT_WORDS = ("stop", "wait", "no", "hey", "hold on")
BACKCHANNELS = ("mhm", "hm", "uh huh", "mm", "yeah")
STORY = (
    "there was a farmer who had three horses and each of them was faster than the one before",
    "when the rain had stopped they walked down to the river and looked for the old boat",
    "she told him that the train would leave at seven and that he should not be late again",
    "on the other side of the hill there is a small house with a garden full of apple trees",
)
ESPEAK_VOICES = ("en-us", "en-us+f2", "en-gb-scotland", "en-us+m3")
FLITE_VOICES = ("slt", "rms", "awb", "kal16")


def spoken(voice: str, text: str, stretch: float = 1.0) -> Wave:
    """Speak a text, without silence around it: float32 [samples] with a power of 0.01."""
    speak = flite_speech if voice in FLITE_VOICES else espeak_speech
    pcm = speak(voice, text, stretch=stretch).pcm / np.float32(32768)
    return levelled(trimmed(pcm.astype(np.float32)))


def levelled(pcm: Wave, power: float = 0.01) -> Wave:
    """Return a sound with a power, of its sounding parts, as speech near a microphone has."""
    scaled: Wave = (pcm * (power / max(speech_power(pcm), 1e-12)) ** 0.5).astype(np.float32)
    return scaled


def trimmed(pcm: Wave, below_db: float = 35.0) -> Wave:
    """Cut off what is so far below the loudest at either end."""
    hop = RATE_HZ // 200
    frames = len(pcm) // hop
    power = np.mean(pcm[: frames * hop].reshape(frames, hop) ** 2, axis=1)
    # Frames of 5 ms, 35 dB below the loudest: synthesisers put silence around what they say, which
    # would count as waiting.
    loud = np.flatnonzero(power > power.max() * 10 ** (-below_db / 10))
    return pcm[loud[0] * hop : (loud[-1] + 1) * hop]


def silence(seconds: float) -> Wave:
    """Return silence."""
    return np.zeros(round(seconds * RATE_HZ), dtype=np.float32)


def cough(seed: int) -> Wave:
    """Make a cough: a burst as the throat opens, a hiss, and often a last voiced sound.

    Source: the three phases as described by Korpas, Sadlonova and Vrabec, "Analysis of the cough
    sound: an overview", Pulmonary Pharmacology 9 (1996).
    """
    rng = np.random.default_rng(seed)
    burst_s, hiss_s = rng.uniform(0.03, 0.06), rng.uniform(0.12, 0.25)
    voiced_s = rng.uniform(0.06, 0.16) if rng.random() < 0.6 else 0.0
    num = round((burst_s + hiss_s + voiced_s) * RATE_HZ)
    time_s = np.arange(num) / RATE_HZ
    noise = rng.standard_normal(num)
    throat = _formants(noise, [(rng.uniform(500, 800), 3), (rng.uniform(1200, 1900), 4)])
    # Up in 4 ms, as a burst is, and down by 22 dB until the hiss is over (e to the power of -2.5).
    loudness = np.exp(-time_s / (hiss_s / 2.5)) * np.minimum(1, time_s / 0.004)
    made = throat * loudness
    if voiced_s:
        at_s = burst_s + hiss_s
        pitch_hz = rng.uniform(140, 260) * (1 - 0.3 * (time_s - at_s) / voiced_s)
        buzz = _buzz(pitch_hz)
        inside = (time_s >= at_s) * np.hanning(num * 2)[num:] ** 0.5
        voiced = _formants(buzz, [(600, 3), (1100, 4), (2400, 6)]) * inside
        made = made / np.std(made) + rng.uniform(0.5, 2.0) * voiced / np.std(voiced)
    return levelled(made.astype(np.float32))


def hum(seed: int) -> Wave:
    """Make a hummed "mhm" of 200 to 290 ms: two pulses of a closed mouth's voice."""
    rng = np.random.default_rng(seed)
    num = round(rng.uniform(0.2, 0.29) * RATE_HZ)
    place = np.arange(num) / num
    pitch_hz = rng.uniform(95, 220) * (1 + rng.uniform(0.05, 0.3) * place)
    buzz = _buzz(pitch_hz)
    nose = _formants(buzz, [(260, 4), (1050, 8)]) + 0.1 * _formants(buzz, [(2300, 8)])
    # Loud at both ends and softer in the middle: "m-hm".
    pulses = np.sin(np.pi * place) ** 0.5 * (0.35 + 0.65 * np.abs(np.cos(np.pi * place)))
    return levelled((nose * pulses).astype(np.float32))


def backchannel(voice: str, text: str, longest_s: float = 0.29) -> Wave:
    """Speak a "mhm" or the like, made faster where it is longer than that."""
    pcm = spoken(voice, text)
    if len(pcm) > longest_s * RATE_HZ:
        pcm = stretched(pcm, longest_s * RATE_HZ / len(pcm))[: round(longest_s * RATE_HZ)]
    return levelled(pcm)


def music(seed: int, seconds: float = 8.0) -> Wave:
    """Make music without singing: chords, a melody and a drum."""
    rng = np.random.default_rng(seed)
    num = round(seconds * RATE_HZ)
    made = np.zeros(num)
    beat = round(60 / rng.uniform(70, 150) * RATE_HZ)
    # A major scale, in semitones; a chord takes every other of its notes.
    scale = np.array([0, 2, 4, 5, 7, 9, 11])
    root = rng.uniform(110, 220)
    for start in range(0, num, beat):
        degree = int(rng.integers(7))
        for step in (0, 2, 4):
            pitch = root * 2 ** ((scale[(degree + step) % 7]) / 12)
            _add(made, start, _tone(pitch, 4 * beat / RATE_HZ, rng), 0.3)
        pitch = 2 * root * 2 ** (scale[int(rng.integers(7))] / 12)
        _add(made, start, _tone(pitch, beat / RATE_HZ, rng), 0.6)
        drum = rng.standard_normal(beat // 3) * np.exp(-np.arange(beat // 3) / (0.02 * RATE_HZ))
        _add(made, start, drum, 0.5)
    return levelled(made.astype(np.float32))


def babble(seed: int, seconds: float = 8.0, num_speakers: int = 5) -> Wave:
    """Let several people talk at once, as in a room full of them."""
    rng = np.random.default_rng(seed)
    num = round(seconds * RATE_HZ)
    mixture = np.zeros(num, dtype=np.float32)
    for number in range(num_speakers):
        voice = (*ESPEAK_VOICES, *FLITE_VOICES)[int(rng.integers(8))]
        told = story(voice, number)
        start = int(rng.integers(len(told)))
        mixture += told[np.arange(start, start + num) % len(told)] * rng.uniform(0.4, 1.0)
    return levelled(mixture)


def story(voice: str, number: int = 0, gap_s: float = 0.25) -> Wave:
    """Tell a story of some 20 s, sentence after sentence."""
    sentences = STORY[number % len(STORY) :] + STORY[: number % len(STORY)]
    return np.concatenate([part for s in sentences for part in (spoken(voice, s), silence(gap_s))])


def echoed(far: Wave, delay_ms: float, level_db: float, seed: int = 0, rt60_s: float = 0.3) -> Wave:
    """Return what of a loudspeaker's sound comes back to a microphone: float32, as long as it.

    Args:
        far: what is played.
        delay_ms: of the way there and back.
        level_db: of the echo against what is played.
        seed: of the room.
        rt60_s: after which a sound in the room is 60 dB lower.
    """
    rng = np.random.default_rng(seed)
    time_s = np.arange(round(rt60_s * RATE_HZ)) / RATE_HZ
    # A room's tail is noise that decays: by a factor of 1,000, which is 60 dB, in `rt60_s`. Source:
    # Polack 1988; Schroeder 1965, "New method of measuring reverberation time".
    room = rng.standard_normal(len(time_s)) * 10 ** (-3 * time_s / rt60_s)
    room *= 0.35 / np.sqrt(np.sum(room**2))
    room[0] = 1.0
    size = len(far) + len(room)
    hertz = np.fft.rfftfreq(size, 1 / RATE_HZ)
    # A small loudspeaker has no bass, and air takes some of the treble.
    band = 1 / (1 + (200 / np.maximum(hertz, 1)) ** 2) / (1 + (hertz / 6500) ** 2)
    # A product of spectra is a convolution. The size holds both, so that the end does not come
    # around.
    back = np.fft.irfft(np.fft.rfft(far, size) * np.fft.rfft(room, size) * band, size)[: len(far)]
    late = round(delay_ms * RATE_HZ / 1000)
    back = np.concatenate((np.zeros(late), back))[: len(far)]
    gain = (speech_power(far) / max(speech_power(back.astype(np.float32)), 1e-12)) ** 0.5
    scaled: Wave = (back * gain * 10 ** (level_db / 20)).astype(np.float32)
    return scaled


def laid(length: int, places: Sequence[tuple[int, Wave]]) -> Wave:
    """Lay sounds into silence, each at its place in samples."""
    bed = np.zeros(length, dtype=np.float32)
    for place, pcm in places:
        part = pcm[: max(0, length - place)]
        bed[place : place + len(part)] += part
    return bed


def _tone(pitch_hz: float, seconds: float, rng: Rng) -> npt.NDArray[np.float64]:
    time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    tone = sum(
        np.sin(2 * np.pi * pitch_hz * n * time_s + rng.uniform(0, 6)) / n**1.5 for n in range(1, 9)
    )
    faded: npt.NDArray[np.float64] = (
        np.asarray(tone) * np.exp(-2.5 * time_s / seconds) * np.minimum(1, time_s / 0.01)
    )
    return faded


def _add(
    made: npt.NDArray[np.float64], start: int, part: npt.NDArray[np.float64], gain: float
) -> None:
    end = min(len(made), start + len(part))
    made[start:end] += gain * part[: end - start]


def _buzz(pitch_hz: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return what vocal cords do at a pitch [samples]: all harmonics, falling with frequency."""
    # The phase is the sum of the pitch over time, so a gliding pitch has no jumps.
    phase = 2 * np.pi * np.cumsum(pitch_hz) / RATE_HZ
    # A harmonic above half of the rate would come back as a false tone (aliasing).
    most = int(RATE_HZ / 2 / pitch_hz.max())
    return np.asarray(sum(np.sin(n * phase) / n for n in range(1, most)))


def _formants(
    source: npt.NDArray[np.float64], formants: Sequence[tuple[float, float]]
) -> npt.NDArray[np.float64]:
    """Let a source sound through resonances, each (hertz, quality)."""
    size = 2 * len(source)
    hertz = np.maximum(np.fft.rfftfreq(size, 1 / RATE_HZ), 1.0)
    # The curve of a resonant circuit: 1 at its frequency, 0.7 where the band of width f / q ends.
    gain = sum(1 / np.sqrt(1 + (q * (hertz / f - f / hertz)) ** 2) for f, q in formants)
    shaped: npt.NDArray[np.float64] = np.fft.irfft(np.fft.rfft(source, size) * gain, size)
    return shaped[: len(source)]
