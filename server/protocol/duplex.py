"""Converse with a model that listens and speaks all the time, and takes no turns.

The model hears everything that is appended, speech or not, and begins and ends its responses by
itself. Voice detection still finds the user's turns, so that clients see them as items, but it
neither asks for responses nor cuts them short: when the user talks over a response, the model hears
it and decides what to do.

Such a model remembers what was said aloud and nothing else. Items of text cannot be told to it, and
what it heard cannot be taken out of its memory; what it said can, as far as `Truncate` goes.
"""

from collections.abc import Mapping

from model.messages import (
    AppendAudio,
    Cancel,
    ClearAudio,
    Close,
    Command,
    CommitAudio,
    InputTranscript,
    InputTranscriptDelta,
    Pcm,
    Respond,
    Truncate,
)
from server.errors import ClientError
from server.protocol.delegate.outcomes import DelegateOutcome
from server.protocol.events import Heard, InputAudio, Reaction, SpeechBegan, SpeechEnded
from server.protocol.filters.verdicts import Passed, ResponseOutput
from server.protocol.items.items import Item, Message
from server.protocol.items.mcp import McpReturned
from server.protocol.memory.open_turn import OpenTurn
from server.protocol.moves import TurnMove
from server.protocol.reply.beginning import Beginning
from server.protocol.reply.reply import Reply
from server.protocol.reply.running import CancelReason, Running
from server.protocol.server_events import (
    InputAudioBufferCleared,
    InputTranscriptionFailed,
    SpeechStarted,
    SpeechStopped,
)
from server.protocol.settings.config import SessionConfig
from server.protocol.settings.request import ResponseRequest
from server.protocol.state import SessionState
from server.protocol.user.listening import Listening
from server.protocol.user.user_items import UserItems
from server.protocol.wire.checks import JsonObject, unsupported
from server.protocol.wire.client_events import (
    InputAudioBufferClear,
    InputAudioBufferCommit,
    ResponseCancel,
)

_NO_TRANSCRIPT: Mapping[str, str | None] = {
    "type": "transcription_error",
    "code": "transcription_unavailable",
    "message": "This model does not write down what it hears.",
    "param": None,
}


# A worked example of a duplex conversation. `Respond` stands from the beginning: "say something
# whenever you like, it will be response 1".
#
#     to the engine             from the engine          to the client
#     Open, Respond(1, stands)
#     AppendAudio ...                                    speech_started, speech_stopped, the item
#                               ResponseText(1) "hi"     response.created, and "hi"
#                               ResponseDone(1)          response.done
#     Respond(2, stands)
#
# So the protocol between gateway and engine is the same as with turns, and no race can arise over
# who numbers a response. response.create announces the standing one at once.


class DuplexFeed:
    """Make the commands of one session; see `Feed` for what is not said here.

    Args:
        state: of the session.
        max_kept_samples: how much of an open turn's sound is kept.
    """

    def __init__(self, state: SessionState, max_kept_samples: int) -> None:
        self._state = state
        self._session_id = state.session_id
        self._turn = OpenTurn(max_kept_samples)
        self._spoken: set[str] = set()  # items that the engine remembers as audio of its own
        self._awaited: set[str] = set()  # commits that the engine has not reported
        self._has_begun = False
        self._opened = state.opening()

    # The user's turns, of which the model has heard everything already.

    def stream(self, pcm: Pcm) -> list[Command]:
        """Let the model hear audio."""
        self._has_begun = True
        return [AppendAudio(self._session_id, pcm)]

    def keep(self, pcm: Pcm) -> None:
        """Keep audio of the user turn."""
        self._turn.add(pcm)

    def clear(self) -> list[Command]:
        """Forget the user turn, as far as the model has not heard it yet."""
        self._turn.forget()
        return [ClearAudio(self._session_id)]

    def commit(self, item_id: str) -> list[Command]:
        """End the user turn by hand: nothing follows it for now."""
        self.end(item_id)
        self._awaited.add(item_id)
        return [CommitAudio(self._session_id, item_id)]

    def end(self, item_id: str) -> None:
        """End the user turn, of which the model need not be told."""
        self._turn.end(item_id, self._state.recordings)

    def transcribed(self, commit_id: str) -> bool:
        """Note that a commit has been taken; False if it is not awaited."""
        is_awaited = commit_id in self._awaited
        self._awaited.discard(commit_id)
        return is_awaited

    def awaits(self, commit_id: str) -> bool:
        """Say whether a commit has not been taken yet."""
        return commit_id in self._awaited

    # Items.

    def check(self, item: Item, audio: InputAudio | None) -> None:
        """Refuse an item that is not sound."""
        del item
        if audio is None or not len(audio.pcm):
            raise ClientError(
                "Error adding item: this model hears and speaks, and cannot be told anything in "
                "writing. Send audio instead; what it is to know from the beginning goes into the "
                "session's instructions.",
                code="unsupported_content_type",
                param="item",
            )

    def is_heard(self, item: Message) -> bool:
        """Say that an item that is audio is to be heard: its words cannot be told."""
        del item
        return True

    def item_audio(self, pcm: Pcm, item: Message) -> list[Command]:
        """Let the model hear an item that is audio."""
        self._awaited.add(item.id)
        return [*self.stream(pcm), CommitAudio(self._session_id, item.id)]

    def add(self, item: Item | McpReturned) -> list[Command]:
        """Tell nothing: items are heard, as `item_audio`."""
        del item
        return []

    def unsay(self, item_id: str, heard_ms: int) -> list[Command]:
        """Forget what was not heard of an assistant's item, as far as the model can."""
        if item_id not in self._spoken:
            return []
        return [Truncate(self._session_id, item_id, heard_ms)]

    def outdate(self) -> None:
        """Leave the model's memory as it is: it cannot be told again."""

    # Responses.

    def respond(self, command: Respond) -> list[Command]:
        """Ask for a response; one that is not standing begins the conversation."""
        self._has_begun = self._has_begun or not command.is_standing
        self._spoken.add(command.item_id)
        return [command]

    def cancel(self, turn: int) -> list[Command]:
        """Stop the response."""
        return [Cancel(self._session_id, turn)]

    def called(self, item_id: str) -> None:
        """Do nothing: this model calls no functions."""

    def finish(self) -> None:
        """Do nothing: what is heard does not depend on it."""

    # The session.

    def reopened(self) -> list[Command]:
        """Begin under the session's voice and instructions as they are now, if it has not begun.

        A conversation that has begun keeps its voice and instructions, since it cannot be told
        anew.
        """
        opening = self._state.opening()
        if self._has_begun or opening == self._opened:
            return []
        self._opened = opening
        return [Close(self._session_id), opening]

    def lost(self) -> list[Command]:
        """Begin anew, because the engine lost the session: what was said is gone."""
        self._awaited.clear()
        self._spoken.clear()
        self._opened = self._state.opening()
        return [Close(self._session_id), self._opened]


