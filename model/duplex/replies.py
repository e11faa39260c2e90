"""Make responses of what a duplex model says by itself.

The gateway asks for a response ahead of time, with a `Respond` that stands until the model begins
to talk. The response begins there and ends where the model falls silent. One that is not standing
was asked for by the client, now: it also ends, empty, if the model has nothing to say for a while.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from model.duplex.talk import Frame, Talk, TalkRules
from model.messages import (
    DoneReason,
    Output,
    Respond,
    ResponseAudio,
    ResponseDone,
    ResponseStarted,
    ResponseText,
    ResponseWord,
    Usage,
)
from model.pieces import Detokenizer, TextPieces

# A worked example of offers. The gateway has sent a standing `Respond` for turn 4.
#
#     frame 10    the model begins to talk: turn 4 begins, and the offer is used up
#     frame 40    it falls silent: turn 4 is done, and the gateway sends the `Respond` of turn 5
#     frame 41    it talks on before that has come: the frame is held
#     later       turn 5's `Respond` comes: the held frame is its first one
#
# So nothing that the model says is lost, however soon it goes on.
# Talk that nobody has asked for yet; a standing request is away for milliseconds only.
_MAX_HELD_FRAMES = 125


@dataclass(slots=True)
class Spoken:
    """What was said of a response.

    Attributes:
        item_id: the item that it becomes.
        first_call: the step in which its first frame became whole.
        num_frames: of audio.
        num_pieces: of text.
    """

    item_id: str
    first_call: int
    num_frames: int = 0
    num_pieces: int = 0


@dataclass(slots=True)
class Account:
    """Count what a conversation consists of, in tokens, and what responses were charged for.

    Attributes:
        text: pieces of the prompt and of what the model said.
        audio: frames of the user and of what the model said.
        paid_text: of the text, what an earlier response was charged for.
        paid_audio: of the audio, the same.
    """

    text: int = 0
    audio: int = 0
    paid_text: int = 0
    paid_audio: int = 0

    def so_far(self, spoken: Spoken | None) -> Usage:
        """Return the usage of a response as far as it has come."""
        own_text = spoken.num_pieces if spoken else 0
        own_audio = spoken.num_frames if spoken else 0
        # What the response itself has said is its output. It becomes input of the next one.
        text, audio = self.text - own_text, self.audio - own_audio
        return Usage(
            input_text_tokens=text,
            input_audio_tokens=audio,
            input_cached_text_tokens=min(self.paid_text, text),
            input_cached_audio_tokens=min(self.paid_audio, audio),
            output_text_tokens=own_text,
            output_audio_tokens=own_audio,
        )

    def charge(self, spoken: Spoken | None) -> Usage:
        """Return the usage of a response that ends now, and take its input for paid."""
        usage = self.so_far(spoken)
        self.paid_text, self.paid_audio = self.text, self.audio
        return usage


@dataclass(slots=True)
class _Word:
    """A word of a response that may go on."""

    text: str
    start_ms: int


@dataclass(slots=True)
class _Running:
    """A response in progress."""

    request: Respond
    spoken: Spoken
    text: Detokenizer
    words: list[_Word] = field(default_factory=list)  # at most one, the newest


class DuplexReplies:
    """Follow the responses of one conversation.

    Args:
        session_id: whose.
        pieces: to read the model's text.
        rules: where talk begins and ends.
        frame_ms: length of a frame.
        answer_frames: frames for which a response that was asked for waits for the model.

    Attributes:
        account: tokens of the conversation; what is heard is counted by whoever hears it.
        spoken: what was said last, None before.
    """

    __slots__ = (
        "_answer_frames",
        "_frame_ms",
        "_held",
        "_offer",
        "_patience",
        "_pieces",
        "_running",
        "_session_id",
        "_talk",
        "account",
        "spoken",
    )

    def __init__(
        self,
        session_id: str,
        pieces: TextPieces,
        rules: TalkRules,
        frame_ms: int,
        answer_frames: int,
    ) -> None:
        self._session_id = session_id
        self._pieces, self._frame_ms = pieces, frame_ms
        self._answer_frames = answer_frames
        self._talk = Talk(rules)
        # Talk that no response has taken, each frame with whether talk is over with it.
        self._held: deque[tuple[Frame, bool]] = deque(maxlen=_MAX_HELD_FRAMES)
        self._offer: Respond | None = None
        self._patience: int | None = None  # frames until an offer that was asked for is given up
        self._running: _Running | None = None
        self.account = Account()
        self.spoken: Spoken | None = None

    @property
    def is_busy(self) -> bool:
        """Say whether the model talks, or somebody waits for it to talk."""
        return self._talk.is_on or self._patience is not None

    def respond(self, request: Respond, num_waiting: int) -> list[Output]:
        """Take a request for a response; one more for the same turn takes the place of the first.

        Args:
            request: standing, or not.
            num_waiting: frames of the user that wait to be heard before the model can answer.
        """
        if self._running is not None and self._running.request.turn == request.turn:
            return []
        self._offer = request
        # Audio that is still to be heard does not count against the model: it cannot answer what it
        # has not heard.
        self._patience = None if request.is_standing else num_waiting + self._answer_frames
        outputs, _ = self._flush()
        return outputs

    def frame(self, frame: Frame) -> tuple[list[Output], bool]:
        """Take the next frame that the model made.

        Returns:
            What follows, and whether the model is to be made silent.
        """
        frames, is_over = self._talk.feed(frame)
        last = len(frames) - 1
        self._held += [(each, is_over and i == last) for i, each in enumerate(frames)]
        outputs, is_cut = self._flush()
        # One frame of the model's has passed. While it talks, nothing is given up.
        if self._patience is not None:
            self._patience -= 1
            if self._patience < 0 and not self._talk.is_on:
                outputs += self._give_up()
        return outputs, is_cut

    def end(self, reason: DoneReason) -> list[Output]:
        """End what the model says now, and any response with it."""
        self._talk.stop()
        self._held.clear()
        return self._done(reason) if self._running is not None else []

    def cancel(self, turn: int) -> tuple[list[Output], bool]:
        """Stop a response; returns what follows, and whether the model was talking."""
        if self._running is not None and self._running.request.turn == turn:
            return self.end("cancelled"), True
        if self._offer is not None and self._offer.turn == turn:
            self._offer = self._patience = None
            done = ResponseDone(self._session_id, turn, "cancelled", self.account.charge(None))
            return [done], False
        return [], False

    def _give_up(self) -> list[Output]:
        """End a response for which the model had nothing to say."""
        assert self._offer is not None, "only offers run out of patience"
        turn, self._offer, self._patience = self._offer.turn, None, None
        return [ResponseDone(self._session_id, turn, "completed", self.account.charge(None))]

    def _flush(self) -> tuple[list[Output], bool]:
        """Give what is held to responses, as far as they were asked for."""
        outputs: list[Output] = []
        while self._held:
            if self._running is None:
                if self._offer is None:
                    break
                outputs.append(self._begin(self._offer, self._held[0][0]))
            frame, is_over = self._held.popleft()
            outputs += self._say(frame)
            if is_over:
                outputs += self._done("completed")
            elif self._is_full:
                outputs += self.end("max_output_tokens")
                return outputs, True
        return outputs, False

    def _begin(self, offer: Respond, frame: Frame) -> Output:
        """Begin the response that was asked for."""
        self.spoken = Spoken(offer.item_id, frame.call)
        self._running = _Running(offer, self.spoken, Detokenizer(self._pieces))
        self._offer = self._patience = None
        return ResponseStarted(self._session_id, offer.turn, self.account.so_far(self.spoken))

    @property
    def _is_full(self) -> bool:
        assert self._running is not None, "a response is in progress"
        limit, spoken = self._running.request.max_output_tokens, self._running.spoken
        return limit is not None and spoken.num_frames + spoken.num_pieces >= limit

    def _say(self, frame: Frame) -> list[Output]:
        running = self._running
        assert running is not None, "a response is in progress"
        session_id, turn = self._session_id, running.request.turn
        outputs: list[Output] = []
        if frame.is_word:
            running.spoken.num_pieces += 1
            self.account.text += 1
            # A word is known to be complete when the next one begins, with a space, or when the
            # talk ends.
            if self._pieces.spelling(frame.piece).startswith(b" "):
                outputs += self._word_ended()
        if text := running.text.push(frame.piece):
            outputs += self._written(text)
        running.spoken.num_frames += 1
        self.account.audio += 1
        if running.request.audio:
            outputs.append(ResponseAudio(session_id, turn, frame.pcm))
        return outputs

    def _written(self, text: str) -> list[Output]:
        running = self._running
        assert running is not None, "a response is in progress"
        # The time of a word is that of its first piece: 12 frames of 80 ms have been said before
        # it, so it begins at 960 ms.
        if running.words:
            running.words[0].text += text
        else:
            running.words.append(_Word(text, running.spoken.num_frames * self._frame_ms))
        return [ResponseText(self._session_id, running.request.turn, text)]

    def _word_ended(self) -> list[Output]:
        running = self._running
        assert running is not None, "a response is in progress"
        words, running.words = running.words, []
        turn = running.request.turn
        return [
            ResponseWord(self._session_id, turn, text, word.start_ms)
            for word in words
            if (text := word.text.strip())
        ]

    def _done(self, reason: DoneReason) -> list[Output]:
        running = self._running
        assert running is not None, "a response is in progress"
        rest = running.text.finish()
        outputs = self._written(rest) if rest else []
        outputs += self._word_ended()
        self._running = None
        usage = self.account.charge(running.spoken)
        return [*outputs, ResponseDone(self._session_id, running.request.turn, reason, usage)]
