"""Lay a spoken dialogue out as the steps the language model sees and what it should answer at each.

This is the training side of the conversation layout in ``docs/architecture.md``; the serving side
is `model.turns`. The two meet in the tests, which replay a dialogue through both.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from model.cache.state import Kind
from model.text import Special, voice_piece

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from model.training.encode_stage import CodedClip, Words

FRAME_S = 0.08
TRANSCRIPT_DELAY_FRAMES = 2  # a word's pieces are due this long after its end
END_DELAY_FRAMES = 5  # and the end of the turn this long after its last word
WORD_LEAD_FRAMES = 2  # the reply's words come this long before their audio
NO_TARGET = -100
PAD_WEIGHT = 0.25  # most frames carry no piece: they would drown the others
# What a user types needs no answer; a little of it teaches which words follow which.
TYPED_WEIGHT = 0.1


class Pieces(Protocol):
    """What the layout needs of a tokenizer."""

    def encode(self, text: str) -> list[int]:
        """Return the pieces of `text`."""
        ...


@dataclass(frozen=True, slots=True)
class SpokenCall:
    """A function call and what it returned, in pieces; see `model.prompts`.

    Attributes:
        pieces: of the call.
        result: in words.
        first: what is said before the call; empty for nothing.
        said: its audio; None if it is written.
    """

    pieces: Sequence[int]
    result: str
    first: str = ""
    said: CodedClip | None = None


@dataclass(frozen=True, slots=True)
class SpokenTurn:
    """One exchange.

    `heard` is None for a typed question, `said` for a written answer, `reply` if only the
    transcript is known, and `user` if nobody said anything: the assistant begins. `understood` are
    the words that the model takes for heard while it listens, if they are not the right ones: its
    mistakes come back to it as input.

    `is_unsure` says that the transcript is nothing to rely on: the model puts out `<unsure>` where
    `<reply>` would be. With an empty `user` that is right; other words are wrong ones, fed but not
    taught, to which the reply is the same.

    `picture` draws the picture shown with the question, float32 [num_patches, values]: before it,
    or after its words, as a camera's is, if `is_shown_last`. It is called when the turn is laid
    out: few turns are, of those that a batch is chosen from.
    """

    user: str | None
    reply: str | None
    heard: CodedClip | None
    said: CodedClip | None
    understood: Words | None = None
    calls: Sequence[SpokenCall] = ()
    is_unsure: bool = False
    picture: Callable[[], NDArray[np.float32]] | None = None
    num_patches: int = 0
    is_shown_last: bool = False


@dataclass(slots=True)
class Rows:
    """One dialogue as parallel lists, a row a step.

    `codes` are targets of the depth transformer (-1: none); `ends` says of every frame of the user
    whether the turn was over when it began (-1: nothing is known of it). `pictures` belong to the
    steps that feed `<image>`, in their order.
    """

    num_codebooks: int
    text: list[int] = field(default_factory=list)
    kind: list[int] = field(default_factory=list)
    target: list[int] = field(default_factory=list)
    weight: list[float] = field(default_factory=list)
    jumps: list[int] = field(default_factory=list)
    user: list[NDArray[np.int16] | None] = field(default_factory=list)
    assistant: list[NDArray[np.int16] | None] = field(default_factory=list)
    codes: list[NDArray[np.int16] | None] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    pictures: list[NDArray[np.float32]] = field(default_factory=list)

    def add(
        self,
        kind: Kind,
        text: int,
        target: int = NO_TARGET,
        weight: float = 1.0,
        *,
        user: NDArray[np.int16] | None = None,
        assistant: NDArray[np.int16] | None = None,
        codes: NDArray[np.int16] | None = None,
        jump: int = 0,
    ) -> None:
        """Append a step; `jump` positions are left out before it."""
        self.kind.append(int(kind))
        self.text.append(text)
        self.target.append(target)
        self.weight.append(weight)
        self.user.append(user)
        self.assistant.append(assistant)
        self.codes.append(codes)
        self.ends.append(-1)
        self.jumps.append(jump)

    def __len__(self) -> int:
        """Return the number of steps."""
        return len(self.text)


# A worked example of the rows of one spoken question, "hi", answered with "hello", in a voice. What
# is fed and what is the target, step by step:
#
#     kind     fed        heard or said       target      weight
#     PREFIX   <bos>                          -
#     PREFIX   <voice0>                       -
#     LISTEN   pad        user frame 0        pad         0.25
#     ...
#     LISTEN   pad        user frame 5        hi          1       two after the word's end
#     LISTEN   hi         user frame 6        pad         0.25
#     LISTEN   pad        user frame 8        <end>       1       five after it
#     TEXT     <user>                         hi          1
#     TEXT     hi                             <reply>     1
#     TEXT     <reply>                        hello       1
#     TEXT     hello                          <speak>     1
#     SPEAK    <speak>                        hello       1       and frame 0's semantic code
#     SPEAK    hello      S0                  pad         0.25    S1 and A0
#     SPEAK    pad        S1 A0               pad         0.25    S2 and A1
#     ...
#     TEXT     <eos>                          -
#
# What a step puts out is what the next one is fed, as when it is served. A "-" is no target: those
# steps come from outside.
def lay_out(
    turns: Sequence[SpokenTurn],
    voice: int,
    pieces: Pieces,
    num_codebooks: int,
    jumps: Sequence[int],
    prompt: Sequence[int] = (),
) -> Rows:
    """Lay out a dialogue.

    Args:
        turns: the exchanges in order.
        voice: index of the assistant's voice.
        pieces: the tokenizer.
        num_codebooks: K.
        jumps: per turn, how many positions pass unused before it (longer calls than any in
            training).
        prompt: pieces of instructions and functions, from `model.prompts`.
    """
    rows = Rows(num_codebooks)
    for piece in (Special.BOS, voice_piece(voice), *prompt):
        rows.add(Kind.PREFIX, piece)
    for turn, jump in zip(turns, jumps, strict=True):
        start = len(rows)
        if not turn.is_shown_last:
            _show(rows, turn)
        if turn.heard is not None:
            _listen(rows, turn, turn.heard, pieces)
        if turn.user is not None:
            _ask(rows, turn, pieces)
        if turn.is_shown_last:
            _show(rows, turn)
        for call in turn.calls:
            _call(rows, call, pieces)
        if turn.reply is not None:
            _answer(rows, turn.reply, turn.said, pieces)
        rows.jumps[start] = jump
    return rows


def live_transcript(codes: NDArray[np.int16], words: Words, pieces: Pieces) -> list[int]:
    """Return the piece due at each frame of a user turn (`PAD` for none).

    What comes too late is left out.

    Args:
        codes: int16 ``[frames, K]``.
        words: at least one, with their times.
        pieces: the tokenizer.
    """
    frames = len(codes)
    due: list[int] = [Special.PAD] * frames
    # A worked example: "what is" with ends at 0.30 and 0.42 s. 0.30 / 0.08 is frame 3, so "what" is
    # due in frame 5. 0.42 is frame 5, so "is" is due in frame 7. If "what" had three pieces, they
    # would take the frames 5 to 7, and "is" would move to 8: a frame has room for one piece.
    at = 0
    for word, _, end_s in words:
        at = max(at, int(end_s / FRAME_S) + TRANSCRIPT_DELAY_FRAMES)
        for piece in pieces.encode(word):
            if at < frames:
                due[at] = piece
            at += 1
    # Five frames after the last word, 400 ms: long enough that most pauses within a sentence are
    # over, and short enough not to be felt.
    at = max(at, int(words[-1][2] / FRAME_S) + END_DELAY_FRAMES)
    if at < frames:
        due[at] = Special.END
    return due


def aligned_words(clip: CodedClip, pieces: Pieces) -> list[int]:
    """Return the piece due at each step of a reply, a little before its audio.

    The last step's is `EOS`. There is one step more than frames: the acoustic codes of the last
    frame come with it.
    """
    frames = len(clip.codes)
    said: list[int] = [Special.PAD] * (frames + 1)
    # A worked example: "i am parley" with beginnings at 0.17, 0.25 and 0.33 s, the frames 2, 3 and
    # 4. Two frames ahead they are due at the steps 0, 1 and 2. So a truncation at 250 ms knows
    # which words were heard.
    at = 0
    for word, start_s, _ in clip.words:
        at = max(at, int(start_s / FRAME_S) - WORD_LEAD_FRAMES)
        for piece in pieces.encode(word):
            if at < frames:
                said[at] = piece
            at += 1
    said[-1] = Special.EOS
    return said


def _listen(rows: Rows, turn: SpokenTurn, clip: CodedClip, pieces: Pieces) -> None:
    if not clip.words:
        # Of a recording nobody knows when what was said; of noise it is known that nothing was.
        target = Special.PAD if turn.is_unsure else NO_TARGET
        for frame in clip.codes:
            rows.add(Kind.LISTEN, Special.PAD, target, PAD_WEIGHT, user=frame)
        return
    understood, end_s = turn.understood, clip.words[-1][2]
    due = live_transcript(clip.codes, clip.words, pieces)
    # What is fed may be wrong where what is taught is right: a model that reads its own mistakes
    # must learn from the sound what was said.
    fed = due if understood is None else live_transcript(clip.codes, understood, pieces)
    taught = zip(clip.codes, due, [Special.PAD, *fed[:-1]], strict=True)
    for number, (frame, piece, before) in enumerate(taught):
        weight = PAD_WEIGHT if piece == Special.PAD else 1.0
        rows.add(Kind.LISTEN, before, piece, weight, user=frame)
        # The turn is over in a frame that begins after the last word's end: with an end at 2.0 s
        # that is frame 25 and every later one.
        rows.ends[-1] = int(number * FRAME_S >= end_s)


def _show(rows: Rows, turn: SpokenTurn) -> None:
    if turn.picture is not None:
        rows.pictures.append(turn.picture())
        for _ in range(turn.num_patches):
            rows.add(Kind.TEXT, Special.IMAGE)


def _ask(rows: Rows, turn: SpokenTurn, pieces: Pieces) -> None:
    """Add ``<user> question``: what was typed or the final transcript."""
    assert turn.user is not None
    words = pieces.encode(turn.user)
    question = [Special.USER, *words]
    weight = 1.0 if turn.heard is not None else TYPED_WEIGHT
    following = Special.UNSURE if turn.is_unsure else Special.REPLY
    targets: list[int] = [*question[1:], following]
    if turn.is_unsure and words:
        targets = [NO_TARGET] * len(question)  # wrong words: nothing to learn to write
    for piece, target in zip(question, targets, strict=True):
        rows.add(Kind.TEXT, piece, target, weight)
    if turn.is_unsure:
        rows.add(Kind.TEXT, Special.UNSURE, Special.REPLY, TYPED_WEIGHT)


def _call(rows: Rows, call: SpokenCall, pieces: Pieces) -> None:
    """Add ``<reply> first words <call> name and values``, their audio, ``<result> words``."""
    made = [Special.REPLY, *pieces.encode(call.first), *call.pieces]
    for piece, following in zip(made, [*made[1:], NO_TARGET], strict=True):
        rows.add(Kind.TEXT, piece, following)
    if call.said is not None:
        _speak(rows, call.said, pieces)
    rows.add(Kind.TEXT, Special.EOS)
    for piece in (Special.RESULT, *pieces.encode(call.result)):
        rows.add(Kind.TEXT, piece)


def _answer(rows: Rows, reply: str, said: CodedClip | None, pieces: Pieces) -> None:
    """Add ``<reply> answer``, its audio and the end."""
    answer = [Special.REPLY, *pieces.encode(reply)]
    for piece, following in zip(answer, [*answer[1:], Special.SPEAK], strict=True):
        rows.add(Kind.TEXT, piece, following)
    if said is not None:
        _speak(rows, said, pieces)
    rows.add(Kind.TEXT, Special.EOS)


def _speak(rows: Rows, clip: CodedClip, pieces: Pieces) -> None:
    """Add the spoken answer: a frame's semantic code comes one step before its acoustic ones."""
    frames, books = clip.codes.shape
    delayed = np.full((frames + 1, books), -1, dtype=np.int16)
    delayed[:frames, 0] = clip.codes[:, 0]
    delayed[1:, 1:] = clip.codes[:, 1:]
    fed: int = Special.SPEAK
    for step, piece in enumerate(aligned_words(clip, pieces)):
        # The first SPEAK step is fed no codes: nothing was said yet.
        before = delayed[step - 1] if step else None
        weight = PAD_WEIGHT if piece == Special.PAD else 1.0
        rows.add(Kind.SPEAK, fed, piece, weight, assistant=before, codes=delayed[step])
        fed = piece
