"""What the next step of a duplex conversation is fed."""

from __future__ import annotations

from dataclasses import dataclass

from model.arrays import Ints
from model.messages import Pcm


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """What the next step of a conversation is fed.

    Attributes:
        heard: float32 [frame_samples], to be encoded; None if `user` is given.
        user: int64 [codebooks of the user]; None if `heard` is given, or for zeros.
        forced: int64 [1 + K], text and codes of the frame that begins now, -2 where it is free;
            None if all of it is.
        is_prompt: whether it is a frame of the prompt.
        is_wanted: whether the frame that becomes whole is to be decoded.
        late_s: how long `heard` has waited.
    """

    heard: Pcm | None
    user: Ints | None
    forced: Ints | None
    is_prompt: bool = False
    is_wanted: bool = False
    late_s: float = 0.0
