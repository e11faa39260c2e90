"""Write and read RTCP (RFC 3550, section 6): what was sent, what arrived, and the round trip.

Of video there is also said how fast it may come (REMB, draft-alvestrand-rmcat-remb-03), and that a
key frame is wanted (PLI, RFC 4585).
"""

import time
from collections.abc import Callable

from aiortc.rtp import (
    RTCP_PSFB_APP,
    RTCP_PSFB_PLI,
    AnyRtcpPacket,
    RtcpPsfbPacket,
    RtcpReceiverInfo,
    RtcpRrPacket,
    RtcpSdesPacket,
    RtcpSenderInfo,
    RtcpSourceInfo,
    RtcpSrPacket,
    pack_remb_fci,
)

from server.webrtc.audio_in import AudioReceiver
from server.webrtc.audio_out import AudioSender
from server.webrtc.video_in import VideoReceiver

# RFC 3550, section 6.2, would have 5 s between reports; feedback profiles may be faster (RFC 4585,
# section 3). With a second, error correction is turned on soon after the first losses.
PERIOD_S = 1.0
_CNAME = (1, b"parley")
# RFC 3550, section 4: NTP counts from 1900, in 32.32 bits.
_NTP_EPOCH_S = 2_208_988_800  # from 1900 to 1970
# Above this share of losses, packets repeat what the one before said.
_LOSSY = 0.02
_EXPECTED_LOSS_PERCENT = 10  # from 6 % on libopus spends bits on it at 24 kbit/s


class _Reception:
    """Follow what arrives of one stream."""

    def __init__(self, receiver: AudioReceiver | VideoReceiver) -> None:
        self._receiver = receiver
        self._last_sr: tuple[int, float] | None = None  # middle of its NTP time, arrival
        self._expected_before = 0
        self._received_before = 0

    @property
    def ssrc(self) -> int | None:
        """Return the stream's name, None before its first packet."""
        return self._receiver.ssrc

    def reported(self, ntp: int, now_s: float) -> None:
        """Take note of the sender's report."""
        # The middle 32 of its 64 bits: 16 of seconds, 16 of fractions, as all that follows here.
        self._last_sr = (ntp >> 16) & 0xFFFFFFFF, now_s

    def info(self, now_s: float) -> list[RtcpReceiverInfo]:
        """Return what there is to report since the report before."""
        receiver = self._receiver
        if receiver.ssrc is None:
            return []
        # RFC 3550, appendix A.3. For example, numbers 100 to 149 with 45 packets: 50 were expected,
        # 5 are lost, and the fraction is 5 · 256 // 50 = 25, which is 9.8 %. Duplicates can make it
        # negative: 0.
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


class Reports:
    """Exchange reports about one call's media.

    Args:
        ssrc: of what we send.
        sender: what we send.
        receiver: what we hear.
        max_video_bitrate: bits a second that the client is told it may send of what we see.
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
        *,
        max_video_bitrate: int = 0,
    ) -> None:
        self._ssrc = ssrc
        self._sender = sender
        self._receptions = [_Reception(receiver)]
        self._video: VideoReceiver | None = None
        self._max_video_bitrate = max_video_bitrate
        self._clock = clock
        self._wall = wall
        self.round_trip_s: float | None = None
        self.loss = 0.0  # of what we sent, as the client saw it last

    def watch(self, video: VideoReceiver) -> None:
        """Report from now on about what we see as well."""
        self._video = video
        self._receptions.append(_Reception(video))

    def compound(self) -> bytes:
        """Return a report of both directions as they are now."""
        now_s = self._clock()
        reports = [info for reception in self._receptions for info in reception.info(now_s)]
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
        # A compound packet begins with a report and names its source (RFC 3550, section 6.1).
        return bytes(packet) + self._source() + self._video_limit()

    def key_frame_request(self) -> bytes:
        """Return a report that asks for a key frame of the video."""
        assert self._video is not None, "there is video"
        assert self._video.ssrc is not None, "it has come"
        request = RtcpPsfbPacket(RTCP_PSFB_PLI, self._ssrc, self._video.ssrc)
        return bytes(RtcpRrPacket(self._ssrc)) + self._source() + bytes(request)

    def _source(self) -> bytes:
        return bytes(RtcpSdesPacket([RtcpSourceInfo(self._ssrc, [_CNAME])]))

    def _video_limit(self) -> bytes:
        if self._video is None or self._video.ssrc is None:
            return b""
        limit = pack_remb_fci(self._max_video_bitrate, [self._video.ssrc])
        return bytes(RtcpPsfbPacket(RTCP_PSFB_APP, self._ssrc, 0, limit))

    def take(self, packet: AnyRtcpPacket) -> bool:
        """Read a report; returns whether it said something about what we send."""
        if isinstance(packet, RtcpSrPacket):
            for reception in self._receptions:
                if reception.ssrc == packet.ssrc:
                    reception.reported(packet.sender_info.ntp_timestamp, self._clock())
        if not isinstance(packet, RtcpSrPacket | RtcpRrPacket):
            return False
        ours = [report for report in packet.reports if report.ssrc == self._ssrc]
        for report in ours:
            self.loss = report.fraction_lost / 256
            if report.lsr:
                # RFC 3550, section 6.4.1, figure 2. For example, we sent a report at 100.000 s, the
                # client answered 250 ms after it had it, and the answer is here at 100.300 s: the
                # round trip is 50 ms.
                elapsed = ((self._ntp() >> 16) - report.lsr - report.dlsr) & 0xFFFFFFFF
                if elapsed < 1 << 31:  # else the client's arithmetic puts it into the future
                    self.round_trip_s = elapsed / 65_536
        return bool(ours)

    @property
    def expected_loss_percent(self) -> int:
        """Return what the encoder should prepare for."""
        return _EXPECTED_LOSS_PERCENT if self.loss > _LOSSY else 0

    def _ntp(self) -> int:
        return round((self._wall() + _NTP_EPOCH_S) * (1 << 32))
