"""Hold the responses of a session: at most one is in progress, and one more may be owed."""

from typing import Literal, TypeAlias, assert_never

from model.engine.messages import Respond, ResponseAudio, ResponseText, ResponseWord
from model.engine.messages import ResponseDone as EngineResponseDone
from server.protocol.checks import JsonObject
from server.protocol.conversation import Conversation
from server.protocol.events import Reaction, ResponseCancel, ServerEvent
from server.protocol.feed import Feed
from server.protocol.ids import Ids
from server.protocol.items import AudioPart, TextPart
from server.protocol.moves import ResponseMove, ResponseState, next_response_state
from server.protocol.request import ResponseRequest
from server.protocol.response import Response
from server.protocol.session_config import VoiceMap
from server.protocol.speaking import Speaking

CancelReason: TypeAlias = Literal["turn_detected", "client_cancelled"]
ResponseOutput: TypeAlias = ResponseText | ResponseAudio | ResponseWord | EngineResponseDone


class Responses:
    """Begin, carry and end responses of the default conversation.

    Args:
        session_id: names the session to the engine.
        conversation: where replies go.
        feed: leads to the engine.
        voices: maps what clients ask for onto what the engine has.
        ids: makes ids.
        engine_rate_hz: of the engine's audio.
        frame_ms: length of one audio token.
    """

    def __init__(
        self,
        session_id: str,
        conversation: Conversation,
        feed: Feed,
        voices: VoiceMap,
        ids: Ids,
        *,
        engine_rate_hz: int,
        frame_ms: int,
    ) -> None:
        self._session_id = session_id
        self._conversation_id = ids.new("conv")
        self._conversation = conversation
        self._feed = feed
        self._voices = voices
        self._ids = ids
        self._rate_hz = engine_rate_hz
        self._frame_ms = frame_ms
        self._speaking: Speaking | None = None
        self._turn = 0
        # A turn ended while a response was running that speech may not interrupt.
        self._owed: ResponseRequest | None = None

    @property
    def is_active(self) -> bool:
        """Say whether a response is in progress."""
        return self._speaking is not None

    @property
    def is_speaking(self) -> bool:
        """Say whether a spoken response is in progress."""
        return self._speaking is not None and self._speaking.is_audio

    def part_of(self, item_id: str) -> TextPart | AudioPart | None:
        """Return the content so far of the item that is in progress, None if it is another's."""
        if self._speaking is None or self._speaking.item_id != item_id:
            return None
        return self._speaking.part

    def create(self, request: ResponseRequest) -> list[Reaction]:
        """Begin a response that the client asked for.

        Raises:
            ClientError: one is in progress.
        """
        if self._speaking is not None:
            active = self._speaking
            next_response_state(active.state, ResponseMove.CREATE, active.response.id)
        self._turn += 1
        self._speaking = Speaking(
            Response(self._ids.new("resp"), self._conversation_id, request),
            self._turn,
            self._ids.new("item"),
            self._conversation,
            self._rate_hz,
            self._frame_ms,
        )
        command = Respond(
            self._session_id,
            self._turn,
            self._speaking.item_id,
            self._voices.engine_voice(request.voice),
            audio=request.modality == "audio",
            max_output_tokens=request.max_output_tokens,
        )
        return [*self._speaking.announced(), *self._feed.respond(command)]

    def answer(self, request: ResponseRequest) -> list[Reaction]:
        """Answer a turn; while a response runs that may not be interrupted, afterwards."""
        if self._speaking is not None:
            self._owed = request
            return []
        return self.create(request)

    def cancel(self, event: ResponseCancel, now_s: float) -> list[Reaction]:
        """End the response that the client names.

        Raises:
            ClientError: it is not in progress.
        """
        active_id = self._speaking.response.id if self._speaking is not None else None
        if active_id is None or event.response_id not in (None, active_id):
            next_response_state(ResponseState.NONE, ResponseMove.CANCEL)
        return self.cut("client_cancelled", now_s)

    def cut(self, reason: CancelReason, now_s: float) -> list[Reaction]:
        """End the response now; what the engine still sends of it is stale.

        When speech cuts it short, the engine goes back to what can have been heard. A client that
        cancels by itself says by a truncation what was heard.
        """
        speaking = self._speaking
        assert speaking is not None, "there is a response to cut"
        self._speaking = self._owed = None
        details: JsonObject = {"type": "cancelled", "reason": reason}
        reactions: list[Reaction] = [
            *speaking.ended("cancelled", details, None, ResponseMove.CANCEL),
            *self._feed.cancel(speaking.turn),
        ]
        if reason == "turn_detected" and speaking.is_audio:
            reactions += self._feed.unsay(speaking.item_id, speaking.heard_ms(now_s))
        return reactions

    def failed(self, message: str) -> list[ServerEvent]:
        """End the response, if there is one, because the engine cannot go on."""
        if self._speaking is None:
            return []
        speaking, self._speaking = self._speaking, None
        failure = {"type": "server_error", "code": "engine_failed", "message": message}
        details: JsonObject = {"type": "failed", "error": failure}
        return speaking.ended("failed", details, None, ResponseMove.FINISH)

    def output(self, output: ResponseOutput, now_s: float) -> list[Reaction]:
        """Pass on what the engine made of the response in progress."""
        speaking = self._speaking
        # The one place where output of a response that is over is dropped.
        if speaking is None or output.turn != speaking.turn:
            return []
        match output:
            case ResponseText():
                return [*speaking.text(output.text)]
            case ResponseAudio():
                return [*speaking.audio(output.pcm, now_s)]
            case ResponseWord():
                speaking.word(output.text, output.start_ms)
                return []
            case EngineResponseDone():
                return self._finished(speaking, output)
            case _:
                assert_never(output)

    def _finished(self, speaking: Speaking, output: EngineResponseDone) -> list[Reaction]:
        self._speaking = None
        self._feed.finish()
        match output.reason:
            case "completed":
                events = speaking.ended("completed", None, output.usage, ResponseMove.FINISH)
            case "max_output_tokens":
                details = {"type": "incomplete", "reason": "max_output_tokens"}
                events = speaking.ended("incomplete", details, output.usage, ResponseMove.FINISH)
            case "cancelled":
                details = {"type": "cancelled", "reason": "client_cancelled"}
                events = speaking.ended("cancelled", details, output.usage, ResponseMove.FINISH)
            case _:
                assert_never(output.reason)
        owed, self._owed = self._owed, None
        return [*events, *(self.create(owed) if owed is not None else [])]
