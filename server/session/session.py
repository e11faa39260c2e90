"""Run one live session from its first event to its last."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, assert_never

import structlog

from model.messages import (
    Command,
    EngineBack,
    EngineGone,
    EngineLost,
    News,
    Output,
    Pcm,
    Taken,
    TurnChecked,
)
from server.config.server import DEFAULTS
from server.errors import ClientError, DisconnectedError, OverloadedError, ParleyError
from server.images.picture import Picture
from server.protocol.delegate.outcomes import DelegateCommand
from server.protocol.dialects.ga import Dialect
from server.protocol.events import EndReason, Glimpse, Hangup, NoSlot, Reaction, Refusal
from server.protocol.filters.verdicts import CheckWords
from server.protocol.ids import Ids
from server.protocol.machine import Outcome, SessionMachine
from server.protocol.mcp.outcomes import ToolCommand
from server.protocol.server_events import (
    ErrorEvent,
    ItemTruncated,
    OutputAudioDelta,
    ResponseDone,
    ServerEvent,
    SessionCreated,
    SessionResumable,
    SessionResumed,
    SpeechStarted,
)
from server.protocol.settings.bound import refuse_changes
from server.protocol.settings.config import SessionConfig
from server.protocol.sound import (
    EndOfAudio,
    PauseAudio,
    PlayAudio,
    Played,
    ResumeAudio,
    Sound,
    StopAudio,
)
from server.protocol.wire.audio import carried_audio
from server.protocol.wire.checks import JsonObject
from server.protocol.wire.client_events import (
    ClientEvent,
    InputAudioBufferAppend,
    InputAudioBufferClear,
    InputAudioBufferCommit,
    ItemCreate,
    ResponseCreate,
    SessionUpdate,
)
from server.protocol.wire.parse import decode, event_id_of, parse, refuse_half_characters
from server.session.alarm import Alarm
from server.session.comeback import Comeback
from server.session.counts import Counts, count_in
from server.session.desks import Desks
from server.session.drain import Drain
from server.session.ear_queue import EarQueue
from server.session.ears import Ears
from server.session.gallery import Gallery
from server.session.intake import Intake
from server.session.line import Line
from server.session.link import NOT_READY, at_capacity_text
from server.session.observers import Observers
from server.session.outbox import TOO_SLOW, SlowReaderError
from server.session.pool import EnginePool
from server.session.schemas import SchemaGate
from server.session.side_lines import SideLines
from server.session.stopwatch import with_parts
from server.session.transport import Player, Transport
from server.session.usage import Meter
from server.session.user_sound import UserSound
from server.session.witness import Witness
from server.session.work_thread import WorkThread

# How a session is put together. Three tasks, and a door from each of two threads:
#
#     read     waits for a text frame -> `_take` -> `_perform` -> machine.receive -> `_react`
#     write    takes from the outbox what `_put` put there, and sends it
#     alarm    calls `_tick` when the machine's deadline has come
#     engine   `_on_output`, in the event loop -> machine.receive -> `_react`
#     hearing  `_on_heard`, in the event loop -> machine.listen -> `_react`; what was appended, and
#              what a call's transport has decoded, is heard in that thread (`ear_queue`)
#
# The machine is called by one of them at a time, since all run on one event loop and none waits
# inside of it. What it returns is carried out by `_react`, in order and at once: events go to the
# outbox, commands to the intake. So an event that the client gets is never older than a command
# that the engine got after it.
#
# What may take long leaves the event loop: decoding long audio, reading large events, compiling
# schemas. While it does, clients' events wait (`_performing`), and the engine's outputs do not.

# 130 ms of a client's microphone, as pcm16 of 24 kHz; more than one of those sends is heard by
# itself, since it may be minutes.
_SHORT_AUDIO_BYTES = 6 * 1024
# An event of this size is read within milliseconds; a longer one leaves the event loop.
_INLINE_EVENT_CHARS = 32 * 1024
# So often it is looked whether a session whose client is away can give its slot back.
_PARK_EVERY_S = 1.0

_TAKEN = Hangup(EndReason.SESSION_ENDED, "Another connection has taken this one's place.")
_TOO_LATE = Hangup(EndReason.SESSION_ENDED, "The session has ended.")

# How a session ended that nobody closed, in the log.
_CAUSES = {
    "client": "by the client",
    "ping_timeout": "no answer to a ping",
    "stopping": "the server stops",
}

_log = structlog.get_logger("session")

_Given = TypeVar("_Given")
_Read = TypeVar("_Read")


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """Bound what a client can hold up; see `server.config.server.ServerSettings`."""

    max_backlog_events: int
    send_timeout_s: float
    max_waiting_audio_s: int = DEFAULTS.max_waiting_audio_s
    max_session_s: float = 0
    idle_session_s: float = 0
    is_bound: bool = False
    max_text_chars: int = DEFAULTS.max_text_chars


class Session:
    """Own everything of one session: it is created at open and dropped at close.

    Events may come and go by several connections. The first is the session's own, and both end
    together; others join by `attach` and see and send the same.

    Args:
        transport: the session's own connection; the session closes it.
        machine: the protocol's state.
        dialect: how events look on this connection.
        ids: makes the events' ids.
        ears: hears the client's audio.
        link: leads to an engine.
        limits: on what a client can hold up.
        schemas: checks the functions that an event brings.
        desks: answer what neither the client nor the engine can.
        gallery: reads the pictures that an event brings.
        counts: of all sessions.
        meter: counts what this one uses.
        drain: says until when the session can go on, once the server is about to stop.
        comeback: where its client may come back after its connection broke.
        witnesses: see what happens.
        tells_parts: whether the client is told what a reply's first audio took.
        player: plays replies, where the transport does; the machine is made for it.
        hearing: where sound is heard; None for the event loop.
        clock: seconds that do not jump.
    """

    def __init__(  # noqa: PLR0913 - the parts that it joins, each of which is somebody's own
        self,
        transport: Transport,
        machine: SessionMachine,
        dialect: Dialect,
        ids: Ids,
        ears: Ears,
        link: EnginePool,
        limits: SessionLimits,
        *,
        schemas: SchemaGate,
        desks: Desks,
        gallery: Gallery,
        counts: Counts,
        meter: Meter,
        drain: Drain,
        comeback: Comeback | None = None,
        player: Player | None = None,
        hearing: WorkThread | None = None,
        witnesses: Sequence[Witness] = (),
        tells_parts: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._own = Line(transport, dialect, limits.max_backlog_events)
        self._side_lines = SideLines(machine.config.id, limits.send_timeout_s, self._read)
        self._retiring: set[asyncio.Task[None]] = set()
        self._machine = machine
        self._player = player
        self._ids = ids
        self._link = link
        self._limits = limits
        self._schemas = schemas
        self._desks = desks.for_session(machine.config, self._on_outcome)
        self._gallery = gallery
        self._counts = counts
        self._drain = drain
        self._comeback = comeback
        self._clock = clock
        self._id = machine.config.id
        self._intake = Intake(self._submit, link.info.sample_rate_hz)
        self._alarm = Alarm(self._tick, clock)
        # None: the peer is gone and there is nothing left to close.
        self._ended: asyncio.Future[Hangup | None] = asyncio.get_running_loop().create_future()
        self._finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._is_failing = False
        self._cause = "client"  # of the end, where there is no hangup
        self._last_event_s = clock()
        # Clients' events are handled one at a time, whatever connection they come by.
        self._performing = asyncio.Lock()
        self._log = _log.bind(session_id=self._id, **_user(machine.config))
        rate_hz = link.info.sample_rate_hz
        self._observers = Observers(
            counts, meter, witnesses, self._log, clock, lambda: transport.round_trip_s, rate_hz
        )
        self._sound = UserSound(
            EarQueue(ears, rate_hz, hearing, self._on_heard, self._fail),
            limits.max_waiting_audio_s,
            self._observers,
            clock,
        )
        self._tells_parts = tells_parts

    async def run(self) -> None:
        """Serve the client until one side ends the session; only once."""
        try:
            await self._serve()
        finally:
            self._finished.set_result(None)
            # Its parts know one another. Without this, what it holds, which may be hundreds of
            # megabytes of sound, would wait for a collection of cycles.
            self._machine.let_go()
            vars(self).clear()

    async def _serve(self) -> None:
        started_s = self._clock()
        hangup: Hangup | None = None
        has_begun = False
        self._link.join(self._id, self._on_output)
        try:
            refusal = self._open()
            if refusal is not None:
                hangup = await self._refuse(refusal)
                return
            has_begun = True
            self._observers.begun(self._id)
            with self._drain.telling(self._expire_by):
                hangup = await self._until_ended()
        finally:
            self._sound.close()
            if self._comeback is None or not self._comeback.is_parked:
                self._link.leave(self._id)
            for decision in self._machine.left():
                self._desks.put(decision)
            await self._desks.close()
            if has_begun:
                self._count_end(hangup)
            self._observers.ended(hangup.reason if hangup else self._cause)
            self._log.info(
                "session ended",
                seconds=round(self._clock() - started_s, 1),
                turns=self._observers.num_turns,
                close=hangup.text if hangup else _CAUSES[self._cause],
            )
        if hangup is not None:
            await self._own.close(hangup, self._log)

    async def _until_ended(self) -> Hangup | None:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._carry(), name=f"carry {self._id}"),
                group.create_task(self._guarded(self._alarm.run()), name=f"alarm {self._id}"),
            ]
            if self._limits.idle_session_s:
                tasks.append(group.create_task(self._watch_idle(), name=f"idle {self._id}"))
            if self._limits.max_session_s:
                tasks.append(group.create_task(self._expire(), name=f"expire {self._id}"))
            hangup = await self._ended
            for task in tasks:
                task.cancel()
        await self._side_lines.stop_reading()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        return hangup

    def _submit(self, command: Command) -> None:
        """Hand a command to the engine."""
        self._link.submit(command)
        self._observers.told(command)

    # The engine's slot.

    def _open(self) -> ErrorEvent | None:
        """Take a slot and say that the session is open; returns why not, if there is none."""
        if not self._link.is_running:
            # The engine was lost between the handshake and here.
            return ErrorEvent("server_error", "not_ready", NOT_READY, None, None)
        try:
            self._react(self._machine.start())
            if self._comeback is not None:
                told = SessionResumable(self._id, self._comeback.secret, self._comeback.grace_s)
                self._send(told)
        except OverloadedError:
            message = at_capacity_text(self._link.max_sessions)
            return ErrorEvent("rate_limit_error", "rate_limit_exceeded", message, None, None)
        return None

    async def _refuse(self, event: ErrorEvent) -> Hangup:
        # The handshake found a place, and it was taken since. The connection is accepted already,
        # so it gets an error event and a close code instead of an HTTP status.
        count_in(self._counts.refused, str(event.code))
        hangup = Hangup(EndReason.NO_ROOM, f"{event.kind}.{event.code}")
        try:
            async with asyncio.timeout(self._limits.send_timeout_s):
                text = self._own.text(event, self._ids.new("event"))
                await self._own.transport.send(text or "")
        except (TimeoutError, DisconnectedError):
            return hangup
        await self._own.close(hangup, self._log)
        return hangup

    # From the client.

    async def _carry(self) -> None:
        """Read and write on the session's own connection, and on those that take its place."""
        while True:
            line = self._own
            gone = await self._carried_by(line)
            if gone is None:
                return
            if self._own is not line:
                self._retire(line, _TAKEN)
                continue
            comeback = self._comeback
            is_final = gone.has_left or gone.cause == "stopping" or self._is_over
            if comeback is None or is_final:
                self._leave(gone.cause)
                return
            comeback.is_away = True
            # Also a network that is only too slow: the client is sent the rest when it is back.
            self._retire(line, TOO_SLOW)
            if not await self._come_back_in_time(comeback):
                self._leave(gone.cause)
                return

    async def _carried_by(self, line: Line) -> DisconnectedError | None:
        """Serve one connection to its end.

        Returns:
            How its peer went, also where another connection took its place; None if the session has
            ended.
        """
        comeback = self._comeback
        reading = asyncio.create_task(self._read(line), name=f"read {self._id}")
        writing = asyncio.create_task(
            line.write(self._limits.send_timeout_s), name=f"write {self._id}"
        )
        waited: list[asyncio.Future[Any]] = [reading, writing, line.is_lost]
        if comeback is not None:
            waited.append(comeback.returned)
        try:
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if reading.done() and reading.result() is None:
                # It failed. The client is told, and then closed on.
                self._end(await writing)
                return None
            if writing.done():
                hangup = writing.result()
                if hangup is not None and (comeback is None or hangup is not TOO_SLOW):
                    self._end(hangup)
                    return None
            return (reading.result() if reading.done() else None) or DisconnectedError()
        finally:
            if comeback is not None and not self._is_over:
                # An event that is being handled is handled to its end: the next connection is told
                # how many were.
                async with self._performing:
                    reading.cancel()
            reading.cancel()
            writing.cancel()
            await asyncio.gather(reading, writing, return_exceptions=True)

    def _retire(self, line: Line, hangup: Hangup) -> None:
        """Close a connection that is the session's no more."""

        async def close() -> None:
            await line.close(hangup, self._log)
            line.is_over.set()

        closing = asyncio.create_task(close(), name=f"close {self._id}")
        self._retiring.add(closing)
        closing.add_done_callback(self._retiring.discard)

    def _leave(self, cause: str) -> None:
        """End the session, whose client is gone."""
        self._cause = cause
        self._end(None)

    async def _read(self, line: Line) -> DisconnectedError | None:
        """Take what a connection brings, until its peer is gone; returns how it went."""
        try:
            while True:
                # Who gives the engine more than it takes is not read meanwhile.
                await self._intake.room()
                await self._take(line, await line.transport.receive())
                # Frames that have arrived already are received without waiting: a flood of them
                # must not hold up the other sessions.
                await asyncio.sleep(0)
        except DisconnectedError as gone:
            return gone
        except Exception as error:  # noqa: BLE001 - the session's boundary: ours, not others', ends
            self._fail(error)
            return None

    async def _take(self, line: Line, text: str) -> None:
        """Handle one frame; what the client did wrong is answered, and the session goes on."""
        self._counts.events_received += 1
        self._last_event_s = self._clock()
        raw: JsonObject | None = None
        try:
            raw = await _off_loop(text, self._decode, text)
            self._observers.received(raw, self._last_event_s)
            refuse_half_characters(raw, text)
            event = await _off_loop(text, parse, line.dialect.read(raw))
            # Whoever joins comes with an API key, which binds nobody.
            if self._limits.is_bound and line is self._own:
                refuse_changes(event, self._machine.config)
            async with self._performing:
                await self._perform(event)
        except ClientError as error:
            raw = raw if raw is not None else error.event
            if raw is not None and raw.get("type") == ItemCreate.type:
                self._machine.item_refused(error)
            event_id = event_id_of(raw) if raw is not None else None
            refusal = ErrorEvent(error.kind, error.code, error.message, error.param, event_id)
            count_in(self._counts.errors, refusal.kind)
            # Only the connection that sent the event is told. The refusal means nothing to others.
            self._put(line, refusal, self._ids.new("event"))
        if self._comeback is not None and line is self._own:
            self._comeback.num_taken += 1

    def _decode(self, text: str) -> JsonObject:
        return decode(text, max_text_chars=self._limits.max_text_chars)

    async def _perform(self, event: ClientEvent) -> None:
        if isinstance(event, InputAudioBufferAppend):
            await self._append(event)
            return
        await self._sound.catch_up()
        match event:
            case ItemCreate():
                event = await self._desks.filters.typed(event)
                pictures = await self._gallery.pictures(event)
                carried = carried_audio(event.item)
                audio = None
                if carried:
                    audio = await self._sound.carried(carried, self._waiting_s)
                self._react(self._machine.receive(event, self._clock(), audio, pictures))
            case SessionUpdate():
                await self._schemas.check(self._id, event.session, "session")
                async with self._sound.caught_up():
                    self._react(self._machine.receive(event, self._clock()))
            case ResponseCreate():
                await self._schemas.check(self._id, event.response, "response")
                event = await self._desks.filters.typed(event)
                pictures = await self._gallery.pictures(event)
                self._react(self._machine.receive(event, self._clock(), None, pictures))
            case InputAudioBufferCommit() | InputAudioBufferClear():
                async with self._sound.caught_up():
                    self._react(self._machine.receive(event, self._clock()))
            case _:
                self._react(self._machine.receive(event, self._clock()))

    async def _append(self, event: InputAudioBufferAppend) -> None:
        self._sound.admit(self._waiting_s, event.audio)
        # Who appends faster than it is heard waits for that, and is not read meanwhile.
        if len(event.audio) > _SHORT_AUDIO_BYTES or self._sound.is_behind:
            async with self._sound.caught_up():
                await self._sound.append_long(event.audio, self._listen)
        else:
            self._sound.append(event.audio)

    def _listen(self) -> None:
        self._react(self._machine.listen(self._clock()))

    @property
    def _waiting_s(self) -> float:
        """Return how much audio waits to be heard."""
        return self._intake.waiting_s + self._sound.waiting_s

    # A client that comes back.

    @property
    def comeback(self) -> Comeback | None:
        """Return what its client needs to come back, None if it cannot."""
        return self._comeback

    @property
    def id(self) -> str:
        """Return its name."""
        return self._id

    @property
    def is_away(self) -> bool:
        """Say whether its client has no connection."""
        return self._comeback is not None and self._comeback.is_away

    def give_up(self) -> None:
        """End the session if its client is away: it will not be there any more."""
        if not self._is_over and self.is_away:
            self._leave("stopping")

    def has_kept(self, last_event_id: str) -> bool:
        """Say whether all is kept that its client has not got."""
        comeback = self._comeback
        return comeback is not None and comeback.missed(last_event_id) is not None

    @property
    def pool(self) -> EnginePool:
        """Return the engines of its model."""
        return self._link

    def unpark(self) -> None:
        """Take a slot again, where it was given back.

        Raises:
            OverloadedError: there is none.
        """
        if self._comeback is None or not self._comeback.is_parked:
            return
        with self._link.place():
            pass  # there is one, and nobody comes before the next line
        self._link.join(self._id, self._on_output)
        self._comeback.is_parked = False
        try:
            self._react(self._machine.unpark(self._clock()))
        except OverloadedError:
            self._link.leave(self._id)
            self._comeback.is_parked = True
            self._machine.park_again()
            raise

    async def come_back(self, transport: Transport, last_event_id: str) -> None:
        """Go on with another connection of the client's, until that or the session ends.

        Where two come, the later one has it.

        Args:
            transport: the accepted connection.
            last_event_id: of the last event that the client got.
        """
        comeback = self._comeback if not self._is_over else None
        missed = comeback.missed(last_event_id) if comeback is not None else None
        line = Line(transport, self._own.dialect, self._limits.max_backlog_events)
        if comeback is None or missed is None:
            await line.close(_TOO_LATE, self._log)
            return
        self._own = line
        resumed = SessionResumed(self._machine.config, comeback.num_taken, self._sound.appended_ms)
        for text in (line.text(resumed, self._ids.new("event")), *missed):
            line.put(text or "")
        self._counts.sessions_resumed += 1
        self._log.info("client came back", missed=len(missed))
        finished = self._finished
        comeback.has_returned()
        # The session is forgotten when it ends, and has closed the connection then.
        is_over = asyncio.create_task(line.is_over.wait())
        try:
            await asyncio.wait((is_over, finished), return_when=asyncio.FIRST_COMPLETED)
        finally:
            is_over.cancel()

    async def _come_back_in_time(self, comeback: Comeback) -> bool:
        """Wait for the client to come back; says whether it did."""
        returned = comeback.returned
        self._log.info("client away", grace_s=comeback.grace_s)
        # For example, with 60 s of grace and a slot that is kept for 10: a client that is back
        # after 5 s has its slot. After 20 s it gets one if one is free, and after 60 s there is
        # nothing to come back to.
        try:
            async with asyncio.timeout(comeback.grace_s):
                try:
                    async with asyncio.timeout(comeback.park_after_s):
                        await asyncio.shield(returned)
                except TimeoutError:
                    await self._park(comeback, returned)
                    await asyncio.shield(returned)
        except TimeoutError:
            # It may have come in the same turn of the loop.
            return returned.done()
        return True

    async def _park(self, comeback: Comeback, returned: asyncio.Future[None]) -> None:
        """Give the slot back as soon as nothing is being made."""
        if self._link.info.is_duplex:
            return
        while not (self._machine.is_idle and self._link.is_running):
            # Replies end by themselves, and nobody waits for this.
            await asyncio.wait((returned,), timeout=_PARK_EVERY_S)
            if returned.done():
                return
        self._machine.park()
        self._intake.forget()
        self._link.leave(self._id)
        comeback.is_parked = True
        self._counts.sessions_parked += 1
        self._log.info("session parked")

    # From a transport that hears and plays by itself.

    def hear(self, pcm: Pcm) -> None:
        """Hear audio as if a client had appended it: float32 [samples] at the engine's rate.

        It is dropped where it comes so much faster than it is heard that appended audio would be
        refused.
        """
        if not self._is_over and self._waiting_s <= self._limits.max_waiting_audio_s:
            self._sound.arrived(pcm)

    def _on_heard(self, now_s: float) -> None:
        """Go on with sound that was heard, whose end had arrived by `now_s`."""
        if self._is_over:
            return
        try:
            self._sound.heard(now_s)
            self._listen()
        except Exception as error:  # noqa: BLE001 - as in `_read`
            self._fail(error)

    def see(self, picture: Picture) -> None:
        """See what the user's camera shows."""
        if self._is_over:
            return
        try:
            self._react(self._machine.receive(Glimpse(picture), self._clock()))
        except Exception as error:  # noqa: BLE001 - as in `_read`
            self._fail(error)

    def note_alive(self) -> None:
        """Note that the client sends sound, although not as events: it is not idle."""
        self._last_event_s = self._clock()

    def sounded(self, pcm: Pcm, ago_s: float) -> None:
        """Note what the client was given to play: float32 [samples] at the engine's rate.

        Args:
            pcm: the sound.
            ago_s: since when it is heard, unless it waits for what was given before.
        """
        if self._is_over:
            return
        at_s = self._clock() - ago_s
        self._sound.played(pcm, at_s)
        self._observers.sounded(pcm, at_s)

    def hushed(self) -> None:
        """Note that the client plays no more of what it was given."""
        if not self._is_over:
            self._sound.hushed()
            self._observers.hushed(self._clock())

    def played(self, item_id: str, num_samples: int) -> None:
        """Take note of how much of an item has been played, in samples at the engine's rate."""
        if self._is_over:
            return
        try:
            reactions = self._machine.receive(Played(item_id, num_samples), self._clock())
            if reactions:
                self._react(reactions)
        except Exception as error:  # noqa: BLE001 - as in `_read`
            self._fail(error)

    # Other connections to the session.

    @property
    def is_full(self) -> bool:
        """Say whether no connection can join any more."""
        return self._is_over or self._side_lines.is_full

    async def attach(self, transport: Transport, dialect: Dialect) -> None:
        """Serve another connection, until it or the session ends.

        One that comes when the session `is_full` is closed.

        Args:
            transport: the accepted connection; it is closed if the session ends.
            dialect: that its client speaks.
        """
        line = Line(transport, dialect, self._limits.max_backlog_events)
        if self.is_full:
            hangup = Hangup(EndReason.NO_ROOM, "There are too many connections.")
            await line.close(hangup, self._log)
            return
        self._put(line, SessionCreated(self._machine.config), self._ids.new("event"))
        await self._side_lines.serve(line, self._ended, self._log)

    # From the engine.

    def _on_output(self, output: Output | News | Taken) -> None:
        if self._is_over:
            return
        self._observers.made(output)
        try:
            if isinstance(output, Taken):
                self._intake.taken(output)
                return
            if isinstance(output, EngineLost | EngineBack | EngineGone):
                self._intake.forget()
            if isinstance(output, TurnChecked) and output.session_id == self._id:
                self._intake.answered(output)
            self._react(self._machine.receive(output, self._clock()))
        except Exception as error:  # noqa: BLE001 - as in `_read`
            self._fail(error)

    # From MCP servers, the text model, and checks.

    def _on_outcome(self, outcome: Outcome) -> None:
        if self._is_over:
            return
        try:
            self._react(self._machine.receive(outcome, self._clock()))
        except Exception as error:  # noqa: BLE001 - as in `_read`
            self._fail(error)

    # To both.

    def _react(self, reactions: list[Reaction]) -> None:
        # The engine may have no slot for a response beside the conversation. Its first command
        # shows that. Its further commands are dropped, and it is refused after all other reactions.
        refused: set[str] = set()
        refusal: ClientError | None = None
        self._observers.noted(self._machine.take_moments())
        for reaction in reactions:
            if isinstance(reaction, Refusal):
                refusal = reaction.error
            elif isinstance(reaction, Hangup):
                self._hang(reaction)
            elif isinstance(reaction, Sound):
                self._play(reaction)
            elif isinstance(reaction, ToolCommand | CheckWords | DelegateCommand):
                self._desks.put(reaction)
            elif not isinstance(reaction, Command):
                self._send(reaction)
            elif reaction.session_id == self._id:
                self._observers.speculated(reaction)
                self._intake.put(reaction)
            elif reaction.session_id not in refused and not self._put_aside(reaction):
                refused.add(reaction.session_id)
        for session_id in refused:
            self._react(self._machine.receive(NoSlot(session_id), self._clock()))
        self._alarm.set(self._machine.deadline_s)
        if refusal is not None:
            raise refusal

    def _put_aside(self, command: Command) -> bool:
        """Pass on what concerns a response with a session of its own; False if it has no room."""
        try:
            self._intake.put_aside(command)
        except OverloadedError:
            return False
        return True

    def _send(self, event: ServerEvent) -> None:
        if isinstance(event, ResponseDone) and self._tells_parts:
            event = with_parts(event, self._observers.parts(event.response.id))
        event_id = self._ids.new("event")
        self._observers.sent(event, event_id)
        self._note_played(event)
        self._put(self._own, event, event_id)
        for line in self._side_lines:
            self._put(line, event, event_id)

    def _note_played(self, event: ServerEvent) -> None:
        """Note what a client that plays by itself will play, or not any more."""
        match event:
            case OutputAudioDelta():
                self._sound.played(event.pcm, self._clock())
            case SpeechStarted() | ItemTruncated() if self._player is None:
                self._sound.hushed()
            case _:
                pass

    def _put(self, line: Line, event: ServerEvent, event_id: str) -> None:
        text = line.text(event, event_id)
        if text is None:
            return
        comeback = self._comeback if line is self._own else None
        if comeback is not None:
            comeback.note(event_id, text)
            if comeback.is_away:
                return
        try:
            line.put(text)
        except SlowReaderError as error:
            if line is self._own and comeback is None:
                raise
            # Who may come back is sent the rest then.
            self._log.warning(
                "slow reader that may come back, or beside the session", error=str(error)
            )
            line.lose()
            return
        self._counts.events_sent += 1

    def _play(self, sound: Sound) -> None:
        assert self._player is not None, "the machine was told that there is one"
        match sound:
            case PlayAudio():
                self._observers.played(sound)
                self._player.play(sound.item_id, sound.pcm)
            case EndOfAudio():
                self._player.end(sound.item_id)
            case StopAudio():
                self._player.stop(sound.item_id)
            case PauseAudio():
                self._player.pause()
            case ResumeAudio():
                self._player.resume()
            case _:
                assert_never(sound)

    # The end.

    def _count_end(self, hangup: Hangup | None) -> None:
        how = str(self._own.transport.close_code(hangup.reason)) if hangup else self._cause
        self._observers.closed(how)
        self._counts.slow_readers += hangup is not None and hangup.reason is EndReason.SLOW_READER

    def _tick(self) -> None:
        self._react(self._machine.tick(self._clock()))

    async def _guarded(self, work: Awaitable[None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - as in `_read`
            self._fail(error)

    def revoke(self) -> None:
        """End the session, because the key by which it came is not good any more."""
        message = "The ephemeral key of this session was revoked."
        self._finish("invalid_api_key", message, EndReason.KEY_REVOKED)

    def use_up(self, message: str) -> None:
        """End the session, because its API key has used what it may.

        Args:
            message: for the client.
        """
        self._finish("rate_limit_exceeded", message, EndReason.EXPIRED, kind="rate_limit_error")

    async def _watch_idle(self) -> None:
        limit_s = self._limits.idle_session_s
        left_s = limit_s
        while left_s > 0:
            await asyncio.sleep(left_s)
            # Sleeps until the limit could be reached, looks how long ago the last event was, and
            # sleeps for the rest. So a busy session costs one wake-up in ten minutes, not one an
            # event.
            left_s = self._last_event_s + limit_s - self._clock()
        message = f"Your session was idle for {limit_s / 60:g} minutes."
        self._finish("session_expired", message, EndReason.EXPIRED)

    async def _expire(self) -> None:
        await asyncio.sleep(self._limits.max_session_s)
        minutes = self._limits.max_session_s / 60
        message = f"Your session hit the maximum duration of {minutes:g} minutes."
        self._finish("session_expired", message, EndReason.EXPIRED)

    def _expire_by(self, expires_at: int) -> None:
        """Tell the client that the server will end the session, if that is earlier than it knew."""
        if self._is_over:
            return
        try:
            self._react(self._machine.expire_by(expires_at))
        except Exception as error:  # noqa: BLE001 - as in `_read`
            self._fail(error)

    def _finish(
        self,
        code: str,
        message: str,
        reason: EndReason,
        *,
        kind: str = "invalid_request_error",
    ) -> None:
        """End the session by a rule of the server's."""
        if self._is_over:
            return
        expired = ErrorEvent(kind, code, message, None, None)
        try:
            ended = self._machine.end(code, message, self._clock())
            self._react([*ended, expired, Hangup(reason, message)])
        except SlowReaderError as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """End a session that cannot go on, through no fault of the client's events."""
        # From here on nothing of the client or the engine is taken, so one fault is reported once.
        self._is_failing = True
        match error:
            case SlowReaderError():
                self._log.warning("slow reader", error=str(error))
                self._end(TOO_SLOW)
                return
            case ParleyError():
                self._log.error("session failed", error=str(error))
            case _:
                self._log.error("session failed", exc_info=error)
        message = "The server had an error while processing your event."
        event = ErrorEvent("server_error", "server_error", message, None, None)
        hangup = Hangup(EndReason.INTERNAL_ERROR, "server_error.server_error")
        try:
            self._send(event)
            self._hang(hangup)
        except SlowReaderError:
            self._end(hangup)

    def _hang(self, hangup: Hangup) -> None:
        """Close the session's own connection after all that waits, and end with it."""
        if self.is_away:
            self._end(hangup)
        else:
            self._own.put(hangup)

    @property
    def _is_over(self) -> bool:
        return self._is_failing or self._ended.done()

    def hang_up(self) -> None:
        """End the session, because the client asked for it outside of its connection."""
        self._end(Hangup(EndReason.HUNG_UP, "hung up"))

    def _end(self, hangup: Hangup | None) -> None:
        if not self._ended.done():
            self._ended.set_result(hangup)


def _user(config: SessionConfig) -> dict[str, str]:
    """Return what the log says of the user, where the application has said who that is."""
    named = config.safety_identifier
    return {"safety_identifier": named} if named else {}


async def _off_loop(text: str, read: Callable[[_Given], _Read], given: _Given) -> _Read:
    """Read an event, in a worker thread if its text is long."""
    return read(given) if len(text) <= _INLINE_EVENT_CHARS else await asyncio.to_thread(read, given)
