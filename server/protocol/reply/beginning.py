"""Make replies, and the commands that start them."""

from dataclasses import replace

from model.messages import Command, Respond
from server.protocol.calls.calls import Calls
from server.protocol.events import Reaction
from server.protocol.memory.replay import replayed
from server.protocol.reply.output_items import OutputItems
from server.protocol.reply.playout import Playout
from server.protocol.reply.reply import Reply
from server.protocol.reply.speaking import Speaking
from server.protocol.response import Response
from server.protocol.settings.config import Modality
from server.protocol.settings.request import ResponseRequest
from server.protocol.state import SessionState

# The ids of a response are made before clients are told of it. So an early reply, or one that a
# duplex model may begin at any time, is an object like all others. `_turn` counts responses.
# Outputs of the engine carry this number, by which an old output is recognised as stale.


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
        message = self._message(request, response_id, item_id, outputs)
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

    def _message(
        self, request: ResponseRequest, response_id: str, item_id: str, outputs: OutputItems
    ) -> Speaking:
        return Speaking(
            response_id,
            item_id,
            request,
            outputs,
            self._state.recordings if request.destination == "auto" else None,
            self._state.info,
            self._playout,
        )

    def go_on(self, reply: Reply, modality: Modality) -> list[Reaction]:
        """Let a reply go on with another message, which the engine has not been asked for."""
        self._turn += 1
        request = replace(reply.response.request, modality=modality)
        item_id = self._state.ids.new("item")
        return reply.go_on(
            self._message(request, reply.response.id, item_id, reply.outputs), self._turn
        )

    def recital(self, reply: Reply) -> Respond:
        """Return what starts a reply whose words are given to the engine."""
        return replace(self.respond(reply), tools=(), tool_choice="none", recites=True)

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

    def with_own_memory(self, reply: Reply, command: Respond | None = None) -> list[Command]:
        """Return what starts a reply in a session of its own in the engine.

        Args:
            reply: to be started.
            command: that starts it; None for its own.
        """
        reply.is_open_aside = True
        given = reply.response.request.input
        items = self._state.conversation.retold if given is None else given
        context = [
            command
            for item in items
            for command in replayed(reply.engine_id, item, self._state.recordings.pcm)
        ]
        opening = replace(self._state.opening(), session_id=reply.engine_id)
        return [opening, *context, command or self.respond(reply)]
