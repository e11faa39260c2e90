"""Hold one telephone call from the start of its stream to its end, with all its parts."""

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import structlog

from model.messages import Pcm
from server.config.telephony import TelephonySettings
from server.errors import DisconnectedError
from server.protocol.events import EndReason, Hangup
from server.session.session import Session
from server.session.transport import Player, Transport
from server.telephony.keypad import Keypad
from server.telephony.listener import Listener
from server.telephony.messages import (
    Key,
    Mark,
    Media,
    MediaFormat,
    Message,
    MessageError,
    Other,
    Provider,
    Started,
    Stopped,
    Writer,
    read,
)
from server.telephony.speaker import Speaker
from server.transport.close_codes import CLOSE_CODES
from server.transport.websocket import WebSocketTransport

CallEnd: TypeAlias = Literal[
    "caller",
    "failed",
    "hung_up",
    "lost",
    "malformed",
    "no_marks",
    "session",
    "slow_reader",
    "stopping",
    "too_fast",
]
"""Why a call ended: the caller or the provider did it, our own fault, a backend asked for it, no
answer to a ping, messages that cannot be read, no mark came back, the session ended, the provider
did not take what it was sent, the server was stopped, more came than a telephone says."""

# Code with which a WebSocket says that its peer left.
_CAUSES: dict[str, CallEnd] = {"ping_timeout": "lost", "stopping": "stopping"}

# A message that cannot be read may be of a newer kind. A peer that sends so many of them is no
# telephone provider.
_MAX_MALFORMED = 16
# A telephone sends 50 pieces a second, and a reply leads to 25 marks. Four times as much is a
# flood, unless the network delivered nothing for half a minute before.
_MESSAGES_A_SECOND = 200
_MESSAGES_AT_ONCE = 6_000
# The same for sound, whatever the size of its pieces.
_SOUND_AHEAD_S = 30.0
# The provider holds at most a second of sound. If it has played none of it after this time, it does
# not play at all.
MARKS_WITHIN_S = 10.0
# One reply's pieces and marks: `Speaker` sends no more than a second ahead.
_MAX_WAITING = 512

_KIND = re.compile(r'\{"type":"([^"]{1,100})"')

_log = structlog.get_logger("telephone")


@dataclass(frozen=True, slots=True)
class CallParts:
    """What a call is given by the server.

    Attributes:
        settings: of all calls.
        rate_hz: of the engine's audio.
        send_timeout_s: for the provider to take a message.
        new_session: makes its session.
        joined: called when its session joins: from then on the session has its place itself.
    """

    settings: TelephonySettings
    rate_hz: int
    send_timeout_s: float
    new_session: Callable[[Transport, Player], Session]
    joined: Callable[[], None]


class PhoneLine:
    """Be a session's own connection on a telephone, which has no events.

    Pressed keys and the first words become client events of the session. Another connection that
    joins by `?call_id=` sees all events and may send any.

    Args:
        close: closes the stream.
    """

    def __init__(self, close: Callable[[Hangup], Any]) -> None:
        self._close = close
        self._events: asyncio.Queue[str | None] = asyncio.Queue()
        self._cause = "client"
        self.is_responding = False

    def put(self, **event: Any) -> None:
        """Give the session an event."""
        self._events.put_nowait(json.dumps(event))

    def end(self, cause: str) -> None:
        """Note that the call is over."""
        self._cause = cause
        self._events.put_nowait(None)

    @property
    def round_trip_s(self) -> float | None:
        """Return None: what lies between the provider and the telephone is not known."""
        return None

    async def receive(self) -> str:
        """Return the next event.

        Raises:
            DisconnectedError: the call is over.
        """
        text = await self._events.get()
        if text is None:
            self._events.put_nowait(None)
            raise DisconnectedError(self._cause)
        return text

    async def send(self, text: str) -> None:
        """Drop an event: a telephone shows none."""
        found = _KIND.match(text)
        if found is not None and found[1] in ("response.created", "response.done"):
            self.is_responding = found[1] == "response.created"

    def close_code(self, reason: EndReason) -> int:
        """Return the code that the stream closes with."""
        return CLOSE_CODES[reason]

    async def close(self, hangup: Hangup) -> None:
        """Close the stream; the provider hangs up."""
        await self._close(hangup)


