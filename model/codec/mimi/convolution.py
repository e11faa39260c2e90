"""The convolutional half of Mimi: from samples to 40 ms steps and back.

Every convolution of it is `CausalConv`. One that strides by s has a kernel of 2 s: with s samples
folded into the channels it is a kernel of 2 that strides by one. A transposed one is the same the
other way: each step gives s samples, from itself and the step before.

Source: Zeghidour et al. 2021, "SoundStream", section III-B, made causal.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.codec.blocks import CausalConv
from model.codec.mimi.config import MimiConfig


def activated(conv: CausalConv, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
    """Apply an ELU to ``x [B, S, channels]`` and then `conv`; `x` stays as it is."""
    seen = torch.cat([context, x], dim=1)
    functional.elu_(seen[:, context.shape[1] :])
    return conv.over(seen)


class Residual(nn.Module):
    """Add what two convolutions make of the signal, the second without context."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.conv = CausalConv(channels, channels // 2, kernel)
        self.out = nn.Linear(channels // 2, channels)

    def forward(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Apply the block to ``x [B, S, channels]``."""
        mixed, context = activated(self.conv, x, context)
        return self.out(functional.elu_(mixed)).add_(x), context


# A worked example, the encoder's first stage: 64 channels at 24 kHz, ratio 4. Four neighbouring
# samples are folded into one step of 4 * 64 = 256 channels at 6 kHz. A kernel of two such steps
# sees eight samples and moves by four, which is a strided convolution of kernel 8. Rates and widths
# on the way:
#
#     samples   24,000 Hz     64 channels
#     stage 0    6,000 Hz    128            ratio 4
#     stage 1    1,200 Hz    256            ratio 5
#     stage 2      200 Hz    512            ratio 6
#     stage 3       25 Hz  1,024            ratio 8
#     out           25 Hz    512            steps of 40 ms; two of them make a frame
#
# The decoder goes the same way back.
class Stage(nn.Module):
    """One residual block and one change of rate.

    Args:
        channels: at the higher rate; twice as many at the lower.
        ratio: between the rates.
        kernel: of the residual block.
        is_down: whether the stage goes to the lower rate, the block first, or comes from it.
    """

    def __init__(self, channels: int, ratio: int, kernel: int, *, is_down: bool) -> None:
        super().__init__()
        self.ratio = ratio
        self.residual = Residual(channels, kernel)
        wide, folded = 2 * channels, ratio * channels
        self.resample = CausalConv(folded, wide, 2) if is_down else CausalConv(wide, folded, 2)

    def down(self, x: Tensor, contexts: Iterator[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Map ``x [B, S, channels]`` to ``[B, S / ratio, 2 * channels]``."""
        x, first = self.residual(x, next(contexts))
        # [B, S / ratio, ratio * channels]
        x = torch.unflatten(functional.elu_(x), 1, (-1, self.ratio)).flatten(2)
        x, second = self.resample(x, next(contexts))
        return x, [first, second]

    def up(self, x: Tensor, contexts: Iterator[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Map ``x [B, S, 2 * channels]`` to ``[B, S * ratio, channels]``."""
        x, first = activated(self.resample, x, next(contexts))
        x = torch.unflatten(x, 2, (self.ratio, -1)).flatten(1, 2)  # [B, S * ratio, channels]
        x, second = self.residual(x, next(contexts))
        return x, [first, second]


class Stages(nn.ModuleList):
    """Stages in order; a module list that knows what it holds."""

    def __iter__(self) -> Iterator[Stage]:
        """Go through the stages from the input on."""
        return cast("Iterator[Stage]", super().__iter__())


class Analysis(nn.Module):
    """Audio to steps of 40 ms."""

    def __init__(self, config: MimiConfig) -> None:
        super().__init__()
        self.stem = CausalConv(1, config.filters, config.kernel)
        widths = [config.filters << i for i in range(len(config.ratios))]
        self.stages = Stages(
            Stage(width, ratio, config.residual_kernel, is_down=True)
            for width, ratio in zip(widths, reversed(config.ratios), strict=True)
        )
        self.out = CausalConv(2 * widths[-1], config.dim, config.last_kernel)

    def forward(self, pcm: Tensor, contexts: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Map ``pcm [B, S]`` to ``[B, S / 960, dim]``."""
        before = iter(contexts)
        x, context = self.stem(pcm.unsqueeze(-1), next(before))
        after: list[Tensor] = [context]
        for stage in self.stages:
            x, used = stage.down(x, before)
            after += used
        x, context = activated(self.out, x, next(before))
        return x, [*after, context]


class Synthesis(nn.Module):
    """Steps of 40 ms to audio."""

    def __init__(self, config: MimiConfig) -> None:
        super().__init__()
        widths = [config.filters << i for i in reversed(range(len(config.ratios)))]
        self.stem = CausalConv(config.dim, 2 * widths[0], config.kernel)
        self.stages = Stages(
            Stage(width, ratio, config.residual_kernel, is_down=False)
            for width, ratio in zip(widths, config.ratios, strict=True)
        )
        self.out = CausalConv(config.filters, 1, config.last_kernel)

    def forward(self, x: Tensor, contexts: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Map ``x [B, T, dim]`` to ``pcm [B, 960 * T]``."""
        before = iter(contexts)
        x, context = self.stem(x, next(before))
        after: list[Tensor] = [context]
        for stage in self.stages:
            x, used = stage.up(x, before)
            after += used
        x, context = activated(self.out, x, next(before))
        return x.squeeze(-1), [*after, context]


class StepsToFrame(nn.Module):
    """One latent from the steps of a frame and of the frame before.

    A stream's first step stands for the frame that it does not have.
    """

    def __init__(self, config: MimiConfig) -> None:
        super().__init__()
        self.frame_steps = config.frame_steps
        self.conv = CausalConv(config.frame_steps * config.dim, config.dim, 2, bias=False)

    def forward(self, x: Tensor, context: Tensor, is_new: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``x [B, T * frame_steps, dim]`` to ``[B, T, dim]``; ``is_new: bool [B]``."""
        first = x[:, :1].repeat(1, 1, self.frame_steps)
        context = torch.where(is_new[:, None, None], first, context)
        y, context = self.conv(torch.unflatten(x, 1, (-1, self.frame_steps)).flatten(2), context)
        return y, context


class FrameToSteps(nn.Module):
    """The steps of a frame from its latent and the one before, each channel by itself."""

    def __init__(self, config: MimiConfig) -> None:
        super().__init__()
        # The part of the latent before and of the latent itself, for each step of the frame.
        self.weight = nn.Parameter(torch.full((2, config.frame_steps, config.dim), 0.5))

    def forward(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``x [B, T, dim]`` to ``[B, T * frame_steps, dim]``."""
        seen = torch.cat([context, x], dim=1).unsqueeze(2)  # [B, 1 + T, 1, dim]
        # Step j of a frame is weight[0, j] times the latent before plus weight[1, j] times its own:
        # a transposed convolution of stride 2 and kernel 4, one filter a channel.
        y = torch.addcmul(seen[:, :-1] * self.weight[0], seen[:, 1:], self.weight[1])
        return y.flatten(1, 2), x[:, -1:]
