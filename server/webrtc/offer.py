"""Read a client's SDP offer, and write the answer (RFC 8829). No I/O.

An answer has a section for each of the offer's, in its order. One audio section with Opus is taken,
one data channel and, where the model sees, one video section; what else is offered is refused with
port 0.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Literal, TypeAlias, cast

from aiortc import RTCDtlsParameters, RTCRtpCodecParameters
from aiortc.sdp import GroupDescription, MediaDescription, SessionDescription

from server.errors import ClientError
from server.images.picture import VideoCodec
from server.webrtc.ice import Credentials
from server.webrtc.opus import FRAME_MS

Direction: TypeAlias = Literal["sendrecv", "sendonly", "recvonly", "inactive"]

MAX_MESSAGE_BYTES = 262_144
"""Largest message of a data channel that we take; browsers send no larger ones to anybody."""

# RFC 3264, section 6.1: what the client only sends is only received here, and the other way round.
_ANSWERS: dict[Direction, Direction] = {
    "sendrecv": "sendrecv",
    "sendonly": "recvonly",
    "recvonly": "sendonly",
    "inactive": "inactive",
}
# The cheapest to decode in the quality that a camera's pictures come in, first.
_VIDEO_CODECS: dict[str, tuple[int, VideoCodec]] = {
    "video/vp8": (0, "vp8"),
    "video/h264": (1, "h264"),
    "video/h265": (3, "h265"),
}
_DEFAULT_SCTP_PORT = 5_000
_DEFAULT_MESSAGE_BYTES = 65_536  # RFC 8841, section 6.1
_DIGESTS = ("sha-256", "sha-384", "sha-512")
_MAX_SECTIONS = 32
_MAX_LINES = 2_000  # browsers write some hundreds


@dataclass(frozen=True, slots=True)
class Candidate:
    """Say where clients can reach us.

    Attributes:
        protocol: "udp", or "tcp" where the client opens the connection.
        preference: of candidates of one protocol, 0 to 65,535; higher is tried first.
    """

    host: str
    port: int
    protocol: Literal["udp", "tcp"]
    preference: int

    def to_sdp(self) -> str:
        """Return the attribute's value (RFC 8839, section 5.1)."""
        # Host candidates of UDP come before those of TCP; RFC 8445, section 5.1.2, and RFC 6544.
        # For example, our first UDP address: 126 · 2²⁴ + 65,535 · 2⁸ + 255 = 2,130,706,431. The
        # last term is 256 less the component, and there is one, since RTP and RTCP share a port.
        kind = 126 if self.protocol == "udp" else 90
        priority = (kind << 24) + (self.preference << 8) + 255
        suffix = " tcptype passive" if self.protocol == "tcp" else ""
        foundation = f"{self.protocol}{self.preference}"
        address = f"{self.host} {self.port}"
        return f"{foundation} 1 {self.protocol} {priority} {address} typ host{suffix}"


@dataclass(frozen=True, slots=True)
class AudioOffer:
    """Describe the audio section that is taken.

    Attributes:
        index: of the section.
        payload_type: of Opus in the offer, and so in both directions.
        direction: ours.
    """

    index: int
    mid: str
    payload_type: int
    direction: Direction

    @property
    def hears(self) -> bool:
        """Say whether the client sends."""
        return self.direction in ("sendrecv", "recvonly")

    @property
    def speaks(self) -> bool:
        """Say whether the client wants to hear us."""
        return self.direction in ("sendrecv", "sendonly")


@dataclass(frozen=True, slots=True)
class VideoOffer:
    """Describe the video section that is taken.

    Attributes:
        index: of the section.
        payload_type: of the codec in the offer.
        codec: that the client is to send.
        lines: that say so in the answer.
    """

    index: int
    payload_type: int
    codec: VideoCodec
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ChannelOffer:
    """Describe the section of data channels that is taken.

    Attributes:
        index: of the section.
        sctp_port: the client's.
        max_message_bytes: that the client takes; 0 for any size.
    """

    index: int
    mid: str
    sctp_port: int
    max_message_bytes: int


