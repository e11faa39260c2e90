"""Keep the sound of the user turn that is open."""

from collections import deque

import numpy as np

from model.messages import Pcm
from server.protocol.items.recordings import Recordings


class OpenTurn:
    """Hold the turn's audio, the latest of it where it is long.

    Args:
        max_samples: that are kept; older audio lies beyond what a model remembers as audio.

    Attributes:
        num_samples: that are kept.
    """

    def __init__(self, max_samples: int) -> None:
        self._max_samples = max_samples
        self._chunks: deque[Pcm] = deque()
        self.num_samples = 0
        self._is_whole = True

    def __bool__(self) -> bool:
        """Say whether there is any."""
        return bool(self._chunks)

    @property
    def pcm(self) -> Pcm:
        """Return all that is kept: float32 [samples], of a turn that is not empty."""
        return np.concatenate(tuple(self._chunks))

    def add(self, pcm: Pcm) -> None:
        """Add audio; the first opens the turn."""
        self._chunks.append(pcm)
        self.num_samples += len(pcm)
        while self.num_samples - len(self._chunks[0]) >= self._max_samples:
            self.num_samples -= len(self._chunks.popleft())
            self._is_whole = False

    def end(self, item_id: str, recordings: Recordings) -> None:
        """Keep the sound as an item's, if it is all there; the turn is over."""
        if self._is_whole:
            recordings.begin(item_id)
            for pcm in self._chunks:
                recordings.add(item_id, pcm)
        self.forget()

    def forget(self) -> None:
        """Let the turn be over, and nothing come of it."""
        self._chunks.clear()
        self.num_samples = 0
        self._is_whole = True
