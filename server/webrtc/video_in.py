"""Take pictures out of a client's video, seldom.

A model looks once a second or so, and a camera sends thirty frames in that time. So none are
decoded but those that are looked at: when a picture is due, the next key frame is put together of
its packets, and asked for if it does not come by itself (PLI, RFC 4585, section 6.3.1). Everything
else is dropped unread. What is lost of a key frame costs another request and no more.

For example, with a picture a second: the first frame of a stream is a key frame, and becomes a
picture; the frames of the second after it are dropped; then a key frame is asked for, comes 50 ms
later, and is the next picture.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from server.images.picture import VideoCodec
from server.webrtc.depayload import Place, depayload, look

# The packets of a key frame may take this long. If one is missing then, it was lost.
MAX_COLLECTING_S = 0.2
# A request for a key frame without an answer is repeated after this.
ASK_AGAIN_S = 0.5
# Of frames that come at the same time, since networks change the order of packets.
_MAX_FRAMES = 3
_MAX_PACKETS = 2_048
_MAX_BYTES = 2 << 20
# Numbers further away than this are another stream.
_MAX_JUMP = 3_000


@dataclass(slots=True)
class VideoCounts:
    """Count packets, and what became of them.

    Attributes:
        received: packets.
        broken: packets that are none of the codec, and frames that no picture could be made of.
        frames: key frames that were handed over.
        requests: for key frames.
        jitter: not measured; nothing here depends on it.
    """

    received: int = 0
    broken: int = 0
    frames: int = 0
    requests: int = 0
    jitter: float = 0.0


@dataclass(slots=True)
class _Frame:
    """What has come of a frame.

    Attributes:
        begun_s: when its first packet came.
        payloads: by number.
        first: number of the packet that it begins with, as far as is known.
        last: number of the packet that it ends with.
        num_bytes: of all payloads.
        is_dropped: whether it is of no use.
    """

    begun_s: float
    payloads: dict[int, bytes] = field(default_factory=dict)
    first: int | None = None
    last: int | None = None
    num_bytes: int = 0
    is_dropped: bool = False

    @property
    def whole(self) -> list[bytes] | None:
        """Return the payloads of a key frame that is complete, in order."""
        if self.first is None or self.last is None:
            return None
        numbers = range(self.first, self.last + 1)
        if any(number not in self.payloads for number in numbers):
            return None
        return [self.payloads[number] for number in numbers]


class VideoReceiver:
    """Hold one client's video on its way in. It has no clock and does no I/O.

    Args:
        codec: that it is in.
        period_s: from one picture to the next.
        hand_over: takes a key frame, as a decoder does.
        ask: asks the client for a key frame.
    """

    def __init__(
        self,
        codec: VideoCodec,
        period_s: float,
        hand_over: Callable[[bytes], None],
        ask: Callable[[], None],
    ) -> None:
        self._codec: VideoCodec = codec
        self._period_s = period_s
        self._hand_over = hand_over
        self._ask = ask
        self.counts = VideoCounts()
        self.ssrc: int | None = None
        self.first_number = 0
        self.highest_number = 0  # counted on beyond 16 bits
        self._due_s: float | None = None  # of the next picture; None: as soon as there is one
        self._asked_s: float | None = None  # when a key frame was asked for, and has not come yet
        self._frames: dict[int, _Frame] = {}  # by their times, oldest first

    def packet(
        self,
        ssrc: int,
        number: int,
        timestamp: int,
        payload: bytes,
        now_s: float,
        *,
        is_last: bool,
    ) -> None:
        """Take a packet as it comes.

        Args:
            ssrc: names the stream.
            number: 16 bits.
            timestamp: of its frame.
            payload: empty ones say nothing and are dropped.
            now_s: of arrival, on a clock that does not jump.
            is_last: whether the frame ends with it.
        """
        self.counts.received += 1
        full_number = self._counted(ssrc, number)
        if self._due_s is not None and now_s < self._due_s:
            return
        if payload:
            self._collect(full_number, timestamp, payload, now_s, is_last=is_last)
        is_due = self._due_s is None or now_s >= self._due_s
        if is_due and not self._is_collecting(now_s):
            self._request(now_s)

    def again(self) -> None:
        """Note that no picture could be made of the frame that was handed over last."""
        self.counts.broken += 1
        self._due_s = None

    def _counted(self, ssrc: int, number: int) -> int:
        """Return a packet's number as counted on beyond 16 bits."""
        # As `AudioReceiver._unwrapped`: the number nearest to the last, of which 16 bits were sent.
        near = self.highest_number
        full_number = near + ((number - near + (1 << 15)) % (1 << 16)) - (1 << 15)
        if self.ssrc != ssrc or abs(full_number - near) > _MAX_JUMP:
            self.ssrc = ssrc
            self.first_number = self.highest_number = number
            self._frames.clear()
            self._asked_s = None
            return number
        self.highest_number = max(near, full_number)
        return full_number

    def _collect(
        self, number: int, timestamp: int, payload: bytes, now_s: float, *, is_last: bool
    ) -> None:
        frame = self._frames.get(timestamp)
        if frame is None:
            # A lost packet leaves a frame that is never whole. It goes when newer ones come.
            while len(self._frames) >= _MAX_FRAMES:
                del self._frames[next(iter(self._frames))]
            frame = self._frames[timestamp] = _Frame(now_s)
        if frame.is_dropped:
            return
        try:
            place = look(self._codec, payload)
        except ValueError:
            self.counts.broken += 1
            return
        frame.payloads[number] = payload
        frame.num_bytes += len(payload)
        is_large = frame.num_bytes > _MAX_BYTES or len(frame.payloads) > _MAX_PACKETS
        # The rest of its packets find it dropped, and are not looked at.
        if place is Place.OTHER or is_large:
            frame.is_dropped = True
            frame.payloads.clear()
            return
        if place is Place.KEY:
            frame.first = number if frame.first is None else min(frame.first, number)
        if is_last:
            frame.last = number
        payloads = frame.whole
        if payloads is not None:
            self._complete(payloads, now_s)

    def _complete(self, payloads: list[bytes], now_s: float) -> None:
        self._frames.clear()
        self._asked_s = None
        # From when it came: a slow network makes pictures seldom, not old.
        self._due_s = now_s + self._period_s
        self.counts.frames += 1
        try:
            data = b"".join(depayload(self._codec, payload) for payload in payloads)
        except ValueError:
            self.again()
            return
        self._hand_over(data)

    def _is_collecting(self, now_s: float) -> bool:
        return any(
            # While its packets come in, asking for another would make the client send the same
            # again.
            frame.first is not None and now_s - frame.begun_s < MAX_COLLECTING_S
            for frame in self._frames.values()
            if not frame.is_dropped
        )

    def _request(self, now_s: float) -> None:
        if self._asked_s is not None and now_s - self._asked_s < ASK_AGAIN_S:
            return
        self._asked_s = now_s
        self.counts.requests += 1
        self._ask()
