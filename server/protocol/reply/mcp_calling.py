"""Take one call of an MCP tool that a response makes.

Whether it needs an approval is known when its arguments are complete. So clients are told only
then: of the call, which begins at once, or of the request to approve it.
"""

from server.protocol.calls.calls import Calls
from server.protocol.events import Reaction
from server.protocol.items.mcp import McpApprovalRequest, McpCall
from server.protocol.mcp.toolbox import OfferedTool
from server.protocol.reply.output_items import OutputItems
from server.protocol.server_events import (
    McpCallArgumentsDelta,
    McpCallArgumentsDone,
    McpCallInProgress,
)

_NO_ARGUMENTS = "{}"


class McpCalling:
    """Hold the call that a response makes.

    Args:
        response_id: of the response.
        call_id: of the item that the call becomes, if nobody has to be asked.
        request_id: of the item that a request to approve it becomes.
        offered: the tool.
        outputs: where the item goes.
        calls: follow what becomes of it.
    """

    def __init__(
        self,
        response_id: str,
        call_id: str,
        request_id: str,
        offered: OfferedTool,
        outputs: OutputItems,
        calls: Calls,
    ) -> None:
        self._response_id = response_id
        self._call_id = call_id
        self._request_id = request_id
        self._offered = offered
        self._outputs = outputs
        self._calls = calls
        self._arguments = ""

    def arguments(self, text: str) -> None:
        """Add to the arguments."""
        self._arguments += text

    def made(self, now_s: float) -> list[Reaction]:
        """Make the call, or ask for it; its arguments are complete."""
        arguments = self._arguments or _NO_ARGUMENTS
        if self._calls.needs_approval(self._offered, arguments):
            return self._asked(arguments, now_s)
        return self._begun(arguments)

    def _asked(self, arguments: str, now_s: float) -> list[Reaction]:
        offered = self._offered
        request = McpApprovalRequest(
            self._request_id, offered.server.label, offered.tool.name, offered.called, arguments
        )
        opened = self._outputs.opened(request)
        closed = self._outputs.closed(request)
        return [*opened, *closed, self._calls.ask(request, offered, now_s)]

    def _begun(self, arguments: str) -> list[Reaction]:
        server, tool, called = self._offered.server, self._offered.tool, self._offered.called
        call = McpCall(self._call_id, server.label, tool.name, called, "")
        opened = self._outputs.opened(call)
        index = self._outputs.index(call.id)
        place = self._response_id, call.id, index
        whole = McpCall(call.id, server.label, tool.name, called, arguments)
        return [
            *opened,
            McpCallArgumentsDelta(*place, arguments),
            McpCallArgumentsDone(*place, arguments),
            McpCallInProgress(index, call.id),
            *self._outputs.handed_over(whole),
            *self._calls.begin(whole, server, index, self._response_id),
        ]
