"""Drop the oldest items of a conversation that holds more than the server keeps, and say so."""

from server.protocol.calls.calls import Calls
from server.protocol.calls.listing import Listing
from server.protocol.events import Reaction
from server.protocol.items.mcp import McpListTools
from server.protocol.memory.dropping import dropped
from server.protocol.memory.feed import Feed
from server.protocol.state import SessionState

# A worked example, with `server.max_items` 4. The conversation is a, b, c and a call f that goes
# on; the client adds d:
#
#     conversation.item.added d, conversation.item.done d
#     conversation.item.deleted a                            and the model is told b, c, f, d
#
# Had all but f been dropped before, f would go: it is given up as if the client had deleted it.
# The bound holds whatever a client does, since it is one of memory.


class Overflow:
    """Hold a conversation to its bounds.

    Args:
        state: of the session.
        feed: leads to the engine's memory.
        calls: may be about what is dropped.
        listing: the same.
    """

    def __init__(self, state: SessionState, feed: Feed, calls: Calls, listing: Listing) -> None:
        self._state = state
        self._feed = feed
        self._calls = calls
        self._listing = listing

    def dropped(self) -> list[Reaction]:
        """Drop what is too much by now."""
        conversation = self._state.conversation
        reactions: list[Reaction] = []
        while (item := conversation.surplus()) is not None:
            # What an engine would not be told any more it need not be made to forget: it forgets by
            # itself. Nor lists of tools, which are no part of its memory.
            if conversation.is_told(item.id) and not isinstance(item, McpListTools):
                self._feed.outdate()
            reactions += [*self._calls.deleted(item), *self._listing.deleted(item.id)]
            reactions.append(dropped(self._state, item.id))
        return reactions
