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

Counters live on the host: a step plans there which columns it writes and sees. Memory is bounded
by the windows, never by the call.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from model.cache.areas import Areas, Held, ring_ranges
from model.cache.pages import NO_PAGE, PADDING, PageTables
from model.cache.plan import PagedPlan, Row, paged_layers, viewed_layers
from model.cache.store import LayerMemory, MemoryConfig, PageContents, Reading, Store
from model.config import LMConfig
from model.errors import EngineError, OutOfPagesError, RewindError

# A worked example, with pages of 4 steps, a text window of 4 and an audio window of 6, 2 steps that
# can be taken back, and a prefix of 2. The areas of a slot are whole pages:
#
#     text ring   4 + 2 = 6 -> 8 columns    0-7      pages (parts) 0 and 1
#     prefix      2         -> 4 columns    8-11     part 2
#     audio ring  6 + 2 = 8 -> 8 columns   12-19     parts 3 and 4
#
# A conversation takes steps, and each is counted in the area of its kind:
#
#     step   kind     ordinal   column           what this step sees
#     0      PREFIX   0         8                8
#     1      PREFIX   1         9                8-9
#     2      LISTEN   0         12               8-9, 12
#     ...
#     11     LISTEN   9         12 + 9 % 8 = 13  8-9, and ordinals 4-9, in 16-19 and 12-13
#     12     TEXT     0         7                7, 8-9, 16-19, 12-13
#
# Step 11 was written over ordinal 1, and that is safe: no step sees it any more, not even after 2
# steps were taken back. That is what the 2 extra columns of a ring are for. `rewind(slot, 10)` then
# takes steps 12, 11 and 10 back. Counters go down (text 1 -> 0, audio 10 -> 8), nothing is moved or
# wiped, and the next LISTEN step is ordinal 8 again, column 12. Taking back one step more would
# make ordinals 1-6 the newest 6, and column 13 no longer holds ordinal 1: `RewindError`, and the
# caller feeds the conversation again (`model/turns/history.py`).
#
# `audio_high` remembers how far the ring was ever written, because that is what decides which old
# ordinals are gone, and going back does not bring them back.


class Kind(IntEnum):
    """What a step is; decides which area remembers it."""

    PAD = 0  # not a step: filler at the end of a row
    PREFIX = 1  # pinned: never leaves
    TEXT = 2  # text only
    LISTEN = 3  # user audio; enters the stack at `audio_entry_layer`
    SPEAK = 4  # assistant audio
    DUPLEX = 5  # text and audio of both sides at once


_LISTEN_OR_PAD = (Kind.LISTEN, Kind.PAD)
_NOTHING = Held(0, 0, 0, 0, 0)


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


@dataclass(slots=True)
class _Counters:
    """Steps in each area of one slot now, and the most each ring ever held.

    `speak` counts the audio steps that exist in all layers.
    """

    prefix: int = 0
    text: int = 0
    audio: int = 0
    speak: int = 0
    text_high: int = 0
    audio_high: int = 0
    speak_high: int = 0


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
        parts: which parts of the slot these pages are, in each store.
        added: [dim], None if no condition was summed.
        cross: [layers, 2, heads, length, head_dim], None if no condition was attended to.
        counters: steps in each area.
        is_listen: of every column of the audio ring whether a LISTEN step is there.
        recent: kinds of the newest steps, oldest first.
    """

    contents: tuple[PageContents, ...]
    parts: tuple[tuple[int, ...], ...]
    added: Tensor | None
    cross: Tensor | None
    counters: _Counters
    is_listen: bytes
    recent: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Bytes of its tensors."""
        conditions = sum(t.nbytes for t in (self.added, self.cross) if t is not None)
        return conditions + sum(contents.num_bytes for contents in self.contents)


class _Group:
    """Hold the memory of some layers: all those in which the same steps exist.

    Args:
        areas: of a slot.
        tables: pages of the slots.
        store: their contents.
        is_low: whether LISTEN steps do not exist in these layers.
    """

    __slots__ = ("areas", "is_low", "store", "tables")

    def __init__(self, areas: Areas, tables: PageTables, store: Store, *, is_low: bool) -> None:
        self.areas, self.tables, self.store, self.is_low = areas, tables, store, is_low

    def own(self, slot: int, parts: Iterable[int]) -> None:
        """Let a slot write to parts of its memory; the pages must be there."""
        for part in parts:
            begun = self.tables.own(slot, part)
            if begun is not None:
                page, source = begun
                self.store.fill(page, None if source == NO_PAGE else source)

    def parts(self, slot: int) -> list[int]:
        """Return the parts of its memory that a slot has."""
        return [i for i, page in enumerate(self.tables.rows[slot]) if page != NO_PAGE]

    def pages(self, slot: int) -> list[int]:
        """Return the pages that a slot has, in the order of its parts."""
        return [page for page in self.tables.rows[slot] if page != NO_PAGE]


