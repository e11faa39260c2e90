"""Stream one function call of a response."""

from server.protocol.items.items import FunctionCall, Status
from server.protocol.reply.output_items import OutputItems
from server.protocol.server_events import (
    FunctionCallArgumentsDelta,
    FunctionCallArgumentsDone,
    ServerEvent,
)

# The events of one call, in order:
#
#     response.output_item.added            status in_progress, arguments ""
#     response.function_call_arguments.delta, ...
#     response.function_call_arguments.done
#     response.output_item.done             status completed, all arguments
#
# Source: Realtime guide, "Function calling"; Realtime API reference, server events.
#
# Clients take an empty string for no call at all.
_NO_ARGUMENTS = "{}"


class Calling:
    """Hold the function call that a response makes.

    Args:
        response_id: of the response.
        item_id: of the call's item.
        call_id: by which its output will name it.
        name: of the function.
        outputs: where the item goes.
    """

    def __init__(
        self, response_id: str, item_id: str, call_id: str, name: str, outputs: OutputItems
    ) -> None:
        self.item_id = item_id
        self._response_id = response_id
        self._call_id = call_id
        self._name = name
        self._outputs = outputs
        self._arguments = ""

    def opened(self) -> list[ServerEvent]:
        """Open the item, without arguments yet."""
        return self._outputs.opened(self.item("in_progress"))

    def arguments(self, text: str) -> list[ServerEvent]:
        """Add to the arguments."""
        self._arguments += text
        return [FunctionCallArgumentsDelta(*self._place, text)]

    def closed(self, status: Status) -> list[ServerEvent]:
        """Close the arguments and the item."""
        events = [] if self._arguments else self.arguments(_NO_ARGUMENTS)
        return [
            *events,
            FunctionCallArgumentsDone(*self._place, self._name, self._arguments),
            *self._outputs.closed(self.item(status)),
        ]

    @property
    def _place(self) -> tuple[str, str, int, str]:
        index = self._outputs.index(self.item_id)
        return self._response_id, self.item_id, index, self._call_id

    def item(self, status: Status) -> FunctionCall:
        """Return the call as it is now."""
        return FunctionCall(self.item_id, status, self._call_id, self._name, self._arguments)
