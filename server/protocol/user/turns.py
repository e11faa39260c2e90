"""Follow the user's turns: where they begin and end, what becomes of them, what was said.

A pause may be the end of a turn. The reply is then begun at once and kept back: if the user goes
on, neither the client nor the model learns of it; if not, it is there already.
"""

from collections.abc import Callable
from typing import assert_never

from model.messages import InputTranscript, InputTranscriptDelta, Output
from server.errors import ClientError
from server.protocol.events import (
    EndInDoubt,
    Heard,
    InputAudio,
    Reaction,
    SpeechBegan,
    SpeechDismissed,
    SpeechEnded,
    SpeechPaused,
    SpeechResumed,
    SpeechSuspected,
)
from server.protocol.ids import Ids
from server.protocol.items.conversation import Conversation
from server.protocol.items.items import AudioPart, Message, with_transcript
from server.protocol.memory.feed import Feed
from server.protocol.moves import TurnMove
from server.protocol.reply.responses import Responses
from server.protocol.server_events import (
    InputAudioBufferCleared,
    InputAudioBufferCommitted,
    InputTranscriptionFailed,
    ItemAdded,
    ItemDone,
    SpeechStarted,
    SpeechStopped,
    TimeoutTriggered,
)
from server.protocol.settings.config import SessionConfig
from server.protocol.settings.request import session_request
from server.protocol.user.doubt import Doubt
from server.protocol.user.listening import Listening
from server.protocol.user.speculation import Speculation
from server.protocol.wire.checks import JsonObject
from server.protocol.wire.client_events import InputAudioBufferClear, InputAudioBufferCommit

_MIN_COMMIT_MS = 100  # the API refuses to commit less
_LOST: JsonObject = {
    "type": "transcription_error",
    "code": "engine_failed",
    "message": "The audio was lost before it could be transcribed.",
    "param": None,
}


