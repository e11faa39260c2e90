"""Make replies, and the commands that start them."""

from collections.abc import Callable
from dataclasses import replace

from model.messages import Command, Open, Respond
from server.protocol.ids import Ids
from server.protocol.items.conversation import Conversation
from server.protocol.items.recordings import Recordings
from server.protocol.memory.profile import EngineProfile
from server.protocol.memory.replay import replayed
from server.protocol.reply.output_items import OutputItems
from server.protocol.reply.playout import Playout
from server.protocol.reply.reply import Reply
from server.protocol.reply.speaking import Speaking
from server.protocol.response import Response
from server.protocol.settings.config import VoiceMap
from server.protocol.settings.request import ResponseRequest
from server.protocol.settings.tools import engine_tools


class Beginning:
    """Turn requests into replies that the engine can make.

    Args:
        opening: gives the command that opens the session in the engine.
        conversation: where replies go.
        recordings: keep their sound.
        voices: maps what clients ask for onto what the engine has.
        ids: makes ids.
        profile: of the engine's sound.
        playout: follows it where the transport plays it; None: clients are sent it.
    """

    def __init__(
        self,
        opening: Callable[[], Open],
        conversation: Conversation,
        recordings: Recordings,
        voices: VoiceMap,
        ids: Ids,
        profile: EngineProfile,
        playout: Playout | None = None,
    ) -> None:
        self.session_id = opening().session_id
        self._opening = opening
        self._conversation_id = ids.new("conv")
        self._conversation = conversation
        self._recordings = recordings
        self._voices = voices
        self._ids = ids
        self._profile = profile
        self._playout = playout
        self._turn = 0

    def reply(self, request: ResponseRequest) -> Reply:
        """Make a reply that nobody has been told of."""
        self._turn += 1
        return self._made(request, self._turn, self._ids.new("resp"), self._ids.new("item"))

    def again(self, reply: Reply, request: ResponseRequest) -> Reply:
        """Make a reply that nobody has been told of anew, for another request."""
        return self._made(request, reply.turn, reply.response.id, reply.message.item_id)

    def _made(self, request: ResponseRequest, turn: int, response_id: str, item_id: str) -> Reply:
        is_in_band = request.destination == "auto"
        outputs = OutputItems(response_id, self._conversation if is_in_band else None)
        message = Speaking(
            response_id,
            item_id,
            request,
            outputs,
            self._recordings if is_in_band else None,
            self._profile,
            self._playout,
        )
        return Reply(
            Response(response_id, self._conversation_id if is_in_band else None, request),
            f"{self.session_id}/{response_id}" if request.is_aside else self.session_id,
            turn,
            message,
            outputs,
            self._ids.new,
        )

    def respond(self, reply: Reply, *, is_standing: bool = False) -> Respond:
        """Return what starts a reply where the engine remembers its context.

        Args:
            reply: to be started.
            is_standing: as in `Respond`.
        """
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
            is_standing=is_standing,
        )

    def with_own_memory(self, reply: Reply) -> list[Command]:
        """Return what starts a reply in a session of its own in the engine."""
        given = reply.response.request.input
        context = [
            command
            for item in (self._conversation.retold if given is None else given)
            for command in replayed(reply.engine_id, item, self._recordings.pcm)
        ]
        opening = replace(self._opening(), session_id=reply.engine_id)
        return [opening, *context, self.respond(reply)]
