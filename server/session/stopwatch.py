"""Time one session's turns: for its log, for the counts of all, and for whoever traces it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import structlog

from server.protocol.moments import Moment, ReplyBegun, TurnEnded
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

# What a person waits for, in seconds, where the reply was begun in the pause:
#
#     10.00   the user's last sound          |
#     10.50   the turn is over               | end_of_turn 0.50
#     10.50   the engine has read it all     | first_step  0.00, since it began early
#     10.53   the first audio goes out       | first_audio 0.03
#
# and `network` is the round trip beside it: half of it before the first line, half after the last.

_MAX_METADATA = 16


@dataclass(frozen=True, slots=True)
class TurnParts:
    """Divide the time from the user's last sound to the first audio of the reply, in seconds.

    Attributes:
        network: the round trip between client and server as measured last; None if unknown.
        end_of_turn: from the last sound to the decision that the turn is over; None where a client
            decided, or asked for a response by itself.
        first_step: from there until the model has read everything.
        first_audio: from there to the first audio, or text of a written response.
    """

    network: float | None
    end_of_turn: float | None
    first_step: float
    first_audio: float

    @property
    def known(self) -> Mapping[str, float]:
        """Return the parts that are known, by name, in the order in which they pass."""
        parts = {
            "network": self.network,
            "end_of_turn": self.end_of_turn,
            "first_step": self.first_step,
            "first_audio": self.first_audio,
        }
        return {name: seconds for name, seconds in parts.items() if seconds is not None}


@dataclass(slots=True)
class _Turn:
    began_s: float  # the end of the user's turn where there was one, else the response's creation
    silence_s: float | None  # before that
    first_s: float | None = None  # first audio, or first text of a written response
    parts: TurnParts | None = None


class Stopwatch:
    """Write one line a turn: how it ended, and how long its first sound or word took.

    Args:
        log: of the session.
        counts: of all sessions.
        clock: of the session.
        round_trip_s: returns the round trip to the client, None if that is not known.
    """

    def __init__(
        self,
        log: structlog.typing.FilteringBoundLogger,
        counts: Counts,
        clock: Callable[[], float],
        round_trip_s: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._log = log
        self._counts = counts
        self._clock = clock
        self._round_trip_s = round_trip_s
        self._stopped_s: float | None = None
        self._silence_s: float | None = None
        self._turns: dict[str, _Turn] = {}  # by response
        self._begun_s: dict[str, float] = {}  # the same: when the engine had read everything
        self.num_turns = 0

    def note(self, moment: Moment) -> None:
        """Take note of what no event tells."""
        match moment:
            case TurnEnded():
                self._silence_s = moment.silence_s
            case ReplyBegun():
                self._begun_s[moment.response_id] = moment.at_s

    def see(self, event: ServerEvent | PlayAudio) -> tuple[str, TurnParts] | None:
        """Take note of what goes to the client.

        Returns:
            With the first audio or text of a response, the response and what that took.
        """
        match event:
            case SpeechStopped():
                self._stopped_s = self._clock()
            case ResponseCreated():
                # From the end of the user's turn where there was one, since a person waits from
                # then on. A response that a client asks for otherwise begins with its creation.
                silence_s = None if self._stopped_s is None else self._silence_s
                began_s = self._stopped_s or self._clock()
                self._stopped_s = self._silence_s = None
                self._turns[event.response.id] = _Turn(began_s, silence_s)
                self.num_turns += 1
            case OutputAudioDelta() | PlayAudio() | OutputTextDelta():
                turn = self._turns[event.response_id]
                if turn.first_s is None:
                    turn.first_s = self._clock()
                    self._counts.count_first(turn.first_s - turn.began_s)
                    parts = self._divide(turn, self._begun_s.get(event.response_id), turn.first_s)
                    return event.response_id, parts
            case ResponseDone():
                self._write(event)
            case _:
                pass
        return None

    def parts(self, response_id: str) -> TurnParts | None:
        """Return the parts of what was waited for, of a response that has not ended yet.

        None before its first audio or text.
        """
        turn = self._turns.get(response_id)
        return None if turn is None else turn.parts

    def _divide(self, turn: _Turn, begun_s: float | None, first_s: float) -> TurnParts:
        # An early reply begins before the turn is over. Nobody waited during that time.
        begun_s = first_s if begun_s is None else max(begun_s, turn.began_s)
        turn.parts = parts = TurnParts(
            self._round_trip_s(), turn.silence_s, begun_s - turn.began_s, first_s - begun_s
        )
        for part, seconds in parts.known.items():
            self._counts.count_part(part, seconds)
        return parts

    def _write(self, event: ResponseDone) -> None:
        turn = self._turns.pop(event.response.id)
        self._begun_s.pop(event.response.id, None)
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


def with_parts(event: ResponseDone, parts: TurnParts | None) -> ResponseDone:
    """Return the end of a response with what its first audio took in its metadata.

    A client's own metadata stays; where all places are taken, it stays alone.
    """
    # Source: Realtime API reference, the response object, metadata: up to 16 pairs of strings.
    response = event.response
    own = dict(response.request.metadata or {})
    told = (
        {f"parley_{name}_ms": f"{s * 1000:.1f}" for name, s in parts.known.items()} if parts else {}
    )
    if not told or len(own) + len(told) > _MAX_METADATA:
        return event
    request = replace(response.request, metadata={**own, **told})
    return ResponseDone(replace(response, request=request))
