"""Turn RTP into sound (RFC 3550, RFC 7587): in order, at once, and without holes.

A player must hold sound back, or it stutters. A server that listens need not: what comes in order
is decoded and handed over as it comes. It waits only where a packet is missing, and no longer than
packets of this network come late; what has not come by then is concealed.

For example, with packets every 20 ms and numbers 1, 2, 4, 3, 6, 7: 1 and 2 are heard at once; 4 is
held for 3, and both are heard when that comes; 6 is held for 5 until its time is over, then 5 is
reconstructed from what 6 carries of it, and 6 and 7 follow.

When its time is over follows from when it was sent, not from when the gap was seen. Say that the
fastest packets take 30 ms, and the slowest of late have taken 60 ms more. 5 was sent at 100 ms, so
it comes by 190 ms or not at all; and if 6 takes 70 ms itself, it is heard at once.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kernels.arithmetic import ceil_div
from model.messages import Pcm
from server.webrtc.opus import FRAME_MS, OpusDecoder, OpusError

_RTP_HZ = 48_000
# By how much later than the fastest a packet may come: this at least and at most, and in between
# as the network has been of late.
MIN_SPREAD_S = 0.03
MAX_SPREAD_S = 0.1
# A packet that is a little later than any of late is not given up.
_MARGIN_S = 0.01
# By how much what is known of the network is forgotten with every packet: half in seven seconds.
_FORGET = 0.998
# A packet that took so much longer than the fastest is of a sender whose clock stood still.
_MAX_LATE_S = 0.5
# Numbers further away than this are another stream: a minute of packets.
_MAX_JUMP = 3_000
# A client that sends nothing is silent; nobody would notice the end of a turn otherwise.
FILL_AFTER_S = 0.1
# More silence than this between two packets is not a pause but a jump of the sender's clock.
_MAX_PAUSE_S = 5.0
# Concealment repeats the last pitch and fades; after some frames it is silent.
_MAX_CONCEALED_MS = 120
# 1.3 s of packets. More than that behind one gap is no reordering; the gap is given up.
_MAX_HELD = 64


@dataclass(slots=True)
class ReceiverCounts:
    """Count packets, and what is reported of them.

    Attributes:
        received: packets, late ones included.
        late: packets that came after their place was concealed, or twice.
        concealed: frames that were guessed or reconstructed.
        broken: packets that are not Opus.
        jitter: of RFC 3550, in units of 1/48,000 s.
    """

    received: int = 0
    late: int = 0
    concealed: int = 0
    broken: int = 0
    jitter: float = 0.0


class AudioReceiver:
    """Hold one client's audio on its way in. It has no clock and does no I/O.

    Whoever owns it calls `due` when `deadline_s` has come.

    Args:
        decoder: of the stream.
        rate_hz: at which it decodes.
        hand_over: takes sound in order: float32 [samples].
    """

    def __init__(
        self, decoder: OpusDecoder, rate_hz: int, hand_over: Callable[[Pcm], None]
    ) -> None:
        self._decoder = decoder
        self._rate_hz = rate_hz
        self._hand_over = hand_over
        self.counts = ReceiverCounts()
        self.ssrc: int | None = None
        self.first_number = 0
        self.highest_number = 0  # counted on beyond 16 bits
        self._next_number = 0
        self._next_time = 0  # in RTP units, counted on beyond 32 bits: of the next sample due
        self._held: dict[int, tuple[int, bytes]] = {}  # by number: time, payload
        self._give_up_s: float | None = None  # when what is missing is waited for no longer
        self._filled = 0  # samples of silence, since the last packet, in RTP units
        self._fill_at_s: float | None = None
        self._transit: float | None = None  # of the last packet, in RTP units
        self._fastest_s = 0.0  # transit of the fastest packets of late
        self._spread_s = MIN_SPREAD_S

    @property
    def spread_s(self) -> float:
        """Return how much later than the fastest packets one may come, as the network is now."""
        return min(max(self._spread_s + _MARGIN_S, MIN_SPREAD_S), MAX_SPREAD_S)

    @property
    def deadline_s(self) -> float | None:
        """Return when `due` is to be called, None if nothing is expected."""
        return self._fill_at_s if self._give_up_s is None else self._give_up_s

    def packet(self, ssrc: int, number: int, timestamp: int, payload: bytes, now_s: float) -> None:
        """Take a packet as it comes.

        Args:
            ssrc: names the stream.
            number: 16 bits.
            timestamp: 32 bits, in 1/48,000 s.
            payload: Opus; empty ones say nothing and are dropped.
            now_s: of arrival, on a clock that does not jump.
        """
        if not payload:
            return
        self.counts.received += 1
        # Numbers have 16 bits and times 32, and both begin anywhere (RFC 3550, section 5.1). At 50
        # packets a second, numbers start over every 22 minutes.
        full_number = self._unwrapped(number, self._next_number, 1 << 16)
        if self.ssrc != ssrc or abs(full_number - self._next_number) > _MAX_JUMP:
            self._begin(ssrc, number, timestamp)
            full_number = number
        full_time = self._unwrapped(timestamp, self._next_time, 1 << 32)
        self._measure(full_time, now_s)
        self.highest_number = max(self.highest_number, full_number)
        if full_number < self._next_number or full_number in self._held:
            self.counts.late += 1
            return
        self._held[full_number] = full_time, payload
        self._fill_at_s = now_s + FILL_AFTER_S
        self._release()
        if len(self._held) > _MAX_HELD:
            self._close_gap()
            self._release()

    def due(self, now_s: float) -> None:
        """Do what is due: give up what is missing, or be silent for a client that sends nothing."""
        if self._give_up_s is not None:
            if now_s >= self._give_up_s:
                self._close_gap()
                self._release()
            return
        while self._fill_at_s is not None and now_s >= self._fill_at_s:
            # The wait before the first fill hides jitter. From then on silence is made at the pace
            # of real time, so that voice detection sees the turn end although nothing arrives.
            self._fill_at_s += FRAME_MS / 1000
            self._filled += FRAME_MS * _RTP_HZ // 1000
            self._hand_over(self._silence(FRAME_MS * _RTP_HZ // 1000))
            if now_s - self._fill_at_s > _MAX_PAUSE_S:
                # Nobody called for long: the loop stood still, and so did the conversation.
                self._fill_at_s = now_s

    # Numbers and times.

    def _begin(self, ssrc: int, number: int, timestamp: int) -> None:
        self.ssrc = ssrc
        self.first_number = self.highest_number = self._next_number = number
        self._next_time = timestamp
        self._held.clear()
        self._give_up_s = None
        self._filled = 0
        self._transit = None
        self._spread_s = MIN_SPREAD_S

    @staticmethod
    def _unwrapped(value: int, near: int, span: int) -> int:
        """Return the number closest to `near` of which `value` is the rest."""
        # For example, 1 after 65,534 is 65,537: three packets on, not 65,533 back.
        return near + ((value - near + span // 2) % span) - span // 2

    def _measure(self, time: int, now_s: float) -> None:
        """Learn from a packet how late others may be."""
        # Only differences of transit count, so it does not matter that the two clocks have other
        # zeros.
        transit = now_s * _RTP_HZ - time
        if self._transit is None:
            self._fastest_s = transit / _RTP_HZ
        else:
            # The estimate of RFC 3550, section 6.4.1: J += (|D| - J) / 16. With D at 960 units (20
            # ms) once and 0 before and after, J rises to 60 and falls by a sixteenth with each
            # packet. A pause of the sender's clock is no jitter of the network.
            difference = min(abs(transit - self._transit), 0.5 * _RTP_HZ)
            self.counts.jitter += (difference - self.counts.jitter) / 16
        self._transit = transit
        late_s = transit / _RTP_HZ - self._fastest_s
        if late_s < 0.0:
            # One that is faster than all before shows that these were later than was known.
            self._spread_s -= late_s
        if not 0.0 <= late_s <= _MAX_LATE_S:
            self._fastest_s, late_s = transit / _RTP_HZ, 0.0
        # What is known fades, so that both follow a network that changes, and clocks that drift.
        # For example, where packets take 30 to 90 ms, one of the fastest comes once a second, and
        # `_fastest_s` stays within 8 ms of it.
        self._fastest_s += (1 - _FORGET) * late_s
        self._spread_s = min(max(self._spread_s * _FORGET, late_s), MAX_SPREAD_S)

    # Sound.

    def _release(self) -> None:
        """Hand over what is in order."""
        while (held := self._held.pop(self._next_number, None)) is not None:
            time, payload = held
            self._pause(time)
            self._decode(time, payload)
            self._next_number += 1
        self._give_up_s = None
        if self._held:
            # Of what is missing the newest was sent 20 ms before the first that is there.
            time, _ = self._held[min(self._held)]
            sent_s = (time - FRAME_MS * _RTP_HZ // 1000) / _RTP_HZ
            self._give_up_s = sent_s + self._fastest_s + self.spread_s

    def _pause(self, time: int) -> None:
        """Hand over the silence in which a client sent nothing."""
        # For example, a client stops sending for 400 ms, and 300 ms of silence were made meanwhile:
        # 100 ms are missing before its next packet.
        silence = time - self._next_time - self._filled
        self._filled = 0
        if 0 < silence <= _MAX_PAUSE_S * _RTP_HZ:
            self._hand_over(self._silence(silence))

    def _decode(self, time: int, payload: bytes) -> None:
        try:
            pcm = self._decoder.decode(payload)
        except OpusError:
            self.counts.broken += 1
            # Its length cannot be read either. Most packets hold 20 ms, and the next one's time
            # mends the rest.
            self._next_time = time + FRAME_MS * _RTP_HZ // 1000
            self._hand_over(self._silence(FRAME_MS * _RTP_HZ // 1000))
            return
        self._next_time = time + len(pcm) * _RTP_HZ // self._rate_hz
        self._hand_over(pcm)

    def _close_gap(self) -> None:
        """Conceal what is missing before the first packet that is held."""
        number = min(self._held)
        time, payload = self._held[number]
        # For example, packets 5, 6 and 7 are missing before 8, 20 ms each. The hole is 2,880 units
        # of 1/48,000 s. Packet 8 can carry what 7 said, at lower quality, and nothing of those
        # before it (RFC 6716, section 2.1.7). So 40 ms are guessed, and the last 20 ms are
        # recovered.
        hole = time - self._next_time - self._filled
        frame = FRAME_MS * _RTP_HZ // 1000
        num_lost = number - self._next_number
        self._next_number = number
        # Beyond the missing packets themselves, the client was silent.
        hidden = min(hole, num_lost * frame, _MAX_CONCEALED_MS * _RTP_HZ // 1000)
        hidden -= hidden % (frame // 8)  # libopus conceals in steps of 2.5 ms
        if hidden <= 0:
            return
        self._filled = 0
        self.counts.concealed += ceil_div(hidden, frame)
        if hole > hidden:
            silence = hole - hidden
            if silence <= _MAX_PAUSE_S * _RTP_HZ:
                self._hand_over(self._silence(silence))
        guessed = hidden - min(hidden, frame)
        if guessed:
            self._hand_over(self._decoder.conceal(guessed * self._rate_hz // _RTP_HZ))
        last = (hidden - guessed) * self._rate_hz // _RTP_HZ
        try:
            self._hand_over(self._decoder.recover(payload, last))
        except OpusError:
            self._hand_over(self._decoder.conceal(last))
        self._next_time = time

    def _silence(self, rtp_samples: int) -> Pcm:
        return np.zeros(rtp_samples * self._rate_hz // _RTP_HZ, dtype=np.float32)
