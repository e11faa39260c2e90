"""A WebRTC client that costs little and adds nothing: raw RTP over the server's own parts.

aiortc's peer connection holds received sound back for 80 ms and more, which would be all that is
measured. What makes a call a call is checked with stock clients, in `tests/server/webrtc`.
"""

import asyncio
import json
import secrets
import struct
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
from aioice import stun
from aiortc import RTCDataChannel
from aiortc.rtp import RTCP_PSFB_PLI, AnyRtcpPacket, RtcpPsfbPacket, RtpPacket
from aiortc.sdp import SessionDescription

from benchmarks.film import Film
from benchmarks.pacing import paced
from server.webrtc.audio_in import AudioReceiver
from server.webrtc.channel import LABEL
from server.webrtc.dtls import CertificateStore, Handlers, SecureTransport, fingerprints
from server.webrtc.ice import is_media, is_stun
from server.webrtc.opus import OpusDecoder, OpusEncoder
from server.webrtc.timer import Timer

_PAYLOAD_TYPE = 111
# More often than the server's `_SILENT_PATH_S`, as browsers do.
_CHECK_S = 2.0
FRAME_S = 0.02
"""Of sound that a microphone hands over, and of a packet."""
_HEADER = struct.Struct("!BBHLL")
_CERTIFICATES = CertificateStore()
_OFFER = """v=0
o=- 1 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0 1
m=audio 9 UDP/TLS/RTP/SAVPF 111
c=IN IP4 0.0.0.0
a=mid:0
{transport}
a=sendrecv
a=rtcp-mux
a=rtpmap:111 opus/48000/2
m=application 9 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 0.0.0.0
a=mid:1
{transport}
a=sctp-port:5000
a=max-message-size:262144
"""
_VIDEO = """m=video 9 UDP/TLS/RTP/SAVPF 96
c=IN IP4 0.0.0.0
a=mid:2
{transport}
a=sendonly
a=rtcp-mux
a=rtpmap:96 VP8/90000
"""
_VIDEO_PAYLOAD_TYPE = 96
_LAST = 0x80  # marks the last packet of a frame


