"""Turn sound into RTP in real time: one frame every 20 ms, and next to nothing in silence.

What has been sent will be heard: browsers cannot be told to forget it. So how much of an item has
been sent is how much of it was heard, to the sample.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import numpy as np

from model.messages import Pcm
from server.webrtc.opus import FRAME_MS

# Of Opus, whatever rate it codes (RFC 7587, section 4.1).
_RTP_HZ = 48_000
_FRAME_S = FRAME_MS / 1000
# Silence that follows speech, so that a client does not stretch its last sound.
_HANGOVER_S = 0.5
# In silence, a packet as often as Opus' discontinuous transmission has one (RFC 6716, section
# 2.1.9). The encoder's own is off: its last packets, of two bytes, would tell a browser that
# silence goes on, and Chromium would begin the next sound as late as the last one was. That grows
# from reply to reply, over a network with 60 ms of jitter to 75 ms more. Without such packets it
# begins with an empty buffer.
_REFRESH_S = 0.4
# A loop that stood still for longer than this leaves a gap; a burst would be of no use.
_MAX_LATE_S = 0.2
_FADE_MS = 5


class FrameEncoder(Protocol):
    """Turn frames into packets, which may take a moment.

    Attributes:
        frame_samples: of each.
    """

    frame_samples: int

    def encode(self, pcm: Pcm, then: Callable[[bytes], None]) -> None:
        """Encode float32 [frame_samples], and hand the packet on, in the order of the frames."""
        ...


@dataclass(slots=True)
class _Item:
    """One item's sound that waits."""

    item_id: str
    chunks: deque[Pcm] = field(default_factory=deque)
    num_waiting: int = 0
    num_sent: int = 0
    is_whole: bool = False


@dataclass(slots=True)
class SenderCounts:
    """Count what was sent, as sender reports do.

    Attributes:
        packets: of RTP.
        octets: of their payloads.
        slots_skipped: frames' times that passed while the loop stood still.
    """

    packets: int = 0
    octets: int = 0
    slots_skipped: int = 0


