"""Pace what a session gives its engine.

A client may append minutes of audio in one event, or faster than it can be spoken. The engine holds
a bounded amount per session and hears it as fast as it can. It is asked from time to time whether
it has heard everything so far; what is too far ahead of that waits here, in order.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import replace

from model.messages import (
    AppendAudio,
    Cancel,
    CheckTurn,
    ClearAudio,
    Close,
    Command,
    Respond,
    TurnChecked,
)

# Half of what the engine holds.
_MAX_AHEAD_S = 60.0
_PIECE_S = 10.0
# So often the engine is asked. A piece that is not full is not asked after: a live microphone has
# one question in all this time.
_QUESTION_S = 5.0


class Intake:
    """Pass a session's commands on, audio at most a minute ahead of what the engine has heard.

    Args:
        submit: hands a command to the engine.
        rate_hz: of the engine's audio.
    """

    def __init__(self, submit: Callable[[Command], None], rate_hz: int) -> None:
        self._submit = submit
        self._rate_hz = rate_hz
        self._num_questions = 0
        self._asked: deque[tuple[str, float]] = (
            deque()
        )  # key, seconds of audio since the one before
        self._num_unasked = 0  # samples submitted since the newest question
        self._waiting: deque[Command] = deque()

    @property
    def waiting_s(self) -> float:
        """Return how much audio waits here."""
        return sum(self._seconds(command) for command in self._waiting)

    def put(self, command: Command) -> None:
        """Submit a command, or let it wait behind audio that waits."""
        match command:
            case Close():
                # It is told anew what it has not heard yet.
                self._waiting.clear()
                self._asked.clear()
                self._num_unasked = 0
                self._submit(command)
            case Cancel():
                self._cancel(command)
            case ClearAudio():
                while self._waiting and isinstance(self._waiting[-1], AppendAudio | CheckTurn):
                    self._waiting.pop()
                self._enqueue(command)
            case AppendAudio():
                step = int(_PIECE_S * self._rate_hz)
                for start in range(0, len(command.pcm), step):
                    self._enqueue(replace(command, pcm=command.pcm[start : start + step]))
            case _:
                self._enqueue(command)

    def answered(self, answer: TurnChecked) -> None:
        """Take note of what the engine has heard, and pass on what waited for that."""
        if any(key == answer.key for key, _ in self._asked):
            while self._asked.popleft()[0] != answer.key:
                pass
            self._release()

    def _enqueue(self, command: Command) -> None:
        self._waiting.append(command)
        self._release()

    def _release(self) -> None:
        """Submit what is not too far ahead, and everything up to the next audio."""
        while self._waiting:
            num_ahead = sum(num_samples for _, num_samples in self._asked)
            is_ahead = num_ahead >= _MAX_AHEAD_S * self._rate_hz
            if isinstance(self._waiting[0], AppendAudio) and is_ahead:
                return
            self._pass_on(self._waiting.popleft())

    def _cancel(self, command: Cancel) -> None:
        """Cancel at once, also a response that the engine has not been asked for yet."""
        for waiting in self._waiting:
            if isinstance(waiting, Respond) and waiting.turn == command.turn:
                self._waiting.remove(waiting)
                return
        self._submit(command)

    def _pass_on(self, command: Command) -> None:
        self._submit(command)
        self._num_unasked += len(command.pcm) if isinstance(command, AppendAudio) else 0
        if self._num_unasked >= _QUESTION_S * self._rate_hz:
            self._num_questions += 1
            key = f"intake_{self._num_questions}"
            self._asked.append((key, self._num_unasked))
            self._num_unasked = 0
            self._submit(CheckTurn(command.session_id, key))

    def _seconds(self, command: Command) -> float:
        return len(command.pcm) / self._rate_hz if isinstance(command, AppendAudio) else 0.0
