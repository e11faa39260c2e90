"""Settings: a YAML file, then `PARLEY_*` of the environment, then `--set a.b=c`.

    server:
      port: 9000              # the file
    PARLEY_SERVER__PORT=9000  # the environment: `__` between the levels
    --set server.port=9000    # the command line

Later ones win. Values from the environment and the command line are read as YAML, so lists and
numbers work. A key that does not exist is an error that names the key, where it stood and what
may have been meant. Nothing else in Parley reads the environment.
"""

import difflib
import ipaddress
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, get_args, get_origin
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from model.engine.config import EngineConfig
from model.family import ServedKind
from model.precision import Linears, Precision
from server.errors import ConfigError

ENV_PREFIX = "PARLEY_"
_LEVEL_SEPARATOR = "__"
# A key of 16 hexadecimal digits has 64 random bits. At eight tries a second from one address
# (`server/transport/tries.py`) nobody finds it. What a secret signs can be tried offline, as fast
# as a machine hashes, hence 128 bits of it.
MIN_KEY_CHARS = 16
MIN_SECRET_CHARS = 32
# What must not be shown in an error.
_SECRETS = (
    ("server", "api_keys"),
    ("server", "key_secrets"),
    ("mcp", "servers"),
    ("telephony", "twilio"),
    ("telephony", "telnyx"),
    ("delegate", "authorization"),
    ("delegate", "headers"),
    ("filters", "checks"),
    ("telemetry", "headers"),
)
_CORE = EngineConfig()

# Free-form: read from YAML, checked by pydantic afterwards.
_Tree: TypeAlias = dict[str, Any]
_KeyPath: TypeAlias = tuple[str, ...]


