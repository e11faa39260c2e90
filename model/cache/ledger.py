"""Keep the books of what the transformer remembers: how many steps, in which pages, seen by whom.

No tensor is touched here. `LMState` (`model/cache/state.py`) does with keys and values what is
planned here; `model/cache/areas.py` says in which column of its slot a step lies, and
`model/cache/pages.py` who has which page.

A step is counted in once, for all layers; layers in which LISTEN steps do not exist are a group
with pages of its own. Example: two groups, and a slot that takes a LISTEN step. The upper group
counts an audio step and writes it to the next column of its ring; the lower one has no column for
it, and takes no page.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from model.cache.areas import Areas, Held, Range, ring_ranges
from model.cache.kinds import Kind
from model.cache.pages import NO_PAGE, PADDING, PageTables
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

_LISTEN_OR_PAD = (Kind.LISTEN, Kind.PAD)
_NOTHING = Held(0, 0, 0, 0, 0)


@dataclass(slots=True)
class Row:
    """Say what one row of a call writes and sees.

    Attributes:
        pages: the slot's, [pages_per_slot]; `NO_PAGE` where there is none.
        columns: where each step is written to, in the slot's columns; None for nowhere.
        seen: the ranges of the slot's columns that each step sees; equally many for every step.
        live: the smallest range that holds all of them.
    """

    pages: Sequence[int]
    columns: list[int | None]
    seen: list[Sequence[Range]]
    live: Range


@dataclass(slots=True)
class Counters:
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
class SlotRecord:
    """Hold what is written down of one slot.

    Attributes:
        parts: of the slot that have pages, for each group of layers.
        counters: steps in each area.
        is_listen: of every column of the audio ring whether a LISTEN step is there.
        recent: kinds of the newest steps, oldest first.
    """

    parts: tuple[tuple[int, ...], ...]
    counters: Counters
    is_listen: bytes
    recent: tuple[int, ...]


class LayerGroup:
    """Hold the pages of some layers: all those in which the same steps exist.

    Args:
        areas: of a slot.
        tables: pages of the slots.
        num_layers: how many layers it is.
        is_low: whether LISTEN steps do not exist in these layers.

    Attributes:
        begun: pages that were taken and not filled yet, each with the page whose contents belong
            there, `NO_PAGE` for none.
    """

    __slots__ = ("areas", "begun", "is_low", "num_layers", "tables")

    def __init__(self, areas: Areas, tables: PageTables, num_layers: int, *, is_low: bool) -> None:
        self.areas, self.tables = areas, tables
        self.num_layers, self.is_low = num_layers, is_low
        self.begun: list[tuple[int, int]] = []

    def own(self, slot: int, parts: Iterable[int]) -> None:
        """Let a slot write to parts of its memory; the pages must be there."""
        for part in parts:
            begun = self.tables.own(slot, part)
            if begun is not None:
                self.begun.append(begun)

    def parts(self, slot: int) -> list[int]:
        """Return the parts of its memory that a slot has."""
        return [i for i, page in enumerate(self.tables.rows[slot]) if page != NO_PAGE]

    def pages(self, slot: int) -> list[int]:
        """Return the pages that a slot has, in the order of its parts."""
        return [page for page in self.tables.rows[slot] if page != NO_PAGE]


class Ledger:
    """Count the steps of every slot, and say where they are.

    Args:
        config: sizes and windows.
        num_slots: how many conversations there can be.
        page_steps: columns of a page.
        num_pages: of each group of layers; None for as many as the slots can ever take.

    Attributes:
        groups: of layers, the lowest first.
        max_call_steps: most steps of one slot that a single call may add.
    """

    __slots__ = ("_config", "_counters", "_is_listen", "_recent", "groups", "max_call_steps")

    def __init__(
        self, config: LMConfig, num_slots: int, page_steps: int, num_pages: int | None
    ) -> None:
        self._config = config
        areas = areas_of(config, page_steps)
        entry = config.audio_entry_layer
        self.groups = [
            LayerGroup(
                areas,
                PageTables(num_slots, areas.num_pages, num_pages or num_slots * areas.num_pages),
                num_layers,
                is_low=is_low,
            )
            for num_layers, is_low in ((entry, True), (config.num_layers - entry, False))
            if num_layers
        ]
        # A call's later steps must not overwrite what its first step still sees.
        self.max_call_steps = config.rewind_steps + 1
        self._counters = [Counters() for _ in range(num_slots)]
        # One byte a column of the audio ring: whether a LISTEN step is there.
        self._is_listen = [bytearray(areas.audio) for _ in range(num_slots)]
        num_columns = areas.num_pages * areas.page_steps
        self._recent: list[deque[int]] = [deque(maxlen=num_columns) for _ in range(num_slots)]

    @property
    def num_slots(self) -> int:
        """Slots that there are."""
        return len(self._counters)

    @property
    def num_ring_columns(self) -> int:
        """Columns of a slot's audio ring."""
        return len(self._is_listen[0])

    @property
    def is_ring(self) -> bool:
        """Say whether a slot is one ring, the same in all layers: that of a duplex model."""
        config = self._config
        return not (config.text_window or config.prefix_steps or config.audio_entry_layer)

    def length(self, slot: int) -> int:
        """Return how many steps `slot` has taken since its reset, minus those taken back."""
        counters = self._counters[slot]
        return counters.prefix + counters.text + counters.audio

    def reset(self, slot: int) -> None:
        """Forget everything in `slot`; its pages are free from then on."""
        for group in self.groups:
            group.tables.clear(slot)
        self._counters[slot] = Counters()
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
        for group in self.groups:
            most = self._held(slot, group, is_high=True)
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
        assert source != target, source
        filling = [self._filling(source, group) for group in self.groups]
        for group, parts in zip(self.groups, filling, strict=True):
            self._check_free(group, len(parts), target)
        self.reset(target)
        for group, parts in zip(self.groups, filling, strict=True):
            group.tables.share(source, target)
            group.own(target, parts)
        self._counters[target] = replace(self._counters[source])
        self._is_listen[target] = bytearray(self._is_listen[source])
        self._recent[target].extend(self._recent[source])

    def record(self, slot: int) -> SlotRecord:
        """Write down what there is of a slot."""
        return SlotRecord(
            parts=tuple(tuple(group.parts(slot)) for group in self.groups),
            counters=replace(self._counters[slot]),
            is_listen=bytes(self._is_listen[slot]),
            recent=tuple(self._recent[slot]),
        )

    def restore(self, slot: int, record: SlotRecord) -> None:
        """Let a slot be as it was written down; what is in its pages is the caller's to write.

        Raises:
            OutOfPagesError: there are not enough pages; the slot is unchanged then.
        """
        for group, parts in zip(self.groups, record.parts, strict=True):
            self._check_free(group, len(parts), slot)
        self.reset(slot)
        for group, parts in zip(self.groups, record.parts, strict=True):
            for part in parts:
                group.tables.own(slot, part)
        self._counters[slot] = replace(record.counters)
        self._is_listen[slot] = bytearray(record.is_listen)
        self._recent[slot].extend(record.recent)

    def advance_rings(self, kind: Sequence[int], slots: Sequence[int]) -> np.ndarray:
        """Do as `advance` where a slot `is_ring`, for a step of each: for all at once.

        A second planner for the sake of speed: a frame of 256 sessions takes the host a fifth
        longer with `advance` (`benchmarks/bench_host.py`). It cannot be the only one either: calls
        of a turn model are few rows of unequal length, over three areas in two groups of layers.

        Returns:
            int [n], steps that each ring has taken, the new one included; 0 for nobody's.
        """
        (group,) = self.groups
        size = group.areas.audio
        row = np.array(slots)
        is_somebody = row != PADDING
        held = np.array([0 if s == PADDING else self._counters[s].audio for s in slots])
        part = held % size // group.areas.page_steps
        pages = group.tables.of(slots)[np.arange(len(row)), part]
        refs = group.tables.pool.refs
        wanted = [i for i in is_somebody.nonzero()[0] if pages[i] == NO_PAGE or refs(pages[i]) > 1]
        self._check_free(group, len(wanted))
        for i in wanted:
            group.own(slots[i], (int(part[i]),))
        for slot, step_kind in zip(slots, kind, strict=True):
            if slot != PADDING:
                self._count(slot, step_kind)
        held += is_somebody
        return held

    def has_room(self, kind: Sequence[Sequence[int]], slots: Sequence[int]) -> bool:
        """Say whether there are pages for `advance`; arguments as there."""
        # The first, cheap answer is nearly always enough. It counts a page for each step, where in
        # truth most steps go to a page that their slot has already.
        most = sum(len(row) for row in kind)  # a step is written to one page
        return all(
            most <= group.tables.pool.num_free
            or len(self._wanted(kind, slots, group)) <= group.tables.pool.num_free
            for group in self.groups
        )

    def advance(
        self, kind: Sequence[Sequence[int]], slots: Sequence[int]
    ) -> list[list[Row] | None]:
        """Count new steps in, and say what every row writes and sees.

        Args:
            kind: `Kind` values [n][T]; PAD only at the end of a row.
            slots: n distinct slots; any number may be `PADDING`, whose rows are PAD.

        Returns:
            For each group a row of each slot; None for a group that no step enters.

        Raises:
            EngineError: if the prefix area is full; nothing has changed then.
            OutOfPagesError: if there are no pages for what is new; nothing has changed then.
        """
        num_steps, somebody = len(kind[0]), [slot for slot in slots if slot != PADDING]
        assert num_steps <= self.max_call_steps, (num_steps, self.max_call_steps)
        assert len(set(somebody)) == len(somebody), slots
        self._check_prefix(kind, slots)
        groups = [
            None
            if group.is_low and all(k in _LISTEN_OR_PAD for row in kind for k in row)
            else group
            for group in self.groups
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
        self, slot: int, kind: Sequence[int], groups: Sequence[LayerGroup | None]
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

    def _held(self, slot: int, group: LayerGroup, *, is_high: bool = False) -> Held:
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

    def _parts(self, slot: int, kind: Sequence[int], group: LayerGroup) -> set[int]:
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

    def _filling(self, slot: int, group: LayerGroup) -> set[int]:
        return group.areas.parts_being_filled(self._held(slot, group))

    def _take_pages(
        self, kind: Sequence[Sequence[int]], slots: Sequence[int], groups: Sequence[LayerGroup]
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
        self, kind: Sequence[Sequence[int]], slots: Sequence[int], group: LayerGroup
    ) -> list[tuple[int, int]]:
        """Return the parts of slots that new steps are written to and that they do not own."""
        return [
            (slot, part)
            for slot, row in zip(slots, kind, strict=True)
            if slot != PADDING
            for part in self._parts(slot, row, group)
            if group.tables.num_missing(slot, (part,))
        ]

    def _check_free(self, group: LayerGroup, num_pages: int, slot: int | None = None) -> None:
        """Refuse what would take more pages than are free once `slot` is empty."""
        pool = group.tables.pool
        freed = 0 if slot is None else sum(pool.refs(p) == 1 for p in group.pages(slot))
        if num_pages > pool.num_free + freed:
            msg = f"{num_pages} pages are needed, {pool.num_free + freed} of {pool.num_pages} free"
            raise OutOfPagesError(msg)

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
    # A ring without a window needs no room for rewinding either.
    text = config.text_window and config.text_window + config.rewind_steps
    audio = config.audio_window + config.rewind_steps
    return Areas.around(text, config.prefix_steps, audio, page_steps)


def _column(kind: int, held: Held, group: LayerGroup) -> int | None:
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
