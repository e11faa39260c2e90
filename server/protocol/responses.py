"""Hold the responses of a session.

At most one response is in progress in the conversation, and one more may be owed. Beside them run
those that need another memory than the conversation's: out of band, or with an input of their own.
Each of these has a session of its own in the engine, opened for it and closed after it.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal, TypeAlias

from model.engine.messages import Close, Command, DoneReason, Open, Respond, ResponseFailed
from model.engine.messages import ResponseDone as EngineResponseDone
from server.protocol.checks import JsonObject
from server.protocol.conversation import Conversation
from server.protocol.events import Reaction, ResponseCancel
from server.protocol.feed import Feed
from server.protocol.ids import Ids
from server.protocol.items import AudioPart, FunctionCall, Message, Part, with_heard_ms
from server.protocol.moves import ResponseMove, ResponseState, next_response_state
from server.protocol.output_items import OutputItems
from server.protocol.profile import EngineProfile
from server.protocol.recordings import Recordings
from server.protocol.replay import replayed
from server.protocol.reply import Made, Reply
from server.protocol.request import ResponseRequest
from server.protocol.response import Response, ResponseStatus
from server.protocol.session_config import VoiceMap
from server.protocol.speaking import Speaking
from server.protocol.tools import engine_tools

CancelReason: TypeAlias = Literal["turn_detected", "client_cancelled"]
ResponseOutput: TypeAlias = Made | EngineResponseDone | ResponseFailed

# What the engine says of an end → status and its details on the wire.
_ENDS: Mapping[DoneReason, tuple[ResponseStatus, JsonObject | None]] = {
    "completed": ("completed", None),
    "max_output_tokens": ("incomplete", {"type": "incomplete", "reason": "max_output_tokens"}),
    "cancelled": ("cancelled", {"type": "cancelled", "reason": "client_cancelled"}),
}
# Each takes one of the engine's slots, which all sessions share.
_MAX_ASIDES = 4


class Responses:
    """Begin, carry and end responses.

    Args:
        opening: gives the command that opens the session in the engine.
        conversation: where replies go.
        recordings: keep their sound.
        feed: leads to the engine's memory of the conversation.
        voices: maps what clients ask for onto what the engine has.
        ids: makes ids.
        profile: of the engine's sound.
    """

    def __init__(
        self,
        opening: Callable[[], Open],
        conversation: Conversation,
        recordings: Recordings,
        feed: Feed,
        voices: VoiceMap,
        ids: Ids,
        profile: EngineProfile,
    ) -> None:
        self._opening = opening
        self._session_id = opening().session_id
        self._conversation_id = ids.new("conv")
        self._conversation = conversation
        self._recordings = recordings
        self._feed = feed
        self._voices = voices
        self._ids = ids
        self._profile = profile
        self._turn = 0
        self._default: Reply | None = None  # the one in progress in the conversation
        self._asides: dict[str, Reply] = {}  # by their sessions in the engine
        # A turn ended while a response was running that speech may not interrupt.
        self._owed: ResponseRequest | None = None

    @property
    def is_active(self) -> bool:
        """Say whether a response of the conversation is in progress."""
        return self._default is not None

    @property
    def is_speaking(self) -> bool:
        """Say whether a spoken response of the conversation is in progress."""
        return self._default is not None and self._default.message.is_audio

    def part_of(self, item_id: str) -> Part | None:
        """Return the content so far of the message in progress, None if it is another item's."""
        if self._default is None or not self._default.is_making(item_id):
            return None
        message = self._default.message
        return message.part if message.item_id == item_id else None

    def is_making(self, item_id: str) -> bool:
        """Say whether an item of the conversation is being made."""
        return self._default is not None and self._default.is_making(item_id)

    # Beginnings.

    def create(self, request: ResponseRequest) -> list[Reaction]:
        """Begin a response that the client asked for.

        Raises:
            ClientError: it is for the conversation, and one is in progress there.
        """
        if request.destination == "auto" and self._default is not None:
            active = self._default
            next_response_state(active.state, ResponseMove.CREATE, active.response.id)
        reply = self._new(request)
        if request.destination == "auto":
            self._default = reply
        if not request.is_aside:
            return [*reply.announced(), *self._feed.respond(self._respond(reply))]
        self._asides[reply.engine_id] = reply
        if len(self._asides) > _MAX_ASIDES:
            return [*reply.announced(), *self.refused(reply.engine_id)]
        return [*reply.announced(), *self._with_own_memory(reply)]

    def prepare(self, request: ResponseRequest) -> tuple[Reply, Respond]:
        """Make a response of the conversation that nobody is told of, and what starts it."""
        assert not self.is_active, "the next response follows the one in progress"
        reply = self._new(request)
        return reply, self._respond(reply)

    def begin(self, reply: Reply) -> list[Reaction]:
        """Announce a prepared response, which the engine has been told to make."""
        self._default = reply
        return [*reply.announced()]

    def answer(self, request: ResponseRequest) -> list[Reaction]:
        """Answer a turn; while a response runs that may not be interrupted, afterwards."""
        if self._default is not None:
            self._owed = request
            return []
        return self.create(request)

    def _new(self, request: ResponseRequest) -> Reply:
        self._turn += 1
        is_in_band = request.destination == "auto"
        response_id = self._ids.new("resp")
        outputs = OutputItems(response_id, self._conversation if is_in_band else None)
        message = Speaking(
            response_id,
            self._ids.new("item"),
            request,
            outputs,
            self._recordings if is_in_band else None,
            self._profile,
        )
        return Reply(
            Response(response_id, self._conversation_id if is_in_band else None, request),
            f"{self._session_id}/{response_id}" if request.is_aside else self._session_id,
            self._turn,
            message,
            outputs,
            self._ids.new,
        )

    def _respond(self, reply: Reply) -> Respond:
        request = reply.response.request
        tools, tool_choice = engine_tools(request.tools, request.tool_choice)
        return Respond(
            reply.engine_id,
            reply.turn,
            reply.message.item_id,
            self._voices.engine_voice(request.voice),
            audio=request.modality == "audio",
            max_output_tokens=request.max_output_tokens,
            instructions=request.instructions,
            tools=tools,
            tool_choice=tool_choice,
        )

    def _with_own_memory(self, reply: Reply) -> list[Command]:
        given = reply.response.request.input
        context = [
            command
            for item in (self._conversation if given is None else given)
            for command in replayed(reply.engine_id, item, self._recordings.pcm)
        ]
        opening = replace(self._opening(), session_id=reply.engine_id)
        return [opening, *context, self._respond(reply)]

    # What the engine makes of them.

    def output(self, output: ResponseOutput, now_s: float) -> list[Reaction]:
        """Pass on what the engine made of a response in progress."""
        reply = self._asides.get(output.session_id)
        if output.session_id == self._session_id and self._default is not None:
            reply = self._default
        # The one place where output of a response that is over is dropped.
        if reply is None or (output.session_id, output.turn) != (reply.engine_id, reply.turn):
            return []
        if isinstance(output, (EngineResponseDone, ResponseFailed)):
            return self._finished(reply, output)
        events = reply.take(output, now_s)
        if reply.has_called:
            self._feed.called(reply.message.item_id)
        return [*events]

    def _finished(
        self, reply: Reply, output: EngineResponseDone | ResponseFailed
    ) -> list[Reaction]:
        is_default = reply is self._default
        if isinstance(output, ResponseFailed):
            reactions = self._fail(reply, "response_failed", output.message)
        else:
            status, details = _ENDS[output.reason]
            events = reply.ended(ResponseMove.FINISH, status, details, output.usage)
            reactions = [*events, *self._left(reply)]
        return [*reactions, *(self.resumed() if is_default else [])]

    # Ends.

    def cancel(self, event: ResponseCancel, now_s: float) -> list[Reaction]:
        """End the response that the client names, or the conversation's if it names none.

        Raises:
            ClientError: it is not in progress.
        """
        reply = self._default
        if event.response_id is not None:
            running = [self._default, *self._asides.values()]
            named = [r for r in running if r is not None and r.response.id == event.response_id]
            reply = named[0] if named else None
        if reply is None:
            next_response_state(ResponseState.NONE, ResponseMove.CANCEL)
        assert reply is not None
        return self._cut(reply, "client_cancelled", now_s)

    def cut(self, reason: CancelReason, now_s: float) -> list[Reaction]:
        """End the conversation's response now; what the engine still sends of it is stale."""
        assert self._default is not None, "there is a response to cut"
        return self._cut(self._default, reason, now_s)

    def failed(self, code: str, message: str) -> list[Reaction]:
        """End all responses, because the session cannot go on."""
        running = {id(reply): reply for reply in (self._default, *self._asides.values()) if reply}
        self._owed = None
        return [event for reply in running.values() for event in self._fail(reply, code, message)]

    def lost(self, message: str) -> list[Reaction]:
        """End the conversation's response, because the engine lost the session."""
        return [] if self._default is None else self._fail(self._default, "engine_failed", message)

    def resumed(self) -> list[Reaction]:
        """Begin the response that is owed, if one is."""
        owed, self._owed = self._owed, None
        return [] if owed is None else self.create(owed)

    def aside_failed(self, engine_id: str, message: str) -> list[Reaction]:
        """End a response whose own session in the engine is lost."""
        reply = self._asides.get(engine_id)
        return [] if reply is None else self._fail(reply, "engine_failed", message)

    def refused(self, engine_id: str) -> list[Reaction]:
        """End a response for which the engine has no slot."""
        message = "No slot is free for a response beside the conversation. Try again later."
        return self._fail(self._asides[engine_id], "rate_limit_exceeded", message)

    def _cut(self, reply: Reply, reason: CancelReason, now_s: float) -> list[Reaction]:
        details: JsonObject = {"type": "cancelled", "reason": reason}
        if reply is self._default:
            self._owed = None
        was_silent = reply.state is ResponseState.CREATED
        is_own = reply.engine_id == self._session_id
        reactions: list[Reaction] = [*reply.ended(ResponseMove.CANCEL, "cancelled", details)]
        if is_own:
            reactions += self._feed.cancel(reply.turn)
        reactions += self._left(reply)
        if reason == "turn_detected" or was_silent:
            reactions += self._unheard(reply, now_s, is_own=is_own)
        return reactions

    def _unheard(self, reply: Reply, now_s: float, *, is_own: bool) -> list[Command]:
        """Forget what cannot have been heard by now of a response that was cut short.

        When speech cuts it short, that is what was not played. A client that cancels by itself
        says by a truncation what was heard; but what it was never sent, it has not heard.
        """
        message, heard_ms = reply.message, reply.message.heard_ms(now_s)
        if message.item_id in self._conversation:
            item = self._conversation[message.item_id]
            if not isinstance(item, Message) or not message.is_audio:
                return []
            self._conversation.replace(with_heard_ms(item, heard_ms))
        part = message.part
        model_ms = part.model_ms(heard_ms) if isinstance(part, AudioPart) else 0
        return self._feed.unsay(message.item_id, model_ms) if is_own else []

    def _fail(self, reply: Reply, code: str, message: str) -> list[Reaction]:
        kind = "rate_limit_error" if code == "rate_limit_exceeded" else "server_error"
        details: JsonObject = {
            "type": "failed",
            "error": {"type": kind, "code": code, "message": message},
        }
        events = reply.ended(ResponseMove.FINISH, "failed", details)
        return [*events, *self._left(reply)]

    def _left(self, reply: Reply) -> list[Command]:
        """Let go of a response that has ended."""
        if reply is self._default:
            self._default = None
        if reply.engine_id == self._session_id:
            self._feed.finish()
            calls = [item for item in reply.response.output if isinstance(item, FunctionCall)]
            if any(call.status == "incomplete" for call in calls):
                # The engine remembers half a call; clients take it for none.
                self._feed.outdate()
            return []
        del self._asides[reply.engine_id]
        if reply.response.request.destination == "auto":
            # It answered from a memory of its own; the conversation's is to have it too.
            self._feed.outdate()
        return [Close(reply.engine_id)]
