"""Follow the user's turn: frames on their way in, the live transcript, the final one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from model.arrays import Ints, Scores
from model.cache.state import Kind
from model.messages import Eagerness, EndOfTurn, InputTranscript, InputTranscriptDelta, Pcm, Pixels
from model.turns.frames import FrameBuffer
from model.turns.history import History, StepBlock
from model.turns.steps import Event, Mask, TurnLimits
from model.vocabulary import WORD_START, TurnVocabulary

# A worked example of the two transcripts. While the user says "what is your name", LISTEN steps put
# out the live transcript: "what is your name". At the end it is fed as a draft, and one call asks
# what the model would write after each piece of it:
#
#     fed           <user>   what   is    your   name   <reply>
#     put out       what     is     your  name   <reply>  hello ...
#
# Every piece that was put out is the next one that was fed, so the draft is right, <reply> was
# rightly fed early, and "hello" is already the reply's first piece: transcript and reply began in
# one call.
#
# Had the live transcript been "what is your mane", then "name" comes out where "mane" was fed.
# Steps after "your" are taken back, the model writes on from "name", and "what is your mane" is the
# rival: at the end the likelier of the two stands, with a bonus for the rival, which was heard.

# In nats: so much likelier than the live transcript another one must be to stand in its place. The
# live one was heard piece by piece, which the likelihood of a text does not know of. Chosen for the
# fewest word errors of the starter among 0 to 20, in conversations that are not in its scores.
_LIVE_BONUS = 10.0


@dataclass(slots=True)
class UserTurn:
    """One user turn in progress.

    Attributes:
        start: index of its first step.
        text_in: piece that the next LISTEN step feeds.
        pieces: the live transcript, later the final one.
        num_frames: frames heard.
        has_ended: whether it sounds finished, as was reported.
        sure: how sure the model was in the last frame that the turn is over; None without a head
            for it.
        is_sampled: whether it is known what the last LISTEN step puts out.
        num_certain: of these, what was put out before the last frame.
        draft: final transcript that is being checked.
        is_settled: whether the draft stands, and only what follows it is to be written.
        score: log-probability of `pieces` as the final transcript.
        logprobs: of each of `pieces`, once it is the final transcript.
        rival: the draft, where the model would have written something else.
        rival_score: its log-probability.
        rival_logprobs: of each of its pieces.
        is_reply_fed: whether the draft is followed by <reply>, in case it is right.
        is_doubtful: whether the transcript is nothing to rely on.
        item_id: of the conversation item that it becomes.
        images: what was shown meanwhile; in the conversation it stands after the words.
    """

    start: int
    text_in: int
    pieces: list[int] = field(default_factory=list)
    num_frames: int = 0
    has_ended: bool = False
    sure: float | None = None
    is_sampled: bool = True
    num_certain: int = 0
    draft: list[int] = field(default_factory=list)
    is_settled: bool = False
    score: float = 0.0
    logprobs: list[float] = field(default_factory=list)
    rival: list[int] = field(default_factory=list)
    rival_score: float = 0.0
    rival_logprobs: list[float] = field(default_factory=list)
    is_reply_fed: bool = False
    is_doubtful: bool = False
    item_id: str = ""
    images: tuple[Pixels, ...] = ()

    def copy(self) -> UserTurn:
        """Return a turn that goes on from here by itself."""
        return replace(
            self,
            pieces=[*self.pieces],
            draft=[*self.draft],
            logprobs=[*self.logprobs],
            rival=[*self.rival],
            rival_logprobs=[*self.rival_logprobs],
        )


class Listener:
    """Hear the user of one conversation.

    Args:
        session_id: who is told.
        history: of the conversation; written.
        vocabulary: of the tokenizer.
        limits: bounds.
        frame_samples: samples of one frame.
        frame_ms: its length.

    Attributes:
        frames: audio of the turn that was not heard yet.
        turn: the turn in progress, also while it is shelved; None between turns.
    """

    __slots__ = (
        "_frame_ms",
        "_history",
        "_limits",
        "_session_id",
        "_shelf",
        "_vocabulary",
        "frames",
        "turn",
    )

    def __init__(
        self,
        session_id: str,
        history: History,
        vocabulary: TurnVocabulary,
        limits: TurnLimits,
        *,
        frame_samples: int,
        frame_ms: int,
    ) -> None:
        self._session_id, self._history = session_id, history
        self._vocabulary, self._limits, self._frame_ms = vocabulary, limits, frame_ms
        self.frames = FrameBuffer(frame_samples)
        self.turn: UserTurn | None = None
        self._shelf: StepBlock | None = None  # steps of a turn that something has to precede

    @property
    def is_shelved(self) -> bool:
        """Tell whether a turn in progress was put aside."""
        return self._shelf is not None

    @property
    def wants_frame(self) -> bool:
        """Tell whether the next frame can be heard."""
        return self.turn is not None and self.turn.is_sampled and self.frames.num_frames > 0

    @property
    def is_hearing(self) -> bool:
        """Tell whether a whole frame waits, or what the last one puts out is not known yet."""
        turn = self.turn
        return turn is not None and (self.frames.num_frames > 0 or not turn.is_sampled)

    def take_frame(self) -> tuple[Pcm, bool]:
        """Return the next frame, float32 [frame_samples], and whether it starts the turn."""
        assert self.turn is not None
        return self.frames.take(), self.turn.num_frames == 0

    def listen(self) -> None:
        """Be in the turn in progress again, or in a new one."""
        start = len(self._history)
        if self.turn is None:
            self.turn = UserTurn(start, self._vocabulary.pad)
        self.turn.start = start
        if self._shelf is not None:
            self._history.extend(self._shelf)
            self._shelf = None

    def shelve(self) -> None:
        """Put the turn in progress aside: its steps leave the history until `listen`."""
        self._shelf = self._take_back()

    def clear(self, *, keeps_audio: bool = False) -> None:
        """Forget the turn in progress, and the audio that was not heard yet unless told not to."""
        if self.turn is not None and not self.is_shelved:
            self._take_back()
        self.turn = self._shelf = None
        if not keeps_audio:
            self.frames.clear()

    def resume(self, turn: UserTurn) -> None:
        """Be in a turn that was left; its steps are the history's last."""
        self.turn = turn
        if not turn.is_sampled:
            # The output of its last frame is needed after all, so that frame is fed again.
            self._history.fed = min(self._history.fed, len(self._history) - 1)

    def shift(self, delta: int) -> None:
        """Move along with steps before the turn in progress."""
        if self.turn is not None:
            self.turn.start += delta

    def hear(self, codes: Ints) -> None:
        """Feed one frame: int64 [K]."""
        assert self.turn is not None
        self._history.append(Kind.LISTEN, self.turn.text_in, user=codes)
        self.turn.num_frames += 1
        self.turn.num_certain = len(self.turn.pieces)
        self.turn.is_sampled = False

    def heard(self, piece: int, sure: float | None = None) -> list[Event]:
        """Take what the last frame put out.

        Args:
            piece: of the live transcript.
            sure: how sure the model is that the turn is over, 0 to 1; None without a head for it.
        """
        turn, vocabulary = self.turn, self._vocabulary
        assert turn is not None
        turn.text_in, turn.is_sampled, turn.sure = piece, True, sure
        events: list[Event] = []
        if vocabulary.is_word_piece(piece):
            text = vocabulary.delta(turn.pieces, piece)
            turn.pieces.append(piece)
            # A piece may be nothing but the space before a word.
            events += [InputTranscriptDelta(self._session_id, text)] if text else []
        had_ended, turn.has_ended = turn.has_ended, self._sounds_finished(turn, piece)
        if turn.has_ended and not had_ended:
            events.append(EndOfTurn(self._session_id, turn.num_frames * self._frame_ms))
        return events

    def _sounds_finished(self, turn: UserTurn, piece: int) -> bool:
        if turn.sure is not None and self._limits.ends is not None:
            return turn.sure >= self._limits.ends["medium"]
        # The piece says it once, and that holds until the next word.
        is_word = self._vocabulary.is_word_piece(piece)
        return piece == self._vocabulary.end or (turn.has_ended and not is_word)

    def sounds_finished(self, eagerness: Eagerness) -> bool:
        """Tell whether the turn in progress, if there is one, sounds finished."""
        # A worked example of a head's thresholds 0.9, 0.6 and 0.3: after "my name is" it is 0.4
        # sure, which counts as finished with high eagerness only. After "anna" it is 0.95 sure.
        turn, ends = self.turn, self._limits.ends
        if turn is None or turn.sure is None or ends is None:
            return turn is not None and turn.has_ended
        return turn.sure >= ends[eagerness]

    def begin_transcript(self, item_id: str, images: tuple[Pixels, ...] = ()) -> None:
        """End the turn: let the model write down what it heard.

        The live transcript is most often right. Checking it takes one call of the model, writing
        it takes one a piece. Where the model would write something else, it does, and of the two
        the likelier stands: piece by piece it may talk itself into a sentence that it knows.
        """
        turn = self.turn
        assert turn is not None
        limit = min(self._limits.max_transcript_pieces, self._limits.max_prefill_steps - 2)
        # Whether there was time to see what the last frame put out must not matter: the same audio
        # has the same transcript on a fast machine and on a slow one.
        draft = turn.pieces[: min(turn.num_certain, limit)]
        turn.item_id, turn.images, turn.pieces = item_id, images, []
        self._history.append(Kind.TEXT, self._vocabulary.user)
        self._check(draft)

    def _check(self, draft: list[int]) -> None:
        """Feed a transcript, of which it is then seen whether and how it goes on."""
        assert self.turn is not None
        self.turn.draft = draft
        for piece in draft:
            self._history.append(Kind.TEXT, piece)

    def feed_reply_early(self) -> None:
        """Let the reply begin in the call that checks the draft, if the draft is right.

        Not where pictures have to come between the two.
        """
        turn = self.turn
        if turn is not None and turn.draft and not (turn.is_reply_fed or turn.images):
            self._history.append(Kind.TEXT, self._vocabulary.reply)
            turn.is_reply_fed = True

    def masks(self) -> tuple[Mask, ...]:
        """Say which pieces the newest steps of the transcript may put out."""
        assert self.turn is not None
        masks = (Mask.TRANSCRIPT,) * (1 + len(self.weighed))
        return (*masks, Mask.REPLY) if self.turn.is_reply_fed else masks

    @property
    def weighed(self) -> tuple[int, ...]:
        """Say which pieces it is asked of how likely they are: those of a draft in question."""
        assert self.turn is not None
        return () if self.turn.is_settled else tuple(self.turn.draft)

    def transcribed(self, pieces: Ints, scores: Scores) -> bool:
        """Take what the newest steps of the transcript put out.

        Args:
            pieces: int64, one for each of `masks`; what belongs to <reply> comes last.
            scores: float, log-probabilities of these, and of `weighed` beside them.

        Returns:
            Whether the transcript is complete. If <reply> was fed early and rightly so, it is
            still in the history.
        """
        turn, history, vocabulary = self.turn, self._history, self._vocabulary
        assert turn is not None
        asked, draft, turn.draft = self.weighed, turn.draft, []
        # `first` is where the draft begins in the history; a fed <reply> stands behind it.
        first = len(history) - len(draft) - turn.is_reply_fed
        # The draft stands as far as the model would have written the same.
        num_right = 0
        while num_right < len(asked) and asked[num_right] == pieces[num_right]:
            num_right += 1
        is_right = num_right == len(asked)
        turn.pieces += draft if is_right else draft[:num_right]
        # Of a draft that has been settled for, it is known already.
        turn.logprobs += scores[:num_right, 0].tolist()
        piece = int(pieces[num_right])
        turn.score += float(scores[: num_right + 1, 0].sum())
        turn.is_doubtful = vocabulary.is_taught_prompts and piece == vocabulary.unsure
        is_complete = turn.is_doubtful or piece == vocabulary.reply
        if not is_right:
            turn.rival, turn.rival_score = draft, float(scores[: len(draft), 1].sum())
            turn.rival_logprobs = scores[: len(draft), 1].tolist()
        is_relied_on = is_complete and is_right and not self._doubts(turn)
        turn.is_reply_fed = turn.is_reply_fed and is_relied_on
        if not turn.is_reply_fed:
            history.cut(first + len(turn.pieces) if draft else first)
        if turn.rival and turn.score < turn.rival_score + _LIVE_BONUS:  # and it can only fall
            self._settle_for_rival()
            return False
        if is_complete or len(turn.pieces) >= self._limits.max_transcript_pieces:
            return True
        turn.pieces.append(piece)
        turn.logprobs.append(float(scores[num_right, 0]))
        history.append(Kind.TEXT, piece)
        return False

    def _settle_for_rival(self) -> None:
        """Give up what was written, and write on after the draft."""
        turn, history = self.turn, self._history
        assert turn is not None
        history.cut(len(history) - len(turn.pieces))
        draft, turn.rival, turn.pieces, turn.is_settled = turn.rival, [], [], True
        turn.score, turn.logprobs = turn.rival_score, turn.rival_logprobs
        self._check(draft)

    def _doubts(self, turn: UserTurn) -> bool:
        """Tell whether a complete transcript is nothing to rely on."""
        is_unlikely = turn.score < self._limits.doubt_below
        return self._vocabulary.is_taught_prompts and (turn.is_doubtful or is_unlikely)

    def finish(self) -> InputTranscript:
        """Close the turn and return its final transcript, empty if nothing was heard.

        The model reads on that it was not understood, if so.
        """
        turn, self.turn = self.turn, None
        assert turn is not None
        if self._doubts(turn):
            self._history.append(Kind.TEXT, self._vocabulary.unsure)
        text = self._vocabulary.spell(turn.pieces)
        spelled = [self._vocabulary.pieces[piece].replace(WORD_START, " ") for piece in turn.pieces]
        # Together they are the text, which does not begin with a space.
        tokens = [spelled[0].lstrip(), *spelled[1:]] if spelled else []
        logprobs = tuple(zip(tokens, turn.logprobs, strict=True))
        return InputTranscript(self._session_id, turn.item_id, text, turn.score, logprobs)

    def _take_back(self) -> StepBlock:
        assert self.turn is not None
        return self._history.take(max(self.turn.start, self._history.oldest))
