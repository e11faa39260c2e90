"""Hold one call from its offer to its end, with all its parts."""

import asyncio
import contextlib
import secrets
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import structlog
from aiortc import RTCCertificate
from aiortc.rtp import AnyRtcpPacket, RtpPacket

from model.messages import Pcm
from server.config.webrtc import WebRtcSettings
from server.images.picture import Picture
from server.images.service import ImageService
from server.session.session import Session
from server.session.transport import Player, Transport
from server.session.work_thread import WorkThread
from server.webrtc.audio_in import AudioReceiver, ReceiverCounts
from server.webrtc.audio_out import AudioSender
from server.webrtc.camera import Camera
from server.webrtc.channel import ChannelTransport
from server.webrtc.dtls import Handlers, SecureTransport, fingerprints
from server.webrtc.encoding import ThreadEncoder
from server.webrtc.ice import Credentials, IceAgent
from server.webrtc.network import Network
from server.webrtc.offer import Candidate, Offer, Ours, VideoOffer, is_dtls_server, write_answer
from server.webrtc.opus import OpusDecoder, OpusEncoder
from server.webrtc.reports import PERIOD_S, Reports
from server.webrtc.timer import Timer
from server.webrtc.video_in import VideoReceiver

EndReason: TypeAlias = Literal[
    "client",
    "failed",
    "hung_up",
    "lost",
    "not_connected",
    "refused",
    "revoked",
    "session",
    "stopped",
    "used_up",
]
"""Why a call ended: the client left, our own fault, `POST …/hangup`, its network went silent, it
never came, it was not who it said, its ephemeral key was revoked, the session ended, the
server stopped, its API key had used its minutes."""

_HANDSHAKE_TIMEOUT_S = 10.0
_RTP_HEADER = struct.Struct("!BBHLL")
_RTP_VERSION = 0x80

_log = structlog.get_logger("call")


@dataclass(frozen=True, slots=True)
class CallParts:
    """What a call is given by the server.

    Attributes:
        settings: of all calls.
        rate_hz: of the engine's audio.
        certificate: of the server.
        network: that the call comes by.
        encoding: where its sound is encoded.
        new_session: makes its session, once it is connected.
        images: decodes what its camera shows.
        image_side: largest side of that, in pixels.
        takes_video: whether it may have one.
        release_place: gives back the place that was kept for it, when its session joins or never
            will.
    """

    settings: WebRtcSettings
    rate_hz: int
    certificate: RTCCertificate
    network: Network
    encoding: WorkThread
    new_session: Callable[[Transport, Player], Session]
    release_place: Callable[[], None]
    images: ImageService
    image_side: int
    takes_video: bool


