"""Hold requests for responses that cannot begin yet: their tools are being listed, or calls go on.

Nobody has been told of them. They begin in the order in which they came, each as soon as nothing
blocks it.
"""

from dataclasses import dataclass

from server.errors import ClientError
from server.protocol.calls.calls import Calls
from server.protocol.events import Reaction
from server.protocol.reply.responses import Responses
from server.protocol.server_events import ErrorEvent
from server.protocol.settings.request import ResponseRequest
from server.protocol.state import SessionState
from server.protocol.wire.client_events import ResponseCancel

_MAX_WAITING = 16


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A request that waits.

    Attributes:
        event_id: of the client's event.
        for_calls: whether it waits for every call to end.
    """

    request: ResponseRequest
    event_id: str | None
    for_calls: bool


class PutOff:
    """Hold a session's requests that wait.

    Args:
        state: of the session.
        calls: that may go on.
        responses: begin.
    """

    def __init__(self, state: SessionState, calls: Calls, responses: Responses) -> None:
        self._state = state
        self._calls = calls
        self._responses = responses
        self._waiting: list[_Waiting] = []

    def takes(self, request: ResponseRequest, event_id: str | None, *, is_listing: bool) -> bool:
        """Keep a request that cannot begin yet, and say whether that is so.

        Outputs of several calls get one reply: a request that comes while another one waits for the
        calls takes its place.

        Args:
            request: for a response.
            event_id: of the client's event.
            is_listing: whether tools that it brings have just begun to be listed.

        Raises:
            ClientError: too many wait.
        """
        is_listed_later = is_listing or (
            request.tools != self._state.config.tools
            and self._state.listings.is_pending(request.tools)
        )
        for_calls = self._is_for_calls(request)
        if not is_listed_later and not for_calls:
            return False
        if for_calls:
            self._waiting = [each for each in self._waiting if not each.for_calls]
        if len(self._waiting) >= _MAX_WAITING:
            raise ClientError(
                f"{_MAX_WAITING} responses wait to begin already.",
                code="rate_limit_exceeded",
                kind="rate_limit_error",
            )
        self._waiting.append(_Waiting(request, event_id, for_calls))
        return True

    def _is_for_calls(self, request: ResponseRequest) -> bool:
        waits = self._state.policy.wait_for_calls and not request.is_aside
        return waits and self._calls.is_any_open

    def cancel(self, event: ResponseCancel) -> bool:
        """Forget what waits for the conversation, if the client cancels without naming a response.

        Returns:
            Whether something waited, and none is in progress that may be meant.
        """
        if event.response_id is not None or self._responses.running.is_active:
            return False
        kept = [each for each in self._waiting if each.request.destination == "none"]
        has_any = len(kept) < len(self._waiting)
        self._waiting = kept
        return has_any

    def due(self) -> list[Reaction]:
        """Begin what nothing is in the way of any more."""
        reactions: list[Reaction] = []
        for waiting in [*self._waiting]:
            if self._is_in_the_way(waiting):
                continue
            self._waiting.remove(waiting)
            try:
                reactions += self._responses.create(waiting.request)
            except ClientError as error:
                reactions.append(
                    ErrorEvent(error.kind, error.code, error.message, error.param, waiting.event_id)
                )
        return reactions

    def _is_in_the_way(self, waiting: _Waiting) -> bool:
        request = waiting.request
        is_in_band = request.destination == "auto"
        if is_in_band and self._responses.running.is_active:
            return True
        if waiting.for_calls and self._calls.is_any_open:
            return True
        is_own = request.tools == self._state.config.tools
        return not is_own and self._state.listings.is_pending(request.tools)
