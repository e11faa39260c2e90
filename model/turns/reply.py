"""Follow one reply: the words planned, the words spoken, the audio made, the cost."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from model.messages import Output, Respond, ResponseWord, Tool, Usage
from model.turns.call import Call
from model.turns.history import AssistantItem
from model.vocabulary import TurnVocabulary


@dataclass(frozen=True, slots=True)
class SpeechTiming:
    """Relate SPEAK steps to the audio that the codec makes of them.

    Attributes:
        frame_samples: samples of one frame.
        frame_ms: its length.
        lookahead_samples: by how much the decoder's output lags behind the steps it was given.
        word_lead_frames: frames by which a word's first piece precedes its audio.
    """

    frame_samples: int
    frame_ms: int
    lookahead_samples: int
    word_lead_frames: int = 2


# A worked example of `decoded_range`. Frames have 1,280 samples, and the decoder is 640 behind the
# steps that it is given. A reply of two frames needs three steps of the decoder:
#
#     step   its output holds samples   of the reply     what is kept
#     0      -640 to 640                0 to 640         [640, 1280)
#     1      640 to 1,920               all of it        [0, 1280)
#     2      1,920 to 3,200             to 2,560         [0, 640)     `needs_flush` until then
#
# So no silence comes before the first sample, and none after the last.


@dataclass(slots=True)
class Reply:
    """One response in the making.

    Attributes:
        request: what was asked for.
        item: where it lies in the history.
        usage: tokens that it could be based on; output counts are filled in at its end.
        timing: of its audio.
        tools: functions that may be called.
        call: the function call that it consists of, if it is one.
        call_offset: steps from the reply's first one to the first one of the call.
        held: outputs about the call, which are sent once the words before it have been spoken.
        num_call_pieces: pieces of the call.
        plan: pieces of its text, written before it is spoken.
        num_spoken: pieces of the plan that have been spoken.
        num_frames: frames begun.
        num_decoded: steps handed to the decoder.
        frames_since_word: frames since the last piece of the plan.
    """

    request: Respond
    item: AssistantItem
    usage: Usage
    timing: SpeechTiming
    tools: tuple[Tool, ...] = ()
    call: Call | None = None
    call_offset: int = 0
    held: list[Output] = field(default_factory=list)
    num_call_pieces: int = 0
    plan: list[int] = field(default_factory=list)
    num_spoken: int = 0
    num_frames: int = 0
    num_decoded: int = 0
    frames_since_word: int = 0
    _word_start: int = 0
    _word_start_ms: int = 0

    @property
    def num_tokens(self) -> int:
        """Count the output tokens so far."""
        return len(self.plan) + self.num_call_pieces + self.num_frames

    @property
    def is_exhausted(self) -> bool:
        """Tell whether the tokens that were asked for at most are used up."""
        limit = self.request.max_output_tokens
        return limit is not None and self.num_tokens >= limit

    @property
    def next_piece(self) -> int:
        """Return the next piece of the plan to be spoken, -1 after the last."""
        return self.plan[self.num_spoken] if self.num_spoken < len(self.plan) else -1

    def speak(self, piece: int, vocabulary: TurnVocabulary) -> ResponseWord | None:
        """Begin a frame, at a step whose text output is `piece`.

        Returns:
            The word that `piece` completes, if it does.
        """
        # The word that begins in frame 5 is heard two frames later: (5 + 2) * 80 ms = 560 ms. That
        # is the time that a truncation is compared with, not the time at which the piece was put
        # out.
        frame = self.num_frames
        self.num_frames += 1
        self.frames_since_word += 1
        if not vocabulary.is_word_piece(piece):
            return None
        assert piece == self.next_piece
        if vocabulary.starts_word(piece) or not self.num_spoken:
            self._word_start = self.num_spoken
            self._word_start_ms = (frame + self.timing.word_lead_frames) * self.timing.frame_ms
        self.num_spoken += 1
        self.frames_since_word = 0
        if self.next_piece != -1 and not vocabulary.starts_word(self.next_piece):
            return None
        return self._word(vocabulary)

    def speak_rest(self, vocabulary: TurnVocabulary) -> list[ResponseWord]:
        """Return the words of the plan that no step put out, as spoken at the very end.

        The audio of a last word can be there without its pieces.
        """
        words = []
        end_ms = max((self.num_frames - 1) * self.timing.frame_ms, self._word_start_ms)
        while self.next_piece != -1:
            if vocabulary.starts_word(self.next_piece) or not self.num_spoken:
                self._word_start, self._word_start_ms = self.num_spoken, end_ms
            self.num_spoken += 1
            if self.next_piece == -1 or vocabulary.starts_word(self.next_piece):
                words.append(self._word(vocabulary))
        return words

    def _word(self, vocabulary: TurnVocabulary) -> ResponseWord:
        """Return the word that ends with the newest piece spoken."""
        self.item.word_starts_ms.append(self._word_start_ms)
        word = vocabulary.spell(self.plan[self._word_start : self.num_spoken])
        return ResponseWord(
            self.request.session_id, self.request.turn, word, start_ms=self._word_start_ms
        )

    def decoded_range(self, *, is_last: bool = False) -> tuple[int, int]:
        """Count one frame out of the decoder and say which of its samples belong to the reply.

        Args:
            is_last: whether the reply ends after the frames known now.

        Returns:
            First and past-the-last sample within the decoder's output of one frame.
        """
        timing = self.timing
        start = self.num_decoded * timing.frame_samples - timing.lookahead_samples
        self.num_decoded += 1
        stop = timing.frame_samples
        if is_last:
            stop = min(stop, self.num_frames * timing.frame_samples - start)
        return min(max(-start, 0), timing.frame_samples), max(stop, 0)

    @property
    def needs_flush(self) -> bool:
        """Tell whether the decoder still holds samples of the reply."""
        timing = self.timing
        made = self.num_decoded * timing.frame_samples - timing.lookahead_samples
        return self.num_frames > 0 and made < self.num_frames * timing.frame_samples

    def final_usage(self) -> Usage:
        """Return what the reply has cost."""
        return replace(
            self.usage,
            output_text_tokens=len(self.plan) + self.num_call_pieces,
            output_audio_tokens=self.num_frames,
        )
