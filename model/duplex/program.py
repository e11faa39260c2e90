"""Hold one conversation with a model that listens and speaks at once.

The program decides what each step is fed, and makes outputs of what it gives. It knows neither
tensors nor other conversations. A step is one of

    prompt     a frame of what the conversation begins with
    replay     a frame that was heard before, after the model was taken back to an earlier moment
    ending     the mark that the input is over, for a model that knows one
    live       a frame of the user, or silence in its place
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from kernels.arithmetic import ceil_div
from model.arrays import Ints
from model.duplex.prompt import Prompt
from model.duplex.replies import DuplexReplies
from model.duplex.talk import Frame, TalkRules
from model.duplex.user_stream import StreamRules, UserStream
from model.duplex.work import Work
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
    Output,
    Pcm,
    Recite,
    Reopen,
    Respond,
    SessionCommand,
    Truncate,
    TurnChecked,
)
from model.pieces import PAD, TextPieces

# A worked example of an interruption, with a longest delay of one frame. The model has said 30
# frames, and the client has played 22 of them when the user begins to talk:
#
#     Cancel       the response ends; the model is forced to be silent for the next 6 frames
#     Truncate     heard_ms = 22 * 80 = 1,760: eight frames were never heard
#     rewind       the model goes back to the step after which frame 22 was whole
#     replay       the user's frames of the steps that were taken back are fed again, and the
#                  model is silent in them; it hears itself stop where the user heard it stop
#     live         the user's next frame
#
# Whatever of the old sound still comes out after that is not listened to: `_deaf` counts the frames
# whose codes were chosen before, `_fading` those that only die away.
# Frames for which a model that was told to stop is made to be silent; as long as the pauses of
# PersonaPlex's prompts.
_HUSH_FRAMES = 6
# After that, its sound may take a while to fade; for no longer than this.
_FADING_FRAMES = 25

_CANNOT: dict[type[Reopen | Recite], str] = {
    Reopen: "a model that listens all the time has no turns to reopen",
    Recite: "this model says its own words only, and recites none",
}


class Manner(Protocol):
    """Decide in a model's place, where it cannot: a random one has nothing to say."""

    def forced(self, heard: Pcm) -> Ints:
        """Return what the frame that begins now must be: text and codes, -2 where it is free.

        Args:
            heard: the user's frame, float32 [frame_samples].
        """
        ...

    def hush(self) -> None:
        """Stop talking."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplexRules:
    """Say how conversations are paced and read.

    Attributes:
        stream: how long missing audio is waited for.
        talk: where responses begin and end.
        answer_ms: how long a response that a client asked for waits for the model to speak, once
            everything that was said before has been heard.
    """

    stream: StreamRules = field(default_factory=StreamRules)
    talk: TalkRules = field(default_factory=TalkRules)
    answer_ms: int = 4_000


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class DuplexTraits:
    """Describe a model, as far as its conversations depend on it.

    Attributes:
        frame_samples: of one frame.
        frame_ms: its length.
        longest_delay: frames by which its latest stream comes late.
        lag: frames by which it is behind the user besides.
        num_user: codes of a user's frame.
        pieces: of its text.
        silence: int64 [K], codes of a frame in which it says nothing.
        input_end: the code in all of the user's codebooks that says that the input is over; None
            if it knows no end.
        text_end: the piece that ends its answer to that; None if there is no such piece.
    """

    frame_samples: int
    frame_ms: int
    longest_delay: int
    lag: int
    num_user: int
    pieces: TextPieces
    silence: Ints
    input_end: int | None = None
    text_end: int | None = None


class DuplexProgram:
    """Run one conversation. Times are seconds on the engine's clock.

    Args:
        session_id: whose it is.
        traits: of the model.
        rules: of all conversations.
        prompt: what it begins with.
        manner: decides in the model's place; None lets it decide.
        now_s: when it begins.

    Attributes:
        session_id: whose it is.
        prompt: what it begins with.
        rewind_to: steps of it that are to be kept, if later ones are to be taken back; None if not.
        wants_restart: whether the model is to begin anew before the next step.
    """

    __slots__ = (
        "_began_s",
        "_deaf",
        "_fading",
        "_has_ended",
        "_hush",
        "_is_ending",
        "_is_marked",
        "_manner",
        "_num_calls",
        "_num_heard",
        "_num_live",
        "_num_prompted",
        "_questions",
        "_quiet",
        "_replay",
        "_replies",
        "_stream",
        "_traits",
        "prompt",
        "rewind_to",
        "session_id",
        "wants_restart",
    )

    def __init__(
        self,
        session_id: str,
        traits: DuplexTraits,
        rules: DuplexRules,
        prompt: Prompt,
        manner: Manner | None,
        now_s: float,
    ) -> None:
        self.session_id, self.prompt = session_id, prompt
        self._traits, self._manner, self._began_s = traits, manner, now_s
        self._stream = UserStream(traits.frame_samples, traits.frame_ms / 1000, rules.stream)
        self._replies = DuplexReplies(
            session_id,
            traits.pieces,
            rules.talk,
            traits.frame_ms,
            ceil_div(rules.answer_ms, traits.frame_ms),
        )
        self._replies.account.text = prompt.num_pieces
        self._num_calls = self._num_live = self._num_prompted = 0
        self._num_heard = 0  # frames of the user
        self._questions: deque[tuple[int, str]] = deque()  # frames to be heard first, key
        self._replay: deque[Ints] = deque()
        self._hush = 0  # frames in which the model is made to be silent
        self._deaf = 0  # whole frames that are not listened to
        self._fading = 0  # and after them those that are still not, as long as they are not quiet
        self._quiet = rules.talk.quiet
        self._is_ending = False  # the end of the input is to be marked
        self._is_marked = False  # it was
        self._has_ended = False  # the model said that it is over
        self.rewind_to: int | None = None
        self.wants_restart = False

    @property
    def is_prompting(self) -> bool:
        """Say whether frames of the prompt are still to come."""
        return self._num_prompted < len(self.prompt)

    def prompted(self, num_calls: int) -> None:
        """Note that the prompt is over, after this many steps in all."""
        self._num_calls, self._num_prompted = num_calls, len(self.prompt)

    def recorded(self, num_calls: int) -> None:
        """Note that what was recorded of a voice is over, after this many steps."""
        self._num_calls = num_calls

    def due_s(self) -> float | None:
        """Say from when on the next step is to be made; None if not as things are."""
        # A prompt and a replay wait for nobody: they are due since the conversation began, and are
        # done as fast as the machine can.
        if self.is_prompting or self._replay:
            return self._began_s
        return self._stream.due_s()

    def accept(self, command: SessionCommand, now_s: float) -> list[Output]:
        """Take a command; returns what follows at once.

        Raises:
            EngineError: for what such a model cannot do.
        """
        match command:
            case AppendAudio():
                self.wants_restart = self.wants_restart or self._has_ended
                self._stream.append(command.pcm, now_s)
            case ClearAudio():
                self._stream.clear()
                return self._answers()
            case CommitAudio():
                self._stream.commit()
                self._is_ending = self._traits.input_end is not None
                return [InputTranscript(self.session_id, command.item_id, "")]
            case Respond():
                if not command.is_standing and not self._has_ended:
                    self._stream.wake(now_s)
                return self._replies.respond(command, self._stream.num_waiting_frames)
            case Cancel():
                outputs, was_talking = self._replies.cancel(command.turn)
                if was_talking:
                    self._be_silent()
                return outputs
            case Truncate():
                self._truncate(command)
            case CheckTurn():
                # The question has its place in the audio: it is answered when the frames before it
                # were heard. A frame that is not full is none of them.
                num_frames = self._num_heard + self._stream.num_whole_frames
                self._questions.append((num_frames, command.key))
                return self._answers()
            case Reopen() | Recite():
                raise EngineError(_CANNOT[type(command)])
            case AppendText() | AppendCall() | AppendCallOutput():
                pass  # the model knows only what was said aloud
        return []

    def plan(self, now_s: float) -> Work:
        """Return what the next step is fed; it must be due."""
        traits = self._traits
        if self.is_prompting:
            i = self._num_prompted
            return Work(None, self.prompt.user[i], self.prompt.forced[i], is_prompt=True)
        if self._replay:
            return Work(None, self._replay.popleft(), self._silent())
        # A frame is whole once its latest stream has come. So the first frames after a prompt, as
        # many as the longest delay, still hold codes of the prompt and are not heard.
        is_wanted = (
            self._num_live >= traits.longest_delay
            and self._num_calls >= traits.longest_delay + traits.lag
        )
        if self._is_ending and not self._stream.num_waiting_frames:
            self._is_ending, self._is_marked = False, True
            user = np.full(traits.num_user, traits.input_end, dtype=np.int64)
            return Work(None, user, self._forced(None), is_wanted=is_wanted)
        heard = self._stream.take(now_s)
        late_s = self._stream.late_s
        return Work(heard, None, self._forced(heard), is_wanted=is_wanted, late_s=late_s)

    def observe(self, work: Work, piece: int, pcm: Pcm | None) -> list[Output]:
        """Take what a step gave.

        Args:
            work: what it was fed.
            piece: text of the frame that became whole.
            pcm: float32 [frame_samples], its sound; None unless it is wanted.
        """
        call = self._num_calls
        self._num_calls += 1
        if work.is_prompt:
            self._num_prompted += 1
            return []
        self._num_live += 1
        if work.heard is not None:
            self._replies.account.audio += 1
            self._num_heard += 1
        outputs: list[Output] = []
        if pcm is not None:
            is_word = bool(self._traits.pieces.spelling(piece))
            frame = Frame(call, piece, is_word, pcm)
            if not self._is_deaf_to(frame):
                outputs, is_cut = self._replies.frame(frame)
                if is_cut:
                    self._be_silent()
            if self._is_marked and piece == self._traits.text_end:
                outputs += self._end()
        if self._stream.is_idle and not self._replies.is_busy:
            self._stream.rest()
        return [*outputs, *self._answers()]

    def _answers(self) -> list[Output]:
        """Answer the questions before which everything was heard."""
        answers: list[Output] = []
        has_more = self._stream.num_whole_frames > 0
        # A clear may have taken away frames that a question waited for. With none left to come, it
        # is answered.
        while self._questions and (self._questions[0][0] <= self._num_heard or not has_more):
            _, key = self._questions.popleft()
            # Such a model has no word for the end of a turn.
            answers.append(TurnChecked(self.session_id, key, is_finished=False))
        return answers

    def rewound(self, heard: Ints | None) -> None:
        """Note what became of `rewind_to`.

        Args:
            heard: int64 [steps taken back, codebooks of the user]; None if they could not be.
        """
        assert self.rewind_to is not None, "nothing was to be taken back"
        calls, self.rewind_to = self.rewind_to, None
        self._be_silent()
        if heard is None:
            return
        self._num_calls = calls
        # The user is heard again, and the model silent from where it was cut short.
        # `extendleft` turns the order around, so it gets the frames from the last to the first.
        self._replay.extendleft(heard[::-1])
        self._hush = max(0, self._hush - len(heard))
        self._deaf = self._hush + self._traits.longest_delay

    def restarted(self) -> None:
        """Note that the model has begun anew."""
        self.wants_restart = self._has_ended = self._is_marked = False
        self._num_calls = self._num_live = 0
        self._hush = self._deaf = self._fading = 0
        self._replay.clear()
        self._replies.spoken = None

    def _truncate(self, command: Truncate) -> None:
        """Ask for the moment back at which the model stopped being heard, if it said that last."""
        spoken = self._replies.spoken
        if spoken is None or spoken.item_id != command.item_id:
            return
        num_heard = command.heard_ms // self._traits.frame_ms
        if num_heard >= spoken.num_frames:
            return
        # Frames that were never heard cost nothing when the next response counts its input.
        self._replies.account.audio -= spoken.num_frames - num_heard
        spoken.num_frames = num_heard
        self.rewind_to = spoken.first_call + num_heard

    def _end(self) -> list[Output]:
        """Let the model be over: it says so itself."""
        self._has_ended = True
        self._stream.rest()
        return self._replies.end("completed")

    def _be_silent(self) -> None:
        """Make the model stop: it hears itself fall silent."""
        self._hush = _HUSH_FRAMES
        # What it had begun to say comes out as late as its latest stream.
        # Six frames of silence and a delay of one: seven frames are passed over. Their codes were
        # chosen, in part, before the model was told to stop.
        self._deaf = _HUSH_FRAMES + self._traits.longest_delay
        self._fading = _FADING_FRAMES
        if self._manner is not None:
            self._manner.hush()

    def _is_deaf_to(self, frame: Frame) -> bool:
        """Say whether a frame is what is left of something that was cut short."""
        if self._deaf:
            self._deaf -= 1
            return True
        if not self._fading:
            return False
        is_quiet = not frame.is_word and frame.level < self._quiet
        self._fading = 0 if is_quiet else self._fading - 1
        return not is_quiet

    def _forced(self, heard: Pcm | None) -> Ints | None:
        if self._hush:
            self._hush -= 1
            return self._silent()
        if self._manner is None or heard is None:
            return None
        return self._manner.forced(heard)

    def _silent(self) -> Ints:
        return np.concatenate(([PAD], self._traits.silence))
