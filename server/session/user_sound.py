"""Take in the sound of a session's user, and what was played to them meanwhile."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from model.messages import Pcm
from server.audio.far_end import FarEnd
from server.errors import ClientError
from server.protocol.events import InputAudio
from server.protocol.wire.audio import decode_base64
from server.session.ear_queue import EarQueue
from server.session.observers import Observers

# A user's sound comes in three ways, and all of it passes here:
#
#     appended     by events, in the client's format    `append`, or `append_long`
#     carried      within an item                       `carried`
#     decoded      by a transport, as in a call         `arrived`
#
# What was played while it was recorded goes to the ears first, so that they find its echo in it.


class UserSound:
    """Give the ears the user's sound, each piece with what was played meanwhile.

    Args:
        queue: to the ears, which hear it.
        max_waiting_s: sound that may wait to be heard.
        observers: are told of it.
        clock: of the session, in seconds.
    """

    def __init__(
        self,
        queue: EarQueue,
        max_waiting_s: int,
        observers: Observers,
        clock: Callable[[], float],
    ) -> None:
        self._queue = queue
        self._ears = queue.ears
        self._rate_hz = queue.rate_hz
        self._max_waiting_s = max_waiting_s
        self._observers = observers
        self._clock = clock
        self._appended_s = 0.0
        # What the client plays, where its echo is looked for.
        self._far_end = FarEnd(self._rate_hz) if self._ears.cancels_echo else None
        if observers.want_sound:
            self._ears.decoded = []

    @property
    def appended_ms(self) -> int:
        """Return how much sound has come."""
        return round(self._appended_s * 1000)

    @property
    def waiting_s(self) -> float:
        """Return how much sound waits in the ears, and before them."""
        return (self._ears.num_waiting + self._queue.num_waiting) / self._rate_hz

    @property
    def is_behind(self) -> bool:
        """Say whether more waits before the ears than they hear at once."""
        return self._queue.is_behind

    def caught_up(self) -> AbstractAsyncContextManager[None]:
        """Surround what touches the ears: all is heard that came before, and nothing meanwhile."""
        return self._queue.lent()

    async def catch_up(self) -> None:
        """Wait until all is heard that came before."""
        if self._queue.is_hearing:
            async with self._queue.lent():
                pass

    def close(self) -> None:
        """Hear nothing more: the session is over."""
        self._queue.close()

    # From the user.

    def admit(self, waiting_s: float, *parts: bytes) -> None:
        """Refuse sound in the client's format that would have to wait for too long.

        Args:
            waiting_s: how much waits already, here and elsewhere.
            parts: the sound.

        Raises:
            ClientError: with it, more would wait than may.
        """
        seconds = sum(map(self._ears.seconds_of, parts))
        if waiting_s + seconds > self._max_waiting_s:
            raise ClientError(
                f"Error appending input audio: {waiting_s:.0f} s of audio wait to be heard "
                f"already, and {seconds:.0f} s more would be over the limit of "
                f"{self._max_waiting_s} s.",
                code="input_audio_buffer_full",
            )

    def append(self, data: bytes) -> None:
        """Have appended sound heard, in the client's format, of a second at most."""
        self._arrived(data, self._ears.seconds_of(data))

    async def append_long(self, data: bytes, listen: Callable[[], None]) -> None:
        """Hear appended sound outside of the event loop, a piece at a time.

        Args:
            data: in the client's format.
            listen: called after each piece, to go on with what was heard.
        """
        left_s = self._ears.seconds_of(data)
        self._observers.brought(left_s)
        # For example, 30 s arrive in one event at 100 s. Their last sample was recorded just now,
        # so the first piece of 10 s ended at 80 s, the second at 90 s. What was played is looked up
        # by these times.
        now_s = self._clock()
        for piece in self._ears.pieces(data):
            piece_s = self._ears.seconds_of(piece)
            left_s -= piece_s
            self._appended_s += piece_s
            self._listen_beside(piece_s, now_s - left_s)
            await asyncio.to_thread(self._ears.hear, piece)
            self.heard(now_s - left_s)
            listen()

    def arrived(self, pcm: Pcm) -> None:
        """Have sound heard that the transport decoded: float32 [samples] at the engine's rate."""
        self._arrived(pcm, len(pcm) / self._rate_hz)

    def heard(self, now_s: float) -> None:
        """Let observers have what was heard of the user, which had arrived by `now_s`."""
        if self._ears.decoded is None:
            return
        decoded, self._ears.decoded = self._ears.decoded, []
        for pcm in decoded:
            self._observers.heard(pcm, now_s)

    async def carried(self, carried: list[tuple[str, str]], waiting_s: float) -> InputAudio:
        """Return the sound that an item carries, at the engine's rate.

        Args:
            carried: each part's base64, and its path in the event.
            waiting_s: how much sound waits already.

        Raises:
            ClientError: it is no base64, or too much.
        """
        parts = [await asyncio.to_thread(decode_base64, audio, path) for audio, path in carried]
        self.admit(waiting_s, *parts)
        audio = await asyncio.to_thread(self._ears.decode_items, parts)
        self._observers.brought(len(audio.pcm) / self._rate_hz)
        return audio

    def _arrived(self, sound: Pcm | bytes, seconds: float) -> None:
        now_s = self._clock()
        self._appended_s += seconds
        self._observers.brought(seconds)
        far = None if self._far_end is None else self._far_end.take(seconds, now_s)
        self._queue.put(sound, seconds, far, now_s)

    def _listen_beside(self, seconds: float, now_s: float) -> None:
        """Say what was played while the sound was recorded that is heard next."""
        if self._far_end is not None:
            self._ears.played(self._far_end.take(seconds, now_s))

    # To the user.

    def played(self, pcm: Pcm, at_s: float) -> None:
        """Note what the client plays from `at_s` on: float32 [samples] at the engine's rate."""
        if self._far_end is not None:
            self._far_end.play(pcm, at_s)

    def hushed(self) -> None:
        """Note that the client plays no more of what it was given."""
        if self._far_end is not None:
            self._far_end.stop(self._clock())
