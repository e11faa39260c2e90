"""What happens between a mouth and the model: rooms, noise, microphones, telephones, codecs.

The synthesisers are clean and close; people are not. Every effect keeps the length and the direct
sound's place in time, so alignments stay true. Everything is drawn from the generator given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from model.training.speech.types import SAMPLE_RATE_HZ, Wave

_HOP = 160
_TELEPHONE_HZ = 8000
_PACKET = 320  # samples: 20 ms, as most calls are sent
_MU = 255.0

Rng = np.random.Generator
Spectrum = NDArray[np.complex64]


def _fast_length(length: int) -> int:
    """The next length that the FFT likes: 2, 3 or 5 times a power of two."""
    # A worked example: 33,000 samples. The next power of two is 65,536; three quarters of it are
    # 49,152 and five eighths 40,960. The smallest that is long enough is 40,960.
    power = 1 << max(length - 1, 1).bit_length()
    return min(size for size in (power, power * 3 // 4, power * 5 // 8) if size >= length)


def speech_power(pcm: Wave) -> float:
    """Mean power of the frames within 30 dB of the loudest: pauses do not count."""
    frames = len(pcm) // _HOP
    if frames == 0:
        return float(np.mean(pcm**2)) if len(pcm) else 0.0
    # 30 dB below the loudest frame is a thousandth of its power. What is quieter is a pause, and
    # would make the speech seem quieter than it is.
    power = np.mean(pcm[: frames * _HOP].reshape(frames, _HOP) ** 2, axis=1)
    return float(power[power >= power.max() * 1e-3].mean())


def _coloured(length: int, rng: Rng, slope: float) -> Wave:
    """Gaussian noise [length] whose power falls with frequency to the power of `slope`."""
    size = _fast_length(length)
    spectrum = np.fft.rfft(rng.standard_normal(size, dtype=np.float32))
    hertz = np.fft.rfftfreq(size, 1 / SAMPLE_RATE_HZ)
    # Power falls as 1 / f^slope, so amplitudes fall as 1 / f^(slope / 2): pink noise has a slope of
    # 1, 3 dB an octave. Below 40 Hz it stays flat, or the lowest bins would be all that is left.
    spectrum *= np.maximum(hertz, 40.0) ** (-slope / 2)
    noise: Wave = np.fft.irfft(spectrum, size)[:length].astype(np.float32)
    return noise


def _white(length: int, rng: Rng) -> Wave:
    return rng.standard_normal(length, dtype=np.float32)


def _pink(length: int, rng: Rng) -> Wave:
    return _coloured(length, rng, 1.0)


def _machine(length: int, rng: Rng) -> Wave:
    """A fan or an engine: steep noise whose loudness drifts."""
    noise = _coloured(length, rng, float(rng.uniform(0.5, 2.5)))
    # A knot every half second, with the loudness drawn anew: 0.4 in the logarithm is about 3.5 dB
    # up or down.
    knots = np.exp(rng.normal(0.0, 0.4, size=max(2, length // 8000)))
    drift = np.interp(np.linspace(0, len(knots) - 1, length), np.arange(len(knots)), knots)
    return noise * drift.astype(np.float32)


def _hum(length: int, rng: Rng) -> Wave:
    """Mains hum with its harmonics over a little hiss."""
    base = float(rng.choice([50.0, 60.0]))
    time = np.arange(length, dtype=np.float32) / SAMPLE_RATE_HZ
    hum = 0.05 * _pink(length, rng)
    # 50 or 60 Hz and the next seven multiples, each weaker than the last and at a phase of its own,
    # as a transformer's hum is.
    for harmonic in range(1, 9):
        phase, level = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 1.0) / harmonic
        hum += (level * np.sin(2 * np.pi * base * harmonic * time + phase)).astype(np.float32)
    return hum


NOISES: tuple[Callable[[int, Rng], Wave], ...] = (_white, _pink, _pink, _machine, _machine, _hum)


def babble(length: int, rng: Rng, others: Sequence[Wave], count: int) -> Wave:
    """So many of `others` at once, each from a random place on and repeated as needed."""
    mixture = np.zeros(length, np.float32)
    for _ in range(count):
        other = others[int(rng.integers(len(others)))]
        power = speech_power(other)
        if power > 0.0:
            start = int(rng.integers(len(other)))
            places = np.arange(start, start + length) % len(other)
            mixture += other[places] * (rng.uniform(0.4, 1.0) / power**0.5)
    return mixture


def _mixed(pcm: Wave, noise: Wave, snr_db: float) -> Wave:
    power, noise_power = speech_power(pcm), float(np.mean(noise**2))
    if power == 0.0 or noise_power == 0.0:
        return pcm
    # A worked example: speech of power 0.01 and noise of power 1 at 20 dB. (0.01 / 1)^0.5 makes
    # them equally loud, and 10^(-20 / 20) = 0.1 brings the noise 20 dB down: the gain is 0.01.
    gain = np.float32((power / noise_power) ** 0.5 * 10 ** (-snr_db / 20))
    return pcm + gain * noise


def add_noise(pcm: Wave, snr_db: float, rng: Rng) -> Wave:
    """Add pink noise `snr_db` below the speech in pcm float32 [samples].

    The speech's power is that of its sounding frames, the noise's that of the whole recording.
    """
    return _mixed(pcm, _pink(len(pcm), rng), snr_db)


def _room(rng: Rng, level: float) -> Wave:
    """An impulse response [samples]: the direct sound first, a few reflections, a decaying tail."""
    # From 80 ms, which is a car, to 600 ms at the highest level, which is a large bare room.
    decay_s = float(rng.uniform(0.08, 0.15 + 0.45 * level))  # until 60 dB down
    length = round(min(decay_s, 0.5) * SAMPLE_RATE_HZ)
    time = np.arange(length, dtype=np.float32) / SAMPLE_RATE_HZ
    tail = _coloured(length, rng, float(rng.uniform(0.0, 1.0)))
    # At `decay_s` the exponent is -3, a thousandth of the amplitude: 60 dB down, which is how
    # reverberation times are defined.
    # Source: ISO 3382-1, the definition of T60.
    tail *= 10 ** (-3 * time / decay_s)
    tail[: round(0.004 * SAMPLE_RATE_HZ)] = 0.0
    for _ in range(int(rng.integers(2, 8))):
        place = int(rng.uniform(0.002, 0.04) * SAMPLE_RATE_HZ)
        if place < length:
            tail[place] += rng.choice([-1.0, 1.0]) * rng.uniform(0.5, 4.0) * np.std(tail)
    direct_db = float(rng.uniform(14.0 - 14.0 * level, 20.0))  # direct sound over all the rest
    energy = float(np.sum(tail**2))
    # The direct sound has the energy 1; the tail is scaled to so many dB below it.
    response: Wave = (tail * (10 ** (-direct_db / 20) / max(energy, 1e-12) ** 0.5)).astype(
        np.float32
    )
    response[0] = 1.0
    return response


def _microphone(hertz: NDArray[Any], rng: Rng, level: float) -> NDArray[Any]:
    """A smooth random frequency response with soft band edges: gain per frequency."""
    knots_hz = np.array([0.0, 125.0, 250.0, 500.0, 1000.0, 2000.0, 4000.0, 8000.0])
    curve_db = rng.normal(0.0, 1.0 + 3.0 * level, size=len(knots_hz))
    curve_db += rng.uniform(-3.0, 3.0) * level * np.arange(-4, 4)  # a tilt, dB an octave
    octave = np.log2(np.maximum(hertz, 30.0))
    response_db = np.interp(octave, np.log2(np.maximum(knots_hz, 30.0)), curve_db)
    low_hz = float(rng.uniform(20.0, 60.0 + 140.0 * level))
    # Microphones lose the lowest frequencies by 12 dB an octave, from 20 to 200 Hz on.
    gain = 10 ** (response_db / 20) / np.sqrt(1 + (low_hz / np.maximum(hertz, 1.0)) ** 4)
    if rng.random() < 0.4 * level:
        gain /= np.sqrt(1 + (hertz / rng.uniform(3400.0, 7500.0)) ** 16)
    response: NDArray[Any] = gain
    return response


def _filtered(pcm: Wave, rng: Rng, *, room: Wave | None, microphone: float | None) -> Wave:
    """Room and microphone in one trip through the frequency domain."""
    size = _fast_length(len(pcm) + (0 if room is None else len(room)))
    spectrum = np.fft.rfft(pcm, size)
    if room is not None:
        spectrum *= np.fft.rfft(room, size)
    if microphone is not None:
        spectrum *= _microphone(np.fft.rfftfreq(size, 1 / SAMPLE_RATE_HZ), rng, microphone)
    filtered: Wave = np.fft.irfft(spectrum, size)[: len(pcm)].astype(np.float32)
    return filtered


def _mu_law(pcm: Wave, steps: int) -> Wave:
    """Quantise logarithmically to `steps` values either side of zero."""
    # mu-law with mu = 255: 0.01 of full scale becomes log(1 + 2.55) / log(256) = 0.23, so quiet
    # sounds keep many of the 127 steps.
    # Source: ITU-T G.711, whose curve is this one in straight pieces.
    compressed = np.sign(pcm) * np.log1p(_MU * np.minimum(np.abs(pcm), 1.0)) / np.log1p(_MU)
    rounded = np.round(compressed * steps) / steps
    expanded: Wave = (np.sign(rounded) * np.expm1(np.abs(rounded) * np.log1p(_MU)) / _MU).astype(
        np.float32
    )
    return expanded


def _same_length(pcm: NDArray[Any], length: int) -> Wave:
    fitted = pcm[:length] if len(pcm) >= length else np.pad(pcm, (0, length - len(pcm)))
    return fitted.astype(np.float32, copy=False)


def telephone(pcm: Wave) -> Wave:
    """Narrow band, 300 to 3,400 Hz, through 8 kHz mu-law: float32 [samples] in and out."""
    size = _fast_length(len(pcm))
    hertz = np.fft.rfftfreq(size, 1 / SAMPLE_RATE_HZ)
    band = 1 / np.sqrt((1 + (300.0 / np.maximum(hertz, 1.0)) ** 8) * (1 + (hertz / 3400.0) ** 24))
    narrow = np.fft.irfft(np.fft.rfft(pcm, size) * band, size)[: len(pcm)].astype(np.float32)
    # 8,000 samples a second have room for frequencies below 4 kHz, and the line for 255 different
    # values: that is what a call over the old network is.
    line = _mu_law(soxr.resample(narrow, SAMPLE_RATE_HZ, _TELEPHONE_HZ, "MQ"), 127)
    return _same_length(soxr.resample(line, _TELEPHONE_HZ, SAMPLE_RATE_HZ, "MQ"), len(pcm))


def frames_of(pcm: Wave, size: int, hop: int) -> Spectrum:
    """Short-time spectra [frames, size // 2 + 1] of Hann-windowed frames, half a frame padded."""
    padded = np.pad(pcm, (size // 2, size // 2 + hop))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
    window = np.hanning(size + 1)[:-1].astype(np.float32)
    spectra: Spectrum = np.fft.rfft(frames * window, axis=1).astype(np.complex64)
    return spectra


def from_frames(spectra: Spectrum, size: int, hop: int, length: int) -> Wave:
    """Undo `frames_of`: overlap-add to float32 [length]. `size` must be a multiple of `hop`."""
    window = np.hanning(size + 1)[:-1].astype(np.float32)
    frames = (np.fft.irfft(spectra, size, axis=1) * window).astype(np.float32)
    share = size // hop
    count = len(frames)
    pcm = np.zeros((count + share - 1, hop), np.float32)
    weight = np.zeros((count + share - 1, hop), np.float32)
    parts = frames.reshape(count, share, hop)
    squares = (window**2).reshape(share, hop)
    for part in range(share):
        pcm[part : part + count] += parts[:, part]
        # Each sample is divided by the sum of the squared windows that cover it: once at the
        # analysis and once here, so what was not changed comes out as it went in.
        # Source: Griffin and Lim 1984, "Signal estimation from modified short-time Fourier
        # transform".
        weight[part : part + count] += squares[part]
    flat = (pcm / np.maximum(weight, 1e-3)).reshape(-1)
    return _same_length(flat[size // 2 :], length)


def _codec(pcm: Wave, rng: Rng, level: float) -> Wave:
    """What a low bit rate does: weak bins vanish, the rest is coarse, the top may be missing."""
    size, hop = 512, 256
    spectra = frames_of(pcm, size, hop)
    magnitude = np.abs(spectra) + 1e-9
    step_db = float(rng.uniform(1.0, 1.0 + 4.0 * level))
    log_db = 20 * np.log10(magnitude)
    # A worked example with steps of 3 dB: a bin of -31 dB becomes -30, and is made 1 dB louder.
    # Phases stay.
    coarse = 10 ** ((np.round(log_db / step_db) * step_db - log_db) / 20)
    # Each bin is compared with the mean of its band of 16, 500 Hz wide. One that is far below is
    # masked by its neighbours, and left out as a codec would.
    bands = np.add.reduceat(magnitude, np.arange(0, size // 2 + 1, 16), axis=1) / 16
    masked = magnitude < np.repeat(bands, 16, axis=1)[:, : size // 2 + 1] * rng.uniform(
        0.1, 0.2 + 0.5 * level
    )
    spectra = spectra * np.where(masked, 0.0, coarse).astype(np.float32)
    if rng.random() < 0.5:
        spectra[:, round(rng.uniform(4000.0, 7500.0) / SAMPLE_RATE_HZ * size) :] = 0.0
    return from_frames(spectra, size, hop, len(pcm))


def _clipped(pcm: Wave, rng: Rng, level: float) -> Wave:
    """Too loud for the converter: hard or soft limits at a part of the peak."""
    limit = float(np.abs(pcm).max()) * float(rng.uniform(1.0 - 0.75 * level, 1.0))
    if limit <= 0.0:
        return pcm
    if rng.random() < 0.5:
        return np.clip(pcm, -limit, limit)
    soft: Wave = np.tanh(pcm / limit) * np.float32(limit)
    return soft


def _packets_lost(pcm: Wave, rng: Rng, level: float) -> Wave:
    """Lose packets of 20 ms, some in a row: silence, or the packet before them, fading.

    Losses come in bursts, as of Gilbert's channel (Gilbert 1960, "Capacity of a burst-noise
    channel"): a good link turns bad now and then and stays so for a few packets.
    """
    packets = len(pcm) // _PACKET
    turns_bad = float(rng.uniform(0.01, 0.01 + 0.05 * level))
    stays_bad = float(rng.uniform(0.1, 0.6))
    is_repeated = rng.random() < 0.5
    heard = pcm.copy()
    is_lost, gain = False, 1.0
    # A worked example with 2 % and 50 %: of a hundred packets two turn bad, and each loss goes on
    # for two packets on average. Four percent are lost, in holes of 40 ms and not of 20. A packet
    # is repeated at half its loudness; the second of a hole, made of that, at an eighth.
    for packet in range(1, packets):
        is_lost = bool(rng.random() < (stays_bad if is_lost else turns_bad))
        gain = gain / 2 if is_lost else 1.0
        if is_lost:
            start = packet * _PACKET
            before = heard[start - _PACKET : start]
            heard[start : start + _PACKET] = before * np.float32(gain) if is_repeated else 0.0
    return heard


def augment(pcm: Wave, rng: Rng, level: float = 1.0, others: Sequence[Wave] = ()) -> Wave:
    """Send clean speech through a random room, microphone and line.

    Args:
        pcm: float32 [samples] at 16 kHz, full scale 1.
        rng: everything random is drawn from it.
        level: 0 leaves the speech alone, 1 is as bad as it gets: it scales how often an effect
            strikes and how hard.
        others: other utterances, as above, for babble in the background.

    Returns:
        float32 [samples] of the same length, within full scale.
    """
    level = float(np.clip(level, 0.0, 1.0))
    if level == 0.0 or not len(pcm):
        return pcm.astype(np.float32)

    def strikes(chance: float) -> bool:
        return bool(rng.random() < chance * level)

    heard = pcm.astype(np.float32)
    room = _room(rng, level) if strikes(0.5) else None
    microphone = level if strikes(0.7) else None
    if room is not None or microphone is not None:
        heard = _filtered(heard, rng, room=room, microphone=microphone)
    if strikes(0.85):
        # 5 to 40 dB at full level; even half of it knows a loud kitchen.
        snr_db = 40.0 - 35.0 * level**0.5 * float(rng.beta(1.2, 1.0))
        if len(others) and rng.random() < 0.25:
            noise = babble(len(heard), rng, others, int(rng.integers(1, 6)))
            snr_db = max(snr_db, 8.0)  # who of several talks to us must stay clear
        else:
            noise = NOISES[int(rng.integers(len(NOISES)))](len(heard), rng)
        heard = _mixed(heard, noise, snr_db)
    # The order is that of a real line: the room and the microphone first, then the noise around,
    # then the converter, the line and its losses.
    if strikes(0.1):
        heard = _clipped(heard, rng, level)
    if strikes(0.1):
        heard = telephone(heard / max(float(np.abs(heard).max()), 1.0))
    elif strikes(0.15):
        heard = _codec(heard, rng, level)
    elif strikes(0.05):
        heard = _mu_law(heard, 127)
    if strikes(0.08):
        heard = _packets_lost(heard, rng, level)
    if strikes(0.05):  # a cheap converter's zero is not zero
        heard = heard + np.float32(rng.uniform(-0.05, 0.05) * level)
    heard = heard * np.float32(10 ** (rng.uniform(-22.0, 8.0) * level / 20))
    peak = float(np.abs(heard).max())
    return heard if peak <= 1.0 else heard / np.float32(peak)