@dataclass(frozen=True, slots=True)
class Offer:
    """Hold what an offer asks for that we can do.

    Attributes:
        sections: kind, profile, formats and mid of each.
        remote: credentials of the client's ICE.
        dtls: fingerprints of the client's certificate, and its role.
        audio: None if no audio is taken.
        channel: None if no data channel is taken.
        video: None if no video is taken.
        is_bundled: whether the offer puts the sections on one transport by name.
    """

    sections: tuple["Section", ...]
    remote: Credentials
    dtls: RTCDtlsParameters
    audio: AudioOffer | None
    channel: ChannelOffer | None
    video: VideoOffer | None
    is_bundled: bool

    @property
    def taken(self) -> set[int]:
        """Return the indices of the sections that are taken."""
        found = (self.audio, self.channel, self.video)
        return {each.index for each in found if each is not None}


@dataclass(frozen=True, slots=True)
class Section:
    """Hold what an answer repeats of a section."""

    kind: str
    profile: str
    formats: tuple[str, ...]
    mid: str


def parse_offer(sdp: str, *, sees: bool = False) -> Offer:
    """Return what an offer asks for.

    Args:
        sdp: the offer.
        sees: whether video is taken.

    Raises:
        ClientError: it is no SDP, lacks what WebRTC needs, or holds nothing that we can do.
    """
    # The parser compares lines with each other: time grows with the square of their number.
    if len(sdp.splitlines()) > _MAX_LINES:
        raise _bad(f"it has more than {_MAX_LINES} lines")
    try:
        parsed = SessionDescription.parse(sdp)
    except Exception as error:  # noqa: BLE001 - the parser fails in many ways, and means one thing
        reason = str(error) or type(error).__name__
        raise _bad(f"it cannot be read ({reason})") from None
    if not parsed.media:
        raise _bad("it has no media section ('m=' line)")
    if len(parsed.media) > _MAX_SECTIONS:
        raise _bad(f"it has more than {_MAX_SECTIONS} media sections")
    # One transport for everything (RFC 9143). What is not in its group would need another, and is
    # refused.
    group = next((each for each in parsed.group if each.semantic == "BUNDLE"), None)
    audio: AudioOffer | None = None
    channel: ChannelOffer | None = None
    video: VideoOffer | None = None
    first: MediaDescription | None = None
    for index, media in enumerate(parsed.media):
        if not _may_join(media, first, group):
            continue
        found_audio = _audio(index, media) if audio is None else None
        found_channel = _channel(index, media) if channel is None else None
        found_video = _video(index, media) if sees and video is None else None
        audio, channel, video = (
            audio or found_audio,
            channel or found_channel,
            video or found_video,
        )
        if found_audio or found_channel or found_video:
            first = first or media
    if first is None or (audio is None and channel is None):
        raise _bad(
            "it has neither an audio section with Opus (opus/48000/2) nor one for data channels "
            "('m=application … webrtc-datachannel')"
        )
    remote, dtls = _transport(first)
    # RTCP on a port of its own is what WebRTC has left behind (RFC 8834, section 4.5; RFC 5761).
    if audio is not None and not parsed.media[audio.index].rtcp_mux:
        raise _bad("its audio section lacks 'a=rtcp-mux'")
    sections = tuple(
        Section(media.kind, media.profile, tuple(str(fmt) for fmt in media.fmt), media.rtp.muxId)
        for media in parsed.media
    )
    if audio is not None and video is not None and video.payload_type == audio.payload_type:
        video = None  # on one transport nobody could tell them apart
    return Offer(sections, remote, dtls, audio, channel, video, group is not None)


def _codec_lines(codec: RTCRtpCodecParameters) -> list[str]:
    """Write a codec as the offer has it."""
    parameters = ";".join(
        name if value is None else f"{name}={value}" for name, value in codec.parameters.items()
    )
    return [
        f"a=rtpmap:{codec.payloadType} {codec}",
        *([f"a=fmtp:{codec.payloadType} {parameters}"] if parameters else []),
    ]


def _bad(reason: str) -> ClientError:
    return ClientError(f"Invalid SDP offer: {reason}.", code="invalid_offer", param="sdp")


