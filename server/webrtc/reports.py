"""Write and read RTCP (RFC 3550, section 6): what was sent, what arrived, and the round trip."""

import time
from collections.abc import Callable

from aiortc.rtp import (
    AnyRtcpPacket,
    RtcpReceiverInfo,
    RtcpRrPacket,
    RtcpSdesPacket,
    RtcpSenderInfo,
    RtcpSourceInfo,
    RtcpSrPacket,
)

from server.webrtc.audio_in import AudioReceiver
from server.webrtc.audio_out import AudioSender

PERIOD_S = 1.0
_CNAME = (1, b"parley")
_NTP_EPOCH_S = 2_208_988_800  # from 1900 to 1970
# Above this share of losses, packets repeat what the one before said.
_LOSSY = 0.02
_EXPECTED_LOSS_PERCENT = 10  # from 6 % on libopus spends bits on it at 24 kbit/s


class Reports:
    """Exchange reports about one call's audio.

    Args:
        ssrc: of what we send.
        sender: what we send.
        receiver: what we hear.
        clock: seconds that do not jump, of sender and receiver.
        wall: seconds since 1970.
    """

    def __init__(
        self,
        ssrc: int,
        sender: AudioSender,
        receiver: AudioReceiver,
        clock: Callable[[], float],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._ssrc = ssrc
        self._sender = sender
        self._receiver = receiver
        self._clock = clock
        self._wall = wall
        self.round_trip_s: float | None = None
        self.loss = 0.0  # of what we sent, as the client saw it last
        self._last_sr: tuple[int, float] | None = None  # middle of its NTP time, arrival
        self._expected_before = 0
        self._received_before = 0

    def compound(self) -> bytes:
        """Return a report of both directions as they are now."""
        now_s = self._clock()
        reports = self._receiver_info(now_s)
        counts = self._sender.counts
        packet: RtcpSrPacket | RtcpRrPacket = RtcpRrPacket(self._ssrc, reports)
        if counts.packets:
            # Times of now, not of the last packet: there are pauses between packets.
            info = RtcpSenderInfo(
                ntp_timestamp=self._ntp(),
                rtp_timestamp=self._sender.timestamp(now_s),
                packet_count=counts.packets & 0xFFFFFFFF,
                octet_count=counts.octets & 0xFFFFFFFF,
            )
            packet = RtcpSrPacket(self._ssrc, info, reports)
        source = RtcpSourceInfo(self._ssrc, [_CNAME])
        return bytes(packet) + bytes(RtcpSdesPacket([source]))

    def take(self, packet: AnyRtcpPacket) -> bool:
        """Read a report; returns whether it said something about what we send."""
        if isinstance(packet, RtcpSrPacket) and packet.ssrc == self._receiver.ssrc:
            middle = (packet.sender_info.ntp_timestamp >> 16) & 0xFFFFFFFF
            self._last_sr = middle, self._clock()
        if not isinstance(packet, RtcpSrPacket | RtcpRrPacket):
            return False
        ours = [report for report in packet.reports if report.ssrc == self._ssrc]
        for report in ours:
            self.loss = report.fraction_lost / 256
            if report.lsr:
                elapsed = ((self._ntp() >> 16) - report.lsr - report.dlsr) & 0xFFFFFFFF
                if elapsed < 1 << 31:  # else the client's arithmetic puts it into the future
                    self.round_trip_s = elapsed / 65_536
        return bool(ours)

    @property
    def expected_loss_percent(self) -> int:
        """Return what the encoder should prepare for."""
        return _EXPECTED_LOSS_PERCENT if self.loss > _LOSSY else 0

    def _receiver_info(self, now_s: float) -> list[RtcpReceiverInfo]:
        receiver = self._receiver
        if receiver.ssrc is None:
            return []
        expected = receiver.highest_number - receiver.first_number + 1
        received = receiver.counts.received
        expected_now = expected - self._expected_before
        lost_now = max(0, expected_now - (received - self._received_before))
        self._expected_before, self._received_before = expected, received
        fraction = lost_now * 256 // expected_now if expected_now > 0 else 0
        lsr, arrived_s = self._last_sr or (0, now_s)
        return [
            RtcpReceiverInfo(
                ssrc=receiver.ssrc,
                fraction_lost=min(fraction, 255),
                packets_lost=min(max(0, expected - received), 0x7FFFFF),
                highest_sequence=receiver.highest_number & 0xFFFFFFFF,
                jitter=int(receiver.counts.jitter),
                lsr=lsr,
                dlsr=round((now_s - arrived_s) * 65_536) & 0xFFFFFFFF if self._last_sr else 0,
            )
        ]

    def _ntp(self) -> int:
        return round((self._wall() + _NTP_EPOCH_S) * (1 << 32))