class PhoneCall:
    """Own everything of one call.

    Args:
        provider: whose stream it is.
        started: what the stream said at its start.
        socket: the stream.
        sends: in which format the provider takes sound.
        parts: what the server gives it.
    """

    def __init__(
        self,
        provider: Provider,
        started: Started,
        socket: WebSocketTransport,
        sends: MediaFormat,
        parts: CallParts,
    ) -> None:
        self.id = started.call_id
        self._provider = provider
        self._started = started
        self._socket = socket
        self._parts = parts
        self._loop = asyncio.get_running_loop()
        is_big = parts.settings.telnyx.l16_order == "big"
        self._listener = Listener(started.format, parts.rate_hz, is_big=is_big)
        self._waiting: asyncio.Queue[str] = asyncio.Queue(_MAX_WAITING)
        self._line = PhoneLine(socket.close)
        self._speaker = Speaker(
            Writer(provider, started.stream_id),
            sends,
            parts.rate_hz,
            self._send,
            self._report,
            self._sounded,
            self._hushed,
            is_big=is_big,
        )
        self._keypad = Keypad(parts.settings.dtmf_pause_s)
        self._keys_timer: asyncio.TimerHandle | None = None
        self._session: Session | None = None
        self._reason: CallEnd | None = None
        self._num_messages = self._num_malformed = self._num_marks = 0
        self._heard_s = 0.0
        self._began_s = self._loop.time()
        self._log = _log.bind(call_id=self.id, provider=provider)

    @property
    def session(self) -> Session | None:
        """Return the call's session, None once it has ended."""
        return self._session

    def hang_up(self) -> None:
        """End the call."""
        self._end("hung_up")

    async def run(self) -> CallEnd:
        """Hold the call until it ends, and say why it did."""
        self._log.info("call began", encoding=self._started.format.encoding)
        self._session = session = self._parts.new_session(self._line, self._speaker)
        self._parts.joined()
        self._begin()
        tasks = [
            asyncio.create_task(self._guarded(work), name=f"{name} {self.id}")
            for name, work in (("hear", self._hear), ("say", self._say), ("watch", self._watch))
        ]
        try:
            await session.run()
        finally:
            self._session = None
            self._end("session")
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._keys_timer is not None:
                self._keys_timer.cancel()
        reason = self._reason or "session"
        # After a session that ended by itself the stream is closed already.
        await self._socket.close(Hangup(EndReason.HUNG_UP, reason))
        self._log.info(
            "call ended",
            reason=reason,
            seconds=round(self._loop.time() - self._began_s, 1),
            missing=self._listener.num_missing,
            late=self._listener.num_late,
            malformed=self._num_malformed,
        )
        return reason

    def _begin(self) -> None:
        """Tell the model about the call, and let it speak first if the settings say so."""
        settings, given = self._parts.settings, self._started.parameters
        known = [f"{name}: {given[name]}" for name in settings.parameters if given.get(name)]
        if known:
            text = "\n".join(["About this call:", *known])
            self._line.put(type="conversation.item.create", item=_item("system", text))
        if settings.greeting:
            self._line.put(type="response.create")

    def _end(self, reason: CallEnd) -> None:
        """Note why the call ends; its session ends with its line."""
        if self._reason is None:
            self._reason = reason
            # A session's count of ends knows these causes, and no others.
            cause = {"lost": "ping_timeout", "stopping": "stopping"}.get(reason, "client")
            self._line.end(cause)

    async def _guarded(self, work: Callable[[], Any]) -> None:
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - the call's boundary: ours, not others', ends
            self._log.error("call failed", exc_info=error)
            self._end("failed")

    # What comes.

    async def _hear(self) -> None:
        while self._reason is None:
            try:
                text = await self._socket.receive()
            except DisconnectedError as gone:
                self._end(_CAUSES.get(gone.cause, "caller"))
                return
            try:
                self._take(read(text, self._provider))
            except MessageError as error:
                self._num_malformed += 1
                self._log.warning("malformed message", error=str(error))
                if self._num_malformed >= _MAX_MALFORMED:
                    self._end("malformed")
            self._num_messages += 1
            self._refuse_floods()
            # Messages that have arrived are received without waiting, so others get a turn here.
            await asyncio.sleep(0)

    def _refuse_floods(self) -> None:
        elapsed_s = self._loop.time() - self._began_s
        limit = _MESSAGES_AT_ONCE + _MESSAGES_A_SECOND * elapsed_s
        if self._num_messages > limit or self._heard_s > _SOUND_AHEAD_S + elapsed_s:
            self._end("too_fast")

    def _take(self, message: Message) -> None:
        session = self._session
        if session is None:
            return
        match message:
            case Media():
                session.note_alive()
                for pcm in self._listener.take(message):
                    self._heard_s += len(pcm) / self._parts.rate_hz
                    session.hear(pcm)
            case Mark():
                self._num_marks += 1
                self._speaker.came_back(message.name)
            case Key():
                session.note_alive()
                self._press(message.digit)
            case Stopped():
                self._end("caller")
            case Started():
                raise MessageError("a stream began twice")
            case Other(event="error"):
                self._log.warning("the provider reports an error", detail=message.detail)
            case Other():
                pass

    def _press(self, digit: str) -> None:
        # A key interrupts as speech does, but at once.
        if self._line.is_responding:
            self._line.put(type="response.cancel")
        if self._speaker.is_playing:
            self._line.put(type="output_audio_buffer.clear")
        self._type(self._keypad.press(digit, self._loop.time()))

    def _on_pause(self) -> None:
        self._type(self._keypad.due(self._loop.time()))

    def _type(self, keys: str | None) -> None:
        """Pass on the pressed keys if they are complete; else wait until they are."""
        if self._keys_timer is not None:
            self._keys_timer.cancel()
            self._keys_timer = None
        if self._keypad.due_s is not None:
            self._keys_timer = self._loop.call_at(self._keypad.due_s, self._on_pause)
        if keys is not None:
            self._line.put(type="conversation.item.create", item=_item("user", keys))
            self._line.put(type="response.create")

    # What leaves.

    async def _say(self) -> None:
        while True:
            text = await self._waiting.get()
            try:
                async with asyncio.timeout(self._parts.send_timeout_s):
                    await self._socket.send(text)
            except TimeoutError:
                self._end("slow_reader")
                return
            except DisconnectedError:
                return  # `_hear` knows why

    async def _watch(self) -> None:
        """End a call whose provider plays nothing."""
        while True:
            before = self._num_marks if self._speaker.num_unheard else None
            await asyncio.sleep(MARKS_WITHIN_S)
            if before == self._num_marks and self._speaker.num_unheard:
                self._end("no_marks")

    def _send(self, text: str) -> None:
        try:
            self._waiting.put_nowait(text)
        except asyncio.QueueFull:
            self._end("slow_reader")

    def _report(self, item_id: str, num_samples: int) -> None:
        if self._session is not None:
            self._session.played(item_id, num_samples)

    def _sounded(self, pcm: Pcm) -> None:
        if self._session is not None:
            self._session.sounded(pcm, 0.0)

    def _hushed(self) -> None:
        if self._session is not None:
            self._session.hushed()


def _item(role: str, text: str) -> dict[str, Any]:
    content = [{"type": "input_text", "text": text}]
    return {"type": "message", "role": role, "content": content}
