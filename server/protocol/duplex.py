"""Converse with a model that listens and speaks all the time, and takes no turns.

The model hears everything that is appended, speech or not, and begins and ends its responses by
itself. Voice detection still finds the user's turns, so that clients see them as items, but it
neither asks for responses nor cuts them short: when the user talks over a response, the model hears
it and decides what to do.

Such a model remembers what was said aloud and nothing else. Items of text cannot be told to it, and
what it heard cannot be taken out of its memory; what it said can, as far as `Truncate` goes.
"""

from collections.abc import Callable, Mapping

from model.messages import (
    AppendAudio,
    ClearAudio,
    Close,
    Command,
    CommitAudio,
    InputTranscript,
    Open,
    Pcm,
    Respond,
    Truncate,
)
from server.errors import ClientError
from server.protocol.events import (
    Heard,
    InputAudio,
    Reaction,
    SpeechBegan,
    SpeechEnded,
)
from server.protocol.items.conversation import Conversation
from server.protocol.items.items import Item, Message
from server.protocol.items.recordings import Recordings
from server.protocol.memory.feed import Feed
from server.protocol.moves import ResponseMove, TurnMove, next_response_state
from server.protocol.reply.beginning import Beginning
from server.protocol.reply.reply import Reply
from server.protocol.reply.responses import CancelReason, ResponseOutput, Responses
from server.protocol.server_events import (
    InputTranscriptionFailed,
    SpeechStarted,
    SpeechStopped,
)
from server.protocol.settings.request import ResponseRequest
from server.protocol.user.turns import Turns
from server.protocol.wire.checks import JsonObject, unsupported
from server.protocol.wire.client_events import InputAudioBufferClear, InputAudioBufferCommit

_NO_TRANSCRIPT: Mapping[str, str | None] = {
    "type": "transcription_error",
    "code": "transcription_unavailable",
    "message": "This model does not write down what it hears.",
    "param": None,
}


class DuplexFeed(Feed):
    """Make the commands of one session; arguments as of `Feed`."""

    def __init__(
        self,
        session_id: str,
        max_kept_samples: int,
        conversation: Conversation,
        recordings: Recordings,
        opening: Callable[[], Open],
        on_heard_again: Callable[[], None],
    ) -> None:
        super().__init__(
            session_id, max_kept_samples, conversation, recordings, opening, on_heard_again
        )
        self._has_begun = False
        self._opened = opening()

    def stream(self, pcm: Pcm) -> list[Command]:
        """Let the model hear audio."""
        self._has_begun = True
        return [AppendAudio(self._session_id, pcm)]

    def reopened(self) -> list[Command]:
        """Begin under the session's voice and instructions as they are now, if it has not begun.

        A conversation that goes on keeps those that it began with: it cannot be told again.
        """
        opening = self._opening()
        if self._has_begun or opening == self._opened:
            return []
        self._opened = opening
        return [Close(self._session_id), opening]

    def audio(self, pcm: Pcm) -> list[Command]:
        """Keep audio of the user turn, which the model has heard already."""
        self._turn.append(pcm)
        self._num_turn_samples += len(pcm)
        while self._num_turn_samples - len(self._turn[0]) >= self._max_kept_samples:
            self._num_turn_samples -= len(self._turn.popleft())
            self._is_turn_whole = False
        return []

    def clear(self) -> list[Command]:
        """Forget the user turn, as far as the model has not heard it yet."""
        self._forget_turn()
        return [ClearAudio(self._session_id)]

    def commit(self, item_id: str) -> list[Command]:
        """End the user turn by hand: nothing follows it for now."""
        self._committed(item_id, item_id)
        return [CommitAudio(self._session_id, item_id)]

    def ended(self, item_id: str) -> None:
        """End the user turn, of which the model need not be told."""
        self._committed(item_id, item_id)
        self._awaited.discard(item_id)

    def is_heard(self, item: Message) -> bool:
        """Say that an item that is audio is to be heard: its words cannot be told."""
        del item
        return True

    def item_audio(self, pcm: Pcm, item_id: str) -> list[Command]:
        """Let the model hear an item that is audio."""
        self._awaited.add(item_id)
        return [*self.stream(pcm), CommitAudio(self._session_id, item_id)]

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

    def add(self, item: Item) -> list[Command]:
        """Add an item; if it is sound, `item_audio` follows."""
        del item
        return []

    def unsay(self, item_id: str, heard_ms: int) -> list[Command]:
        """Forget what was not heard of an assistant's item, as far as the model can."""
        if item_id not in self._spoken:
            return []
        return [Truncate(self._session_id, item_id, heard_ms)]

    def outdate(self) -> None:
        """Leave the model's memory as it is: it cannot be told again."""

    def respond(self, command: Respond) -> list[Command]:
        """Ask for a response; one that is not standing begins the conversation."""
        self._has_begun = self._has_begun or not command.is_standing
        self._spoken.add(command.item_id)
        self._is_responding = not command.is_standing
        return [command]

    def lost(self) -> list[Command]:
        """Begin anew, because the engine lost the session: what was said is gone."""
        self._is_responding = False
        self._awaited.clear()
        self._spoken.clear()
        self._opened = self._opening()
        return [Close(self._session_id), self._opened]