def is_loopback(host: str) -> bool:
    """Say whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


# A mistyped key would otherwise be a default that nobody chose: `max_sesions: 4` would serve as
# many as before, and say nothing.
class _Strict(BaseModel):
    """Refuse unknown keys and later changes."""

    model_config = ConfigDict(frozen=True, extra="forbid")


KeyScope: TypeAlias = Literal["sessions", "client_secrets", "metrics"]
KeyName: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
ALL_SCOPES: tuple[KeyScope, ...] = ("sessions", "client_secrets", "metrics")


class KeyLimits(_Strict):
    """What may be used with an API key on one server, ephemeral keys made with it included.

    Attributes:
        max_sessions: that may be open at once.
        minutes_a_day: of all its sessions, by UTC. When they are used up, all are ended.
        sessions_a_minute: that may begin.
    """

    max_sessions: Annotated[int, Field(ge=0)] | None = None
    minutes_a_day: Annotated[int, Field(ge=0)] | None = None
    sessions_a_minute: Annotated[int, Field(ge=1, le=10_000)] | None = None


class NamedKey(_Strict):
    """An API key by its hash; `parley key NAME` makes one.

    Attributes:
        name: in metrics and in the log.
        sha256: of the key, in hexadecimal.
        scopes: what it may do: begin sessions, make ephemeral keys and revoke them, read metrics.
            All see which models there are.
        limits: on its sessions.
    """

    name: KeyName
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    scopes: Annotated[tuple[KeyScope, ...], Field(min_length=1)] = ALL_SCOPES
    limits: KeyLimits = KeyLimits()


class ServerSettings(_Strict):
    """Where and for whom the server listens.

    Attributes:
        host: address to listen on. Without API keys only loopback addresses are allowed.
        port: TCP port.
        api_keys: keys that clients may use, 16 or more printable ASCII characters each; with none,
            anyone on this machine may connect.
        keys: API keys by their hashes, with names, scopes and limits.
        tls_certificate: PEM file with the certificate, and those that it was signed with. With it
            the server speaks `https` and `wss` and nothing else.
        tls_key: PEM file with the certificate's private key; not encrypted.
        trusted_proxies: addresses whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed.
        openapi: whether `/openapi.json` describes the HTTP side; left out, only without keys.
        max_message_bytes: largest event. 15 MiB of audio are 20 MiB of base64.
        max_body_bytes: largest body of an HTTP request.
        key_secrets: that ephemeral keys are signed with, 32 or more characters each: servers that
            have the same know one another's keys. The first signs, all are believed. Without any,
            a key works on the server that made it.
        key_epoch: ephemeral keys that were signed in an earlier one are no keys any more.
        max_ephemeral_keys: keys made for browsers and devices that have not expired.
        max_backlog_events: events that may wait for a slow reader; past it, it is disconnected.
        send_timeout_s: how long one event may take to be taken by the reader.
        max_items: items of one conversation; past it the oldest is dropped, and clients are told.
        max_text_chars: characters of any one string that a client sends, but sound.
        max_conversation_chars: characters of all items of one conversation; past it the oldest is
            dropped, and clients are told.
        max_context_tokens: tokens of a conversation, in the engine's own count and without
            instructions, that a response may be based on; past it the oldest items are dropped, or
            the response fails, as the session's `truncation` says. 28,224 is the hosted service's.
        max_tools: functions that a session or a response may offer; 128 is the hosted service's
            limit.
        max_kept_audio_s: audio of a turn that is kept; also how much a commit by hand can take
            while voice detection has found no speech.
        max_waiting_audio_s: audio of a session that may wait for the engine: clients can append it
            much faster than it is heard.
        max_session_s: length of a session, 0 for no limit. Left out, an hour where keys are set,
            else no limit.
        idle_session_s: how long a session may go without any event of its client, and without sound
            by WebRTC; 0 for no limit. Left out, ten minutes where keys are set, else no limit.
        max_connections: connections that have no session: requests over HTTP, handshakes, refusals.
        max_connections_per_address: the same, of one address (of one /64 of IPv6).
        drain_s: how long open sessions may go on after SIGTERM, while new ones are refused; 0 for
            not at all. Whoever supervises the server has to wait some seconds longer than that.
        capacity_file: where `parley capacity` keeps how many sessions this machine holds.
        allowed_origins: pages that may use the server, such as `https://app.example.com`, beside
            its own. Empty: any page that has a key, and where no key is needed those of this
            machine. What is no page sends no `Origin` and is not asked.
        allowed_hosts: names by which the server may be asked (`Host`), such as
            `voice.example.com` or `*.example.com`, without a port. Empty: any where keys are set.
            Where none are, those of this machine and these.
        max_head_bytes: of a request's first line and headers; a sealed ephemeral key has 4 KiB.
        hsts_s: how long browsers that came by TLS are told to come by nothing else; 0 for not at
            all. Never said to who asks for an address or for this machine.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8_000
    api_keys: tuple[str, ...] = Field(default=(), repr=False)
    keys: tuple[NamedKey, ...] = ()
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    trusted_proxies: tuple[str, ...] = ("127.0.0.1", "::1")
    openapi: bool | None = None
    # The largest append of the API is 15 MiB of sound, which is 20 MiB in base64; the rest is for
    # JSON. Source: Realtime reference, `input_audio_buffer.append`.
    max_message_bytes: Annotated[int, Field(ge=1_024)] = 24 * 1_024 * 1_024
    max_body_bytes: Annotated[int, Field(ge=1_024)] = 256 * 1_024
    # Several, so that a secret can be changed without an hour in which keys fail: the new one is
    # added in front on every server, and the old one removed when its keys have expired, two hours
    # later.
    key_secrets: tuple[str, ...] = Field(default=(), max_length=4, repr=False)
    key_epoch: Annotated[int, Field(ge=0)] = 0
    max_ephemeral_keys: Annotated[int, Field(ge=1)] = 4_096
    # Almost three minutes of sound at 80 ms an event. A client so far behind is not in this
    # conversation.
    max_backlog_events: Annotated[int, Field(ge=16)] = 2_048
    # TCP itself may try for many minutes before it gives a peer up.
    send_timeout_s: Annotated[float, Field(gt=0)] = 10.0
    max_items: Annotated[int, Field(ge=1)] = 2_000
    max_text_chars: Annotated[int, Field(ge=1_024)] = 64 * 1_024
    max_conversation_chars: Annotated[int, Field(ge=65_536)] = 8 * 1_024 * 1_024
    max_context_tokens: Annotated[int, Field(ge=1)] = 28_224
    max_tools: Annotated[int, Field(ge=0)] = 128
    # 30 s at 24 kHz, four bytes a sample, are 2.9 MB a session.
    max_kept_audio_s: Annotated[int, Field(ge=1)] = 30
    # Ten minutes at 24 kHz are 58 MB as floats, which only a client has that uploads a recording.
    max_waiting_audio_s: Annotated[int, Field(ge=1)] = 600
    max_session_s: Annotated[int, Field(ge=0)] | None = None
    idle_session_s: Annotated[int, Field(ge=0)] | None = None
    max_connections: Annotated[int, Field(ge=1)] = 512
    # A household or an office behind one address, and its phones that connect anew all at once.
    max_connections_per_address: Annotated[int, Field(ge=1)] = 64
    # Kubernetes waits 30 s between SIGTERM and SIGKILL unless told otherwise
    # (`terminationGracePeriodSeconds`). Five of them are for closing.
    drain_s: Annotated[int, Field(ge=0, le=86_400)] = 25
    capacity_file: Path = Path("runs/capacity.json")
    # An origin is scheme, host and port: RFC 6454, section 6.2.
    allowed_origins: tuple[Annotated[str, Field(pattern=r"^https?://[^/?#@\s]+$")], ...] = ()
    allowed_hosts: tuple[
        Annotated[str, Field(pattern=r"^((\*\.)?[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*|[0-9a-f:]+)$")], ...
    ] = ()
    max_head_bytes: Annotated[int, Field(ge=8_192, le=262_144)] = 16_384
    # A day: long enough that a traveller's browser remembers it, short enough to go back.
    hsts_s: Annotated[int, Field(ge=0)] = 86_400

    @field_validator("api_keys", mode="before")
    @classmethod
    def _good_keys(cls, keys: object) -> object:
        """Check the keys; what is wrong with one is said without the key."""
        if not isinstance(keys, list | tuple):
            raise ValueError("expected a list, such as [KEY]; one key is a list of one")  # noqa: TRY004 - pydantic wants it
        for number, key in enumerate(keys, 1):
            if not isinstance(key, str):
                raise ValueError(f"key {number} is not text: put it in quotes")  # noqa: TRY004 - the same
            # A subprotocol is a token of HTTP (RFC 6455, section 4.1; RFC 9110, section 5.6.2), and
            # a comma would make two of it.
            if not (key.isascii() and key.isprintable()) or " " in key or "," in key:
                raise ValueError(
                    f"key {number} cannot be sent in a header or a subprotocol: use printable "
                    "ASCII without spaces and commas"
                )
            if len(key) < MIN_KEY_CHARS:
                raise ValueError(
                    f"key {number} has {len(key)} characters, and less than {MIN_KEY_CHARS} can be "
                    "guessed: `openssl rand -hex 24` makes a good one"
                )
        return keys

    @field_validator("key_secrets", mode="before")
    @classmethod
    def _good_secrets(cls, given: object) -> object:
        """Check the secrets; what is wrong with one is said without it."""
        if not isinstance(given, list | tuple):
            raise ValueError("expected a list, such as [SECRET]; one secret is a list of one")  # noqa: TRY004 - pydantic wants it
        for number, secret in enumerate(given, 1):
            if not isinstance(secret, str):
                raise ValueError(f"secret {number} is not text: put it in quotes")  # noqa: TRY004 - the same
            if len(secret) < MIN_SECRET_CHARS:
                raise ValueError(
                    f"secret {number} has {len(secret)} characters, and less than "
                    f"{MIN_SECRET_CHARS} can be guessed: `openssl rand -hex 32` makes a good one"
                )
        return given

    @model_validator(mode="after")
    def _certificate_and_key(self) -> "ServerSettings":
        if (self.tls_certificate is None) is not (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key belong together: set both, or neither")
        return self

    @field_validator("keys")
    @classmethod
    def _one_name_each(cls, keys: tuple[NamedKey, ...]) -> tuple[NamedKey, ...]:
        names = [key.name for key in keys]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"two keys are called {min(twice)!r}: give each a name of its own")
        # Both would be counted under one name in the metrics.
        if taken := [name for name in names if re.fullmatch(r"key-\d+", name)]:
            raise ValueError(f"{taken[0]!r} is what the keys of server.api_keys are called")
        return keys

    @property
    def has_keys(self) -> bool:
        """Say whether an API key is needed."""
        return bool(self.api_keys or self.keys)

    @property
    def session_limit_s(self) -> int:
        """Return how long a session may be, 0 for no limit."""
        return self._limit_s(self.max_session_s, 3_600)

    @property
    def idle_limit_s(self) -> int:
        """Return how long a session's client may say nothing at all, 0 for no limit."""
        return self._limit_s(self.idle_session_s, 600)

    def _limit_s(self, given_s: int | None, with_keys_s: int) -> int:
        """Return a limit that holds by itself only where strangers can come."""
        # On a laptop a conversation may go on for a day. Where strangers have keys, one that
        # forgets to hang up would keep a place for ever.
        if given_s is not None:
            return given_s
        return with_keys_s if self.has_keys else 0

    @property
    def has_openapi(self) -> bool:
        """Say whether `/openapi.json` is served."""
        return not self.has_keys if self.openapi is None else self.openapi

    @model_validator(mode="after")
    def _keys_or_loopback(self) -> "ServerSettings":
        # Nobody opens a server to a network by accident: it does not start without keys.
        if not self.has_keys and not is_loopback(self.host):
            raise ValueError(
                f"host {self.host!r} can be reached from other machines, and there are no API "
                "keys: set server.api_keys, or listen on 127.0.0.1"
            )
        return self