class DuplexResponses:
    """Begin the responses of a session: one that the model has not begun is always asked for.

    Args:
        state: of the session.
        beginning: makes replies.
        running: those in progress.
        feed: leads to the engine.
    """

    def __init__(
        self, state: SessionState, beginning: Beginning, running: Running, feed: DuplexFeed
    ) -> None:
        self._state = state
        self._beginning = beginning
        self.running = running
        self._feed = feed
        self._standing: Reply | None = None

    def standing(self) -> list[Reaction]:
        """Ask for whatever the model says next."""
        request = self._state.request
        if self._standing is None:
            self._standing = self._beginning.reply(request)
        else:
            self._standing = self._beginning.again(self._standing, request)
        return [*self._feed.respond(self._beginning.respond(self._standing, is_standing=True))]

    def reconfigured(self) -> list[Reaction]:
        """Let the change be true of what the model says next."""
        if self.running.is_active:
            return []
        return [*self._feed.reopened(), *self.standing()]

    def create(self, request: ResponseRequest) -> list[Reaction]:
        """Announce the response to come, now.

        The model is not made to speak. If it stays silent for a while, the response ends empty.

        Raises:
            ClientError: one is in progress, or the model cannot make one like this.
        """
        _check_possible(request)
        self.running.refuse_second()
        assert self._standing is not None, "one always stands while none is in progress"
        reply, self._standing = self._beginning.again(self._standing, request), None
        begun = self.running.begin(reply)
        return [*begun, *self._feed.respond(self._beginning.respond(reply))]

    def output(self, output: ResponseOutput, now_s: float) -> list[Reaction]:
        """Pass on what the model says; with its first output, a response begins."""
        begun: list[Reaction] = []
        standing = self._standing
        if standing is not None and output.turn == standing.turn:
            self._standing = None
            begun = self.running.begin(self._beginning.again(standing, self._state.request))
        was_active = self.running.is_active
        reactions = self.running.output(output, now_s)
        has_ended = was_active and not self.running.is_active
        return [*begun, *reactions, *(self.standing() if has_ended else [])]

    def cancel(self, event: ResponseCancel, now_s: float) -> list[Reaction]:
        """End the response that the client names, or the one in progress; see `Responses`."""
        cut = self.running.cut(self.running.named(event), "client_cancelled", now_s)
        return [*cut, *self.standing()]

    def cut(self, reason: CancelReason, now_s: float) -> list[Reaction]:
        """End the response in progress now; what the engine still sends of it is stale."""
        assert self.running.default is not None, "there is a response to cut"
        return [*self.running.cut(self.running.default, reason, now_s), *self.standing()]

    def failed(self, code: str, message: str, now_s: float) -> list[Reaction]:
        """End the response in progress, because the session cannot go on."""
        return self.running.failed(code, message, now_s)

    def answered(self, _outcome: DelegateOutcome, _now_s: float) -> list[Reaction]:
        """Take nothing: no text model is asked, since nobody writes down what users say."""
        return []

    def due(self) -> list[Reaction]:
        """Ask nobody."""
        return []

    def words_refused(self, _now_s: float) -> list[Reaction]:
        """End nothing: what users say is not written down, and so nothing of it is refused."""
        return []

    def resumed(self) -> list[Reaction]:
        """Ask for what the model says after a response."""
        return self.standing()

    def told_again(self) -> list[Reaction]:
        """Ask a new engine for the response that was announced, or for whatever comes next."""
        if self.running.default is None:
            return self.standing()
        return [*self._feed.respond(self._beginning.respond(self.running.default))]


