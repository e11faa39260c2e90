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

Commands are taken in order, each when the phase allows; `Cancel` alone is taken at once.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

from model.dialogue.frames import FrameBuffer
from model.dialogue.history import AssistantItem, History, Ints, StepBlock
from model.dialogue.phase import TRANSITIONS, Cue, Phase
from model.dialogue.reply import Reply, SpeechTiming
from model.dialogue.truncation import truncated
from model.dialogue.vocabulary import TurnVocabulary
from model.engine.messages import (
    AppendAudio,
    AppendText,
    Cancel,
    ClearAudio,
    CommitAudio,
    EndOfTurn,
    InputTranscript,
    InputTranscriptDelta,
    Open,
    Output,
    Pcm,
    Respond,
    ResponseDone,
    ResponseText,
    Truncate,
    Usage,
)
from model.errors import EngineError
from model.state import Kind

# Commands that a conversation takes one after another.
SessionCommand = AppendAudio | ClearAudio | CommitAudio | AppendText | Respond | Truncate


class Mask(IntEnum):
    """Which pieces the model may put out."""

    NOTHING = 0
    LISTEN = 1  # pad, word pieces, <end>
    TRANSCRIPT = 2  # word pieces, <reply>
    REPLY = 3  # word pieces, <speak>
    SPEAK = 4  # pad, <eos>; and `NextSteps.also`, the next piece of the plan


@dataclass(frozen=True, slots=True)
class TurnLimits:
    """Bound what one conversation can ask of the engine.

    Attributes:
        max_prefill_steps: most steps of one `NextSteps`.
        max_transcript_pieces: longest final transcript.
        max_reply_pieces: longest text of a reply.
        max_item_pieces: longest typed item; its last pieces are kept.
        max_reply_frames: longest reply.
        frames_per_piece: frames that a piece may take on average, before a reply counts as stuck.
        max_tail_frames: silence after the last word, before a reply counts as finished.
        max_waiting_samples: most audio that can wait to be heard.
        max_history_steps: steps that are remembered for changes of the past.
    """

    max_prefill_steps: int = 64
    max_transcript_pieces: int = 128
    max_reply_pieces: int = 128
    max_item_pieces: int = 1024
    max_reply_frames: int = 750  # 60 s
    frames_per_piece: int = 15
    max_tail_frames: int = 25
    max_waiting_samples: int = 120 * 16_000
    max_history_steps: int = 8192  # eleven minutes of uninterrupted audio


@dataclass(frozen=True, slots=True)
class NextSteps:
    """Say what to feed next.

    Attributes:
        start: steps of the history that the state must have seen before.
        block: the steps.
        masks: which pieces the last steps may put out, one a step; empty if none is wanted.
        also: one more piece that the last step may put out, or -1.
        has_codes: whether the last step makes a frame of audio.
    """

    start: int
    block: StepBlock
    masks: tuple[Mask, ...] = ()
    also: int = -1
    has_codes: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Decode:
    """Ask for the decoder to be given one step of codes, and its output to be delivered.

    Attributes:
        turn: whose audio it is.
        codes: int64 [K], as delayed; -1 where absent.
        is_first: whether a new stream begins.
        start, stop: the samples of the decoder's frame that belong to the reply.
    """

    turn: int
    codes: Ints
    is_first: bool
    start: int
    stop: int


@dataclass(slots=True)
class _Listening:
    """The user turn in progress."""

    start: int  # index of its first step
    text_in: int  # piece that the next LISTEN step feeds
    pieces: list[int] = field(default_factory=list)  # live transcript
    num_frames: int = 0
    has_ended: bool = False  # the end was reported, and no word was heard since
    is_sampled: bool = True  # what the last LISTEN step puts out is known
    draft: list[int] = field(default_factory=list)  # final transcript that is being checked
    is_reply_fed: bool = False  # the draft is followed by <reply>, in case it is right
    item_id: str = ""


_Event = Output | Decode