DEFAULTS = ServerSettings()
"""What holds where nothing is set, for whoever bounds a session without having settings."""


# In addresses, in metrics and in the accounts of use.
ModelName: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:/@+-]{1,100}$")]
OtherNames: TypeAlias = Literal["serve", "refuse"]


class _ModelSource(_Strict):
    """Where a model comes from, and its other names.

    Attributes:
        aliases: other names that it answers to; a session says the one that its client asked for.
        dir: folder of its weights: a starter, or a checkpoint of the Kyutai family.
        script: file that the scripted engine follows in place of any weights, for tests of
            applications; see docs/scripted.md.
        twin: a model whose random stand-in is made in place of any weights; see docs/duplex.md.
        guidance: of Hibiki, how far to go towards what a good translation is like; 1 is as far as
            the model says. More doubles the work and the memory of a session.
    """

    aliases: tuple[str, ...] = ()
    dir: Path = Path("model/starter")
    script: Path | None = None
    twin: ServedKind | None = None
    guidance: Annotated[float, Field(ge=0)] = 1.0


class ModelSettings(_ModelSource):
    """Which model is served, where it is the only one.

    Attributes:
        name: what clients call it.
        other_names: how to answer a client that asks for any other name: "serve" it, where its
            session tells the model's own name, or "refuse" it (`model_not_found`).
    """

    name: str = "starter"
    other_names: OtherNames = "serve"


class EngineSettings(_Strict):
    """How much the engine takes on, and where it runs.

    What is not said here is as in `model.engine.config.EngineConfig`, defaults included.

    Attributes:
        placement: "process" gives the engine a process of its own, which is started again when it
            dies: calls go on. "thread" keeps it in the gateway's, which is enough for a script or
            a test.
        max_sessions: sessions that may be open at once, on each device; one more is refused with
            HTTP 503 and `rate_limit_exceeded`. Left out, it is what `parley capacity` found on this
            machine, and the default where it never ran.
        linears: how the language model's linears are kept: "dense" (fp32), "nf4" (packed, as in
            the file), "bitsandbytes" (the same, multiplied by that package's kernels in place of
            ours) or "int8" (half of bf16, and the fastest on a CPU).
        dtype: of the other weights of a model of the Kyutai family, and of what it remembers.
        device: where such a model runs, as PyTorch names it: "cpu", "cuda" or "cuda:1".
        devices: several of these, in place of `device`: one engine runs on each, and a session goes
            to the one with the most free slots. A device may stand there twice.
        kv: how what a session remembers is kept: "full", or "int8" in a quarter of the memory.
        hang_s: how long one piece of the engine's work may take: after that its process hangs, and
            is replaced. More for a model that is too slow for its machine.
        loading_s: the same for loading a model and warming it up.
    """

    placement: Literal["process", "thread"] = "process"
    max_sessions: Annotated[int, Field(ge=1)] = _CORE.max_sessions
    max_batch: Annotated[int, Field(ge=1)] = _CORE.max_batch
    ahead_ms: Annotated[int, Field(ge=1)] = _CORE.ahead_ms
    num_threads: Annotated[int, Field(ge=1)] = _CORE.num_threads
    seed: int = _CORE.seed
    linears: Linears = _CORE.linears
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: Annotated[str, Field(min_length=1)] = "cpu"
    devices: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    kv: Precision = _CORE.kv
    kv_pages: Annotated[int, Field(ge=1)] | None = _CORE.kv_pages
    cached_prompts: Annotated[int, Field(ge=0)] = _CORE.cached_prompts
    # A tick takes less than a frame of 80 ms, or calls stutter. What takes 10 s will not end.
    hang_s: Annotated[float, Field(ge=3)] = 10.0
    # 15 GB from a slow network disk of 10 MB/s are 25 minutes.
    loading_s: Annotated[float, Field(ge=10)] = 1_800.0

    @property
    def core(self) -> EngineConfig:
        """Return what of it concerns the engine's core, wherever that runs."""
        # By name, so that a setting is declared once there and once here, and copied nowhere.
        shared = type(self).model_fields.keys() & {field.name for field in fields(EngineConfig)}
        return EngineConfig(**self.model_dump(include=shared))

    @model_validator(mode="after")
    def _one_way_to_say_where(self) -> "EngineSettings":
        if self.devices and "device" in self.model_fields_set:
            raise ValueError("device and devices are two ways to say it: give one")
        return self

    @property
    def places(self) -> tuple[str, ...]:
        """Return the device of each engine."""
        return self.devices or (self.device,)


class VadSettings(_Strict):
    """What clients cannot set of voice detection.

    Attributes:
        min_speech_ms: speech that it takes to begin a turn.
        interrupt_speech_ms: speech that it takes to interrupt a reply. Voice detection finds up to
            352 ms of it in a "mhm" of 300 ms; a word as short as that does not interrupt either.
            0 for no more than it takes to begin a turn.
        interrupt_silence_ms: silence after which what began like an interruption was none. Pauses
            between syllables are shorter.
        interrupt_quieter_db: speech that is so much quieter than the user was so far is somebody
            else's, and does not interrupt.
        speculate_after_ms: silence after which the reply is begun, unheard, before it is certain
            that the user has finished; it is thrown away if the user goes on. 0 for never. With
            semantic_vad it is begun once the turn sounds finished, unless this is 0.
        end_wait_ms: eagerness → silence after which a turn ends once it sounds finished.
        max_wait_ms: eagerness → silence after which a turn ends however it sounds.
    """

    # Two windows of 32 ms. A click or a key press is in one of them; the shortest word is in more.
    min_speech_ms: Annotated[int, Field(ge=0)] = 64
    # Twelve windows, one more than the 352 ms that a "mhm" can look like.
    interrupt_speech_ms: Annotated[int, Field(ge=0)] = 384
    # Six windows: the gap of a plosive inside a word is shorter, and a cough is followed by more.
    interrupt_silence_ms: Annotated[int, Field(ge=32)] = 192
    # A fourth of the amplitude. In the open, sound falls by 6 dB with each doubling of the
    # distance: 12 dB are somebody four times as far from the microphone.
    interrupt_quieter_db: Annotated[float, Field(gt=0)] = 12.0
    # Three windows. With the default 500 ms of silence (Realtime reference, `silence_duration_ms`)
    # the engine has 404 ms of head start.
    speculate_after_ms: Annotated[int, Field(ge=0)] = 96
    # How long the user has to go on although it sounded finished. Source of the levels: Realtime
    # guide, "Voice activity detection", eagerness.
    end_wait_ms: Mapping[str, int] = Field(
        default={"low": 600, "medium": 250, "auto": 250, "high": 100}
    )
    # As documented for the hosted service's eagerness.
    max_wait_ms: Mapping[str, int] = Field(
        default={"low": 8_000, "medium": 4_000, "auto": 4_000, "high": 2_000}
    )

    @model_validator(mode="after")
    def _all_levels(self) -> "VadSettings":
        levels = {"low", "medium", "auto", "high"}
        for name in ("end_wait_ms", "max_wait_ms"):
            given = set(getattr(self, name))
            if given != levels:
                raise ValueError(f"{name} needs exactly the keys {', '.join(sorted(levels))}")
        return self