def _may_join(
    media: MediaDescription, first: MediaDescription | None, group: GroupDescription | None
) -> bool:
    """Say whether a section can share the transport of the first one that was taken."""
    if media.port == 0 and (group is None or media.rtp.muxId not in group.items):
        # Taken back by the offer itself; in a group, port 0 means that it has no port of its own.
        return False
    if first is None:
        return True
    # For example, sections "0" and "1" with `a=group:BUNDLE 0 1`: the second joins the first. With
    # `a=group:BUNDLE 0` it does not.
    return group is not None and {media.rtp.muxId, first.rtp.muxId} <= {*group.items}


def _audio(index: int, media: MediaDescription) -> AudioOffer | None:
    if media.kind != "audio":
        return None
    opus = [codec for codec in media.rtp.codecs if codec.mimeType.lower() == "audio/opus"]
    # `opus/48000/2` is how it is always written, for mono as well (RFC 7587, section 7).
    if not opus or opus[0].clockRate != 48_000:
        return None
    direction = _ANSWERS[cast("Direction", media.direction or "sendrecv")]
    payload_type = opus[0].payloadType
    assert payload_type is not None, "read from the offer"
    return AudioOffer(
        index,
        media.rtp.muxId,
        payload_type,
        direction,
    )


def _video(index: int, media: MediaDescription) -> VideoOffer | None:
    if media.kind != "video" or not media.rtcp_mux:
        return None
    if media.direction not in (None, "sendrecv", "sendonly"):
        return None  # we have nothing to show
    found: list[tuple[int, VideoOffer]] = []
    for codec in media.rtp.codecs:
        known = _VIDEO_CODECS.get(codec.mimeType.lower())
        if known is None or codec.payloadType is None:
            continue
        rank = known[0]
        # With mode 1 of H.264 a picture need not be cut to the size of packets.
        rank += known[1] == "h264" and str(codec.parameters.get("packetization-mode")) != "1"
        offered = VideoOffer(index, codec.payloadType, known[1], (*_codec_lines(codec),))
        found.append((rank, offered))
    return min(found, key=itemgetter(0), default=(0, None))[1]


def _channel(index: int, media: MediaDescription) -> ChannelOffer | None:
    if media.kind != "application" or "webrtc-datachannel" not in {str(f) for f in media.fmt}:
        return None
    capabilities = media.sctpCapabilities
    return ChannelOffer(
        index,
        media.rtp.muxId,
        media.sctp_port or _DEFAULT_SCTP_PORT,
        _DEFAULT_MESSAGE_BYTES if capabilities is None else capabilities.maxMessageSize,
    )


def _transport(media: MediaDescription) -> tuple[Credentials, RTCDtlsParameters]:
    ice, dtls = media.ice, media.dtls
    if ice is None or not ice.usernameFragment or not ice.password:
        raise _bad("it lacks 'a=ice-ufrag' or 'a=ice-pwd'")
    if dtls is None or not any(each.algorithm.lower() in _DIGESTS for each in dtls.fingerprints):
        raise _bad(f"it lacks 'a=setup', or 'a=fingerprint' with {' or '.join(_DIGESTS)}")
    return Credentials(ice.usernameFragment, ice.password), dtls


@dataclass(frozen=True, slots=True)
class Ours:
    """Hold our side of an answer.

    Attributes:
        local: credentials of our ICE.
        fingerprints: algorithm and digest of our certificate.
        candidates: where we can be reached, the best first.
        ssrc: of the audio that we send.
        bitrate: that the client is to send at most, bits a second.
        dtx: whether the client may stop sending in silence.
        version: of the description; it grows with each answer of a call.
    """

    local: Credentials
    fingerprints: Sequence[tuple[str, str]]
    candidates: Sequence[Candidate]
    ssrc: int
    bitrate: int
    dtx: bool
    version: int = 1


def is_dtls_server(offer: Offer) -> bool:
    """Say whether we wait for the client's handshake: wherever the offer leaves it to us.

    The active side repeats its first message by its own timer, and browsers' are shorter.
    """
    # `actpass` leaves it to us, `active` is the client's own wish, `passive` makes us begin (RFC
    # 8842, section 5).
    return bool(offer.dtls.role != "server")


