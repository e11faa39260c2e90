"""Let others see what happens in a session, without a say in it."""

from typing import ClassVar

from model.messages import Command, Output, Pcm
from server.protocol.server_events import ServerEvent
from server.protocol.wire.checks import JsonObject
from server.session.stopwatch import TurnParts


class Witness:
    """See a session go by; each method does nothing unless it is overridden.

    All are called on the event loop, in the order in which things happen. They must return at once
    and must not raise: whoever watches has no part in the call. Times are the session's clock, in
    seconds.

    Attributes:
        wants_sound: whether `heard` is called.
    """

    wants_sound: ClassVar[bool] = False

    def received(self, event: JsonObject, now_s: float) -> None:
        """See a client's event, as the client's JSON."""

    def sent(self, event: ServerEvent, event_id: str, now_s: float) -> None:
        """See an event that goes to the client."""

    def begun(self, response_id: str, parts: TurnParts, now_s: float) -> None:
        """See the first audio or text of a response, and what it took."""

    def told(self, command: Command, now_s: float) -> None:
        """See a command that goes to the engine."""

    def made(self, output: Output, now_s: float) -> None:
        """See what the engine put out."""

    def heard(self, pcm: Pcm, now_s: float) -> None:
        """See sound of the user that has arrived: float32 [samples] at the engine's rate."""

    def sounded(self, pcm: Pcm, at_s: float) -> None:
        """See sound that a transport plays from `at_s` on, or after what it plays already.

        float32 [samples], at the engine's rate.
        """

    def hushed(self, now_s: float) -> None:
        """See that a transport plays no more of what it was given."""

    def ended(self, why: str, now_s: float) -> None:
        """See the end of the session; nothing follows."""