class AudioSettings(_Strict):
    """How the sound that clients send is cleaned before it is heard.

    Attributes:
        echo_cancellation: where a reply is taken out of what the microphone hears meanwhile:
            "always", in "calls" by WebRTC, where the server plays replies itself and knows when, or
            "never". See docs/interruptions.md.
    """

    echo_cancellation: Literal["always", "calls", "never"] = "always"


class ImageSettings(_Strict):
    """What pictures may be, where the model sees; see docs/security.md.

    Attributes:
        max_side: `detail` of an item → largest side, in pixels, of what the model is given; what is
            larger is made smaller. Cameras have that of "auto".
        max_bytes: of an image file, decoded from base64.
        max_pixels: of a picture before it is made smaller.
        max_of_item: pictures of one item.
        max_kept_bytes: pictures of one conversation as the model is given them, three bytes a
            pixel, and as clients are shown them. Past it the oldest are forgotten; one item may not
            have more.
    """

    # 768 × 768 pixels of three bytes are 1.8 MB.
    max_side: Mapping[str, int] = Field(default={"low": 256, "auto": 768, "high": 768})
    max_bytes: Annotated[int, Field(ge=1_024)] = 8 * 1_024 * 1_024
    # Decoded, 16 Mi pixels are 48 MiB, or 64 MiB with transparency; the reader may have 768 MiB.
    max_pixels: Annotated[int, Field(ge=4_096)] = 16 * 1_024 * 1_024
    max_of_item: Annotated[int, Field(ge=1)] = 8
    max_kept_bytes: Annotated[int, Field(ge=1_024)] = 8 * 1_024 * 1_024

    @model_validator(mode="after")
    def _all_details(self) -> "ImageSettings":
        if set(self.max_side) != {"low", "auto", "high"}:
            raise ValueError("max_side needs exactly the keys auto, high, low")
        if not all(16 <= side <= 4_096 for side in self.max_side.values()):
            raise ValueError("max_side: sides are 16 to 4096")
        return self


IMAGE_DEFAULTS = ImageSettings()
"""As `DEFAULTS`, of pictures."""


class IceServer(_Strict):
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


class WebRtcSettings(_Strict):
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


class McpServer(_Strict):
    """An MCP server that clients may choose by its label; see docs/tools.md.

    Attributes:
        url: where it is; any address is fine, also one of this machine.
        transport: "http" (streamable), "sse" (its forerunner), or "auto" to find out.
        authorization: token that is sent as `Authorization: Bearer …`.
        headers: that are sent beside it.
        command: program and arguments of a server that is a process of this machine and speaks on
            its standard input and output.
        env: variables of its environment, beside a few harmless ones of ours.
        cwd: folder that it runs in.
    """

    url: Annotated[str, Field(pattern=r"^https?://[^@#]+$")] | None = None
    transport: Literal["auto", "http", "sse"] = "auto"
    authorization: str | None = Field(default=None, repr=False)
    headers: Mapping[str, str] = Field(default_factory=dict, repr=False)
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = Field(default_factory=dict, repr=False)
    cwd: Path | None = None

    @model_validator(mode="after")
    def _has_one_way(self) -> "McpServer":
        if (self.url is None) is (not self.command):
            raise ValueError("give url, or command for a process of this machine, and not both")
        return self


class McpSettings(_Strict):
    """Which MCP servers sessions may use, and how much of them; see docs/tools.md.

    Attributes:
        servers: label → server; a client names the label, and no address.
        allowed: which others clients may name by `server_url`. An entry is a whole URL, or a host
            (`mcp.example.com`, `mcp.example.com:8443`, `*.example.com`, or `*` for any), and then
            the URL must be https. Addresses that are not public are refused all the same.
        list_timeout_s: how long a server may take to list its tools.
        call_timeout_s: how long a call may take.
        cache_s: how long a listing is used again.
        max_bytes: of all that a server sends for one listing or one call.
        max_output_chars: of what a call returned, for clients and for the model; more is cut off.
        max_calls: of one session at a time, listings included; more wait.
    """

    servers: Mapping[str, McpServer] = Field(default_factory=dict)
    allowed: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    list_timeout_s: Annotated[float, Field(gt=0)] = 10.0
    call_timeout_s: Annotated[float, Field(gt=0)] = 60.0
    # Tools change with a release of their server. Without this, each session would wait for a
    # listing.
    cache_s: Annotated[float, Field(ge=0)] = 300.0
    max_bytes: Annotated[int, Field(ge=1_024)] = 1 << 20
    max_output_chars: Annotated[int, Field(ge=16)] = 16_384
    max_calls: Annotated[int, Field(ge=1)] = 8


class ApprovalRule(_Strict):
    """Which calls need a person's yes: all that is given must hold.

    Attributes:
        tool: pattern of the tool's name, as a shell's: `delete_*`.
        server: pattern of the MCP server's label; functions of the client's own have none. Left
            out, the rule is for tools of servers and for functions.
        arguments: path of an argument, such as `amount` or `to.country` → regular expression that
            is found in it. A missing argument matches nothing.
        annotation: what the tool's own server says of it. If it says nothing, `destructive` and
            `open_world` hold, as the MCP specification defines it. Functions are never annotated.
    """

    tool: str = "*"
    server: str | None = None
    arguments: Mapping[str, re.Pattern[str]] = Field(default_factory=dict)
    annotation: Literal["destructive", "open_world", "not_read_only"] | None = None


