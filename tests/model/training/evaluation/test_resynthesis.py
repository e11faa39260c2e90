"""The comparison of speech before and after the codec."""

from pathlib import Path

import numpy as np
import pytest
import torch

from model.training.evaluation.resynthesis import (
    compare_codec,
    resynthesise,
    save_spectrograms,
    spectrogram_db,
)


class HalvingCodec:
    """A codec that halves the level, and checks that it gets whole frames."""

    def encode(self, pcm: torch.Tensor) -> torch.Tensor:
        """Pass the samples on as if they were codes."""
        assert pcm.ndim == 2
        assert pcm.shape[1] % 1280 == 0
        return pcm[..., None]

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """Halve the level."""
        return codes[..., 0] / 2


def test_resynthesis_keeps_length() -> None:
    """A clip that is not a whole number of frames comes back as long as it was."""
    wave = np.ones(2000, np.float32)
    out = resynthesise(HalvingCodec(), wave)
    assert out.shape == (2000,)
    assert np.all(out == 0.5)


def test_word_errors_before_and_after() -> None:
    """A recogniser that mishears quiet speech charges the codec, and only the codec."""

    def recognise(wave: np.ndarray) -> str:
        return "one two" if wave.max() > 0.6 else "one too"

    report = compare_codec(
        HalvingCodec(),
        recognise,
        ["one two", "one two"],
        ["loud", "quiet"],
        lambda voice, _: np.full(3000, 1.0 if voice == "loud" else 0.5, np.float32),
    )
    loud, quiet = report.voices
    assert (loud.original.rate, loud.resynthesis.rate) == (0.0, 0.5)
    assert (quiet.original.rate, quiet.resynthesis.rate) == (0.5, 0.5)
    assert (report.original.rate, report.resynthesis.rate) == (0.25, 0.5)
    assert report.to_json()["voices"]["loud"]["resynthesis_wer"] == 0.5
    rows = [row.split() for row in report.table().splitlines()]
    assert ["all", "8", "25.0", "50.0"] in rows


@pytest.mark.parametrize("hertz", [500.0, 3000.0])
def test_spectrogram_peaks_at_the_tone(hertz: float) -> None:
    """A pure tone is loudest in its own bin, 31.25 Hz wide."""
    wave = np.sin(2 * np.pi * hertz * np.arange(16_000) / 16_000).astype(np.float32)
    level = spectrogram_db(wave)
    assert level.shape[0] == 257
    assert level.max() == 0.0
    assert abs(int(level.mean(axis=1).argmax()) - hertz / 31.25) <= 1


def test_picture_is_written(tmp_path: Path) -> None:
    """One row for each pair."""
    wave = np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32)
    save_spectrograms(tmp_path / "one.png", [("slt", wave, wave)])
    save_spectrograms(tmp_path / "two.png", [("slt", wave, wave), ("rms", wave, wave)])
    one, two = ((tmp_path / n).read_bytes() for n in ("one.png", "two.png"))
    assert one.startswith(b"\x89PNG")
    assert len(two) > len(one)
