"""Hold what all connections of a server share, and make their sessions."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from server.audio.silero import SileroModel
from server.config.settings import Settings
from server.images.service import ImageService
from server.metrics import Metrics
from server.protocol.delegate.policy import DelegatePolicy, plain_phrases
from server.protocol.dialects.ga import Dialect
from server.protocol.ids import RandomIds
from server.protocol.machine import Limits, SessionMachine
from server.protocol.mcp.policy import Rule, ToolPolicy
from server.protocol.settings.config import SessionConfig
from server.protocol.settings.prompts import PromptBook
from server.recording.recorder import Recorder
from server.recording.witness import SessionRecording
from server.session.comeback import Comeback, Comebacks
from server.session.counts import Counts, count_in
from server.session.desks import Desks
from server.session.drain import Drain
from server.session.ears import Ears
from server.session.schemas import SchemaGate
from server.session.session import Session, SessionLimits
from server.session.transport import Player, Transport
from server.session.usage import UsageBook
from server.session.witness import Witness
from server.session.work_thread import WorkThread
from server.transport.api_keys import ApiKeys
from server.transport.ephemeral import KeyBook
from server.transport.models import Models, ServedModel, prompt_book
from server.transport.tries import FailedTries

if TYPE_CHECKING:
    from server.telemetry.tracing import Tracing

NO_HEADERS: Mapping[str, str] = MappingProxyType({})

# Sessions do not expire unless configured to; clients want a number all the same.
_FAR_FUTURE_S = 10 * 365 * 24 * 3600


Carrier: TypeAlias = Literal["websocket", "webrtc", "telephony"]
"""By what a session comes."""


class CallBook(Protocol):
    """Know the calls that came by WebRTC, or by telephone."""

    def has(self, call_id: str) -> bool:
        """Say whether there is a call of this id."""
        ...

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
    models: Models
    vad_model: SileroModel
    api_keys: ApiKeys
    keys: KeyBook
    counts: Counts
    metrics: Metrics
    tries: FailedTries
    schemas: SchemaGate
    desks: Desks
    images: ImageService
    drain: Drain
    usage: UsageBook
    comebacks: Comebacks
    tracing: "Tracing | None" = None
    recorder: Recorder | None = None
    hearing: WorkThread = field(default_factory=lambda: WorkThread("hearing"))

    @property
    def policy(self) -> ToolPolicy:
        """Return which calls need a person's yes, and what waits for calls."""
        tools, approvals = self.settings.tools, self.settings.approvals
        rules = tuple(
            Rule(rule.tool, rule.server, rule.arguments, rule.annotation)
            for rule in approvals.rules
        )
        return ToolPolicy(rules, approvals.timeout_s, tools.wait_for_calls, tools.output_timeout_s)

    def delegate_policy(self, model: ServedModel) -> DelegatePolicy | None:
        """Return what the text model answers for a model; None where there is none.

        A duplex model writes no transcripts, so there is nothing to ask a text model.
        """
        given = self.settings.delegate
        if given.url is None or model.pool.info.is_duplex:
            return None
        return DelegatePolicy(
            given.answers,
            plain_phrases(given.phrases),
            given.instructions,
            given.max_chars,
            given.max_tokens,
        )

    @property
    def prompts(self) -> PromptBook:
        """Return the prompts that clients may name."""
        return prompt_book(self.settings)

    def new_session(  # noqa: PLR0913 - what each of the transports knows of its session
        self,
        model: ServedModel,
        transport: Transport,
        dialect: Dialect,
        config: SessionConfig,
        player: Player | None = None,
        *,
        payer: str = "",
        is_bound: bool = False,
        carrier: Carrier = "websocket",
        is_resumable: bool = False,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> Session:
        """Make the session of a connection.

        Args:
            model: that it has.
            transport: the accepted connection.
            dialect: that the client speaks.
            config: what the session begins with; its id and expiry are made here.
            player: plays replies, where the transport does.
            payer: name of the API key whose use it is; empty without one.
            is_bound: whether it keeps its instructions and functions.
            carrier: by what it comes.
            is_resumable: whether its client has asked to be let back in, should its network fail.
            headers: of the request that it came by; of interest is `traceparent`.
        """
        count_in(self.counts.sessions_by_transport, carrier)
        info, ids = model.pool.info, RandomIds()
        # A key's configuration is shared by all its sessions. Each gets an id and an end of its own
        # here.
        expires_at = int(time.time()) + (self.settings.server.session_limit_s or _FAR_FUTURE_S)
        config = replace(config, id=ids.new("sess"), expires_at=expires_at)
        is_played = player is not None
        ears = Ears(
            self.vad_model,
            info.sample_rate_hz,
            self.settings.vad,
            config,
            cancels_echo=self._cancels_echo(is_played=is_played),
        )
        return Session(
            transport,
            SessionMachine(
                config,
                info,
                model.voices,
                ids,
                self._limits(model),
                ears,
                is_played=is_played,
            ),
            dialect,
            ids,
            ears,
            model.pool,
            self._session_limits(is_bound=is_bound),
            schemas=self.schemas,
            desks=self.desks,
            gallery=model.gallery,
            counts=self.counts,
            meter=self.usage.meter(payer, model.name),
            drain=self.drain,
            comeback=self._comeback() if is_resumable else None,
            player=player,
            hearing=self.hearing,
            witnesses=self._witnesses(model, config, headers, carrier, is_played=is_played),
            tells_parts=self.settings.telemetry.parts_in_responses,
        )

    def _limits(self, model: ServedModel) -> Limits:
        """Return what the conversation of a session may hold, and by which rules it goes."""
        settings = self.settings.server
        return Limits(
            settings.max_items,
            settings.max_kept_audio_s,
            max_tools=settings.max_tools,
            max_conversation_chars=settings.max_conversation_chars,
            policy=self.policy,
            delegate=self.delegate_policy(model),
            prompts=self.prompts,
            max_image_bytes=self.settings.images.max_kept_bytes,
            max_glimpses=self.settings.webrtc.camera_images,
            filters=self.desks.filters.plan,
            max_context_tokens=settings.max_context_tokens,
        )

    def _session_limits(self, *, is_bound: bool) -> SessionLimits:
        """Return what a client can hold up."""
        settings = self.settings.server
        return SessionLimits(
            settings.max_backlog_events,
            settings.send_timeout_s,
            settings.max_waiting_audio_s,
            settings.session_limit_s,
            settings.idle_limit_s,
            is_bound=is_bound,
            max_text_chars=settings.max_text_chars,
        )

    def _comeback(self) -> Comeback | None:
        """Return what a session's client may come back by, None where none may."""
        resume, server = self.settings.resume, self.settings.server
        if not resume.grace_s:
            return None
        # All that was missed is put into the new connection's queue at once.
        max_events = server.max_backlog_events // 2
        return Comeback(resume.grace_s, resume.park_after_s, max_events)

    def _witnesses(
        self,
        model: ServedModel,
        config: SessionConfig,
        headers: Mapping[str, str],
        carrier: Carrier,
        *,
        is_played: bool,
    ) -> list[Witness]:
        """Return who sees a session."""
        witnesses: list[Witness] = []
        if self.tracing is not None:
            witnesses.append(self.tracing.session(config, model.name, headers))
        if self.recorder is not None:
            witnesses.append(
                SessionRecording(
                    self.recorder,
                    config,
                    model.pool.info.sample_rate_hz,
                    model=model.name,
                    is_played=is_played,
                    about={"transport": carrier, "kind": config.kind},
                )
            )
        return witnesses

    def _cancels_echo(self, *, is_played: bool) -> bool:
        """Say whether replies are taken out of what a client's microphone hears."""
        where = self.settings.audio.echo_cancellation
        return where == "always" or (where == "calls" and is_played)

    async def close(self) -> None:
        """Close what all sessions shared; they are over, and so are their engines."""
        await self.hearing.stop()
        await self.usage.close()
        await self.schemas.close()
        self.desks.tools.close()
        await self.desks.filters.close()
        await self.images.close()
        # These write what is left of files, or send it.
        if self.recorder is not None:
            await asyncio.to_thread(self.recorder.close)
        if self.tracing is not None:
            await asyncio.to_thread(self.tracing.close)
