"""What goes into the transformer (`Steps`) and what it remembers (`LMState`).

Schema of `LMState`, slot axis explicit, everything preallocated:

    kv      [layers, 2, slots, kv_heads, capacity, head_dim]   keys (0) and values (1)
    added   [slots, dim]                                       summed conditions, if any
    cross   [layers, 2, slots, heads, length, head_dim]        keys and values of conditions, if any

The columns of one slot are three areas around the pinned prefix,

    0            text ring, newest ordinals to the left          text_window + rewind_steps
    prefix       one scratch column, then the prefix             1 + prefix_steps
    audio        audio ring, newest ordinals to the right        audio_window + rewind_steps

so a young session occupies one contiguous range in the middle and pays only for that. The n-th
step of a ring lives at column n modulo its capacity; the capacity exceeds the window by
`rewind_steps`, so that many steps can be taken back and everything they should see is still there.
The scratch column takes the keys of steps that must not be remembered (PAD; LISTEN below the
layer where it enters). Models that hear and speak in the same step have one ring only, the last.

Counters live on the host: a step plans there which columns it writes and sees, and the device
only receives the resulting mask. Memory is bounded by the windows, never by the call.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from model.config import LMConfig
from model.errors import EngineError, RewindError


class Kind(IntEnum):
    """What a step is; decides which area remembers it."""

    PAD = 0  # not a step: filler at the end of a row
    PREFIX = 1  # pinned: never leaves
    TEXT = 2  # text only
    LISTEN = 3  # user audio; enters the stack at `audio_entry_layer`
    SPEAK = 4  # assistant audio
    DUPLEX = 5  # text and audio of both sides at once


@dataclass(frozen=True, slots=True)
class Steps:
    """Inputs of the transformer, one column per step.

    Attributes:
        text: int64 [B, T], text piece; the pad piece where there is none.
        user: int64 [B, T, K], user audio codes, -1 where absent.
        assistant: int64 [B, T, K], assistant audio codes as delayed, -1 where absent.
        kind: int64 [B, T] of `Kind`.
        position: int64 [B, T], absolute step index for the rotary embedding, growing along a row.
    """

    text: Tensor
    user: Tensor
    assistant: Tensor
    kind: Tensor
    position: Tensor

    def columns(self, start: int, stop: int) -> Steps:
        """Return the steps `start:stop` of every row."""
        return Steps(
            self.text[:, start:stop],
            self.user[:, start:stop],
            self.assistant[:, start:stop],
            self.kind[:, start:stop],
            self.position[:, start:stop],
        )

    def rows(self, start: int, stop: int) -> Steps:
        """Return the rows `start:stop`."""
        return Steps(
            self.text[start:stop],
            self.user[start:stop],
            self.assistant[start:stop],
            self.kind[start:stop],
            self.position[start:stop],
        )


@dataclass(frozen=True, slots=True)
class StepPlan:
    """Where the steps of one call go and what they see, for one group of layers.

    Attributes:
        runs: row slices with the slot slices they map to; more than one if slots are scattered.
        index: slots int64 [n, 1] and columns int64 [n, T] that the steps are written to; plain
            numbers if the call is one step of one slot.
        live: columns that hold anything visible.
        mask: float [n, 1, T, live columns], 0 where visible and -inf elsewhere.
    """

    runs: tuple[tuple[slice, slice], ...]
    index: tuple[Tensor, Tensor] | tuple[int, int]
    live: slice
    mask: Tensor

    def write(self, kv: Tensor, new: Tensor) -> None:
        """Store `new: [n, T, 2, kv_heads, head_dim]` in a layer's `kv`."""
        slots, columns = self.index
        if isinstance(slots, int):
            kv[:, slots, :, columns] = new[0, 0]
        else:
            kv[:, slots, :, columns] = new