class ApprovalSettings(_Strict):
    """What needs a person's yes, whatever clients ask for; see docs/tools.md.

    Attributes:
        rules: a call that matches one of them is held until somebody approves or denies it.
        timeout_s: how long it waits; then it counts as denied. Also for what clients want held.
        audit_file: where every decision and every end of a call is written, one JSON object a line;
            None for nowhere.
        audit_bytes: size at which the file is put aside and a new one begun.
        audit_files: how many are kept beside the newest.
    """

    rules: tuple[ApprovalRule, ...] = ()
    # A person decides: they may have to be found first, and a call must not wait for ever.
    timeout_s: Annotated[float, Field(gt=0)] = 300.0
    audit_file: Path | None = None
    audit_bytes: Annotated[int, Field(ge=1_024)] = 16 << 20
    audit_files: Annotated[int, Field(ge=1)] = 4


class ToolSettings(_Strict):
    """How calls and replies go together; see docs/tools.md.

    Attributes:
        wait_for_calls: whether a response that a client asks for waits until every call made in the
            conversation has ended. Then several outputs get one reply, and further requests
            meanwhile count as the same one. Otherwise the response begins at once, with the outputs
            that have come.
        output_timeout_s: how long a client may take to return what a function call of the model
            returned; then the model is told that it did not. 0 for no limit.
    """

    wait_for_calls: bool = False
    output_timeout_s: Annotated[float, Field(ge=0)] = 0.0

    @model_validator(mode="after")
    def _waits_with_an_end(self) -> "ToolSettings":
        if self.wait_for_calls and not self.output_timeout_s:
            raise ValueError("wait_for_calls needs an output_timeout_s, or it may wait for ever")
        return self


class ResumeSettings(_Strict):
    """Whether clients may come back to their sessions; an extension, see docs/api.md.

    Attributes:
        grace_s: how long a session waits for a client whose connection broke; 0 for not at all. Its
            client has to have asked for it.
        park_after_s: how long it keeps its slot meanwhile. Then another session may have it, and
            the client that comes back gets one if one is free. Models that listen and speak at once
            cannot be told what was said, and keep theirs.
    """

    grace_s: Annotated[float, Field(ge=0, le=3_600)] = 0.0
    park_after_s: Annotated[float, Field(ge=0)] = 10.0


class TwilioSettings(_Strict):
    """Whom calls by Twilio are believed to come from.

    Attributes:
        auth_tokens: of the account; several while one is being replaced. They sign every request
            (`X-Twilio-Signature`).
    """

    auth_tokens: tuple[Annotated[str, Field(min_length=16)], ...] = Field(
        default=(), max_length=4, repr=False
    )


class TelnyxSettings(_Strict):
    """Whom calls by Telnyx are believed to come from, and what they sound like.

    Attributes:
        public_key: of the account, Ed25519 in base64; it checks webhooks
            (`telnyx-signature-ed25519`).
        tolerance_s: how old a webhook's timestamp may be, or how far ahead.
        stream_token: that streams bring which an application starts by itself (Call Control's
            `stream_auth_token`); None takes none but those that a webhook was answered with.
        codec: of replies to streams that bring the token: what the application has given as
            `stream_bidirectional_codec`. What is heard says its own codec.
        rate_hz: of that codec (`stream_bidirectional_sampling_rate`); more than 8,000 with L16.
        l16_order: of the bytes of L16, in both directions. RTP has the larger byte first (RFC 3551,
            section 4.5.11); streams of Telnyx were reported to have the smaller one first.
    """

    public_key: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{43}=$")] | None = None
    tolerance_s: Annotated[int, Field(ge=1, le=3_600)] = 300
    stream_token: Annotated[str, Field(min_length=MIN_SECRET_CHARS)] | None = Field(
        default=None, repr=False
    )
    codec: Literal["PCMU", "PCMA", "L16"] = "PCMU"
    rate_hz: Literal[8_000, 16_000, 24_000] = 8_000
    l16_order: Literal["little", "big"] = "little"

    @model_validator(mode="after")
    def _g711_has_one_rate(self) -> "TelnyxSettings":
        if self.codec != "L16" and self.rate_hz != 8_000:
            raise ValueError(f"{self.codec} is 8000 Hz; only L16 has others")
        return self


class TelephonySettings(_Strict):
    """How calls come by telephone; see docs/telephony.md. None do unless a provider is set.

    Attributes:
        public_url: where the provider reaches this server, such as `https://voice.example.com`.
            Signatures are over addresses, so this is believed and no header of a request is.
        session: what every call begins with, as a `session.update` of the API has it.
        greeting: whether the assistant speaks first.
        parameters: names of a call's own values that the model is told: `from`, `to`, and what the
            address of the webhook or a `<Parameter>` adds.
        dtmf_pause_s: pause after which keys that were pressed are passed on, where no # ends them.
        busy_text: that a caller hears for whom there is no place; empty for a busy tone.
    """

    public_url: Annotated[str, Field(pattern=r"^https?://[^/@?#]+(/[^@?#]*[^/@?#])?$")] | None = (
        None
    )
    session: Mapping[str, Any] = Field(default_factory=dict)
    greeting: bool = False
    parameters: tuple[Annotated[str, Field(min_length=1, max_length=64)], ...] = ()
    dtmf_pause_s: Annotated[float, Field(gt=0, le=30)] = 2.0
    busy_text: str = "All lines are busy. Please call again later."
    twilio: TwilioSettings = TwilioSettings()
    telnyx: TelnyxSettings = TelnyxSettings()

    @property
    def is_on(self) -> bool:
        """Say whether calls are taken at all."""
        telnyx = self.telnyx
        return bool(self.twilio.auth_tokens or telnyx.public_key or telnyx.stream_token)

    @model_validator(mode="after")
    def _has_address(self) -> "TelephonySettings":
        if self.is_on and self.public_url is None:
            raise ValueError("public_url is needed: signatures are over the address")
        return self


class TelemetrySettings(_Strict):
    """Where traces of sessions go; see docs/operations.md.

    Attributes:
        traces: whether spans are made, and sent by OTLP over HTTP. What is not said here is as the
            environment says (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_SERVICE_NAME`,
            `OTEL_TRACES_SAMPLER` and so on), and else as OpenTelemetry has it.
        endpoint: URL that takes traces, such as `http://127.0.0.1:4318/v1/traces`.
        headers: that are sent with them.
        max_queue: spans that may wait for the collector; more are dropped and counted.
        parts_in_responses: whether `response.done` says in its metadata what the reply's first
            audio took, in parts.
    """

    traces: bool = False
    endpoint: Annotated[str, Field(pattern=r"^https?://")] | None = None
    headers: Mapping[str, str] = Field(default_factory=dict, repr=False)
    # Some ten spans a turn: this is a minute of thirty callers.
    max_queue: Annotated[int, Field(ge=16, le=1_000_000)] = 4_096
    parts_in_responses: bool = False


