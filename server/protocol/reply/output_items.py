"""Open and close the items of one response."""

from server.protocol.items.conversation import Conversation
from server.protocol.items.items import Item
from server.protocol.server_events import (
    ItemAdded,
    ItemDone,
    OutputItemAdded,
    OutputItemDone,
    ServerEvent,
)

# Every item of a response is announced twice over, as part of the response and as part of the
# conversation:
#
#     response.output_item.added, conversation.item.added
#     ... its content ...
#     conversation.item.done, response.output_item.done
#
# A response with `conversation: "none"` has the outer pair only.
# Source: Realtime API reference, server events; Realtime guide, "Responses outside of the default
# conversation".


class OutputItems:
    """Hold what a response has made so far.

    Args:
        response_id: of the response.
        conversation: where its items go; None for an out-of-band response, whose items are
            nowhere else and have no `conversation.item.*` events.
    """

    def __init__(self, response_id: str, conversation: Conversation | None) -> None:
        self._response_id = response_id
        self._conversation = conversation
        self._items: dict[str, Item] = {}  # in the order of their indices

    @property
    def items(self) -> tuple[Item, ...]:
        """Return the items as they are now, in the order of their indices."""
        return tuple(self._items.values())

    def index(self, item_id: str) -> int:
        """Return an item's place among the response's items."""
        return list(self._items).index(item_id)

    def opened(self, item: Item) -> list[ServerEvent]:
        """Add an item, in progress."""
        self._items[item.id] = item
        events: list[ServerEvent] = [OutputItemAdded(self._response_id, len(self._items) - 1, item)]
        if self._conversation is not None:
            events.append(ItemAdded(self._conversation.append(item), item))
        return events

    def handed_over(self, item: Item) -> list[ServerEvent]:
        """Let go of an item that will be final in the conversation later than in the response."""
        self._items[item.id] = item
        if self._conversation is not None:
            self._conversation.replace(item)
        return [OutputItemDone(self._response_id, self.index(item.id), item)]

    def closed(self, item: Item) -> list[ServerEvent]:
        """Put an item's final version in its place."""
        handed_over = self.handed_over(item)
        events: list[ServerEvent] = []
        if self._conversation is not None:
            events.append(ItemDone(self._conversation.previous_id(item.id), item))
        return [*events, *handed_over]
