"""Pictures of a training: losses over steps, spectrograms of original and resynthesis."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
import torch

from model.codec.features import FRAME_SAMPLES, SAMPLE_RATE_HZ

mpl.use("Agg")
from matplotlib import pyplot as plt

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from model.codec.mel import MelCodec
    from model.training.store import Clip

SMOOTHING = 0.9


def plot_losses(log: Path) -> Path | None:
    """Draw every figure of a stage's log over its steps.

    Returns:
        The picture's path; None where the stage was too short to log anything.
    """
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    if not rows:
        return None
    names = sorted({name for row in rows for name in row} - {"step", "time"})
    figure, axes = plt.subplots(
        1, len(names), figsize=(3.2 * len(names), 2.6), constrained_layout=True
    )
    for axis, name in zip(np.atleast_1d(axes), names, strict=True):
        # A batch without any of what a figure counts does not have it.
        steps = [row["step"] for row in rows if name in row]
        raw = [row[name] for row in rows if name in row]
        smooth, value = [], raw[0]
        # A running mean over about ten points. It begins with the first one, or each curve would
        # start at zero.
        for item in raw:
            value = SMOOTHING * value + (1 - SMOOTHING) * item
            smooth.append(value)
        axis.plot(steps, raw, alpha=0.25)
        axis.plot(steps, smooth, color="C0")
        axis.set_title(name)
        axis.set_xlabel("step")
    path = log.with_suffix(".png")
    figure.savefig(path, dpi=80)
    plt.close(figure)
    return path


def plot_spectrograms(codec: MelCodec, clips: Sequence[Clip], path: Path) -> None:
    """Draw each clip beside its resynthesis through the codec."""
    figure, axes = plt.subplots(
        len(clips), 2, figsize=(11, 2.3 * len(clips)), constrained_layout=True
    )
    for row, clip in zip(np.atleast_2d(axes), clips, strict=True):
        original = torch.from_numpy(clip.pcm / np.float32(32768.0))
        padded = torch.nn.functional.pad(original, (0, -len(original) % FRAME_SAMPLES))[None]
        made = codec.decode(codec.encode(padded))[0, : len(original)]
        for axis, wave, what in zip(
            row, (original, made), ("original", "resynthesis"), strict=True
        ):
            # Digital silence has no decibels; this is far below what is drawn.
            hiss = 1e-7 * np.random.default_rng(0).standard_normal(len(wave))
            axis.specgram(
                wave.numpy() + hiss, NFFT=512, noverlap=384, Fs=SAMPLE_RATE_HZ, vmin=-120, vmax=-30
            )
            axis.set_title(f"{clip.voice}, {what}: {clip.text}", fontsize=8)
            axis.set_ylabel("Hz")
    figure.savefig(path, dpi=80)
    plt.close(figure)