class Turns:
    """Turn what was heard, and what the client does to the input buffer, into items and answers.

    Args:
        config: gives the session's configuration as it is now.
        listening: holds the open turn.
        conversation: where turns go.
        responses: answer them, and are cut short by them.
        feed: leads to the engine.
        hush: stops what a transport plays by itself.
        doubt: holds back what a transport plays while it is not certain that the user interrupts.
        ids: makes ids.
    """

    def __init__(
        self,
        config: Callable[[], SessionConfig],
        listening: Listening,
        conversation: Conversation,
        responses: Responses,
        feed: Feed,
        hush: Callable[[], list[Reaction]],
        doubt: Doubt,
        ids: Ids,
    ) -> None:
        self._config = config
        self._listening = listening
        self._conversation = conversation
        self._responses = responses
        self._feed = feed
        self._hush = hush
        self._doubt = doubt
        self._ids = ids
        self._speculation: Speculation | None = None
        # Of commits that were tentative at first: the engine's name → the item.
        self._items: dict[str, str] = {}

    def heard(self, event: Heard, now_s: float) -> list[Reaction]:
        """Take what the session heard in appended audio."""
        match event:
            case InputAudio():
                is_detecting = self._config().turn_detection is not None
                return self._fed(self._listening.audio(event, is_detecting=is_detecting))
            case SpeechBegan():
                return self._speech_began(event, now_s)
            case SpeechEnded():
                return self._speech_ended(event, now_s)
            case SpeechSuspected():
                return [*self._doubt.begin(now_s)]
            case SpeechDismissed():
                return [*self._doubt.end()]
            case SpeechPaused():
                return self._speculate()
            case SpeechResumed():
                return [*self._feed.withdraw()]
            case EndInDoubt():
                return [*self._feed.check_turn()]
            case _:
                assert_never(event)

    def would_interrupt(self, now_s: float) -> bool:
        """Say whether speech that begins now would end a reply, or stop it from being heard."""
        detection = self._config().turn_detection
        may_interrupt = detection is not None and detection.interrupt_response
        return may_interrupt and self._responses.is_heard(now_s)

    def buffer(self, event: InputAudioBufferCommit | InputAudioBufferClear) -> list[Reaction]:
        """Commit or clear the input buffer by hand.

        Raises:
            ClientError: there is too little audio to commit.
        """
        match event:
            case InputAudioBufferCommit():
                return self._commit()
            case InputAudioBufferClear():
                self._listening.cleared()
                return [InputAudioBufferCleared(), *self._feed.clear()]
            case _:
                assert_never(event)

    def words(self, output: InputTranscriptDelta) -> list[Reaction]:
        """Take words that the engine heard in the turn."""
        return self._transcript_news(self._listening.words(output.text))

    def transcript(self, output: InputTranscript) -> list[Reaction]:
        """Take the final words of a committed turn."""
        item_id = self._items.pop(output.item_id, output.item_id)
        if not self._feed.transcribed(output.item_id):
            return []
        return self._transcribed(item_id, output.text.strip())

    def _transcribed(self, item_id: str, text: str) -> list[Reaction]:
        completed = self._listening.transcribed(item_id, text)
        if item_id not in self._conversation:
            return []
        item = self._conversation[item_id]
        assert isinstance(item, Message), "only messages have audio"
        self._conversation.replace(with_transcript(item, text))
        return [] if not self._config().is_transcribing else [*completed]

    def _fed(self, chunks: list[InputAudio]) -> list[Reaction]:
        return [command for chunk in chunks for command in self._feed.audio(chunk.pcm)]

    def _speech_began(self, event: SpeechBegan, now_s: float) -> list[Reaction]:
        was_announced = self._listening.is_announced
        # Its audio may begin earlier, by hand, or later, after what was kept.
        start_ms = (
            self._listening.starts_ms
            if self._listening.has_turn
            else max(event.audio_start_ms, self._listening.begins_ms)
        )
        item_id, chunks = self._listening.began(start_ms)
        if was_announced:
            return self._fed(chunks)
        reactions: list[Reaction] = [SpeechStarted(start_ms, item_id)]
        detection = self._config().turn_detection
        if detection and detection.interrupt_response:
            if self._responses.is_active:
                reactions += self._responses.cut("turn_detected", now_s)
            # A transport may still be playing a response that is done.
            reactions += self._hush()
        reactions += self._doubt.end()
        # Clients stop playing when they are told of speech.
        self._responses.unheard()
        return [*reactions, *self._fed(chunks)]

    def _speech_ended(self, event: SpeechEnded, now_s: float) -> list[Reaction]:
        item_id, audio_ms = self._listening.closed(TurnMove.END)
        stopped = SpeechStopped(event.audio_end_ms, item_id)
        if self._feed.is_speculating:
            return [stopped, *self._foreseen(item_id, audio_ms, now_s)]
        return [stopped, *self._committed(item_id, audio_ms), *self._answered()]

    @property
    def _is_answering(self) -> bool:
        """Say whether the end of a turn asks for a response."""
        config = self._config()
        detection = config.turn_detection
        return config.kind == "realtime" and detection is not None and detection.create_response

    def _answered(self) -> list[Reaction]:
        if not self._is_answering:
            return []
        return self._responses.answer(session_request(self._config()))

    # A reply before its time.

    def _speculate(self) -> list[Reaction]:
        """Begin the reply that the turn will get if it is over."""
        is_free = self._feed.can_speculate and not self._responses.is_active
        if not self._is_answering or not is_free:
            return []
        reply, command = self._responses.prepare(session_request(self._config()))
        self._speculation = Speculation(self._ids.new("item"), reply)
        return [*self._feed.speculate(self._speculation.commit_id, command)]

    def _foreseen(self, item_id: str, audio_ms: int, now_s: float) -> list[Reaction]:
        """Make the turn an item, and tell of the reply what there is of it."""
        assert self._speculation is not None, "a reply was begun"
        speculation, self._speculation = self._speculation, None
        reactions = self._added(item_id, audio_ms)
        self._feed.confirm(item_id)
        self._items[speculation.commit_id] = item_id
        if speculation.transcript is not None:
            reactions += self.transcript(speculation.transcript)
        reactions += self._responses.begin(speculation.reply)
        for output in speculation.made:
            reactions += self._responses.output(output, now_s)
        return reactions

    def holds(self, output: Output) -> bool:
        """Keep back what belongs to a reply before its time, and say whether it did."""
        return self._speculation is not None and self._speculation.takes(output)

    # Ends of another kind.

    def idled(self, silence_ms: int) -> list[Reaction]:
        """Make a turn of the user's silence.

        Args:
            silence_ms: the most of it that becomes the turn.
        """
        if self._listening.has_turn:
            return []
        end_ms = self._listening.heard_ms
        start_ms = max(end_ms - silence_ms, self._listening.begins_ms)
        item_id, chunks = self._listening.began(start_ms, is_speech=False)
        fed = self._fed(chunks)
        committed = self._committed(*self._listening.closed(TurnMove.END))
        triggered = TimeoutTriggered(start_ms, end_ms, item_id)
        return [triggered, *fed, *committed, *self._answered()]

    def lost(self) -> list[Reaction]:
        """Tell a new session of the engine everything, because it lost the old one."""
        commands = self._feed.lost()
        self._speculation = None
        self._items.clear()
        gone = self._listening.lost(self._feed.awaits)
        failed = [InputTranscriptionFailed(item_id, 0, dict(_LOST)) for item_id in gone]
        told = failed if self._config().is_transcribing else []
        return [*told, *commands]

    def _commit(self) -> list[Reaction]:
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
        was_announced = self._listening.is_announced
        item_id, audio_ms = self._listening.closed(TurnMove.COMMIT)
        stopped = [SpeechStopped(self._listening.heard_ms, item_id)] if was_announced else []
        return [*fed, *stopped, *self._committed(item_id, audio_ms)]

    def _committed(self, item_id: str, audio_ms: int) -> list[Reaction]:
        """Make a closed turn an item, here and in the engine."""
        is_silence = self._listening.is_silence(item_id)
        added = self._added(item_id, audio_ms)
        if not is_silence:
            return [*added, *self._feed.commit(item_id)]
        transcribed = self._transcribed(item_id, "")
        item = self._conversation[item_id]
        assert isinstance(item, Message), "a turn is a message"
        return [*added, *transcribed, *self._feed.commit_silence(item)]

    def _added(self, item_id: str, audio_ms: int) -> list[Reaction]:
        """Make a closed turn an item."""
        part = AudioPart("input_audio", None, audio_ms)
        item = Message(item_id, "user", "completed", (part,))
        previous_id = self._placed(item)
        return [
            InputAudioBufferCommitted(previous_id, item_id),
            ItemAdded(previous_id, item),
            ItemDone(previous_id, item),
            *self._transcript_news(item_id),
        ]

    def _placed(self, item: Message) -> str | None:
        """Put a turn into the conversation; returns the item before it."""
        return self._conversation.append(item)

    def _transcript_news(self, item_id: str | None) -> list[Reaction]:
        if not self._config().is_transcribing or item_id is None:
            return []
        return [*self._listening.news(item_id)]
