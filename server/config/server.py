"""Settings of the server itself: where it listens, who may come, what each may take."""

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, field_validator, model_validator

from server.config.strict import Strict

# A key of 16 hexadecimal digits has 64 random bits. At eight tries a second from one address
# (`server/transport/tries.py`) nobody finds it. What a secret signs can be tried offline, as fast
# as a machine hashes, hence 128 bits of it.
MIN_KEY_CHARS = 16
MIN_SECRET_CHARS = 32


def is_loopback(host: str) -> bool:
    """Say whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


KeyScope: TypeAlias = Literal["sessions", "client_secrets", "metrics"]
KeyName: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
ALL_SCOPES: tuple[KeyScope, ...] = ("sessions", "client_secrets", "metrics")


class KeyLimits(Strict):
    """What may be used with an API key on one server, ephemeral keys made with it included.

    Attributes:
        max_sessions: that may be open at once.
        minutes_a_day: of all its sessions, by UTC. When they are used up, all are ended.
        sessions_a_minute: that may begin.
    """

    max_sessions: Annotated[int, Field(ge=0)] | None = None
    minutes_a_day: Annotated[int, Field(ge=0)] | None = None
    sessions_a_minute: Annotated[int, Field(ge=1, le=10_000)] | None = None


class NamedKey(Strict):
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


class ServerSettings(Strict):
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


class ResumeSettings(Strict):
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
