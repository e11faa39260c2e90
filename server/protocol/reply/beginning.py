"""Make replies, and the commands that start them."""

from dataclasses import replace

from model.messages import Command, Respond
from server.protocol.calls.calls import Calls
from server.protocol.memory.replay import replayed
from server.protocol.reply.output_items import OutputItems
from server.protocol.reply.playout import Playout
from server.protocol.reply.reply import Reply
from server.protocol.reply.speaking import Speaking
from server.protocol.response import Response
from server.protocol.settings.request import ResponseRequest
from server.protocol.state import SessionState

# The ids of a response are made before anybody is told of it, so that an early reply, and one that
# a duplex model may begin at any time, are the same objects as all others. `_turn` counts
# responses: it is what the engine's outputs bear, and what makes an old one stale.


class Beginning:
    """Turn requests into replies that the engine can make.

    Args:
        state: of the session.
        calls: follow the calls that replies make.
        playout: follows the sound where the transport plays it; None: clients are sent it.
    """

    def __init__(self, state: SessionState, calls: Calls, playout: Playout | None = None) -> None:
        self._state = state
        self._calls = calls
        self._conversation_id = state.ids.new("conv")
        self._playout = playout
        self._turn = 0

    def reply(self, request: ResponseRequest) -> Reply:
        """Make a reply that nobody has been told of."""
        self._turn += 1
        ids = self._state.ids
        return self._made(request, self._turn, ids.new("resp"), ids.new("item"))

    def again(self, reply: Reply, request: ResponseRequest) -> Reply:
        """Make a reply that nobody has been told of anew, for another request."""
        return self._made(request, reply.turn, reply.response.id, reply.message.item_id)

    def _made(self, request: ResponseRequest, turn: int, response_id: str, item_id: str) -> Reply:
        is_in_band, session_id = request.destination == "auto", self._state.session_id
        outputs = OutputItems(response_id, self._state.conversation if is_in_band else None)
        message = Speaking(
            response_id,
            item_id,
            request,
            outputs,
            self._state.recordings if is_in_band else None,
            self._state.profile,
            self._playout,
        )
        return Reply(
            Response(response_id, self._conversation_id if is_in_band else None, request),
            f"{session_id}/{response_id}" if request.is_aside else session_id,
            turn,
            message,
            outputs,
            self._state.ids.new,
            self._state.listings.toolbox(request.tools, request.tool_choice, is_in_band=is_in_band),
            self._calls if is_in_band else None,
        )

    def respond(self, reply: Reply, *, is_standing: bool = False) -> Respond:
        """Return what starts a reply where the engine remembers its context.

        Args:
            reply: to be started.
            is_standing: as in `Respond`.
        """
        request = reply.response.request
        return Respond(
            reply.engine_id,
            reply.turn,
            reply.message.item_id,
            self._state.voices.engine_voice(request.voice),
            audio=request.modality == "audio",
            max_output_tokens=request.max_output_tokens,
            instructions=request.instructions,
            tools=reply.toolbox.tools,
            tool_choice=reply.toolbox.choice,
            is_standing=is_standing,
        )

    def with_own_memory(self, reply: Reply) -> list[Command]:
        """Return what starts a reply in a session of its own in the engine."""
        given = reply.response.request.input
        items = self._state.conversation.retold if given is None else given
        context = [
            command
            for item in items
            for command in replayed(reply.engine_id, item, self._state.recordings.pcm)
        ]
        opening = replace(self._state.opening(), session_id=reply.engine_id)
        return [opening, *context, self.respond(reply)]
