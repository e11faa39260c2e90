"""Tell those who watch a session what passes in it."""

from collections.abc import Callable, Iterable, Sequence

import structlog

from model.messages import Command, CommitAudio, News, Output, Pcm, Reopen
from server.protocol.moments import Moment
from server.protocol.server_events import ErrorEvent, OutputAudioDelta, ResponseDone, ServerEvent
from server.protocol.sound import PlayAudio
from server.protocol.wire.checks import JsonObject
from server.session.counts import Counts, count_in
from server.session.stopwatch import Stopwatch, TurnParts
from server.session.usage import Meter
from server.session.witness import Witness

# A worked example of one short reply, and who takes note of what:
#
#     what passes             stopwatch             meter            counts      witnesses
#     speech_stopped          the turn is over                                   sent
#     response.created        a response begins                                  sent
#     output_audio.delta      its first sound       80 ms spoken     0.4 s       sent, begun
#     output_audio.delta                            80 ms spoken                 sent
#     response.done           one line in the log   what it cost     completed   sent
#
# Witnesses are traces and recordings; most sessions have none.


class Observers:
    """Watch one session: time its turns, meter its use, count, and tell its witnesses.

    They see what passes and change nothing. Times are the session's clock, in seconds.

    Args:
        counts: of all sessions.
        meter: counts what this session uses.
        witnesses: see what happens.
        log: of the session.
        clock: of the session.
        round_trip_s: returns the round trip to the client, None if that is not known.
        rate_hz: of the engine's sound.
    """

    def __init__(
        self,
        counts: Counts,
        meter: Meter,
        witnesses: Sequence[Witness],
        log: structlog.typing.FilteringBoundLogger,
        clock: Callable[[], float],
        round_trip_s: Callable[[], float | None],
        rate_hz: int,
    ) -> None:
        self._counts = counts
        self._meter = meter
        self._witnesses = witnesses
        self._clock = clock
        self._rate_hz = rate_hz
        self._stopwatch = Stopwatch(log, counts, clock, round_trip_s)

    @property
    def want_sound(self) -> bool:
        """Say whether any of them wants to know what the user says."""
        return any(witness.wants_sound for witness in self._witnesses)

    @property
    def num_turns(self) -> int:
        """Count the responses so far."""
        return self._stopwatch.num_turns

    def parts(self, response_id: str) -> TurnParts | None:
        """Return what a response's first audio took; see `Stopwatch.parts`."""
        return self._stopwatch.parts(response_id)

    def begun(self, session_id: str) -> None:
        """Note that the session has its slot."""
        self._counts.sessions_begun += 1
        self._meter.begin(session_id)

    def received(self, event: JsonObject, now_s: float) -> None:
        """Note a client's event."""
        for witness in self._witnesses:
            witness.received(event, now_s)

    def brought(self, seconds: float) -> None:
        """Note how much sound the client has sent."""
        self._meter.heard(seconds)

    def heard(self, pcm: Pcm, now_s: float) -> None:
        """Note sound of the user, decoded: float32 [samples] at the engine's rate."""
        for witness in self._witnesses:
            witness.heard(pcm, now_s)

    def told(self, command: Command) -> None:
        """Note a command that the engine was given."""
        for witness in self._witnesses:
            witness.told(command, self._clock())

    def speculated(self, command: Command) -> None:
        """Note a command that is about to be given, if it begins or withdraws an early reply."""
        match command:
            case CommitAudio(is_tentative=True):
                self._counts.speculations += 1
            case Reopen():
                self._counts.speculations_withdrawn += 1
            case _:
                pass

    def made(self, output: Output | News) -> None:
        """Note what the engine put out; news of the engine itself are of no session."""
        if self._witnesses and isinstance(output, Output):
            for witness in self._witnesses:
                witness.made(output, self._clock())

    def noted(self, moments: Iterable[Moment]) -> None:
        """Note what no event tells."""
        for moment in moments:
            self._stopwatch.note(moment)

    def sent(self, event: ServerEvent, event_id: str) -> None:
        """Note an event that goes to the client."""
        self._time(event)
        match event:
            case OutputAudioDelta():
                self._meter.spoke(len(event.pcm) / self._rate_hz)
            case ResponseDone():
                self._meter.responded(event.response.usage)
            case ErrorEvent():
                count_in(self._counts.errors, event.kind)
            case _:
                pass
        for witness in self._witnesses:
            witness.sent(event, event_id, self._clock())

    def played(self, sound: PlayAudio) -> None:
        """Note sound that the transport is given to play."""
        self._time(sound)
        self._meter.spoke(len(sound.pcm) / self._rate_hz)

    def sounded(self, pcm: Pcm, at_s: float) -> None:
        """Note sound that a transport plays from `at_s` on, or after what it plays already.

        float32 [samples].
        """
        for witness in self._witnesses:
            witness.sounded(pcm, at_s)

    def hushed(self, now_s: float) -> None:
        """Note that a transport plays no more of what it was given."""
        for witness in self._witnesses:
            witness.hushed(now_s)

    def closed(self, how: str) -> None:
        """Note how a session has ended that had begun, in the words of the counts."""
        count_in(self._counts.sessions_ended, how)
        self._meter.end(how)

    def ended(self, why: str) -> None:
        """Note the end, also of a session that got no slot; nothing follows."""
        for witness in self._witnesses:
            witness.ended(why, self._clock())

    def _time(self, event: ServerEvent | PlayAudio) -> None:
        """Take the time of an event, and tell when it is the first sound or word of a reply."""
        begun = self._stopwatch.see(event)
        if begun is not None:
            for witness in self._witnesses:
                witness.begun(*begun, self._clock())
