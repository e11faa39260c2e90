"""Follow the user's turns: where they begin and end, what becomes of them, what was said."""

from collections.abc import Callable
from typing import assert_never

from model.engine.messages import InputTranscript, InputTranscriptDelta, Pcm
from server.errors import ClientError
from server.protocol.conversation import Conversation
from server.protocol.events import (
    Heard,
    InputAudio,
    InputAudioBufferClear,
    InputAudioBufferCleared,
    InputAudioBufferCommit,
    InputAudioBufferCommitted,
    ItemAdded,
    ItemDone,
    Reaction,
    SpeechBegan,
    SpeechEnded,
    SpeechStarted,
    SpeechStopped,
)
from server.protocol.feed import Feed
from server.protocol.items import AudioPart, Message, with_transcript
from server.protocol.listening import Listening
from server.protocol.moves import TurnMove
from server.protocol.request import session_request
from server.protocol.responses import Responses
from server.protocol.session_config import SessionConfig

_MIN_COMMIT_MS = 100  # the API refuses to commit less


class Turns:
    """Turn what was heard, and what the client does to the input buffer, into items and answers.

    Args:
        config: gives the session's configuration as it is now.
        listening: holds the open turn.
        conversation: where turns go.
        responses: answer them, and are cut short by them.
        feed: leads to the engine.
    """

    def __init__(
        self,
        config: Callable[[], SessionConfig],
        listening: Listening,
        conversation: Conversation,
        responses: Responses,
        feed: Feed,
    ) -> None:
        self._config = config
        self._listening = listening
        self._conversation = conversation
        self._responses = responses
        self._feed = feed

    def heard(self, event: Heard, now_s: float) -> list[Reaction]:
        """Take what the session heard in appended audio."""
        match event:
            case InputAudio(pcm):
                is_detecting = self._config().turn_detection is not None
                return self._fed(self._listening.audio(pcm, is_detecting=is_detecting))
            case SpeechBegan():
                return self._speech_began(event, now_s)
            case SpeechEnded():
                return self._speech_ended(event)
            case _:
                assert_never(event)

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
        text = output.text.strip()
        self._feed.transcribed()
        completed = self._listening.transcribed(output.item_id, text)
        if output.item_id not in self._conversation:
            return []
        item = self._conversation[output.item_id]
        assert isinstance(item, Message), "only messages have audio"
        self._conversation.replace(with_transcript(item, text))
        return [] if self._config().transcription is None else [*completed]

    def _fed(self, chunks: list[Pcm]) -> list[Reaction]:
        return [command for pcm in chunks for command in self._feed.audio(pcm)]

    def _speech_began(self, event: SpeechBegan, now_s: float) -> list[Reaction]:
        was_announced = self._listening.is_announced
        item_id, chunks = self._listening.began(event.audio_start_ms)
        if was_announced:
            return self._fed(chunks)
        reactions: list[Reaction] = [SpeechStarted(event.audio_start_ms, item_id)]
        detection = self._config().turn_detection
        if self._responses.is_active and detection and detection.interrupt_response:
            reactions += self._responses.cut("turn_detected", now_s)
        return [*reactions, *self._fed(chunks)]

    def _speech_ended(self, event: SpeechEnded) -> list[Reaction]:
        item_id, audio_ms = self._listening.closed(TurnMove.END)
        reactions: list[Reaction] = [
            SpeechStopped(event.audio_end_ms, item_id),
            *self._committed(item_id, audio_ms),
        ]
        detection = self._config().turn_detection
        if detection is not None and detection.create_response:
            reactions += self._responses.answer(session_request(self._config()))
        return reactions

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
        if self._config().transcription is None or item_id is None:
            return []
        return [*self._listening.news(item_id)]
