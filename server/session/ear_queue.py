"""Let sessions' ears hear what has arrived, in one thread beside the event loop.

Most of the work of a session is to hear it: its echo is looked for, and voice detection looks at
every window. That computes in libraries which let go of Python's lock, so another core can do it.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from model.messages import Pcm
from server.session.ears import Ears
from server.session.work_thread import WorkThread

# More of one session is not heard at once, so that nobody else waits for it.
_MAX_PIECE_S = 1.0

# A worked example, of a session whose packets of 20 ms are a, b, c and d:
#
#     loop                                 thread
#     a arrives, and goes to the thread    hears a
#     b and c arrive, and wait             hears a
#     a was heard: what it means is told   hears b and c, as one piece
#     a commit comes, and waits for c      hears b and c
#     d arrives, and waits for the commit
#     b and c were heard; the commit is
#     done; d goes to the thread           hears d
#
# So everything happens in the order in which it arrived, and the ears are in one place at a time.


@dataclass(frozen=True, slots=True)
class _Piece:
    sound: Pcm | bytes
    num: int  # samples at the engine's rate
    far: Pcm | None
    now_s: float


class EarQueue:
    """Hand one session's ears what has arrived, in order.

    Args:
        ears: of the session.
        rate_hz: of the engine's audio.
        thread: in which they hear; None for the caller's own.
        heard: called when something was heard, with when its end had arrived.
        failed: called with what the ears have raised; nothing is heard afterwards.
    """

    def __init__(
        self,
        ears: Ears,
        rate_hz: int,
        thread: WorkThread | None,
        heard: Callable[[float], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self.ears = ears
        self.rate_hz = rate_hz
        self._max_samples = int(_MAX_PIECE_S * rate_hz)
        self._thread = thread
        self._heard = heard
        self._failed = failed
        self._arrived: deque[_Piece] = deque()
        self._later: deque[_Piece] = deque()  # since somebody wants the ears
        self._is_wanted = False
        self.is_hearing = False
        """Whether something is being heard in the thread."""
        self._is_free: asyncio.Future[None] | None = None  # where somebody waits for that
        self._is_closed = False
        self.num_waiting = 0
        """Samples that have arrived, and that the ears do not have yet."""

    @property
    def is_behind(self) -> bool:
        """Say whether more waits than is heard at once."""
        return self.num_waiting > self._max_samples

    def put(self, sound: Pcm | bytes, seconds: float, far: Pcm | None, now_s: float) -> None:
        """Take what has arrived.

        Args:
            sound: float32 [samples] at the engine's rate, or bytes in the client's format.
            seconds: its length.
            far: what was played meanwhile, as long; None where nobody looks for an echo.
            now_s: when it arrived.
        """
        if self._is_closed:
            return
        num = round(seconds * self.rate_hz)
        self.num_waiting += num
        (self._later if self._is_wanted else self._arrived).append(_Piece(sound, num, far, now_s))
        self._go_on()

    @contextlib.asynccontextmanager
    async def lent(self) -> AsyncIterator[None]:
        """Have the ears for oneself: what has arrived is heard, and what arrives now waits."""
        assert not self._is_wanted, "one at a time"
        self._is_wanted = True
        try:
            while self.is_hearing:
                self._is_free = asyncio.get_running_loop().create_future()
                await self._is_free
            yield
        finally:
            self._is_wanted = False
            self._arrived.extend(self._later)
            self._later.clear()
            if not self.is_hearing:
                self._go_on()

    def close(self) -> None:
        """Hear nothing more, and say nothing of what is being heard."""
        self._is_closed = True
        self._arrived.clear()
        self._later.clear()

    def _go_on(self) -> None:
        """Have something heard, if anything has arrived and the ears are here."""
        while self._arrived and not self.is_hearing and not self._is_closed:
            piece = self._next()
            self.num_waiting -= piece.num
            if self._thread is None:
                self._hear_here(piece)
                continue
            self.is_hearing = True
            self._thread.put(partial(self._hear, piece), partial(self._on_heard, piece))

    def _next(self) -> _Piece:
        """Return what has arrived as one piece, up to a second of it."""
        first = self._arrived[0]
        pieces: list[_Piece] = []
        num = 0
        # What came in a call's own way does not continue what came as events.
        while (
            self._arrived
            and isinstance(self._arrived[0].sound, bytes) is isinstance(first.sound, bytes)
            and (not pieces or num + self._arrived[0].num <= self._max_samples)
        ):
            pieces.append(self._arrived.popleft())
            num += pieces[-1].num
        return first if len(pieces) == 1 else _joined(pieces, num)

    def _hear_here(self, piece: _Piece) -> None:
        try:
            self._hear(piece)
        except Exception as error:  # noqa: BLE001 - as in the thread
            self._failed(error)
            return
        self._heard(piece.now_s)

    def _hear(self, piece: _Piece) -> None:
        if piece.far is not None:
            self.ears.played(piece.far)
        if isinstance(piece.sound, bytes):
            self.ears.hear(piece.sound)
        else:
            self.ears.hear_pcm(piece.sound)

    def _on_heard(self, piece: _Piece, error: Exception | None) -> None:
        assert self.is_hearing, "it was heard"
        self.is_hearing = False
        if self._is_free is not None and not self._is_free.done():
            self._is_free.set_result(None)
        if self._is_closed:
            return
        if error is not None:
            self._failed(error)
            return
        self._heard(piece.now_s)
        self._go_on()


def _joined(pieces: list[_Piece], num: int) -> _Piece:
    far = [piece.far for piece in pieces if piece.far is not None]
    appended = [piece.sound for piece in pieces if isinstance(piece.sound, bytes)]
    decoded = [piece.sound for piece in pieces if not isinstance(piece.sound, bytes)]
    return _Piece(
        b"".join(appended) if appended else np.concatenate(decoded),
        num,
        np.concatenate(far) if far else None,
        pieces[-1].now_s,
    )