@dataclass(slots=True)
class _Counters:
    """Steps in each area of one slot now, and the most each ring ever held."""

    prefix: int = 0
    text: int = 0
    audio: int = 0
    text_high: int = 0
    audio_high: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class SlotMemory:
    """Hold everything that one slot remembers, apart from the state that it came from.

    Tensors are copies in host memory. A value of `LMState.snapshot`, for `LMState.restore` of the
    same or an equally made state; nobody else looks inside.

    Attributes:
        kv: keys and values that may still be seen, [layers, 2, kv_heads, columns, head_dim].
        added: [dim], None if no condition was summed.
        cross: [layers, 2, heads, length, head_dim], None if no condition was attended to.
        columns: where `kv` lies in a slot.
        counters: steps in each area.
        is_listen: bool [audio ring], what is in the audio ring.
        recent: kinds of the newest steps, oldest first.
    """

    kv: Tensor
    added: Tensor | None
    cross: Tensor | None
    columns: slice
    counters: _Counters
    is_listen: np.ndarray
    recent: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Bytes of its tensors."""
        return sum(t.nbytes for t in (self.kv, self.added, self.cross) if t is not None)


class LMState:
    """Hold what the transformer remembers of every slot. Schema at the top of this file.

    Args:
        config: sizes and windows.
        num_slots: slots to allocate.
        dtype: of keys and values.
        device: of keys and values.

    Attributes:
        kv: [layers, 2, slots, kv_heads, capacity, head_dim].
        added: [slots, dim], what is added to every input; None without summed conditions.
        cross: [layers, 2, slots, heads, length, head_dim]; None until a condition is attended to.
        max_call_steps: most steps of one slot that a single `advance` may add.
    """

    __slots__ = (
        "_audio_start",
        "_config",
        "_counters",
        "_is_listen",
        "_recent",
        "_scratch",
        "added",
        "cross",
        "kv",
        "max_call_steps",
    )

    def __init__(
        self, config: LMConfig, num_slots: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self._config = config
        # A ring that holds nothing has nothing to take back either.
        text_capacity = config.text_window and config.text_window + config.rewind_steps
        audio_capacity = config.audio_window + config.rewind_steps
        self._scratch = text_capacity
        self._audio_start = text_capacity + 1 + config.prefix_steps
        capacity = self._audio_start + audio_capacity
        self.kv = torch.zeros(
            (config.num_layers, 2, num_slots, config.num_kv_heads, capacity, config.head_dim),
            dtype=dtype,
            device=device,
        )
        self.added: Tensor | None = None
        self.cross: Tensor | None = None
        # A call's later steps must not overwrite what its first step still sees.
        self.max_call_steps = config.rewind_steps + 1
        self._counters = [_Counters() for _ in range(num_slots)]
        self._is_listen = np.zeros((num_slots, audio_capacity), dtype=np.bool_)
        self._recent: list[deque[int]] = [deque(maxlen=capacity) for _ in range(num_slots)]

    @property
    def num_slots(self) -> int:
        """Slots in this state."""
        return len(self._counters)

    def length(self, slot: int) -> int:
        """Return how many steps `slot` has taken since its reset, minus those taken back."""
        counters = self._counters[slot]
        return counters.prefix + counters.text + counters.audio

    def reset(self, slot: int) -> None:
        """Forget everything in `slot`; other slots are untouched."""
        self.kv[:, :, slot].zero_()
        if self.added is not None:
            self.added[slot].zero_()
        if self.cross is not None:
            self.cross[:, :, slot].zero_()
        self._counters[slot] = _Counters()
        self._is_listen[slot] = False
        self._recent[slot].clear()

    def rewind(self, slot: int, length: int) -> None:
        """Take back the newest steps of `slot`, exactly as if they had never been.

        Args:
            slot: which slot.
            length: steps to keep, at most `length(slot)`.

        Raises:
            RewindError: if steps that would be visible again are already overwritten; the state
                is unchanged then.
        """
        now, recent = self._counters[slot], self._recent[slot]
        num_back = self.length(slot) - length
        if length < 0 or num_back < 0 or num_back > len(recent):
            msg = f"cannot rewind slot {slot} to {length}: it has {self.length(slot)} steps"
            raise RewindError(msg)
        back = [recent[-1 - i] for i in range(num_back)]
        text = now.text - back.count(Kind.TEXT)
        audio = now.audio - sum(k > Kind.TEXT for k in back)
        config = self._config
        for kept, high, window in (
            (text, now.text_high, config.text_window),
            (audio, now.audio_high, config.audio_window),
        ):
            if max(kept - window, 0) < high - window - config.rewind_steps:
                msg = (
                    f"cannot rewind slot {slot} by {num_back} steps: only the newest "
                    f"{config.rewind_steps} of a ring can be taken back"
                )
                raise RewindError(msg)
        now.prefix -= back.count(Kind.PREFIX)
        now.text, now.audio = text, audio
        for _ in back:
            recent.pop()

    def fork(self, source: int, target: int) -> None:
        """Make `target` remember exactly what `source` does; from then on each goes its own way.

        Args:
            source: which slot, unchanged.
            target: another slot; what it held is forgotten.
        """
        assert source != target, source
        self.reset(target)
        columns = self._held(source)
        self.kv[:, :, target, :, columns] = self.kv[:, :, source, :, columns]
        if self.added is not None:
            self.added[target] = self.added[source]
        if self.cross is not None:
            self.cross[:, :, target] = self.cross[:, :, source]
        self._counters[target] = replace(self._counters[source])
        self._is_listen[target] = self._is_listen[source]
        self._recent[target].extend(self._recent[source])

    def snapshot(self, slot: int) -> SlotMemory:
        """Copy what `slot` remembers into host memory; the slot is unchanged."""
        columns = self._held(slot)
        return SlotMemory(
            kv=_to_host(self.kv[:, :, slot, :, columns]),
            added=None if self.added is None else _to_host(self.added[slot]),
            cross=None if self.cross is None else _to_host(self.cross[:, :, slot]),
            columns=columns,
            counters=replace(self._counters[slot]),
            is_listen=self._is_listen[slot].copy(),
            recent=tuple(self._recent[slot]),
        )

    def restore(self, slot: int, memory: SlotMemory) -> None:
        """Make `slot` remember exactly what the slot did that `memory` was taken of.

        Args:
            slot: any slot; what it held is forgotten.
            memory: unchanged, and may be restored again.

        Raises:
            EngineError: if it is not the memory of such a model; the slot is unchanged then.
        """
        columns = memory.columns.stop - memory.columns.start
        expected = (*self.kv.shape[:2], self.kv.shape[3], columns, self.kv.shape[5])
        if memory.kv.shape != expected or memory.kv.dtype != self.kv.dtype:
            msg = (
                f"memory of another model: expected {self.kv.dtype} {list(expected)}, "
                f"got {memory.kv.dtype} {list(memory.kv.shape)}"
            )
            raise EngineError(msg)
        self.reset(slot)
        self.kv[:, :, slot, :, memory.columns] = memory.kv.to(self.kv.device)
        if memory.added is not None:
            if self.added is None:
                self.added = self.kv.new_zeros((self.num_slots, *memory.added.shape))
            self.added[slot] = memory.added.to(self.added.device)
        if memory.cross is not None:
            if self.cross is None:
                layers, two, *rest = memory.cross.shape
                self.cross = self.kv.new_zeros((layers, two, self.num_slots, *rest))
            self.cross[:, :, slot] = memory.cross.to(self.cross.device)
        self._counters[slot] = replace(memory.counters)
        self._is_listen[slot] = memory.is_listen
        self._recent[slot].extend(memory.recent)

    def advance(
        self, kind: Sequence[Sequence[int]], slots: Sequence[int]
    ) -> tuple[StepPlan, StepPlan]:
        """Count new steps in and plan their writes and visibility.

        Args:
            kind: `Kind` values [n][T]; PAD only at the end of a row.
            slots: n distinct slots.

        Returns:
            The plan for layers below `audio_entry_layer`, and the plan for those from there on.

        Raises:
            EngineError: if the prefix area is full.
        """
        num_rows, num_steps = len(slots), len(kind[0])
        assert num_steps <= self.max_call_steps, (num_steps, self.max_call_steps)
        assert len(set(slots)) == num_rows, slots
        self._check_prefix(kind, slots)
        columns = [[self._scratch] * num_steps for _ in slots]
        seen: list[list[list[tuple[int, int]]]] = []
        for row, slot in enumerate(slots):
            seen.append([])
            for step, step_kind in enumerate(kind[row]):
                if step_kind == Kind.PAD:
                    seen[row].append([(self._scratch, self._scratch + 1)])
                    continue
                columns[row][step] = self._place(slot, step_kind)
                seen[row].append(self._seen(slot))
        live = self._live(slots)
        mask = np.full((num_rows, 1, num_steps, live.stop - live.start), -np.inf, np.float32)
        for row, row_seen in enumerate(seen):
            for step, ranges in enumerate(row_seen):
                for start, stop in ranges:
                    mask[row, 0, step, start - live.start : stop - live.start] = 0.0
        high = self._plan(slots, columns, live, mask)
        if self._config.audio_entry_layer == 0 or not self._is_listen[slots].any():
            return high, high
        return self._low_plan(kind, slots, columns, live, mask), high

    def _held(self, slot: int) -> slice:
        """Return the columns that are seen, or may be seen again after a rewind."""
        now = self._counters[slot]
        text = min(now.text_high, self._scratch)
        audio = min(now.audio_high, self._is_listen.shape[1])
        return slice(self._scratch - text, self._audio_start + audio)

    def _check_prefix(self, kind: Sequence[Sequence[int]], slots: Sequence[int]) -> None:
        for slot, row in zip(slots, kind, strict=True):
            held = self._counters[slot].prefix + list(row).count(Kind.PREFIX)
            if held > self._config.prefix_steps:
                msg = f"prefix of {held} steps, the model holds {self._config.prefix_steps}"
                raise EngineError(msg)

    def _place(self, slot: int, kind: int) -> int:
        """Count one step in and return its column."""
        now = self._counters[slot]
        self._recent[slot].append(kind)
        if kind == Kind.PREFIX:
            now.prefix += 1
            return self._scratch + now.prefix
        if kind == Kind.TEXT:
            now.text += 1
            now.text_high = max(now.text_high, now.text)
            return self._scratch - 1 - (now.text - 1) % self._scratch
        ring_index = now.audio % self._is_listen.shape[1]
        self._is_listen[slot, ring_index] = kind == Kind.LISTEN
        now.audio += 1
        now.audio_high = max(now.audio_high, now.audio)
        return self._audio_start + ring_index

    def _seen(self, slot: int) -> list[tuple[int, int]]:
        """Return the column ranges that the newest step of `slot` sees."""
        now = self._counters[slot]
        ranges = [(self._scratch + 1, self._scratch + 1 + now.prefix)]
        for start, stop in _ring_ranges(now.text, self._config.text_window, self._scratch):
            ranges.append((self._scratch - stop, self._scratch - start))
        for start, stop in _ring_ranges(
            now.audio, self._config.audio_window, self._is_listen.shape[1]
        ):
            ranges.append((self._audio_start + start, self._audio_start + stop))
        return ranges

    def _live(self, slots: Sequence[int]) -> slice:
        """Return the smallest column range that holds everything visible in `slots`."""
        text = min(max(self._counters[slot].text for slot in slots), self._scratch)
        audio = min(max(self._counters[slot].audio for slot in slots), self._is_listen.shape[1])
        if audio:
            return slice(self._scratch - text, self._audio_start + audio)
        prefix = max(self._counters[slot].prefix for slot in slots)
        return slice(self._scratch - text, self._scratch + 1 + prefix)

    def _low_plan(
        self,
        kind: Sequence[Sequence[int]],
        slots: Sequence[int],
        columns: list[list[int]],
        live: slice,
        mask: np.ndarray,
    ) -> StepPlan:
        """Derive the plan of the layers where LISTEN steps do not exist."""
        listens = np.asarray(kind) == Kind.LISTEN  # [n, T]
        hidden = self._is_listen[slots, : live.stop - self._audio_start]
        mask = mask.copy()
        mask[..., self._audio_start - live.start :][
            np.broadcast_to(hidden[:, None, None], (*mask.shape[:3], hidden.shape[1]))
        ] = -np.inf
        # What a LISTEN step computes here is thrown away; it only has to stay finite.
        mask[:, 0, :, self._scratch - live.start][listens] = 0.0
        low_columns = np.where(listens, self._scratch, np.asarray(columns)).tolist()
        return self._plan(slots, low_columns, live, mask)

    def _plan(
        self, slots: Sequence[int], columns: list[list[int]], live: slice, mask: np.ndarray
    ) -> StepPlan:
        index: tuple[Tensor, Tensor] | tuple[int, int] = slots[0], columns[0][0]
        if len(slots) > 1 or len(columns[0]) > 1:
            device = self.kv.device
            index = (
                torch.tensor(slots, device=device)[:, None],
                torch.tensor(columns, device=device),
            )
        return StepPlan(_runs(slots), index, live, torch.from_numpy(mask).to(self.kv))


def _to_host(tensor: Tensor) -> Tensor:
    """Return a copy in host memory."""
    return tensor.to("cpu", copy=True)


def _ring_ranges(count: int, window: int, capacity: int) -> list[tuple[int, int]]:
    """Return where the newest `window` of `count` steps lie in a ring, as index ranges."""
    held = min(count, window)
    if held == 0:
        return []
    start, stop = (count - held) % capacity, (count - 1) % capacity + 1
    return [(start, stop)] if start < stop else [(start, capacity), (0, stop)]


def _runs(slots: Sequence[int]) -> tuple[tuple[slice, slice], ...]:
    """Group rows whose slots follow each other, so that each group is a view of the state."""
    runs: list[tuple[slice, slice]] = []
    begin = 0
    for row in range(1, len(slots) + 1):
        if row == len(slots) or slots[row] != slots[row - 1] + 1:
            runs.append((slice(begin, row), slice(slots[begin], slots[row - 1] + 1)))
            begin = row
    return tuple(runs)
