"""Name what a step of the transformer can be."""

from __future__ import annotations

from enum import IntEnum


class Kind(IntEnum):
    """What a step is; decides which area remembers it."""

    PAD = 0  # not a step: filler at the end of a row
    PREFIX = 1  # pinned: never leaves
    TEXT = 2  # text only
    LISTEN = 3  # user audio; enters the stack at `audio_entry_layer`
    SPEAK = 4  # assistant audio
    DUPLEX = 5  # text and audio of both sides at once
