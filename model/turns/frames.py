"""Cut a user turn's audio into whole frames."""

from __future__ import annotations

from collections import deque

import numpy as np

from model.messages import Pcm


class FrameBuffer:
    """Collect PCM of any length and give it out frame by frame.

    Args:
        frame_samples: samples of one frame.
    """

    __slots__ = ("_chunks", "_frame_samples", "num_samples")

    def __init__(self, frame_samples: int) -> None:
        self._frame_samples = frame_samples
        self._chunks: deque[Pcm] = deque()
        self.num_samples = 0

    @property
    def num_frames(self) -> int:
        """Count the whole frames that wait."""
        return self.num_samples // self._frame_samples

    def append(self, pcm: Pcm) -> None:
        """Add `pcm: float32 [samples]`; the buffer keeps it and does not copy it."""
        if len(pcm):
            self._chunks.append(pcm)
            self.num_samples += len(pcm)

    def complete(self) -> None:
        """Fill the last frame up with silence, unless it is whole."""
        missing = -self.num_samples % self._frame_samples
        self.append(np.zeros(missing, dtype=np.float32))

    def take(self) -> Pcm:
        """Remove and return the oldest frame, float32 [frame_samples]."""
        assert self.num_frames
        parts, missing = [], self._frame_samples
        while missing:
            chunk = self._chunks.popleft()
            if len(chunk) > missing:
                self._chunks.appendleft(chunk[missing:])
                chunk = chunk[:missing]
            parts.append(chunk)
            missing -= len(chunk)
        self.num_samples -= self._frame_samples
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def clear(self) -> None:
        """Forget everything."""
        self._chunks.clear()
        self.num_samples = 0