class DuplexResponses(Responses):
    """Hold the responses of a session, and always one more that the model has not begun.

    Args:
        beginning: makes replies.
        conversation: where they go.
        feed: leads to the engine.
        request: gives what a response is made with that nobody asked for.
    """

    def __init__(
        self,
        beginning: Beginning,
        conversation: Conversation,
        feed: DuplexFeed,
        request: Callable[[], ResponseRequest],
    ) -> None:
        super().__init__(beginning, conversation, feed)
        self._stream = feed
        self._request = request
        self._standing: Reply | None = None

    def standing(self) -> list[Reaction]:
        """Ask for whatever the model says next."""
        request = self._request()
        if self._standing is None:
            self._standing = self._beginning.reply(request)
        else:
            self._standing = self._beginning.again(self._standing, request)
        command = self._beginning.respond(self._standing, is_standing=True)
        return [*self._stream.respond(command)]

    def reconfigured(self) -> list[Reaction]:
        """Let the change be true of what the model says next."""
        if self.is_active:
            return []
        return [*self._stream.reopened(), *self.standing()]

    def create(self, request: ResponseRequest) -> list[Reaction]:
        """Announce the response to come, now.

        The model is not made to speak. If it stays silent for a while, the response ends empty.

        Raises:
            ClientError: one is in progress, or the model cannot make one like this.
        """
        _check_possible(request)
        if self._default is not None:
            active = self._default
            next_response_state(active.state, ResponseMove.CREATE, active.response.id)
        assert self._standing is not None, "one always stands while none is in progress"
        reply, self._standing = self._beginning.again(self._standing, request), None
        self._default = reply
        return [*reply.announced(), *self._feed.respond(self._beginning.respond(reply))]

    def answer(self, request: ResponseRequest) -> list[Reaction]:
        """Leave it to the model whether it answers a turn."""
        del request
        return []

    def output(self, output: ResponseOutput, now_s: float) -> list[Reaction]:
        """Pass on what the model says; with its first output, a response begins."""
        standing = self._standing
        if standing is None or output.turn != standing.turn:
            return super().output(output, now_s)
        self._standing = None
        begun = self.begin(self._beginning.again(standing, self._request()))
        return [*begun, *super().output(output, now_s)]

    def resumed(self) -> list[Reaction]:
        """Ask for what the model says after a response."""
        return self.standing()

    def told_again(self) -> list[Reaction]:
        """Ask a new engine for the response that was announced, or for whatever comes next."""
        return super().told_again() if self.is_active else self.standing()

    def _cut(self, reply: Reply, reason: CancelReason, now_s: float) -> list[Reaction]:
        return [*super()._cut(reply, reason, now_s), *self.standing()]


def _check_possible(request: ResponseRequest) -> None:
    if request.is_aside:
        path = "response.input" if request.input is not None else "response.conversation"
        raise unsupported(path, "This model has one conversation, and answers nothing beside it.")
    if request.tool_choice not in ("auto", "none"):
        raise unsupported("response.tool_choice", "This model cannot call functions.")


class DuplexTurns(Turns):
    """Turn what was heard into items; arguments as of `Turns`, with a `DuplexFeed`.

    A model may begin to answer before a turn is found to be over. Its item then comes before that
    of the answer, since it began before.
    """

    # The item after which the turn began that voice detection follows; "root" for none.
    _began_after: str | None = None

    def heard(self, event: Heard, now_s: float) -> list[Reaction]:
        """Take what the session heard in appended audio."""
        del now_s
        match event:
            case InputAudio():
                is_detecting = self._config().turn_detection is not None
                # What is speech and what is not, the model hears for itself.
                heard = InputAudio(event.pcm)
                self._fed(self._listening.audio(heard, is_detecting=is_detecting))
                return [*self._stream.stream(event.pcm)]
            case SpeechBegan():
                return self._began(event)
            case SpeechEnded():
                item_id, audio_ms = self._listening.closed(TurnMove.END)
                stopped = SpeechStopped(event.audio_end_ms, item_id)
                added = self._added(item_id, audio_ms)
                self._stream.ended(item_id)
                return [stopped, *added, *self._not_written(item_id)]
            case _:
                return []  # pauses mean something to the model only

    def would_interrupt(self, now_s: float) -> bool:
        """Say that it would not: when the user talks over a response, the model decides."""
        del now_s
        return False

    def buffer(self, event: InputAudioBufferCommit | InputAudioBufferClear) -> list[Reaction]:
        """Commit or clear the input buffer by hand; see `Turns.buffer`."""
        if isinstance(event, InputAudioBufferClear):
            self._began_after = None
        return super().buffer(event)

    def transcript(self, output: InputTranscript) -> list[Reaction]:
        """Say that there are no words of a committed turn."""
        if not self._feed.transcribed(output.item_id) or output.item_id not in self._conversation:
            return []
        return self._not_written(output.item_id)

    def idled(self, silence_ms: int) -> list[Reaction]:
        """Leave it to the model what it says after a long silence, which it hears as well."""
        del silence_ms
        return []

    def _placed(self, item: Message) -> str | None:
        after, self._began_after = self._began_after, None
        if after is None or (after != "root" and after not in self._conversation):
            return self._conversation.append(item)
        return self._conversation.insert(item, after)

    @property
    def _stream(self) -> DuplexFeed:
        assert isinstance(self._feed, DuplexFeed), "duplex turns come with a duplex feed"
        return self._feed

    def _began(self, event: SpeechBegan) -> list[Reaction]:
        was_announced = self._listening.is_announced
        start_ms = (
            self._listening.starts_ms
            if self._listening.has_turn
            else max(event.audio_start_ms, self._listening.begins_ms)
        )
        item_id, chunks = self._listening.began(start_ms)
        self._fed(chunks)
        if not was_announced:
            self._began_after = self._conversation.last_id or "root"
        return [] if was_announced else [SpeechStarted(start_ms, item_id)]

    def _not_written(self, item_id: str) -> list[Reaction]:
        self._listening.transcribed(item_id, "")
        if not self._config().is_transcribing:
            return []
        error: JsonObject = dict(_NO_TRANSCRIPT)
        return [InputTranscriptionFailed(item_id, 0, error)]
