"""Source-filter vocoder: pulses and noise, each shaped by a minimum-phase filter, every 10 ms.

The network says pitch, voicing and two smooth spectra; signal processing makes the wave. That
leaves little to learn, so speech is clean after minutes of training, and it streams: all it carries
is a phase and two overlaps.

Source: the source-filter model of speech (Fant 1960); band-limited pulses by the closed form of the
Dirichlet kernel; minimum phase by folding the real cepstrum (Oppenheim & Schafer, "Discrete-Time
Signal Processing", 13.5).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.codec.features import HOP_SAMPLES, NUM_MELS, SAMPLE_RATE_HZ, mel_filterbank

# A worked example of the overlap-add. Windows of 640 samples begin every 160, so four of them cover
# each sample. The last one that covers a hop begins with it and ends 480 samples after it: so long
# a sample waits to be final. Four Hann windows at such distances sum to 2 everywhere; halved, they
# sum to 1. A filtered window is up to 1,024 samples long: 640 and a tail of 384, which is added to
# the next windows.
WINDOW_SAMPLES = 640
FILTER_SAMPLES = 1_024
# 480: a sample is final once its last window has been added.
DELAY_SAMPLES = WINDOW_SAMPLES - HOP_SAMPLES
LOWEST_HZ, HIGHEST_HZ = 55.0, 420.0
# Samples; a table keeps the noise a function of the position, so streaming is exact.
NOISE_PERIOD = 1 << 16


def _mel_to_bins() -> Tensor:
    """Matrix ``[80, 513]`` that interpolates a log spectrum from mel points to FFT bins."""
    bank = mel_filterbank(NUM_MELS, FILTER_SAMPLES // 2 + 1, SAMPLE_RATE_HZ).T
    centres = bank.argmax(1).double()
    bins = torch.arange(FILTER_SAMPLES // 2 + 1, dtype=torch.float64)
    right = torch.searchsorted(centres, bins).clamp(1, NUM_MELS - 1)
    left = right - 1
    share = ((bins - centres[left]) / (centres[right] - centres[left]).clamp_min(1e-9)).clamp(0, 1)
    matrix = torch.zeros(NUM_MELS, len(bins), dtype=torch.float64)
    matrix[left, torch.arange(len(bins))] += 1 - share
    matrix[right, torch.arange(len(bins))] += share
    return matrix.float()


class Vocoder(nn.Module):
    """Turn hop-rate features into a wave.

    State of one slot: ``phase [1]`` (cycles) and ``position [1]`` (samples) as float64, the last
    480 samples of both excitations ``[2, 480]``, the overlap still to be added ``[1024 - 160]`` and
    the last pitch ``[1]`` in octaves.
    """

    to_bins: Tensor
    window: Tensor
    noise: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pitch = nn.Linear(channels, 2)  # octaves above LOWEST_HZ, voicing logit
        self.spectra = nn.Linear(channels, 2 * NUM_MELS)  # natural log magnitudes: harmonic, noise
        nn.init.zeros_(self.pitch.weight)
        nn.init.constant_(self.spectra.bias, -3.0)
        self.register_buffer("to_bins", _mel_to_bins(), persistent=False)
        self.register_buffer("window", torch.hann_window(WINDOW_SAMPLES) / 2.0, persistent=False)
        table = torch.randn(NOISE_PERIOD, generator=torch.Generator().manual_seed(1))
        self.register_buffer("noise", table, persistent=False)

    def init_state(self, num_slots: int, device: torch.device | str = "cpu") -> list[Tensor]:
        """Return the state of `num_slots` silent voices, slot axis first."""
        return [
            torch.zeros(num_slots, 2, dtype=torch.float64, device=device),
            torch.zeros(num_slots, 2, DELAY_SAMPLES, device=device),
            torch.zeros(num_slots, FILTER_SAMPLES - HOP_SAMPLES, device=device),
            torch.full((num_slots, 1), 1.0, device=device),
        ]

    def predict_pitch(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pitch and the voicing logit, both ``[B, H]``, of ``x [B, H, channels]``.

        The pitch is in octaves above 55 Hz.
        """
        out = self.pitch(x).float()
        return out[..., 0] + 1.0, out[..., 1]

    def forward(
        self,
        x: Tensor,
        state: list[Tensor],
        octaves: Tensor | None = None,
        voiced: Tensor | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Synthesise ``x [B, H, channels]`` (H hops) into ``pcm [B, 160 * H]``, 480 samples late.

        Args:
            x: hop-rate features.
            state: from `init_state`, or what the call before returned.
            octaves: pitch to use in place of the predicted one (training), ``[B, H]`` octaves above
                55 Hz.
            voiced: voicing to use in place of the predicted one (training), ``[B, H]`` in 0..1.
        """
        clock, history, overlap, last = state
        if octaves is None or voiced is None:
            octaves, logit = self.predict_pitch(x)
            voiced = (logit > 0).float()
        excitation, clock = self._excite(octaves, voiced, clock, last)
        spectra = self.spectra(x).float().unflatten(-1, (2, NUM_MELS)).clamp(-12.0, 6.0)
        pcm, history, overlap = self._filter(excitation, spectra, history, overlap)
        return pcm, [clock, history, overlap, octaves[:, -1:].to(last.dtype)]

    def _excite(
        self, octaves: Tensor, voiced: Tensor, clock: Tensor, last: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Make pulses and noise of unit power, ``[B, 2, 160 * H]``."""
        ramp = torch.arange(1, HOP_SAMPLES + 1, device=octaves.device) / HOP_SAMPLES
        before = torch.cat([last.to(octaves.dtype), octaves[:, :-1]], dim=1)
        track = (before[..., None] + (octaves - before)[..., None] * ramp).flatten(1)
        hertz = (LOWEST_HZ * torch.exp2(track)).clamp(LOWEST_HZ, HIGHEST_HZ)  # [B, 160 * H]
        # In float64: after a minute the phase counts thousands of cycles, and float32 would leave
        # it too coarse to hear a steady tone.
        phase = clock[:, :1] + torch.cumsum(hertz.double() / SAMPLE_RATE_HZ, dim=1)
        # At 100 Hz there is room for 80 harmonics below 8 kHz. The sum of their cosines at phase p
        # is (sin((2 * 80 + 1) pi p) / sin(pi p) - 1) / 2, without a loop; each cosine has power
        # 1/2, so that the factor sqrt(2 / 80) gives unit power. Near p = 0 the quotient tends to
        # 161.
        count = torch.floor(0.5 * SAMPLE_RATE_HZ / hertz)
        half = math.pi * (phase - torch.round(phase)).float()
        sine = torch.sin(half)
        near = sine.abs() < 1e-4
        kernel = torch.sin((2 * count + 1) * half) / torch.where(near, torch.ones_like(sine), sine)
        pulses = 0.5 * (torch.where(near, 2 * count + 1, kernel) - 1.0) * torch.sqrt(2.0 / count)
        pulses = pulses * voiced.repeat_interleave(HOP_SAMPLES, dim=1)
        samples = track.shape[1]
        at = (clock[:, 1:].long() + torch.arange(samples, device=clock.device)) % NOISE_PERIOD
        after = torch.stack(
            [
                torch.remainder(phase[:, -1], 1.0),
                torch.remainder(clock[:, 1] + samples, NOISE_PERIOD),
            ],
            1,
        )
        return torch.stack([pulses, self.noise[at]], dim=1), after

    def _filter(
        self, excitation: Tensor, spectra: Tensor, history: Tensor, overlap: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Shape excitations ``[B, 2, S]`` by log spectra ``[B, H, 2, 80]``, overlap-add the sum."""
        seen = torch.cat([history, excitation], dim=2)
        frames = seen.unfold(2, WINDOW_SAMPLES, HOP_SAMPLES) * self.window  # [B, 2, H, 640]
        log_magnitude = (spectra @ self.to_bins).transpose(1, 2)  # [B, 2, H, 513]
        cepstrum = torch.fft.irfft(log_magnitude, n=FILTER_SAMPLES)
        # The cepstrum of a real spectrum is even. Moving its second half onto its first gives the
        # response that has the same magnitude and comes as early as it can: minimum phase. So a
        # filter's energy lies in its first samples, and little is lost where its tail is cut off.
        fold = torch.cat(
            [
                cepstrum[..., :1],
                2 * cepstrum[..., 1 : FILTER_SAMPLES // 2],
                cepstrum[..., FILTER_SAMPLES // 2 : FILTER_SAMPLES // 2 + 1],
            ],
            -1,
        )
        logarithm = torch.fft.rfft(functional.pad(fold, (0, FILTER_SAMPLES // 2 - 1)))
        # On a CPU the exponential of a complex number takes eight times as long as this.
        response = torch.polar(logarithm.real.exp(), logarithm.imag)
        shaped = torch.fft.irfft(  # [B, H, 1024]
            (torch.fft.rfft(frames, n=FILTER_SAMPLES) * response).sum(1), n=FILTER_SAMPLES
        )
        hops = shaped.shape[1]
        total = HOP_SAMPLES * (hops - 1) + FILTER_SAMPLES
        added = functional.fold(  # [B, 160 * (H - 1) + 1024]
            shaped.transpose(1, 2),
            (1, total),
            kernel_size=(1, FILTER_SAMPLES),
            stride=(1, HOP_SAMPLES),
        ).flatten(1)
        added = added + functional.pad(overlap, (0, added.shape[1] - overlap.shape[1]))
        ready = HOP_SAMPLES * hops
        return added[:, :ready], seen[:, :, ready:], added[:, ready:]
