"""Secure one call: DTLS and SRTP, and SCTP on top, from aiortc. No other module knows how.

aiortc's `RTCPeerConnection` is not used: its jitter buffer adds 80 ms always and stalls for 320 ms
at one lost packet, it opens a random port for each call and address, and it needs a thread for each
direction. What is below it does its work. These names of aiortc are private and used here, and only
here; `tests/server/webrtc/test_call.py` makes a real call with them:

    RTCDtlsTransport    _handle_rtcp_data, _handle_rtp_data, _register_rtp_receiver,
                        _rtp_router.register_sender, _rx_srtp, _send_rtp, _set_role
    RTCSctpTransport    _handle_data
    an ICE transport    _recv, _send, role (ours: `server.webrtc.ice.IceAgent`)
    an RTP receiver     _handle_rtp_packet, _handle_rtcp_packet, _handle_disconnect (ours: below)
"""

import asyncio
import datetime as dt
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, cast

import aiortc.rtcsctptransport as sctp
import pylibsrtp
from aiortc import (
    RTCCertificate,
    RTCDataChannel,
    RTCDataChannelParameters,
    RTCDtlsParameters,
    RTCDtlsTransport,
    RTCRtpCodecParameters,
    RTCSctpCapabilities,
    RTCSctpTransport,
)
from aiortc.rtcdtlstransport import RTCDtlsFingerprint
from aiortc.rtcrtpparameters import RTCRtpReceiveParameters
from aiortc.rtp import AnyRtcpPacket, RtpPacket, is_rtcp

from server.webrtc.ice import IceAgent

# A lone message that is lost waits for this timer, which is 1 s in aiortc as in RFC 4960; browsers
# have 0.4 s and less. If both ends are near each other, a late answer means a lost message and not
# a slow network.
sctp.SCTP_RTO_MIN = 0.2  # type: ignore[assignment] # only whole by chance
sctp.SCTP_RTO_INITIAL = 1.0

# aiortc's certificates last 30 days. A call that began with the old one keeps it.
_RENEW_BEFORE = dt.timedelta(days=7)


class CertificateStore:
    """Hold the server's certificate; it signs itself, and the answer says which it is."""

    def __init__(self) -> None:
        self._certificate = RTCCertificate.generateCertificate()

    def current(self) -> RTCCertificate:
        """Return a certificate that is valid for some days more."""
        now = dt.datetime.now(dt.UTC)
        if self._certificate.expires - now < _RENEW_BEFORE:
            self._certificate = RTCCertificate.generateCertificate()
        return self._certificate


def fingerprints(certificate: RTCCertificate) -> list[tuple[str, str]]:
    """Return what an answer says of a certificate: algorithm and digest."""
    known: Sequence[RTCDtlsFingerprint] = certificate.getFingerprints()
    # The one digest that everybody must know (RFC 8122, section 5). More would make the answer
    # longer.
    return [(each.algorithm, each.value) for each in known if each.algorithm == "sha-256"]


@dataclass(frozen=True, slots=True)
class Handlers:
    """Say what is done with what arrives. None of them may raise.

    Attributes:
        rtp: takes a packet of audio.
        rtcp: takes a report.
        channel: takes a data channel that the client opened; a message may follow at once.
        closed: called once, when the transport ends for whatever reason.
        video: takes a packet of video.
    """

    rtp: Callable[[RtpPacket], None]
    rtcp: Callable[[AnyRtcpPacket], None]
    channel: Callable[[RTCDataChannel], None]
    closed: Callable[[], None]
    video: Callable[[RtpPacket], None] = lambda _: None


