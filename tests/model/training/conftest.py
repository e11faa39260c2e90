"""A small engine that answers from a table, and users whose speech it can read."""

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from model.errors import OverloadedError
from model.messages import (
    AppendAudio,
    AppendText,
    Close,
    Command,
    CommitAudio,
    EndOfTurn,
    EngineInfo,
    InputTranscript,
    Open,
    Output,
    Respond,
    ResponseAudio,
    ResponseDone,
    ResponseText,
    SessionFailed,
    Usage,
)
from model.training.evaluation.conditions import VoiceSet
from model.training.evaluation.conversation import Wave
from model.training.evaluation.users import Spoken

LEAD = 3200  # samples of silence before the words
SAMPLES_PER_LETTER = 160  # 10 ms


def to_wave(text: str) -> Wave:
    """Write each letter as a level held for 10 ms."""
    return np.repeat(np.array([ord(c) / 256 for c in text], np.float32), SAMPLES_PER_LETTER)


def to_text(wave: Wave) -> str:
    """Read what `to_wave` wrote, silence left out."""
    letters = wave[SAMPLES_PER_LETTER // 2 :: SAMPLES_PER_LETTER]
    return "".join(chr(round(256 * abs(float(x)))) for x in letters if x)


class LetterUsers:
    """Two known voices and two held out, one of which is not installed."""

    def skipped(self, voices: VoiceSet) -> tuple[str, ...]:
        """Name the voice that is missing."""
        return ("stranger two",) if voices == "held out" else ()

    def choose(self, voices: VoiceSet, seed: int, number: int) -> str:
        """Take turns."""
        return ("ann", "bob")[(seed + number) % 2] if voices == "known" else "stranger one"

    def group(self, voice: str) -> str:
        """Every voice has a row."""
        return voice

    def speak(self, voice: str, text: str) -> Spoken:
        """Put the letters between two silences."""
        assert voice in {"ann", "bob", "stranger one"}
        pcm = np.pad(to_wave(text), (LEAD, 9600)).astype(np.float32)
        return Spoken(pcm, (LEAD + SAMPLES_PER_LETTER * len(text)) // 16)


class TableEngine:
    """Answer a conversation by what the table says for all that the user said so far.

    Runs on the caller's thread. `mishear` and `misspeak` make its known mistakes; every
    `refuse_every`-th command is refused once; sessions whose name ends in `fails` are lost.
    """

    def __init__(
        self,
        table: Mapping[tuple[str, ...], str],
        *,
        mishear: Callable[[str], str] = str,
        misspeak: Callable[[str], str] = str,
        end_of_turn_ms: int | None = 300,
        refuse_every: int = 0,
        fails: str = "\0",
        max_sessions: int = 4,
    ) -> None:
        self.info = EngineInfo("table", 16_000, 80, ("one", "two"), max_sessions)
        self.table = table
        self.mishear, self.misspeak = mishear, misspeak
        self.end_of_turn_ms, self.refuse_every, self.fails = end_of_turn_ms, refuse_every, fails
        self.most_open = self.offered = 0
        self.said: dict[str, list[str]] = {}
        self.audio: dict[str, list[Wave]] = {}
        self.is_running = False
        self.deliver: Callable[[Output], None] = lambda _: None

    def start(self, deliver: Callable[[Output], None]) -> None:
        """Take note of where outputs go."""
        self.deliver, self.is_running = deliver, True

    def stop(self) -> None:
        """Stop."""
        self.is_running = False

    def submit(self, command: Command) -> None:
        """Obey at once."""
        assert self.is_running
        self.offered += 1
        if self.refuse_every and self.offered % self.refuse_every == 0:
            raise OverloadedError("try again")
        name = command.session_id
        match command:
            case Open():
                if len(self.said) == self.info.max_sessions:
                    raise OverloadedError("no slot is free")
                self.said[name], self.audio[name] = [], []
                self.most_open = max(self.most_open, len(self.said))
            case Close():
                del self.said[name]
            case AppendAudio(pcm=pcm):
                self.audio[name].append(pcm)
            case CommitAudio(item_id=item_id):
                self._commit(name, item_id)
            case AppendText(text=text):
                self.said[name].append(text)
            case Respond():
                self._respond(command)
            case _:
                raise AssertionError(command)

    def _commit(self, name: str, item_id: str) -> None:
        wave = np.concatenate(self.audio[name])
        self.audio[name] = []
        text = to_text(wave)
        if self.end_of_turn_ms is not None:
            end_ms = (LEAD + SAMPLES_PER_LETTER * len(text)) // 16
            self.deliver(EndOfTurn(name, end_ms + self.end_of_turn_ms))
        self.said[name].append(text)
        self.deliver(InputTranscript(name, item_id, self.mishear(text)))

    def _respond(self, command: Respond) -> None:
        name, turn = command.session_id, command.turn
        if name.endswith(self.fails):
            del self.said[name]
            self.deliver(SessionFailed(name, "lost"))
            return
        text = self.misspeak(self.table[tuple(self.said[name])])
        self.deliver(ResponseText(name, turn - 1, "stale"))
        for start in range(0, len(text), 5):
            self.deliver(ResponseText(name, turn, text[start : start + 5]))
        if command.audio:
            self.deliver(ResponseAudio(name, turn, to_wave(text[:7])))
            self.deliver(ResponseAudio(name, turn, to_wave(text[7:])))
        self.deliver(ResponseDone(name, turn, "completed", Usage()))


@pytest.fixture
def users() -> LetterUsers:
    """Give the users whose speech is letters."""
    return LetterUsers()


@pytest.fixture
def make_engine() -> type[TableEngine]:
    """Give the engine's class, for a test to choose its mistakes."""
    return TableEngine


@pytest.fixture
def read_wave() -> Callable[[Wave], str]:
    """Give a recogniser that makes no mistakes."""
    return to_text


@pytest.fixture
def write_wave() -> Callable[[str], Wave]:
    """Give the voice that `read_wave` understands."""
    return to_wave
