"""Pace what a session gives its engine.

A client may append minutes of audio in one event, or faster than it can be spoken, or edit a long
conversation, which is then told anew. The engine holds a bounded amount per session and hears it as
fast as it can. It is asked from time to time whether it has heard everything so far; what is too
far ahead of that waits here, in order, and while too much waits the client is not read.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from model.messages import (
    AppendAudio,
    Cancel,
    CheckTurn,
    ClearAudio,
    Close,
    Command,
    Respond,
    Taken,
    TurnChecked,
    weight,
)

# A worked example. A client appends five minutes of audio in one event:
#
#     0-60 s     goes to the engine, with a question (`CheckTurn`) after every 5 s of it
#     60-300 s   waits here
#     answer     "everything up to 5 s has been heard": another 5 s goes
#     ...        so the engine never holds more than a minute of this session
#
# A live microphone is hardly ahead at all. There is one question for every five seconds of its
# audio.
#
# Half of what the engine holds.
_MAX_AHEAD_S = 60.0
_PIECE_S = 10.0
# Seconds of audio between two questions.
_QUESTION_S = 5.0
# Audio that waits is joined up to this, so that many small appends are few commands.
_JOINED_S = 0.5
# Commands on their way to the engine, which reports every few of them that it has taken.
_MAX_SENT = 256
_MAX_SENT_WEIGHT = 256 * 1024
# What may wait here before the client is not read any more: all audio that may wait, and a
# retelling.
_MAX_WAITING = 2_048
_MAX_WAITING_WEIGHT = 1 << 20


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
        # Of each question: its key, and the samples since the one before.
        self._asked: deque[tuple[str, int]] = deque()
        self._num_unasked = 0  # samples submitted since the newest question
        self._waiting: deque[Command] = deque()
        self._num_waiting_samples = self._waiting_weight = 0
        # The weight of each command that the engine has not reported yet.
        self._sent: deque[int] = deque()
        self._sent_weight = 0
        self._num_aside: dict[str, int] = {}  # the same, of sessions beside this one: commands
        self._has_room = asyncio.Event()
        self._has_room.set()

    @property
    def waiting_s(self) -> float:
        """Return how much audio waits here."""
        return self._num_waiting_samples / self._rate_hz

    def put(self, command: Command) -> None:
        """Submit a command, or let it wait behind audio that waits."""
        match command:
            case Close():
                self._waiting.clear()
                self._num_waiting_samples = self._waiting_weight = 0
                self._forget_questions()  # it is told anew what it has not heard yet
                self._send(command)
            case Cancel():
                self._cancel(command)
            case ClearAudio():
                while self._waiting and isinstance(self._waiting[-1], AppendAudio | CheckTurn):
                    self._unqueued(self._waiting.pop())
                self._enqueue(command)
            case AppendAudio():
                self._put_audio(command)
            case _:
                self._enqueue(command)
        self._note_room()

    def put_aside(self, command: Command) -> None:
        """Submit a command of a session beside this one; it counts, but waits for nothing.

        Raises:
            OverloadedError: see `Engine.submit`.
        """
        self._submit(command)
        aside = command.session_id
        self._num_aside[aside] = self._num_aside.get(aside, 0) + 1
        self._note_room()

    def taken(self, report: Taken) -> None:
        """Note that the engine has taken commands, and submit what waited for that."""
        if report.session_id in self._num_aside:
            self._num_aside[report.session_id] -= report.num_commands
            if self._num_aside[report.session_id] <= 0:
                del self._num_aside[report.session_id]
        else:
            for _ in range(min(report.num_commands, len(self._sent))):
                self._sent_weight -= self._sent.popleft()
            self._release()
        self._note_room()

    def answered(self, answer: TurnChecked) -> None:
        """Take note of what the engine has heard, and submit what waited for that."""
        # The engine answers in order, so an answer also stands for the questions before it.
        if any(key == answer.key for key, _ in self._asked):
            while self._asked.popleft()[0] != answer.key:
                pass
            self._release()
            self._note_room()

    def forget(self) -> None:
        """Note that there is another engine now, which has been given nothing."""
        self._sent.clear()
        self._sent_weight = 0
        self._num_aside.clear()
        self._forget_questions()
        self._note_room()

    async def room(self) -> None:
        """Wait while more waits than anybody needs, here or on its way to the engine."""
        await self._has_room.wait()

    def _release(self) -> None:
        """Submit what is not too far ahead, and everything up to the next audio."""
        while self._waiting and not self._is_sent_full:
            num_ahead = sum(num_samples for _, num_samples in self._asked)
            is_ahead = num_ahead >= _MAX_AHEAD_S * self._rate_hz
            if isinstance(self._waiting[0], AppendAudio) and is_ahead:
                return  # the engine's next answer goes on with it
            command = self._waiting.popleft()
            self._unqueued(command)
            self._pass_on(command)

    def _forget_questions(self) -> None:
        self._asked.clear()
        self._num_unasked = 0

    @property
    def _is_sent_full(self) -> bool:
        return len(self._sent) >= _MAX_SENT or self._sent_weight >= _MAX_SENT_WEIGHT

    def _note_room(self) -> None:
        is_full = (
            len(self._waiting) > _MAX_WAITING
            or self._waiting_weight > _MAX_WAITING_WEIGHT
            or sum(self._num_aside.values()) > _MAX_WAITING
        )
        # For example, a long conversation is told anew after the engine was lost, in 3,000
        # commands. 256 go at once and 2,744 wait here. The client is read again when 2,048 or fewer
        # do.
        if is_full:
            self._has_room.clear()
        else:
            self._has_room.set()

    def _put_audio(self, command: AppendAudio) -> None:
        pcm = command.pcm
        last = self._waiting[-1] if self._waiting else None
        if isinstance(last, AppendAudio) and len(last.pcm) + len(pcm) <= _JOINED_S * self._rate_hz:
            # For example, 25 appends of 20 ms become one command of 0.5 s.
            self._waiting[-1] = replace(last, pcm=np.concatenate((last.pcm, pcm)))
            self._num_waiting_samples += len(pcm)
            self._release()
            return
        step = int(_PIECE_S * self._rate_hz)
        if len(pcm) <= step:
            self._enqueue(command)
            return
        for start in range(0, len(pcm), step):
            self._enqueue(replace(command, pcm=pcm[start : start + step].copy()))

    def _enqueue(self, command: Command) -> None:
        self._waiting.append(command)
        self._waiting_weight += weight(command)
        if isinstance(command, AppendAudio):
            self._num_waiting_samples += len(command.pcm)
        self._release()

    def _unqueued(self, command: Command) -> None:
        self._waiting_weight -= weight(command)
        if isinstance(command, AppendAudio):
            self._num_waiting_samples -= len(command.pcm)

    def _cancel(self, command: Cancel) -> None:
        """Cancel at once, also a response that the engine has not been asked for yet."""
        for waiting in self._waiting:
            if isinstance(waiting, Respond) and waiting.turn == command.turn:
                self._waiting.remove(waiting)
                self._unqueued(waiting)
                return
        self._send(command)

    def _pass_on(self, command: Command) -> None:
        self._send(command)
        self._num_unasked += len(command.pcm) if isinstance(command, AppendAudio) else 0
        if self._num_unasked >= _QUESTION_S * self._rate_hz:
            self._num_questions += 1
            key = f"intake_{self._num_questions}"
            self._asked.append((key, self._num_unasked))
            self._num_unasked = 0
            self._send(CheckTurn(command.session_id, key))

    def _send(self, command: Command) -> None:
        # First, since an engine may report from within.
        weighs = weight(command)
        self._sent.append(weighs)
        self._sent_weight += weighs
        self._submit(command)
