"""Power spectra that waves are compared by, with the way back written by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

if TYPE_CHECKING:
    from torch.autograd.function import FunctionCtx


def power_spectrum(pcm: Tensor, window: Tensor, hop: int) -> Tensor:
    """Return what `torch.stft` has, as squared magnitudes.

    Args:
        pcm: float32 [B, S].
        window: [size], what is heard at once; centred, and mirrored at both ends.
        hop: samples between windows, a divisor of the size.

    Returns:
        [B, S // hop + 1, size / 2 + 1], time before frequency.
    """
    side = len(window) // 2
    seen = functional.pad(pcm, (side, side), mode="reflect")
    return cast("Tensor", _Power.apply(seen, window, hop))  # type: ignore[no-untyped-call]


class _Power(Function):
    # What autograd derives puts half a spectrum into a whole one of zeros and transforms that, and
    # adds the windows' gradients one sample at a time.
    # With p = |X|^2 of half a spectrum, dx is the sum over its bins of 2 dp Re(X e^(i w n)). The
    # inverse transform of half a spectrum counts every bin twice except for the two at its ends.
    @staticmethod
    def forward(ctx: FunctionCtx, seen: Tensor, window: Tensor, hop: int) -> Tensor:
        spectrum = torch.fft.rfft(seen.unfold(1, len(window), hop) * window)
        ctx.save_for_backward(spectrum, window)
        ctx.samples, ctx.hop = seen.shape[1], hop  # type: ignore[attr-defined]
        return torch.view_as_real(spectrum).square().sum(-1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        spectrum, window = ctx.saved_tensors
        size, hop = len(window), ctx.hop
        grad = grads[0].clone()
        grad[..., 0] *= 2
        grad[..., -1] *= 2
        weighted = torch.view_as_complex(torch.view_as_real(spectrum) * grad.unsqueeze(-1))
        frames = torch.fft.irfft(weighted, n=size, norm="forward") * window  # [B, T, size]
        # A worked example of this sum, windows of 4 hops: hop 5 was seen by the windows that begin
        # at the hops 2, 3, 4 and 5, as their fourth, third, second and first part.
        batch, count = frames.shape[:2]
        parts = frames.view(batch, count, size // hop, hop)
        made = frames.new_zeros(batch, ctx.samples)
        hops = made[:, : (count - 1 + size // hop) * hop].view(batch, -1, hop)
        for part in range(size // hop):
            hops[:, part : part + count] += parts[:, :, part]
        return made, None, None