def write_answer(offer: Offer, ours: Ours) -> str:
    """Return the answer, complete: no candidates follow."""
    taken = offer.taken
    mids = " ".join(offer.sections[index].mid for index in sorted(taken))
    lines = [
        "v=0",
        f"o=- {secrets.randbits(62)} {ours.version} IN IP4 127.0.0.1",
        "s=-",
        "t=0 0",
        # So the client is the controlling side and does the checks (RFC 8445, section 6.1.1).
        "a=ice-lite",
        *([f"a=group:BUNDLE {mids}"] if offer.is_bundled else []),
        "a=msid-semantic: WMS *",
    ]
    for index, section in enumerate(offer.sections):
        if index not in taken:
            lines += _refused(section)
            continue
        # All sections that are taken share one transport, which the first describes.
        candidates = ours.candidates if index == min(taken) else ()
        lines += [
            # Port 9 and 0.0.0.0 mean "see the candidates" (RFC 8829, section 5.2.1).
            f"m={section.kind} 9 {section.profile} {_formats(offer, index)}",
            "c=IN IP4 0.0.0.0",
            *_mid(section),
            *_transport_lines(offer, ours),
            *(_audio_lines(offer, ours) if offer.audio and index == offer.audio.index else []),
            *(_video_lines(offer.video) if offer.video and index == offer.video.index else []),
            *(_channel_lines() if offer.channel and index == offer.channel.index else []),
            *(f"a=candidate:{candidate.to_sdp()}" for candidate in candidates),
            *(["a=end-of-candidates"] if candidates else []),
        ]
    return "\r\n".join(lines) + "\r\n"


def _refused(section: Section) -> list[str]:
    # Port 0 refuses, and the formats are there because the line must have some (RFC 3264, section
    # 6).
    formats = " ".join(section.formats) or "0"
    return [
        f"m={section.kind} 0 {section.profile} {formats}",
        "c=IN IP4 0.0.0.0",
        *_mid(section),
        "a=inactive",
    ]


def _mid(section: Section) -> list[str]:
    return [f"a=mid:{section.mid}"] if section.mid else []


def _formats(offer: Offer, index: int) -> str:
    if offer.audio is not None and index == offer.audio.index:
        return str(offer.audio.payload_type)
    if offer.video is not None and index == offer.video.index:
        return str(offer.video.payload_type)
    return "webrtc-datachannel"


def _transport_lines(offer: Offer, ours: Ours) -> list[str]:
    return [
        f"a=ice-ufrag:{ours.local.ufrag}",
        f"a=ice-pwd:{ours.local.password}",
        *(f"a=fingerprint:{algorithm} {digest}" for algorithm, digest in ours.fingerprints),
        f"a=setup:{'passive' if is_dtls_server(offer) else 'active'}",
    ]


def _audio_lines(offer: Offer, ours: Ours) -> list[str]:
    audio = offer.audio
    assert audio is not None
    payload = audio.payload_type
    # What the client's encoder is asked to do (RFC 7587, section 6.1).
    wishes = [
        "minptime=10",
        # Browsers repair losses only for those who ask for it.
        "useinbandfec=1",
        "stereo=0",
        "sprop-stereo=0",
        f"maxaveragebitrate={ours.bitrate}",
        *(["usedtx=1"] if ours.dtx else []),
    ]
    return [
        f"a={audio.direction}",
        "a=rtcp-mux",
        f"a=rtpmap:{payload} opus/48000/2",
        f"a=fmtp:{payload} {';'.join(wishes)}",
        f"a=ptime:{FRAME_MS}",
        *(
            [
                "a=msid:parley voice",
                f"a=ssrc:{ours.ssrc} cname:parley",
                f"a=ssrc:{ours.ssrc} msid:parley voice",
            ]
            if audio.speaks
            else []
        ),
    ]


def _video_lines(video: VideoOffer) -> list[str]:
    payload = video.payload_type
    return [
        "a=recvonly",
        "a=rtcp-mux",
        *video.lines,
        f"a=rtcp-fb:{payload} nack pli",
        f"a=rtcp-fb:{payload} goog-remb",
    ]


def _channel_lines() -> list[str]:
    return [
        f"a=sctp-port:{_DEFAULT_SCTP_PORT}",
        f"a=max-message-size:{MAX_MESSAGE_BYTES}",
    ]