class AudioSender:
    """Hold one client's audio on its way out. It has no clock and does no I/O.

    Whoever owns it calls `step` when `due_s` has come. It is a `server.session.transport.Player`.

    Args:
        encoder: of the stream.
        rate_hz: of the sound that it is given.
        send: takes a packet: number (16 bits), timestamp (32 bits), whether speech begins with it,
            payload.
        report: told how many samples of an item were sent so far.
        played: told what is heard from a moment on: float32 [samples], and when.
        wake: called when `due_s` has moved to now.
        clock: seconds that do not jump.
        dtx: whether silence is left out.
        first_number: of the stream; random.
        first_timestamp: of the stream; random.
    """

    def __init__(  # noqa: PLR0913 - where its sound goes, and how its stream begins
        self,
        encoder: FrameEncoder,
        rate_hz: int,
        send: Callable[[int, int, bool, bytes], None],
        report: Callable[[str, int], None],
        played: Callable[[Pcm, float], None],
        wake: Callable[[], None],
        clock: Callable[[], float],
        *,
        dtx: bool = True,
        first_number: int = 0,
        first_timestamp: int = 0,
    ) -> None:
        self._encoder = encoder
        self._frame_samples = encoder.frame_samples
        self._fade_samples = rate_hz * _FADE_MS // 1000
        self._send = send
        self._report = report
        self._played = played
        self._wake = wake
        self._clock = clock
        self._dtx = dtx
        self._number = first_number
        self._first_timestamp = first_timestamp
        self._start_s = clock()
        self.counts = SenderCounts()
        self.due_s = self._start_s
        # Both lie in the past by as much as matters: the first frame is due at once, and it is a
        # beginning.
        self._sent_s = self._start_s - _FRAME_S  # when the last frame was due
        self._spoke_s = self._start_s - _HANGOVER_S  # when the last frame with sound was
        self._is_idle = False
        self._items: deque[_Item] = deque()
        self._fading: Pcm | None = None
        self._is_paused = False
        self._is_fading_in = False
        self._silence = np.zeros(self._frame_samples, dtype=np.float32)

    def timestamp(self, time_s: float) -> int:
        """Return the RTP timestamp of a moment."""
        # Timestamps follow the clock, not the packets: where silence is left out they jump, and the
        # client knows how long it lasted (RFC 3550, section 5.1).
        elapsed = round((time_s - self._start_s) * _RTP_HZ)
        return (self._first_timestamp + elapsed) & 0xFFFFFFFF

    # As a player.

    def play(self, item_id: str, pcm: Pcm) -> None:
        """Play more of an item."""
        item = self._named(item_id)
        if item is None:
            item = _Item(item_id)
            self._items.append(item)
        item.chunks.append(pcm)
        item.num_waiting += len(pcm)
        self._play_now()

    def end(self, item_id: str) -> None:
        """Note that nothing more of an item comes."""
        item = self._named(item_id)
        if item is not None:
            item.is_whole = True
            # What is left may be less than a frame, and was waiting for more.
            self._play_now()

    def stop(self, item_id: str) -> None:
        """Play no more of an item; 5 ms of it fade out where it was being heard."""
        item = self._named(item_id)
        if item is None:
            return
        if item is self._items[0] and not self._is_paused:
            self._fade_out()
        self._items.remove(item)

    def pause(self) -> None:
        """Play nothing for now; 5 ms fade out, and are heard again when it goes on."""
        if self._is_paused:
            return
        if self._items:
            self._fade_out()
        self._is_paused = True

    def resume(self) -> None:
        """Play on from the sample after the last that was reported."""
        if not self._is_paused:
            return
        self._is_paused = False
        self._is_fading_in = bool(self._items and self._items[0].num_sent)
        self._play_now()

    def _fade_out(self) -> None:
        """Let what is being heard end without a click."""
        # These 5 ms are not reported as heard, and stay in the item: after a pause they are played
        # again, in full. A cut at a sample far from zero would be heard as a click.
        item = self._items[0]
        if item.num_sent and item.chunks:
            end = item.chunks[0][: self._fade_samples]
            self._fading = end * np.linspace(1, 0, len(end), dtype=np.float32)

    def _play_now(self) -> None:
        """Begin at once, if there is something to be heard after silence."""
        if self._is_idle and self._is_ready():
            # Speech does not wait for the next place in time; it makes one.
            self._is_idle = False
            # For example, the last packet of silence was sent at 10.000 s and the next is due at
            # 10.400 s. Speech that is there at 10.150 s goes out at once. At 10.005 s it waits
            # until 10.020 s: two packets closer than a frame would overlap.
            self.due_s = max(self._clock(), self._sent_s + _FRAME_S)
            self._wake()

    # In time.

    def step(self, now_s: float) -> None:
        """Send the frame that is due, and say when the next one is."""
        if now_s < self.due_s:
            return
        late_s = now_s - self.due_s
        if late_s > _MAX_LATE_S:
            # For example, 250 ms late: 12 slots are passed over, and the frame goes out with the
            # timestamp of its new slot. The client hears a gap of 240 ms, and what is said after it
            # is not late for ever.
            skipped = int(late_s / _FRAME_S)
            self.counts.slots_skipped += skipped
            self.due_s += skipped * _FRAME_S
        frame, reports = self._next_frame()
        if frame is not None:
            # The marker bit: a jitter buffer may choose its delay anew there (RFC 3551, section
            # 4.1).
            is_beginning = self._is_silent_at(self.due_s)
            self._spoke_s = self.due_s
            self._played(frame, self.due_s)
            self._emit(frame, is_beginning=is_beginning)
        else:
            self._emit(self._silence, is_beginning=False)
        self._is_idle = frame is None and self._dtx and self._is_silent_at(self.due_s)
        # From the slot, not from now: a timer that rings 1 ms late each time does not slow the
        # voice down.
        self.due_s += _REFRESH_S if self._is_idle else _FRAME_S
        for item_id, num_sent in reports:
            self._report(item_id, num_sent)

    def _is_silent_at(self, time_s: float) -> bool:
        return time_s - self._spoke_s >= _HANGOVER_S

    def _emit(self, frame: Pcm, *, is_beginning: bool) -> None:
        self._sent_s = self.due_s
        timestamp = self.timestamp(self.due_s)
        self._encoder.encode(frame, partial(self._leave, self._number, timestamp, is_beginning))
        self._number = (self._number + 1) & 0xFFFF

    def _leave(self, number: int, timestamp: int, is_beginning: bool, payload: bytes) -> None:  # noqa: FBT001 - as `send` has it
        self._send(number, timestamp, is_beginning, payload)
        self.counts.packets += 1
        self.counts.octets += len(payload)

    def _named(self, item_id: str) -> _Item | None:
        return next((item for item in self._items if item.item_id == item_id), None)

    def _is_ready(self) -> bool:
        """Say whether there is a frame, or the end of an item."""
        if not self._items or self._is_paused:
            return False
        first = self._items[0]
        # Less than a frame waits for the rest of it, since what is padded with silence would
        # crackle. The end of an item has no rest.
        return first.is_whole or first.num_waiting >= self._frame_samples

    def _next_frame(self) -> tuple[Pcm | None, list[tuple[str, int]]]:
        """Return the next 20 ms, None for silence, and what of which items is in it."""
        pieces: list[Pcm] = []
        reports: list[tuple[str, int]] = []
        missing = self._frame_samples
        if self._fading is not None:
            pieces, self._fading = [self._fading], None
            missing -= len(pieces[0])
        # One frame may hold the end of one item and the beginning of the next, so a reply that
        # follows another does so without a gap.
        while missing and self._is_ready():
            item = self._items[0]
            taken = self._taken(item, missing)
            if taken and self._is_fading_in:
                self._is_fading_in = False
                taken[0] = self._faded_in(taken[0])
            pieces += taken
            num = sum(len(piece) for piece in taken)
            missing -= num
            item.num_sent += num
            if num:
                reports.append((item.item_id, item.num_sent))
            if item.is_whole and not item.num_waiting:
                self._items.popleft()
            elif missing:
                break  # the rest of it has not been made yet
        if not pieces:
            return None, []
        return np.concatenate([*pieces, np.zeros(missing, dtype=np.float32)]), reports

    def _faded_in(self, pcm: Pcm) -> Pcm:
        beginning = pcm[: self._fade_samples]
        rising = np.linspace(0, 1, len(beginning), dtype=np.float32)
        return np.concatenate((beginning * rising, pcm[len(beginning) :]))

    @staticmethod
    def _taken(item: _Item, num_samples: int) -> list[Pcm]:
        taken: list[Pcm] = []
        while num_samples and item.chunks:
            chunk = item.chunks.popleft()
            if len(chunk) > num_samples:
                item.chunks.appendleft(chunk[num_samples:])
                chunk = chunk[:num_samples]
            taken.append(chunk)
            num_samples -= len(chunk)
            item.num_waiting -= len(chunk)
        return taken
