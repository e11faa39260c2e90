"""What Mimi streams remember: an explicit value with a slot axis, of constant size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.codec.mimi.config import MimiConfig


@dataclass(frozen=True, slots=True)
class Rows:
    """Which slot each row of a call belongs to.

    Attributes:
        slots: the slots in the order of the rows: a slice, or int64 [n], distinct.
        runs: row slices with the slot slices that they map to, together all rows; None if that is
            known on the device only.
        active: bool [n]; the slots of the other rows keep their state. None means all.
    """

    slots: Tensor | slice
    runs: tuple[tuple[slice, slice], ...] | None
    active: Tensor | None = None

    @classmethod
    def on_device(cls, slots: Tensor) -> Rows:
        """Plan a call for slots that are not looked at on the host, int64 [n].

        So it can be part of a CUDA graph, at the price of a copy of what the rows remember. Rows
        that share a slot leave it in no state in particular.
        """
        return cls(slots, None)

    @classmethod
    def of(cls, slots: Tensor | None, num_slots: int, active: Tensor | None = None) -> Rows:
        """Plan a call for some slots, or for all of them in order (None).

        The latter reads nothing back from the device either, and copies nothing.
        """
        if slots is None:
            return cls(slice(None), ((slice(0, num_slots), slice(0, num_slots)),), active)
        numbers: list[int] = slots.tolist()
        # Slots [2, 3, 5] are two runs: rows 0 and 1 are the slots 2 and 3, row 2 is slot 5. Within
        # a run memory is read in place; otherwise it would be copied.
        runs: list[tuple[slice, slice]] = []
        start = 0
        for end in range(1, len(numbers) + 1):
            if end == len(numbers) or numbers[end] != numbers[end - 1] + 1:
                first = numbers[start]
                runs.append((slice(start, end), slice(first, first + end - start)))
                start = end
        if len(runs) == 1:
            return cls(runs[0][1], tuple(runs), active)
        return cls(slots, tuple(runs), active)

    def write(self, target: Tensor, new: Tensor) -> None:
        """Replace the active rows' part of ``target [slots, ...]`` by ``new [n, ...]``."""
        if self.active is not None:
            chosen = self.active.view(-1, *(1,) * (new.dim() - 1))
            new = torch.where(chosen, new, target[self.slots])
        target[self.slots] = new


def encoder_contexts(config: MimiConfig) -> list[tuple[int, int]]:
    """Return the shapes of one slot's contexts, in the order in which encoding uses them."""
    shapes = [(config.kernel - 1, 1)]
    channels = config.filters
    for ratio in reversed(config.ratios):
        shapes += [(config.residual_kernel - 1, channels), (1, ratio * channels)]
        channels *= 2
    return [*shapes, (config.last_kernel - 1, channels), (1, config.frame_steps * config.dim)]


def decoder_contexts(config: MimiConfig) -> list[tuple[int, int]]:
    """Return the shapes of one slot's contexts, in the order in which decoding uses them."""
    shapes = [(1, config.dim), (config.kernel - 1, config.dim)]
    channels = config.filters << len(config.ratios)
    for _ in config.ratios:
        shapes.append((1, channels))
        channels //= 2
        shapes.append((config.residual_kernel - 1, channels))
    return [*shapes, (config.last_kernel - 1, channels)]


def session_bytes(config: MimiConfig) -> int:
    """Return the memory of one stream's state, both directions together, in float32."""
    like = torch.empty(0, device="meta")
    contexts = (encoder_contexts(config), decoder_contexts(config))
    return sum(MimiState.zeros(config, shapes, 1, like).num_bytes for shapes in contexts)


@dataclass(frozen=True, slots=True)
class MimiState:
    """State of one direction, encoding or decoding.

    Attributes:
        contexts: the left context of every convolution that needs one, in order,
            [slots, steps, channels].
        kv: keys (0) and values (1), a ring over steps, [layers, 2, slots, heads, capacity,
            head_dim]: what a head reads lies together. The step at position p lives in column p
            modulo the capacity.
        steps: int64 [slots], transformer steps taken since the reset.
        stride: steps that leave the window together. A stream moves it once a frame; 1 moves it
            with every step, which is how a whole recording is done at once.
        window: newest steps that are visible.
    """

    contexts: list[Tensor]
    kv: Tensor
    steps: Tensor
    stride: int
    window: int

    @classmethod
    def zeros(
        cls,
        config: MimiConfig,
        context_shapes: Sequence[tuple[int, int]],
        num_slots: int,
        like: Tensor,
        call_steps: int | None = None,
    ) -> MimiState:
        """Return the state of `num_slots` streams in which nothing has happened.

        Args:
            config: sizes.
            context_shapes: of one slot.
            num_slots: streams.
            like: gives type and device.
            call_steps: None for a stream. For whole recordings, how many steps the transformer
                takes at once.
        """
        stride = config.frame_steps if call_steps is None else 1
        # A stream's ring is as wide as its window. Where a whole recording is done, a call writes
        # up to `call_steps` steps before anything is attended to, and those it writes over must
        # still be seen by the first of them.
        capacity = config.window + (call_steps or stride) - stride
        shape = (config.num_layers, 2, num_slots, config.num_heads, capacity, config.head_dim)
        return cls(
            [like.new_zeros(num_slots, *shape) for shape in context_shapes],
            like.new_zeros(shape),
            torch.zeros(num_slots, dtype=torch.int64, device=like.device),
            stride,
            config.window,
        )

    @property
    def num_slots(self) -> int:
        """Slots in this state."""
        return len(self.steps)

    @property
    def capacity(self) -> int:
        """Columns of the ring."""
        return self.kv.shape[4]

    @property
    def num_bytes(self) -> int:
        """Memory of all slots together; it never grows."""
        return sum(t.nbytes for t in (*self.contexts, self.kv, self.steps))

    @property
    def call_steps(self) -> int:
        """Most steps that may be written to the ring before they are attended to."""
        return self.capacity - self.window + self.stride

    def reset(self, slot: int) -> None:
        """Make `slot` new; other slots are untouched."""
        for tensor in (*self.contexts, self.steps):
            tensor[slot].zero_()
        self.kv[:, :, slot].zero_()
