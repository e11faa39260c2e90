"""How a duplex conversation begins: a voice and a text that the model is made to have said.

PersonaPlex takes its prompt in the form of frames that are forced upon it, one a step:

    voice     the model's own codes are those of a recording, the text is padding, the user a tone
    silence   half a second, the model silent, the user the same tone
    text      the same, and the text the instructions, one piece a frame
    silence   half a second more; then the user is heard

Source: NVIDIA's PersonaPlex, the order and the codes of its prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from model.arrays import Ints
from model.pieces import PAD

# A worked example of a prompt: a voice of 100 frames and instructions of 40 pieces.
#
#     frames      model's codes     text          user
#     0-99        the recording     padding       tone
#     100-105     silence           padding       tone
#     106-145     silence           the pieces    tone
#     146-151     silence           padding       tone
#     152         the model's       the model's   the user
#
# That is 152 steps that nobody waits for: they are kept for the next session with the same prompt.
_SILENT_FRAMES = 6  # half a second, rounded down
_SYSTEM = "<system>"  # stands on both sides of the instructions


@dataclass(frozen=True, slots=True, eq=False)
class Tones:
    """Codes of sounds that prompts consist of, one frame of each.

    Attributes:
        silence: int64 [K], of the model's side.
        sine: int64 [codebooks of the user], of a tone that stands for a user who is not there.
    """

    silence: Ints
    sine: Ints


# Of the published codec.
PUBLISHED_TONES = Tones(
    silence=np.array([948, 243, 1178, 546, 1736, 1030, 1978, 2008]),
    sine=np.array([430, 1268, 381, 1611, 1095, 1495, 56, 472]),
)


@dataclass(frozen=True, slots=True, eq=False)
class Voice:
    """What a model is made to have said before, so that it goes on in that voice.

    Either the codes of a recording, or what the model made of one.

    Attributes:
        codes: int64 [N, K], codes of each frame; None if `embedded` is given.
        embedded: float [N, dim], inputs of the model in the place of embedded tokens.
        ring: int64 [streams, columns], what was known of each stream after them.
    """

    codes: Ints | None = None
    embedded: Tensor | None = None
    ring: Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """What a conversation begins with, before the user is heard.

    Attributes:
        voice: recorded inputs that come first; None for none.
        user: int64 [P, codebooks of the user], of the frames after them.
        forced: int64 [P, 1 + K], text and codes that the model is made to have chosen in them.
        num_pieces: text pieces among them that say something.
    """

    voice: Voice | None
    user: Ints
    forced: Ints
    num_pieces: int

    def __len__(self) -> int:
        """Count the frames after the recorded inputs."""
        return len(self.user)


def wrapped(instructions: str) -> str:
    """Return instructions as they are written in a prompt."""
    text = instructions.strip()
    if text.startswith(_SYSTEM) and text.endswith(_SYSTEM) and len(text) > len(_SYSTEM):
        return text
    return f"{_SYSTEM} {text} {_SYSTEM}"


def make_prompt(voice: Voice | None, pieces: Sequence[int], tones: Tones) -> Prompt:
    """Lay out a prompt.

    Args:
        voice: in which the model is to speak; None leaves it to the model.
        pieces: of the instructions, wrapped; empty for none.
        tones: of the codec.
    """
    spoken = np.zeros((0, len(tones.silence)), dtype=np.int64)
    if voice is not None and voice.codes is not None:
        spoken = voice.codes
    rest = 2 * _SILENT_FRAMES + len(pieces)
    codes = np.concatenate((spoken, np.broadcast_to(tones.silence, (rest, len(tones.silence)))))
    text = np.full(len(codes), PAD, dtype=np.int64)
    begin = len(spoken) + _SILENT_FRAMES
    text[begin : begin + len(pieces)] = pieces
    user = np.broadcast_to(tones.sine, (len(codes), len(tones.sine))).copy()
    recorded = voice if voice is not None and voice.embedded is not None else None
    return Prompt(recorded, user, np.column_stack((text, codes)), len(pieces))


def empty_prompt(num_made: int, num_user: int) -> Prompt:
    """Return the prompt of a model that takes none."""
    user, forced = np.zeros((0, num_user), np.int64), np.zeros((0, 1 + num_made), np.int64)
    return Prompt(None, user, forced, 0)
