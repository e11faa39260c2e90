"""Play replies into a call: pieces of sound, and a mark behind each that says when it was heard.

A provider queues what it is sent and plays it in real time. It sends a mark back when all before it
was played, or at once when it was told to `clear`. So the marks are the clock by which a reply was
heard: what no mark has come back for by the time of the `clear` counts as not heard.

    sent       |piece 1|m1|piece 2|m2|piece 3|m3|piece 4|m4|
    came back                  m1             m2
    clear      sent here; m3 and m4 come back for it, and say nothing
    heard      pieces 1 and 2: 80 ms

A mark is at most a piece and a way through the network late. So a conversation's history may lack
the last tenth of a second that was heard; it never has what was not.

Source: Twilio, "Media Streams - WebSocket Messages", mark and clear messages; Telnyx, "Stream call
media over WebSocket", mark and clear frames.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from model.messages import Pcm
from server.audio.wire import AudioEncoder
from server.telephony.listener import ENCODINGS
from server.telephony.messages import MediaFormat, Writer

PIECE_MS = 40
"""Of sound between two marks: how exactly it is known what was heard."""

# Sound that the provider has been sent but has not played: enough for a network that delivers
# nothing for a second, and not much to send again after a pause.
_AHEAD_MS = 1_000
# The least that Telnyx takes in one message; also the time of one RTP packet towards the telephone.
_LEAST_MS = 20


@dataclass(slots=True, eq=False)
class _Item:
    """One item's sound.

    Attributes:
        chunks: float32 [samples], from `start` on: what was heard is forgotten.
        start: place of the first chunk in the item, in samples.
        end: place after the last one.
        sent: place up to which it was sent.
        heard: place up to which marks came back.
        is_whole: nothing more comes.
        is_closed: all of it was sent, with what the encoder held back.
        is_over: the mark behind that came back.
        encoder: of what is sent next; None to begin a new one.
    """

    item_id: str
    chunks: deque[Pcm] = field(default_factory=deque)
    start: int = 0
    end: int = 0
    sent: int = 0
    heard: int = 0
    is_whole: bool = False
    is_closed: bool = False
    is_over: bool = False
    encoder: AudioEncoder | None = None

    def between(self, first: int, last: int) -> Pcm:
        """Return a part of the sound."""
        place, parts = self.start, []
        for chunk in self.chunks:
            if place + len(chunk) > first and place < last:
                parts.append(chunk[max(0, first - place) : last - place])
            place += len(chunk)
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)

    def note_heard(self, place: int) -> None:
        """Forget what was heard."""
        self.heard = place
        while self.chunks and self.start + len(self.chunks[0]) <= place:
            self.start += len(self.chunks.popleft())


class Speaker:
    """Hold one call's replies on their way out. It does no I/O and has no clock.

    It is a `server.session.transport.Player`.

    Args:
        writer: of the stream.
        format_: in which the provider takes sound.
        rate_hz: of the sound that it is given.
        send: takes a message.
        report: told how many samples of an item were heard so far.
        sounded: told what will be heard next: float32 [samples].
        hushed: told that nothing more will be.
        is_big: whether L16 has the larger byte first.
    """

    def __init__(
        self,
        writer: Writer,
        format_: MediaFormat,
        rate_hz: int,
        send: Callable[[str], None],
        report: Callable[[str, int], None],
        sounded: Callable[[Pcm], None],
        hushed: Callable[[], None],
        *,
        is_big: bool,
    ) -> None:
        self._writer = writer
        self._format = format_
        self._rate_hz = rate_hz
        self._send = send
        self._report = report
        self._sounded = sounded
        self._hushed = hushed
        self._is_big = is_big
        self._piece = rate_hz * PIECE_MS // 1000
        self._items: deque[_Item] = deque()
        self._marks: deque[tuple[str, _Item, int]] = deque()  # name, item, place; in order
        self._num_marks = 0
        self._is_paused = False

    @property
    def num_unheard(self) -> int:
        """Count the marks that have not come back."""
        return len(self._marks)

    @property
    def is_playing(self) -> bool:
        """Say whether there is anything left to be heard."""
        return bool(self._items)

    # As a player.

    def play(self, item_id: str, pcm: Pcm) -> None:
        """Play more of an item."""
        item = self._named(item_id)
        if item is None:
            item = _Item(item_id)
            self._items.append(item)
        item.chunks.append(pcm)
        item.end += len(pcm)
        self._go_on()

    def end(self, item_id: str) -> None:
        """Note that nothing more of an item comes."""
        item = self._named(item_id)
        if item is not None:
            item.is_whole = True
            self._go_on()

    def stop(self, item_id: str) -> None:
        """Play no more of an item than marks have come back for."""
        item = self._named(item_id)
        if item is None:
            return
        is_out = any(each is item for _, each, _ in self._marks)
        self._items.remove(item)
        if is_out:
            self._clear()
        # What follows it was cleared as well, and is sent again.
        self._go_on()

    def pause(self) -> None:
        """Play nothing for now."""
        if not self._is_paused:
            self._is_paused = True
            if self._marks:
                self._clear()

    def resume(self) -> None:
        """Play on from the last mark that came back."""
        if self._is_paused:
            self._is_paused = False
            self._go_on()

    # From the provider.

    def came_back(self, name: str) -> None:
        """Take a mark that came back. Marks of cleared sound, or never sent ones, are ignored."""
        if all(name != each for each, _, _ in self._marks):
            return
        while self._marks:
            each, item, place = self._marks.popleft()
            item.note_heard(place)
            item.is_over = item.is_closed and all(other is not item for _, other, _ in self._marks)
            if each == name:
                break
        # If a mark was lost, items before this one have been heard to their ends as well.
        while self._items and self._items[0] is not item:
            done = self._items.popleft()
            self._report(done.item_id, done.end)
        if item.is_over:
            self._items.remove(item)
        self._report(item.item_id, item.heard)
        self._go_on()

    # In order.

    def _go_on(self) -> None:
        """Send what there is, as far ahead as may be."""
        ahead = _AHEAD_MS // PIECE_MS
        for item in self._items:
            while not self._is_paused and len(self._marks) < ahead and self._has_piece(item):
                self._send_piece(item)
            if not item.is_closed:
                return

    def _has_piece(self, item: _Item) -> bool:
        # Less than a piece waits for the rest of it. The end of an item has none, and is a piece in
        # any case: until then the encoder holds back the last milliseconds.
        return not item.is_closed if item.is_whole else item.end - item.sent >= self._piece

    def _send_piece(self, item: _Item) -> None:
        last = min(item.sent + self._piece, item.end)
        pcm = item.between(item.sent, last)
        item.encoder = item.encoder or self._new_encoder()
        data = item.encoder.encode(pcm)
        if item.is_whole and last == item.end:
            item.is_closed = True
            data = self._filled(data + item.encoder.finish())
        item.sent = last
        self._sounded(pcm)
        self._send(self._writer.media(self._ordered(data)))
        self._num_marks += 1
        name = f"m{self._num_marks}"
        self._marks.append((name, item, last))
        self._send(self._writer.mark(name))

    def _filled(self, data: bytes) -> bytes:
        """Fill the last piece up with silence to what a packet holds."""
        size = 2 if self._format.encoding == "L16" else 1
        packet = size * self._format.rate_hz * _LEAST_MS // 1000
        # µ-law and A-law have their quietest values at 0xFF and 0xD5 (ITU-T G.711, tables 1, 2).
        quiet = {"PCMU": b"\xff", "PCMA": b"\xd5", "L16": b"\0"}[self._format.encoding]
        return data + quiet * (-len(data) % packet)

    def _ordered(self, data: bytes) -> bytes:
        if self._format.encoding == "L16" and self._is_big:
            return np.frombuffer(data, dtype="<i2").astype(">i2").tobytes()
        return data

    def _new_encoder(self) -> AudioEncoder:
        return AudioEncoder(ENCODINGS[self._format.encoding], self._format.rate_hz, self._rate_hz)

    def _clear(self) -> None:
        """Have the provider forget all that it has not played."""
        self._marks.clear()
        self._send(self._writer.clear())
        for item in self._items:
            item.sent, item.encoder, item.is_closed = item.heard, None, False
        self._hushed()

    def _named(self, item_id: str) -> _Item | None:
        return next((item for item in self._items if item.item_id == item_id), None)
