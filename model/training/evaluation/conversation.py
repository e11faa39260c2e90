"""Hold many conversations at once with an engine, through the same messages that the gateway uses.

Nothing is teacher-forced: the model answers what it heard and remembers what it answered. Audio is
handed over as fast as the engine takes it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from time import monotonic

import numpy as np
import numpy.typing as npt

from model.errors import EngineError, OverloadedError
from model.messages import (
    AppendAudio,
    AppendText,
    Close,
    Command,
    CommitAudio,
    EndOfTurn,
    Engine,
    InputTranscript,
    Open,
    Output,
    Respond,
    ResponseAudio,
    ResponseDone,
    ResponseText,
    SessionFailed,
)

Wave = npt.NDArray[np.float32]

CHUNK_FRAMES = 5
"""Pieces of this many frames are appended: as fast as possible, yet never a huge message."""
RETRY_S = 0.01
"""How long to wait before offering a refused command again, unless an output comes first."""
SILENT_ENGINE_S = 120.0
"""An engine that delivers nothing for this long, with conversations open, is taken for dead."""


@dataclass(frozen=True, slots=True)
class UserTurn:
    """What the user does in a turn: speaks `pcm`, float32 [samples], or types when it is None."""

    text: str
    pcm: Wave | None = None


@dataclass(frozen=True, slots=True)
class Script:
    """The user's side of one conversation."""

    session_id: str
    voice: str
    turns: tuple[UserTurn, ...]


@dataclass(slots=True)
class Answer:
    """What came back in one turn, filled in as outputs arrive.

    Attributes:
        transcript: what the model heard; None when nothing was spoken or it never said.
        text: the reply.
        audio: pieces of the spoken reply, float32 [samples] each.
        ends_ms: when the model heard the turn finish, from the turn's first sample; may repeat.
        failure: why the turn has no proper end; empty when all is well.
    """

    transcript: str | None = None
    text: str = ""
    audio: list[Wave] = field(default_factory=list)
    ends_ms: list[int] = field(default_factory=list)
    failure: str = ""


class Conversation:
    """Walk one script through an engine: what to submit next, and what came back."""

    def __init__(self, script: Script, chunk_samples: int) -> None:
        self.script = script
        self.answers = [Answer() for _ in script.turns]
        self.is_over = False
        self._chunk_samples = chunk_samples
        self._turn = 0
        self._waiting: deque[Command] = deque([Open(script.session_id, script.voice)])
        self._plan_turn()

    def submit(self, engine: Engine) -> None:
        """Submit what is waiting, as far as the engine takes it now."""
        while self._waiting:
            try:
                engine.submit(self._waiting[0])
            except OverloadedError:
                return
            self._waiting.popleft()

    @property
    def is_waiting(self) -> bool:
        """Say whether some command has not been taken yet."""
        return bool(self._waiting)

    def receive(self, output: Output) -> None:
        """Take note of an output; the end of a response begins the next turn."""
        if self.is_over:
            return
        answer = self.answers[self._turn]
        match output:
            case InputTranscript(text=text):
                answer.transcript = text
            case EndOfTurn(audio_ms=audio_ms):
                answer.ends_ms.append(audio_ms)
            case ResponseText(turn=turn, text=text) if turn == self._turn:
                answer.text += text
            case ResponseAudio(turn=turn, pcm=pcm) if turn == self._turn:
                answer.audio.append(pcm)
            case ResponseDone(turn=turn, reason=reason) if turn == self._turn:
                answer.failure = "" if reason == "completed" else reason
                self._next_turn()
            case SessionFailed(message=message):
                for missed in self.answers[self._turn :]:
                    missed.failure = message
                self._waiting.clear()
                self.is_over = True
            case _:
                pass

    def _next_turn(self) -> None:
        self._turn += 1
        if self._turn == len(self.script.turns):
            self._waiting.append(Close(self.script.session_id))
            self.is_over = True
        else:
            self._plan_turn()

    def _plan_turn(self) -> None:
        session_id, turn = self.script.session_id, self.script.turns[self._turn]
        item_id = f"user-{self._turn}"
        if turn.pcm is None:
            self._waiting.append(AppendText(session_id, item_id, "user", turn.text))
        else:
            for start in range(0, len(turn.pcm), self._chunk_samples):
                piece = turn.pcm[start : start + self._chunk_samples]
                self._waiting.append(AppendAudio(session_id, piece))
            self._waiting.append(CommitAudio(session_id, item_id))
        # A typed conversation is scored on its text; speech in, speech out.
        audio = turn.pcm is not None
        self._waiting.append(Respond(session_id, self._turn, f"reply-{self._turn}", audio=audio))


def converse(
    engine: Engine,
    outputs: SimpleQueue[Output],
    scripts: Iterable[Script],
    *,
    max_parallel: int,
    patience_s: float = SILENT_ENGINE_S,
) -> Iterator[tuple[Script, list[Answer]]]:
    """Hold every script's conversation, at most `max_parallel` at a time.

    Args:
        engine: started, delivering into `outputs`.
        outputs: where the engine puts what it has to say.
        scripts: made ready one by one, as sessions become free.
        max_parallel: conversations at once; no more than `EngineInfo.max_sessions`.
        patience_s: how long the engine may say nothing while conversations are open.

    Yields:
        A script with its answers, in the order in which conversations finish.

    Raises:
        EngineError: the engine fell silent.
    """
    coming = iter(scripts)
    live: dict[str, Conversation] = {}
    chunk_samples = CHUNK_FRAMES * engine.info.frame_samples
    heard_at_s = monotonic()
    while True:
        while len(live) < max_parallel and (script := next(coming, None)) is not None:
            live[script.session_id] = Conversation(script, chunk_samples)
            heard_at_s = monotonic()  # making speech took its time, which is not the engine's
        for conversation in live.values():
            conversation.submit(engine)
        for session_id in [s for s, c in live.items() if c.is_over and not c.is_waiting]:
            done = live.pop(session_id)
            yield done.script, done.answers
        if not live:
            if (script := next(coming, None)) is None:
                return
            live[script.session_id] = Conversation(script, chunk_samples)
            continue
        try:
            is_any_waiting = any(c.is_waiting for c in live.values())
            output = outputs.get(timeout=RETRY_S if is_any_waiting else min(1.0, patience_s))
        except Empty:
            if monotonic() - heard_at_s > patience_s:
                raise EngineError(
                    f"the engine said nothing for {patience_s:g} s while "
                    f"{len(live)} conversations were open"
                ) from None
            continue
        heard_at_s = monotonic()
        if output.session_id in live:
            live[output.session_id].receive(output)
