"""Have the tools of MCP servers listed, and tell clients how that goes."""

from collections.abc import Iterable
from dataclasses import replace

from server.errors import ClientError
from server.protocol.events import Reaction
from server.protocol.items.mcp import McpError, McpListTools
from server.protocol.mcp.outcomes import DropTool, ListingFailed, ListTools, ToolsListed
from server.protocol.server_events import (
    ItemAdded,
    ItemDone,
    McpListToolsCompleted,
    McpListToolsFailed,
    McpListToolsInProgress,
)
from server.protocol.settings.mcp import McpTool
from server.protocol.settings.tools import AnyTool
from server.protocol.state import SessionState

_MAX_PENDING, _MAX_LISTED = 32, 64


class Listing:
    """List tools into a session's `Listings`.

    Args:
        state: of the session.
    """

    def __init__(self, state: SessionState) -> None:
        self._state = state
        self._items: dict[str, McpListTools] = {}  # that wait

    def refuse_too_many(self, tools: Iterable[AnyTool]) -> None:
        """Refuse to list still more at a time.

        Raises:
            ClientError: too many are being listed.
        """
        is_any = any(isinstance(tool, McpTool) for tool in tools)
        if is_any and len(self._items) >= _MAX_PENDING:
            raise ClientError(
                f"The tools of {len(self._items)} servers are being listed already.",
                code="rate_limit_exceeded",
                kind="rate_limit_error",
            )

    def wanted(self, tools: Iterable[AnyTool]) -> list[Reaction]:
        """Begin to list those servers among some tools that are not known yet.

        One that could not be listed is tried again whenever it is named again.
        """
        listings = self._state.listings
        reactions: list[Reaction] = []
        for server in tools:
            if not isinstance(server, McpTool) or listings.listed.get(server.source):
                continue
            if server.source not in listings.pending.values():
                reactions += self._begun(server)
        return reactions

    def _begun(self, server: McpTool) -> list[Reaction]:
        item = McpListTools(self._state.ids.new("mcpl"), server.label)
        self._items[item.id] = item
        self._state.listings.pending[item.id] = server.source
        return [
            ItemAdded(self._state.conversation.append(item), item),
            McpListToolsInProgress(item.id),
            ListTools(item.id, server),
        ]

    def outcome(self, outcome: ToolsListed | ListingFailed) -> list[Reaction]:
        """Take what came of a listing; nothing follows if its item was deleted."""
        item = self._items.pop(outcome.item_id, None)
        source = self._state.listings.pending.pop(outcome.item_id, None)
        if item is None or source is None:
            return []
        if isinstance(outcome, ToolsListed):
            self._state.listings.listed[source] = outcome.tools
            item = replace(item, tools=outcome.tools, is_open=False)
            event: Reaction = McpListToolsCompleted(item.id)
        else:
            self._state.listings.listed[source] = ()
            item = replace(item, is_open=False)
            event = McpListToolsFailed(item.id, outcome.error.to_json())
        while len(self._state.listings.listed) > _MAX_LISTED:
            del self._state.listings.listed[next(iter(self._state.listings.listed))]
        self._state.conversation.replace(item)
        return [event, ItemDone(self._state.conversation.previous_id(item.id), item)]

    def deleted(self, item_id: str) -> list[Reaction]:
        """Give up a listing whose item is deleted; a list that is complete stays known."""
        if self._items.pop(item_id, None) is None:
            return []
        self._state.listings.pending.pop(item_id)
        return [DropTool(item_id)]

    def ended(self, message: str) -> list[Reaction]:
        """End everything, because the session ends."""
        error = McpError("protocol_error", message)
        return [
            reaction
            for item_id in [*self._items]
            for reaction in (DropTool(item_id), *self.outcome(ListingFailed(item_id, error)))
        ]