class S3Settings(_Strict):
    """An S3-compatible store. Credentials are found as boto3 finds them.

    Attributes:
        bucket: that recordings go into; empty for none.
        prefix: of their keys.
        endpoint_url: where the store is, if it is not Amazon's.
        region: of the bucket.
    """

    bucket: str = ""
    prefix: str = ""
    endpoint_url: Annotated[str, Field(pattern=r"^https?://")] | None = None
    region: str | None = None


class RecordingSettings(_Strict):
    """Recordings of sessions whose clients consent; see docs/operations.md.

    Attributes:
        enabled: whether clients may consent. Without their consent nothing is recorded.
        dir: folder that recordings are kept in; with a store, where they wait to go there.
        s3: a store that they go to once they are finished.
        format: of the sound.
        keep_days: after which a recording is deleted; 0 for never.
        max_bytes: of all that are kept; past it the oldest are deleted. 0 for no limit.
        max_minutes: of one recording; what comes after is not recorded.
        max_waiting_bytes: that may wait for the disk; more is left out, and counted.
    """

    enabled: bool = False
    dir: Path = Path("runs/recordings")
    s3: S3Settings = S3Settings()
    format: Literal["flac", "wav"] = "flac"
    keep_days: Annotated[float, Field(ge=0)] = 30.0
    max_bytes: Annotated[int, Field(ge=0)] = 0
    # A WAV file counts its bytes in 32 bits: 4 GiB are 12 hours of stereo at 24 kHz.
    max_minutes: Annotated[float, Field(gt=0, le=700)] = 240.0
    max_waiting_bytes: Annotated[int, Field(ge=1_048_576)] = 64 * 1_024 * 1_024


class UsageSettings(_Strict):
    """Where it is written down what is used; see docs/deploy.md.

    Attributes:
        ledger: file to which a line is added for what each session used, by API key and model; None
            for none. It is for one server alone.
        flush_s: how often: what is lost with a process that is killed. What a response cost is
            written within a fifth of a second after its end.
        ledger_bytes: size at which the file is put aside, and a new one begun. None is ever
            removed.
    """

    ledger: Path | None = None
    flush_s: Annotated[float, Field(ge=0.2, le=3_600)] = 5.0
    # Some 300,000 lines.
    ledger_bytes: Annotated[int, Field(ge=1_024)] = 64 << 20


class ServedSettings(_ModelSource):
    """One of several models; see docs/deploy.md.

    Attributes:
        other_names: "serve" for at most one of them: it also serves who asks for a name that no
            model has, and its session says the model's own name. Where every model has "refuse",
            such a client is told `model_not_found`.
        engine: how much it takes on, and where it runs, as the section `engine`.
        voices: names that its clients may ask for, as the section `voices`.
    """

    other_names: OtherNames = "refuse"
    engine: EngineSettings = EngineSettings()
    voices: Mapping[str, str] = Field(default_factory=dict)


DelegateAnswers: TypeAlias = Literal["unable", "always", "never"]


class DelegateSettings(_Strict):
    """Which text model answers what the served model cannot; see docs/tools.md.

    Attributes:
        url: of an API like OpenAI's Chat Completions, up to `/v1`: vLLM, Ollama, a hosted one. None
            for no such model. Any address is fine, also one of this machine.
        model: that is asked for there.
        authorization: token that is sent as `Authorization: Bearer …`.
        headers: that are sent beside it.
        answers: "unable" what the served model says it cannot answer, "always" everything, "never"
            nothing; a client may say otherwise, by `delegate` of its session or of a response.
        phrases: words with which the served model begins a reply that it cannot give.
        instructions: that the text model is given before a session's own.
        first_word_s: how long it may take to begin an answer; then the served model's stands.
        timeout_s: how long the whole answer may take.
        max_tokens: of an answer; a response may ask for fewer.
        max_bytes: of all that is sent for an answer.
        max_chars: of the conversation that is shown to it, the newest.
        max_asks: questions of one session at a time; more wait.
    """

    url: Annotated[str, Field(pattern=r"^https?://[^@#?]+$")] | None = None
    model: Annotated[str, Field(min_length=1)] = "default"
    authorization: str | None = Field(default=None, repr=False)
    headers: Mapping[str, str] = Field(default_factory=dict, repr=False)
    answers: DelegateAnswers = "unable"
    # The starter's own words, docs/starter.md.
    phrases: tuple[Annotated[str, Field(min_length=1)], ...] = ("sorry i do not know that",)
    instructions: str = (
        "You answer in a spoken conversation: briefly, in plain sentences, without lists, markup "
        "or links."
    )
    first_word_s: Annotated[float, Field(gt=0)] = 10.0
    timeout_s: Annotated[float, Field(gt=0)] = 60.0
    max_tokens: Annotated[int, Field(ge=1)] = 1_024
    max_bytes: Annotated[int, Field(ge=1_024)] = 1 << 20
    max_chars: Annotated[int, Field(ge=1_024)] = 32_768
    max_asks: Annotated[int, Field(ge=1)] = 4


class PromptSettings(_Strict):
    """A prompt that sessions may name by its id; see docs/api.md.

    Attributes:
        versions: name of a version → instructions, with `{{variable}}` where clients fill something
            in.
        default: the version of those who name none; left out, the last one.
    """

    versions: Annotated[Mapping[str, str], Field(min_length=1)]
    default: str | None = None

    @model_validator(mode="after")
    def _has_default(self) -> "PromptSettings":
        if self.default is not None and self.default not in self.versions:
            raise ValueError(f"default {self.default!r} is none of the versions")
        return self


_Judged = Annotated[tuple[Literal["input", "output", "calls"], ...], Field(min_length=1)]


class _CheckBase(_Strict):
    """What all checks have.

    Attributes:
        of: what it judges: "input" what the user said or typed, "output" the words of replies,
            "calls" the arguments of function calls.
        budget_ms: how long it may take.
        when_late: what becomes of the words if it takes longer, or fails: they pass, or are held
            back as if they were refused.
    """

    of: _Judged = ("input", "output", "calls")
    budget_ms: Annotated[int, Field(ge=1, le=10_000)] = 100
    when_late: Literal["pass", "hold"] = "hold"