def _check_possible(request: ResponseRequest) -> None:
    if request.is_aside:
        path = "response.input" if request.input is not None else "response.conversation"
        raise unsupported(path, "This model has one conversation, and answers nothing beside it.")
    if request.tool_choice not in ("auto", "none"):
        raise unsupported("response.tool_choice", "This model cannot call functions.")


class DuplexTurns:
    """Turn what was heard into items.

    A model may begin to answer before the turn is found to be over. The item of the turn still
    comes before that of the answer, since the turn began earlier.

    Args:
        state: of the session.
        listening: holds the open turn.
        feed: leads to the engine.
    """

    def __init__(self, state: SessionState, listening: Listening, feed: DuplexFeed) -> None:
        self._state = state
        self._listening = listening
        self._feed = feed
        self._user_items = UserItems(state, listening)
        # The item after which the turn began that voice detection follows, "root" for the front;
        # None where it follows none.
        self._began_after: str | None = None

    def heard(self, event: Heard, now_s: float) -> list[Reaction]:
        """Take what the session heard in appended audio."""
        del now_s
        match event:
            case InputAudio():
                is_detecting = self._state.config.turn_detection is not None
                # What is speech and what is not, the model hears for itself.
                heard = InputAudio(event.pcm)
                self._keep(self._listening.audio(heard, is_detecting=is_detecting))
                return [*self._feed.stream(event.pcm)]
            case SpeechBegan():
                return self._began(event)
            case SpeechEnded():
                item_id, audio_ms = self._listening.closed(TurnMove.END)
                stopped = SpeechStopped(event.audio_end_ms, item_id)
                added = self._added(item_id, audio_ms)
                self._feed.end(item_id)
                return [stopped, *added, *self._not_written(item_id)]
            case _:
                return []  # pauses mean something to the model only

    def would_interrupt(self, now_s: float) -> bool:
        """Say that it would not: when the user talks over a response, the model decides."""
        del now_s
        return False

    def buffer(self, event: InputAudioBufferCommit | InputAudioBufferClear) -> list[Reaction]:
        """Commit or clear the input buffer by hand.

        Raises:
            ClientError: there is too little audio to commit.
        """
        if isinstance(event, InputAudioBufferClear):
            self._began_after = None
            self._listening.cleared()
            return [InputAudioBufferCleared(), *self._feed.clear()]
        self._keep(self._user_items.undetected())
        stopped, item_id, audio_ms = self._user_items.committed()
        return [*stopped, *self._added(item_id, audio_ms), *self._feed.commit(item_id)]

    def words(self, output: InputTranscriptDelta) -> list[Reaction]:
        """Take words that the engine heard in the turn."""
        return self._user_items.words(output.text)

    def transcript(self, output: InputTranscript) -> list[Reaction]:
        """Say that there are no words of a committed turn."""
        is_awaited = self._feed.transcribed(output.item_id)
        if not is_awaited or output.item_id not in self._state.conversation:
            return []
        return self._not_written(output.item_id)

    def holds(self, output: Passed) -> bool:
        """Hold nothing back: no reply is begun before its time."""
        del output
        return False

    def idled(self, silence_ms: int) -> list[Reaction]:
        """Do nothing: the model hears the silence itself, and decides what to say."""
        del silence_ms
        return []

    def reconfigured(self, before: SessionConfig) -> list[Reaction]:
        """Do nothing: nothing has begun that depends on the old configuration."""
        del before
        return []

    def lost(self) -> list[Reaction]:
        """Tell a new session of the engine, which hears the conversation from here on."""
        commands = self._feed.lost()
        return [*self._user_items.lost(self._feed.awaits), *commands]

    def _keep(self, chunks: list[InputAudio]) -> None:
        for chunk in chunks:
            self._feed.keep(chunk.pcm)

    def _added(self, item_id: str, audio_ms: int) -> list[Reaction]:
        after, self._began_after = self._began_after, None
        if after != "root" and after not in self._state.conversation:
            after = None
        return self._user_items.added(item_id, audio_ms, after)

    def _began(self, event: SpeechBegan) -> list[Reaction]:
        was_announced = self._listening.is_announced
        start_ms, item_id, chunks = self._user_items.began(event)
        self._keep(chunks)
        if was_announced:
            return []
        self._began_after = self._state.conversation.last_id or "root"
        return [SpeechStarted(start_ms, item_id)]

    def _not_written(self, item_id: str) -> list[Reaction]:
        self._listening.transcribed(item_id, "")
        if not self._state.config.is_transcribing:
            return []
        error: JsonObject = dict(_NO_TRANSCRIPT)
        return [InputTranscriptionFailed(item_id, 0, error)]
