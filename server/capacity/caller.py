"""Be a caller: speak at the pace of speech, hear the reply out, think, speak again.

A caller has no clock and does no I/O. It is asked what it does by a given time, and told what the
engine put out; what it waited for, and what came too late, is what is measured.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from model.messages import (
    AppendAudio,
    Close,
    Command,
    CommitAudio,
    EngineInfo,
    Open,
    Output,
    Pcm,
    Respond,
    ResponseAudio,
    ResponseDone,
    ResponseFailed,
    SessionFailed,
)

CHUNK_MS = 20  # as most clients send it
"""Milliseconds of audio in one append."""


@dataclass(frozen=True, slots=True)
class Wait:
    """How long a caller waited for the first audio of a reply.

    Attributes:
        asked_s: when its question was over, on the caller's clock.
        seconds: from then to the reply's first audio.
    """

    asked_s: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Spoken:
    """A piece of a reply's audio.

    Attributes:
        at_s: when it came.
        is_late: whether the caller had nothing left to hear by then.
    """

    at_s: float
    is_late: bool


@dataclass(slots=True)
class Caller:
    """Hold one conversation without an end.

    Args:
        session_id: in the engine.
        info: of the engine.
        questions: float32 [samples] each, at the engine's rate; said in turn.
        begins_s: when it opens its session and says its first word.
        pauses_s: bounds of the time between hearing a reply out and speaking again.
        seed: decides how long each pause is.

    Attributes:
        due_s: when it does something next; infinity while it waits for the engine.
        waits: for every reply so far.
        spoken: every piece of audio so far.
        failure: why the conversation is over; empty while it goes on.
    """

    session_id: str
    info: EngineInfo
    questions: Sequence[Pcm]
    begins_s: float
    pauses_s: tuple[float, float] = (0.5, 1.5)
    seed: int = 0
    due_s: float = field(init=False)
    waits: list[Wait] = field(init=False, default_factory=list)
    spoken: list[Spoken] = field(init=False, default_factory=list)
    failure: str = field(init=False, default="")
    _rng: np.random.Generator = field(init=False)
    _script: Iterator[tuple[float, Command]] = field(init=False)
    _next: tuple[float, Command] | None = field(init=False)
    _turn: int = field(init=False, default=-1)
    _asked_s: float = field(init=False, default=0.0)
    _heard_by_s: float | None = field(init=False, default=None)  # when the audio so far is played

    def __post_init__(self) -> None:
        """Begin with the session's opening."""
        self._rng = np.random.default_rng(self.seed)
        self._script = self._say(self.begins_s)
        self._next = (self.begins_s, Open(self.session_id, self.info.voices[0]))
        self.due_s = self.begins_s

    def act(self, now_s: float) -> list[Command]:
        """Return what it has done by `now_s` and not told yet."""
        commands = []
        while self._next is not None and self._next[0] <= now_s:
            commands.append(self._next[1])
            self._next = next(self._script, None)
        self.due_s = float("inf") if self._next is None else self._next[0]
        return commands

    def take(self, output: Output, now_s: float) -> None:
        """Be told something by the engine."""
        match output:
            case ResponseAudio(turn=turn) if turn == self._turn:
                self._hear(len(output.pcm) / self.info.sample_rate_hz, now_s)
            case ResponseDone(turn=turn) if turn == self._turn:
                # A reply is made faster than it is heard. The caller thinks of an answer when it
                # has heard it out.
                heard_by_s = max(now_s, self._heard_by_s or now_s)
                pause_s = float(self._rng.uniform(*self.pauses_s))
                self._script = self._say(heard_by_s + pause_s)
                self._next = next(self._script)
                self.due_s = self._next[0]
            case ResponseFailed() | SessionFailed():
                self.failure = output.message
                self._next, self.due_s = None, float("inf")
            case _:
                pass

    @property
    def waiting_since_s(self) -> float | None:
        """Say since when it waits for the first audio of a reply; None if it does not."""
        # Such a wait has no end yet. It counts all the same, or an engine that never answers would
        # look fast.
        is_waiting = self._next is None and self._heard_by_s is None and not self.failure
        return self._asked_s if is_waiting else None

    def leave(self) -> Command:
        """Hang up."""
        return Close(self.session_id)

    def _hear(self, seconds: float, now_s: float) -> None:
        is_first = self._heard_by_s is None
        if is_first:
            self.waits.append(Wait(self._asked_s, now_s - self._asked_s))
        is_late = self._heard_by_s is not None and self._heard_by_s < now_s
        self.spoken.append(Spoken(now_s, is_late))
        # After a gap it hears on from here.
        # An example. 80 ms of sound come at 1.00 s and are heard until 1.08 s. The next 80 ms come
        # at 1.05 s: in time, heard until 1.16 s. The next come at 1.20 s: late by 40 ms, heard
        # until 1.28 s.
        starts_s = now_s if self._heard_by_s is None or is_late else self._heard_by_s
        self._heard_by_s = starts_s + seconds

    def _say(self, begins_s: float) -> Iterator[tuple[float, Command]]:
        """Yield what a spoken turn consists of, with the time of each."""
        # Nothing waits for voice detection: the caller says itself when it has finished. So what is
        # measured is the engine's time alone.
        self._turn += 1
        turn = self._turn
        pcm = self.questions[turn % len(self.questions)]
        step = self.info.sample_rate_hz * CHUNK_MS // 1000
        for start in range(0, len(pcm), step):
            # A chunk is sent when its last sample has been spoken.
            at_s = begins_s + min(start + step, len(pcm)) / self.info.sample_rate_hz
            yield at_s, AppendAudio(self.session_id, pcm[start : start + step])
        self._asked_s = begins_s + len(pcm) / self.info.sample_rate_hz
        self._heard_by_s = None
        yield self._asked_s, CommitAudio(self.session_id, f"question-{turn}")
        yield self._asked_s, Respond(self.session_id, turn, f"reply-{turn}")
