"""Causal log-mel features: what the tokenizer hears."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks

SAMPLE_RATE_HZ = 16_000
FRAME_SAMPLES = 1_280  # 80 ms, 12.5 frames a second
HOP_SAMPLES = 160  # 10 ms
HOPS_PER_FRAME = FRAME_SAMPLES // HOP_SAMPLES  # 8
FFT_SAMPLES = 512  # 32 ms
NUM_MELS = 80
LOG_FLOOR = 1e-5  # about -100 dB re full scale


def mel_filterbank(
    num_mels: int, num_bins: int, sample_rate_hz: int, low_hz: float = 20.0
) -> Tensor:
    """Build triangular filters ``[num_bins, num_mels]``.

    They have unit peak and are equally spaced on the mel scale. Every one of ours takes in some
    bin, also the narrow low ones: 80 bands of 16 kHz over 257 bins.

    Source: O'Shaughnessy 1987, mel = 2595 log10(1 + f / 700); as torchaudio computes it.
    """
    bank: Tensor = melscale_fbanks(
        num_bins, low_hz, sample_rate_hz / 2, num_mels, sample_rate_hz, norm=None, mel_scale="htk"
    )
    return bank  # [num_bins, num_mels]


class LogMel(nn.Module):
    """Log-mel magnitudes whose hop t uses samples up to the end of hop t and none later."""

    window: Tensor
    bank: Tensor

    def __init__(self) -> None:
        super().__init__()
        bank = mel_filterbank(NUM_MELS, FFT_SAMPLES // 2 + 1, SAMPLE_RATE_HZ)
        self.register_buffer("window", torch.hann_window(FFT_SAMPLES), persistent=False)
        self.register_buffer("bank", bank / bank.sum(0), persistent=False)

    @property
    def context_shape(self) -> tuple[int]:
        """Shape of one slot's context: the earlier samples that a window still covers."""
        return (FFT_SAMPLES - HOP_SAMPLES,)

    def forward(self, pcm: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Analyse ``pcm [B, S]`` into log-mels ``[B, S / 160, 80]`` of roughly unit scale.

        The audio is 16 kHz and S a multiple of the hop.
        """
        seen = torch.cat([context, pcm], dim=1)
        frames = seen.unfold(1, FFT_SAMPLES, HOP_SAMPLES) * self.window  # [B, hops, 512]
        # Written out: complex abs() is several times slower on a CPU.
        # The offset, far below the floor, keeps the gradient of digital silence finite.
        power = torch.view_as_real(torch.fft.rfft(frames)).square().sum(-1)  # [B, hops, 257]
        magnitude = (power + 1e-12).sqrt()
        # A sine of full scale has a magnitude of 128 here: a Hann window of 512 samples sums to
        # 256, and half of that lies at the positive frequency. 128 is FFT_SAMPLES / 4, so the floor
        # is 1e-5 of it, or -100 dB.
        mel = torch.log((magnitude @ self.bank).clamp_min(LOG_FLOOR * FFT_SAMPLES / 4))
        return mel * 0.35 + 1.0, seen[:, seen.shape[1] - (FFT_SAMPLES - HOP_SAMPLES) :]


# One unit of a natural logarithm is 20 / ln 10 = 8.7 dB, and `LogMel` has 0.35 of these for one of
# its own: 24.8 dB.
MEL_UNIT_DB = 20.0 / math.log(10.0) / 0.35  # one unit of `LogMel` in decibels