class TurnProgram:
    """Run one conversation.

    Args:
        session: who talks, and in which voice.
        vocabulary: of the tokenizer.
        timing: of the codec.
        delays: steps by which each codebook comes late.
        limits: bounds.

    Raises:
        EngineError: from the constructor and from `accept`, for what cannot be done.
    """

    __slots__ = (
        "_delays",
        "_events",
        "_frames",
        "_limits",
        "_listening",
        "_paid",
        "_pending",
        "_reply",
        "_shelf",
        "_timing",
        "_vocabulary",
        "_waiting_samples",
        "history",
        "phase",
        "session_id",
    )

    def __init__(
        self,
        session: Open,
        *,
        vocabulary: TurnVocabulary,
        timing: SpeechTiming,
        delays: tuple[int, ...],
        limits: TurnLimits | None = None,
    ) -> None:
        self.session_id = session.session_id
        self.phase = Phase.IDLE
        self._vocabulary, self._timing = vocabulary, timing
        self._limits = limits or TurnLimits()
        if not set(delays) <= {0, 1}:
            raise EngineError(f"expected codes to come 0 or 1 steps late, got {delays}")
        self._delays = np.array(delays)
        prefix = (vocabulary.bos, self._voice_piece(session.voice))
        self.history = History(prefix, len(delays), self._limits.max_history_steps)
        self._frames = FrameBuffer(timing.frame_samples)
        self._pending: deque[SessionCommand] = deque()
        self._waiting_samples = 0  # in pending commands
        self._events: list[_Event] = []
        self._listening: _Listening | None = None
        self._shelf: StepBlock | None = None  # steps of a user turn that something has to precede
        self._reply: Reply | None = None
        self._paid = (0, 0)  # text and audio steps that responses have been charged for

    # What the engine asks.

    @property
    def wants_frame(self) -> bool:
        """Tell whether a frame of the user waits to be encoded and heard."""
        turn = self._listening
        return (
            self.phase is Phase.LISTENING
            and turn is not None
            and turn.is_sampled
            and self._frames.num_frames > 0
        )

    @property
    def has_work(self) -> bool:
        """Tell whether `plan` would return steps, given a frame if it wants one."""
        return self.history.fed < len(self.history) or self.wants_frame

    @property
    def num_reply_frames(self) -> int:
        """Count the frames of the reply in progress that are complete; 0 without a reply."""
        return self._reply.num_frames if self._reply else 0

    def take_frame(self) -> tuple[Pcm, bool]:
        """Return the user's next frame, float32 [frame_samples], and whether it starts a turn."""
        assert self._listening is not None
        return self._frames.take(), self._listening.num_frames == 0

    def take_events(self) -> list[_Event]:
        """Return what has happened since the last call, in order."""
        events, self._events = self._events, []
        return events

    def accept(self, command: SessionCommand | Cancel) -> None:
        """Take a command, now or when its time comes.

        Raises:
            EngineError: too much waits already, or the command is not for this model.
        """
        match command:
            case Cancel():
                self._cancel(command.turn)
            case AppendAudio():
                _check_pcm(command.pcm)
                self._waiting_samples += len(command.pcm)
            case Respond() if command.voice is not None:
                self._voice_piece(command.voice)
            case _:
                pass
        if self._waiting_samples + self._frames.num_samples > self._limits.max_waiting_samples:
            raise EngineError("more audio waits to be heard than the engine holds for a session")
        if not isinstance(command, Cancel):
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
            self._hear(user)
        self._feed_reply_early()
        history, limits = self.history, self._limits
        start, stop = history.fed, len(history)
        if start == stop:
            return None
        masks = self._masks()
        if stop - start > limits.max_prefill_steps:
            # What is sampled from stays together in the last call.
            stop = min(start + limits.max_prefill_steps, stop - len(masks))
            return NextSteps(start, history.block(start, stop))
        return NextSteps(
            start,
            history.block(start, stop),
            masks,
            also=self._reply.next_piece if self._reply and self.phase is Phase.SPEAKING else -1,
            has_codes=self.phase is Phase.SPEAKING,
        )

    def observe(self, steps: NextSteps, pieces: Ints | None, codes: Ints | None) -> None:
        """Learn what the model made of `steps`.

        Args:
            steps: from `plan`.
            pieces: int64, one for each of `masks`; None without masks.
            codes: int64 [K], None unless `has_codes`.
        """
        self.history.fed = steps.start + len(steps.block)
        if pieces is not None:
            match self.phase:
                case Phase.LISTENING:
                    self._heard(int(pieces[0]))
                case Phase.TRANSCRIBING:
                    self._transcribed(pieces)
                case Phase.REPLYING:
                    self._replied(int(pieces[0]))
                case Phase.SPEAKING:
                    assert codes is not None
                    self._spoke(int(pieces[0]), codes)
                case Phase.IDLE:
                    raise AssertionError("nothing is sampled between turns")
        self._advance()

    def rebuild(self) -> None:
        """Feed everything again from the prefix on, because the state has lost it."""
        delta = self.history.rebuild()
        if self._listening:
            self._listening.start += delta

    # Commands.

    def _advance(self) -> None:
        while self._pending and self._take(self._pending[0]):
            command = self._pending.popleft()
            if isinstance(command, AppendAudio):
                self._waiting_samples -= len(command.pcm)
        if self.phase is Phase.IDLE and not self._pending and self._shelf is not None:
            self._listen()

    def _take(self, command: SessionCommand) -> bool:
        """Carry out a command if the phase allows it, and tell whether it did."""
        if self.phase not in (Phase.IDLE, Phase.LISTENING):
            return False
        match command:
            case AppendAudio():
                self._listen()
                self._frames.append(command.pcm)
                return True
            case CommitAudio():
                return self._commit(command)
            case ClearAudio():
                self._clear()
                return True
            case Truncate():
                self._truncate(command)
                return True
            case AppendText() | Respond():
                if len(self.history) - self.history.fed > self._limits.max_item_pieces:
                    return False  # the model catches up first
                self._shelve()
                if isinstance(command, Respond):
                    self._respond(command)
                else:
                    self._append_text(command)
                return True

    def _move(self, cue: Cue) -> None:
        self.phase = TRANSITIONS[self.phase, cue]

    # The user's turn.

    def _listen(self) -> None:
        """Be in the user's turn: the one in progress, the one on the shelf, or a new one."""
        if self.phase is Phase.LISTENING:
            return
        self._move(Cue.HEAR)
        start = len(self.history)
        if self._listening is None:
            self._listening = _Listening(start, self._vocabulary.pad)
        self._listening.start = start
        if self._shelf is not None:
            self.history.extend(self._shelf)
            self._shelf = None

    def _shelve(self) -> None:
        """Put the user's turn in progress aside."""
        if self.phase is Phase.LISTENING:
            self._shelf = self._take_back_turn()
            self._move(Cue.SHELVE)

    def _take_back_turn(self) -> StepBlock:
        assert self._listening is not None
        return self.history.take(max(self._listening.start, self.history.oldest))

    def _clear(self) -> None:
        if self.phase is Phase.LISTENING:
            self._take_back_turn()
            self._move(Cue.CLEAR)
        self._listening = self._shelf = None
        self._frames.clear()

    def _hear(self, user: Ints) -> None:
        turn = self._listening
        assert turn is not None
        self.history.append(Kind.LISTEN, turn.text_in, user=user)
        turn.num_frames += 1
        turn.is_sampled = False
        # A commit that waited for this frame needs nothing of what the frame puts out.
        self._advance()

    def _heard(self, piece: int) -> None:
        turn, vocabulary = self._listening, self._vocabulary
        assert turn is not None
        turn.text_in, turn.is_sampled = piece, True
        if vocabulary.is_word_piece(piece):
            text = vocabulary.delta(turn.pieces, piece)
            turn.pieces.append(piece)
            turn.has_ended = False
            if text:  # a piece may be nothing but the space before a word
                self._events.append(InputTranscriptDelta(self.session_id, text))
        elif piece == vocabulary.end and not turn.has_ended:
            turn.has_ended = True
            audio_ms = turn.num_frames * self._timing.frame_ms
            self._events.append(EndOfTurn(self.session_id, audio_ms))

    def _commit(self, command: CommitAudio) -> bool:
        if self._listening is not None:
            self._listen()
            self._frames.complete()
            if self._frames.num_frames:
                return False
        turn = self._listening
        if turn is None or not turn.num_frames:
            self._clear()
            self._events.append(InputTranscript(self.session_id, command.item_id, ""))
            return True
        self._move(Cue.COMMIT)
        self.history.append(Kind.TEXT, self._vocabulary.user)
        # The live transcript is most often right: checking it takes one call, writing it several.
        limit = min(self._limits.max_transcript_pieces, self._limits.max_prefill_steps - 2)
        turn.item_id, turn.draft = command.item_id, turn.pieces[:limit]
        for piece in turn.draft:
            self.history.append(Kind.TEXT, piece)
        turn.pieces = []
        return True

    def _feed_reply_early(self) -> None:
        """If a draft is about to be checked and a reply is asked for, begin it in the same call."""
        turn = self._listening
        if self.phase is not Phase.TRANSCRIBING or turn is None or not turn.draft:
            return
        if not turn.is_reply_fed and self._next_reply() is not None:
            self.history.append(Kind.TEXT, self._vocabulary.reply)
            turn.is_reply_fed = True

    def _next_reply(self) -> Respond | None:
        """Return the request that comes next, if it continues the conversation as it was fed."""
        command = self._pending[0] if self._pending else None
        if isinstance(command, Respond) and self._is_same_voice(command):
            return command
        return None

    def _transcribed(self, pieces: Ints) -> None:
        turn = self._listening
        assert turn is not None
        draft, turn.draft = turn.draft, []
        is_reply_fed, turn.is_reply_fed = turn.is_reply_fed, False
        first = len(self.history) - len(draft) - is_reply_fed
        # The draft stands as far as the model would have written the same.
        num_right = 0
        while num_right < len(draft) and draft[num_right] == pieces[num_right]:
            num_right += 1
        turn.pieces += draft[:num_right]
        piece = int(pieces[num_right])
        if is_reply_fed and num_right == len(draft) and piece == self._vocabulary.reply:
            self._finish_transcript(turn)
            request = self._next_reply()
            if request is not None:
                self._pending.popleft()
                self._respond(request, is_fed=True)
                self._replied(int(pieces[-1]))
            else:  # it was cancelled meanwhile
                self.history.cut(first + num_right)
            return
        self.history.cut(first + num_right)
        if piece != self._vocabulary.reply and (
            len(turn.pieces) < self._limits.max_transcript_pieces
        ):
            turn.pieces.append(piece)
            self.history.append(Kind.TEXT, piece)
            return
        self._finish_transcript(turn)

    def _finish_transcript(self, turn: _Listening) -> None:
        text = self._vocabulary.spell(turn.pieces)
        self._events.append(InputTranscript(self.session_id, turn.item_id, text))
        self._listening = None
        self._move(Cue.TRANSCRIBED)

    # The assistant's turn.

    def _respond(self, request: Respond, *, is_fed: bool = False) -> None:
        """Begin a reply; `is_fed` if the model has read its first step already."""
        start = len(self.history) - is_fed
        if request.voice is not None:
            self.history.replace_prefix(1, self._voice_piece(request.voice))
        text, audio = self.history.count_steps()
        text -= is_fed
        cached_text, cached_audio = min(self._paid[0], text), min(self._paid[1], audio)
        item = AssistantItem(request.item_id, start, is_audio=request.audio)
        self.history.items.append(item)
        if not is_fed:
            self.history.append(Kind.TEXT, self._vocabulary.reply)
        self._reply = Reply(
            request, item, Usage(text, audio, cached_text, cached_audio), self._timing
        )
        self._move(Cue.RESPOND)

    def _replied(self, piece: int) -> None:
        reply, vocabulary = self._reply, self._vocabulary
        assert reply is not None
        if vocabulary.is_word_piece(piece) and len(reply.plan) < self._limits.max_reply_pieces:
            text = vocabulary.delta(reply.plan, piece)
            reply.plan.append(piece)
            self.history.append(Kind.TEXT, piece)
            if text:
                self._events.append(ResponseText(self.session_id, reply.request.turn, text))
            if reply.is_exhausted:
                reply.reason = "max_output_tokens"
                self._end()
        elif reply.request.audio:
            reply.item.speak = len(self.history)
            self.history.append(Kind.SPEAK, vocabulary.speak)
            self._move(Cue.SPEAK)
        else:
            self._end()

    def _spoke(self, piece: int, codes: Ints) -> None:
        reply = self._reply
        assert reply is not None
        # A code that comes late has no frame yet at the reply's beginning.
        codes = np.where(self._delays <= reply.num_frames, codes, -1)
        is_long = reply.is_exhausted or reply.num_frames >= self._limits.max_reply_frames
        if piece == self._vocabulary.eos or is_long or self._is_stuck(reply):
            reply.reason = "max_output_tokens" if is_long else "completed"
            # The last step begins no frame; only late codes are left.
            self._decode(reply, np.where(self._delays > 0, codes, -1), is_last=True)
            while reply.needs_flush:
                self._decode(reply, np.full_like(codes, -1), is_last=True)
            self._end()
            return
        word = reply.speak(piece, self._vocabulary)
        if word is not None:
            self._events.append(word)
        self._decode(reply, codes)
        self.history.append(Kind.SPEAK, piece, assistant=codes)

    def _is_stuck(self, reply: Reply) -> bool:
        limits = self._limits
        if reply.next_piece == -1:
            return reply.frames_since_word > limits.max_tail_frames
        return reply.num_frames > limits.max_tail_frames + limits.frames_per_piece * len(reply.plan)

    def _decode(self, reply: Reply, codes: Ints, *, is_last: bool = False) -> None:
        is_first = reply.num_decoded == 0
        start, stop = reply.decoded_range(is_last=is_last)
        self._events.append(Decode(reply.request.turn, codes, is_first, start, stop))

    def _end(self) -> None:
        reply = self._reply
        assert reply is not None
        self.history.append(Kind.TEXT, self._vocabulary.eos)
        reply.item.stop = len(self.history)
        self._paid = self.history.count_steps()
        self._events.append(
            ResponseDone(self.session_id, reply.request.turn, reply.reason, reply.final_usage())
        )
        self._reply = None
        self._move(Cue.END)

    def _cancel(self, turn: int) -> None:
        """Stop a response. Nothing of it is made afterwards: this is where stale output ends."""
        if self._reply is not None and self._reply.request.turn == turn:
            self._reply.reason = "cancelled"
            self._end()
            return
        for command in self._pending:
            if isinstance(command, Respond) and command.turn == turn:
                self._pending.remove(command)
                self._events.append(ResponseDone(self.session_id, turn, "cancelled", Usage()))
                return

    # Other items, and changes of the past.

    def _append_text(self, command: AppendText) -> None:
        vocabulary = self._vocabulary
        pieces = vocabulary.encode(command.text)[-self._limits.max_item_pieces :]
        start = len(self.history)
        match command.role:
            case "user":
                pieces = [vocabulary.user, *pieces]
            case "assistant":
                pieces = [vocabulary.reply, *pieces, vocabulary.eos]
            case "system":
                return  # the starter was not taught to follow instructions
        for piece in pieces:
            self.history.append(Kind.TEXT, piece)
        if command.role == "assistant":
            item = AssistantItem(command.item_id, start, is_audio=False, stop=len(self.history))
            self.history.items.append(item)

    def _truncate(self, command: Truncate) -> None:
        item = next((i for i in self.history.items if i.item_id == command.item_id), None)
        if item is None or not item.is_audio:
            return  # gone from memory, or never to be heard
        block = truncated(
            self.history, item, command.heard_ms, self._vocabulary, self._timing.frame_ms
        )
        delta = self.history.replace(item, block)
        if self._listening is not None and self.phase is Phase.LISTENING:
            self._listening.start += delta

    def _masks(self) -> tuple[Mask, ...]:
        """Say which pieces the newest steps may put out."""
        turn, mask = self._listening, _MASKS[self.phase]
        match self.phase:
            case Phase.IDLE:
                return ()
            case Phase.LISTENING:
                return () if turn is None or turn.is_sampled else (mask,)
            case Phase.TRANSCRIBING:
                assert turn is not None
                masks = (mask,) * (1 + len(turn.draft))
                return (*masks, Mask.REPLY) if turn.is_reply_fed else masks
            case Phase.REPLYING | Phase.SPEAKING:
                return (mask,)

    def _is_same_voice(self, request: Respond) -> bool:
        return request.voice is None or self.history.prefix_piece(1) == self._voice_piece(
            request.voice
        )

    def _voice_piece(self, voice: str) -> int:
        piece = self._vocabulary.voices.get(voice)
        if piece is None:
            known = ", ".join(self._vocabulary.voices)
            raise EngineError(f"unknown voice {voice!r}, expected one of {known}")
        return piece


_MASKS = {
    Phase.IDLE: Mask.NOTHING,
    Phase.LISTENING: Mask.LISTEN,
    Phase.TRANSCRIBING: Mask.TRANSCRIPT,
    Phase.REPLYING: Mask.REPLY,
    Phase.SPEAKING: Mask.SPEAK,
}


def _check_pcm(pcm: Pcm) -> None:
    if pcm.dtype != np.float32 or pcm.ndim != 1:
        raise EngineError(f"expected pcm float32 [samples], got {pcm.dtype} {list(pcm.shape)}")
    if not np.isfinite(pcm).all():
        raise EngineError("expected finite samples, got NaN or infinity")