class LMState:
    """Hold what the transformer remembers of every slot. Schema at the top of this file.

    Args:
        config: sizes and windows.
        num_slots: how many conversations there can be; those that are empty take no pages.
        dtype: that the model computes in.
        device: of keys and values.
        memory: how keys and values are kept.

    Attributes:
        added: [slots, dim], what is added to every input; None without summed conditions.
        cross: [layers, 2, slots, heads, length, head_dim]; None until a condition is attended to.
        max_call_steps: most steps of one slot that a single `advance` may add.
        pages_per_slot: most pages that a slot can have, in all its layers.
    """

    __slots__ = (
        "_config",
        "_counters",
        "_groups",
        "_is_listen",
        "_memory",
        "_recent",
        "added",
        "cross",
        "max_call_steps",
    )

    def __init__(
        self,
        config: LMConfig,
        num_slots: int,
        dtype: torch.dtype,
        device: torch.device,
        memory: MemoryConfig | None = None,
    ) -> None:
        self._config, self._memory = config, memory or MemoryConfig()
        areas = areas_of(config, self._memory.page_steps)
        num_pages = self._memory.num_pages or num_slots * areas.num_pages
        entry = config.audio_entry_layer
        self._groups = [
            _Group(
                areas,
                PageTables(num_slots, areas.num_pages, num_pages),
                Store(
                    num_layers,
                    config.num_kv_heads,
                    config.head_dim,
                    num_pages=num_pages,
                    config=self._memory,
                    dtype=dtype,
                    device=device,
                ),
                is_low=is_low,
            )
            for num_layers, is_low in ((entry, True), (config.num_layers - entry, False))
            if num_layers
        ]
        self.added: Tensor | None = None  # [slots, dim]
        self.cross: Tensor | None = None  # [layers, 2, slots, heads, length, head_dim]
        # A call's later steps must not overwrite what its first step still sees.
        self.max_call_steps = config.rewind_steps + 1
        self._counters = [_Counters() for _ in range(num_slots)]
        # One byte a column of the audio ring: whether a LISTEN step is there.
        self._is_listen = [bytearray(areas.audio) for _ in range(num_slots)]
        num_columns = areas.num_pages * areas.page_steps
        self._recent: list[deque[int]] = [deque(maxlen=num_columns) for _ in range(num_slots)]

    @property
    def num_slots(self) -> int:
        """Slots in this state."""
        return len(self._counters)

    @property
    def device(self) -> torch.device:
        """Where keys and values are."""
        return self._groups[-1].store.kv.device

    @property
    def dtype(self) -> torch.dtype:
        """What the model computes in."""
        return self._groups[-1].store.dtype

    @property
    def reading(self) -> Reading:
        """How attention reads pages."""
        return self._memory.reading

    def conditions(self, rows: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Return what slots int64 [n] are told: what is added, and what is attended to."""
        added = None if self.added is None else self.added[rows]
        return added, None if self.cross is None else self.cross[:, :, rows]

    @property
    def stores(self) -> list[Store]:
        """Pages of the layers, the lowest layers first."""
        return [group.store for group in self._groups]

    @property
    def use(self) -> MemoryUse:
        """Count what is in use now."""
        pools = [group.tables.pool for group in self._groups]
        used = [pool.num_pages - pool.num_free for pool in pools]
        bytes_used = sum(
            n * group.store.page_bytes for n, group in zip(used, self._groups, strict=True)
        )
        return MemoryUse(
            sum(used),
            sum(pool.num_pages for pool in pools),
            bytes_used,
            sum(group.store.num_bytes for group in self._groups),
        )

    def length(self, slot: int) -> int:
        """Return how many steps `slot` has taken since its reset, minus those taken back."""
        counters = self._counters[slot]
        return counters.prefix + counters.text + counters.audio

    def pages(self, slot: int) -> list[list[int]]:
        """Return the pages that `slot` has, in each of `stores`."""
        return [group.pages(slot) for group in self._groups]

    def reset(self, slot: int) -> None:
        """Forget everything in `slot`; other slots are untouched.

        Its pages are free from then on, and wiped when they are handed out again.
        """
        for group in self._groups:
            group.tables.clear(slot)
        if self.added is not None:
            self.added[slot].zero_()
        if self.cross is not None:
            self.cross[:, :, slot].zero_()
        self._counters[slot] = _Counters()
        self._is_listen[slot] = bytearray(len(self._is_listen[slot]))
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
        # What is taken back is counted by its kind: only the ring of that kind moves.
        back = [recent[-1 - i] for i in range(num_back)]
        text = now.text - back.count(Kind.TEXT)
        audio = now.audio - sum(k > Kind.TEXT for k in back)
        config = self._config
        # Of each ring, the oldest step that would be seen again must not have been written over.
        # For the example above: 8 steps kept, seen from 8 - 6 = 2 on; 10 at most, so 10 - 6 - 2 = 2
        # is left.
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
        now.speak -= sum(k > Kind.LISTEN for k in back)
        for _ in back:
            recent.pop()
        for group in self._groups:
            most = self._held(slot, group, is_high=True)
            # Pages that hold nothing any more go back to the pool. Once a ring has gone around, all
            # of its pages hold something.
            group.tables.release(slot, group.areas.parts_beyond(self._held(slot, group), most))

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
        # A page of which some columns are still free would be written to by both slots: it is
        # copied now, so that a later step never has to. Full pages are only read until their ring
        # comes around; `own` copies them then.
        assert source != target, source
        filling = [self._filling(source, group) for group in self._groups]
        for group, parts in zip(self._groups, filling, strict=True):
            self._check_free(group, len(parts), target)
        self.reset(target)
        for group, parts in zip(self._groups, filling, strict=True):
            group.tables.share(source, target)
            group.own(target, parts)
        if self.added is not None:
            self.added[target] = self.added[source]
        if self.cross is not None:
            self.cross[:, :, target] = self.cross[:, :, source]
        self._counters[target] = replace(self._counters[source])
        self._is_listen[target] = bytearray(self._is_listen[source])
        self._recent[target].extend(self._recent[source])

    def snapshot(self, slot: int) -> SlotMemory:
        """Copy what `slot` remembers into host memory; the slot is unchanged."""
        return SlotMemory(
            contents=tuple(group.store.read(group.pages(slot)) for group in self._groups),
            parts=tuple(tuple(group.parts(slot)) for group in self._groups),
            added=None if self.added is None else _to_host(self.added[slot]),
            cross=None if self.cross is None else _to_host(self.cross[:, :, slot]),
            counters=replace(self._counters[slot]),
            is_listen=bytes(self._is_listen[slot]),
            recent=tuple(self._recent[slot]),
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
        # All that can fail comes first, so that an error leaves the slot as it was.
        self._check_fits(memory)
        for group, parts in zip(self._groups, memory.parts, strict=True):
            self._check_free(group, len(parts), slot)
        self.reset(slot)
        for group, parts, contents in zip(self._groups, memory.parts, memory.contents, strict=True):
            for part in parts:
                group.tables.own(slot, part)
            group.store.write(group.pages(slot), contents)
        if memory.added is not None:
            if self.added is None:
                self.added = memory.added.new_zeros(
                    (self.num_slots, *memory.added.shape), device=self.device
                )
            self.added[slot] = memory.added.to(self.device)
        if memory.cross is not None:
            if self.cross is None:
                layers, two, *rest = memory.cross.shape
                self.cross = memory.cross.new_zeros(
                    (layers, two, self.num_slots, *rest), device=self.device
                )
            self.cross[:, :, slot] = memory.cross.to(self.device)
        self._counters[slot] = replace(memory.counters)
        self._is_listen[slot] = bytearray(memory.is_listen)
        self._recent[slot].extend(memory.recent)

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
        # The usual call of a duplex model: one step of each row, and a slot is a single ring. Then
        # numpy plans all rows at once; with 64 sessions, the host's part of a frame depends on it.
        if self._is_ring and len(kind[0]) == 1:
            is_step = [row[0] != Kind.PAD for row in kind]
            if is_step == [slot != PADDING for slot in slots]:
                return [self._plan_ring([row[0] for row in kind], slots)]
        return [
            None if rows is None else PagedPlan.of(rows, group.tables.of(slots), group.store)
            for rows, group in zip(self.plan(kind, slots), self._groups, strict=True)
        ]

    @property
    def _is_ring(self) -> bool:
        """Say whether a slot is one ring, the same in all layers: that of a duplex model."""
        config = self._config
        return not (config.text_window or config.prefix_steps or config.audio_entry_layer)

    def _plan_ring(self, kind: Sequence[int], slots: Sequence[int]) -> PagedPlan:
        """Do as `plan_paged` where a slot is one ring, for a step of each: for all at once."""
        (group,) = self._groups
        window, size = self._config.audio_window, group.areas.audio
        row = np.array(slots)  # [n]
        is_somebody = row != PADDING  # [n]
        held = np.array([0 if s == PADDING else self._counters[s].audio for s in slots])  # [n]
        part = held % size // group.areas.page_steps  # [n]
        pages = group.tables.of(slots)[np.arange(len(row)), part]  # [n]
        refs = group.tables.pool.refs
        wanted = [i for i in is_somebody.nonzero()[0] if pages[i] == NO_PAGE or refs(pages[i]) > 1]
        self._check_free(group, len(wanted))
        for i in wanted:
            group.own(slots[i], (int(part[i]),))
        for slot, step_kind in zip(slots, kind, strict=True):
            if slot != PADDING:
                self._count(slot, step_kind)
        held += is_somebody
        return PagedPlan.of_rings(held, window, size, group.tables.of(slots), group.store)

    def has_room(self, kind: Sequence[Sequence[int]], slots: Sequence[int]) -> bool:
        """Say whether there are pages for `advance`; arguments as there."""
        # The first, cheap answer is nearly always enough. It counts a page for each step, where in
        # truth most steps go to a page that their slot has already.
        most = sum(len(row) for row in kind)  # a step is written to one page
        return all(
            most <= group.tables.pool.num_free
            or len(self._wanted(kind, slots, group)) <= group.tables.pool.num_free
            for group in self._groups
        )

    def plan(self, kind: Sequence[Sequence[int]], slots: Sequence[int]) -> list[list[Row] | None]:
        """Do as `advance`, and return for each of `stores` what every row writes and sees."""
        num_steps, somebody = len(kind[0]), [slot for slot in slots if slot != PADDING]
        assert num_steps <= self.max_call_steps, (num_steps, self.max_call_steps)
        assert len(set(somebody)) == len(somebody), slots
        self._check_prefix(kind, slots)
        # Where all that comes is the user's audio, the layers below `audio_entry_layer` rest.
        groups = [
            None
            if group.is_low and all(k in _LISTEN_OR_PAD for row in kind for k in row)
            else group
            for group in self._groups
        ]
        self._take_pages(kind, slots, [group for group in groups if group is not None])
        rows: list[list[Row] | None] = [None if group is None else [] for group in groups]
        for slot, row_kind in zip(slots, kind, strict=True):
            planned = self._plan_row(slot, row_kind, groups)
            for of_group, row in zip(rows, planned, strict=True):
                if of_group is not None:
                    of_group.append(row)
        return rows

    def _plan_row(
        self, slot: int, kind: Sequence[int], groups: Sequence[_Group | None]
    ) -> list[Row]:
        """Count the steps of one row in and say where they go."""
        rows = []
        for group in groups:
            pages = [] if group is None or slot == PADDING else group.tables.rows[slot]
            if group is not None and slot == PADDING:
                pages = [NO_PAGE] * group.areas.num_pages
            rows.append(Row(pages, [], [], (0, 0)))
        for step_kind in kind:
            # A step is counted before it is placed, so it sees itself and nothing that comes after
            # it, though the whole call is computed at once: this is the causal mask.
            if step_kind != Kind.PAD:
                self._count(slot, step_kind)
            for row, group in zip(rows, groups, strict=True):
                if group is None:
                    continue
                held = _NOTHING if slot == PADDING else self._held(slot, group)
                row.columns.append(_column(step_kind, held, group))
                row.seen.append(group.areas.seen(held))
                row.live = group.areas.live(held)
        return rows

    def _count(self, slot: int, kind: int) -> None:
        """Count one step in."""
        now = self._counters[slot]
        self._recent[slot].append(kind)
        if kind == Kind.PREFIX:
            now.prefix += 1
        elif kind == Kind.TEXT:
            now.text += 1
            now.text_high = max(now.text_high, now.text)
        else:
            ring = self._is_listen[slot]
            ring[now.audio % len(ring)] = kind == Kind.LISTEN
            now.audio += 1
            now.audio_high = max(now.audio_high, now.audio)
            if kind != Kind.LISTEN:
                now.speak += 1
                now.speak_high = max(now.speak_high, now.speak)

    def _held(self, slot: int, group: _Group, *, is_high: bool = False) -> Held:
        """Return what a slot has in the areas of some layers, now or at most ever."""
        now, config = self._counters[slot], self._config
        if is_high:
            audio = now.speak_high if group.is_low else now.audio_high
            return Held(now.prefix, now.text_high, 0, audio, 0)
        audio, seen = now.audio, min(now.audio, config.audio_window)
        if group.is_low:
            # Of the audio steps in the window, those that exist here.
            ring = self._is_listen[slot]
            ranges = ring_ranges(audio, seen, len(ring))
            audio, seen = now.speak, seen - sum(ring.count(1, *newest) for newest in ranges)
        return Held(now.prefix, now.text, min(now.text, config.text_window), audio, seen)

    def _parts(self, slot: int, kind: Sequence[int], group: _Group) -> set[int]:
        """Return the parts of its memory that a slot will write for new steps."""
        now = self._counters[slot]
        start = Held(now.prefix, now.text, 0, now.speak if group.is_low else now.audio, 0)
        first = Kind.SPEAK if group.is_low else Kind.LISTEN
        prefix = text = audio = 0
        for step_kind in kind:
            prefix += step_kind == Kind.PREFIX
            text += step_kind == Kind.TEXT
            audio += step_kind >= first
        stop = Held(start.prefix + prefix, start.text + text, 0, start.audio + audio, 0)
        return group.areas.parts(start, stop)

    def _filling(self, slot: int, group: _Group) -> set[int]:
        return group.areas.parts_being_filled(self._held(slot, group))

    def _take_pages(
        self, kind: Sequence[Sequence[int]], slots: Sequence[int], groups: Sequence[_Group]
    ) -> None:
        """Let slots own the pages that new steps are written to."""
        # Two rounds: pages are counted for all layers before the first one is taken, so that a call
        # that does not fit changes nothing.
        taken = []
        for group in groups:
            wanted = self._wanted(kind, slots, group)
            if wanted:
                self._check_free(group, len(wanted))
                taken.append((group, wanted))
        for group, wanted in taken:
            for slot, part in wanted:
                group.own(slot, (part,))

    def _wanted(
        self, kind: Sequence[Sequence[int]], slots: Sequence[int], group: _Group
    ) -> list[tuple[int, int]]:
        """Return the parts of slots that new steps are written to and that they do not own."""
        return [
            (slot, part)
            for slot, row in zip(slots, kind, strict=True)
            if slot != PADDING
            for part in self._parts(slot, row, group)
            if group.tables.num_missing(slot, (part,))
        ]

    def _check_free(self, group: _Group, num_pages: int, slot: int | None = None) -> None:
        """Refuse what would take more pages than are free once `slot` is empty."""
        pool = group.tables.pool
        freed = 0 if slot is None else sum(pool.refs(p) == 1 for p in group.pages(slot))
        if num_pages > pool.num_free + freed:
            msg = f"{num_pages} pages are needed, {pool.num_free + freed} of {pool.num_pages} free"
            raise OutOfPagesError(msg)

    def _check_fits(self, memory: SlotMemory) -> None:
        got = [(c.kv.dtype, *c.kv.shape[:3], *c.kv.shape[4:]) for c in memory.contents]
        expected = [(s.kv.dtype, *s.kv.shape[:3], s.page_steps, s.kv.shape[4]) for s in self.stores]
        num_columns = len(self._is_listen[0])
        if got != expected or len(memory.is_listen) != num_columns:
            msg = (
                f"memory of another model: expected pages of {expected} and {num_columns} audio "
                f"steps, got {got} and {len(memory.is_listen)}"
            )
            raise EngineError(msg)

    def _check_prefix(self, kind: Sequence[Sequence[int]], slots: Sequence[int]) -> None:
        for slot, row in zip(slots, kind, strict=True):
            num_new = list(row).count(Kind.PREFIX)
            if not num_new:
                continue
            held = self._counters[slot].prefix + num_new
            if held > self._config.prefix_steps:
                msg = f"prefix of {held} steps, the model holds {self._config.prefix_steps}"
                raise EngineError(msg)


def areas_of(config: LMConfig, page_steps: int) -> Areas:
    """Return how a slot's columns are divided, in pages of `page_steps`."""
    # A ring that holds nothing has nothing to take back either.
    text = config.text_window and config.text_window + config.rewind_steps
    audio = config.audio_window + config.rewind_steps
    return Areas.around(text, config.prefix_steps, audio, page_steps)


def _column(kind: int, held: Held, group: _Group) -> int | None:
    """Return the column of the newest step, which is counted in `held`; None if it has none."""
    areas = group.areas
    match kind:
        case Kind.PAD:
            return None
        case Kind.PREFIX:
            return areas.prefix_column(held.prefix - 1)
        case Kind.TEXT:
            return areas.text_column(held.text - 1)
        case Kind.LISTEN if group.is_low:
            return None
        case _:
            return areas.audio_column(held.audio - 1)


def _to_host(tensor: Tensor) -> Tensor:
    """Return a copy in host memory."""
    return tensor.to("cpu", copy=True)
