"""Run one session's protocol: events in, reactions out, no I/O and no clock of its own.

`SessionMachine.receive` takes what a client sent, what the session heard in the client's audio,
or what the engine made of it, and returns what is to be sent to the client and to the engine, in
order. A `ClientError` means that the client's event was refused and nothing has changed; the
session goes on.

`Turns` holds the user's turns, `Responses` the assistant's, `Editing` what clients do to the
conversation, and `Feed` what the engine has to be told. All share one `SessionState`. An engine
that takes turns and one that does not differ in the first two and the last; the rest is the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias, assert_never

from model.messages import (
    Command,
    CommandNoted,
    EndOfTurn,
    EngineBack,
    EngineGone,
    EngineHeard,
    EngineInfo,
    EngineLost,
    EngineSilent,
    InputTranscript,
    InputTranscriptDelta,
    News,
    Note,
    Output,
    SessionFailed,
    StepNoted,
    Taken,
    TurnChecked,
)
from model.messages import ResponseDone as EngineResponseDone
from server.config.delegate import DelegateAnswers
from server.config.images import IMAGE_DEFAULTS
from server.config.server import DEFAULTS
from server.config.webrtc import CALL_DEFAULTS
from server.errors import ClientError
from server.images.picture import Picture
from server.protocol.calls.listing import Listing
from server.protocol.delegate.outcomes import (
    AnswerCall,
    AnswerDone,
    AnswerFailed,
    AnswerRefused,
    AnswerText,
    DelegateOutcome,
)
from server.protocol.delegate.policy import DelegatePolicy
from server.protocol.editing import Editing
from server.protocol.events import (
    EndReason,
    Glimpse,
    Hangup,
    Heard,
    InputAudio,
    NoSlot,
    Reaction,
    Refusal,
    SpeechEnded,
)
from server.protocol.filters.answers import AnswerGate
from server.protocol.filters.gate import Gate
from server.protocol.filters.verdicts import (
    NO_FILTERS,
    FilterPlan,
    Passed,
    RedactedTranscript,
    ResponseOutput,
    Verdict,
)
from server.protocol.ids import Ids
from server.protocol.items.conversation import Conversation
from server.protocol.items.item_parse import Pictures
from server.protocol.items.items import Message
from server.protocol.items.recordings import Recordings
from server.protocol.items.sight import Sight
from server.protocol.mcp.outcomes import (
    Decision,
    ListingFailed,
    ToolFailed,
    ToolOutcome,
    ToolReturned,
    ToolsListed,
)
from server.protocol.mcp.policy import NO_POLICY, ToolPolicy
from server.protocol.memory.turn_check import TurnCheck
from server.protocol.moments import Moment, TurnEnded
from server.protocol.overflow import Overflow
from server.protocol.reply.playout import Playout
from server.protocol.reply.put_off import PutOff
from server.protocol.server_events import ErrorEvent, ItemAdded, SessionCreated, SessionUpdated
from server.protocol.settings.config import ServerVad, SessionConfig, VoiceMap
from server.protocol.settings.prompts import NO_PROMPTS, PromptBook
from server.protocol.settings.request import parse_request
from server.protocol.settings.update import refuse_delegate, updated
from server.protocol.sound import Played
from server.protocol.state import SessionState
from server.protocol.user.doubt import Doubt
from server.protocol.user.hearing import Hearing
from server.protocol.user.idle import Idle, idle_timeout_ms
from server.protocol.user.listening import Listening
from server.protocol.ways import at_once, in_turns
from server.protocol.wire.checks import unsupported
from server.protocol.wire.client_events import (
    ControlEvent,
    InputAudioBufferClear,
    InputAudioBufferCommit,
    ItemCreate,
    ItemDelete,
    ItemRetrieve,
    ItemTruncate,
    OutputAudioBufferClear,
    ResponseCancel,
    ResponseCreate,
    SessionUpdate,
)

# Losses of the engine's session, one after another, that a session outlives. Losses of the engine
# itself do not count: they are hardly ever the session's doing, and whoever starts it counts them.
_MAX_FAILURES = 3
_FAILED = Hangup(EndReason.ENGINE_FAILED, "server_error.engine_failed")


Outcome: TypeAlias = ToolOutcome | DelegateOutcome | Verdict


@dataclass(frozen=True, slots=True)
class Limits:
    """Bound what one session may hold.

    Attributes:
        max_items: items of the conversation.
        max_conversation_chars: of their texts together.
        max_kept_audio_s: audio of an open or undetected turn that is kept.
        max_recording_bytes: sound of items that clients can ask for.
        max_tools: functions that the session or a response may offer.
        policy: which calls need a person's yes, and what waits for calls.
        delegate: what a text model answers; None where there is none.
        prompts: that a client may name.
        max_image_bytes: pictures of the conversation that are kept.
        max_glimpses: pictures of a camera that wait for the end of the user's turn.
        filters: what is checked before anybody is told.
        max_context_tokens: that a response of the conversation may be based on.
    """

    max_items: int = DEFAULTS.max_items
    max_kept_audio_s: int = DEFAULTS.max_kept_audio_s
    max_recording_bytes: int = 8 << 20
    max_tools: int = DEFAULTS.max_tools
    max_conversation_chars: int = DEFAULTS.max_conversation_chars
    policy: ToolPolicy = NO_POLICY
    delegate: DelegatePolicy | None = None
    prompts: PromptBook = NO_PROMPTS
    max_image_bytes: int = IMAGE_DEFAULTS.max_kept_bytes
    max_glimpses: int = CALL_DEFAULTS.camera_images
    filters: FilterPlan = NO_FILTERS
    max_context_tokens: int = DEFAULTS.max_context_tokens


# A worked example of a whole turn without an early reply. The ears have been given what was
# appended:
#
#     listen()                   [SpeechStarted, AppendAudio, ...], once speech is found
#     listen()                   [AppendAudio, ..., SpeechStopped, InputAudioBufferCommitted,
#                                 ItemAdded, ItemDone, CommitAudio, ResponseCreated, Respond]
#     receive(InputTranscript)   [InputTranscriptionCompleted]
#     receive(ResponseText)      [OutputItemAdded, ItemAdded, ContentPartAdded, ...Delta]
#     receive(ResponseAudio)     [OutputAudioDelta]
#     receive(ResponseDone)      [... done, ... done, ResponseDone, RateLimitsUpdated]
#
# Commands go to the engine and events to the client, in this order. A machine never waits, never
# looks at a clock and never fails by what a client sends: a ClientError says that nothing has
# changed.
#
# Source: Realtime API reference, server events, for their order.


class SessionMachine:
    """Hold the protocol state of one session.

    Args:
        config: that it begins with.
        info: of the engine.
        voices: that clients may ask for.
        ids: makes ids.
        limits: on what it may hold.
        ears: hear what is appended.
        is_played: whether the transport plays replies itself and reports how far it is (`Played`);
            else their audio goes out as events.
    """

    def __init__(
        self,
        config: SessionConfig,
        info: EngineInfo,
        voices: VoiceMap,
        ids: Ids,
        limits: Limits,
        ears: Hearing,
        *,
        is_played: bool = False,
    ) -> None:
        self._state = state = _state(config, info, voices, ids, limits)
        self._ears = ears
        self._max_tools = limits.max_tools
        max_kept_samples = limits.max_kept_audio_s * state.rate_hz
        self._listening = listening = Listening(state.rate_hz, max_kept_samples, ids)
        self._turn_check = TurnCheck()
        self._playout = Playout(state.rate_hz) if is_played else None
        self._doubt = Doubt(is_played=is_played)
        way = (
            at_once(state, listening, self._playout, max_kept_samples=max_kept_samples)
            if info.is_duplex
            else in_turns(
                state,
                listening,
                self._turn_check,
                self._doubt,
                self._playout,
                max_kept_samples=max_kept_samples,
                sentence=limits.filters.sentence,
            )
        )
        self._calls, self._shortening = way.calls, way.shortening
        self._responses, self._turns = way.responses, way.turns
        self._listing = Listing(state)
        self._editing = Editing(
            state,
            way.responses,
            listening,
            way.feed,
            way.shortening,
            way.calls,
            self._listing,
        )
        self._overflow = Overflow(state, way.feed, way.calls, self._listing)
        self._put_off = PutOff(state, way.calls, way.responses)
        self._idle = Idle()
        self._gate = Gate(limits.filters)
        self._answers = AnswerGate(self._gate)
        self._refused: ClientError | None = None  # of the item that came last
        self._num_failures = 0
        self._is_engine_away = False

    @property
    def config(self) -> SessionConfig:
        """Return the session's configuration as it is now."""
        return self._state.config

    def start(self) -> list[Reaction]:
        """Open the session: a slot in the engine, then the first event."""
        opening, standing = self._state.opening(), self._responses.standing()
        self._gate.watch(standing)
        return [
            opening,
            *standing,
            SessionCreated(self.config),
            *self._listing.wanted(self.config.tools),
        ]

    def receive(
        self,
        event: ControlEvent | Heard | Glimpse | Played | Output | News | NoSlot | Outcome,
        now_s: float,
        audio: InputAudio | None = None,
        pictures: Mapping[str, Picture] | None = None,
    ) -> list[Reaction]:
        """Take one event and return what follows from it.

        While the engine is away, nothing that it would have to be told follows: the session goes
        on as if an engine took it all and forgot it, and is told to the next one as a whole.

        A buffer that is committed or cleared by hand is heard to its end first. If the commit is
        refused then, what was heard is not taken back: the refusal comes after it, as a `Refusal`.

        Args:
            event: from the client, its camera, the session's ears, what plays, the engine, an MCP
                server, a text model, or whoever checks words.
            now_s: seconds on any clock that does not jump.
            audio: for an `ItemCreate` that carries audio.
            pictures: those that the event carries, by their parts' paths (`carried_images`); left
                out, they are refused, as they are where the model cannot see.

        Raises:
            ClientError: the client's event is refused; nothing has changed.
        """
        if isinstance(event, News):
            followed = self._on_news(event, now_s)
        elif isinstance(event, Glimpse):
            self._state.sight.see(event.picture)
            followed = []
        else:
            seen = pictures if self._state.info.sees else None
            followed = self._received(event, now_s, audio, seen)
            if isinstance(event, Played) and not followed:
                return followed  # fifty times a second, and nothing waits for it
        # Whatever happened may be what the ears were waiting for.
        followed += self._listened(now_s)
        # A call that is dropped is one that nothing waits for any more.
        followed += self._overflow.dropped()
        return self._noted([*followed, *self._put_off.due(), *self._responses.due()], now_s)

    def listen(self, now_s: float) -> list[Reaction]:
        """Take what the ears have heard, where they were given audio by somebody else."""
        return self._noted(self._listened(now_s), now_s)

    def _noted(self, followed: list[Reaction], now_s: float) -> list[Reaction]:
        watched = self._watched(followed, now_s)
        reactions = self._tellable([*watched, *self._overflow.dropped()])
        if any(isinstance(reaction, ItemAdded) for reaction in reactions):
            self._refused = None
        self._idle.watch(reactions, now_s)
        return reactions

    def _watched(self, followed: list[Reaction], now_s: float) -> list[Reaction]:
        """Add what follows from responses that are refused as soon as they are asked for."""
        self._answers.watch(followed)
        blocked = self._gate.watch(followed)
        if not blocked:
            return followed
        return [*followed, *self._watched(self._on_passed(blocked, now_s), now_s)]

    def item_refused(self, error: ClientError) -> None:
        """Note that an item was refused, so that the next response does not answer an older item.

        A client that sends an item and asks for a response in one go would get an answer to what
        was said before, and not notice.
        """
        # It is there already, in one way or the other; or nobody has asked, and so it says nothing.
        is_there = error.code in (
            "invalid_approval_request_id",
            "item_create_duplicate_item_id",
            "tool_call_timed_out",
        )
        self._refused = None if is_there else error

    @property
    def is_idle(self) -> bool:
        """Say whether nothing is being made that the engine could not begin anew."""
        running = self._responses.running
        return not (running.is_active or running.asides or self._gate.num_waiting)

    def park(self) -> None:
        """Do without an engine until `unpark`, which tells it everything again."""
        assert self.is_idle, "what is being made would be lost"
        # The engine forgets this session, and words that were refused with it.
        self._gate.clear()
        self.park_again()

    def park_again(self) -> None:
        """Do without an engine for longer, because `unpark` has found none.

        What was begun meanwhile, such as an answer of the text model, goes on.
        """
        self._is_engine_away = True

    def unpark(self, now_s: float) -> list[Reaction]:
        """Tell an engine everything that it has to know."""
        return self._noted(self._told_anew(), now_s)

    def _told_anew(self) -> list[Reaction]:
        self._is_engine_away = False
        return [*self._turns.lost(), *self._responses.told_again()]

    def expire_by(self, expires_at: int) -> list[Reaction]:
        """Say that the session ends earlier than its client was told.

        The API has no event for a server that is about to stop. This is the one that says when a
        session ends, and the only `session.updated` that no client has asked for.

        Args:
            expires_at: Unix time in seconds.
        """
        if expires_at >= self.config.expires_at:
            return []
        self._state.config = replace(self.config, expires_at=expires_at)
        return [SessionUpdated(self.config)]

    def end(self, code: str, message: str, now_s: float) -> list[Reaction]:
        """End what is in progress, because the session ends."""
        failed = self._responses.failed(code, message, now_s)
        ended = [*self._calls.ended(message), *self._listing.ended(message)]
        return self._tellable([*failed, *ended])

    def left(self) -> list[Decision]:
        """Say for the audit log what becomes of calls, once the session has ended, however."""
        return self._calls.left("The session ended.")

    def let_go(self) -> None:
        """Forget everything, so that it is freed at once; nothing can be asked afterwards."""
        vars(self).clear()

    def take_moments(self) -> list[Moment]:
        """Return what has happened since the last call that no event tells."""
        moments, self._state.moments = self._state.moments, []
        return moments

    @property
    def deadline_s(self) -> float | None:
        """Return when `tick` is due, on the clock of `now_s`; None if it is not."""
        deadlines = (
            self._idle.deadline_s(self.config.turn_detection),
            self._doubt.deadline_s,
            self._calls.deadline_s,
        )
        return min((each for each in deadlines if each is not None), default=None)

    def tick(self, now_s: float) -> list[Reaction]:
        """Do what is due by now."""
        doubt_s = self._doubt.deadline_s
        resumed = self._doubt.end() if doubt_s is not None and now_s >= doubt_s else []
        due = [*self._calls.tick(now_s), *self._idled(now_s), *self._put_off.due()]
        return self._noted([*resumed, *due], now_s)

    def _idled(self, now_s: float) -> list[Reaction]:
        detection = self.config.turn_detection
        deadline_s = self._idle.deadline_s(detection)
        if deadline_s is None or now_s < deadline_s:
            return []
        self._idle.stop()
        assert isinstance(detection, ServerVad), "only server_vad has an idle timeout"
        return self._turns.idled(detection.idle_timeout_ms or 0)

    def _tellable(self, reactions: list[Reaction]) -> list[Reaction]:
        if not self._is_engine_away:
            return reactions
        return [reaction for reaction in reactions if not isinstance(reaction, Command)]

    def _received(  # noqa: PLR0911 - a case each
        self,
        event: ControlEvent | Heard | Played | Output | NoSlot | Outcome,
        now_s: float,
        audio: InputAudio | None,
        pictures: Pictures,
    ) -> list[Reaction]:
        if isinstance(event, Heard):
            return self._on_heard(event, now_s)
        if isinstance(event, Output):
            passed, asked = self._gate.take(event)
            return [*asked, *self._on_passed(passed, now_s)]
        if isinstance(event, Outcome):
            return self._on_outcome(event, now_s)
        match event:
            case SessionUpdate():
                return self._on_session_update(event, now_s)
            case InputAudioBufferCommit() | InputAudioBufferClear():
                return self._on_buffer(event, now_s)
            case Played() | OutputAudioBufferClear():
                return self._on_playout(event, now_s)
            case ItemCreate() | ItemRetrieve() | ItemTruncate() | ItemDelete():
                return self._editing.receive(event, now_s, audio, pictures)
            case NoSlot():
                return self._responses.running.refused(event.session_id)
            case ResponseCreate() | ResponseCancel():
                return self._on_response(event, now_s, pictures)
            case _:
                assert_never(event)

    def _on_outcome(self, outcome: Outcome, now_s: float) -> list[Reaction]:
        match outcome:
            case ToolsListed() | ListingFailed():
                return self._listing.outcome(outcome)
            case ToolReturned() | ToolFailed():
                return self._calls.outcome(outcome)
            case AnswerText() | AnswerCall() | AnswerDone() | AnswerFailed() | AnswerRefused():
                passed, asked = self._answers.take(outcome)
                return [*asked, *self._on_passed(passed, now_s)]
            case Verdict():
                return self._on_passed(self._gate.verdict(outcome), now_s)
            case _:
                assert_never(outcome)

    # What is appended.

    def _listened(self, now_s: float) -> list[Reaction]:
        """Take what was heard, as far as it does not depend on what the model is asked."""
        reactions: list[Reaction] = []
        while self._ears.has_more and not (self._ears.is_in_doubt and self._is_checking):
            heard = self._next_heard(now_s)
            if heard is None:
                break
            reactions += self._on_heard(heard, now_s)
        return reactions

    def _heard_out(self, now_s: float) -> list[Reaction]:
        """Take all that was heard: a client who ends the turn itself does not ask the model."""
        self._ears.finish()
        reactions: list[Reaction] = []
        while (heard := self._next_heard(now_s)) is not None:
            reactions += self._on_heard(heard, now_s)
        return reactions

    def _on_heard(self, heard: Heard, now_s: float) -> list[Reaction]:
        if isinstance(heard, SpeechEnded):
            self._state.moments.append(TurnEnded(now_s, heard.silence_ms / 1000))
        return self._turns.heard(heard, now_s)

    def _next_heard(self, now_s: float) -> Heard | None:
        return self._ears.next(
            is_finished=self._turn_check.sounds_finished,
            would_interrupt=self._turns.would_interrupt(now_s),
        )

    @property
    def _is_checking(self) -> bool:
        """Say whether the engine is about to tell if the user's turn sounds finished."""
        return self._turn_check.key is not None and not self._is_engine_away

    def _on_buffer(
        self, event: InputAudioBufferCommit | InputAudioBufferClear, now_s: float
    ) -> list[Reaction]:
        # What is held back of the audio belongs to what is committed or cleared.
        heard = self._heard_out(now_s)
        try:
            done = self._turns.buffer(event)
        except ClientError as error:
            if not heard:
                raise
            return [*heard, Refusal(error)]
        self._ears.restart()
        return [*heard, *done, *self._doubt.end()]

    # Configuration.

    def _on_session_update(self, event: SessionUpdate, now_s: float) -> list[Reaction]:
        before = self.config
        config = updated(
            before,
            event.session,
            self._state.voices,
            is_voice_locked=self._has_assistant_audio,
            max_tools=self._max_tools,
        )
        config = _in_force(config, self._state.info)
        self._refuse_delegate(config.delegate, "session.delegate")
        self._state.prompts.check(config.prompt, "session.prompt")
        if config.tools != before.tools:
            self._listing.refuse_too_many(config.tools)
        self._state.config = config
        if idle_timeout_ms(self.config.turn_detection) != idle_timeout_ms(before.turn_detection):
            self._idle.changed(now_s)
        if self.config.turn_detection is None:
            self._listening.forget_preroll()
        changed = [*self._turns.reconfigured(before), *self._responses.reconfigured()]
        self._ears.configure(self.config)
        listing = self._listing.wanted(config.tools) if "tools" in event.session else []
        return [*changed, *self._doubt.end(), SessionUpdated(self.config), *listing]

    def _refuse_delegate(self, answers: DelegateAnswers | None, path: str) -> None:
        refuse_delegate(answers, path, is_there=self._state.delegate is not None)

    @property
    def _has_assistant_audio(self) -> bool:
        return self._responses.running.is_speaking or any(
            isinstance(item, Message)
            and item.output_audio is not None
            and item.output_audio.audio_ms
            for item in self._state.conversation
        )

    def _on_response_create(self, event: ResponseCreate, pictures: Pictures) -> list[Reaction]:
        request = parse_request(
            event.response,
            self.config,
            self._state.voices,
            self._state.conversation,
            self._state.ids,
            pictures,
            self._state.prompts,
            is_voice_locked=self._has_assistant_audio,
            max_tools=self._max_tools,
        )
        self._refuse_delegate(request.delegate, "response.delegate")
        refused, self._refused = self._refused, None
        if refused is not None and request.input is None:
            raise ClientError(
                "The item that was to be answered was refused, so nothing is: "
                f"{refused.message} Add another item, or ask again to answer the conversation as "
                "it is.",
                code=refused.code,
            )
        listing: list[Reaction] = []
        if request.tools != self.config.tools:
            self._listing.refuse_too_many(request.tools)
            listing = self._listing.wanted(request.tools)
        if self._put_off.takes(request, event.event_id, is_listing=bool(listing)):
            return listing
        return [*listing, *self._responses.create(request)]

    def _on_response(
        self, event: ResponseCreate | ResponseCancel, now_s: float, pictures: Pictures
    ) -> list[Reaction]:
        if self.config.kind == "transcription":
            raise ClientError(f"'{event.type}' is not allowed in a transcription session.")
        if isinstance(event, ResponseCreate):
            return self._on_response_create(event, pictures)
        if self._put_off.cancel(event):
            return []
        return self._responses.cancel(event, now_s)

    def _on_playout(self, event: Played | OutputAudioBufferClear, now_s: float) -> list[Reaction]:
        if isinstance(event, Played):
            return self._shortening.played(event)
        if self._playout is None:
            raise unsupported("type", f"'{event.type}' exists on WebRTC and SIP only.")
        # Clients are told to cancel first; one that does not wants silence all the same.
        is_speaking = self._responses.running.is_speaking
        cut = self._responses.cut("client_cancelled", now_s) if is_speaking else []
        return [*cut, *self._shortening.hush()]

    # What the engine says.

    def _on_passed(self, passed: list[Passed], now_s: float) -> list[Reaction]:
        reactions: list[Reaction] = []
        for output in passed:
            if self._answers.is_answer(output):
                outcome = self._answers.outcome(output)
                answered = [] if outcome is None else self._responses.answered(outcome, now_s)
                reactions += answered
            else:
                reactions += self._on_output(output, now_s)
        return reactions

    def _on_output(self, output: Passed, now_s: float) -> list[Reaction]:
        is_aside = output.session_id != self.config.id
        if self._turns.holds(output):
            return []
        if isinstance(output, EngineResponseDone) and output.reason == "completed":
            self._num_failures = 0
        if isinstance(output, ResponseOutput):
            return self._responses.output(output, now_s)
        if isinstance(output, SessionFailed):
            return self._on_failure(output, now_s)
        if not is_aside:
            return self._on_hearing(output, now_s)
        # A response with a memory of its own was told what the user had said.
        return []

    def _on_hearing(
        self,
        output: InputTranscriptDelta | InputTranscript | EndOfTurn | TurnChecked | Taken | Note,
        now_s: float,
    ) -> list[Reaction]:
        """Take what the engine says of the user."""
        match output:
            case InputTranscriptDelta():
                return self._turns.words(output)
            case InputTranscript():
                transcribed = self._turns.transcript(output)
                if isinstance(output, RedactedTranscript) and output.is_unanswered:
                    return [*transcribed, *self._words_refused(now_s)]
                return transcribed
            case EndOfTurn():
                self._ears.sounds_finished()
            case TurnChecked():
                self._turn_check.answered(output)
            case Taken() | CommandNoted() | StepNoted():
                pass  # for the session's intake, and for who records it
            case _:
                assert_never(output)
        return []

    def _words_refused(self, now_s: float) -> list[Reaction]:
        """Let nothing answer words of the user that a check has refused."""
        ended = self._responses.words_refused(now_s)
        if not ended:
            # What is asked for next would answer them, or what was said before.
            self._refused = ClientError(
                "What the user said is refused by a filter of this server.",
                code="content_filter",
            )
        return ended

    def _on_failure(self, output: SessionFailed, now_s: float) -> list[Reaction]:
        if output.session_id != self.config.id:
            return self._responses.running.aside_failed(output.session_id, output.message, now_s)
        self._num_failures += 1
        error = ErrorEvent("server_error", "engine_failed", output.message, None, None)
        if self._num_failures > _MAX_FAILURES:
            failed = self._responses.failed("engine_failed", output.message, now_s)
            return [*failed, error, _FAILED]
        failed = self._responses.running.lost(output.message, now_s)
        return [*failed, error, *self._turns.lost(), *self._responses.resumed()]

    def _on_news(self, news: News, now_s: float) -> list[Reaction]:
        if isinstance(news, EngineLost):
            self._gate.clear()
        match news:
            case EngineLost() if news.culprit == self.config.id:
                # Told again, it would be the next engine's end as well.
                self._is_engine_away = True
                message = "The engine was lost over what this session gave it."
                error = ErrorEvent("server_error", "engine_failed", message, None, None)
                return [*self._responses.failed("engine_failed", message, now_s), error, _FAILED]
            case EngineLost():
                self._is_engine_away = True
                error = ErrorEvent("server_error", "engine_failed", news.message, None, None)
                failed = self._responses.running.failed("engine_failed", news.message, now_s)
                return [*failed, error, *self._turns.lost(), *self._responses.resumed()]
            case EngineBack():
                return self._told_anew()
            case EngineGone():
                error = ErrorEvent("server_error", "engine_failed", news.message, None, None)
                failed = self._responses.failed("engine_failed", news.message, now_s)
                return [*failed, error, _FAILED]
            case EngineSilent() | EngineHeard():
                return []
            case _:
                assert_never(news)


def _in_force(config: SessionConfig, info: EngineInfo) -> SessionConfig:
    """Return a configuration as it is with an engine; clients are shown what is so."""
    # A duplex model's memory is a window that moves on by itself, whatever anybody wants.
    return replace(config, truncation="auto") if info.is_duplex else config


def _state(
    config: SessionConfig, info: EngineInfo, voices: VoiceMap, ids: Ids, limits: Limits
) -> SessionState:
    """Return what all parts of a new session share."""
    return SessionState(
        _in_force(config, info),
        info,
        voices,
        ids,
        Conversation(limits.max_items, limits.max_conversation_chars, limits.max_image_bytes),
        Recordings(limits.max_recording_bytes, info.sample_rate_hz),
        Sight(limits.max_glimpses),
        limits.policy,
        limits.max_context_tokens,
        delegate=limits.delegate,
        prompts=limits.prompts,
    )
