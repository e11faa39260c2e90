"""Where the steps of one slot lie in its columns. Pure arithmetic.

The columns are three areas, each a whole number of pages,

    text ring, newest ordinals to the left | prefix | audio ring, newest ordinals to the right

so a young slot occupies one contiguous range in the middle. The n-th step of a ring lies at column
n modulo the ring's size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Self

from kernels.arithmetic import ceil_div

# A worked example: pages of 4, a text ring of 8 columns, a prefix of 4, an audio ring of 8. After 2
# pinned steps, 3 text steps and 10 audio steps:
#
#     columns   0 1 2 3 | 4 5 6 7 | 8 9 . . | 12 13 14 15 | 16 17 18 19
#     holds     . . . . | . 2 1 0 | 0 1 . . |  8  9  2  3 |  4  5  6  7     (ordinals)
#
# Text grows to the left, so that a young slot is one contiguous range around its prefix, here 5 to
# 19 once the audio ring has gone around. The last audio steps 8 and 9 went over 0 and 1. With 6
# audio steps in view, `seen` is [5, 8), empty, [8, 10), [16, 20), [12, 14): two ranges a ring,
# whether it needs them or not, so that the shape of a plan never changes.

Range = tuple[int, int]


class Held(NamedTuple):
    """Count the steps in each area of one slot.

    Attributes:
        prefix: pinned steps.
        text: steps that the text ring has taken since the start.
        text_seen: how many of its newest are visible.
        audio: steps that the audio ring has taken since the start.
        audio_seen: how many of its newest are visible.
    """

    prefix: int
    text: int
    text_seen: int
    audio: int
    audio_seen: int


@dataclass(frozen=True, slots=True)
class Areas:
    """Say how wide the areas are.

    Attributes:
        page_steps: columns of a page.
        text, prefix, audio: columns of each area, multiples of `page_steps`; 0 for none.
    """

    page_steps: int
    text: int
    prefix: int
    audio: int

    @classmethod
    def around(cls, text: int, prefix: int, audio: int, page_steps: int) -> Self:
        """Return areas for at least so many steps each."""
        return cls(
            page_steps, *(ceil_div(n, page_steps) * page_steps for n in (text, prefix, audio))
        )

    @property
    def num_pages(self) -> int:
        """Pages of all areas."""
        return (self.text + self.prefix + self.audio) // self.page_steps

    def text_column(self, ordinal: int) -> int:
        """Return the column of a step of the text ring."""
        return self.text - 1 - ordinal % self.text

    def prefix_column(self, ordinal: int) -> int:
        """Return the column of a pinned step."""
        return self.text + ordinal

    def audio_column(self, ordinal: int) -> int:
        """Return the column of a step of the audio ring."""
        return self.text + self.prefix + ordinal % self.audio

    def seen(self, held: Held) -> list[Range]:
        """Return the visible columns, always equally many ranges, empty ones included."""
        ranges = []
        if self.text:
            for start, stop in ring_ranges(held.text, held.text_seen, self.text):
                ranges.append((self.text - stop, self.text - start))
        if self.prefix:
            ranges.append((self.text, self.text + held.prefix))
        first = self.text + self.prefix
        for start, stop in ring_ranges(held.audio, held.audio_seen, self.audio):
            ranges.append((first + start, first + stop))
        return ranges

    def live(self, held: Held) -> Range:
        """Return the smallest range of columns that holds every visible one, empty if none is."""
        # Rings that have gone around are live as a whole: the mask hides what is not seen of them.
        start = self.text - min(held.text, self.text)
        if held.audio:
            if not held.text and not held.prefix:
                start += self.prefix
            return start, self.text + self.prefix + min(held.audio, self.audio)
        return start, self.text + held.prefix

    def parts(self, start: Held, stop: Held) -> set[int]:
        """Return the pages that the steps between two counts are written to."""
        columns = [self.text_column(i) for i in range(start.text, stop.text)]
        columns += [self.prefix_column(i) for i in range(start.prefix, stop.prefix)]
        columns += [self.audio_column(i) for i in range(start.audio, stop.audio)]
        return {column // self.page_steps for column in columns}

    def parts_being_filled(self, held: Held) -> set[int]:
        """Return the pages of which some columns were written and the next one not yet."""
        next_columns = []
        if held.text % self.page_steps:
            next_columns.append(self.text_column(held.text))
        if held.prefix % self.page_steps:
            next_columns.append(self.prefix_column(held.prefix))
        if held.audio % self.page_steps:
            next_columns.append(self.audio_column(held.audio))
        return {column // self.page_steps for column in next_columns}

    def parts_beyond(self, held: Held, high: Held) -> set[int]:
        """Return the pages that hold nothing of `held`, if `high` is the most there ever was."""
        # Once a ring has gone around, each of its pages may hold steps, so it keeps all of them.
        parts: set[int] = set()
        first = (self.text + self.prefix) // self.page_steps
        if high.text <= self.text:
            parts.update(range((self.text - held.text) // self.page_steps))
        if high.audio <= self.audio:
            start = ceil_div(held.audio, self.page_steps)
            parts.update(range(first + start, self.num_pages))
        start = (self.text + held.prefix + self.page_steps - 1) // self.page_steps
        parts.update(range(start, first))
        return parts


def ring_ranges(count: int, num_seen: int, size: int) -> tuple[Range, Range]:
    """Return where the newest `num_seen` of `count` steps lie in a ring, as two ranges."""
    # 10 steps in a ring of 8, of which 6 are seen: ordinals 4-9 begin at 4 and end before 10 % 8 =
    # 2, so they are (4, 8) and (0, 2).
    if num_seen == 0:
        return (0, 0), (0, 0)
    start, stop = (count - num_seen) % size, (count - 1) % size + 1
    return ((start, stop), (0, 0)) if start < stop else ((start, size), (0, stop))
