"""Make one reply, step by step, each at its time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from model.messages import (
    CallArguments,
    CallDone,
    CallStarted,
    DoneReason,
    EngineInfo,
    Output,
    Pcm,
    Respond,
    ResponseAudio,
    ResponseDone,
    ResponseFailed,
    ResponseText,
    ResponseWord,
    SessionFailed,
    Usage,
)
from model.scripted.answer import Answer
from model.scripted.voice import speak_word

_ARGUMENT_CHARS = 8  # of one piece


@dataclass(frozen=True, slots=True)
class _Step:
    """What is made at one moment, `takes_s` after the step before it."""

    takes_s: float
    outputs: tuple[Output, ...]
    audio_s: float = 0.0


_NO_WORDS = _Step(0.0, ())


class Reply:
    """One response in the making: its words in a burst, then the audio, then the calls.

    What is recited is written and spoken as it comes.

    Times are those at which a step was due, not those at which somebody came to make it, so the
    same script takes the same time on any machine that keeps up.

    Args:
        request: to be answered.
        answer: to give.
        voice: that speaks it.
        usage: tokens that it is based on; output counts are filled in at its end.
        info: of the engine.
        ahead_s: audio that may be made before its time to be played.
        now_s: when it was asked for, on the engine's clock.

    Attributes:
        request: as given.
        due_s: when the next step is to be made.
        is_over: whether the last output was made.
        is_waiting: whether it has no more words, and more are to come.
    """

    __slots__ = (
        "_ahead_s",
        "_answer",
        "_fragment",
        "_info",
        "_is_all",
        "_next",
        "_num_audio_tokens",
        "_num_text_tokens",
        "_played_s",
        "_steps",
        "_usage",
        "_voice",
        "_words",
        "due_s",
        "is_over",
        "is_waiting",
        "request",
    )

    def __init__(
        self,
        request: Respond,
        answer: Answer,
        *,
        voice: str,
        usage: Usage,
        info: EngineInfo,
        ahead_s: float,
        now_s: float,
    ) -> None:
        self.request = request
        self._answer, self._voice, self._usage = answer, voice, usage
        self._info, self._ahead_s = info, ahead_s
        self._num_text_tokens = self._num_audio_tokens = 0
        self._played_s: float | None = None  # when the audio so far will have been played
        self._words = [*answer.words]
        self._fragment = ""  # of a word whose end has not come
        self._is_all = not request.recites  # whether no more words will come
        self._steps = self._recital() if request.recites else self._all_steps()
        self.is_over = self.is_waiting = False
        self.due_s = now_s + answer.pace.first_output_ms / 1000
        self._next = self._following()

    def recite(self, text: str, *, is_last: bool, now_s: float) -> None:
        """Take words that come from elsewhere.

        Args:
            text: to be appended to the words before; a word may come in pieces.
            is_last: whether no more will come.
            now_s: as of the constructor.
        """
        # "hel" and then "lo wor" are the word "hello" and the beginning of another.
        self._fragment += text
        words = self._fragment.split()
        is_open = not is_last and not self._fragment[-1:].isspace()
        self._fragment = words.pop() if is_open and words else ""
        self._words += words
        self._is_all = is_last
        if self.is_waiting:
            self.is_waiting = False
            self._next = self._following()
            self.due_s = max(self.due_s, now_s)

    def _following(self) -> _Step | None:
        """Return the next step; None at the end, and while there are no words for one."""
        step = next(self._steps, None)
        if step is _NO_WORDS:
            self.is_waiting = True
            return None
        return step

    def make(self) -> list[Output]:
        """Make the step that is due."""
        step, limit = self._next, self.request.max_output_tokens
        # The end is a step of its own, after all others: a script may let a response fail, or a
        # session be lost, when everything was said.
        if step is None:
            self.is_over = True
            return [self._ending()]
        # A step is one token of text, or one frame of sound. If it would be one too many, the reply
        # ends before it, and its words stay unsaid.
        num_text = sum(isinstance(made, ResponseText | CallArguments) for made in step.outputs)
        num_audio = 1 if step.audio_s else 0
        num_tokens = self._num_text_tokens + self._num_audio_tokens + num_text + num_audio
        if limit is not None and num_tokens > limit:
            return [self.end("max_output_tokens")]
        self._num_text_tokens += num_text
        self._num_audio_tokens += num_audio
        if step.audio_s:
            # A worked example with 150 words a minute, frames of 80 ms that take 8 ms to make, and
            # at most 1,000 ms ahead of the client:
            #
            #     step    made at   played until   next is due
            #     0       100 ms       180 ms      108: 8 ms later
            #     1       108 ms       260 ms      116
            #     ...
            #     12      196 ms     1,140 ms      204; 1,140 - 1,000 = 140 is earlier
            #     13      204 ms     1,220 ms      220: it may not run further ahead
            #     14      220 ms     1,300 ms      300
            #
            # So a reply is made fast until a second of it is in hand, and then at the pace at which
            # it is played, as a real engine does.
            start_s = self.due_s if self._played_s is None else max(self._played_s, self.due_s)
            self._played_s = start_s + step.audio_s
        self._next = self._following()
        if self._next is not None:
            self.due_s += self._next.takes_s
            if self._next.audio_s and self._played_s is not None:
                self.due_s = max(self.due_s, self._played_s - self._ahead_s)
        return [*step.outputs]

    def end(self, reason: DoneReason) -> ResponseDone:
        """Say that it is over, with what was put out of it until now as its usage."""
        self.is_over = True
        usage = replace(
            self._usage,
            output_text_tokens=self._num_text_tokens,
            output_audio_tokens=self._num_audio_tokens,
        )
        return ResponseDone(self.request.session_id, self.request.turn, reason, usage)

    def _ending(self) -> Output:
        answer, request = self._answer, self.request
        if answer.lose_session is not None:
            return SessionFailed(request.session_id, answer.lose_session)
        if answer.fail is not None:
            return ResponseFailed(request.session_id, request.turn, answer.fail)
        return self.end("completed")

    def _all_steps(self) -> Iterator[_Step]:
        session_id, turn = self.request.session_id, self.request.turn
        write_s = self._answer.pace.write_ms / 1000
        # All words are written first, then spoken: text runs ahead of the audio, as with the
        # starter.
        for index in range(len(self._words)):
            yield self._written(index)
        if self.request.audio:
            yield from self._speech()
        for call, (name, arguments) in enumerate(self._answer.calls):
            yield _Step(write_s, (CallStarted(session_id, turn, call, name),))
            for start in range(0, len(arguments), _ARGUMENT_CHARS):
                piece = arguments[start : start + _ARGUMENT_CHARS]
                yield _Step(write_s, (CallArguments(session_id, turn, call, piece),))
            yield _Step(0.0, (CallDone(session_id, turn, call),))

    def _recital(self) -> Iterator[_Step]:
        """Write words as they come, and speak those that are written."""
        num_written, speech = 0, self._speech()
        while True:
            if num_written < len(self._words):
                yield self._written(num_written)
                num_written += 1
                continue
            step = next(speech, None) if self.request.audio else None
            if step is None and self._is_all:
                return
            yield _NO_WORDS if step is None else step

    def _written(self, index: int) -> _Step:
        word, write_s = self._words[index], self._answer.pace.write_ms / 1000
        text = word if index == 0 else f" {word}"
        made = ResponseText(self.request.session_id, self.request.turn, text)
        return _Step(write_s, (made,))

    def _speech(self) -> Iterator[_Step]:
        session_id, turn = self.request.session_id, self.request.turn
        words, pace, rate_hz = self._words, self._answer.pace, self._info.sample_rate_hz
        # 150 words a minute at 24 kHz are 9,600 samples each, five frames. A word is announced in
        # the frame in which its first sample lies.
        word_samples = rate_hz * 60 // pace.words_per_minute
        start = num_begun = 0
        while True:
            # What is recited may get more words, and then the frame is made whole.
            stop = min(start + self._info.frame_samples, word_samples * len(words))
            if not self._is_all and stop - start < self._info.frame_samples:
                yield _NO_WORDS
                continue
            if stop == start:
                return
            outputs: list[Output] = []
            while num_begun < len(words) and num_begun * word_samples < stop:
                start_ms = num_begun * word_samples * 1000 // rate_hz
                outputs.append(ResponseWord(session_id, turn, words[num_begun], start_ms))
                num_begun += 1
            outputs.append(ResponseAudio(session_id, turn, self._sound(start, stop, word_samples)))
            audio_s = (stop - start) / rate_hz
            yield _Step(audio_s * pace.real_time_factor, tuple(outputs), audio_s)
            start = stop

    def _sound(self, start: int, stop: int, word_samples: int) -> Pcm:
        """Return the samples `start:stop` of the whole reply."""
        parts = []
        while start < stop:
            # Sample 10,000 of the reply is sample 400 of word 1: every word takes the same time, so
            # no table of beginnings is needed.
            index, offset = divmod(start, word_samples)
            sound = speak_word(
                self._voice, self._words[index], word_samples, self._info.sample_rate_hz
            )
            parts.append(sound[offset : offset + stop - start])
            start += len(parts[-1])
        return np.concatenate(parts)
