"""What goes into the transformer (`Steps`) and what it remembers (`LMState`).

A slot's memory is pages of keys and values (`model/cache/store.py`), taken from one pool as the
slot grows, up to its windows; then its oldest are written over. `model/cache/areas.py` says where a
slot's steps lie in its columns, `model/cache/pages.py` in which pages these columns are. Each ring
is longer than its window by `rewind_steps`, so that many steps can be taken back and everything
they should see is still there. Models that hear and speak in the same step have one ring only.

The layers below `audio_entry_layer` have a store and pages of their own: LISTEN steps do not exist
there, and take no room.

Besides, a slot may have, outside of pages,

    added   [slots, dim]                                       summed conditions, if any
    cross   [layers, 2, slots, heads, length, head_dim]        keys and values of conditions, if any

which are allocated with the state, zeros, and stay where they are. Zeros are no condition: nothing
is added, and attention over them returns zeros.

The books are kept on the host, without a tensor (`model/cache/ledger.py`): a step plans there which
columns it writes and sees. Memory is bounded by the windows, never by the call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.cache.kinds import Kind
from model.cache.ledger import Ledger, Row, SlotRecord, areas_of
from model.cache.pages import NO_PAGE, PADDING
from model.cache.plan import PagedPlan, paged_layers, viewed_layers
from model.cache.store import LayerMemory, MemoryConfig, PageContents, Reading, Store
from model.config import LMConfig
from model.errors import EngineError

__all__ = ["Kind", "LMState", "MemoryUse", "SlotMemory", "Steps", "areas_of"]


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
class MemoryUse:
    """Count pages and bytes.

    Attributes:
        pages_used: pages that slots have; a shared one counts once.
        pages_total: pages there are.
        bytes_used: bytes of the used ones.
        bytes_total: bytes that are allocated.
    """

    pages_used: int
    pages_total: int
    bytes_used: int
    bytes_total: int


@dataclass(frozen=True, slots=True, eq=False)
class SlotMemory:
    """Hold everything that one slot remembers, apart from the state that it came from.

    Tensors are copies in host memory. A value of `LMState.snapshot`, for `LMState.restore` of the
    same or an equally made state; nobody else looks inside.

    Attributes:
        contents: of the slot's pages, in each store.
        record: which parts of the slot these pages are, and what lies in them.
        added: [dim], None if the model sums no condition.
        cross: [layers, 2, heads, length, head_dim], None if it attends to none.
    """

    contents: tuple[PageContents, ...]
    record: SlotRecord
    added: Tensor | None
    cross: Tensor | None

    @property
    def num_bytes(self) -> int:
        """Bytes of its tensors."""
        conditions = sum(t.nbytes for t in (self.added, self.cross) if t is not None)
        return conditions + sum(contents.num_bytes for contents in self.contents)


class LMState:
    """Hold what the transformer remembers of every slot. Schema at the top of this file.

    Args:
        config: sizes and windows.
        num_slots: how many conversations there can be; those that are empty take no pages.
        dtype: that the model computes in.
        device: of keys and values.
        memory: how keys and values are kept.
        num_attended: length of what each slot's condition lets every layer attend to; 0 for none.

    Attributes:
        added: [slots, dim], what is added to every input; None if the model sums no condition.
        cross: [layers, 2, slots, heads, num_attended, head_dim]; None if that is 0.
        stores: pages of the layers, the lowest layers first.
    """

    __slots__ = ("_config", "_ledger", "_memory", "added", "cross", "stores")

    def __init__(
        self,
        config: LMConfig,
        num_slots: int,
        dtype: torch.dtype,
        device: torch.device,
        memory: MemoryConfig | None = None,
        num_attended: int = 0,
    ) -> None:
        self._config, self._memory = config, memory or MemoryConfig()
        page_steps, num_pages = self._memory.page_steps, self._memory.num_pages
        self._ledger = Ledger(config, num_slots, page_steps, num_pages)
        self.stores = [
            Store(
                group.num_layers,
                config.num_kv_heads,
                config.head_dim,
                num_pages=group.tables.pool.num_pages,
                config=self._memory,
                dtype=dtype,
                device=device,
            )
            for group in self._ledger.groups
        ]
        self.added: Tensor | None = None
        if config.family is not None and config.family.has_summed_conditions:
            self.added = torch.zeros((num_slots, config.dim), dtype=dtype, device=device)
        self.cross: Tensor | None = None
        if num_attended:
            shape = (num_slots, config.num_heads, num_attended, config.head_dim)
            self.cross = torch.zeros((config.num_layers, 2, *shape), dtype=dtype, device=device)

    @property
    def num_slots(self) -> int:
        """Slots in this state."""
        return self._ledger.num_slots

    @property
    def max_call_steps(self) -> int:
        """Most steps of one slot that a single `advance` may add."""
        return self._ledger.max_call_steps

    @property
    def device(self) -> torch.device:
        """Where keys and values are."""
        return self.stores[-1].kv.device

    @property
    def dtype(self) -> torch.dtype:
        """What the model computes in."""
        return self.stores[-1].dtype

    @property
    def reading(self) -> Reading:
        """How attention reads pages."""
        return self._memory.reading

    def conditions(self, rows: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Return what slots int64 [n] are told: what is added, and what is attended to."""
        added = None if self.added is None else self.added[rows]
        return added, None if self.cross is None else self.cross[:, :, rows]

    @property
    def use(self) -> MemoryUse:
        """Count what is in use now."""
        pools = [group.tables.pool for group in self._ledger.groups]
        used = [pool.num_pages - pool.num_free for pool in pools]
        bytes_used = sum(n * store.page_bytes for n, store in zip(used, self.stores, strict=True))
        return MemoryUse(
            sum(used),
            sum(pool.num_pages for pool in pools),
            bytes_used,
            sum(store.num_bytes for store in self.stores),
        )

    def length(self, slot: int) -> int:
        """Return how many steps `slot` has taken since its reset, minus those taken back."""
        return self._ledger.length(slot)

    def pages(self, slot: int) -> list[list[int]]:
        """Return the pages that `slot` has, in each of `stores`."""
        return [group.pages(slot) for group in self._ledger.groups]

    def reset(self, slot: int) -> None:
        """Forget everything in `slot`; other slots are untouched.

        Its pages are free from then on, and wiped when they are handed out again.
        """
        self._ledger.reset(slot)
        if self.added is not None:
            self.added[slot].zero_()
        if self.cross is not None:
            self.cross[:, :, slot].zero_()

    def rewind(self, slot: int, length: int) -> None:
        """Take back the newest steps of `slot`, exactly as if they had never been.

        Args:
            slot: which slot.
            length: steps to keep, at most `length(slot)`.

        Raises:
            RewindError: if steps that would be visible again are already overwritten; the state
                is unchanged then.
        """
        self._ledger.rewind(slot, length)

    def fork(self, source: int, target: int) -> None:
        """Make `target` remember exactly what `source` does; from then on each goes its own way.

        Whole pages are shared, until one of the two writes to them; those that are still being
        filled are copied.

        Args:
            source: which slot, unchanged.
            target: another slot; what it held is forgotten.

        Raises:
            OutOfPagesError: there are no pages for the copies; nothing has changed then.
        """
        self._ledger.fork(source, target)
        self._fill()
        if self.added is not None:
            self.added[target] = self.added[source]
        if self.cross is not None:
            self.cross[:, :, target] = self.cross[:, :, source]

    def snapshot(self, slot: int) -> SlotMemory:
        """Copy what `slot` remembers into host memory; the slot is unchanged."""
        return SlotMemory(
            contents=tuple(
                store.read(pages)
                for store, pages in zip(self.stores, self.pages(slot), strict=True)
            ),
            record=self._ledger.record(slot),
            added=None if self.added is None else _to_host(self.added[slot]),
            cross=None if self.cross is None else _to_host(self.cross[:, :, slot]),
        )

    def restore(self, slot: int, memory: SlotMemory) -> None:
        """Make `slot` remember exactly what the slot did that `memory` was taken of.

        Args:
            slot: any slot; what it held is forgotten.
            memory: unchanged, and may be restored again.

        Raises:
            EngineError: if it is not the memory of such a model; the slot is unchanged then.
            OutOfPagesError: there are not enough pages; the slot is unchanged then.
        """
        self._check_fits(memory)
        self._ledger.restore(slot, memory.record)
        for store, pages, contents in zip(
            self.stores, self.pages(slot), memory.contents, strict=True
        ):
            store.write(pages, contents)
        if self.added is not None and memory.added is not None:
            self.added[slot] = memory.added
        if self.cross is not None and memory.cross is not None:
            self.cross[:, :, slot] = memory.cross

    def advance(
        self, kind: Sequence[Sequence[int]], slots: Sequence[int]
    ) -> list[LayerMemory | None]:
        """Count new steps in, and plan where each layer writes them and what they see.

        Args:
            kind: `Kind` values [n][T]; PAD only at the end of a row.
            slots: n distinct slots; any number may be `PADDING`, whose rows are PAD.

        Returns:
            For every layer what it reads and writes; None for layers that no step enters.

        Raises:
            EngineError: if the prefix area is full; nothing has changed then.
            OutOfPagesError: if there are no pages for what is new; nothing has changed then.
        """
        layers: list[LayerMemory | None] = []
        if self._memory.reading == "views":
            for rows, store in zip(self.plan(kind, slots), self.stores, strict=True):
                layers += [None] * len(store.kv) if rows is None else viewed_layers(rows, store)
            return layers
        for plan, store in zip(self.plan_paged(kind, slots), self.stores, strict=True):
            if plan is None:
                layers += [None] * len(store.kv)
            else:
                layers += paged_layers(plan, store, self._memory.reading)
        return layers

    def plan_paged(
        self, kind: Sequence[Sequence[int]], slots: Sequence[int]
    ) -> list[PagedPlan | None]:
        """Do as `advance`, and return for each of `stores` what is to be read and written."""
        groups = self._ledger.groups
        if self._ledger.is_ring and len(kind[0]) == 1:
            is_step = [row[0] != Kind.PAD for row in kind]
            if is_step == [slot != PADDING for slot in slots]:
                held = self._ledger.advance_rings([row[0] for row in kind], slots)
                self._fill()
                (group,), (store,) = groups, self.stores
                window, size = self._config.audio_window, group.areas.audio
                return [PagedPlan.of_rings(held, window, size, group.tables.of(slots), store)]
        return [
            None if rows is None else PagedPlan.of(rows, group.tables.of(slots), store)
            for rows, group, store in zip(self.plan(kind, slots), groups, self.stores, strict=True)
        ]

    def has_room(self, kind: Sequence[Sequence[int]], slots: Sequence[int]) -> bool:
        """Say whether there are pages for `advance`; arguments as there."""
        return self._ledger.has_room(kind, slots)

    def plan(self, kind: Sequence[Sequence[int]], slots: Sequence[int]) -> list[list[Row] | None]:
        """Do as `advance`, and return for each of `stores` what every row writes and sees."""
        rows = self._ledger.advance(kind, slots)
        self._fill()
        return rows

    def _fill(self) -> None:
        """Fill the pages that the ledger took: with what was copied there, or with nothing."""
        for group, store in zip(self._ledger.groups, self.stores, strict=True):
            for page, source in group.begun:
                store.fill(page, None if source == NO_PAGE else source)
            group.begun.clear()

    def _check_fits(self, memory: SlotMemory) -> None:
        got = [(c.kv.dtype, *c.kv.shape[:3], *c.kv.shape[4:]) for c in memory.contents]
        expected = [(s.kv.dtype, *s.kv.shape[:3], s.page_steps, s.kv.shape[4]) for s in self.stores]
        num_columns = self._ledger.num_ring_columns
        if got != expected or len(memory.record.is_listen) != num_columns:
            msg = (
                f"memory of another model: expected pages of {expected} and {num_columns} audio "
                f"steps, got {got} and {len(memory.record.is_listen)}"
            )
            raise EngineError(msg)
        added = None if self.added is None else self.added.shape[1:]
        cross = None if self.cross is None else self.cross[:, :, 0].shape
        got_added = None if memory.added is None else memory.added.shape
        got_cross = None if memory.cross is None else memory.cross.shape
        if (got_added, got_cross) != (added, cross):
            msg = (
                f"memory of another model: expected conditions of {added} and {cross}, "
                f"got {got_added} and {got_cross}"
            )
            raise EngineError(msg)


def _to_host(tensor: Tensor) -> Tensor:
    """Return a copy in host memory."""
    return tensor.to("cpu", copy=True)
