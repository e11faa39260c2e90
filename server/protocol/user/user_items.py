"""Make items of the user's turns, and tell clients the words that were heard in them."""

from collections.abc import Callable, Iterable

from server.errors import ClientError
from server.images.picture import Picture
from server.protocol.events import InputAudio, Reaction, SpeechBegan
from server.protocol.items.items import AudioPart, ImagePart, Message
from server.protocol.moves import TurnMove
from server.protocol.server_events import (
    InputAudioBufferCommitted,
    InputTranscriptionFailed,
    ItemAdded,
    ItemDone,
    SpeechStopped,
)
from server.protocol.state import SessionState
from server.protocol.user.listening import Listening
from server.protocol.wire.checks import JsonObject

# Source: Realtime API reference, client events, input_audio_buffer.commit: an empty buffer is
# refused; the hosted service refuses less than 100 ms, in these words.
_MIN_COMMIT_MS = 100
_LOST: JsonObject = {
    "type": "transcription_error",
    "code": "engine_failed",
    "message": "The audio was lost before it could be transcribed.",
    "param": None,
}


class UserItems:
    """Follow turns from their beginning to their transcripts, with any kind of engine.

    Args:
        state: of the session.
        listening: holds the open turn.
    """

    def __init__(self, state: SessionState, listening: Listening) -> None:
        self._state = state
        self._listening = listening

    def began(self, event: SpeechBegan) -> tuple[int, str, list[InputAudio]]:
        """Begin a turn, or let the open one be announced.

        Returns:
            Where in the appended audio it starts, in milliseconds; its item; its audio so far.
        """
        # Its audio may begin earlier, by hand, or later, after what was kept.
        start_ms = (
            self._listening.starts_ms
            if self._listening.has_turn
            else max(event.audio_start_ms, self._listening.begins_ms)
        )
        return start_ms, *self._listening.began(start_ms)

    def undetected(self) -> list[InputAudio]:
        """Return what a commit by hand adds to the open turn, or opens it with.

        Raises:
            ClientError: there is too little audio to commit.
        """
        buffered_ms = self._listening.buffered_ms
        if buffered_ms < _MIN_COMMIT_MS:
            raise ClientError(
                "Error committing input audio buffer: buffer too small. Expected at least "
                f"{_MIN_COMMIT_MS}ms of audio, but buffer only has {buffered_ms:.2f}ms of audio.",
                code="input_audio_buffer_commit_empty",
            )
        # With voice detection on, what was not found to be speech can be committed by hand.
        return [] if self._listening.has_turn else self._listening.undetected()

    def committed(self) -> tuple[list[Reaction], str, int]:
        """Close the open turn by hand.

        Returns:
            What clients are told first; the turn's item; its length in milliseconds.
        """
        was_announced = self._listening.is_announced
        item_id, audio_ms = self._listening.closed(TurnMove.COMMIT)
        stopped = [SpeechStopped(self._listening.heard_ms, item_id)] if was_announced else []
        return [*stopped], item_id, audio_ms

    def added(
        self,
        item_id: str,
        audio_ms: int,
        after: str | None = None,
        pictures: tuple[Picture, ...] = (),
    ) -> list[Reaction]:
        """Make a closed turn an item.

        Args:
            item_id: of the turn.
            audio_ms: its length.
            after: the item that it follows, "root" for none; None for the conversation's last.
            pictures: that the camera has shown in it; they are no other turn's.
        """
        # The order is the reference's: committed, added, done. The transcript may come much later.
        # Sound first: clients look for the transcript in the first part.
        part = AudioPart("input_audio", None, audio_ms)
        shown = (ImagePart("auto", picture) for picture in pictures)
        item = Message(item_id, "user", "completed", (part, *shown))
        self._state.sight.shown(pictures)
        previous_id = self._state.conversation.insert(item, after)
        return [
            InputAudioBufferCommitted(previous_id, item_id),
            ItemAdded(previous_id, item),
            ItemDone(previous_id, item),
            *self.news(item_id),
        ]

    def words(self, text: str) -> list[Reaction]:
        """Take words that the engine heard in the turn."""
        return self.news(self._listening.words(text))

    def news(self, item_id: str | None) -> list[Reaction]:
        """Return the words of a turn that clients do not have yet, if they want any."""
        if not self._state.config.is_transcribing or item_id is None:
            return []
        return [*self._listening.news(item_id)]

    def lost(self, is_awaited: Callable[[str], bool]) -> list[Reaction]:
        """Say whose words will never be known, because the engine lost the session.

        Args:
            is_awaited: says whether a committed item is being heard again.
        """
        gone = self._listening.lost(is_awaited)
        failed = [InputTranscriptionFailed(item_id, 0, dict(_LOST)) for item_id in gone]
        return [*failed] if self._state.config.is_transcribing else []


def logprobs_json(logprobs: Iterable[tuple[str, float]]) -> tuple[JsonObject, ...]:
    """Write the log-probabilities of a transcript's tokens as clients read them."""
    # Source: Realtime API reference, …input_audio_transcription.completed, logprobs: the bytes are
    # the token's in UTF-8.
    return tuple(
        {"token": token, "logprob": round(logprob, 6), "bytes": [*token.encode()]}
        for token, logprob in logprobs
    )
