"""Follow the user's turns: where they begin and end, what becomes of them, what was said.

A pause may be the end of a turn. The reply is then begun at once and kept back: if the user goes
on, neither the client nor the model learns of it; if not, it is there already.
"""

from typing import Protocol, assert_never

from model.messages import InputTranscript, InputTranscriptDelta, Pixels
from server.images.picture import Picture
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
from server.protocol.filters.verdicts import Passed, RedactedTranscript
from server.protocol.items.items import Message, with_transcript
from server.protocol.memory.context import Context
from server.protocol.memory.feed import TurnFeed
from server.protocol.moves import TurnMove
from server.protocol.reply.responses import TurnResponses
from server.protocol.reply.shortening import Shortening
from server.protocol.server_events import (
    InputAudioBufferCleared,
    SpeechStarted,
    SpeechStopped,
    TimeoutTriggered,
)
from server.protocol.settings.config import SessionConfig
from server.protocol.state import SessionState
from server.protocol.user.doubt import Doubt
from server.protocol.user.listening import Listening
from server.protocol.user.speculation import Speculation
from server.protocol.user.user_items import UserItems, logprobs_json
from server.protocol.wire.client_events import InputAudioBufferClear, InputAudioBufferCommit


class Turns(Protocol):
    """Turn what was heard, and what clients do to the input buffer, into items."""

    def heard(self, event: Heard, now_s: float) -> list[Reaction]:
        """Take what the session heard in appended audio."""
        ...

    def would_interrupt(self, now_s: float) -> bool:
        """Say whether speech that begins now would end a reply, or stop it from being heard."""
        ...

    def buffer(self, event: InputAudioBufferCommit | InputAudioBufferClear) -> list[Reaction]:
        """Commit or clear the input buffer by hand.

        Raises:
            ClientError: there is too little audio to commit.
        """
        ...

    def words(self, output: InputTranscriptDelta) -> list[Reaction]:
        """Take words that the engine heard in the turn."""
        ...

    def transcript(self, output: InputTranscript) -> list[Reaction]:
        """Take the final words of a committed turn."""
        ...

    def holds(self, output: Passed) -> bool:
        """Keep back what belongs to a reply before its time, and say whether it did."""
        ...

    def idled(self, silence_ms: int) -> list[Reaction]:
        """Take note of the user's silence.

        Args:
            silence_ms: the most of it that becomes a turn.
        """
        ...

    def reconfigured(self, before: SessionConfig) -> list[Reaction]:
        """Follow a change of the session's configuration."""
        ...

    def lost(self) -> list[Reaction]:
        """Tell a new session of the engine everything, because it lost the old one."""
        ...


# A worked example of an early reply, with server_vad. Times are of the appended audio, in
# milliseconds.
#
#     heard                 to the engine                       to the client
#     SpeechBegan(700)      AppendAudio                         speech_started
#     InputAudio ...        AppendAudio ...
#     SpeechPaused          CommitAudio(tentative), Respond     nothing
#     (the engine answers: transcript, words, audio: `holds` keeps them back)
#
#     either the user goes on:
#     SpeechResumed         Reopen, AppendAudio (the pause)     nothing: what was held is stale
#
#     or the turn is over:
#     SpeechEnded(2900)     nothing: it was told already        speech_stopped, committed, the item,
#                                                               its transcript, response.created,
#                                                               and what was held back, in order
#
# Source: Realtime guide, "Voice activity detection"; Realtime API reference, server events,
# input_audio_buffer.speech_started to .committed, in this order. That a reply may begin in the
# pause is ours: no event shows it.


