"""The user's side of a duplex conversation: frames as they arrive, and silence where none do.

Such a model takes a frame every 80 ms, whatever the user does. Three kinds of clients are served:

    one that streams in real time      its frames are heard as they arrive; what comes a little
                                       late is waited for, and heard whole
    one that stops sending             silence takes the place of its frames, in real time, until
                                       nothing more is to be expected of the conversation
    one that sends much at once        it is heard as fast as the model can, frame by frame;
                                       after a commit silence follows at once

Nothing happens before the first audio, or the first wish for a response.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from kernels.arithmetic import ceil_div
from model.errors import ConfigError
from model.messages import Pcm


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRules:
    """Say how long missing audio is waited for.

    Attributes:
        late_ms: how late the next frame may come before silence takes its place. Networks deliver
            in bursts; a model that hears holes in words understands less.
        idle_ms: silence in a row, with the model silent too, after which the conversation rests
            until there is audio again.
    """

    late_ms: int = 240
    idle_ms: int = 10_000

    def __post_init__(self) -> None:
        """Refuse what cannot work.

        Raises:
            ConfigError: naming the field.
        """
        for name in ("late_ms", "idle_ms"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}: must not be negative, got {getattr(self, name)}")


class UserStream:
    """Hold the audio of one user that has not been heard yet. Times are seconds on any clock.

    Args:
        frame_samples: of one frame.
        frame_s: its length.
        rules: how long missing audio is waited for.

    Attributes:
        late_s: how much later the newest frame was taken than the user can have finished saying it.
    """

    __slots__ = (
        "_arrived_s",
        "_due_by_s",
        "_frame_s",
        "_frame_samples",
        "_has_stopped",
        "_is_awake",
        "_is_committed",
        "_next_s",
        "_num_silent",
        "_num_waiting",
        "_rules",
        "_waiting",
        "late_s",
    )

    def __init__(self, frame_samples: int, frame_s: float, rules: StreamRules) -> None:
        self._frame_samples, self._frame_s, self._rules = frame_samples, frame_s, rules
        self._waiting: deque[Pcm] = deque()
        self._num_waiting = 0  # samples
        self._arrived_s = 0.0  # when the newest audio came
        self._next_s = 0.0  # when the next frame belongs, in real time
        self._due_by_s = 0.0  # when the next frame of what waits can have been said at the latest
        self.late_s = 0.0
        self._is_awake = False
        self._has_stopped = False  # silence took the place of the frame before
        self._is_committed = False  # nothing follows what waits
        self._num_silent = 0  # frames of silence in a row

    @property
    def num_waiting_frames(self) -> int:
        """Count the frames that wait, one that is not full included."""
        return ceil_div(self._num_waiting, self._frame_samples)

    @property
    def num_whole_frames(self) -> int:
        """Count the whole frames that wait."""
        return self._num_waiting // self._frame_samples

    @property
    def is_idle(self) -> bool:
        """Say whether nothing has been heard for long."""
        return self._num_silent * self._frame_s * 1000 >= self._rules.idle_ms

    def append(self, pcm: Pcm, now_s: float) -> None:
        """Add audio."""
        if not len(pcm):
            return
        self.wake(now_s)
        self._is_committed = False
        if self._num_waiting < self._frame_samples:
            # The first frame that waits can have been said by now, at the latest. Each one after it
            # is said a frame later, even if all of them arrive at once.
            self._due_by_s = max(self._due_by_s, now_s)
        self._arrived_s = now_s
        self._waiting.append(pcm)
        self._num_waiting += len(pcm)

    def clear(self) -> None:
        """Forget what has not been heard yet."""
        self._waiting.clear()
        self._num_waiting = 0

    def commit(self) -> None:
        """Note that nothing is to follow what waits: silence does, without waiting for more."""
        self._is_committed = True

    def wake(self, now_s: float) -> None:
        """Begin to hear, or go on."""
        if not self._is_awake:
            self._is_awake = True
            self._next_s = now_s
            self._num_silent = 0

    def rest(self) -> None:
        """Hear nothing more until there is audio again."""
        self._is_awake = False

    def due_s(self) -> float | None:
        """Say from when on the next frame is to be heard; None if not as things are."""
        if not self._is_awake:
            return None
        # A worked example with frames of 80 ms and 240 ms of patience. The last frame was taken at
        # 1,000, so the next belongs at 1,080. If it comes at 1,200, it is heard at 1,200. If
        # nothing has come by 1,320, silence takes its place. What was waited is made up for: the
        # silence that belongs at 1,160, 1,240 and 1,320 follows at once, and then a frame every 80
        # ms.
        if self._num_waiting >= self._frame_samples:
            return self._arrived_s
        is_over = self._has_stopped or self._is_committed
        return self._next_s + (0.0 if is_over else self._rules.late_ms / 1000)

    def take(self, now_s: float) -> Pcm:
        """Return the next frame, float32 [frame_samples]; it must be due."""
        num = min(self._num_waiting, self._frame_samples)
        parts, left = [], num
        while left:
            pcm = self._waiting.popleft()
            parts.append(pcm[:left])
            if len(pcm) > left:
                self._waiting.appendleft(pcm[left:])
            left -= len(parts[-1])
        self._num_waiting -= num
        is_whole = num == self._frame_samples
        self.late_s = 0.0
        if is_whole:
            self.late_s = max(0.0, now_s - self._due_by_s)
            self._due_by_s += self._frame_s
            self._next_s = now_s + self._frame_s
        else:
            # A model that fell behind does not make up for more than was waited.
            # Without this bound, a model that stood still for a minute would be fed a minute of
            # silence.
            earliest_s = now_s - self._rules.late_ms / 1000 - self._frame_s
            self._next_s = max(self._next_s, earliest_s) + self._frame_s
            parts.append(np.zeros(self._frame_samples - num, dtype=np.float32))
        self._has_stopped = not is_whole
        self._num_silent = 0 if num else self._num_silent + 1
        return np.concatenate(parts, dtype=np.float32)
