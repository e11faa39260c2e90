"""Time one session's turns, for its log and for the counts of all."""

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from server.protocol.server_events import (
    OutputAudioDelta,
    OutputTextDelta,
    ResponseCreated,
    ResponseDone,
    ServerEvent,
    SpeechStopped,
)
from server.protocol.sound import PlayAudio
from server.session.counts import Counts, count_in


@dataclass(slots=True)
class _Turn:
    began_s: float  # the end of the user's turn where there was one, else the response's creation
    first_s: float | None = None  # first audio, or first text of a written response


class Stopwatch:
    """Write one line a turn: how it ended, and how long its first sound or word took."""

    def __init__(
        self,
        log: structlog.typing.FilteringBoundLogger,
        counts: Counts,
        clock: Callable[[], float],
    ) -> None:
        self._log = log
        self._counts = counts
        self._clock = clock
        self._stopped_s: float | None = None
        self._turns: dict[str, _Turn] = {}  # by response
        self.num_turns = 0

    def see(self, event: ServerEvent | PlayAudio) -> None:
        """Take note of what goes to the client."""
        match event:
            case SpeechStopped():
                self._stopped_s = self._clock()
            case ResponseCreated():
                # From the end of the user's turn where there was one, since a person waits from
                # then on. A response that a client asks for otherwise begins with its creation.
                began_s, self._stopped_s = self._stopped_s or self._clock(), None
                self._turns[event.response.id] = _Turn(began_s)
                self.num_turns += 1
            case OutputAudioDelta() | PlayAudio() | OutputTextDelta():
                turn = self._turns[event.response_id]
                if turn.first_s is None:
                    turn.first_s = self._clock()
                    self._counts.count_first(turn.first_s - turn.began_s)
            case ResponseDone():
                self._write(event)
            case _:
                pass

    def _write(self, event: ResponseDone) -> None:
        turn = self._turns.pop(event.response.id)
        first_ms = None if turn.first_s is None else round((turn.first_s - turn.began_s) * 1000, 1)
        count_in(self._counts.responses, event.response.status)
        usage = event.response.usage
        self._log.info(
            "turn ended",
            turn=self.num_turns,
            status=event.response.status,
            first_ms=first_ms,
            total_ms=round((self._clock() - turn.began_s) * 1000, 1),
            output_tokens=usage.output_tokens if usage else 0,
        )