class WordCheck(_CheckBase):
    """Refuse text with one of these words or phrases, as whole words, in upper or lower case."""

    kind: Literal["words"]
    words: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]


class PatternCheck(_CheckBase):
    """Refuse text in which a pattern is found: RE2's syntax, upper and lower case alike."""

    kind: Literal["patterns"]
    patterns: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]


class PersonalCheck(_CheckBase):
    """Find personal data.

    Attributes:
        of: calls are not in it by default: whoever books a table by a function has to give it a
            phone number.
        find: what is looked for.
        action: whether it is masked or refused; in what is spoken, and in calls, it is always
            refused.
        region: country (ISO 3166-1, two letters) of phone numbers that say none.
    """

    kind: Literal["personal"]
    of: _Judged = ("input", "output")
    find: Annotated[tuple[Literal["phone", "email", "card"], ...], Field(min_length=1)] = (
        "phone",
        "email",
        "card",
    )
    action: Literal["mask", "refuse"] = "refuse"
    region: Annotated[str, Field(pattern=r"^[A-Z]{2}$")] = "US"


class OffensiveCheck(_CheckBase):
    """Refuse what a classifier of English finds offensive; it runs here, in a package of its own.

    Attributes:
        threshold: probability from which on words are refused.
    """

    kind: Literal["offensive"]
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.8


class _RemoteCheck(_CheckBase):
    """Ask another server, in the form of OpenAI's API.

    Attributes:
        url: of its API, such as `http://127.0.0.1:8001/v1`.
        model: to be asked.
        api_key: sent as a bearer token.
    """

    url: Annotated[str, Field(pattern=r"^https?://[^@#]+$")]
    model: str
    api_key: str | None = Field(default=None, repr=False)


class ModerationsCheck(_RemoteCheck):
    """Refuse what a `/moderations` endpoint flags.

    Attributes:
        categories: those that count; empty: all of them.
    """

    kind: Literal["moderations"]
    categories: tuple[str, ...] = ()


class ChatCheck(_RemoteCheck):
    """Refuse what a chat model calls unsafe.

    Attributes:
        template: the question, with `{text}` where the words stand.
        refuses: pattern (RE2) found in an answer that refuses.
    """

    kind: Literal["chat"]
    template: Annotated[str, Field(pattern=r"\{text\}")]
    refuses: str = "(?i)^\\s*unsafe"


CheckSettings: TypeAlias = (
    WordCheck | PatternCheck | PersonalCheck | OffensiveCheck | ModerationsCheck | ChatCheck
)


class FilterSettings(_Strict):
    """What is checked before anybody is told; see docs/safety.md.

    Attributes:
        checks: all of them judge at the same time; what one refuses is refused.
        sentence: what the model says in the place of what was refused, in a response of its own;
            empty for nothing. It is not checked, and made of words that the model can say. A model
            that listens and speaks at once says its own words only.
    """

    checks: tuple[Annotated[CheckSettings, Field(discriminator="kind")], ...] = ()
    sentence: Annotated[str, Field(max_length=400)] = ""


class Settings(_Strict):
    """Everything that can be configured.

    Attributes:
        voices: names that clients may ask for → voices of the engine. Empty: the engine's own
            names. The first is the default.
        models: name → model, where one server has several, in place of `model`, `engine` and
            `voices`. The first serves who names none.
        prompts: id → prompt that clients may name.
    """

    server: ServerSettings = ServerSettings()
    model: ModelSettings = ModelSettings()
    engine: EngineSettings = EngineSettings()
    voices: Mapping[str, str] = Field(default_factory=dict)
    vad: VadSettings = VadSettings()
    audio: AudioSettings = AudioSettings()
    images: ImageSettings = ImageSettings()
    webrtc: WebRtcSettings = WebRtcSettings()
    mcp: McpSettings = McpSettings()
    tools: ToolSettings = ToolSettings()
    approvals: ApprovalSettings = ApprovalSettings()
    delegate: DelegateSettings = DelegateSettings()
    prompts: Mapping[str, PromptSettings] = Field(default_factory=dict)
    filters: FilterSettings = FilterSettings()
    telephony: TelephonySettings = TelephonySettings()
    resume: ResumeSettings = ResumeSettings()
    models: Mapping[ModelName, ServedSettings] = Field(default_factory=dict)
    usage: UsageSettings = UsageSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    recordings: RecordingSettings = RecordingSettings()

    @model_validator(mode="after")
    def _keys_where_calls_come(self) -> "Settings":
        # A provider reaches the server from the internet, and so does everybody else then.
        telephony = self.telephony
        host = urlsplit(telephony.public_url or "").hostname or ""
        if telephony.is_on and not self.server.has_keys and not is_loopback(host):
            raise ValueError(
                f"telephony.public_url {telephony.public_url!r} is reached by others, and there "
                "are no API keys: set server.api_keys"
            )
        return self

    @model_validator(mode="after")
    def _one_model_or_several(self) -> "Settings":
        if not self.models:
            return self
        if twice := {"model", "engine", "voices"} & self.model_fields_set:
            raise ValueError(
                f"{min(twice)} is for a server with one model, and there is a section models: each "
                "of these has an engine and voices of its own"
            )
        names = [*self.models, *(name for each in self.models.values() for name in each.aliases)]
        if shared := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"models: {min(shared)!r} is the name of two of them")
        serving = [name for name, each in self.models.items() if each.other_names == "serve"]
        if len(serving) > 1:
            raise ValueError(f"models: {', '.join(serving)}: only one can have other_names: serve")
        return self

    @property
    def each_model(self) -> "tuple[Settings, ...]":
        """Return the settings as each model's engine sees them: it is the only one in them."""
        # So there is one way to serve a model, however many there are.
        return tuple(self._of_one(name, each) for name, each in self.models.items()) or (self,)

    def _of_one(self, name: str, served: ServedSettings) -> "Settings":
        source = {key: getattr(served, key) for key in _ModelSource.model_fields}
        model = ModelSettings(name=name, other_names=served.other_names, **source)
        alone = {"model": model, "engine": served.engine, "voices": served.voices, "models": {}}
        return self.model_copy(update=alone)


def load_settings(
    path: Path, overrides: Sequence[str] = (), env: Mapping[str, str] | None = None
) -> Settings:
    """Read settings from all their sources.

    Args:
        path: the YAML file.
        overrides: `a.b=c` each, from the command line.
        env: the environment; the process's own if None.

    Raises:
        ConfigError: naming the key and where it stood.
    """
    # An example. The file has `server: {port: 8000}`, the environment PARLEY_SERVER__PORT=9000.
    # Both put a leaf at ("server", "port"); the later one stays, and `origins` says that it came
    # from PARLEY_SERVER__PORT. So if 9000 were wrong, the error would name the variable and not the
    # file.
    tree: _Tree = {}
    origins: dict[_KeyPath, str] = {}
    for source, keys, value in _entries(path, overrides, os.environ if env is None else env):
        _check_key(keys, source)
        _put(tree, keys, value)
        origins[keys] = source
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(_first_problem(error, origins, str(path))) from None


