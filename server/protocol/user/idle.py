"""Know when the user has been silent for too long after a reply."""

from collections.abc import Iterable

from server.protocol.events import Reaction
from server.protocol.items.items import Message
from server.protocol.response import Response
from server.protocol.server_events import (
    InputAudioBufferCommitted,
    OutputAudioBufferStopped,
    ResponseCreated,
    ResponseDone,
    SpeechStarted,
)
from server.protocol.settings.config import ServerVad, TurnDetection

# A worked example with `idle_timeout_ms` 6,000. A response with 4 s of audio is done at 10 s,
# though its audio went out faster than it plays. The user is taken to have heard it at 14 s, and
# falls silent there; at 20 s the timeout is due. The user speaks at 17 s: the wait is over, until
# the next response.
#
# Source: Realtime API reference, session, turn_detection of server_vad, idle_timeout_ms.


class Idle:
    """Follow what a session sends, for the time at which its user falls silent.

    As documented, that is when a response of the conversation is done, and its audio's length
    later; where a transport plays it, when that is over; or, if that is later, when the timeout was
    switched on or changed. Whatever happens next in the conversation ends the wait; so does the
    timeout itself.
    """

    def __init__(self) -> None:
        self._silent_from_s: float | None = None

    def watch(self, reactions: Iterable[Reaction], now_s: float) -> None:
        """Take note of what is sent."""
        for reaction in reactions:
            match reaction:
                case ResponseDone(response) if response.conversation_id is not None:
                    self._silent_from_s = now_s + _audio_s(response)
                case ResponseCreated(response) if response.conversation_id is not None:
                    self._silent_from_s = None
                case OutputAudioBufferStopped() if self._silent_from_s is not None:
                    self._silent_from_s = now_s
                case SpeechStarted() | InputAudioBufferCommitted():
                    self._silent_from_s = None
                case _:
                    pass

    def changed(self, now_s: float) -> None:
        """Note that the timeout was switched on or changed: it counts from here at the earliest."""
        if self._silent_from_s is not None:
            self._silent_from_s = max(self._silent_from_s, now_s)

    def stop(self) -> None:
        """Wait no longer, until the next response."""
        self._silent_from_s = None

    def deadline_s(self, detection: TurnDetection | None) -> float | None:
        """Return when the wait is over, on the clock of `watch`; None if there is none."""
        timeout_ms = idle_timeout_ms(detection)
        if self._silent_from_s is None or timeout_ms is None:
            return None
        return self._silent_from_s + timeout_ms / 1000


def idle_timeout_ms(detection: TurnDetection | None) -> int | None:
    """Return how long a user may be silent; None for as long as they like."""
    return detection.idle_timeout_ms if isinstance(detection, ServerVad) else None


def _audio_s(response: Response) -> float:
    parts = (item.output_audio for item in response.output if isinstance(item, Message))
    return sum(part.audio_ms for part in parts if part is not None) / 1000