class Call:
    """Own everything of one call; it is made with the answer, and dropped when `run` returns.

    Args:
        call_id: by which clients name it.
        offer: of the client.
        asked: host by which the client reached the server.
        parts: what the server gives it.

    Raises:
        OverloadedError: there is no port for it.
    """

    def __init__(self, call_id: str, offer: Offer, asked: str, parts: CallParts) -> None:
        self.id = call_id
        self._offer = offer
        self._asked = asked
        self._parts = parts
        self._loop = asyncio.get_running_loop()
        self._door = parts.network.door(asked)
        # Random (RFC 3550, section 8), as is where the stream begins: see `_new_sender`.
        self._ssrc = secrets.randbits(32)
        self._version = 1
        self._agent = IceAgent(Credentials.made(), offer.remote.ufrag, self._loop.time)
        parts.network.exchange.add(self._agent)
        self._channel = ChannelTransport(offer.channel, lambda: self._reports.round_trip_s)
        self._secure = SecureTransport(
            self._agent,
            parts.certificate,
            Handlers(
                self._on_rtp, self._on_rtcp, self._channel.take, self._on_closed, self._on_video
            ),
            is_server=is_dtls_server(offer),
        )
        settings = parts.settings
        encoder = OpusEncoder(parts.rate_hz, settings.bitrate, fec=settings.fec)
        self._encoder = ThreadEncoder(encoder, parts.encoding, self._fail)
        self._decoder = OpusDecoder(parts.rate_hz)
        self._play_timer, self._hear_timer = Timer(self._on_play), Timer(self._on_hear)
        self._sender = self._new_sender()
        self._receiver = AudioReceiver(self._decoder, parts.rate_hz, self._hear)
        self._video: VideoReceiver | None = None
        self._camera: Camera | None = None
        self._is_connected = False
        self._tasks: asyncio.TaskGroup | None = None  # once there is a session
        self._camera_task: asyncio.Task[None] | None = None
        self._reports = Reports(
            self._ssrc,
            self._sender,
            self._receiver,
            self._loop.time,
            max_video_bitrate=settings.camera_bitrate,
        )
        if offer.video is not None:
            self._take_video(offer.video)
        # Packets count as life as checks do: a client that only listens checks its path, and one
        # that talks behind a strict firewall may be heard before its next check.
        self._last_rtp_s = self._loop.time()
        self._reason: EndReason | None = None
        self._session: Session | None = None
        # Done once there is a session, or the call is over without one.
        self._joined: asyncio.Future[None] = self._loop.create_future()
        self._log = _log.bind(call_id=call_id)

    def _new_sender(self) -> AudioSender:
        return AudioSender(
            self._encoder,
            self._parts.rate_hz,
            self._send_rtp,
            self._report,
            self._sounded,
            lambda: self._play_timer.set(self._sender.due_s),
            self._loop.time,
            dtx=self._parts.settings.dtx,
            # Random, and so is the name of the stream: RFC 3550, sections 5.1 and 8. The number has
            # 15 bits of it, so that it does not start over soon after the call begins, which
            # confuses SRTP where the first packets are lost (RFC 3711, section 3.3.1).
            first_number=secrets.randbits(15),
            first_timestamp=secrets.randbits(32),
        )

    @property
    def takes_video(self) -> bool:
        """Say whether it may have a camera."""
        return self._parts.takes_video

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Return where the client was told to find us."""
        return self._door.candidates

    @property
    def receiver_counts(self) -> ReceiverCounts:
        """Return what became of the client's audio."""
        return self._receiver.counts

    def answer(self) -> str:
        """Return the SDP answer to the offer."""
        ours = Ours(
            self._agent.local,
            fingerprints(self._parts.certificate),
            self._door.candidates,
            self._ssrc,
            self._parts.settings.bitrate,
            self._parts.settings.client_dtx,
            self._version,
        )
        return write_answer(self._offer, ours)

    def renew(self, offer: Offer) -> str | None:
        """Follow a client to another network (ICE restart), or take the camera that it adds.

        Returns:
            The answer; None if the offer is another call's: its certificate or what it wants is
            not the same.
        """
        if not _continues(offer, self._offer):
            return None
        before, self._offer = self._offer, offer
        self._version += 1
        # A client that stays where it is keeps its name, and would take another name of ours for a
        # restart of our own (RFC 8839, section 4.4.1.1.1).
        if offer.remote.ufrag != before.remote.ufrag:
            exchange = self._parts.network.exchange
            exchange.restart(self._agent, Credentials.made(), offer.remote.ufrag)
            self._last_rtp_s = self._loop.time()
        if offer.video is not None and before.video is None:
            self._take_video(offer.video)
        return self.answer()

    def _take_video(self, offered: VideoOffer) -> None:
        """Look at a client's camera, as far as the call has come."""
        parts = self._parts
        self._video = video = VideoReceiver(
            offered.codec,
            1 / parts.settings.camera_fps,
            self._on_frame,
            self._ask_for_key_frame,
        )
        self._camera = Camera(offered.codec, parts.images, parts.image_side, self._see, video.again)
        self._reports.watch(video)
        if self._is_connected:
            self._secure.watch(offered.payload_type, self._ssrc)
        self._show()

    def _show(self) -> None:
        """Let pictures be decoded, once there is a session that takes them."""
        if self._camera is not None and self._tasks is not None:
            self._camera_task = self._tasks.create_task(
                self._camera.run(), name=f"camera {self.id}"
            )

    async def session(self) -> Session | None:
        """Return the call's session once it is connected; None if it never will be."""
        # Several may wait here, and one that gives up must not cancel the future of all.
        await asyncio.shield(self._joined)
        return self._session

    def hang_up(self) -> None:
        """End the call."""
        self._end("hung_up")
        if self._session is not None:
            self._session.hang_up()

    def revoke(self) -> None:
        """End the call, because the key by which it came is not good any more."""
        self._end("revoked")
        if self._session is not None:
            self._session.revoke()

    def use_up(self, message: str) -> None:
        """End the call, because its API key has used what it may."""
        self._end("used_up")
        if self._session is not None:
            self._session.use_up(message)

    async def run(self) -> EndReason:
        """Hold the call until it ends, and say why it did."""
        self._log.info("call offered")
        try:
            await self._talk()
        except Exception as error:  # noqa: BLE001 - the call's boundary: ours, not others', ends
            self._end("failed")
            self._log.error("call failed", exc_info=error)
        except asyncio.CancelledError:
            self._end("stopped")
            raise
        finally:
            await self._close()
        reason = self._reason or "session"
        self._log.info(
            "call ended",
            reason=reason,
            received=self._receiver.counts.received,
            concealed=self._receiver.counts.concealed,
            late=self._receiver.counts.late,
            round_trip_ms=round((self._reports.round_trip_s or 0) * 1000, 1),
            path_switches=self._agent.num_switches,
            pictures=0 if self._video is None else self._video.counts.frames,
        )
        return reason

    async def _talk(self) -> None:
        if not await self._connected():
            return
        if self._reason is not None:
            return
        self._session = self._parts.new_session(self._channel, self._sender)
        # The session joins as soon as it runs, so nobody comes between.
        self._parts.release_place()
        self._joined.set_result(None)
        self._play_timer.set(self._loop.time())
        self._sender.due_s = self._loop.time()
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(self._watch(), name=f"watch {self.id}")
            self._tasks = group
            self._show()
            try:
                await self._session.run()
            finally:
                # It is forgotten when it has ended.
                self._session = self._tasks = None
                for task in (watching, self._camera_task):
                    if task is not None:
                        task.cancel()

    async def _connected(self) -> bool:
        try:
            async with asyncio.timeout(self._parts.settings.connect_timeout_s):
                # First a check with the right password, then the handshake: without the first,
                # there is no address to send to, and forged offers cost nothing but a place until
                # this time is over.
                await self._agent.is_reached.wait()
        except TimeoutError:
            self._end("not_connected")
            return False
        try:
            async with asyncio.timeout(_HANDSHAKE_TIMEOUT_S):
                is_open = await self._secure.open(self._offer.dtls)
        except TimeoutError:
            self._end("not_connected")
            return False
        if not is_open:
            self._end("refused")
            return False
        self._is_connected = True
        audio, channel, video = self._offer.audio, self._offer.channel, self._offer.video
        if audio is not None:
            self._secure.hear(audio.payload_type, self._ssrc)
        if video is not None:
            self._secure.watch(video.payload_type, self._ssrc)
        if channel is not None:
            await self._secure.open_channels(channel.sctp_port, channel.max_message_bytes)
        return True

    async def _watch(self) -> None:
        """Report once a second, and end the call when its network is silent."""
        while True:
            await asyncio.sleep(PERIOD_S)
            if self._offer.audio is not None or self._video is not None:
                self._secure.send(self._reports.compound())
            # Clients must ask for consent every 5 s or so, and stop sending after 30 s without an
            # answer (RFC 7675, section 5.1). So a silent client is still heard of, and one that is
            # not is gone.
            heard_s = max(self._agent.last_check_s, self._last_rtp_s)
            if self._loop.time() - heard_s > self._parts.settings.lost_after_s:
                self._end("lost")

    async def _close(self) -> None:
        """Let go of everything; what can fail on the way hides nothing that follows."""
        self._play_timer.cancel()
        self._hear_timer.cancel()
        self._parts.release_place()
        if not self._joined.done():
            self._joined.set_result(None)
        self._channel.end()
        with contextlib.suppress(ConnectionError):
            await self._secure.close()
        self._agent.close()
        self._parts.network.exchange.forget(self._agent)
        self._door.close()
        self._encoder.close()
        self._decoder.close()

    def _end(self, reason: EndReason) -> None:
        """Note why the call ends; its session, if it has one, ends with its channel."""
        if self._reason is None:
            self._reason = reason
        self._agent.is_reached.set()
        if reason not in ("hung_up", "revoked", "used_up") or self._session is None:
            self._channel.end()
        if self._session is None:
            # Whoever waits for a datagram learns that there is none.
            self._agent.close()

    def _fail(self, error: Exception) -> None:
        self._log.error("call failed", exc_info=error)
        self._end("failed")
        if self._session is not None:
            self._session.hang_up()

    # What arrives.

    def _on_closed(self) -> None:
        self._end("client")

    def _on_rtp(self, packet: RtpPacket) -> None:
        now_s = self._loop.time()
        self._last_rtp_s = now_s
        audio = self._offer.audio
        if self._session is None or audio is None or not audio.hears:
            return
        # A microphone that is muted still sends; only a call without packets is idle.
        self._session.note_alive()
        self._receiver.packet(
            packet.ssrc, packet.sequence_number, packet.timestamp, packet.payload, now_s
        )
        self._hear_timer.set(self._receiver.deadline_s)

    def _on_video(self, packet: RtpPacket) -> None:
        now_s = self._loop.time()
        self._last_rtp_s = now_s
        if self._session is None or self._video is None:
            return
        self._video.packet(
            packet.ssrc,
            packet.sequence_number,
            packet.timestamp,
            packet.payload,
            now_s,
            is_last=bool(packet.marker),
        )

    def _on_frame(self, data: bytes) -> None:
        assert self._camera is not None, "there is video"
        self._camera.frame(data)

    def _ask_for_key_frame(self) -> None:
        self._secure.send(self._reports.key_frame_request())

    def _see(self, picture: Picture) -> None:
        if self._session is not None:
            self._session.see(picture)

    def _on_rtcp(self, packet: AnyRtcpPacket) -> None:
        if self._reports.take(packet) and self._parts.settings.fec:
            self._encoder.expect_loss(self._reports.expected_loss_percent)

    def _on_hear(self) -> None:
        self._receiver.due(self._loop.time())
        self._hear_timer.set(self._receiver.deadline_s)

    def _hear(self, pcm: Pcm) -> None:
        if self._session is not None:
            self._session.hear(pcm)

    # What leaves.

    def _on_play(self) -> None:
        self._sender.step(self._loop.time())
        self._play_timer.set(self._sender.due_s)

    def _send_rtp(self, number: int, timestamp: int, is_beginning: bool, payload: bytes) -> None:  # noqa: FBT001 - as RTP has it
        audio = self._offer.audio
        if audio is None or not audio.speaks:
            return  # it is played to nobody, in the same time
        # RFC 3550, section 5.1: version 2 and no extensions, marker and payload type, number,
        # timestamp, SSRC.
        marked = 0x80 if is_beginning else 0
        header = _RTP_HEADER.pack(
            _RTP_VERSION, marked | audio.payload_type, number, timestamp, self._ssrc
        )
        self._secure.send(header + payload)

    def _sounded(self, pcm: Pcm, at_s: float) -> None:
        if self._session is not None:
            self._session.sounded(pcm, self._loop.time() - at_s)

    def _report(self, item_id: str, num_samples: int) -> None:
        if self._session is not None:
            self._session.played(item_id, num_samples)


def _continues(offer: Offer, before: Offer) -> bool:
    """Say whether an offer is one more of the same call: as it was, or with a camera besides."""
    # DTLS goes on without another handshake. So the certificate must be the one that it began with,
    # or anybody with the call's id could take the call over.
    known, given = (
        {(each.algorithm, each.value.upper()) for each in which.dtls.fingerprints}
        for which in (before, offer)
    )
    sections = offer.sections
    if offer.video is not None and before.video is None:
        # New sections come last (RFC 8829, section 5.2.2).
        if offer.video.index < len(before.sections):
            return False
        sections = sections[: len(before.sections)]
        before = replace(before, video=offer.video)
    return known == given and (sections, offer.audio, offer.channel, offer.video) == (
        before.sections,
        before.audio,
        before.channel,
        before.video,
    )
