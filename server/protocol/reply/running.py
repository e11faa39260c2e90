"""Carry the responses of a session that are in progress, and end them.

At most one is in progress in the conversation. Beside it run those that need another memory than
the conversation's: out of band, or with an input of their own. Each of these has a session of its
own in the engine, opened for it and closed after it.
"""

from collections.abc import Mapping
from typing import Literal, TypeAlias

from model.messages import Close, DoneReason, ResponseEnd, ResponseFailed, ResponseStarted
from server.protocol.delegate.outcomes import DropAsk
from server.protocol.events import Reaction
from server.protocol.filters.verdicts import Blocked, ResponseOutput, Retell
from server.protocol.items.items import AudioPart, Message, Part, with_heard_ms
from server.protocol.memory.feed import Feed
from server.protocol.moments import ReplyBegun
from server.protocol.moves import ResponseMove, ResponseState, next_response_state
from server.protocol.reply.reply import Reply
from server.protocol.reply.speaking import Speaking
from server.protocol.response import ResponseStatus
from server.protocol.state import SessionState
from server.protocol.wire.checks import JsonObject
from server.protocol.wire.client_events import ResponseCancel

CancelReason: TypeAlias = Literal["turn_detected", "client_cancelled"]

# Source: Realtime API reference, the response object, status and status_details.
# What the engine says of an end → status and its details on the wire.
_ENDS: Mapping[DoneReason, tuple[ResponseStatus, JsonObject | None]] = {
    "completed": ("completed", None),
    "max_output_tokens": ("incomplete", {"type": "incomplete", "reason": "max_output_tokens"}),
    "cancelled": ("cancelled", {"type": "cancelled", "reason": "client_cancelled"}),
}
# Why a response can fail: code → type of the error.
_ERROR_TYPES = {
    "context_length_exceeded": "invalid_request_error",
    "engine_failed": "server_error",
    "rate_limit_exceeded": "rate_limit_error",
    "response_failed": "server_error",
    "session_expired": "invalid_request_error",
}


# A worked example of an interruption. A reply of 4 s was made and sent within 1 s; the user speaks
# 1.5 s after its first audio. `cut` then
#
#     ends the response        response.done, status cancelled, reason turn_detected
#     tells the engine         Cancel(turn 3): what it still makes of turn 3 is stale
#     says what was heard      at most 1,500 ms, since a client plays in real time: the item's words
#                              end there, and Truncate(item, 1500) lets the model forget the rest
#
# A client that heard less, because it buffers, says so by conversation.item.truncate afterwards.
#
# Source: Realtime API reference, client events, response.cancel, and server events, response.done;
# Realtime guide, "Realtime conversations", interruption and truncation.


