"""Run one live session from its first event to its last."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import assert_never

import structlog

from model.messages import Command, CommitAudio, EndOfTurn, News, Output, Pcm, Reopen
from server.errors import ClientError, DisconnectedError, OverloadedError, ParleyError
from server.protocol.dialects.ga import Dialect
from server.protocol.events import Hangup, Heard, NoSlot, Reaction
from server.protocol.ids import Ids
from server.protocol.machine import CLOSE_INTERNAL_ERROR, SessionMachine
from server.protocol.server_events import ErrorEvent, ServerEvent, SessionCreated
from server.protocol.settings.tools import compile_ahead
from server.protocol.sound import EndOfAudio, PlayAudio, Played, Sound, StopAudio
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
from server.protocol.wire.parse import decode, event_id_of, parse
from server.session.alarm import Alarm
from server.session.counts import Counts, count_in
from server.session.ears import Ears, carried_audio
from server.session.intake import Intake
from server.session.line import Line
from server.session.link import EngineLink
from server.session.outbox import TOO_SLOW, SlowReaderError
from server.session.stopwatch import Stopwatch
from server.session.transport import Player, Transport

# Audio up to about 130 ms is heard within a millisecond; more of it leaves the event loop.
_INLINE_BASE64_CHARS = 8 * 1024
_CLOSE_TIMEOUT_S = 5.0
_CLOSE_NORMAL = 1000
_CLOSE_GOING_AWAY = 1001
CLOSE_TRY_AGAIN_LATER = 1013

# Connections beside the first; each costs every event once more.
_MAX_SIDE_LINES = 4

_log = structlog.get_logger("session")


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """Bound what a client can hold up; see `server.config.ServerSettings`."""

    max_backlog_events: int
    send_timeout_s: float
    max_waiting_audio_s: int = 600
    max_session_s: float = 0


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
        link: leads to the engine.
        limits: on what a client can hold up.
        counts: of all sessions.
        player: plays replies, where the transport does; the machine is made for it.
        clock: seconds that do not jump.
    """

    def __init__(  # noqa: PLR0913 - the parts that it joins, each of which is somebody's own
        self,
        transport: Transport,
        machine: SessionMachine,
        dialect: Dialect,
        ids: Ids,
        ears: Ears,
        link: EngineLink,
        limits: SessionLimits,
        *,
        counts: Counts,
        player: Player | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._own = Line(transport, dialect, limits.max_backlog_events)
        self._side_lines: list[Line] = []
        self._machine = machine
        self._player = player
        self._ids = ids
        self._ears = ears
        self._link = link
        self._limits = limits
        self._counts = counts
        self._clock = clock
        self._id = machine.config.id
        self._intake = Intake(link.submit, link.info.sample_rate_hz, clock)
        self._alarm = Alarm(self._tick, clock)
        # None: the peer is gone and there is nothing left to close.
        self._ended: asyncio.Future[Hangup | None] = asyncio.get_running_loop().create_future()
        self._is_failing = False
        # Clients' events are handled one at a time, whatever connection they come by.
        self._performing = asyncio.Lock()
        # Audio that the transport decoded while a worker thread has the ears; None if none has.
        self._held_pcm: list[Pcm] | None = None
        self._log = _log.bind(session_id=self._id)
        self._stopwatch = Stopwatch(self._log, counts, clock)

    async def run(self) -> None:
        """Serve the client until one side ends the session."""
        started_s = self._clock()
        hangup: Hangup | None = None
        has_begun = False
        self._link.join(self._id, self._on_output)
        try:
            refusal = self._open()
            if refusal is not None:
                hangup = await self._refuse(refusal)
                return
            self._counts.sessions_begun += 1
            has_begun = True
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._read_own(), name=f"read {self._id}"),
                    group.create_task(self._write(), name=f"write {self._id}"),
                    group.create_task(self._guarded(self._intake.run()), name=f"pace {self._id}"),
                    group.create_task(self._guarded(self._alarm.run()), name=f"alarm {self._id}"),
                ]
                if self._limits.max_session_s:
                    tasks.append(group.create_task(self._expire(), name=f"expire {self._id}"))
                hangup = await self._ended
                for task in tasks:
                    task.cancel()
        finally:
            self._link.leave(self._id)
            if has_begun:
                self._count_end(hangup)
            self._log.info(
                "session ended",
                seconds=round(self._clock() - started_s, 1),
                turns=self._stopwatch.num_turns,
                close=hangup.reason or hangup.code if hangup else "by the client",
            )
        if hangup is not None:
            await self._close(self._own, hangup)

    # The engine's slot.

    def _open(self) -> ErrorEvent | None:
        """Take a slot and say that the session is open; returns why not, if there is none."""
        if not self._link.is_running:
            # The engine was lost between the handshake and here.
            message = "The server is not ready. Try again later."
            return ErrorEvent("server_error", "not_ready", message, None, None)
        try:
            self._react(self._machine.start())
        except OverloadedError:
            message = (
                f"This server is at its capacity of {self._link.info.max_sessions} sessions. "
                "Try again later."
            )
            return ErrorEvent("rate_limit_error", "rate_limit_exceeded", message, None, None)
        return None

    async def _refuse(self, event: ErrorEvent) -> Hangup:
        count_in(self._counts.refused, str(event.code))
        hangup = Hangup(CLOSE_TRY_AGAIN_LATER, f"{event.kind}.{event.code}")
        try:
            async with asyncio.timeout(self._limits.send_timeout_s):
                text = self._own.text(event, self._ids.new("event"))
                await self._own.transport.send(text or "")
        except (TimeoutError, DisconnectedError):
            return hangup
        await self._close(self._own, hangup)
        return hangup

    # From the client.

    async def _read_own(self) -> None:
        await self._read(self._own)
        if not self._is_failing:
            self._end(None)

    async def _read(self, line: Line) -> None:
        """Take what a connection brings, until its peer is gone."""
        try:
            while True:
                await self._take(line, await line.transport.receive())
                # Frames that have arrived already are received without waiting: a flood of them
                # must not hold up the other sessions.
                await asyncio.sleep(0)
        except DisconnectedError:
            return
        except Exception as error:  # noqa: BLE001 - the session's boundary: ours, not others', ends
            self._fail(error)

    async def _take(self, line: Line, text: str) -> None:
        """Handle one frame; what the client did wrong is answered, and the session goes on."""
        self._counts.events_received += 1
        raw: JsonObject | None = None
        try:
            raw = decode(text)
            event = parse(line.dialect.read(raw))
            async with self._performing:
                await self._perform(event)
        except ClientError as error:
            event_id = event_id_of(raw) if raw is not None else None
            refusal = ErrorEvent(error.kind, error.code, error.message, error.param, event_id)
            count_in(self._counts.errors, refusal.kind)
            # Whoever sent it is told, and nobody else: it means nothing to them.
            self._put(line, refusal, self._ids.new("event"))

    async def _perform(self, event: ClientEvent) -> None:
        match event:
            case InputAudioBufferAppend():
                await self._hear(event.audio)
            case InputAudioBufferCommit():
                self._react_to(self._ears.finish())
                self._react(self._machine.receive(event, self._clock()))
                self._ears.restart()
            case InputAudioBufferClear():
                # What is held back of the audio belongs to what is cleared.
                self._ears.finish()
                self._react(self._machine.receive(event, self._clock()))
                self._ears.restart()
            case ItemCreate():
                carried = carried_audio(event.item)
                decode = self._ears.decode_items
                audio = await asyncio.to_thread(decode, carried) if carried else None
                self._react(self._machine.receive(event, self._clock(), audio))
            case SessionUpdate():
                await self._compile(event.session)
                self._react(self._machine.receive(event, self._clock()))
                self._react_to(self._ears.configure(self._machine.config))
            case ResponseCreate():
                await self._compile(event.response)
                self._react(self._machine.receive(event, self._clock()))
            case _:
                self._react(self._machine.receive(event, self._clock()))

    @staticmethod
    async def _compile(given: JsonObject) -> None:
        """Compile the functions that an event brings off the event loop."""
        if given.get("tools"):
            await asyncio.to_thread(compile_ahead, given["tools"])

    async def _hear(self, audio: str) -> None:
        limit_s = self._limits.max_waiting_audio_s
        if self._intake.waiting_s > limit_s:
            raise ClientError(
                f"Error appending input audio: {limit_s} s of audio wait to be heard already.",
                code="input_audio_buffer_full",
            )
        if len(audio) <= _INLINE_BASE64_CHARS:
            self._react_to(self._ears.hear(audio))
            return
        self._held_pcm = []
        try:
            heard = await asyncio.to_thread(self._ears.hear, audio)
        finally:
            held, self._held_pcm = self._held_pcm, None
        self._react_to(heard)
        for pcm in held:
            self._react_to(self._ears.hear_pcm(pcm))

    def _react_to(self, heard_events: list[Heard]) -> None:
        for heard in heard_events:
            self._react(self._machine.receive(heard, self._clock()))

    # From a transport that hears and plays by itself.

    def hear(self, pcm: Pcm) -> None:
        """Hear audio as if a client had appended it: float32 [samples] at the engine's rate.

        It is dropped where it comes so much faster than it is heard that appended audio would be
        refused.
        """
        if self._is_over or self._intake.waiting_s > self._limits.max_waiting_audio_s:
            return
        if self._held_pcm is not None:
            self._held_pcm.append(pcm)
            return
        try:
            self._react_to(self._ears.hear_pcm(pcm))
        except Exception as error:  # noqa: BLE001 - as in `_read`
            self._fail(error)

    def played(self, item_id: str, num_samples: int) -> None:
        """Take note of how much of an item has been played, in samples at the engine's rate."""
        if self._is_over:
            return
        try:
            self._react(self._machine.receive(Played(item_id, num_samples), self._clock()))
        except Exception as error:  # noqa: BLE001 - as in `_read`
            self._fail(error)

    # Other connections to the session.

    @property
    def is_full(self) -> bool:
        """Say whether no connection can join any more."""
        return self._is_over or len(self._side_lines) >= _MAX_SIDE_LINES

    async def attach(self, transport: Transport, dialect: Dialect) -> None:
        """Serve another connection, until it or the session ends.

        One that comes when the session `is_full` is closed.

        Args:
            transport: the accepted connection; it is closed if the session ends.
            dialect: that its client speaks.
        """
        line = Line(transport, dialect, self._limits.max_backlog_events)
        if self.is_full:
            await self._close(
                line, Hangup(CLOSE_TRY_AGAIN_LATER, "There are too many connections.")
            )
            return
        self._put(line, SessionCreated(self._machine.config), self._ids.new("event"))
        self._side_lines.append(line)
        reading = asyncio.create_task(self._read(line), name=f"read beside {self._id}")
        writing = asyncio.create_task(
            line.write(self._limits.send_timeout_s), name=f"write beside {self._id}"
        )
        try:
            await asyncio.wait(
                (reading, writing, line.is_lost, self._ended),
                return_when=asyncio.FIRST_COMPLETED,
            )
            self._drop(line)
            hangup: Hangup | None = None
            if line.is_lost.done():
                hangup = TOO_SLOW
            elif not reading.done():
                if not writing.done():
                    line.put(Hangup(_CLOSE_NORMAL, "The session has ended."))
                hangup = await writing
            if hangup is not None:
                await self._close(line, hangup)
        finally:
            self._drop(line)
            for task in (reading, writing):
                task.cancel()
            await asyncio.gather(reading, writing, return_exceptions=True)

    def _drop(self, line: Line) -> None:
        if line in self._side_lines:
            self._side_lines.remove(line)

    # From the engine.

    def _on_output(self, output: Output | News) -> None:
        if self._is_over:
            return
        try:
            if isinstance(output, EndOfTurn) and output.session_id == self._id:
                self._ears.sounds_finished()
            self._react(self._machine.receive(output, self._clock()))
        except Exception as error:  # noqa: BLE001 - as in `_read`
            self._fail(error)

    # To both.

    def _react(self, reactions: list[Reaction]) -> None:
        refused: set[str] = set()
        for reaction in reactions:
            if isinstance(reaction, Hangup):
                self._own.put(reaction)
            elif isinstance(reaction, PlayAudio | EndOfAudio | StopAudio):
                self._sound(reaction)
            elif not isinstance(reaction, Command):
                self._send(reaction)
            elif reaction.session_id == self._id:
                self._count_speculation(reaction)
                self._intake.put(reaction)
            elif reaction.session_id not in refused and not self._put_aside(reaction):
                refused.add(reaction.session_id)
        for session_id in refused:
            self._react(self._machine.receive(NoSlot(session_id), self._clock()))
        self._alarm.set(self._machine.deadline_s)

    def _put_aside(self, command: Command) -> bool:
        """Pass on what concerns a response with a session of its own; False if it has no room."""
        try:
            self._link.submit(command)
        except OverloadedError:
            return False
        return True

    def _send(self, event: ServerEvent) -> None:
        self._stopwatch.see(event)
        if isinstance(event, ErrorEvent):
            count_in(self._counts.errors, event.kind)
        event_id = self._ids.new("event")
        self._put(self._own, event, event_id)
        for line in [*self._side_lines]:
            self._put(line, event, event_id)

    def _put(self, line: Line, event: ServerEvent, event_id: str) -> None:
        text = line.text(event, event_id)
        if text is None:
            return
        try:
            line.put(text)
        except SlowReaderError as error:
            if line is self._own:
                raise
            self._log.warning("slow reader beside the session", error=str(error))
            line.lose()
            return
        self._counts.events_sent += 1

    def _sound(self, sound: Sound) -> None:
        assert self._player is not None, "the machine was told that there is one"
        match sound:
            case PlayAudio():
                self._stopwatch.see(sound)
                self._player.play(sound.item_id, sound.pcm)
            case EndOfAudio():
                self._player.end(sound.item_id)
            case StopAudio():
                self._player.stop(sound.item_id)
            case _:
                assert_never(sound)

    async def _write(self) -> None:
        self._end(await self._own.write(self._limits.send_timeout_s))

    def _count_speculation(self, command: Command) -> None:
        match command:
            case CommitAudio(is_tentative=True):
                self._counts.speculations += 1
            case Reopen():
                self._counts.speculations_withdrawn += 1
            case _:
                pass

    # The end.

    def _count_end(self, hangup: Hangup | None) -> None:
        count_in(self._counts.sessions_ended, str(hangup.code) if hangup else "client")
        self._counts.slow_readers += hangup is TOO_SLOW

    def _tick(self) -> None:
        self._react(self._machine.tick(self._clock()))

    async def _guarded(self, work: Awaitable[None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - as in `_read`
            self._fail(error)

    async def _expire(self) -> None:
        await asyncio.sleep(self._limits.max_session_s)
        minutes = self._limits.max_session_s / 60
        reason = f"Your session hit the maximum duration of {minutes:g} minutes."
        expired = ErrorEvent("invalid_request_error", "session_expired", reason, None, None)
        try:
            ended = self._machine.end("session_expired", reason)
            self._react([*ended, expired, Hangup(_CLOSE_GOING_AWAY, reason)])
        except SlowReaderError as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """End a session that cannot go on, through no fault of the client's events."""
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
        hangup = Hangup(CLOSE_INTERNAL_ERROR, "server_error.server_error")
        try:
            self._send(event)
            self._own.put(hangup)
        except SlowReaderError:
            self._end(hangup)

    @property
    def _is_over(self) -> bool:
        return self._is_failing or self._ended.done()

    def hang_up(self) -> None:
        """End the session, because the client asked for it outside of its connection."""
        self._end(Hangup(_CLOSE_NORMAL, "hung up"))

    def _end(self, hangup: Hangup | None) -> None:
        if not self._ended.done():
            self._ended.set_result(hangup)

    async def _close(self, line: Line, hangup: Hangup) -> None:
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await line.transport.close(hangup.code, hangup.reason)
        except TimeoutError:
            self._log.warning("the connection did not close in time")
