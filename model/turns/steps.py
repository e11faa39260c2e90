"""What a dialogue program asks of the model and of the decoder, and within what bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from model.arrays import Ints
from model.messages import Eagerness, Output
from model.turns.history import StepBlock


class Mask(IntEnum):
    """Which pieces the model may put out."""

    NOTHING = 0
    LISTEN = 1  # pad, word pieces, <end>
    TRANSCRIPT = 2  # word pieces, <reply>
    REPLY = 3  # word pieces, <speak>
    SPEAK = 4  # pad, <eos>; and `NextSteps.also`, the next piece of the plan
    CALL = 5  # `NextSteps.also` alone


@dataclass(frozen=True, slots=True)
class TurnLimits:
    """Bound what one conversation can ask of the engine.

    Attributes:
        max_prefill_steps: most steps of one `NextSteps`.
        max_transcript_pieces: longest final transcript.
        max_reply_pieces: longest text of a reply.
        max_call_pieces: longest function call, before it is completed without the model.
        max_item_pieces: longest typed item; its last pieces are kept.
        max_reply_frames: longest reply.
        frames_per_piece: frames that a piece may take on average, before a reply counts as stuck.
        max_tail_frames: silence after the last word, before a reply counts as finished.
        max_waiting_samples: most audio that can wait to be heard.
        max_prefix_steps: pinned steps, instructions and functions among them; as many as the
            model's memory pins.
        doubt_below: log-probability of a transcript below which it is nothing to rely on, for a
            model that was taught doubt.
        ends: how sure a model with a head for it has to be that the user's turn is over; None to
            go by the piece <end>.
        max_history_steps: steps that are remembered for changes of the past.
    """

    max_prefill_steps: int = 64
    max_transcript_pieces: int = 128
    max_reply_pieces: int = 128
    max_call_pieces: int = 96
    max_item_pieces: int = 1024
    max_reply_frames: int = 750  # 60 s
    frames_per_piece: int = 15
    max_tail_frames: int = 25
    max_waiting_samples: int = 120 * 16_000
    max_prefix_steps: int = 16
    doubt_below: float = -math.inf
    ends: Mapping[Eagerness, float] | None = None
    max_history_steps: int = 4096  # five and a half minutes of uninterrupted audio


@dataclass(frozen=True, slots=True)
class NextSteps:
    """Say what to feed next.

    Attributes:
        start: steps of the history that the state must have seen before.
        block: the steps.
        masks: which pieces the last steps may put out, one a step; empty if none is wanted.
        also: more pieces that the last step may put out.
        weighed: pieces of which it is asked how likely they were in the place of what was put out,
            one for each of `masks`; empty to ask about what was put out alone.
        has_codes: whether the last step makes a frame of audio.
    """

    start: int
    block: StepBlock
    masks: tuple[Mask, ...] = ()
    also: tuple[int, ...] = ()
    weighed: tuple[int, ...] = ()
    has_codes: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Decode:
    """Ask for the decoder to be given one step of codes, and its output to be delivered.

    Attributes:
        turn: whose audio it is.
        codes: int64 [K], as delayed; -1 where absent.
        is_first: whether a new stream begins.
        start, stop: the samples of the decoder's frame that belong to the reply.
    """

    turn: int
    codes: Ints
    is_first: bool
    start: int
    stop: int


Event = Output | Decode
