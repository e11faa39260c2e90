"""Hold what all connections of a server share, and make their sessions."""

import time
from dataclasses import dataclass, replace
from typing import Protocol

from server.audio.silero import SileroModel
from server.config import Settings
from server.metrics import Metrics
from server.protocol.dialects.ga import Dialect
from server.protocol.ids import RandomIds
from server.protocol.machine import Limits, SessionMachine
from server.protocol.memory.profile import EngineProfile
from server.protocol.settings.config import SessionConfig, VoiceMap
from server.session.counts import Counts
from server.session.ears import Ears
from server.session.link import EngineLink
from server.session.session import Session, SessionLimits
from server.session.transport import Player, Transport
from server.transport.ephemeral import EphemeralKeys

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
    keys: EphemeralKeys
    counts: Counts
    metrics: Metrics

    @property
    def api_keys(self) -> tuple[str, ...]:
        """Return the keys that clients may use; none: anyone on this machine may connect."""
        return self.settings.server.api_keys

    def default_config(self) -> SessionConfig:
        """Return what a session begins with that asks for nothing; it is not connected yet."""
        return SessionConfig(
            id=RandomIds().new("sess"),
            model=self.settings.model.name,
            voice=self.voices.default,
            expires_at=0,
        )

    def new_session(
        self,
        transport: Transport,
        dialect: Dialect,
        config: SessionConfig,
        player: Player | None = None,
    ) -> Session:
        """Make the session of a connection.

        Args:
            transport: the accepted connection.
            dialect: that the client speaks.
            config: what the session begins with; its id and expiry are made here.
            player: plays replies, where the transport does.
        """
        settings, info, ids = self.settings.server, self.link.info, RandomIds()
        expires_at = int(time.time()) + (settings.max_session_s or _FAR_FUTURE_S)
        config = replace(config, id=ids.new("sess"), expires_at=expires_at)
        return Session(
            transport,
            SessionMachine(
                config,
                EngineProfile(info.sample_rate_hz, info.frame_ms, info.is_duplex),
                self.voices,
                ids,
                Limits(settings.max_items, settings.max_kept_audio_s, max_tools=settings.max_tools),
                is_played=player is not None,
            ),
            dialect,
            ids,
            Ears(self.vad_model, info.sample_rate_hz, self.settings.vad, config),
            self.link,
            SessionLimits(
                settings.max_backlog_events,
                settings.send_timeout_s,
                settings.max_waiting_audio_s,
                settings.max_session_s,
            ),
            counts=self.counts,
            player=player,
        )
