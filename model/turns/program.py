"""Turn one conversation into steps of the model, turn by turn.

This is the starter's dialogue program, for one session. It holds no tensors and calls no model: it
says what the next steps are (`plan`), is told what the model made of them (`observe`), and collects
what the session is to be told (`take_events`).

How a conversation is laid out in steps:

    <bos> <voice>                      prefix, pinned
    LISTEN LISTEN LISTEN ...           one a frame of the user; text: live transcript, <end> once
    <user> what is your name           final transcript, written by the model; or a typed turn
    <reply> i am parley                the reply's words, in one burst
    <speak> SPEAK SPEAK ...            one a frame of the reply; text: its words again, in time;
                                       one more, which puts out <eos>, for the codes that come late
    <eos>

The piece that a step puts out is the text of the next step. A typed turn looks like the transcript
of a spoken one, so what is learned as text serves speech. `<reply>` is put out at the end of a
transcript and fed when a reply is asked for.

A model that was taught them has instructions and functions in its prefix, after the voice, and may
go on, once it has said what it says first, with a call:

    <reply> one moment please <call> get weather <speak> city paris <speak>
    <speak> SPEAK SPEAK ...            the words before the call
    <eos>
    <result> dry and nine degrees      what it returned

and <unsure> stands before <reply> where nobody could understand the user. Such a call is made at
once and told when the words before it have been spoken. Where the functions of a response are
others than before, the prefix changes and everything is fed again.

A model that sees is fed what it is shown as steps of its own, <image> for each patch, where it was
shown: before a question that is spoken next, within a typed item, or after the words of a question
during which a camera was on.

A model that was not answers in words. It follows no instructions and never calls a function of its
own accord; a response that demands a call is one, with arguments that the function's schema accepts
and that mean little.

Commands are taken in order, each when the phase allows; `Cancel` and `Reopen` are taken at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from model.arrays import Ints, Scores
from model.errors import EngineError
from model.messages import (
    AppendAudio,
    AppendCall,
    AppendCallOutput,
    AppendText,
    Cancel,
    CheckTurn,
    ClearAudio,
    CommitAudio,
    InputTranscript,
    Open,
    Pcm,
    Pixels,
    Recite,
    Reopen,
    Respond,
    ResponseDone,
    Tool,
    Truncate,
    TurnChecked,
    Usage,
)
from model.prompts import prompt_pieces
from model.schemas.spelling import Speller
from model.turns.call import Writer
from model.turns.history import VOICE_INDEX, History, StepBlock
from model.turns.items import Item, append_item, append_pictures
from model.turns.listener import Listener
from model.turns.phase import TRANSITIONS, Cue, Phase
from model.turns.reply import SpeechTiming
from model.turns.sight import Sight
from model.turns.speaker import Speaker, demands_call
from model.turns.steps import Event, Mask, NextSteps, TurnLimits
from model.turns.tentative import Noise, TentativeCommit
from model.turns.truncation import truncated

# A worked example: what a program goes through for one spoken question.
#
#     command or tick          phase          history grows by
#     Open                     IDLE           <bos> <voice>
#     AppendAudio              LISTENING      -
#     plan, observe            LISTENING      LISTEN, one for each whole frame; words come out
#     CommitAudio, Respond     TRANSCRIBING   <user>, the draft, <reply>
#     observe                  REPLYING       the reply's words, one a step
#     observe                  SPEAKING       SPEAK, one a frame, with its codes; the words again
#     observe <eos>            IDLE           <eos>
#
# Commands that come while the phase does not allow them wait in `_pending`, in order: the next
# question may be appended while the reply is still being made. Which cue leads from which phase to
# which is a table, `TRANSITIONS` in `model/turns/phase.py`.

# Commands that a conversation takes one after another.
SessionCommand = (
    AppendAudio
    | ClearAudio
    | CommitAudio
    | CheckTurn
    | AppendText
    | AppendCall
    | AppendCallOutput
    | Respond
    | Recite
    | Truncate
)


class TurnProgram:
    """Run one conversation.

    Args:
        session: who talks, and in which voice.
        speller: of the tokenizer's vocabulary.
        writer: writes the arguments of calls.
        timing: of the codec.
        delays: steps by which each codebook comes late, 0 or 1.
        noise: what the session's choices are drawn with, if they are.
        limits: bounds.
        sight: how the model sees; None for one that does not.

    Attributes:
        session_id: whose conversation it is.
        phase: what it is doing.
        history: what was fed to the model, and is to be fed next.

    Raises:
        EngineError: from the constructor and from `accept`, for what cannot be done.
    """

    __slots__ = (
        "_events",
        "_instructions",
        "_limits",
        "_listener",
        "_pending",
        "_sight",
        "_speaker",
        "_tentative",
        "_timing",
        "_vocabulary",
        "_waiting_samples",
        "_worded",
        "_written",
        "history",
        "phase",
        "session_id",
    )

    def __init__(
        self,
        session: Open,
        *,
        speller: Speller,
        writer: Writer,
        timing: SpeechTiming,
        delays: tuple[int, ...],
        noise: Noise | None = None,
        limits: TurnLimits | None = None,
        sight: Sight | None = None,
    ) -> None:
        limits, vocabulary = limits or TurnLimits(), speller.vocabulary
        self.session_id = session.session_id
        self.phase = Phase.IDLE
        self._vocabulary, self._timing, self._limits = vocabulary, timing, limits
        self._sight, self._instructions = sight, session.instructions
        # The newest prompt: what it is made of, its pieces and the functions that had room.
        self._written: tuple[str, tuple[Tool, ...], list[int], tuple[Tool, ...]] | None = None
        prefix = (vocabulary.bos, self._voice_piece(session.voice), *self._prompt(None)[0])
        self.history = History(prefix, len(delays), limits.max_history_steps)
        self._listener = Listener(
            self.session_id,
            self.history,
            vocabulary,
            limits,
            frame_samples=timing.frame_samples,
            frame_ms=timing.frame_ms,
        )
        self._speaker = Speaker(
            self.session_id, self.history, speller, writer, limits, timing=timing, delays=delays
        )
        self._pending: deque[SessionCommand] = deque()
        self._waiting_samples = 0  # in pending commands
        self._worded = ""  # the user's item whose words may go on
        self._tentative = TentativeCommit(self.history, self._listener, self._speaker, noise)
        self._events: list[Event] = []

    # What the engine asks.

    @property
    def wants_frame(self) -> bool:
        """Tell whether a frame of the user waits to be encoded and heard."""
        return self.phase is Phase.LISTENING and self._listener.wants_frame

    @property
    def has_work(self) -> bool:
        """Tell whether `plan` would return steps, given a frame if it wants one."""
        is_known = self.history.fed < len(self.history)
        return is_known or self.wants_frame or self._speaker.has_answer

    @property
    def prompt(self) -> StepBlock | None:
        """Return the pinned steps, as long as the model has seen nothing of the conversation."""
        return self.history.prefix if not self.history.fed else None

    def recall(self, num_steps: int) -> None:
        """Count the first steps as seen: the model remembers them from another conversation."""
        self.history.fed = num_steps
        paid = self._speaker.paid
        self._speaker.paid = paid._replace(text=max(paid.text, num_steps))

    @property
    def num_waiting_steps(self) -> int:
        """Count the steps that are known and not fed yet."""
        return len(self.history) - self.history.fed

    @property
    def num_waiting_frames(self) -> int:
        """Count the whole frames of the user that wait to be heard."""
        return self._listener.frames.num_frames

    @property
    def is_answer_awaited(self) -> bool:
        """Tell whether the user has said everything, though not all of it was heard yet."""
        return any(isinstance(command, CommitAudio) for command in self._pending)

    def take_frame(self) -> tuple[Pcm, bool]:
        """Return the user's next frame, float32 [frame_samples], and whether it starts a turn."""
        return self._listener.take_frame()

    def take_events(self) -> list[Event]:
        """Return what has happened since the last call, in order."""
        events, self._events = self._events, []
        return events

    def accept(self, command: SessionCommand | Cancel | Reopen) -> None:
        """Take a command, now or when its time comes.

        Raises:
            EngineError: too much waits already, the command is not for this model, or there is
                nothing to reopen.
        """
        match command:
            case Cancel():
                self._cancel(command.turn)
            case Reopen():
                self._reopen(command.item_id)
            case AppendAudio():
                _check_pcm(command.pcm)
                self._waiting_samples += len(command.pcm)
            case Respond() if command.voice is not None:
                self._voice_piece(command.voice)
            case AppendText() | CommitAudio() if command.images and self._sight is None:
                raise EngineError("this model cannot see, and was given a picture")
            case _:
                pass
        num_samples = self._waiting_samples + self._listener.frames.num_samples
        if num_samples > self._limits.max_waiting_samples:
            raise EngineError("more audio waits to be heard than the engine holds for a session")
        if not isinstance(command, Cancel | Reopen):
            self._pending.append(command)
        self._advance()

    def plan(self, user: Ints | None = None) -> NextSteps | None:
        """Say what to feed next.

        Args:
            user: int64 [K], codes of the frame from `take_frame`, if it was taken.

        Returns:
            The steps, or None if there is nothing to do.
        """
        if user is not None:
            self._listener.hear(user)
            # A commit that waited for this frame needs nothing of what the frame puts out.
            self._advance()
        if self._speaker.has_answer:
            self._go_on(*self._speaker.resume())
            self._advance()
        if self.phase is Phase.TRANSCRIBING and self._next_reply() is not None:
            self._listener.feed_reply_early()
        history, max_steps = self.history, self._limits.max_prefill_steps
        start, stop = history.fed, len(history)
        if start == stop:
            return None
        masks = self._masks()
        if stop - start > max_steps:
            # A long history is fed in several calls, so that no tick is long. What is sampled from
            # stays together in the last call.
            stop = min(start + max_steps, stop - len(masks))
            return NextSteps(start, history.block(start, stop))
        is_speaking = self.phase is Phase.SPEAKING
        also: tuple[int, ...] = ()
        if is_speaking or self.phase is Phase.CALLING:
            also = self._speaker.choices
        elif self._may_call():
            also = (self._vocabulary.call,)
        weighed = self._listener.weighed if self.phase is Phase.TRANSCRIBING else ()
        block = history.block(start, stop)
        return NextSteps(start, block, masks, also, weighed, has_codes=is_speaking)

    def observe(
        self,
        steps: NextSteps,
        pieces: Ints | None,
        scores: Scores | None,
        codes: Ints | None,
        sure: float | None = None,
    ) -> None:
        """Learn what the model made of `steps`.

        Args:
            steps: from `plan`.
            pieces: int64, one for each of `masks`; None without masks.
            scores: float [masks, 2], log-probabilities of these and of `weighed`, if the masks are
                of a transcript; None without masks.
            codes: int64 [K], None unless `has_codes`.
            sure: that the user's turn is over, 0 to 1; None unless the model has a head for it and
                a frame of the user was heard.
        """
        self.history.fed = steps.start + len(steps.block)
        if pieces is not None:
            assert scores is not None
            match self.phase:
                case Phase.LISTENING:
                    self._events += self._listener.heard(int(pieces[0]), sure)
                case Phase.TRANSCRIBING:
                    if self._listener.transcribed(pieces, scores):
                        self._finish_transcript(pieces)
                case Phase.REPLYING:
                    self._go_on(*self._speaker.wrote(int(pieces[0])))
                case Phase.SPEAKING:
                    assert codes is not None
                    self._go_on(*self._speaker.spoke(int(pieces[0]), codes))
                case Phase.CALLING:
                    self._go_on(*self._speaker.called(int(pieces[0])))
                case Phase.IDLE:
                    raise AssertionError("nothing is sampled between turns")
        self._advance()

    def rebuild(self) -> None:
        """Feed everything again from the prefix on, because the state has lost it."""
        self._shift(self.history.rebuild())

    # Commands.

    def _advance(self) -> None:
        while self._pending and self._take(self._pending[0]):
            command = self._pending.popleft()
            if isinstance(command, AppendAudio):
                self._waiting_samples -= len(command.pcm)
        if self.phase is Phase.IDLE and not self._pending and self._listener.is_shelved:
            self._listen()

    def _take(self, command: SessionCommand) -> bool:
        """Carry out a command if the phase allows it, and tell whether it did."""
        if self.phase not in (Phase.IDLE, Phase.LISTENING) or self._lacks_words(command):
            return False
        if not isinstance(command, Respond | Recite | CheckTurn):
            self._tentative.confirm()
        match command:
            case AppendAudio():
                self._listen()
                self._listener.frames.append(command.pcm)
            case CommitAudio():
                return self._commit(command)
            case CheckTurn():
                return self._check(command)
            case ClearAudio():
                self._clear()
            case Truncate():
                self._truncate(command)
            case AppendText() | AppendCall() | AppendCallOutput() | Respond():
                if len(self.history) - self.history.fed > self._limits.max_item_pieces:
                    return False  # the model catches up first
                if self.phase is Phase.LISTENING:
                    self._listener.shelve()
                    self._move(Cue.SHELVE)
                if isinstance(command, Respond):
                    self._respond(command)
                else:
                    self._append(command)
        return True

    def _append(self, item: Item) -> None:
        """Add an item, or a part of the user's item that was begun before."""
        history, vocabulary = self.history, self._vocabulary
        max_pieces, worded, self._worded = self._limits.max_item_pieces, self._worded, ""
        if not isinstance(item, AppendText) or item.role != "user":
            append_item(history, item, vocabulary, max_pieces)
            return
        # A worked example, "compare this", a picture, "with that", a picture, which is one item:
        #
        #     <user> compare this <image> ... <image> with that <image> ... <image>
        #
        # A picture without words is no question: its steps stand alone, before what is said next.
        goes_on = item.item_id == worded
        if item.text or not item.images:
            append_item(history, item, vocabulary, max_pieces, goes_on=goes_on)
            goes_on = True
        self._worded = item.item_id if goes_on else ""
        self._show(item.images)

    def _show(self, images: Sequence[Pixels]) -> None:
        if images:
            assert self._sight is not None, "pictures were refused"
            pictures = [self._sight.patches(image) for image in images]
            append_pictures(self.history, pictures, self._vocabulary)

    def _move(self, cue: Cue) -> None:
        self.phase = TRANSITIONS[self.phase, cue]

    def _go_on(self, events: Sequence[Event], cue: Cue | None) -> None:
        self._events += events
        if cue is not None:
            self._move(cue)

    def _shift(self, delta: int) -> None:
        """Move along with steps of the history."""
        self._listener.shift(delta)
        self._tentative.shift(delta)

    # The user's turn.

    def _listen(self) -> None:
        if self.phase is not Phase.LISTENING:
            self._listener.listen()
            self._move(Cue.HEAR)

    def _clear(self, *, keeps_audio: bool = False) -> None:
        self._listener.clear(keeps_audio=keeps_audio)
        if self.phase is Phase.LISTENING:
            self._move(Cue.CLEAR)

    def _commit(self, command: CommitAudio) -> bool:
        listener = self._listener
        if listener.turn is not None:
            self._listen()
            if not command.is_tentative:
                listener.frames.complete()
            if listener.frames.num_frames:
                return False
        if command.is_tentative:
            self._tentative.commit(command.item_id)
        if listener.turn is None or not listener.turn.num_frames:
            self._clear(keeps_audio=command.is_tentative)
            self._events.append(InputTranscript(self.session_id, command.item_id, ""))
            self._show(command.images)
            return True
        listener.begin_transcript(command.item_id, command.images)
        self._move(Cue.COMMIT)
        return True

    def _check(self, command: CheckTurn) -> bool:
        if self._listener.is_shelved:
            self._listen()
        # What is to be forgotten need not be heard.
        ends = (c for c in self._pending if isinstance(c, ClearAudio | CommitAudio))
        if self._listener.is_hearing and not isinstance(next(ends, None), ClearAudio):
            return False
        is_finished = self._listener.sounds_finished(command.eagerness)
        self._events.append(TurnChecked(self.session_id, command.key, is_finished))
        return True

    def _finish_transcript(self, pieces: Ints) -> None:
        turn = self._listener.turn
        assert turn is not None
        self._events.append(self._listener.finish())
        self._show(turn.images)
        self._move(Cue.TRANSCRIBED)
        if not turn.is_reply_fed:
            return
        request = self._next_reply()
        if request is None:  # it was cancelled meanwhile
            self.history.cut(len(self.history) - 1)
            return
        self._pending.popleft()
        self._respond(request, is_fed=True)
        self._go_on(*self._speaker.wrote(int(pieces[-1])))

    def _reopen(self, item_id: str) -> None:
        waiting = [
            isinstance(c, CommitAudio) and c.is_tentative and c.item_id == item_id
            for c in self._pending
        ]
        if any(waiting):
            index = waiting.index(True)
            del self._pending[index]
            self._forget_requests(index)
            return
        is_listening = self._tentative.reopen(item_id)
        self._forget_requests(0)
        if is_listening:
            self._move(Cue.REOPEN)
        elif self.phase is not Phase.IDLE:
            self._move(Cue.END)

    def _forget_requests(self, index: int) -> None:
        """Drop the responses that wait from `index` on, as far as nothing else is among them."""
        while index < len(self._pending) and isinstance(self._pending[index], Respond):
            del self._pending[index]

    # The assistant's turn.

    def _respond(self, request: Respond, *, is_fed: bool = False) -> None:
        pieces, tools = self._prefix_for(request)
        self._shift(self.history.replace_prefix(pieces))
        self._move(Cue.RESPOND)
        self._go_on(*self._speaker.begin(request, tools, is_fed=is_fed))
        if request.recites:
            words = "".join(given.text for given in self._given(request))
            self._go_on(*self._speaker.recite(words))

    def _lacks_words(self, command: SessionCommand) -> bool:
        """Tell whether not all is there that a response is to recite."""
        if not isinstance(command, Respond) or not command.recites:
            return False
        return not any(given.is_last for given in self._given(command))

    def _given(self, request: Respond) -> list[Recite]:
        """Return what a response is to recite; once it is over, nobody takes these commands."""
        return [c for c in self._pending if isinstance(c, Recite) and c.turn == request.turn]

    def _prefix_for(self, request: Respond) -> tuple[tuple[int, ...], tuple[Tool, ...]]:
        """Say what a response is led by, and which functions of the request are part of it."""
        voice = self.history.prefix_pieces[VOICE_INDEX]
        if request.voice is not None:
            voice = self._voice_piece(request.voice)
        prompt, tools = self._prompt(request)
        return (self._vocabulary.bos, voice, *prompt), tools

    def _prompt(self, request: Respond | None) -> tuple[list[int], tuple[Tool, ...]]:
        """Write instructions and functions, those of a response or of the session.

        A response that demands a call may ask for one of any function, whether the model was
        shown it or not.
        """
        instructions: str = self._instructions
        tools: tuple[Tool, ...] = ()
        if request is not None:
            if request.instructions is not None:
                instructions = request.instructions
            tools = () if request.tool_choice == "none" else request.tools
        if not self._vocabulary.is_taught_prompts:
            return [], tools
        if self._written is None or self._written[:2] != (instructions, tools):
            room = self._limits.max_prefix_steps - 2
            made = prompt_pieces(instructions, tools, self._vocabulary.encode, room)
            self._written = instructions, tools, *made
        _, _, pieces, shown = self._written
        return pieces, tools if request is not None and demands_call(request) else shown

    def _next_reply(self) -> Respond | None:
        """Return the request that comes next, if words continue the conversation as it was fed."""
        command = self._pending[0] if self._pending else None
        if not isinstance(command, Respond) or command.recites or demands_call(command):
            return None
        is_led_so = self._prefix_for(command)[0] == self.history.prefix_pieces
        return command if is_led_so else None

    def _may_call(self) -> bool:
        """Tell whether the newest step may begin a function call instead of words."""
        if self.phase is Phase.REPLYING:
            return self._speaker.may_call
        turn = self._listener.turn
        if self.phase is not Phase.TRANSCRIBING or turn is None or not turn.is_reply_fed:
            return False
        request = self._next_reply()
        return request is not None and self._can_call(request)

    def _can_call(self, request: Respond) -> bool:
        return self._vocabulary.is_taught_prompts and bool(self._prefix_for(request)[1])

    def _cancel(self, turn: int) -> None:
        """Stop a response. Nothing of it is made afterwards: this is where stale output ends."""
        reply = self._speaker.reply
        if reply is not None and reply.request.turn == turn:
            self._go_on([self._speaker.end("cancelled")], Cue.END)
            return
        for command in self._pending:
            if isinstance(command, Respond) and command.turn == turn:
                self._pending.remove(command)
                self._events.append(ResponseDone(self.session_id, turn, "cancelled", Usage()))
                return

    # Changes of the past.

    def _truncate(self, command: Truncate) -> None:
        items = self.history.items
        item = next((item for item in items if item.item_id == command.item_id), None)
        if item is None or (command.heard_ms and not item.is_audio):
            return  # gone from memory, or never to be heard
        block = truncated(
            self.history, item, command.heard_ms, self._vocabulary, self._timing.frame_ms
        )
        self._shift(self.history.replace(item, block))

    def _masks(self) -> tuple[Mask, ...]:
        """Say which pieces the newest steps may put out."""
        match self.phase:
            case Phase.IDLE:
                return ()
            case Phase.LISTENING:
                turn = self._listener.turn
                return () if turn is None or turn.is_sampled else (Mask.LISTEN,)
            case Phase.TRANSCRIBING:
                return self._listener.masks()
            case Phase.REPLYING:
                return (Mask.REPLY,)
            case Phase.SPEAKING:
                return (Mask.SPEAK,)
            case Phase.CALLING:
                return () if self._speaker.is_waiting else (Mask.CALL,)

    def _voice_piece(self, voice: str) -> int:
        piece = self._vocabulary.voices.get(voice)
        if piece is None:
            known = ", ".join(self._vocabulary.voices)
            raise EngineError(f"unknown voice {voice!r}, expected one of {known}")
        return piece


def _check_pcm(pcm: Pcm) -> None:
    if pcm.dtype != np.float32 or pcm.ndim != 1:
        raise EngineError(f"expected pcm float32 [samples], got {pcm.dtype} {list(pcm.shape)}")
    if not np.isfinite(pcm).all():
        raise EngineError("expected finite samples, got NaN or infinity")
