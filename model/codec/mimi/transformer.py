"""The transformer between Mimi's convolutions and its codes, over a ring of keys and values.

A stream's window moves once a frame, so that the first step of a frame sees one step less than the
last: when both of its steps are written to a ring as wide as the window, the oldest two are gone.
That is how Mimi is streamed everywhere, and where its codes differ from those of a whole recording
done at once, ten seconds in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.cache.rotary import rope_frequencies, rope_table, rotate_
from model.codec.mimi.config import MimiConfig
from model.codec.mimi.state import MimiState, Rows


@dataclass(frozen=True, slots=True)
class _Plan:
    """What the layers share in one call.

    Attributes:
        rope: complex64 [n, T, 1, head_dim / 2].
        slots: int64 [n, 1], with `columns` where the steps are written.
        columns: int64 [n, T].
        live: how many columns hold anything, the first ones.
        mask: [n * heads, T, live], 0 where a step sees a column and -inf elsewhere.
        runs: as `Rows.runs`.
    """

    rope: Tensor
    slots: Tensor
    columns: Tensor
    live: int
    mask: Tensor
    runs: tuple[tuple[slice, slice], ...] | None


def visible(position: Tensor, capacity: int, window: int, stride: int) -> Tensor:
    """Say which columns of the ring each step sees, once the call's steps are written.

    Args:
        position: int64 [n, T], consecutive.
        capacity: columns of the ring.
        window: newest steps that are visible.
        stride: steps that leave the window together.

    Returns:
        bool [n, T, capacity].
    """
    # A worked example: window and ring have 4 columns, frames 2 steps. Steps 4 and 5 have just been
    # written.
    #
    #     column       0   1   2   3
    #     holds step   4   5   2   3
    #
    # Step 4's frame ends with step 5, so it sees steps after 5 - 4 = 1 and not after itself: 2, 3,
    # 4. Step 5 sees 2, 3, 4, 5. Steps 0 and 1 are gone for both of them.
    column = torch.arange(capacity, device=position.device)
    newest = position[:, -1:]
    held = newest - (newest - column) % capacity  # [n, capacity], position in each column
    held = held[:, None]
    query = position[:, :, None]  # [n, T, 1]
    block_end = query + (stride - 1 - query % stride)
    return (held >= 0) & (held <= query) & (held > block_end - window)


class Attention(nn.Module):
    """Multi-head attention with a fused query, key and value linear, interleaved RoPE."""

    def __init__(self, config: MimiConfig) -> None:
        super().__init__()
        self.num_heads, self.head_dim = config.num_heads, config.head_dim
        self.qkv = nn.Linear(config.dim, 3 * config.dim, bias=False)
        self.out = nn.Linear(config.dim, config.dim, bias=False)

    def forward(self, x: Tensor, kv: Tensor, plan: _Plan) -> Tensor:
        """Write the keys and values of ``x [n, T, dim]``, then attend.

        Args:
            x: new steps.
            kv: [2, slots, heads, capacity, head_dim], this layer's part of the state; written.
            plan: of the call.
        """
        # [n, T, 3, heads, head_dim]
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, self.head_dim))
        rotate_(qkv[:, :, :2], plan.rope)
        kv[:, plan.slots, :, plan.columns] = qkv[:, :, 1:]
        q = qkv[:, :, 0].transpose(1, 2)  # [n, heads, T, head_dim]
        if plan.runs is None:
            y = self._attend(q, kv.index_select(1, plan.slots[:, 0]), plan, slice(0, len(q)))
        else:
            parts = [self._attend(q[rows], kv[:, slots], plan, rows) for rows, slots in plan.runs]
            y = parts[0] if len(parts) == 1 else torch.cat(parts)
        out: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return out

    def _attend(self, q: Tensor, kv: Tensor, plan: _Plan, rows: slice) -> Tensor:
        """Attend from ``q [n, heads, T, head_dim]``; the same is returned.

        For so few queries two plain products are faster than the fused kernel, twice on a CPU.
        """
        keys, values = kv.flatten(1, 2)[:, :, : plan.live].unbind()  # [n * heads, live, head_dim]
        heads = slice(rows.start * self.num_heads, rows.stop * self.num_heads)
        queries, scale = q.flatten(0, 1), self.head_dim**-0.5
        # [n * heads, T, live]
        scores = torch.baddbmm(plan.mask[heads], queries, keys.transpose(1, 2), alpha=scale)
        return torch.bmm(scores.softmax(-1), values).view(q.shape)


class Layer(nn.Module):
    """One pre-norm layer: attention, then MLP, each scaled by channel and added."""

    def __init__(self, config: MimiConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.dim)
        self.attention = Attention(config)
        self.scale1 = nn.Parameter(torch.ones(config.dim))
        self.norm2 = nn.LayerNorm(config.dim)
        self.up = nn.Linear(config.dim, config.ff_dim, bias=False)
        self.down = nn.Linear(config.ff_dim, config.dim, bias=False)
        self.scale2 = nn.Parameter(torch.ones(config.dim))

    def forward(self, x: Tensor, kv: Tensor, plan: _Plan) -> Tensor:
        """Run new steps; arguments as `Attention.forward`."""
        x = torch.addcmul(x, self.attention(self.norm1(x), kv, plan), self.scale1)
        return torch.addcmul(x, self.down(functional.gelu(self.up(self.norm2(x)))), self.scale2)


class Layers(nn.ModuleList):
    """Layers in order; a module list that knows what it holds."""

    def __iter__(self) -> Iterator[Layer]:
        """Go through the layers from the input on."""
        return cast("Iterator[Layer]", super().__iter__())


class Transformer(nn.Module):
    """Layers over 40 ms steps; there is no norm after the last."""

    frequencies: Tensor

    def __init__(self, config: MimiConfig) -> None:
        super().__init__()
        self._head_dim, self._rope_base = config.head_dim, config.rope_base
        self.layers = Layers(Layer(config) for _ in range(config.num_layers))
        self.register_buffer("frequencies", None, persistent=False)
        self.prepare()

    def prepare(self) -> None:
        """Compute what no file holds."""
        self.frequencies = rope_frequencies(self._head_dim, self._rope_base)

    def forward(self, x: Tensor, state: MimiState, rows: Rows) -> Tensor:
        """Run the next steps ``x [n, T, dim]`` of the streams in `rows`.

        Keys and values are written, and `state.steps` moves on for the active rows.
        """
        pieces = [
            self._run(piece, state, rows) for piece in torch.split(x, state.call_steps, dim=1)
        ]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=1)

    def _run(self, x: Tensor, state: MimiState, rows: Rows) -> Tensor:
        done = state.steps[rows.slots]
        position = done[:, None] + torch.arange(x.shape[1], device=x.device)
        capacity = state.capacity
        live = capacity
        if rows.runs is not None and x.device.type == "cpu":  # else it would have to be read back
            live = min(int(position.max()) + 1, capacity)
        seen = visible(position, capacity, state.window, state.stride)[:, :, :live]
        seen = seen.repeat_interleave(state.kv.shape[3], dim=0)
        slots = rows.slots
        if isinstance(slots, slice):
            slots = torch.arange(state.num_slots, device=x.device)[slots]
        plan = _Plan(
            rope=rope_table(position, self.frequencies).unsqueeze(2),
            slots=slots[:, None],
            # Columns of inactive rows are written as well. Nothing in them is still visible, and
            # the next real steps of the row overwrite them.
            columns=position % capacity,
            live=live,
            mask=x.new_zeros(seen.shape).masked_fill(~seen, float("-inf")),
            runs=rows.runs,
        )
        for layer, kv in zip(self.layers, state.kv, strict=True):
            x = layer(x, kv, plan)
        rows.write(state.steps, done + x.shape[1])
        return x
