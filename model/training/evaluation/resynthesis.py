"""What the audio tokenizer costs: words heard in speech before and after it, and how it looks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from model.training.evaluation.conversation import Wave
from model.training.evaluation.scoring import WordErrors, word_errors
from model.training.speech.types import SAMPLE_RATE_HZ

FRAME_SAMPLES = 1_280  # 80 ms at 16 kHz
_WINDOW, _HOP = 512, 160  # 32 ms every 10 ms
_FLOOR_DB = -80.0


class Codec(Protocol):
    """An audio tokenizer, used offline."""

    def encode(self, pcm: torch.Tensor) -> torch.Tensor:
        """Encode float32 [B, S], whole frames, into int64 codes [B, T, K]."""
        ...

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """Decode codes [B, T, K] into float32 [B, S], aligned with what was encoded."""
        ...


@dataclass(frozen=True, slots=True)
class VoiceComparison:
    """What the recogniser heard of one voice, over the same texts."""

    voice: str
    original: WordErrors
    resynthesis: WordErrors


@dataclass(frozen=True, slots=True)
class CodecReport:
    """The comparison over all voices."""

    voices: tuple[VoiceComparison, ...]

    @property
    def original(self) -> WordErrors:
        """Word errors on the originals of all voices."""
        return _total([v.original for v in self.voices])

    @property
    def resynthesis(self) -> WordErrors:
        """Word errors on the resynthesised speech of all voices."""
        return _total([v.resynthesis for v in self.voices])

    def table(self) -> str:
        """Lay the figures out for reading."""
        lines = [f"{'codec':12}{'words':>8}{'original WER':>15}{'resynthesis WER':>18}"]
        for compared in (*self.voices, VoiceComparison("all", self.original, self.resynthesis)):
            rates = (100 * (e.rate or 0.0) for e in (compared.original, compared.resynthesis))
            lines.append(
                f"{compared.voice:12}{compared.original.words:>8}"
                + "".join(f"{rate:>{w}.1f}" for rate, w in zip(rates, (15, 18), strict=True))
            )
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Give all figures."""
        return {
            "original_wer": self.original.rate,
            "resynthesis_wer": self.resynthesis.rate,
            "words": self.original.words,
            "voices": {
                v.voice: {"original_wer": v.original.rate, "resynthesis_wer": v.resynthesis.rate}
                for v in self.voices
            },
        }


def _total(parts: Sequence[WordErrors]) -> WordErrors:
    return WordErrors(sum(p.errors for p in parts), sum(p.words for p in parts))


def resynthesise(codec: Codec, wave: Wave) -> Wave:
    """Send float32 [samples] at 16 kHz through the codec and back; the length is kept."""
    padded = np.pad(wave, (0, -len(wave) % FRAME_SAMPLES)).astype(np.float32)
    with torch.inference_mode():
        pcm: Wave = codec.decode(codec.encode(torch.from_numpy(padded)[None]))[0].float().numpy()
    return pcm[: len(wave)]


def compare_codec(
    codec: Codec,
    recognise: Callable[[Wave], str],
    texts: Sequence[str],
    voices: Sequence[str],
    speak: Callable[[str, str], Wave],
) -> CodecReport:
    """Compare what a recogniser hears in original and in resynthesised speech.

    Args:
        codec: the tokenizer and vocoder.
        recognise: float32 [samples] at 16 kHz to words.
        texts: what is said, once in every voice.
        voices: names of the voices.
        speak: a voice's name and a text to float32 [samples] at 16 kHz.
    """
    compared = []
    for voice in voices:
        before: list[tuple[str, str]] = []
        after: list[tuple[str, str]] = []
        bar = tqdm(texts, desc=f"codec, {voice}", unit="text", mininterval=5.0, disable=None)
        # The same audio is heard before and after, so that what the recogniser gets wrong by itself
        # is in both figures: their difference is the codec's.
        for text in bar:
            wave = speak(voice, text)
            before.append((text, recognise(wave)))
            after.append((text, recognise(resynthesise(codec, wave))))
        compared.append(VoiceComparison(voice, word_errors(before), word_errors(after)))
    return CodecReport(tuple(compared))


def spectrogram_db(wave: Wave) -> npt.NDArray[np.float64]:
    """Give the power spectrum of float32 [samples] in dB below its peak: [257, hops]."""
    padded = np.pad(wave, (0, max(0, _WINDOW - len(wave))))
    # A window of 32 ms every 10 ms: [hops, 512], without a copy.
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP]
    power = np.abs(np.fft.rfft(frames * np.hanning(_WINDOW))).T ** 2
    level: npt.NDArray[np.float64] = 10 * np.log10(np.maximum(power, 1e-12))
    return np.asarray(np.maximum(level - level.max(), _FLOOR_DB), np.float64)


def save_spectrograms(path: Path, pairs: Sequence[tuple[str, Wave, Wave]]) -> None:
    """Draw original and resynthesis side by side, one row for each (title, original, resynthesis).

    Args:
        path: of the picture; its suffix chooses the format.
        pairs: float32 [samples] at 16 kHz each.
    """
    # Here: it takes long to import, and only the picture needs it.
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(11, 2.4 * len(pairs)), layout="constrained")
    rows = figure.subplots(len(pairs), 2, sharey=True, squeeze=False)
    for axes, (title, original, resynthesis) in zip(rows, pairs, strict=True):
        for axis, name, wave in zip(
            axes, ("original", "resynthesis"), (original, resynthesis), strict=True
        ):
            axis.imshow(
                spectrogram_db(wave),
                origin="lower",
                aspect="auto",
                extent=(0.0, len(wave) / SAMPLE_RATE_HZ, 0.0, SAMPLE_RATE_HZ / 2000),
                vmin=_FLOOR_DB,
                vmax=0.0,
                cmap="magma",
            )
            axis.set_title(f"{title}, {name}", fontsize=9)
            axis.set_xlabel("s")
        axes[0].set_ylabel("kHz")
    figure.savefig(path, dpi=110)
