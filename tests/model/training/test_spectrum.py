"""Power spectra and their gradients are those of `torch.stft`."""

from __future__ import annotations

import pytest
import torch

from model.training.spectrum import power_spectrum


@pytest.mark.parametrize(
    ("size", "hop", "samples"), [(64, 16, 320), (64, 16, 331), (32, 32, 97), (128, 32, 640)]
)
def test_spectrum_is_that_of_stft(size: int, hop: int, samples: int) -> None:
    """Lengths that are no multiple of the hop among them; the ends of spectrum and wave as well."""
    generator = torch.Generator().manual_seed(samples)
    pcm = torch.randn(2, samples, generator=generator, dtype=torch.float64, requires_grad=True)
    window = torch.hann_window(size, dtype=torch.float64)
    whole = torch.stft(pcm, size, hop, window=window, return_complex=True)
    expected = torch.view_as_real(whole).square().sum(-1).transpose(1, 2)
    got = power_spectrum(pcm, window, hop)
    torch.testing.assert_close(got, expected)
    grad = torch.randn(expected.shape, generator=generator, dtype=torch.float64)
    (wanted,) = torch.autograd.grad(expected, pcm, grad)
    (made,) = torch.autograd.grad(got, pcm, grad)
    torch.testing.assert_close(made, wanted)
