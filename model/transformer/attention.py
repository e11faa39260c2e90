"""Transformer layers shared by the backbone and the depth transformer, and the visibility rule.

Modules here hold weights only. The same layer runs over whole sequences (training, `forward`) and
over remembered keys and values (`step`), where the state is an explicit value.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels.nf4 import PlanarNF4Gated
from kernels.rmsnorm import rms_norm
from kernels.silu import gated_silu
from model.cache.state import Kind
from model.cache.store import LayerMemory
from model.config import LMConfig
from model.transformer.backend import KernelModule
from model.transformer.gradients import attend, hiding, normalise, turn

# One layer, as two additions to what flows through it:
#
#     x = x + attention(norm1(x))
#     x = x + mlp(norm2(x))
#
# Training runs it over [B, T] with a mask (`forward`), serving over the newest steps with their
# memory (`step`): `LayerMemory.enter` stores keys and values, `attend` reads what each step sees.
#
# Source: Vaswani et al. 2017, "Attention is all you need", section 3.2; Xiong et al. 2020, "On
# layer normalization in the transformer architecture" (norms first); Shazeer 2020, "GLU variants
# improve transformer" (the MLP).


class RMSNorm(KernelModule):
    """Scale to unit mean square, in fp32, then by a learned weight."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x: [..., dim]` over its last axis."""
        if self.backend == "reference":
            if x.requires_grad and x.dtype == torch.float32 and x.device.type == "cpu":
                return normalise(x, self.weight, self.eps)
            return F.rms_norm(x, self.weight.shape, self.weight, self.eps)
        return rms_norm(x, self.weight, self.eps, backend=self.backend)[0]

    def add(self, x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum of two [..., dim], normalised, and the sum itself."""
        if self.backend == "reference":
            total = residual + x
            return self(total), total
        return rms_norm(x, self.weight, self.eps, residual=residual, backend=self.backend)


class GatedMLP(KernelModule):
    """`down(silu(gate(x)) * up(x))`, gate and up in one linear.

    Attributes:
        gate_up: the linear, gates first; or a `PlanarNF4Gated`, which gates as well.
        down: the linear after it.
    """

    gate_up: nn.Module

    def __init__(self, dim: int, ff_dim: int) -> None:
        super().__init__()
        # Another kind of linear where the weights are loaded in few bits.
        self.gate_up: nn.Module = nn.Linear(dim, 2 * ff_dim, bias=False)
        self.down = nn.Linear(ff_dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `x: [..., dim]` to the same shape."""
        gate_up: Tensor = self.gate_up(x)
        if isinstance(self.gate_up, PlanarNF4Gated):
            gated = gate_up  # in the same launch
        elif self.backend == "reference":
            gate, up = gate_up.chunk(2, dim=-1)
            gated = F.silu(gate) * up
        else:
            gated = gated_silu(gate_up, backend=self.backend)
        y: Tensor = self.down(gated)
        return y


class Attention(nn.Module):
    """Multi-head attention with a fused query, key and value linear.

    Args:
        dim: width of input and output.
        num_heads: query heads.
        num_kv_heads: key and value heads, shared by groups of query heads.
    """

    def __init__(self, dim: int, num_heads: int, num_kv_heads: int) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads = num_heads, num_kv_heads
        self.head_dim = dim // num_heads
        self.qkv = nn.Linear(dim, (num_heads + 2 * num_kv_heads) * self.head_dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)

    def forward(
        self, x: Tensor, rope: Tensor | None, mask: Tensor | None, *, is_causal: bool = False
    ) -> Tensor:
        """Attend within whole sequences.

        Args:
            x: float [B, T, D].
            rope: complex64 [B, T, 1, head_dim / 2] from `rope_table`, or None for no positions.
            mask: bool [B, 1, T, T], True where the query (rows) sees the key, never above the
                diagonal; or what `hiding` makes of that; or None.
            is_causal: without a mask, hide the future.

        Returns:
            float [B, T, D].
        """
        q, k, v = self._project(x, rope)  # [B, T, H, head_dim] each
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # [B, H, T, head_dim]
        if q.dtype == torch.bfloat16 and q.device.type == "cpu" and mask is not None:
            # The fused kernel's way back is some three times slower there.
            groups = self.num_heads // self.num_kv_heads
            k, v = (x.repeat_interleave(groups, dim=1) if groups > 1 else x for x in (k, v))
            y = attend(q, k, v, hiding(mask, q.dtype) if mask.dtype == torch.bool else mask)
        else:
            y = F.scaled_dot_product_attention(
                q,
                k,
                v,
                attn_mask=mask,
                is_causal=is_causal,
                enable_gqa=self.num_kv_heads != self.num_heads,
            )
        out: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return out

    def _project(self, x: Tensor, rope: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        # Values carry no position. Queries and keys do, so they are rotated together, in one call:
        # a score then depends on how far apart two steps are, and not on where they stand.
        # Source: Su et al. 2021, "RoFormer: Enhanced transformer with rotary position embedding",
        # section 3.2.
        heads, kv_heads = self.num_heads, self.num_kv_heads
        qkv = self.qkv(x).unflatten(-1, (heads + 2 * kv_heads, self.head_dim))  # [B, T, H, D]
        qk, v = qkv.split((heads + kv_heads, kv_heads), dim=2)  # [B, T, H, D] each
        if rope is not None:
            qk = turn(qk, rope)
        q, k = qk.split((heads, kv_heads), dim=2)  # [B, T, heads, D] and [B, T, kv_heads, D]
        return q, k, v

    def step(self, x: Tensor, rope: Tensor, memory: LayerMemory) -> Tensor:
        """Write the keys and values of new steps, then attend to what each step may see.

        Args:
            x: float [n, T, D].
            rope: complex64 [n, T, 1, head_dim / 2].
            memory: this layer's part of the state, from `LMState.advance`; written.

        Returns:
            float [n, T, D].
        """
        n, steps, _ = x.shape
        heads, kv_heads, head_dim = self.num_heads, self.num_kv_heads, self.head_dim
        qkv = self.qkv(x).to(memory.dtype).view(n, steps, heads + 2 * kv_heads, head_dim)
        y = memory.attend(memory.enter(qkv, rope))  # [n, T, H, D]
        out: Tensor = self.out(y.reshape(n, steps, heads * head_dim))
        return out


class CrossAttention(nn.Module):
    """Attend to a condition, whose keys and values are computed once for a session.

    Args:
        dim: width of input, output and condition.
        num_heads: heads.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(dim)
        self.q = nn.Linear(dim, dim, bias=False)
        self.kv = nn.Linear(dim, 2 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)

    def remember(self, condition: Tensor) -> Tensor:
        """Return keys and values [2, heads, L, head_dim] of `condition: [L, dim]`."""
        # [L, 2, heads, head_dim]
        kv = torch.unflatten(self.kv(condition), -1, (2, self.num_heads, -1))
        return kv.permute(1, 2, 0, 3)

    def forward(self, x: Tensor, kv: Tensor) -> Tensor:
        """Attend from `x: [n, T, dim]` to all of `kv: [2, n, heads, L, head_dim]`."""
        # [n, heads, T, head_dim]
        q = self.q(self.norm(x)).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        y = F.scaled_dot_product_attention(q, kv[0], kv[1])
        out: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return out


class Layer(nn.Module):
    """One pre-norm transformer layer: attention, then gated MLP, each added to the residual.

    In between, a layer of some models attends to what the session's condition is.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        num_kv_heads: int,
        ff_dim: int,
        norm_eps: float,
        *,
        has_cross: bool = False,
    ) -> None:
        super().__init__()
        self.norm1 = RMSNorm(dim, norm_eps)
        self.attention = Attention(dim, num_heads, num_kv_heads)
        self.norm2 = RMSNorm(dim, norm_eps)
        self.mlp = GatedMLP(dim, ff_dim)
        self.cross = CrossAttention(dim, num_heads) if has_cross else None

    def forward(
        self, x: Tensor, rope: Tensor | None, mask: Tensor | None, *, is_causal: bool = False
    ) -> Tensor:
        """Run whole sequences; arguments as `Attention.forward`."""
        x = x + self.attention(self.norm1(x), rope, mask, is_causal=is_causal)
        y: Tensor = x + self.mlp(self.norm2(x))
        return y

    def step(
        self, x: Tensor, rope: Tensor, memory: LayerMemory, cross: Tensor | None = None
    ) -> Tensor:
        """Run new steps against the state.

        Args:
            x: float [n, T, D].
            rope: complex64 [n, T, 1, head_dim / 2].
            memory: this layer's part of the state, from `LMState.advance`; written.
            cross: [2, n, heads, L, head_dim] of the condition, for layers that attend to one.
        """
        y: Tensor = self.attention.step(self.norm1(x), rope, memory)
        if self.cross is not None and cross is not None:
            x = x + y
            y = self.cross(x, cross)
        y, x = self.norm2.add(y, x)
        out: Tensor = x + self.mlp(y)
        return out


class Layers(nn.ModuleList):
    """Layers in order; a module list that knows what it holds."""

    def __iter__(self) -> Iterator[Layer]:
        """Go through the layers from the input on."""
        return cast("Iterator[Layer]", super().__iter__())


def visibility(kind: Tensor, config: LMConfig) -> Tensor:
    """Say which earlier steps each step of a whole sequence sees, at full-depth layers.

    A key is visible if it is not later than the query and is PREFIX, or is among the newest
    `text_window` text steps or the newest `audio_window` audio steps at the query's time. PAD is
    seen by nobody but itself. Below `audio_entry_layer` LISTEN keys are hidden as well.

    Args:
        kind: int64 [B, T] of `Kind`.
        config: for the windows.

    Returns:
        bool [B, T, T], rows are queries.
    """
    # A worked example with a text window of 1 and an audio window of 2. Ordinals count the steps of
    # a group up to each step; the age of a key is the query's ordinal less its own.
    #
    #     step             0       1     2       3       4     5
    #     kind             PREFIX  TEXT  LISTEN  LISTEN  TEXT  SPEAK
    #     text ordinal     0       1     1       1       2     2
    #     audio ordinal    0       0     1       2       2     3
    #
    #     step 3 sees      0       1     2       3
    #     step 4 sees      0       -     2       3       4             step 1 has age 2 - 1 = 1
    #     step 5 sees      0       -     -       3       4     5       step 2 has age 3 - 1 = 2
    #
    # A minute of sound pushes out no word, and a long text no sound: each has its own window.
    seen = torch.zeros(1, dtype=torch.bool, device=kind.device)
    audio = kind > Kind.TEXT
    for member, window in ((kind == Kind.TEXT, config.text_window), (audio, config.audio_window)):
        ordinal = member.cumsum(1, dtype=torch.int32)  # [B, T]
        age = ordinal[:, :, None] - ordinal[:, None, :]  # [B, T, T], query by key
        seen = seen | (member[:, None, :] & (age < window))
    seen = seen | (kind == Kind.PREFIX)[:, None, :]
    seen = torch.tril(seen)
    # A query that sees nothing would make softmax divide by zero: everyone sees themselves.
    return seen | torch.eye(kind.shape[1], dtype=torch.bool, device=kind.device)
