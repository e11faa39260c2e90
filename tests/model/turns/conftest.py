"""A vocabulary of a few words, and a model that says what a script tells it to."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from model.cache.state import Kind
from model.messages import Open, Output, ResponseStarted
from model.schemas.spelling import Speller
from model.turns.program import TurnProgram
from model.turns.reply import SpeechTiming
from model.turns.steps import Decode, Mask, NextSteps, TurnLimits
from model.vocabulary import WORD_START, TurnVocabulary
from tests.fakes.writer import WriterHere

NUM_SPECIAL = 17
WORDS = ["▁hi", "▁what", "▁is", "▁your", "▁name", "▁i", "▁am", "▁par", "ley"]
SPECIAL = ["pad", "unk", "bos", "user", "reply", "speak", "eos", "end", "system"]
SPECIAL += [f"voice{i}" for i in range(8)]
PIECES = [f"<{name}>" for name in SPECIAL] + WORDS
DELAYS = (0, 1, 1)
FRAME_SAMPLES = 8  # of a codec that is fast enough for a table
TIMING = SpeechTiming(FRAME_SAMPLES, frame_ms=80, lookahead_samples=11, word_lead_frames=2)


def pieces(text: str) -> list[int]:
    """Return the pieces of words, and of special pieces in angle brackets.

    What stands between words and the words that have no piece are left out.
    """
    found = []
    for word in re.findall("<[a-z0-9]+>|[a-z]+", text):
        if word == "parley":
            found += [PIECES.index("▁par"), PIECES.index("ley")]
        elif word in PIECES or WORD_START + word in PIECES:
            found.append(PIECES.index(word if word in PIECES else WORD_START + word))
    return found


VOCABULARY = TurnVocabulary(
    pieces=PIECES, encode=pieces, voices={"ann": 9, "bob": 10}, num_special=NUM_SPECIAL
)
SPELLER = Speller(VOCABULARY)


@dataclass
class Script:
    """What the model will put out, phase by phase; every list is used up from its beginning.

    Attributes:
        listen: pieces put out by LISTEN steps; pad when it runs out.
        transcripts: final transcripts, one a committed turn.
        replies: the words of replies, one a response.
        spoken: pieces put out by SPEAK steps, one a response; <eos> when it runs out.
        calls: pieces put out while calling, one a response that is a call.
        likely: log-probability of every piece that is put out.
        unlikely: that of every other one.
        sure: how sure a head is, frame by frame, that the user's turn is over; no head without it.
    """

    listen: str = ""
    transcripts: Iterable[str] = ()
    replies: Iterable[str] = ()
    spoken: Iterable[str] = ()
    calls: Iterable[str] = ()
    likely: float = -0.1
    unlikely: float = -20.0
    sure: Iterable[float] = ()


@dataclass
class Stage:
    """Run a program against a script, and keep what was fed and what came out.

    Attributes:
        program: the program.
        outputs: what the session was told.
        fed: kind and piece of every step that the model's state holds now.
        calls: steps of every call, in order.
        masks: mask of every call's last step.
        audio: samples that belong to the reply, one list entry a decoded frame.
        decoded: codes handed to the decoder.
    """

    program: TurnProgram
    script: Script
    outputs: list[Output] = field(default_factory=list)
    fed: list[tuple[str, str]] = field(default_factory=list)
    codes: list[tuple[list[int], list[int]]] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)
    masks: list[Mask] = field(default_factory=list)
    audio: list[int] = field(default_factory=list)
    decoded: list[list[int]] = field(default_factory=list)
    num_frames: int = 0

    def __post_init__(self) -> None:
        self.listen = deque(pieces(self.script.listen))
        self.sure = deque(self.script.sure)
        self.transcripts = [pieces(text + " <reply>") for text in self.script.transcripts]
        self.replies = [deque(pieces(text + " <speak>")) for text in self.script.replies]
        self.spoken = [deque(pieces(text)) for text in self.script.spoken]
        self.written = [deque(pieces(text)) for text in self.script.calls]

    @property
    def made(self) -> list[Output]:
        """Return the outputs but those that say that a response has started."""
        return [output for output in self.outputs if not isinstance(output, ResponseStarted)]

    def send(self, *commands: Any) -> None:
        """Hand commands over without running the model."""
        for command in commands:
            self.program.accept(command)
            self._collect()

    def step(self) -> bool:
        """Make one call of the model; return False if there was nothing to do."""
        user = None
        if self.program.wants_frame:
            self.program.take_frame()
            user = np.full(len(DELAYS), self.num_frames)
            self.num_frames += 1
        steps = self.program.plan(user)
        self._collect()
        if steps is None:
            return False
        block = steps.block
        self.calls.append(len(block))
        self.masks.append(steps.masks[-1] if steps.masks else Mask.NOTHING)
        assert steps.start <= len(self.fed)
        del self.fed[steps.start :], self.codes[steps.start :]
        for i in range(len(block)):
            self.fed.append((Kind(block.kind[i]).name, PIECES[block.text[i]]))
            self.codes.append((block.user[i].tolist(), block.assistant[i].tolist()))
        sampled = self._sample(steps)
        codes = np.full(len(DELAYS), 100 + steps.start) if steps.has_codes else None
        is_heard = bool(self.masks) and self.masks[-1] is Mask.LISTEN
        sure = self.sure.popleft() if self.sure and is_heard else None
        self.program.observe(steps, sampled, self._weigh(steps, sampled), codes, sure)
        self._collect()
        return True

    def run(self, *commands: object) -> Stage:
        """Hand commands over and run the model until it has nothing to do."""
        self.send(*commands)
        for _ in range(1000):
            if not self.step():
                # What the history no longer has, the state gives up before the next call.
                assert self.program.history.fed == len(self.program.history)
                del self.fed[self.program.history.fed :], self.codes[self.program.history.fed :]
                return self
        raise AssertionError("the program never comes to rest")

    def words(self) -> list[str]:
        """Return the pieces that the state holds, kinds left out."""
        return [text for _, text in self.fed]

    def _collect(self) -> None:
        for event in self.program.take_events():
            if isinstance(event, Decode):
                self.audio.append(event.stop - event.start)
                self.decoded.append(event.codes.tolist())
            else:
                self.outputs.append(event)

    def _sample(self, steps: NextSteps) -> np.ndarray | None:
        if not steps.masks:
            return None
        num_transcript = steps.masks.count(Mask.TRANSCRIPT)
        made = self._transcribe(num_transcript) if num_transcript else []
        if num_transcript < len(steps.masks):
            is_in_vain = made and made != [*steps.weighed, VOCABULARY.reply]
            made.append(VOCABULARY.speak if is_in_vain else self._sample_one(steps))
        assert len(made) == len(steps.masks)
        return np.array(made)

    def _weigh(self, steps: NextSteps, sampled: np.ndarray | None) -> np.ndarray | None:
        """Say how likely pieces are: what is put out by so much, and what else it might be."""
        if sampled is None:
            return None
        scores = np.zeros((len(sampled), 2), np.float32)
        scores[:, 0] = self.script.likely
        for i, piece in enumerate(steps.weighed):
            scores[i, 1] = self.script.likely if piece == sampled[i] else self.script.unlikely
        return scores

    def _sample_one(self, steps: NextSteps) -> int:
        match steps.masks[-1]:
            case Mask.LISTEN:
                return self.listen.popleft() if self.listen else VOCABULARY.pad
            case Mask.REPLY:
                piece = self.replies[0].popleft()
                if piece == VOCABULARY.speak:
                    self.replies.pop(0)
                return piece
            case Mask.SPEAK:
                piece = self.spoken[0].popleft() if self.spoken[0] else VOCABULARY.eos
                if piece == VOCABULARY.eos:
                    self.spoken.pop(0)
                return piece
            case Mask.CALL:
                piece = self.written[0].popleft()
                assert piece in steps.also
                return piece
            case mask:
                raise AssertionError(mask)

    def _transcribe(self, num: int) -> list[int]:
        """Put out what follows at each position, as a model with the transcript in mind would."""
        written = [text for kind, text in self.fed if kind == "TEXT"]
        written = written[len(written) - written[::-1].index("<user>") :]
        if written[-1:] == ["<reply>"]:
            written.pop()
        so_far = [PIECES.index(piece) for piece in written]
        target, made = self.transcripts[0], []
        num_known = len(so_far) - num + 1
        for length in range(num_known, len(so_far) + 1):
            is_right = so_far[:length] == target[:length]
            made.append(target[length] if is_right else VOCABULARY.reply)
        drafted = so_far[num_known:]
        num_right = next((i for i in range(num - 1) if drafted[i] != made[i]), num - 1)
        if made[num_right] == VOCABULARY.reply:
            self.transcripts.pop(0)
        return made


@pytest.fixture
def stage() -> Callable[..., Stage]:
    """Return a maker of stages: what the model will say, and limits by name."""

    def make(
        listen: str = "",
        *,
        transcripts: Iterable[str] = (),
        replies: Iterable[str] = (),
        spoken: Iterable[str] = (),
        calls: Iterable[str] = (),
        scores: tuple[float, float] = (-0.1, -20.0),
        sure: Iterable[float] = (),
        writer: WriterHere | None = None,
        **limits: Any,
    ) -> Stage:
        program = TurnProgram(
            Open("s", "ann"),
            speller=SPELLER,
            writer=writer or WriterHere(VOCABULARY),
            timing=TIMING,
            delays=DELAYS,
            limits=TurnLimits(**limits),
        )
        return Stage(program, Script(listen, transcripts, replies, spoken, calls, *scores, sure))

    return make
