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
    AppendCallOutput,
    AppendText,
    CallArguments,
    CallStarted,
    Close,
    Command,
    CommitAudio,
    EndOfTurn,
    Engine,
    InputTranscript,
    Open,
    Output,
    Pixels,
    Respond,
    ResponseAudio,
    ResponseDone,
    ResponseFailed,
    ResponseText,
    SessionFailed,
    Tool,
)

Wave = npt.NDArray[np.float32]

CHUNK_FRAMES = 5
"""Pieces of this many frames are appended: as fast as possible, yet never a huge message."""
RETRY_S = 0.01
"""How long to wait before offering a refused command again, unless an output comes first."""
MOST_CALLS = 3
"""Calls in one turn, after which nothing is returned any more."""
NO_RESULT = '{"error": "there is no such thing"}'
"""What is returned to a call that nobody expected."""
SILENT_ENGINE_S = 120.0
"""An engine that delivers nothing for this long, with conversations open, is taken for dead."""


@dataclass(frozen=True, slots=True)
class UserTurn:
    """What the user does in a turn.

    Attributes:
        text: what is said; empty where the assistant is to begin.
        pcm: the same spoken, float32 [samples]; None if it is typed.
        results: what the functions that are called return, one call after another.
        images: what is shown.
        is_shown_last: whether it is shown after the words, as by a camera, and not before.
        is_answered_aloud: whether the reply is to be spoken though the turn is typed.
    """

    text: str
    pcm: Wave | None = None
    results: tuple[str, ...] = ()
    images: tuple[Pixels, ...] = ()
    is_shown_last: bool = False
    is_answered_aloud: bool = False


@dataclass(frozen=True, slots=True)
class Script:
    """The user's side of one conversation."""

    session_id: str
    voice: str
    turns: tuple[UserTurn, ...]
    instructions: str = ""
    tools: tuple[Tool, ...] = ()


@dataclass(slots=True)
class Answer:
    """What came back in one turn, filled in as outputs arrive.

    Attributes:
        transcript: what the model heard; None when nothing was spoken or it never said.
        score: log-probability that the model gave to it; None if it did not say.
        text: the reply, the last one if functions were called before.
        audio: pieces of the spoken reply, float32 [samples] each.
        firsts: what was said before each call.
        calls: names and arguments of the calls that were made.
        ends_ms: when the model heard the turn finish, from the turn's first sample; may repeat.
        failure: why the turn has no proper end; empty when all is well.
    """

    transcript: str | None = None
    score: float | None = None
    text: str = ""
    audio: list[Wave] = field(default_factory=list)
    firsts: list[str] = field(default_factory=list)
    calls: list[tuple[str, str]] = field(default_factory=list)
    ends_ms: list[int] = field(default_factory=list)
    failure: str = ""


class Conversation:
    """Walk one script through an engine: what to submit next, and what came back."""

    def __init__(self, script: Script, chunk_samples: int) -> None:
        self.script = script
        self.answers = [Answer() for _ in script.turns]
        self.is_over = False
        self._chunk_samples = chunk_samples
        self._turn = self._response = 0
        self._call: tuple[str, str] | None = None  # that the response in progress makes
        opening = Open(script.session_id, script.voice, script.instructions)
        self._waiting: deque[Command] = deque([opening])
        self._plan_turn()

    def submit(self, engine: Engine) -> None:
        """Submit what is waiting, as far as the engine takes it now."""
        # Order is kept: what the engine refuses now is offered again, and nothing behind it goes
        # first.
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
            case InputTranscript(text=text, score=score):
                answer.transcript, answer.score = text, score
            case EndOfTurn(audio_ms=audio_ms):
                answer.ends_ms.append(audio_ms)
            case ResponseText(turn=turn, text=text) if turn == self._response:
                answer.text += text
            case ResponseAudio(turn=turn, pcm=pcm) if turn == self._response:
                answer.audio.append(pcm)
            case CallStarted(turn=turn, name=name) if turn == self._response:
                self._call = name, ""
            case CallArguments(turn=turn, text=text) if turn == self._response and self._call:
                self._call = self._call[0], self._call[1] + text
            case ResponseDone(turn=turn, reason=reason) if turn == self._response:
                answer.failure = "" if reason == "completed" else reason
                self._go_on(answer)
            case ResponseFailed(turn=turn, message=message) if turn == self._response:
                answer.failure = message
                self._call = None
                self._go_on(answer)
            case SessionFailed(message=message):
                for missed in self.answers[self._turn :]:
                    missed.failure = message
                self._waiting.clear()
                self.is_over = True
            case _:
                pass

    def _go_on(self, answer: Answer) -> None:
        """Return what a call asked for, or go on to the next turn."""
        # A worked example of a turn with a call: response 3 says "one moment" and calls
        # get_weather. Its end makes response 4 the next one. The result is appended, a reply is
        # asked for as response 4, and whatever still comes of response 3 is not listened to.
        self._response += 1
        call, self._call = self._call, None
        if call is None or answer.failure:
            self._next_turn()
            return
        # A script has as many results as calls are right. A model that calls once more gets an
        # error, as a real function would give it.
        results = self.script.turns[self._turn].results
        number = len(answer.calls)
        answer.calls.append(call)
        answer.firsts.append(answer.text)
        if number == MOST_CALLS:
            answer.failure = "it calls functions without end"
            self._next_turn()
            return
        answer.text = ""
        answer.audio.clear()
        result = results[number] if number < len(results) else NO_RESULT
        item_id = f"result-{self._turn}-{number}"
        session_id = self.script.session_id
        self._waiting.append(AppendCallOutput(session_id, item_id, call[0], result))
        self._ask_for_reply()

    def _ask_for_reply(self) -> None:
        # A typed conversation is scored on its text; speech in, speech out.
        turn = self.script.turns[self._turn]
        has_audio = turn.pcm is not None or turn.is_answered_aloud
        item_id = f"reply-{self._response}"
        self._waiting.append(
            Respond(
                self.script.session_id,
                self._response,
                item_id,
                audio=has_audio,
                tools=self.script.tools,
            )
        )

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
        camera = turn.images if turn.is_shown_last else ()
        if turn.images and not camera:
            shown = AppendText(session_id, f"shown-{self._turn}", "user", "", turn.images)
            self._waiting.append(shown)
        if not turn.text and turn.pcm is None:
            pass  # the assistant begins
        elif turn.pcm is None:
            self._waiting.append(AppendText(session_id, item_id, "user", turn.text, camera))
        else:
            # Five frames are 400 ms. The engine has much more than it can hear at once, so sessions
            # compete for it as live ones would, only faster.
            for start in range(0, len(turn.pcm), self._chunk_samples):
                piece = turn.pcm[start : start + self._chunk_samples]
                self._waiting.append(AppendAudio(session_id, piece))
            self._waiting.append(CommitAudio(session_id, item_id, images=camera))
        self._ask_for_reply()


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
            # With a command that was refused, somebody has to look again soon. Otherwise the next
            # output is what there is to wait for.
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
