"""Make the assistant's replies: the words in one burst, then the audio; or a function call."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from model.arrays import Ints
from model.cache.state import Kind
from model.errors import EngineError, GrammarError, OverloadedError
from model.messages import (
    CallArguments,
    CallDone,
    CallStarted,
    DoneReason,
    Output,
    Respond,
    ResponseDone,
    ResponseFailed,
    ResponseStarted,
    ResponseText,
    Tool,
    Usage,
)
from model.schemas.spelling import Speller
from model.turns.call import Call, Writer, Written
from model.turns.history import AssistantItem, History, StepCount
from model.turns.phase import Cue
from model.turns.reply import Reply, SpeechTiming
from model.turns.steps import Decode, Event, TurnLimits


class Speaker:
    """Reply in one conversation.

    Args:
        session_id: who is told.
        history: of the conversation; written.
        speller: of the tokenizer's vocabulary.
        writer: writes the arguments of calls.
        limits: bounds.
        timing: of the codec.
        delays: steps by which each codebook comes late, 0 or 1.

    Attributes:
        reply: the reply in progress.
        paid: steps that responses have been charged for.

    Raises:
        EngineError: for other delays.
    """

    __slots__ = (
        "_delays",
        "_history",
        "_limits",
        "_session_id",
        "_speller",
        "_timing",
        "_vocabulary",
        "_writer",
        "paid",
        "reply",
    )

    def __init__(
        self,
        session_id: str,
        history: History,
        speller: Speller,
        writer: Writer,
        limits: TurnLimits,
        *,
        timing: SpeechTiming,
        delays: tuple[int, ...],
    ) -> None:
        if not set(delays) <= {0, 1}:
            raise EngineError(f"expected codes to come 0 or 1 steps late, got {delays}")
        self._session_id, self._history = session_id, history
        self._speller, self._vocabulary, self._limits = speller, speller.vocabulary, limits
        self._writer = writer
        self._timing, self._delays = timing, np.array(delays)
        self.reply: Reply | None = None
        self.paid = StepCount()

    @property
    def choices(self) -> tuple[int, ...]:
        """Return pieces that the next step may put out, beyond what its mask allows anyway."""
        reply = self.reply
        if reply is None:
            return ()
        if reply.call is not None:
            return tuple(reply.call.choices)
        return () if reply.next_piece == -1 else (reply.next_piece,)

    @property
    def is_waiting(self) -> bool:
        """Tell whether a call waits for what is written elsewhere."""
        reply = self.reply
        return reply is not None and reply.call is not None and reply.call.is_waiting

    @property
    def has_answer(self) -> bool:
        """Tell whether what a call has waited for is there, for `resume`."""
        reply = self.reply
        return reply is not None and reply.call is not None and reply.call.has_answer

    @property
    def may_call(self) -> bool:
        """Tell whether the reply in progress may become a call instead of its next word."""
        reply = self.reply
        return reply is not None and bool(reply.tools) and self._vocabulary.is_taught_prompts

    def begin(
        self, request: Respond, tools: tuple[Tool, ...], *, is_fed: bool
    ) -> tuple[list[Event], Cue | None]:
        """Begin a reply.

        Args:
            request: what is asked for.
            tools: functions of the request that the model was shown.
            is_fed: whether its first step, <reply>, is in the history already.

        Returns:
            What the session is told, and how the conversation moves on, if it does.
        """
        if not is_fed:
            self._history.append(Kind.TEXT, self._vocabulary.reply)
        is_audio = request.audio and not demands_call(request)
        item = AssistantItem(request.item_id, len(self._history) - 1, is_audio=is_audio)
        self._history.items.append(item)
        text, audio, image = self._history.count_steps()
        text -= 1  # <reply> itself
        usage = Usage(
            input_text_tokens=text,
            input_audio_tokens=audio,
            input_image_tokens=image,
            input_cached_text_tokens=min(self.paid.text, text),
            input_cached_audio_tokens=min(self.paid.audio, audio),
            input_cached_image_tokens=min(self.paid.image, image),
        )
        self.reply = reply = Reply(request, item, usage, self._timing, tools)
        num_prefix = len(self._history.prefix_pieces)
        started: list[Event] = [ResponseStarted(self._session_id, request.turn, usage, num_prefix)]
        if not demands_call(request):
            return started, None
        events, cue = self._begin_call(reply)
        return started + events, cue

    def _begin_call(self, reply: Reply) -> tuple[list[Event], Cue | None]:
        """Go on with a call; returns as `wrote`."""
        request = reply.request
        if self._vocabulary.is_taught_prompts:
            self._history.append(Kind.TEXT, self._vocabulary.call)
        name = f"{self._session_id}/{request.turn}"
        reply.call = Call(reply.tools, self._speller, self._writer, name)
        reply.call_offset = len(self._history) - reply.item.start
        events, cue = self._write(reply, reply.call.go_on)
        return events, cue or Cue.CALL

    def wrote(self, piece: int) -> tuple[list[Event], Cue | None]:
        """Take what the newest step of the burst put out.

        Returns:
            What the session is told, and how the conversation moves on, if it does.
        """
        reply, vocabulary = self.reply, self._vocabulary
        assert reply is not None
        if vocabulary.is_word_piece(piece) and len(reply.plan) < self._limits.max_reply_pieces:
            text = vocabulary.delta(reply.plan, piece)
            reply.plan.append(piece)
            self._history.append(Kind.TEXT, piece)
            # A piece may be nothing but the space before a word.
            events: list[Event] = []
            if text:
                events.append(ResponseText(self._session_id, reply.request.turn, text))
            if not reply.is_exhausted:
                return events, None
            return [*events, self.end("max_output_tokens")], Cue.END
        if piece == vocabulary.call and self.may_call:
            return self._begin_call(reply)
        if not reply.request.audio:
            return [self.end("completed")], Cue.END
        return self._begin_speech(reply)

    def recite(self, words: str) -> tuple[list[Event], Cue | None]:
        """Say words that are given, as far as the vocabulary spells them; returns as `wrote`."""
        events: list[Event] = []
        for piece in [*self._vocabulary.encode(words), self._vocabulary.eos]:
            made, cue = self.wrote(piece)
            events += made
            if cue is not None:
                return events, cue
        raise AssertionError("the last piece ends the words")

    def _begin_speech(self, reply: Reply) -> tuple[list[Event], Cue | None]:
        """Speak the words that are planned; returns as `wrote`."""
        reply.item.speak = len(self._history)
        self._history.append(Kind.SPEAK, self._vocabulary.speak)
        return [], Cue.SPEAK

    def spoke(self, piece: int, codes: Ints) -> tuple[list[Event], Cue | None]:
        """Take what the newest SPEAK step put out: a piece, and codes int64 [K].

        Returns:
            What the session is told and what is to be decoded, in order, and how the conversation
            moves on, if it does.
        """
        reply = self.reply
        assert reply is not None
        # With delays (0, 1, 1, ...) the first step has a semantic code and nothing else. The second
        # has the semantic code of frame 1 and the acoustic codes of frame 0, and so on.
        # A code that comes late has no frame yet at the reply's beginning.
        codes = np.where(self._delays <= reply.num_frames, codes, -1)
        is_long = reply.is_exhausted or reply.num_frames >= self._limits.max_reply_frames
        if piece == self._vocabulary.eos or is_long or self._is_stuck(reply):
            events: list[Event] = [] if is_long else [*reply.speak_rest(self._vocabulary)]
            # The last step begins no frame; only late codes are left.
            events.append(_decode(reply, np.where(self._delays > 0, codes, -1), is_last=True))
            while reply.needs_flush:
                events.append(_decode(reply, np.full_like(codes, -1), is_last=True))
            end = self.end("max_output_tokens" if is_long else "completed")
            # The words before a call are complete: it may be told.
            return [*events, *reply.held, end], Cue.END
        word = reply.speak(piece, self._vocabulary)
        self._history.append(Kind.SPEAK, piece, assistant=codes)
        decode = _decode(reply, codes)
        return [decode] if word is None else [word, decode], None

    def called(self, piece: int) -> tuple[list[Event], Cue | None]:
        """Take what the newest step of a call put out; returns as `wrote`."""
        reply = self.reply
        assert reply is not None
        assert reply.call is not None
        return self._write(reply, partial(reply.call.go_on, piece))

    def resume(self) -> tuple[list[Event], Cue | None]:
        """Go on with a call, now that what it has waited for is there; returns as `wrote`."""
        reply = self.reply
        assert reply is not None
        assert reply.call is not None
        return self._write(reply, reply.call.resume)

    def end(self, reason: DoneReason) -> ResponseDone:
        """End the reply in progress, as it is; a call that is not complete was never made."""
        reply, self.reply = self.reply, None
        assert reply is not None
        history, vocabulary, item = self._history, self._vocabulary, reply.item
        if reply.call is None or reply.call.is_complete or reply.plan:
            if reply.call is not None and not reply.call.is_complete:
                # What was said before it stays; the call was never made.
                history.cut(item.start + reply.call_offset - 1)
            elif reply.held and reason == "cancelled":
                self._take_back_call(reply)
            elif reply.call is not None and not vocabulary.is_taught_prompts:
                history.cut(item.start + 1)
                max_pieces = self._limits.max_item_pieces
                for piece in vocabulary.last_pieces(reply.call.memory, max_pieces):
                    history.append(Kind.TEXT, piece)
            history.append(Kind.TEXT, vocabulary.eos)
            item.stop = len(history)
        else:
            history.cut(item.start)
        self.paid = history.count_steps()
        return ResponseDone(self._session_id, reply.request.turn, reason, reply.final_usage())

    def _write(
        self, reply: Reply, write: Callable[[], Written | None]
    ) -> tuple[list[Event], Cue | None]:
        """Write some more of a call; returns as `wrote`."""
        session_id, turn, call = self._session_id, reply.request.turn, reply.call
        assert call is not None
        try:
            written = write()
        except (GrammarError, OverloadedError) as error:
            self.end("cancelled")
            message = f"the function's parameters cannot be followed: {error}"
            return [ResponseFailed(session_id, turn, message)], Cue.END
        if written is None:
            return [], None
        reply.num_call_pieces += len(written.pieces)
        is_long = reply.is_exhausted or reply.num_call_pieces >= self._limits.max_call_pieces
        if not is_long:
            # The model reads arguments up to a bound. Past it, the rest of the call is made without
            # the model.
            self._feed(reply, written)
        events: list[Output] = []
        if written.name is not None:
            events.append(CallStarted(session_id, turn, 0, written.name))
        if written.text:
            events.append(CallArguments(session_id, turn, 0, written.text))
        if call.is_complete:
            events.append(CallDone(session_id, turn, 0))
        if reply.plan and reply.request.audio:
            # Told when the words before it have been spoken.
            reply.held += events
            events = []
        if call.is_complete:
            if reply.held:
                return self._begin_speech(reply)
            return [*events, self.end("completed")], Cue.END
        if not call.choices:
            return [*events, self.end("max_output_tokens")], Cue.END
        if not is_long:
            return [*events], None
        more, cue = self._write(reply, call.close)
        return [*events, *more], cue

    def _take_back_call(self, reply: Reply) -> None:
        """Forget a call that was made and never told, and keep the words around it."""
        history, item = self._history, reply.item
        assert item.speak is not None
        spoken = history.take(item.speak)
        item.speak = item.start + reply.call_offset - 1
        history.cut(item.speak)
        history.extend(spoken)

    def _feed(self, reply: Reply, written: Written) -> None:
        """Let the model read what was written of a call."""
        history = self._history
        if written.kept is not None:
            history.cut(reply.item.start + reply.call_offset + written.kept)
            history.fed = min(history.fed, len(history) - 1)  # it is asked there once more
        for piece in written.pieces:
            history.append(Kind.TEXT, piece)

    def _is_stuck(self, reply: Reply) -> bool:
        limits = self._limits
        if reply.next_piece == -1:
            return reply.frames_since_word > limits.max_tail_frames
        # A plan of 10 pieces may take 25 + 15 * 10 = 175 frames, which is 14 s. Slow speech stays
        # far below that; only a model that has lost its place in the text comes so far.
        return reply.num_frames > limits.max_tail_frames + limits.frames_per_piece * len(reply.plan)


def demands_call(request: Respond) -> bool:
    """Tell whether a reply has to be a function call; one that may be is never one."""
    return request.tool_choice == "required" and bool(request.tools)


def _decode(reply: Reply, codes: Ints, *, is_last: bool = False) -> Decode:
    is_first = reply.num_decoded == 0
    start, stop = reply.decoded_range(is_last=is_last)
    return Decode(reply.request.turn, codes, is_first, start, stop)
