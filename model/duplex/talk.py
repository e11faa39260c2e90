"""Find where a model that always listens and speaks begins to talk, and where it falls silent.

Most frames of such a model are silence. Two things show speech: a piece of text with words in it,
which comes a little before its sound, and the loudness of the sound, which also shows laughter and
hesitation. Talk begins with the first piece, or with several loud frames in a row, and ends after a
while without pieces in which every frame is quiet. The level that ends talk lies below the one that
begins it. So a breath begins no talk, and a soft word does not end it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from model.errors import ConfigError
from model.messages import Pcm


@dataclass(frozen=True, slots=True, kw_only=True)
class TalkRules:
    """Say what counts as talk.

    Attributes:
        loud: root mean square from which on a frame is loud, -40 dBFS.
        quiet: root mean square below which a frame is quiet, -50 dBFS.
        loud_frames: loud frames in a row with which talk begins, if no piece came before.
        quiet_frames: quiet frames without a piece after which it is over. People pause for up to
            half a second within what they say.
    """

    loud: float = 0.01
    quiet: float = 0.003
    loud_frames: int = 3
    quiet_frames: int = 10

    def __post_init__(self) -> None:
        """Refuse what cannot work.

        Raises:
            ConfigError: naming the field.
        """
        if not 0 < self.quiet <= self.loud:
            raise ConfigError(f"quiet: expected 0 < quiet <= loud, got {self.quiet}, {self.loud}")
        for name in ("loud_frames", "quiet_frames"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A frame that the model has made.

    Attributes:
        call: the step of the conversation in which it became whole, counted from 0.
        piece: its text piece.
        is_word: whether that says anything.
        pcm: float32 [frame_samples].
    """

    call: int
    piece: int
    is_word: bool
    pcm: Pcm

    @property
    def level(self) -> float:
        """Return its root mean square."""
        return float(np.sqrt(np.mean(np.square(self.pcm, dtype=np.float64))))


class Talk:
    """Follow one conversation.

    Args:
        rules: what counts as talk.
    """

    __slots__ = ("_held", "_num_quiet", "_rules", "is_on")

    def __init__(self, rules: TalkRules) -> None:
        self._rules = rules
        self._held: deque[Frame] = deque()  # loud ones that may turn out to be the beginning
        self._num_quiet = 0
        self.is_on = False

    def feed(self, frame: Frame) -> tuple[list[Frame], bool]:
        """Take the next frame.

        Returns:
            The frames that belong to talk, as far as that has become known now, and whether it is
            over with the last of them.
        """
        rules, level = self._rules, frame.level
        if self.is_on:
            # A worked example with levels of 0.01 and 0.003, three loud frames to begin and ten
            # quiet ones to end. L is loud, q quiet, m between them, and w has a piece of text:
            #
            #     L L q            two loud frames are held and given up again: a click
            #     L L L            the third begins the talk, and all three belong to it
            #     w                begins it at once
            #     L m m m L        goes on: frames between the levels are not quiet
            #     q * 9, m, q * 9  goes on: nine in a row are not ten
            #     q * 10           is over with the tenth
            is_quiet = not frame.is_word and level < rules.quiet
            self._num_quiet = self._num_quiet + 1 if is_quiet else 0
            is_over = self._num_quiet >= rules.quiet_frames
            if is_over:
                self.stop()
            return [frame], is_over
        if not frame.is_word and level < rules.loud:
            self._held.clear()
            return [], False
        self._held.append(frame)
        if not frame.is_word and len(self._held) < rules.loud_frames:
            return [], False
        self.is_on, self._num_quiet = True, 0
        begun = list(self._held)
        self._held.clear()
        return begun, False

    def stop(self) -> None:
        """Take it for over."""
        self.is_on = False
        self._held.clear()
        self._num_quiet = 0