class SecureTransport:
    """Carry one call's media and messages.

    Args:
        agent: carries its datagrams.
        certificate: ours.
        is_server: whether the client begins the handshake.
        handlers: take what arrives.
    """

    def __init__(
        self,
        agent: IceAgent,
        certificate: RTCCertificate,
        handlers: Handlers,
        *,
        is_server: bool,
    ) -> None:
        self._agent = agent
        # The agent has what is asked of an ICE transport here, and nothing else of one.
        self._dtls = RTCDtlsTransport(cast("Any", agent), [certificate])
        self._dtls._set_role("server" if is_server else "client")  # noqa: SLF001
        self._handlers = handlers
        self._has_broken = False
        self._sctp: _GuardedSctp | None = None
        self._is_closed = False
        self._dtls.on("statechange", self._on_state)

    @property
    def is_open(self) -> bool:
        """Say whether the handshake is done and nobody has closed."""
        return bool(self._dtls.state == "connected")

    async def open(self, remote: RTCDtlsParameters) -> bool:
        """Shake hands; False if the client is not who its offer says, or is gone.

        There is no time limit here.
        """
        # It compares the client's certificate with the offer's fingerprint. That is all the proof
        # there is: certificates are self-signed, and the offer came with a key (RFC 5763, section
        # 5).
        await self._dtls.start(remote)
        return self.is_open

    def hear(self, payload_type: int, ssrc: int) -> None:
        """Take RTP of a payload type, and reports about what we send.

        Args:
            payload_type: of the client's audio.
            ssrc: ours.
        """
        # By payload type and not by SSRC: offers need not name the client's, and it may change.
        receiver = _Receiver(self._handlers.rtp, self._handlers.rtcp, ssrc)
        self._register(receiver, "audio/opus", 48_000, payload_type)
        self._dtls._rtp_router.register_sender(receiver, ssrc)  # noqa: SLF001
        # aiortc's own way is by a queue and a task, which takes as long as all else that a packet
        # needs until it is a packet.
        self._agent.on_media = self._on_media

    def watch(self, payload_type: int, ssrc: int) -> None:
        """Take RTP of the payload type of the client's video; arguments as of `hear`."""
        receiver = _Receiver(self._handlers.video, self._handlers.rtcp, ssrc)
        self._register(receiver, "video/any", 90_000, payload_type)

    def _register(self, receiver: "_Receiver", kind: str, rate_hz: int, payload_type: int) -> None:
        codec = RTCRtpCodecParameters(mimeType=kind, clockRate=rate_hz, payloadType=payload_type)
        self._dtls._register_rtp_receiver(  # noqa: SLF001
            receiver, RTCRtpReceiveParameters(codecs=[codec])
        )

    async def open_channels(self, remote_port: int, max_message_bytes: int) -> None:
        """Begin with data channels, which the client opens."""
        self._sctp = _GuardedSctp(self._dtls, self._on_state)
        self._sctp.on("datachannel", self._handlers.channel)
        await self._sctp.start(RTCSctpCapabilities(max_message_bytes), remote_port)

    def new_channel(self, label: str) -> RTCDataChannel:
        """Open a data channel, as clients do; for programs that call."""
        assert self._sctp is not None, "there is no association to open it in"
        return RTCDataChannel(self._sctp, RTCDataChannelParameters(label=label))

    def send(self, packet: bytes) -> bool:
        """Protect and send a packet of RTP or RTCP; False if the connection is gone."""
        if not self.is_open:
            return False
        try:
            _finish(self._dtls._send_rtp(packet))  # noqa: SLF001
        except ConnectionError:
            return False
        return True

    async def close(self) -> None:
        """Say goodbye, as far as anybody listens."""
        self._is_closed = True
        if self._sctp is not None:
            await self._sctp.stop()
            self._sctp.remove_all_listeners()
        await self._dtls.stop()
        # Its task was cancelled, and ends in the next turn of the loop.
        await asyncio.sleep(0)
        self._dtls.remove_all_listeners()

    def _on_media(self, data: bytes) -> None:
        if not self.is_open or self._has_broken:
            return
        dtls = self._dtls
        try:
            if is_rtcp(data):
                _finish(dtls._handle_rtcp_data(dtls._rx_srtp.unprotect_rtcp(data)))  # noqa: SLF001
            else:
                _finish(dtls._handle_rtp_data(dtls._rx_srtp.unprotect(data), 0))  # noqa: SLF001
        except pylibsrtp.Error:
            pass  # forged, a copy, or too old
        except Exception:  # noqa: BLE001 - a client that breaks the protocol in a way of its own
            self._has_broken = True
            self._on_state()

    def _on_state(self) -> None:
        has_ended = self._has_broken or self._dtls.state in ("closed", "failed")
        has_ended |= self._sctp is not None and self._sctp.is_broken
        if has_ended and not self._is_closed:
            self._is_closed = True
            self._handlers.closed()


def _finish(step: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine in name: our agent and receivers never wait, so it never does."""
    try:
        step.send(None)
    except StopIteration:
        return
    raise AssertionError("something waits")


class _GuardedSctp(RTCSctpTransport):
    """Survive a client that breaks the protocol: what is raised here would stop the call's pump."""

    def __init__(self, dtls: RTCDtlsTransport, on_broken: Callable[[], None]) -> None:
        super().__init__(dtls)
        self.is_broken = False
        self._on_broken = on_broken

    async def _handle_data(self, data: bytes) -> None:
        if self.is_broken:
            return
        try:
            await super()._handle_data(data)
        except ConnectionError:
            raise
        except Exception:  # noqa: BLE001 - text that is not UTF-8, a channel opened twice, and more
            self.is_broken = True
            self._on_broken()


class _Receiver:
    """Be what aiortc hands packets to, as a receiver and, for reports, as a sender."""

    def __init__(
        self,
        take: Callable[[RtpPacket], None],
        report: Callable[[AnyRtcpPacket], None],
        ssrc: int,
    ) -> None:
        self._take = take
        self._report = report
        self._ssrc = ssrc

    async def _handle_rtp_packet(self, packet: RtpPacket, arrival_time_ms: int) -> None:
        del arrival_time_ms
        self._take(packet)

    async def _handle_rtcp_packet(self, packet: AnyRtcpPacket) -> None:
        self._report(packet)

    def _handle_disconnect(self) -> None:
        """Leave it to the transport's own state, which changes as well."""
