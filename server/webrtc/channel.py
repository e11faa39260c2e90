"""Carry a session's events over the data channel that a client opens."""

import asyncio
import json
import re
from collections import deque
from collections.abc import Callable

from aiortc import InvalidStateError, RTCDataChannel

from server.errors import DisconnectedError
from server.protocol.dialects.ga import error_json
from server.protocol.events import EndReason, Hangup
from server.protocol.ids import RandomIds
from server.protocol.server_events import ErrorEvent
from server.transport.close_codes import CLOSE_CODES
from server.webrtc.offer import ChannelOffer

# The name that the API gives it; others that a client opens are left alone.
LABEL = "oai-events"

# SCTP takes what fits its window; above this a reader is slow, and `send` waits.
_MAX_BUFFERED_BYTES = 256 * 1_024
# Events that wait to be handled; the network itself gives a sender no reason to wait.
_MAX_WAITING_CHARS = 32 << 20
_MAX_WAITING_EVENTS = 4_096
_CLOSE_TIMEOUT_S = 1.0
_TYPE = re.compile(r'"type":\s*"([^"]{1,100})"')


class ChannelTransport:
    """Be a session's own connection on WebRTC.

    Events wait until the channel is open, which is shortly after the call is. Where the client
    offered none, there is nobody to send them to; other connections may see them.

    Args:
        offer: the client's, None if it has none.
        round_trip_s: returns the call's round trip, None while it is not known.
    """

    def __init__(
        self,
        offer: ChannelOffer | None,
        round_trip_s: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._offer = offer
        self._round_trip_s = round_trip_s
        self._channel: RTCDataChannel | None = None
        self._is_open = asyncio.Event()
        self._has_room = asyncio.Event()
        self._is_closed = asyncio.Event()
        self._waiting: deque[str] = deque()
        self._num_chars = 0
        self._has_waiting = asyncio.Event()
        self._is_over = False

    def take(self, channel: RTCDataChannel) -> None:
        """Use a channel that the client opened, if it is the one for events and the first."""
        if channel.label != LABEL or self._channel is not None:
            return
        self._channel = channel
        # High and low marks: `send` waits above 256 KiB and goes on below 128 KiB. With one mark
        # for both, `send` would wake for every packet that leaves.
        channel.bufferedAmountLowThreshold = _MAX_BUFFERED_BYTES // 2
        # A message may be in the packet that opened the channel: nothing may wait here.
        channel.on("message", self._on_message)
        channel.on("bufferedamountlow", self._has_room.set)
        channel.on("close", self.end)
        self._is_open.set()

    def end(self) -> None:
        """Note that the call is over; whoever waits for it is told."""
        self._is_over = True
        for event in (self._is_open, self._has_room, self._is_closed, self._has_waiting):
            event.set()

    async def receive(self) -> str:
        """Return the next event; a binary one, which the API does not have, as an empty text."""
        while not self._waiting:
            if self._is_over:
                raise DisconnectedError
            self._has_waiting.clear()
            await self._has_waiting.wait()
        text = self._waiting.popleft()
        self._num_chars -= len(text)
        return text

    async def send(self, text: str) -> None:
        """Send an event, waiting while the channel is not open or has no room."""
        if self._offer is None:
            return
        await self._is_open.wait()
        while not self._is_over and self._channel is not None:
            if self._channel.bufferedAmount <= _MAX_BUFFERED_BYTES:
                break
            self._has_room.clear()
            await self._has_room.wait()
        if self._is_over or self._channel is None:
            raise DisconnectedError
        limit = self._offer.max_message_bytes
        size = len(text) if text.isascii() else len(text.encode())
        try:
            self._channel.send(_fitting(text, size, limit) if limit and size > limit else text)
        except InvalidStateError:
            raise DisconnectedError from None

    @property
    def round_trip_s(self) -> float | None:
        """Return the round trip of the call's packets."""
        return self._round_trip_s()

    def close_code(self, reason: EndReason) -> int:
        """Return what a WebSocket would close with; a channel closes without a word."""
        return CLOSE_CODES[reason]

    async def close(self, hangup: Hangup) -> None:
        """Close the channel once everything has arrived; a peer that is gone is no error."""
        del hangup
        if self._is_over or self._channel is None:
            return
        self._channel.close()
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await self._is_closed.wait()
        except TimeoutError:
            return

    def _on_message(self, message: str | bytes) -> None:
        text = message if isinstance(message, str) else ""
        if self._is_over:
            return
        is_full = len(self._waiting) >= _MAX_WAITING_EVENTS
        if is_full or self._num_chars + len(text) > _MAX_WAITING_CHARS:
            self.end()  # it sends faster than anything could be handled
            return
        self._waiting.append(text)
        self._num_chars += len(text)
        self._has_waiting.set()


def _fitting(text: str, size: int, limit: int) -> str:
    """Return what is sent of an event that does not fit: an item goes without its sound."""
    if _kind(text) == "conversation.item.retrieved":
        event = json.loads(text)
        for part in event["item"].get("content", []):
            part.pop("audio", None)
            part.pop("format", None)
        text = json.dumps(event)
        if len(text) <= limit:
            return text
    return _too_large(text, size, limit)


def _kind(text: str) -> str:
    found = _TYPE.search(text[:200])
    return found[1] if found else ""


def _too_large(text: str, size: int, limit: int) -> str:
    """Return what is sent in place of an event that does not fit."""
    # The limit is the client's own, from its offer (RFC 8841, section 6). aiortc would raise for
    # what is above it, and the event would be lost without a word.
    message = (
        f"The event '{_kind(text)}' of {size} bytes is larger than the {limit} bytes "
        "that the data channel takes. A WebSocket with the call's id gets it."
    )
    event = ErrorEvent("server_error", "message_too_large", message, None, None)
    return json.dumps(error_json(event, RandomIds().new("event")))