class Running:
    """Hold the responses in progress.

    Args:
        state: of the session.
        feed: leads to the engine's memory of the conversation.

    Attributes:
        default: the one in progress in the conversation, None if none is.
        asides: those with a session of their own in the engine, by its id.
    """

    def __init__(self, state: SessionState, feed: Feed) -> None:
        self._state = state
        self._feed = feed
        self.default: Reply | None = None
        self.asides: dict[str, Reply] = {}
        # The message that may still be played although its response is done.
        self._said: Speaking | None = None

    @property
    def is_active(self) -> bool:
        """Say whether a response of the conversation is in progress."""
        return self.default is not None

    @property
    def is_speaking(self) -> bool:
        """Say whether a spoken response of the conversation is in progress."""
        return self.default is not None and self.default.message.is_audio

    def is_heard(self, now_s: float) -> bool:
        """Say whether a response of the conversation is in progress, or what it said is heard."""
        return self.is_active or (self._said is not None and self._said.is_played(now_s))

    def unheard(self, item_id: str | None = None) -> None:
        """Note that a client plays no more of an item, or of anything."""
        if self._said is not None and item_id in (None, self._said.item_id):
            self._said = None

    def part_of(self, item_id: str) -> Part | None:
        """Return the content so far of the message in progress, None if it is another item's."""
        if self.default is None or not self.default.is_making(item_id):
            return None
        message = self.default.message
        return message.part if message.item_id == item_id else None

    def is_making(self, item_id: str) -> bool:
        """Say whether an item of the conversation is being made."""
        return self.default is not None and self.default.is_making(item_id)

    def refuse_second(self) -> None:
        """Refuse to begin another response of the conversation while one is in progress.

        Raises:
            ClientError: one is.
        """
        if self.default is not None:
            active = self.default
            next_response_state(active.state, ResponseMove.CREATE, active.response.id)

    def begin(self, reply: Reply) -> list[Reaction]:
        """Announce a response of the conversation."""
        self.default = reply
        return [*reply.announced()]

    def named(self, event: ResponseCancel) -> Reply:
        """Return the response that a client names, or the conversation's if it names none.

        Raises:
            ClientError: it is not in progress.
        """
        reply = self.default
        if event.response_id is not None:
            running = [self.default, *self.asides.values()]
            named = [r for r in running if r is not None and r.response.id == event.response_id]
            reply = named[0] if named else None
        if reply is None:
            next_response_state(ResponseState.NONE, ResponseMove.CANCEL)
        assert reply is not None
        return reply

    def made_by(self, output: ResponseOutput) -> Reply | None:
        """Return the response in progress that an output belongs to; None if it is stale."""
        # An aside has a session of its own in the engine, whose id the output bears.
        reply = self.asides.get(output.session_id)
        if output.session_id == self._state.session_id and self.default is not None:
            reply = self.default
        # The one place where output of a response that is over is dropped.
        if reply is None or (output.session_id, output.turn) != (reply.engine_id, reply.turn):
            return None
        return reply

    @property
    def all(self) -> list[Reply]:
        """Return all that are in progress."""
        running = {id(reply): reply for reply in (self.default, *self.asides.values()) if reply}
        return [*running.values()]

    def output(self, output: ResponseOutput, now_s: float) -> list[Reaction]:
        """Pass on what the engine made of a response in progress."""
        if isinstance(output, Retell):
            # Also of a response that is over: what it made is remembered.
            if output.session_id == self._state.session_id:
                self._feed.outdate()
            return []
        reply = self.made_by(output)
        if reply is None:
            return []
        if isinstance(output, Blocked):
            return self._blocked(reply)
        if isinstance(output, ResponseEnd):
            return self._finished(reply, output, now_s)
        if isinstance(output, ResponseStarted):
            self._state.moments.append(ReplyBegun(reply.response.id, now_s))
        # A reply that went on with calls cannot be cut within its words any more: see `called`.
        reactions = reply.take(output, now_s)
        if reply.has_called:
            self._feed.called(reply.message.item_id)
        return reactions

    def _finished(self, reply: Reply, output: ResponseEnd, now_s: float) -> list[Reaction]:
        if isinstance(output, ResponseFailed):
            return self._fail(reply, "response_failed", output.message, now_s)
        status, details = _ENDS[output.reason]
        events = reply.ended(ResponseMove.FINISH, status, details, output.usage)
        return [*events, *self._left(reply)]

    def cut(self, reply: Reply, reason: CancelReason, now_s: float) -> list[Reaction]:
        """End a response now; what the engine still sends of it is stale."""
        details: JsonObject = {"type": "cancelled", "reason": reason}
        is_own = reply.engine_id == self._state.session_id and reply.is_the_engines
        reactions: list[Reaction] = [*reply.ended(ResponseMove.CANCEL, "cancelled", details)]
        if is_own:
            reactions += self._feed.cancel(reply.turn)
        reactions += self._left(reply)
        heard_ms = self._unsaid(reply, reply.message.heard_ms(now_s))
        if is_own and heard_ms is not None:
            reactions += self._feed.unsay(reply.message.item_id, heard_ms)
        return reactions

    def failed(self, code: str, message: str, now_s: float) -> list[Reaction]:
        """End all responses, because the session cannot go on."""
        return [event for reply in self.all for event in self._fail(reply, code, message, now_s)]

    def lost(self, message: str, now_s: float) -> list[Reaction]:
        """End the conversation's response, because the engine lost the session."""
        if self.default is None:
            return []
        return self._fail(self.default, "engine_failed", message, now_s)

    def aside_failed(self, engine_id: str, message: str, now_s: float) -> list[Reaction]:
        """End a response whose own session in the engine is lost."""
        reply = self.asides.get(engine_id)
        return [] if reply is None else self._fail(reply, "engine_failed", message, now_s)

    def refused(self, engine_id: str) -> list[Reaction]:
        """End a response for which the engine has no slot."""
        message = "No slot is free for a response beside the conversation. Try again later."
        # Nothing of it was made, so the time of its end does not matter.
        return self._fail(self.asides[engine_id], "rate_limit_exceeded", message, 0.0)

    def is_default(self, output: ResponseOutput) -> bool:
        """Say whether the engine made an output of the conversation's response, and from it."""
        reply = self.default
        made = (output.session_id, output.turn)
        own = self._state.session_id
        return reply is not None and made == (own, reply.turn) and reply.engine_id == own

    def too_long(self, reply: Reply) -> list[Reaction]:
        """End a response before it is made: it would be based on too much."""
        message = (
            "There is more than a response may be based on, and the session's 'truncation' is "
            "'disabled'. Delete items, give fewer, or let the server drop the oldest."
        )
        return self._fail(reply, "context_length_exceeded", message, 0.0)

    def _blocked(self, reply: Reply) -> list[Reaction]:
        """End a response that a check has refused; what was sent of it has passed, and stays."""
        details: JsonObject = {"type": "incomplete", "reason": "content_filter"}
        is_own = reply.engine_id == self._state.session_id and reply.is_the_engines
        reactions: list[Reaction] = [*reply.ended(ResponseMove.FINISH, "incomplete", details)]
        if is_own:
            reactions += self._feed.cancel(reply.turn)
        reactions += self._left(reply)
        heard_ms = self._unsaid(reply, reply.message.audio_ms)
        if is_own and heard_ms is None:
            # Of what was written the engine can only be told anew.
            self._feed.outdate()
        elif is_own and heard_ms is not None:
            reactions += self._feed.unsay(reply.message.item_id, heard_ms)
        return reactions

    def _unsaid(self, reply: Reply, heard_ms: int) -> int | None:
        """Let a response that was stopped have said no more than was played.

        This holds whoever stopped the response. A client that heard less says so by a truncation.

        Args:
            reply: that was stopped.
            heard_ms: the most that can have been played by now.

        Returns:
            Where in its audio, in the engine's own time, it ends for the model; None for all of it.
        """
        message = reply.message
        if message.item_id in self._state.conversation:
            item = self._state.conversation[message.item_id]
            if not isinstance(item, Message) or not message.is_audio:
                return None
            self._state.conversation.replace(with_heard_ms(item, heard_ms))
        part = message.part
        return part.model_ms(heard_ms) if isinstance(part, AudioPart) else 0

    def _fail(self, reply: Reply, code: str, message: str, now_s: float) -> list[Reaction]:
        error = {"type": _ERROR_TYPES[code], "code": code, "message": message}
        details: JsonObject = {"type": "failed", "error": error}
        events = reply.ended(ResponseMove.FINISH, "failed", details)
        left = self._left(reply)
        heard_ms = self._unsaid(reply, reply.message.heard_ms(now_s))
        # The engine that made it may be gone, with its memory. The next engine is told what was
        # heard.
        is_own = reply.engine_id == self._state.session_id and reply.is_the_engines
        is_known = code == "response_failed" and is_own
        if is_known and heard_ms is not None:
            left += self._feed.unsay(reply.message.item_id, heard_ms)
        return [*events, *left]

    def _left(self, reply: Reply) -> list[Reaction]:
        """Let go of a response that has ended."""
        if reply is self.default:
            self.default = None
            self._said = reply.message if reply.message.is_audio else reply.voiced
        delegated = reply.delegated
        dropped: list[Reaction] = []
        if delegated is not None and delegated.ask_id is not None:
            dropped.append(DropAsk(delegated.ask_id))
        if reply.engine_id == self._state.session_id:
            self._feed.finish()
            is_untold = delegated is not None and delegated.has_begun and not delegated.is_told
            # The engine remembers half a call, where clients take it for none; or it does not know
            # what a text model has said.
            if reply.has_half_a_call or (is_untold and not reply.is_the_engines):
                self._feed.outdate()
            return dropped
        del self.asides[reply.engine_id]
        if reply.response.request.destination == "auto":
            # It answered from a memory of its own; the conversation's is to have it too.
            self._feed.outdate()
        return [*dropped, *([Close(reply.engine_id)] if reply.is_open_aside else [])]
