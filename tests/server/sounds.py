"""Sounds for tests, made from numbers: nothing is stored and nothing is installed."""

import base64

import numpy as np
import numpy.typing as npt

from server.audio.pcm import encode_pcm


def voice(seconds: float, rate_hz: int = 16_000) -> npt.NDArray[np.float32]:
    """Make a buzz with formants that moves as vowels do: enough for a voice detector."""
    time_s = np.arange(int(seconds * rate_hz)) / rate_hz
    pitch_hz = 120 + 15 * np.sin(2 * np.pi * 3 * time_s)
    phase = 2 * np.pi * np.cumsum(pitch_hz) / rate_hz
    pcm = np.zeros_like(time_s)
    for harmonic in range(1, 30):
        hz = harmonic * 120
        gain = sum(np.exp(-(((hz - formant) / 120) ** 2)) for formant in (600, 1_100, 2_500))
        pcm += (gain + 0.02) * np.sin(harmonic * phase)
    envelope = np.clip(np.abs(np.sin(2 * np.pi * 2 * time_s)), 0.2, None)
    return (0.2 * envelope * pcm / np.abs(pcm).max()).astype(np.float32)


def silence(seconds: float, rate_hz: int = 16_000) -> npt.NDArray[np.float32]:
    """Make silence."""
    return np.zeros(int(seconds * rate_hz), dtype=np.float32)


def base64_pcm(pcm: npt.NDArray[np.float32]) -> str:
    """Encode samples as the wire does."""
    return base64.b64encode(encode_pcm(pcm)).decode("ascii")