def _entries(
    path: Path, overrides: Sequence[str], env: Mapping[str, str]
) -> Iterator[tuple[str, _KeyPath, Any]]:
    """Yield (where it stood, key path, value), the strongest last."""
    for keys, value in _leaves((), _read_file(path)):
        yield str(path), keys, value
    # Sorted, or the order of the environment would decide between two that contradict each other.
    for name, text in sorted(env.items()):
        if name.startswith(ENV_PREFIX):
            keys = tuple(name.removeprefix(ENV_PREFIX).lower().split(_LEVEL_SEPARATOR))
            yield name, keys, _read_value(text, name)
    for override in overrides:
        key, separator, text = override.partition("=")
        # Also where the name is mistaken: `api_key`, `apikeys`.
        is_secret = "key" in key and ("api" in key or "secret" in key)
        is_secret = is_secret or "authorization" in key or "headers" in key
        # What stands here may be printed and logged.
        source = f"--set {key}=…" if is_secret else f"--set {override}"
        if not separator or not key:
            raise ConfigError(f"{source}: expected a.b=c")
        yield source, tuple(key.split(".")), _read_value(text, source)


def _read_file(path: Path) -> _Tree:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path}: cannot be read: {reason}") from None
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        # The error's text quotes the file, which may hold keys.
        place = getattr(error, "problem_mark", None)
        where = f" in line {place.line + 1}" if place else ""
        reason = getattr(error, "problem", None) or "it cannot be read"
        raise ConfigError(f"{path}: is not valid YAML{where}: {reason}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected keys and values, got {type(tree).__name__}")
    return tree


def _read_value(text: str, source: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"{source}: the value is not valid YAML") from None


def _leaves(prefix: _KeyPath, tree: _Tree) -> Iterator[tuple[_KeyPath, Any]]:
    """Yield the settings of a tree; free-form mappings are leaves themselves."""
    for key, value in tree.items():
        keys = (*prefix, str(key))
        if isinstance(value, dict) and value and _has_keys(_kind(keys)):
            yield from _leaves(keys, value)
        elif value is None and _is_entry(keys):
            # As YAML writes `models: {starter: }`: the model is there, without settings of its own.
            yield keys, {}
        elif value is not None or not _has_keys(_kind(keys)):
            # A section without content, as YAML writes `server:`, is no setting.
            yield keys, value


# What stands at a key path: a section's class, a mapping of names to sections, the type of a value,
# or None for nothing. For example, of ("models",), ("models", "a") and ("models", "a", "dir") it is
# a mapping, a section and a value; `a` is an entry of the mapping.
def _kind(keys: _KeyPath) -> Any:
    kind: Any = Settings
    for key in keys:
        kind = _below(kind, key)
    return kind


def _below(kind: Any, key: str) -> Any:
    if _is_section(kind):
        field = kind.model_fields.get(key)
        return None if field is None else field.annotation
    return get_args(kind)[1] if get_origin(kind) is Mapping else None


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _has_keys(kind: Any) -> bool:
    """Say whether what is below it are settings of their own."""
    return _is_section(kind) or (get_origin(kind) is Mapping and _is_section(get_args(kind)[1]))


def _is_entry(keys: _KeyPath) -> bool:
    return _is_section(_kind(keys)) and get_origin(_kind(keys[:-1])) is Mapping


def _check_key(keys: _KeyPath, source: str) -> None:
    """Refuse a key that does not exist, and say which may have been meant."""
    for depth, key in enumerate(keys):
        kind = _kind(keys[:depth])
        if _is_section(kind) and key not in kind.model_fields:
            raise ConfigError(f"{source}: unknown key {'.'.join(keys)!r}{_meant(keys)}")
        # Below a mapping, such as `voices`, any key is fine.
        if not _is_section(kind) and get_origin(kind) is not Mapping:
            raise ConfigError(
                f"{source}: {'.'.join(keys[:depth])!r} is a value and has no key {key!r}"
            )
    if _is_section(_kind(keys)) and not _is_entry(keys):
        raise ConfigError(f"{source}: {'.'.join(keys)!r} is a section and takes no value itself")


def _all_keys(prefix: _KeyPath = ()) -> Iterator[str]:
    kind = _kind(prefix)
    if not _is_section(kind):
        yield ".".join(prefix)
        return
    for key in kind.model_fields:
        yield from _all_keys((*prefix, key))


def _meant(keys: _KeyPath) -> str:
    # Of a model of several, what may stand there; else everything.
    entry = next((keys[:depth] for depth in range(len(keys)) if _is_entry(keys[:depth])), ())
    known = list(_all_keys(entry))
    # For example, `server.prot` is answered with `did you mean 'server.port'?`.
    close = difflib.get_close_matches(".".join(keys), known, n=3, cutoff=0.6)
    # A right name in the wrong place is a common slip too.
    close += [key for key in known if key.endswith(f".{keys[-1]}") and key not in close]
    if close:
        return f"; did you mean {' or '.join(repr(key) for key in close)}?"
    return f"; known keys are {', '.join(known)}"


def _put(tree: _Tree, keys: _KeyPath, value: Any) -> None:
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
        assert isinstance(tree, dict), "the key path was checked"
    tree[keys[-1]] = value


def _first_problem(error: ValidationError, origins: Mapping[_KeyPath, str], path: str) -> str:
    """Write the first problem in one line: where it stood, which key, what is wrong."""
    problem = error.errors()[0]
    keys = tuple(str(part) for part in problem["loc"])
    # The problem may lie deeper than a setting (in a list) or be about a whole section.
    source = next(
        (origins[keys[:depth]] for depth in range(len(keys), 0, -1) if keys[:depth] in origins),
        None,
    )
    if source is None:
        related = [origin for key, origin in origins.items() if key[: len(keys)] == keys]
        source = related[-1] if related else path
    message = problem["msg"].removeprefix("Value error, ")
    # Our own messages say what was got; pydantic's do not, and a secret is never shown.
    is_told = problem["type"] == "value_error" or keys[:2] in _SECRETS
    got = "" if is_told else f", got {problem['input']!r}"
    return f"{source}: {'.'.join(keys) or 'settings'}: {message}{got}"
