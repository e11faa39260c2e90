"""Settings of calls from browsers."""

from typing import Annotated

from pydantic import Field, model_validator

from server.config.strict import Strict


class IceServer(Strict):
    """A STUN or TURN server that clients are told of.

    Attributes:
        urls: such as `turn:turn.example.com:3478?transport=udp`.
        username: of TURN; with `secret`, the part after the time.
        credential: of TURN, where it is always the same.
        secret: that we share with the TURN server, from which each client gets a credential that
            ends after a day (coturn: `use-auth-secret`).
    """

    urls: Annotated[
        tuple[Annotated[str, Field(pattern=r"^(stun|turn)s?:")], ...], Field(min_length=1)
    ]
    username: str = ""
    credential: str | None = None
    secret: str | None = None

    @model_validator(mode="after")
    def _has_one_credential(self) -> "IceServer":
        if self.credential is not None and self.secret is not None:
            raise ValueError("give credential or secret, not both")
        return self


class WebRtcSettings(Strict):
    """How calls come by WebRTC; see docs/webrtc.md.

    Attributes:
        enabled: whether they do at all.
        port: UDP port of all calls; None for the number of `server.port`, 0 for any that is free.
        ports: first and last port of a range, of which each call then takes one. For networks that
            limit what one port may carry; one port is easier to open and to forward.
        tcp_port: TCP port for clients whose networks let no UDP through; None for none, since
            sound over TCP stutters where packets are lost. It cannot be `server.port`.
        addresses: where clients reach the server, as `host` or `host:port`, where it cannot know:
            behind NAT, in a container, behind a proxy. Empty: the address by which a client asked,
            if it is a number, and those of this machine.
        ice_servers: that clients are told of who ask (`GET /v1/realtime/ice_servers`). The server
            itself needs none.
        bitrate: of replies, bits a second. 24,000 is wideband speech; from 32,000 on there is
            always room for error correction.
        fec: whether packets repeat the one before once a client reports losses over 2 %.
        dtx: whether silence is left out. It saves half of a call's cost, and replies begin earlier.
            Recorders that count packets and not time lose the pauses.
        client_dtx: whether clients are asked to leave out their silence.
        connect_timeout_s: for a client to come after its offer was answered, and for the handshake.
        lost_after_s: silence of the network after which a call is over. Browsers check every
            second or two, aiortc every five.
        camera_fps: pictures that are taken of a camera each second; 0 refuses video.
        camera_images: pictures that are kept for the user's turn, the newest.
        camera_bitrate: of a camera, bits a second, that clients are told to keep to.
        server_id: that every call's id begins with, so that a proxy can lead to the server which
            has the call what is asked about it. Empty: made of this machine's name.
    """

    enabled: bool = True
    port: Annotated[int, Field(ge=0, le=65_535)] | None = None
    ports: (
        tuple[Annotated[int, Field(ge=1, le=65_535)], Annotated[int, Field(ge=1, le=65_535)]] | None
    ) = None
    tcp_port: Annotated[int, Field(ge=0, le=65_535)] | None = None
    addresses: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    ice_servers: tuple[IceServer, ...] = ()
    # RFC 7587, section 3.1.1, has 16 to 20 kbit/s for wideband speech and 28 to 40 for fullband. A
    # model that speaks at 24 kHz lies between.
    bitrate: Annotated[int, Field(ge=6_000, le=128_000)] = 24_000
    fec: bool = True
    dtx: bool = True
    client_dtx: bool = False
    # A browser may ask its user for the microphone before it connects.
    connect_timeout_s: Annotated[float, Field(gt=0)] = 15.0
    lost_after_s: Annotated[float, Field(gt=0)] = 15.0
    # Each picture is a key frame that the client makes for us, and larger than the frames between.
    camera_fps: Annotated[float, Field(ge=0, le=4)] = 1.0
    camera_images: Annotated[int, Field(ge=1, le=16)] = 3
    camera_bitrate: Annotated[int, Field(ge=50_000, le=10_000_000)] = 1_000_000
    server_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{0,32}$")] = ""

    @model_validator(mode="after")
    def _is_range(self) -> "WebRtcSettings":
        if self.ports is not None and self.ports[0] > self.ports[1]:
            raise ValueError(f"ports {list(self.ports)}: the first is larger than the last")
        if self.ports is not None and self.port is not None:
            raise ValueError("port and ports are two ways to say it: give one")
        return self


CALL_DEFAULTS = WebRtcSettings()
"""As `DEFAULTS`, of calls."""