class _Path(asyncio.DatagramProtocol):
    """Be the controlling side of ICE, of which there is one candidate pair."""

    role = "controlling"

    def __init__(self, password: str, user: str) -> None:
        self._password = password
        self._user = user
        self._transport: asyncio.DatagramTransport | None = None
        self._waiting: asyncio.Queue[bytes] = asyncio.Queue()
        self.is_deaf = False
        self.on_media: Callable[[bytes], None] | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        del addr
        if is_stun(data):
            return
        if not is_media(data):
            self._waiting.put_nowait(data)
        elif self.on_media is not None and not self.is_deaf:
            self.on_media(data)

    def check(self) -> None:
        """Say that we are here, and that this is the path."""
        message = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
        message.attributes["USERNAME"] = self._user
        message.attributes["PRIORITY"] = 1
        # RFC 8445, section 8.1.1: there is one pair, and it is nominated by the first check.
        # PRIORITY must be there (section 7.1.1), and nobody here looks at it.
        message.attributes["USE-CANDIDATE"] = None
        message.add_message_integrity(self._password.encode())
        assert self._transport is not None
        self._transport.sendto(bytes(message))

    def close(self) -> None:
        """Give the port back."""
        assert self._transport is not None
        self._transport.close()

    async def _recv(self) -> bytes:
        return await self._waiting.get()

    async def _send(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.sendto(data)


class LightCaller:
    """One call.

    Args:
        rate_hz: of the sound that it hears.
        hear: takes that sound; None for a call whose media are dropped as they come.
        speak: gives the next 20 ms at 48 kHz, or its packet.
        film: that its camera shows; None for no camera.
    """

    def __init__(
        self,
        rate_hz: int,
        hear: Callable[[np.ndarray], None] | None,
        speak: Callable[[], np.ndarray | bytes],
        film: Film | None = None,
    ) -> None:
        self._hear = hear
        self._speak = speak
        self._encoder = OpusEncoder(48_000, 24_000)
        # The server's own: it adds no wait where nothing is lost, so what is measured is the way
        # there.
        self._receiver = AudioReceiver(OpusDecoder(rate_hz), rate_hz, hear or (lambda _: None))
        self._timer = Timer(self._on_due)
        self._loop = asyncio.get_running_loop()
        self._ssrc = secrets.randbits(32)
        self._film = film
        self._video_ssrc = secrets.randbits(32)
        self._is_key_due = True
        self._tasks: list[asyncio.Task[None]] = []
        self._channel: RTCDataChannel | None = None
        self.events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.counts = self._receiver.counts

    async def call(self, port: int) -> None:
        """Connect to a server of this machine."""
        certificate = _CERTIFICATES.current()
        ufrag, password = secrets.token_hex(4), secrets.token_hex(12)
        ((algorithm, digest),) = fingerprints(certificate)
        # actpass leaves the role to the answer, as browsers do (RFC 8842, section 5).
        transport = (
            f"a=ice-ufrag:{ufrag}\na=ice-pwd:{password}\n"
            f"a=fingerprint:{algorithm} {digest}\na=setup:actpass"
        )
        offer = _OFFER
        if self._film is not None:
            offer = offer.replace("BUNDLE 0 1", "BUNDLE 0 1 2") + _VIDEO
        async with httpx.AsyncClient(timeout=30) as client:
            response = await client.post(
                f"http://127.0.0.1:{port}/v1/realtime/calls",
                content=offer.format(transport=transport),
                headers={"content-type": "application/sdp"},
            )
        response.raise_for_status()
        answer = SessionDescription.parse(response.text)
        first = answer.media[0]
        candidate = first.ice_candidates[0]
        assert first.ice is not None
        assert first.ice.password is not None
        user = f"{first.ice.usernameFragment}:{ufrag}"
        peer_password = first.ice.password
        _, self._path = await self._loop.create_datagram_endpoint(
            lambda: _Path(peer_password, user), remote_addr=(candidate.ip, candidate.port)
        )
        self._path.is_deaf = self._hear is None
        self._path.check()
        self._secure = SecureTransport(
            self._path,  # type: ignore[arg-type] # all of an agent that is used here
            certificate,
            Handlers(self._on_rtp, self._on_rtcp, lambda _: None, lambda: None),
            is_server=False,
        )
        assert first.dtls is not None
        assert await self._secure.open(first.dtls), "the handshake failed"
        self._secure.hear(_PAYLOAD_TYPE, self._ssrc)
        if self._film is not None:
            self._secure.hear(_VIDEO_PAYLOAD_TYPE, self._video_ssrc)  # for reports about it
            self._tasks.append(asyncio.create_task(self._show(self._film)))
        await self._secure.open_channels(5_000, 262_144)
        opened = asyncio.Event()
        self._channel = self._secure.new_channel(LABEL)
        self._channel.on("open", opened.set)
        self._channel.on("message", lambda text: self.events.put_nowait(json.loads(text)))
        await opened.wait()
        for work in (self._pace(), self._check()):
            self._tasks.append(asyncio.create_task(work))

    def send(self, **event: Any) -> None:
        """Send an event."""
        assert self._channel is not None
        self._channel.send(json.dumps(event))

    async def until(self, kind: str) -> dict[str, Any]:
        """Receive up to the first event of a kind."""
        async with asyncio.timeout(30):
            while (event := await self.events.get())["type"] != kind:
                assert event["type"] != "error", event
        return event

    async def close(self) -> None:
        """Leave."""
        for task in self._tasks:
            task.cancel()
        self._timer.cancel()
        await self._secure.close()
        self._path.close()

    async def _check(self) -> None:
        while True:
            await asyncio.sleep(_CHECK_S)
            self._path.check()

    async def _pace(self) -> None:
        async for number in paced(FRAME_S):
            sound = self._speak()
            payload = sound if isinstance(sound, bytes) else self._encoder.encode(sound)
            # RFC 3550, section 5.1: version 2, payload type, number, timestamp (960 units are 20
            # ms), SSRC.
            header = _HEADER.pack(0x80, _PAYLOAD_TYPE, number & 0xFFFF, number * 960, self._ssrc)
            self._secure.send(header + payload)

    async def _show(self, film: Film) -> None:
        number = 0
        async for frame in paced(1 / film.fps):
            # The same frames over and over: nobody looks at them but the server, which takes key
            # frames only.
            packets = film.key if self._is_key_due else film.others[frame % len(film.others)]
            self._is_key_due = False
            for index, payload in enumerate(packets):
                kind = _VIDEO_PAYLOAD_TYPE | (_LAST if index == len(packets) - 1 else 0)
                stamp = frame * 90_000 // film.fps
                header = _HEADER.pack(0x80, kind, number & 0xFFFF, stamp, self._video_ssrc)
                self._secure.send(header + payload)
                number += 1

    def _on_rtcp(self, packet: AnyRtcpPacket) -> None:
        if isinstance(packet, RtcpPsfbPacket) and packet.fmt == RTCP_PSFB_PLI:
            self._is_key_due = True

    def _on_rtp(self, packet: RtpPacket) -> None:
        self._receiver.packet(
            packet.ssrc,
            packet.sequence_number,
            packet.timestamp,
            packet.payload,
            self._loop.time(),
        )
        self._timer.set(self._receiver.deadline_s)

    def _on_due(self) -> None:
        self._receiver.due(self._loop.time())
        self._timer.set(self._receiver.deadline_s)