class AnsweredTurns:
    """Follow turns that an engine is told of, and that it answers.

    Args:
        state: of the session.
        listening: holds the open turn.
        responses: answer turns, and are cut short by them.
        feed: leads to the engine.
        context: keeps its memory within its bounds.
        shortening: stops what a transport plays by itself.
        doubt: holds it back while it is not certain that the user interrupts.
    """

    def __init__(
        self,
        state: SessionState,
        listening: Listening,
        responses: TurnResponses,
        feed: TurnFeed,
        context: Context,
        shortening: Shortening,
        doubt: Doubt,
    ) -> None:
        self._state = state
        self._listening = listening
        self._responses = responses
        self._feed = feed
        self._context = context
        self._shortening = shortening
        self._doubt = doubt
        self._user_items = UserItems(state, listening)
        self._speculation: Speculation | None = None
        # Of commits that were tentative at first: the engine's name → the item.
        self._items: dict[str, str] = {}

    def heard(self, event: Heard, now_s: float) -> list[Reaction]:
        """Take what the session heard in appended audio."""
        match event:
            case InputAudio():
                is_detecting = self._state.config.turn_detection is not None
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
        detection = self._state.config.turn_detection
        may_interrupt = detection is not None and detection.interrupt_response
        return may_interrupt and self._responses.running.is_heard(now_s)

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
        return self._user_items.words(output.text)

    def transcript(self, output: InputTranscript) -> list[Reaction]:
        """Take the final words of a committed turn."""
        item_id = self._items.pop(output.item_id, output.item_id)
        if not self._feed.transcribed(output.item_id):
            return []
        if isinstance(output, RedactedTranscript):
            # The model has heard what was taken out.
            self._feed.outdate()
        return self._transcribed(item_id, output.text.strip(), output.logprobs)

    def _transcribed(
        self, item_id: str, text: str, logprobs: tuple[tuple[str, float], ...] = ()
    ) -> list[Reaction]:
        wanted = logprobs_json(logprobs) if self._state.config.includes_logprobs else None
        completed = self._listening.transcribed(item_id, text, wanted)
        if item_id not in self._state.conversation:
            return []
        item = self._state.conversation[item_id]
        assert isinstance(item, Message), "only messages have audio"
        self._state.conversation.replace(with_transcript(item, text))
        return [] if not self._state.config.is_transcribing else [*completed]

    def _fed(self, chunks: list[InputAudio]) -> list[Reaction]:
        return [command for chunk in chunks for command in self._feed.audio(chunk.pcm)]

    def _speech_began(self, event: SpeechBegan, now_s: float) -> list[Reaction]:
        was_announced = self._listening.is_announced
        start_ms, item_id, chunks = self._user_items.began(event)
        if was_announced:
            return self._fed(chunks)
        reactions: list[Reaction] = [SpeechStarted(start_ms, item_id)]
        detection = self._state.config.turn_detection
        # Source: Realtime API reference, session, turn_detection, interrupt_response: the response
        # of the conversation is cut; responses beside it go on.
        if detection and detection.interrupt_response:
            if self._responses.running.is_active:
                reactions += self._responses.cut("turn_detected", now_s)
            # A transport may still be playing a response that is done.
            reactions += self._shortening.hush()
        reactions += self._doubt.end()
        # Clients stop playing when they are told of speech.
        self._responses.running.unheard()
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
        # Source: Realtime API reference, session, turn_detection, create_response.
        config = self._state.config
        detection = config.turn_detection
        return config.kind == "realtime" and detection is not None and detection.create_response

    def _answered(self) -> list[Reaction]:
        if not self._is_answering:
            return []
        return self._responses.answer(self._state.request)

    # A reply before its time.

    def _speculate(self) -> list[Reaction]:
        """Begin the reply that the turn will get if it is over."""
        is_free = self._responses.can_prepare(self._state.request)
        if not self._is_answering or not is_free:
            return []
        # Dropped now, or the model would answer from what is dropped when the turn is over.
        dropped = [] if self._feed.is_speculating else self._context.make_room()
        if not self._feed.can_speculate or self._context.is_refused():
            return dropped
        reply, command = self._responses.prepare(self._state.request)
        pictures = self._state.sight.pictures
        self._speculation = Speculation(self._state.ids.new("item"), reply, pictures)
        commit_id = self._speculation.commit_id
        return [*dropped, *self._feed.speculate(commit_id, command, _pixels(pictures))]

    def _foreseen(self, item_id: str, audio_ms: int, now_s: float) -> list[Reaction]:
        """Make the turn an item, and tell of the reply what there is of it."""
        assert self._speculation is not None, "a reply was begun"
        # The engine made the transcript under the commit's name; the client knows the item's.
        speculation, self._speculation = self._speculation, None
        # What the camera has shown since then is for the next turn.
        reactions = self._user_items.added(item_id, audio_ms, pictures=speculation.pictures)
        self._feed.confirm(item_id)
        self._items[speculation.commit_id] = item_id
        if speculation.transcript is not None:
            reactions += self.transcript(speculation.transcript)
        reactions += self._responses.running.begin(speculation.reply)
        for output in speculation.made:
            reactions += self._responses.output(output, now_s)
        return reactions

    def holds(self, output: Passed) -> bool:
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
        # Source: Realtime API reference, server events, input_audio_buffer.timeout_triggered: an
        # empty turn is committed, and the model is asked to go on.
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
        return [*self._user_items.lost(self._feed.awaits), *commands]

    def reconfigured(self, before: SessionConfig) -> list[Reaction]:
        """Take back what was begun under the old configuration."""
        # `Open` says whether the session is recorded, so a change of that needs a new `Open`.
        is_other = self._state.config.is_recorded is not before.is_recorded
        if is_other or self._state.instructions != self._state.prompts.instructions(before):
            self._feed.outdate()
        return [*self._feed.withdraw()]

    def _commit(self) -> list[Reaction]:
        fed = self._fed(self._user_items.undetected())
        stopped, item_id, audio_ms = self._user_items.committed()
        return [*fed, *stopped, *self._committed(item_id, audio_ms)]

    def _committed(self, item_id: str, audio_ms: int) -> list[Reaction]:
        """Make a closed turn an item, here and in the engine."""
        dropped = self._context.make_room()
        is_silence = self._listening.is_silence(item_id)
        pictures = self._state.sight.pictures
        added = dropped + self._user_items.added(item_id, audio_ms, pictures=pictures)
        if not is_silence:
            return [*added, *self._feed.commit(item_id, _pixels(pictures))]
        transcribed = self._transcribed(item_id, "")
        item = self._state.conversation[item_id]
        assert isinstance(item, Message), "a turn is a message"
        return [*added, *transcribed, *self._feed.commit_silence(item)]


def _pixels(pictures: tuple[Picture, ...]) -> tuple[Pixels, ...]:
    return tuple(picture.pixels for picture in pictures)
