"""Run one session's protocol: events in, reactions out, no I/O and no clock of its own.

`SessionMachine.receive` takes what a client sent, what the session heard in the client's audio,
or what the engine made of it, and returns what is to be sent to the client and to the engine, in
order. A `ClientError` means that the client's event was refused and nothing has changed; the
session goes on.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, assert_never

from model.engine.messages import (
    AppendText,
    EndOfTurn,
    InputTranscript,
    InputTranscriptDelta,
    Open,
    Output,
    Pcm,
    Respond,
    ResponseAudio,
    ResponseText,
    ResponseWord,
    SessionFailed,
)
from model.engine.messages import ResponseDone as EngineResponseDone
from server.errors import ClientError
from server.protocol.checks import JsonObject
from server.protocol.events import (
    ClientEvent,
    ErrorEvent,
    Hangup,
    Heard,
    InputAudio,
    InputAudioBufferAppend,
    InputAudioBufferClear,
    InputAudioBufferCleared,
    InputAudioBufferCommit,
    InputAudioBufferCommitted,
    ItemAdded,
    ItemCreate,
    ItemDelete,
    ItemDeleted,
    ItemDone,
    ItemRetrieve,
    ItemRetrieved,
    ItemTruncate,
    ItemTruncated,
    Reaction,
    ResponseCancel,
    ResponseCreate,
    SessionCreated,
    SessionUpdate,
    SessionUpdated,
    SpeechBegan,
    SpeechEnded,
    SpeechStarted,
    SpeechStopped,
)
from server.protocol.feed import Feed
from server.protocol.ids import Ids
from server.protocol.items import (
    AudioPart,
    Conversation,
    Message,
    parse_item,
    truncated,
    with_audio_ms,
    with_transcript,
)
from server.protocol.listening import Listening
from server.protocol.moves import ResponseMove, ResponseState, TurnMove, next_response_state
from server.protocol.response import Response, ResponseRequest, parse_request, session_request
from server.protocol.session_config import SessionConfig, VoiceMap
from server.protocol.session_update import updated
from server.protocol.speaking import Speaking

_MIN_COMMIT_MS = 100  # the API refuses to commit less
# Clients count played time by their own clocks and frames; this much over the end is the end.
_TRUNCATE_SLACK_MS = 200
CLOSE_INTERNAL_ERROR = 1011  # RFC 6455, section 7.4.1

CancelReason = Literal["turn_detected", "client_cancelled"]


@dataclass(frozen=True, slots=True)
class EngineProfile:
    """Say what the machine must know of its engine."""

    sample_rate_hz: int
    frame_ms: int


@dataclass(frozen=True, slots=True)
class Limits:
    """Bound what one session may hold.

    Attributes:
        max_items: items of the conversation.
        max_kept_audio_s: audio of an open or undetected turn that is kept.
    """

    max_items: int = 2_000
    max_kept_audio_s: int = 30


class SessionMachine:
    """Hold the protocol state of one session."""

    def __init__(
        self,
        config: SessionConfig,
        profile: EngineProfile,
        voices: VoiceMap,
        ids: Ids,
        limits: Limits,
    ) -> None:
        self.config = config
        self._profile = profile
        self._voices = voices
        self._ids = ids
        self._conversation_id = ids.new("conv")
        self._conversation = Conversation(limits.max_items)
        max_kept_samples = limits.max_kept_audio_s * profile.sample_rate_hz
        self._listening = Listening(profile.sample_rate_hz, max_kept_samples, ids)
        self._feed = Feed(config.id, max_kept_samples, self._history, self._listening.hears_again)
        self._speaking: Speaking | None = None
        self._turn = 0
        # A turn ended while a response was running that speech may not interrupt.
        self._is_response_owed = False

    def start(self) -> list[Reaction]:
        """Open the session: a slot in the engine, then the first event."""
        return [self._opening(), SessionCreated(self.config)]

    def receive(
        self, event: ClientEvent | Heard | Output, now_s: float, audio: Pcm | None = None
    ) -> list[Reaction]:
        """Take one event and return what follows from it.

        Args:
            event: from the client, from the session's ears or from the engine.
            now_s: seconds on any clock that does not jump.
            audio: for an `ItemCreate` that carries audio: float32 [samples] at the engine's rate.

        Raises:
            ClientError: the client's event is refused; nothing has changed.
        """
        match event:
            case InputAudio() | SpeechBegan() | SpeechEnded():
                return self._on_heard(event, now_s)
            case (
                InputTranscriptDelta()
                | InputTranscript()
                | EndOfTurn()
                | ResponseText()
                | ResponseAudio()
                | ResponseWord()
                | EngineResponseDone()
                | SessionFailed()
            ):
                return self._on_output(event, now_s)
            case SessionUpdate():
                return self._on_session_update(event)
            case InputAudioBufferAppend() | InputAudioBufferCommit() | InputAudioBufferClear():
                return self._on_buffer_event(event)
            case ItemCreate() | ItemRetrieve() | ItemTruncate() | ItemDelete():
                return self._on_item_event(event, now_s, audio)
            case ResponseCreate():
                return self._on_response_create(event)
            case ResponseCancel():
                return self._on_response_cancel(event, now_s)
            case _:
                assert_never(event)

    # Configuration.

    def _on_session_update(self, event: SessionUpdate) -> list[Reaction]:
        before = self.config
        self.config = updated(
            before, event.session, self._voices, is_voice_locked=self._has_assistant_audio
        )
        if self.config.instructions != before.instructions:
            self._feed.outdate()
        if self.config.turn_detection is None:
            self._listening.forget_preroll()
        return [SessionUpdated(self.config)]

    @property
    def _has_assistant_audio(self) -> bool:
        is_speaking = self._speaking is not None and self._speaking.is_audio
        return is_speaking or any(
            item.output_audio is not None and item.output_audio.audio_ms
            for item in self._conversation
        )

    # The user's turn.

    def _on_heard(self, event: Heard, now_s: float) -> list[Reaction]:
        match event:
            case InputAudio(pcm):
                is_detecting = self.config.turn_detection is not None
                return self._fed(self._listening.audio(pcm, is_detecting=is_detecting))
            case SpeechBegan():
                return self._on_speech_began(event, now_s)
            case SpeechEnded():
                return self._on_speech_ended(event)
            case _:
                assert_never(event)

    def _fed(self, chunks: list[Pcm]) -> list[Reaction]:
        return [command for pcm in chunks for command in self._feed.audio(pcm)]

    def _on_speech_began(self, event: SpeechBegan, now_s: float) -> list[Reaction]:
        was_announced = self._listening.is_announced
        item_id, chunks = self._listening.began(event.audio_start_ms)
        if was_announced:
            return self._fed(chunks)
        reactions: list[Reaction] = [SpeechStarted(event.audio_start_ms, item_id)]
        detection = self.config.turn_detection
        if self._speaking is not None and detection is not None and detection.interrupt_response:
            self._is_response_owed = False
            reactions += self._cancelled("turn_detected", now_s)
        return [*reactions, *self._fed(chunks)]

    def _on_speech_ended(self, event: SpeechEnded) -> list[Reaction]:
        item_id, audio_ms = self._listening.closed(TurnMove.END)
        reactions: list[Reaction] = [
            SpeechStopped(event.audio_end_ms, item_id),
            *self._committed(item_id, audio_ms),
        ]
        detection = self.config.turn_detection
        if detection is not None and detection.create_response:
            reactions += self._own_response()
        return reactions

    def _on_buffer_event(
        self, event: InputAudioBufferAppend | InputAudioBufferCommit | InputAudioBufferClear
    ) -> list[Reaction]:
        match event:
            case InputAudioBufferAppend():
                raise AssertionError("appended audio comes as what the session heard in it")
            case InputAudioBufferCommit():
                return self._on_commit()
            case InputAudioBufferClear():
                self._listening.cleared()
                return [InputAudioBufferCleared(), *self._feed.clear()]
            case _:
                assert_never(event)

    def _on_commit(self) -> list[Reaction]:
        buffered_ms = self._listening.buffered_ms
        if buffered_ms < _MIN_COMMIT_MS:
            raise ClientError(
                "Error committing input audio buffer: buffer too small. Expected at least "
                f"{_MIN_COMMIT_MS}ms of audio, but buffer only has {buffered_ms:.2f}ms of audio.",
                code="input_audio_buffer_commit_empty",
            )
        # With voice detection on, what was not found to be speech can be committed by hand.
        undetected = [] if self._listening.has_turn else self._listening.undetected()
        fed = self._fed(undetected)
        return [*fed, *self._committed(*self._listening.closed(TurnMove.COMMIT))]

    def _committed(self, item_id: str, audio_ms: int) -> list[Reaction]:
        """Make a closed turn an item."""
        part = AudioPart("input_audio", None, audio_ms)
        item = Message(item_id, "user", "completed", (part,))
        previous_id = self._conversation.append(item)
        return [
            InputAudioBufferCommitted(previous_id, item_id),
            ItemAdded(previous_id, item),
            ItemDone(previous_id, item),
            *self._transcript_news(item_id),
            *self._feed.commit(item_id),
        ]

    def _transcript_news(self, item_id: str | None) -> list[Reaction]:
        if self.config.transcription is None or item_id is None:
            return []
        return [*self._listening.news(item_id)]

    # Items.

    def _on_item_event(
        self,
        event: ItemCreate | ItemRetrieve | ItemTruncate | ItemDelete,
        now_s: float,
        audio: Pcm | None,
    ) -> list[Reaction]:
        match event:
            case ItemCreate():
                return self._on_item_create(event, audio)
            case ItemRetrieve():
                item = self._conversation.demand(event.item_id, "retrieving", "retrieve")
                return [ItemRetrieved(item)]
            case ItemTruncate():
                return self._on_item_truncate(event, now_s)
            case ItemDelete():
                return self._on_item_delete(event, now_s)
            case _:
                assert_never(event)

    def _on_item_create(self, event: ItemCreate, audio: Pcm | None) -> list[Reaction]:
        item = parse_item(event.item, self._ids.new("item"))
        self._conversation.check_room(item.id)
        if audio is not None:
            audio_ms = len(audio) * 1000 // self._profile.sample_rate_hz
            item = with_audio_ms(item, audio_ms)
        previous_id = self._conversation.insert(item, event.previous_item_id)
        added: list[Reaction] = [ItemAdded(previous_id, item), ItemDone(previous_id, item)]
        is_last = self._conversation.last_id == item.id
        if not is_last:
            self._feed.outdate()
        elif item.words:
            added += self._feed.text(self._text_command(item))
        if audio is not None and len(audio) and is_last:
            self._listening.item_audio(item.id, len(audio))
            added += self._feed.item_audio(audio, item.id)
        return added

    def _on_item_truncate(self, event: ItemTruncate, now_s: float) -> list[Reaction]:
        item = self._conversation.demand(event.item_id, "truncating", "truncate")
        speaking = self._speaking if self._speaking and self._speaking.item_id == item.id else None
        audio = speaking.part if speaking else item.output_audio
        if not isinstance(audio, AudioPart) or event.content_index > 0:
            raise ClientError(
                "Only model output audio messages can be truncated",
                code="unsupported_content_type",
                param="item_id",
            )
        if event.audio_end_ms > audio.audio_ms + _TRUNCATE_SLACK_MS:
            raise ClientError(
                f"Audio content of {audio.audio_ms}ms is already shorter than "
                f"{event.audio_end_ms}ms",
                code="invalid_value",
                param="audio_end_ms",
            )
        reactions = self._cancelled("client_cancelled", now_s) if speaking else []
        reactions.append(ItemTruncated(item.id, event.content_index, event.audio_end_ms))
        if event.audio_end_ms < audio.audio_ms:
            shorter = truncated(self._conversation[item.id], event.audio_end_ms)
            self._conversation.replace(shorter)
            reactions += self._feed.unsay(item.id, event.audio_end_ms)
        return reactions

    def _on_item_delete(self, event: ItemDelete, now_s: float) -> list[Reaction]:
        self._conversation.demand(event.item_id, "deleting", "delete")
        reactions: list[Reaction] = []
        if self._speaking is not None and self._speaking.item_id == event.item_id:
            reactions += self._cancelled("client_cancelled", now_s)
        self._conversation.remove(event.item_id)
        return [*reactions, ItemDeleted(event.item_id), *self._feed.unsay(event.item_id, 0)]

    # Responses.

    def _on_response_create(self, event: ResponseCreate) -> list[Reaction]:
        request = parse_request(
            event.response,
            self.config,
            self._voices,
            is_voice_locked=self._has_assistant_audio,
        )
        return self._new_response(request)

    def _on_response_cancel(self, event: ResponseCancel, now_s: float) -> list[Reaction]:
        is_other = (
            event.response_id is not None
            and self._speaking is not None
            and event.response_id != self._speaking.response.id
        )
        if self._speaking is None or is_other:
            # Raises: there is nothing to cancel.
            next_response_state(ResponseState.NONE, ResponseMove.CANCEL)
        self._is_response_owed = False
        return self._cancelled("client_cancelled", now_s)

    def _own_response(self) -> list[Reaction]:
        """Answer a turn; while a response runs that may not be interrupted, afterwards."""
        if self._speaking is not None:
            self._is_response_owed = True
            return []
        return self._new_response(session_request(self.config))

    def _new_response(self, request: ResponseRequest) -> list[Reaction]:
        if self._speaking is not None:
            # Raises: one at a time.
            active = self._speaking
            next_response_state(active.state, ResponseMove.CREATE, active.response.id)
        self._turn += 1
        self._speaking = Speaking(
            Response(self._ids.new("resp"), self._conversation_id, request),
            self._turn,
            self._ids.new("item"),
            self._conversation,
            self._profile.sample_rate_hz,
            self._profile.frame_ms,
        )
        command = Respond(
            self.config.id,
            self._turn,
            self._speaking.item_id,
            self._voices.engine_voice(request.voice),
            audio=request.modality == "audio",
            max_output_tokens=request.max_output_tokens,
        )
        return [*self._speaking.announced(), *self._feed.respond(command)]

    def _cancelled(self, reason: CancelReason, now_s: float) -> list[Reaction]:
        """End the response now; what the engine still sends of it is stale.

        When speech cut it short, the engine goes back to what can have been heard. A client that
        cancels by itself says by a truncation what was heard.
        """
        speaking = self._speaking
        assert speaking is not None, "there is a response to cancel"
        self._speaking = None
        details: JsonObject = {"type": "cancelled", "reason": reason}
        reactions: list[Reaction] = [
            *speaking.ended("cancelled", details, None, ResponseMove.CANCEL),
            *self._feed.cancel(speaking.turn),
        ]
        if reason == "turn_detected" and speaking.is_audio:
            reactions += self._feed.unsay(speaking.item_id, speaking.heard_ms(now_s))
        return reactions

    # What the engine says.

    def _on_output(self, output: Output, now_s: float) -> list[Reaction]:
        match output:
            case InputTranscriptDelta():
                return self._transcript_news(self._listening.words(output.text))
            case InputTranscript():
                return self._on_transcript(output)
            case EndOfTurn():
                # For the session's ears, which decide when a turn ends.
                return []
            case SessionFailed():
                return self._on_failure(output.message)
            case ResponseText() | ResponseAudio() | ResponseWord() | EngineResponseDone():
                # The one place where output of a response that is over is dropped.
                if self._speaking is None or output.turn != self._speaking.turn:
                    return []
                return self._on_response_output(self._speaking, output, now_s)
            case _:
                assert_never(output)

    def _on_response_output(
        self,
        speaking: Speaking,
        output: ResponseText | ResponseAudio | ResponseWord | EngineResponseDone,
        now_s: float,
    ) -> list[Reaction]:
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
        self._feed.finish()
        reactions: list[Reaction] = [*events]
        if self._is_response_owed:
            self._is_response_owed = False
            reactions += self._own_response()
        return reactions

    def _on_transcript(self, output: InputTranscript) -> list[Reaction]:
        text = output.text.strip()
        self._feed.transcribed()
        completed = self._listening.transcribed(output.item_id, text)
        if output.item_id not in self._conversation:
            return []
        item = self._conversation[output.item_id]
        self._conversation.replace(with_transcript(item, text))
        return [] if self.config.transcription is None else [*completed]

    def _on_failure(self, message: str) -> list[Reaction]:
        reactions: list[Reaction] = []
        if self._speaking is not None:
            speaking, self._speaking = self._speaking, None
            failure = {"type": "server_error", "code": "engine_failed", "message": message}
            details: JsonObject = {"type": "failed", "error": failure}
            reactions += speaking.ended("failed", details, None, ResponseMove.FINISH)
        return [
            *reactions,
            ErrorEvent("server_error", "engine_failed", message, None, None),
            Hangup(CLOSE_INTERNAL_ERROR, "server_error.engine_failed"),
        ]

    # The engine's memory.

    def _opening(self) -> Open:
        voice = self._voices.engine_voice(self.config.voice)
        return Open(self.config.id, voice, self.config.instructions)

    def _history(self) -> tuple[Open, Iterable[AppendText]]:
        """Say the whole conversation again, for an engine that must learn it anew."""
        items = [self._text_command(item) for item in self._conversation if item.words]
        return self._opening(), items

    def _text_command(self, item: Message) -> AppendText:
        # JSON can carry halves of surrogate pairs, which are no text.
        text = item.words.encode("utf-8", "replace").decode("utf-8")
        return AppendText(self.config.id, item.id, item.role, text)
