"""How far apart the assistant's voices are: a table, and a sample of each.

Each voice says the same sentences. Of each the distribution of its mel cepstra and of its pitch is
taken for a Gaussian, and two voices are as far apart as these are. Beside that stands how far the
two halves of one voice's own sentences are apart: voices that are told apart are much farther from
each other than from themselves.

Source: Campbell 1997, "Speaker recognition: a tutorial", section VI (divergence of Gaussians as a
distance of speakers).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile
import torch

from model.codec.features import HOP_SAMPLES, MEL_UNIT_DB, LogMel
from model.training.evaluation.conversation import Wave
from model.training.pitch import estimate_pitch
from model.training.speech.types import SAMPLE_RATE_HZ

Vectors = npt.NDArray[np.float64]

_NUM_CEPSTRA = 20
_LOUD_DB = 40.0  # what is so much quieter than the loudest frame is a pause
_SPREAD = 1e-3  # of each dimension at least, or a short sample would be infinitely far away


@dataclass(frozen=True, slots=True)
class VoiceTable:
    """Distances between voices.

    Attributes:
        voices: their names.
        distances: float [voices, voices], between two voices; on the diagonal, between the two
            halves of one voice.
    """

    voices: tuple[str, ...]
    distances: Vectors

    @property
    def nearest(self) -> float:
        """Return how far apart the two most alike voices are."""
        apart = self.distances[~np.eye(len(self.voices), dtype=bool)]
        return float(apart.min(initial=np.inf))

    @property
    def within(self) -> float:
        """Return how far a voice is from itself at most."""
        return float(np.diag(self.distances).max(initial=0.0))

    def table(self) -> str:
        """Lay the distances out for reading."""
        lines = ["".join(["".ljust(12), *(f"{voice:>10.9}" for voice in self.voices)])]
        for voice, row in zip(self.voices, self.distances, strict=True):
            lines.append("".join([voice.ljust(12), *(f"{value:>10.1f}" for value in row)]))
        lines.append(f"a voice from itself at most {self.within:.1f}")
        if len(self.voices) > 1:
            lines[-1] += f", from another at least {self.nearest:.1f}"
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Give all distances."""
        return {
            first: {
                second: round(float(value), 2) if np.isfinite(value) else None
                for second, value in zip(self.voices, row, strict=True)
            }
            for first, row in zip(self.voices, self.distances, strict=True)
        }


def voice_vectors(wave: Wave) -> Vectors:
    """Describe a voice, hop by hop: float [hops, 21], mel cepstra and the pitch in octaves.

    Args:
        wave: float32 [samples] at 16 kHz. Pauses are left out, and the mean of each cepstrum is
            kept: it is the voice, since all of them come by the same way.
    """
    pcm = torch.from_numpy(np.pad(wave, (0, -len(wave) % HOP_SAMPLES)))[None]
    hear = LogMel()
    mel = hear(pcm, torch.zeros(1, *hear.context_shape))[0][0].double().numpy()  # [hops, mels]
    octaves, is_voiced = (each[0].numpy() for each in estimate_pitch(pcm))  # [hops]
    loudness = mel.mean(1)
    # Of what is not voiced the pitch says nothing.
    is_said = is_voiced & (loudness > loudness.max() - _LOUD_DB / MEL_UNIT_DB)
    bands = mel.shape[1]
    # The cosine transform of a frame's bands: cepstrum 0 is its loudness, which is left out.
    angle = np.pi / bands * (np.arange(bands) + 0.5)
    basis = np.cos(angle[:, None] * np.arange(1, _NUM_CEPSTRA + 1)) * np.sqrt(2 / bands)
    vectors: Vectors = np.concatenate([mel @ basis, octaves[:, None]], 1)[is_said]
    return vectors


def divergence(first: Vectors, second: Vectors) -> float:
    """Return how far two sets of vectors are apart, as Gaussians with a spread a dimension.

    Infinitely far where one of the two has too few of them.
    """
    if min(len(first), len(second)) < 2:
        return float("inf")
    # Of two Gaussians of one dimension with the variances a and b, d apart, half of
    # a / b + b / a - 2 + d * d * (1 / a + 1 / b); 0 for the same one.
    a, b = first.var(0) + _SPREAD, second.var(0) + _SPREAD
    apart = (first.mean(0) - second.mean(0)) ** 2
    return float(0.5 * (a / b + b / a - 2 + apart * (1 / a + 1 / b)).sum())


def compare_voices(said: Mapping[str, Sequence[Wave]]) -> VoiceTable:
    """Compare voices that said the same sentences, at least two each."""
    voices = tuple(said)
    vectors = {voice: [voice_vectors(wave) for wave in said[voice]] for voice in voices}
    whole = {voice: np.concatenate(each) for voice, each in vectors.items()}
    distances = np.zeros((len(voices), len(voices)))
    for i, first in enumerate(voices):
        halves = [np.concatenate(vectors[first][half::2]) for half in (0, 1)]
        distances[i, i] = divergence(*halves)
        for j, second in enumerate(voices[:i]):
            distances[i, j] = distances[j, i] = divergence(whole[first], whole[second])
    return VoiceTable(voices, distances)


def save_samples(directory: Path, said: Mapping[str, Wave]) -> None:
    """Write what each voice said, float32 [samples] at 16 kHz, as `NAME.wav` with 16 bits."""
    directory.mkdir(parents=True, exist_ok=True)
    for voice, wave in said.items():
        soundfile.write(directory / f"{voice}.wav", wave, SAMPLE_RATE_HZ, subtype="PCM_16")
