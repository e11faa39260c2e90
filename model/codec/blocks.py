"""Causal building blocks that carry their left context explicitly.

Every block maps ``(x, context) -> (y, context)``: `x` is ``[batch, time, channels]`` and `context`
holds the last inputs the block still needs. One call over a whole recording from a zero context and
many calls over its pieces are therefore the same computation: streaming is not a mode.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

# From so many steps in a call on, a convolution on a CPU is faster done by the library's own than
# as one product with every step's inputs side by side, which are written out for it.
_LONG_CALL_STEPS = 64


# A worked example with a kernel of 3 and one step a call. The context holds the two steps before:
#
#     call   context   input   window      context after
#     1      0 0       a       0 0 a       0 a
#     2      0 a       b       0 a b       a b
#     3      a b       c       a b c       b c
#
# The same three windows come out of one call with the input a b c: that is why a stream and a whole
# recording have the same numbers.
class CausalConv(nn.Module):
    """Full convolution over time: frame t sees frames t - kernel + 1 .. t."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, *, bias: bool = True
    ) -> None:
        super().__init__()
        self.kernel = kernel
        self.in_channels = in_channels
        self.linear = nn.Linear(kernel * in_channels, out_channels, bias=bias)

    @property
    def context_shape(self) -> tuple[int, int]:
        """Shape of one slot's context: ``(kernel - 1, in_channels)``."""
        return (self.kernel - 1, self.in_channels)

    def forward(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Convolve ``x [B, T, in_channels]`` after `context`; returns ``[B, T, out_channels]``."""
        return self.over(torch.cat([context.to(x.dtype), x], dim=1))

    def over(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Do as `forward`, given context and inputs in one: ``seen [B, kernel - 1 + T, ...]``."""
        steps = seen.shape[1] - (self.kernel - 1)
        after = seen[:, steps:]
        if steps >= _LONG_CALL_STEPS and seen.device.type == "cpu":
            return self._convolve(seen), after
        # [B, T, kernel * in_channels]
        window = torch.cat([seen[:, k : k + steps] for k in range(self.kernel)], dim=-1)
        return self.linear(window), after

    def _convolve(self, seen: Tensor) -> Tensor:
        # The weights of the product are those of a two-dimensional convolution whose channels come
        # last; so do those of `seen`. Nothing is copied.
        weight = self.linear.weight.view(-1, 1, self.kernel, self.in_channels).permute(0, 3, 1, 2)
        image = seen.unsqueeze(1).permute(0, 3, 1, 2)  # [B, in_channels, 1, kernel - 1 + T]
        y = functional.conv2d(image, weight, self.linear.bias)
        return y.permute(0, 2, 3, 1).squeeze(1)


class DepthwiseCausalConv(nn.Module):
    """One causal filter per channel, as `kernel` multiply-adds.

    On a CPU these are faster than a grouped conv1d.
    """

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.channels = channels
        self.weight = nn.Parameter(torch.randn(kernel, channels) * kernel**-0.5)
        self.bias = nn.Parameter(torch.zeros(channels))

    @property
    def context_shape(self) -> tuple[int, int]:
        """Shape of one slot's context: ``(kernel - 1, channels)``."""
        return (self.kernel - 1, self.channels)

    def forward(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Filter ``x [B, T, channels]`` after `context`."""
        seen = torch.cat([context.to(x.dtype), x], dim=1)
        steps = x.shape[1]
        y = self.bias.to(x.dtype).expand_as(x)
        # Tap k of frame t is the input at t - (kernel - 1) + k: all frames are done for one tap at
        # a time.
        for k in range(self.kernel):
            y = torch.addcmul(y, seen[:, k : k + steps], self.weight[k].to(x.dtype))
        return y, seen[:, seen.shape[1] - (self.kernel - 1) :]


class ConvBlock(nn.Module):
    """Pre-norm residual pair at frame rate: a full causal convolution, then a two-layer MLP."""

    def __init__(self, channels: int, kernel: int = 3, expansion: int = 2) -> None:
        super().__init__()
        self.conv_norm = nn.LayerNorm(channels)
        self.conv = CausalConv(channels, channels, kernel)
        self.mlp_norm = nn.LayerNorm(channels)
        self.up = nn.Linear(channels, expansion * channels)
        self.down = nn.Linear(expansion * channels, channels)

    @property
    def context_shape(self) -> tuple[int, int]:
        """Shape of one slot's context."""
        return self.conv.context_shape

    def forward(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Apply the block to ``x [B, T, channels]``."""
        mixed, context = self.conv(self.conv_norm(x), context)
        x = x + functional.gelu(mixed)
        return x + self.down(functional.gelu(self.up(self.mlp_norm(x)))), context


class ConvNeXtBlock(nn.Module):
    """Residual block at hop rate: depthwise causal convolution, norm, MLP.

    Source: Liu et al. 2022, "A ConvNet for the 2020s", section 2.6, made causal.
    """

    def __init__(self, channels: int, kernel: int = 7, expansion: int = 2) -> None:
        super().__init__()
        self.conv = DepthwiseCausalConv(channels, kernel)
        self.norm = nn.LayerNorm(channels)
        self.up = nn.Linear(channels, expansion * channels)
        self.down = nn.Linear(expansion * channels, channels)

    @property
    def context_shape(self) -> tuple[int, int]:
        """Shape of one slot's context."""
        return self.conv.context_shape

    def forward(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Apply the block to ``x [B, T, channels]``."""
        mixed, context = self.conv(x, context)
        return x + self.down(functional.gelu(self.up(self.norm(mixed)))), context


def run_blocks(
    blocks: Sequence[nn.Module], x: Tensor, contexts: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Run `blocks` in order, threading each one's context."""
    after: list[Tensor] = []
    for block, context in zip(blocks, contexts, strict=True):
        x, context = block(x, context)  # noqa: PLW2901 - the context is replaced on purpose
        after.append(context)
    return x, after
