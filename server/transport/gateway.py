"""Hold what all connections of a server share, and make their sessions."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

import structlog

from server.audio.silero import SileroModel
from server.config import Settings
from server.mcp.desk import ToolDesk
from server.metrics import Metrics
from server.protocol.dialects.ga import Dialect
from server.protocol.ids import RandomIds
from server.protocol.machine import Limits, SessionMachine
from server.protocol.mcp.policy import Rule, ToolPolicy
from server.protocol.profile import EngineProfile
from server.protocol.settings.config import SessionConfig, VoiceMap
from server.protocol.settings.update import requested
from server.protocol.wire.checks import JsonObject
from server.recording.recorder import Recorder
from server.recording.witness import SessionRecording
from server.session.counts import Counts
from server.session.drain import Drain
from server.session.ears import Ears
from server.session.gallery import Gallery
from server.session.link import EngineLink
from server.session.schemas import SchemaGate
from server.session.session import Session, SessionLimits
from server.session.transport import Player, Transport
from server.session.witness import Witness
from server.transport.api_keys import ApiKeys
from server.transport.envelope import RefusedError
from server.transport.ephemeral import KeyBook
from server.transport.tries import FailedTries

if TYPE_CHECKING:
    from server.telemetry.tracing import Tracing

_log = structlog.get_logger("models")

NO_HEADERS: Mapping[str, str] = MappingProxyType({})

# Of names that clients made up, so many are told of once each.
_MAX_OTHER_NAMES, _MAX_NAME_CHARS = 100, 100
# Sessions do not expire unless configured to; clients want a number all the same.
_FAR_FUTURE_S = 10 * 365 * 24 * 3600


class CallBook(Protocol):
    """Know the calls that came by WebRTC."""

    def check(self, call_id: str) -> None:
        """Say whether there is a call.

        Raises:
            ClientError: there is none of this id here.
        """
        ...

    async def session(self, call_id: str) -> Session:
        """Return a call's session, waiting for its client to connect.

        Raises:
            ClientError: there is no such call.
        """
        ...


@dataclass(frozen=True, slots=True)
class Gateway:
    """Hold what all sessions of a server share."""

    settings: Settings
    link: EngineLink
    voices: VoiceMap
    vad_model: SileroModel
    api_keys: ApiKeys
    keys: KeyBook
    counts: Counts
    metrics: Metrics
    tries: FailedTries
    schemas: SchemaGate
    tools: ToolDesk
    gallery: Gallery
    drain: Drain
    tracing: "Tracing | None" = None
    recorder: Recorder | None = None
    _other_names: set[str] = field(default_factory=set)  # that clients asked for

    @property
    def policy(self) -> ToolPolicy:
        """Return which calls need a person's yes, and what waits for calls."""
        tools, approvals = self.settings.tools, self.settings.approvals
        rules = tuple(
            Rule(rule.tool, rule.server, rule.arguments, rule.annotation)
            for rule in approvals.rules
        )
        return ToolPolicy(rules, approvals.timeout_s, tools.wait_for_calls, tools.output_timeout_s)

    def default_config(self) -> SessionConfig:
        """Return what a session begins with that asks for nothing; it is not connected yet."""
        return default_config(self.settings, self.voices)

    def model_called(self, name: str | None) -> str:
        """Return what a session says of its model, whose client asked for one by name.

        There is one model. Its aliases are said as they were asked for; whoever asks for anything
        else is told the model's own name, or refused.

        Raises:
            RefusedError: there is no model of that name, and other names are refused.
        """
        model = self.settings.model
        if name is None or name == model.name or name in model.aliases:
            return name or model.name
        if model.other_names == "refuse":
            raise no_model(name)
        # Told once for each name: a client that asks by another one does so with every call.
        if name not in self._other_names and len(self._other_names) < _MAX_OTHER_NAMES:
            self._other_names.add(name)
            _log.warning(
                "another model was asked for",
                asked=name[:_MAX_NAME_CHARS],
                served=model.name,
                hint="model.aliases makes it a name of this one, model.other_names=refuse an error",
            )
        return model.name

    def new_session(
        self,
        transport: Transport,
        dialect: Dialect,
        config: SessionConfig,
        player: Player | None = None,
        *,
        is_bound: bool = False,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> Session:
        """Make the session of a connection.

        Args:
            transport: the accepted connection.
            dialect: that the client speaks.
            config: what the session begins with; its id and expiry are made here.
            player: plays replies, where the transport does.
            is_bound: whether it keeps its instructions and functions.
            headers: of the request that it came by; of interest is `traceparent`.
        """
        settings, info, ids = self.settings.server, self.link.info, RandomIds()
        # A key's configuration is shared by all its sessions. Each gets an id and an end of its own
        # here.
        expires_at = int(time.time()) + (settings.session_limit_s or _FAR_FUTURE_S)
        config = replace(config, id=ids.new("sess"), expires_at=expires_at)
        ears = Ears(
            self.vad_model,
            info.sample_rate_hz,
            self.settings.vad,
            config,
            cancels_echo=self._cancels_echo(is_played=player is not None),
        )
        return Session(
            transport,
            SessionMachine(
                config,
                EngineProfile(info.sample_rate_hz, info.frame_ms, info.is_duplex, info.sees),
                self.voices,
                ids,
                Limits(
                    settings.max_items,
                    settings.max_kept_audio_s,
                    max_tools=settings.max_tools,
                    max_conversation_chars=settings.max_conversation_chars,
                    policy=self.policy,
                    max_image_bytes=self.settings.images.max_kept_bytes,
                    max_glimpses=self.settings.webrtc.camera_images,
                ),
                ears,
                is_played=player is not None,
            ),
            dialect,
            ids,
            ears,
            self.link,
            SessionLimits(
                settings.max_backlog_events,
                settings.send_timeout_s,
                settings.max_waiting_audio_s,
                settings.session_limit_s,
                settings.idle_limit_s,
                is_bound=is_bound,
                max_text_chars=settings.max_text_chars,
            ),
            schemas=self.schemas,
            tools=self.tools,
            gallery=self.gallery,
            counts=self.counts,
            drain=self.drain,
            player=player,
            witnesses=self._witnesses(config, headers, is_played=player is not None),
            tells_parts=self.settings.telemetry.parts_in_responses,
        )

    def _witnesses(
        self, config: SessionConfig, headers: Mapping[str, str], *, is_played: bool
    ) -> list[Witness]:
        """Return who sees a session."""
        witnesses: list[Witness] = []
        if self.tracing is not None:
            witnesses.append(self.tracing.session(config, headers))
        if self.recorder is not None:
            rate_hz = self.link.info.sample_rate_hz
            transport = "webrtc" if is_played else "websocket"
            witnesses.append(
                SessionRecording(
                    self.recorder,
                    config,
                    rate_hz,
                    is_played=is_played,
                    about={"transport": transport, "kind": config.kind},
                )
            )
        return witnesses

    def _cancels_echo(self, *, is_played: bool) -> bool:
        """Say whether replies are taken out of what a client's microphone hears."""
        where = self.settings.audio.echo_cancellation
        return where == "always" or (where == "calls" and is_played)


def default_config(settings: Settings, voices: VoiceMap) -> SessionConfig:
    """Return what a session begins with that asks for nothing; it is not connected yet."""
    return SessionConfig(
        id=RandomIds().new("sess"),
        model=settings.model.name,
        voice=voices.default,
        expires_at=0,
        recording="offered" if settings.recordings.enabled else None,
    )


def key_config(settings: Settings, voices: VoiceMap, session: JsonObject) -> SessionConfig:
    """Return what the sessions of an ephemeral key begin with, whose functions were checked.

    Args:
        settings: of the server.
        voices: that clients may ask for.
        session: as it was asked for, in the internal vocabulary.

    Raises:
        ClientError: this server cannot have it.
    """
    max_tools = settings.server.max_tools
    return requested(default_config(settings, voices), session, voices, max_tools=max_tools)


def no_model(name: str) -> RefusedError:
    """Make the error for a model that there is not."""
    return RefusedError(404, f"The model '{name}' does not exist.", code="model_not_found")
