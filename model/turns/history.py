"""Keep what was fed to the model in one conversation, so that any of it can be taken back.

The history is the truth and the model's state a cache of it: `fed` says how many of its steps the
state has seen. Changing the past lowers `fed`; feeding what is missing brings the state up again,
which makes a conversation after a change equal to one in which the past had been so from the
start.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from model.arrays import Ints
from model.cache.state import Kind
from model.turns.sight import Patch

# A worked example of `fed`. A history has 20 steps, and the model has seen all of them: fed = 20.
# The client truncates the last reply, steps 10-19, to steps 10-14: the first difference is at step
# 14, where <eos> now stands. So fed = min(20, 14) = 14, and nothing else happens yet. At the
# session's next turn to step, the pager sees that the state holds 20 steps and the history wants
# 14: it rewinds 6 steps if the ring allows, else it resets the slot and feeds all 15 steps again.
# Both give the same numbers.
#
# Deleting an item, changing the voice, reopening a turn and truncation are all this one movement:
# change the log, lower `fed`.

VOICE_INDEX = 1  # of the voice's piece in the prefix

# Assistant items that can still be truncated. A client truncates what it is hearing or has just
# heard, so a few would do.
_MAX_ITEMS = 64


@dataclass(frozen=True, slots=True, eq=False)
class StepBlock:
    """Inputs of `n` consecutive steps.

    Attributes:
        text: int64 [n], text piece, pad where there is none.
        kind: int64 [n] of `Kind`.
        user: int64 [n, K], user audio codes, -1 where absent.
        assistant: int64 [n, K], assistant audio codes as delayed, -1 where absent.
        patch: object [n] of `Patch`, None where nothing is seen.
    """

    text: Ints
    kind: Ints
    user: Ints
    assistant: Ints
    patch: npt.NDArray[Any]

    @property
    def patches(self) -> list[Patch]:
        """Return what is seen, in the order of the steps."""
        return [patch for patch in self.patch if patch is not None]

    def __len__(self) -> int:
        """Count the steps."""
        return len(self.text)


class StepCount(NamedTuple):
    """Count steps by what they are: text (the prefix included), audio, pictures."""

    text: int = 0
    audio: int = 0
    image: int = 0


@dataclass(slots=True)
class AssistantItem:
    """Where an assistant item lies in the history.

    Attributes:
        item_id: its name in the conversation.
        start: index of the step that feeds `<reply>`.
        is_audio: whether it was meant to be spoken.
        speak: index of its first SPEAK step, None before that or without audio.
        stop: index after its last step, None while it grows.
        word_starts_ms: where each word begins in its audio, in order.
    """

    item_id: str
    start: int
    is_audio: bool
    speak: int | None = None
    stop: int | None = None
    word_starts_ms: list[int] = field(default_factory=list)

    def shift(self, delta: int) -> None:
        """Move by `delta` steps."""
        self.start += delta
        if self.speak is not None:
            self.speak += delta
        if self.stop is not None:
            self.stop += delta


class History:
    """Log the steps of one conversation, the pinned prefix first.

    Indices count all steps since the start. When the log is full its oldest steps after the
    prefix are dropped, so memory is bounded; by then they are far outside every window.

    Args:
        prefix: text pieces of the pinned prefix.
        num_codebooks: codes per frame.
        max_steps: steps that are kept.

    Attributes:
        fed: steps that the model's state has seen.
        items: the newest assistant items, oldest first.
    """

    __slots__ = (
        "_assistant",
        "_base",
        "_kind",
        "_patch",
        "_prefix",
        "_rows",
        "_text",
        "_user",
        "fed",
        "items",
    )

    def __init__(self, prefix: Sequence[int], num_codebooks: int, max_steps: int) -> None:
        self._text = np.zeros(max_steps, dtype=np.int32)  # [steps]
        self._kind = np.zeros(max_steps, dtype=np.int8)  # [steps]
        self._user = np.full((max_steps, num_codebooks), -1, dtype=np.int16)  # [steps, K]
        self._assistant = np.full((max_steps, num_codebooks), -1, dtype=np.int16)  # [steps, K]
        # References: however often steps are copied and moved, a patch is there once.
        self._patch = np.full(max_steps, None, dtype=object)  # [steps]
        self._base = 0  # steps dropped after the prefix
        self._rows = 0
        self._prefix = len(prefix)
        self.fed = 0
        self.items: deque[AssistantItem] = deque(maxlen=_MAX_ITEMS)
        for piece in prefix:
            self.append(Kind.PREFIX, piece)

    def __len__(self) -> int:
        """Count all steps since the start, dropped ones included."""
        return self._rows + self._base

    @property
    def oldest(self) -> int:
        """Index of the oldest step after the prefix that is still known."""
        return self._prefix + self._base

    def append(
        self,
        kind: Kind,
        text: int,
        *,
        user: Ints | None = None,
        assistant: Ints | None = None,
        patch: Patch | None = None,
    ) -> None:
        """Add one step; absent codes are None or -1, shape [K]."""
        if self._rows == len(self._text):
            self._drop_oldest()
        row = self._rows
        self._text[row], self._kind[row] = text, kind
        self._user[row] = -1 if user is None else user
        self._assistant[row] = -1 if assistant is None else assistant
        self._patch[row] = patch
        self._rows += 1

    def extend(self, block: StepBlock) -> None:
        """Add several steps."""
        for i in range(len(block)):
            kind = Kind(int(block.kind[i]))
            self.append(
                kind,
                int(block.text[i]),
                user=block.user[i],
                assistant=block.assistant[i],
                patch=block.patch[i],
            )

    def block(self, start: int, stop: int) -> StepBlock:
        """Return a copy of the steps `start:stop`."""
        return self._copy(slice(self._row(start), self._row(stop)))

    def cut(self, length: int) -> None:
        """Keep the first `length` steps."""
        rows, self._rows = self._rows, self._row(length)
        self._patch[self._rows : rows] = None  # pictures are large: none is kept for nothing
        self.fed = min(self.fed, len(self))
        while self.items and self.items[-1].start >= len(self):
            self.items.pop()

    def take(self, start: int) -> StepBlock:
        """Remove and return the steps from `start` on."""
        block = self.block(start, len(self))
        self.cut(start)
        return block

    def replace(self, item: AssistantItem, block: StepBlock) -> int:
        """Put `block` in the place of `item`, which is complete; an empty block removes the item.

        Returns:
            By how much every later step has moved.
        """
        # What is equal at the beginning stays fed: a reply that is cut at its end costs no step.
        assert item.stop is not None
        start, stop = item.start, item.stop
        delta = len(block) - (stop - start)
        same = _num_same(self.block(start, stop), block)
        if same == len(block) == stop - start:
            return 0
        tail, later = self.block(stop, len(self)), [i for i in self.items if i.start >= stop]
        self._rows = self._row(start)
        self.extend(block)
        self.extend(tail)
        self._patch[self._rows :] = None
        self.fed = min(self.fed, start + same)
        for other in later:
            other.shift(delta)
        item.stop = stop + delta
        if not len(block):
            self.items.remove(item)
        return delta

    @property
    def prefix(self) -> StepBlock:
        """Return a copy of the pinned steps."""
        return self._copy(slice(self._prefix))

    @property
    def prefix_pieces(self) -> tuple[int, ...]:
        """Return the pieces of the prefix."""
        return tuple(self._text[: self._prefix].tolist())

    def replace_prefix(self, pieces: Sequence[int]) -> int:
        """Put other pieces into the prefix; everything after it has to be fed again.

        Returns:
            By how much every step after the prefix has moved.
        """
        if self.prefix_pieces == tuple(pieces):
            return 0
        longer = len(pieces) - self._prefix
        if self._rows + longer > len(self._text):
            self._drop_oldest()
        start, stop = self._prefix, self._rows
        for log in self._logs:
            log[start + longer : stop + longer] = log[start:stop].copy()
        self._prefix, self._rows = start + longer, stop + longer
        self._text[: self._prefix], self._kind[: self._prefix] = pieces, Kind.PREFIX
        self._user[: self._prefix] = self._assistant[: self._prefix] = -1
        self._patch[: self._prefix] = None
        self._patch[self._rows :] = None
        for item in self.items:
            item.shift(longer)
        return longer + self.rebuild()

    def rebuild(self) -> int:
        """Forget what the state has seen; indices start again after the prefix.

        Returns:
            By how much every step after the prefix has moved.
        """
        delta, self._base, self.fed = -self._base, 0, 0
        for item in self.items:
            item.shift(delta)
        return delta

    def count_steps(self) -> StepCount:
        """Count the known steps by what they are."""
        kinds = self._kind[: self._rows]
        audio = int(np.count_nonzero((kinds == Kind.LISTEN) | (kinds == Kind.SPEAK)))
        image = sum(patch is not None for patch in self._patch[: self._rows])
        return StepCount(self._rows - audio - image, audio, image)

    @property
    def _logs(self) -> tuple[npt.NDArray[Any], ...]:
        return self._text, self._kind, self._user, self._assistant, self._patch

    def _copy(self, rows: slice) -> StepBlock:
        return StepBlock(
            self._text[rows].astype(np.int64),
            self._kind[rows].astype(np.int64),
            self._user[rows].astype(np.int64),
            self._assistant[rows].astype(np.int64),
            self._patch[rows].copy(),
        )

    def _row(self, index: int) -> int:
        if index <= self._prefix and not self._base:
            return index
        assert index >= self.oldest, f"step {index} was dropped, the oldest is {self.oldest}"
        return index - self._base

    def _drop_oldest(self) -> None:
        # A quarter at once, so that moving the rest costs little for each step.
        start, kept = self._prefix, self._rows - self._prefix
        num = kept // 4 + 1
        for log in self._logs:
            log[start : start + kept - num] = log[start + num : start + kept].copy()
        self._rows -= num
        self._patch[self._rows :] = None
        self._base += num
        while self.items and self.items[0].start < self.oldest:
            self.items.popleft()


def _num_same(a: StepBlock, b: StepBlock) -> int:
    """Count the equal steps at the beginning of two blocks."""
    n = min(len(a), len(b))
    same = (a.text[:n] == b.text[:n]) & (a.kind[:n] == b.kind[:n])
    same &= (a.user[:n] == b.user[:n]).all(1) & (a.assistant[:n] == b.assistant[:n]).all(1)
    same &= np.equal(a.patch[:n], b.patch[:n]).astype(bool)
    return n if same.all() else int(np.argmin(same))
