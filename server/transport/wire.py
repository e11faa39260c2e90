"""Carry HTTP and WebSocket over TCP: uvicorn's protocols, with bounds that they leave open.

uvicorn trusts its peers in these ways, each of which lets somebody without a key keep memory or a
descriptor for as long as they like. Here each has an end:

- A request's head may be larger than it says, if it comes in one read: it is read in pieces.
- A request's head and body may take for ever to arrive: `HEAD_S` and `BODY_S`.
- What a peer does not read waits for ever, also after a close: an HTTP answer has `ANSWER_S`, a
  connection that is closing `LINGER_S`, then it is aborted.
- A peer that sends pings and reads no pongs makes them pile up: nothing is read while writing is
  paused.
- A peer that asks again and again before it is answered has 256 KiB more read with every answer:
  it gets the answer to its first question, and is closed.
- A message may come in any number of fragments, each an object: `MAX_FRAGMENTS`. And a long one is
  copied and decoded in one go, 60 ms for 24 MiB: it is cut (`server.transport.frames`), and put
  together by a worker thread.
- What one read brings may be 40,000 small frames, which take a second: they are parsed for
  `PARSE_S`, and the rest after others had their turn, or when the session has taken what came.
- A peer that leaves a ping unanswered is waited for until its buffer drains, and its session is not
  told: here the connection is aborted and the session ends at once.
- Any number of connections may be open: those without a session have `Places`.
"""

import asyncio
from typing import Any

import h11
import structlog
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

from server.transport.frames import FrameCutter
from server.transport.places import Place, Places

# In 10 s a head of some kilobytes arrives over a slow network too. One byte at a time, as "slow
# loris" sends, it does not. A body may be 256 KiB, hence more.
HEAD_S = 10.0
BODY_S = 30.0
ANSWER_S = 10.0
LINGER_S = 2.0
# RFC 6455, section 5.4, allows any number, also of empty ones.
MAX_FRAGMENTS = 1_024
PARSE_S = 0.005
_PIECE_BYTES = 1_024  # the smallest frames of it take 5 ms
_MAX_UNTAKEN = 4  # messages that the session has not taken, until nothing more is read

PLACE_KEY = "parley.place"
"""Where the connection's `Place` is in the `state` of an ASGI scope."""
PIECES_KEY = "parley.pieces"
"""Where the UTF-8 of a long text is, in pieces, in a `websocket.receive` that has no "text"."""

ROUND_TRIP_KEY = "parley.round_trip"
"""Where a function is in it that returns how long the last ping took, in seconds, or None."""

# The first ping goes out soon, so that the round trip of short calls is known as well.
_FIRST_PING_S = 1.0
_CLOSE_POLICY = 1008
_FULL_BODY = (
    b'{"error": {"message": "Too many connections. Try again later.", "type": "rate_limit_error", '
    b'"param": null, "code": "rate_limit_exceeded"}}'
)
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 5\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(_FULL_BODY), _FULL_BODY)
)

_log = structlog.get_logger("connections")


class WireConfig(uvicorn.Config):
    """Configure uvicorn, and hold what all connections share.

    Args:
        app: that is served.
        places: for connections without a session.
    """

    def __init__(self, app: ASGIApp, *, places: Places, **options: Any) -> None:
        super().__init__(app, http=HttpProtocol, ws=WebSocketProtocol, **options)
        self.places = places


