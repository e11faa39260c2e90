"""Make the assistant's replies: first the words in one burst, then the audio, frame by frame."""

from __future__ import annotations

import numpy as np

from model.dialogue.history import AssistantItem, History, Ints
from model.dialogue.phase import Cue
from model.dialogue.reply import Reply, SpeechTiming
from model.dialogue.steps import Decode, Event, TurnLimits
from model.dialogue.vocabulary import TurnVocabulary
from model.engine.messages import DoneReason, Respond, ResponseDone, ResponseText, Usage
from model.errors import EngineError
from model.state import Kind


class Speaker:
    """Reply in one conversation.

    Args:
        session_id: who is told.
        history: of the conversation; written.
        vocabulary: of the tokenizer.
        limits: bounds.
        timing: of the codec.
        delays: steps by which each codebook comes late, 0 or 1.

    Attributes:
        reply: the reply in progress.

    Raises:
        EngineError: for other delays.
    """

    __slots__ = (
        "_delays",
        "_history",
        "_limits",
        "_paid",
        "_session_id",
        "_timing",
        "_vocabulary",
        "reply",
    )

    def __init__(
        self,
        session_id: str,
        history: History,
        vocabulary: TurnVocabulary,
        limits: TurnLimits,
        *,
        timing: SpeechTiming,
        delays: tuple[int, ...],
    ) -> None:
        if not set(delays) <= {0, 1}:
            raise EngineError(f"expected codes to come 0 or 1 steps late, got {delays}")
        self._session_id, self._history = session_id, history
        self._vocabulary, self._limits = vocabulary, limits
        self._timing, self._delays = timing, np.array(delays)
        self.reply: Reply | None = None
        self._paid = (0, 0)  # text and audio steps that responses have been charged for

    @property
    def next_piece(self) -> int:
        """Return the piece that is to be spoken next, -1 if there is none."""
        return self.reply.next_piece if self.reply else -1

    def begin(self, request: Respond, *, is_fed: bool) -> None:
        """Begin a reply; `is_fed` if its first step, <reply>, is in the history already."""
        if not is_fed:
            self._history.append(Kind.TEXT, self._vocabulary.reply)
        item = AssistantItem(request.item_id, len(self._history) - 1, is_audio=request.audio)
        self._history.items.append(item)
        text, audio = self._history.count_steps()
        text -= 1  # <reply> itself
        usage = Usage(text, audio, min(self._paid[0], text), min(self._paid[1], audio))
        self.reply = Reply(request, item, usage, self._timing)

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
        if not reply.request.audio:
            return [self.end("completed")], Cue.END
        reply.item.speak = len(self._history)
        self._history.append(Kind.SPEAK, vocabulary.speak)
        return [], Cue.SPEAK

    def spoke(self, piece: int, codes: Ints) -> tuple[list[Event], Cue | None]:
        """Take what the newest SPEAK step put out: a piece, and codes int64 [K].

        Returns:
            What the session is told and what is to be decoded, in order, and how the conversation
            moves on, if it does.
        """
        reply = self.reply
        assert reply is not None
        # A code that comes late has no frame yet at the reply's beginning.
        codes = np.where(self._delays <= reply.num_frames, codes, -1)
        is_long = reply.is_exhausted or reply.num_frames >= self._limits.max_reply_frames
        if piece == self._vocabulary.eos or is_long or self._is_stuck(reply):
            events: list[Event] = [] if is_long else [*reply.speak_rest(self._vocabulary)]
            # The last step begins no frame; only late codes are left.
            events.append(_decode(reply, np.where(self._delays > 0, codes, -1), is_last=True))
            while reply.needs_flush:
                events.append(_decode(reply, np.full_like(codes, -1), is_last=True))
            return [*events, self.end("max_output_tokens" if is_long else "completed")], Cue.END
        word = reply.speak(piece, self._vocabulary)
        self._history.append(Kind.SPEAK, piece, assistant=codes)
        decode = _decode(reply, codes)
        return [decode] if word is None else [word, decode], None

    def end(self, reason: DoneReason) -> ResponseDone:
        """End the reply in progress, as it is."""
        reply, self.reply = self.reply, None
        assert reply is not None
        self._history.append(Kind.TEXT, self._vocabulary.eos)
        reply.item.stop = len(self._history)
        self._paid = self._history.count_steps()
        return ResponseDone(self._session_id, reply.request.turn, reason, reply.final_usage())

    def _is_stuck(self, reply: Reply) -> bool:
        limits = self._limits
        if reply.next_piece == -1:
            return reply.frames_since_word > limits.max_tail_frames
        return reply.num_frames > limits.max_tail_frames + limits.frames_per_piece * len(reply.plan)


def _decode(reply: Reply, codes: Ints, *, is_last: bool = False) -> Decode:
    is_first = reply.num_decoded == 0
    start, stop = reply.decoded_range(is_last=is_last)
    return Decode(reply.request.turn, codes, is_first, start, stop)