class HttpProtocol(H11Protocol):
    """Serve HTTP, until the connection becomes a WebSocket."""

    config: WireConfig

    def __init__(self, config: WireConfig, *args: Any, **options: Any) -> None:
        super().__init__(config, *args, **options)
        self._place: Place | None = None
        self._awaited: Any = None  # what of a request is to come, as h11 names it
        self._patience: asyncio.TimerHandle | None = None
        self._linger: asyncio.TimerHandle | None = None
        self._answer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Take a place, or turn the peer away before anything is read."""
        super().connection_made(transport)
        self._place = self.config.places.enter(self.client[0] if self.client else None)
        if self._place is None:
            _log.warning("too many connections", address=self.client and self.client[0])
            transport.write(_FULL)
            transport.pause_reading()
            self._close_soon()
            return
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._leave()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on, and see whether a request's head or body has come to its end."""
        # h11 measures a head that is not whole yet, and one read may bring 256 KiB of it whole. In
        # pieces, no head is more than twice as large as it may be.
        most = self.config.h11_max_incomplete_event_size or len(data)
        for at in range(0, len(data), most):
            super().data_received(data[at : at + most])
            # Closed, or a WebSocket by now, whose peer may send nothing before it is answered.
            if self.transport.is_closing() or self.transport.get_protocol() is not self:
                break
        self._watch()

    def on_response_complete(self) -> None:
        """Wait for the next request, or for the rest of this one."""
        # Pipelining (RFC 9112, section 9.3.2) is allowed and no client of ours does it. h11 keeps
        # what came early, uvicorn reads on, and the more is answered the more is kept.
        if self.flow.read_paused and self.conn.trailing_data[0]:
            self.transport.close()  # the next request is here already
        super().on_response_complete()
        if self.transport.is_closing():
            self._linger_on()
        self._watch()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, whatever its peer has not read."""
        super().timeout_keep_alive_handler()
        self._linger_on()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP."""
        super().send_400_response(msg)
        self._linger_on()

    def pause_writing(self) -> None:
        """Give the peer a time to read its answer."""
        super().pause_writing()
        if self._answer is None:
            self._answer = self.loop.call_later(ANSWER_S, self.transport.abort)

    def resume_writing(self) -> None:
        """Forget that time."""
        super().resume_writing()
        self._answer = _cancel(self._answer)

    def shutdown(self) -> None:
        """Close what is idle; what is being answered is closed after that."""
        super().shutdown()
        if self.transport.is_closing():
            self._linger_on()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hand the connection on, whose place the WebSocket takes again."""
        self._leave()
        super().handle_websocket_upgrade(event)

    def _watch(self) -> None:
        """Start the time of what is awaited of the peer, if that is something new."""
        if self._place is None or self.transport.is_closing():
            return
        state = self.conn.their_state
        if state is self._awaited:
            return
        self._awaited = state
        self._patience = _cancel(self._patience)
        if state is h11.IDLE:
            self._patience = self.loop.call_later(HEAD_S, self.transport.abort)
        elif state is h11.SEND_BODY:
            self._patience = self.loop.call_later(BODY_S, self.transport.abort)

    def _close_soon(self) -> None:
        self.transport.close()
        self._linger_on()

    def _linger_on(self) -> None:
        if self._linger is None:
            self._linger = self.loop.call_later(LINGER_S, self.transport.abort)

    def _leave(self) -> None:
        for timer in (self._patience, self._linger, self._answer):
            _cancel(timer)
        self._patience = self._linger = self._answer = None
        if self._place is not None:
            self._place.leave()
            self._place = None


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """Serve one WebSocket."""

    config: WireConfig

    def __init__(self, config: WireConfig, *args: Any, **options: Any) -> None:
        super().__init__(config, *args, **options)
        self._place: Place | None = None
        self._linger: asyncio.TimerHandle | None = None
        self._is_write_paused = False
        self._unparsed = bytearray()
        self._frames = FrameCutter(config.ws_max_size)
        self._going_on: asyncio.Handle | None = None
        self._has_pinged = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the place that the request had."""
        super().connection_made(transport)
        self._place = self.config.places.enter(self.client[0] if self.client else None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._linger = _cancel(self._linger)
        self._unparsed.clear()
        if self._place is not None:
            self._place.leave()
        super().connection_lost(exc)

    # Reading waits for writing, for the session and for others.

    def data_received(self, data: bytes) -> None:
        """Parse what came, as far as it is time for it."""
        self._unparsed += data
        if self._going_on is None:
            self._parse()

    def _parse(self) -> None:
        self._going_on = None
        # 5 ms are a sixteenth of a frame of 80 ms: no other session's sound is late because of it.
        until_s = self.loop.time() + PARSE_S
        while self._unparsed and not (self.read_paused or self._is_write_paused):
            # The clock is looked at after every KiB, which may be hundreds of frames, and what is
            # there of the frame that it ends in: one call of the parser is never longer than that.
            piece = self._cut(_PIECE_BYTES)
            if self._unparsed and self._frames.num_passing:
                piece += self._cut(self._frames.num_passing)
            super().data_received(piece)
            if self._frames.num_frames > MAX_FRAGMENTS:
                self._refuse_fragments()
            if self.transport.is_closing():
                self._unparsed.clear()
            if self._unparsed and self.loop.time() > until_s:
                self._going_on = self.loop.call_soon(self._parse)
                break
        if self._unparsed:
            self.transport.pause_reading()
        elif not (self.read_paused or self._is_write_paused):
            self.transport.resume_reading()

    def _cut(self, num_bytes: int) -> bytes:
        """Return the next of what was not parsed yet, with its long frames in pieces."""
        piece = bytes(self._unparsed[:num_bytes])
        del self._unparsed[:num_bytes]
        return self._frames.feed(piece)

    def pause_writing(self) -> None:
        """Stop reading as well: what is read may have to be answered."""
        super().pause_writing()
        self._is_write_paused = True
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        """Read again, unless the session has not taken what came before."""
        super().resume_writing()
        self._is_write_paused = False
        self._read_on()

    async def receive(self) -> Any:
        """Return the next ASGI message; as uvicorn's, which knows one reason to pause only."""
        # uvicorn reads on as soon as its queue is empty. Here there may be another reason to wait,
        # which `_read_on` looks at.
        message = await self.queue.get()
        if self.read_paused and self.queue.empty():
            self.read_paused = False
            self._read_on()
        return message

    def _read_on(self) -> None:
        """Go on with what was read, then read again, unless there is another reason not to."""
        if self._going_on is None and not self.transport.is_closing():
            self._parse()

    # Messages in pieces.

    def send_receive_event_to_app(self) -> None:
        """Hand a message over; a long one in pieces, to be put together where nobody waits."""
        if len(self.frames) == 1 or self.close_sent or self.curr_msg_data_type != "text":
            # uvicorn stops reading at every message, and goes on once it is taken: four calls of
            # the system for each. A live microphone's are taken as they come.
            was_paused, self.read_paused = self.read_paused, True
            super().send_receive_event_to_app()
            self.read_paused = was_paused or self.queue.qsize() >= _MAX_UNTAKEN
            if self.read_paused and not was_paused:
                self.transport.pause_reading()
            return
        pieces, self.frames = self.frames, []
        message: Any = {"type": "websocket.receive", PIECES_KEY: pieces}
        self.queue.put_nowait(message)
        if not self.read_paused:
            self.read_paused = True
            self.transport.pause_reading()

    def _refuse_fragments(self) -> None:
        if self.close_sent or self.transport.is_closing():
            return
        # 1008, "policy violation" (RFC 6455, section 7.4.1). `fail` sends it and reads no more.
        self.frames = []
        self.conn.fail(_CLOSE_POLICY, f"more than {MAX_FRAGMENTS} fragments")
        self.handle_parser_exception()

    # The end.

    def handle_connect(self, event: Any) -> None:
        """Begin the handshake; one that cannot be a WebSocket's is over at once."""
        super().handle_connect(event)
        if self.handshake_complete:
            self._linger_on()

    async def run_asgi(self) -> None:
        """Run the application, which finds the connection's place in its scope."""
        self.scope["state"][PLACE_KEY] = self._place
        self.scope["state"][ROUND_TRIP_KEY] = lambda: self.last_ping_rtt or None
        await super().run_asgi()
        self._linger_on()

    def send(self, message: Any) -> Any:
        """Send an ASGI message; returns the awaitable itself, to save a coroutine per message."""
        match message["type"]:
            case "websocket.close":
                return self._close(message)
            case "websocket.http.response.body":
                return self._refuse(message)
            case _:
                return super().send(message)

    async def _refuse(self, message: Any) -> None:
        await super().send(message)
        # uvicorn knows no handshake that ends with a refusal, and logs each as an error of ours.
        self.handshake_complete = not message.get("more_body", False)

    async def _close(self, message: Any) -> None:
        # RFC 6455, section 7.1.1: whoever gets a close answers it and the server closes TCP. A peer
        # that does not gets 2 s.
        self._linger_on()  # first: a peer that reads nothing keeps the close from being sent
        await super().send(message)
        if self._is_write_paused:
            self.transport.pause_reading()

    def handle_parser_exception(self) -> None:
        """Close on a peer that does not keep to the protocol."""
        super().handle_parser_exception()
        self._linger_on()

    def handle_close(self, event: Frame) -> None:
        """Answer a close."""
        super().handle_close(event)
        self._linger_on()

    def schedule_ping(self) -> None:
        """Ping the peer after a while; soon, if it is for the first time."""
        super().schedule_ping()
        if not self._has_pinged and self.ping_timer is not None:
            self._has_pinged = True
            self.ping_timer.cancel()
            self.ping_timer = self.loop.call_later(_FIRST_PING_S, self.send_keepalive_ping)

    def keepalive_timeout(self) -> None:
        """Give a peer up that has not answered a ping, and tell the session why."""
        self.pong_timer = None
        self.pending_ping_payload = None
        # RFC 6455, section 7.4.1: 1006 is for a connection that ended without a close, and never
        # sent.
        self._tell("ping_timeout", 1006)
        self.disconnected = True
        self.transport.abort()

    def shutdown(self) -> None:
        """Say that the server stops."""
        if not self.close_sent:
            # 1012, "service restart", is in IANA's registry: clients may come again.
            self._tell("stopping", 1012)
        super().shutdown()
        self._linger_on()

    def _tell(self, cause: str, code: int) -> None:
        # `cause` is ours: a close reason could also be what the peer said.
        message: Any = {"type": "websocket.disconnect", "code": code, "cause": cause}
        self.queue.put_nowait(message)

    def _linger_on(self) -> None:
        if self._linger is None and not self.disconnected:
            self._linger = self.loop.call_later(LINGER_S, self.transport.abort)


def _cancel(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """Cancel a timer, if there is one; returns what takes its place."""
    if timer is not None:
        timer.cancel()
    return None
