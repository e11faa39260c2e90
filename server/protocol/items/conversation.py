"""Hold the conversation: items in order, by id, as clients see them."""

from collections.abc import Iterator, Sequence

from server.config.images import IMAGE_DEFAULTS
from server.config.server import DEFAULTS
from server.errors import ClientError
from server.protocol.items.items import (
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    without_pictures,
)
from server.protocol.items.mcp import (
    McpApprovalRequest,
    McpApprovalResponse,
    McpCall,
    McpListTools,
    McpReturned,
)

# A worked example of places. The conversation is a, b, c.
#
#     insert(d, None)      a b c d      conversation.item.added with previous_item_id "c"
#     insert(d, "root")    d a b c      previous_item_id null
#     insert(d, "a")       a d b c      previous_item_id "a"
#     insert(d, "x")       refused: there is no x
#
# Source: Realtime API reference, client events, conversation.item.create, previous_item_id.
#
# No model remembers more: what lies further back is not told again.
_MAX_RETOLD_ITEMS = 500


class Conversation:
    """Keep the items in order and by id.

    Args:
        max_items: past it the oldest is to be dropped, so that a session may go on for ever: see
            `surplus`.
        max_chars: the same for the characters of all items together.
        max_image_bytes: of their pictures together; past it those of the oldest are forgotten.
    """

    def __init__(
        self,
        max_items: int,
        max_chars: int = DEFAULTS.max_conversation_chars,
        max_image_bytes: int = IMAGE_DEFAULTS.max_kept_bytes,
    ) -> None:
        self._max_items, self._max_chars = max_items, max_chars
        self._max_image_bytes = max_image_bytes
        self._num_chars = self._image_bytes = 0
        self._order: list[str] = []
        self._items: dict[str, Item] = {}
        self._newest_id: str | None = None
        # What calls of MCP tools returned, by the item after which it came.
        self._returned: dict[str, list[McpReturned]] = {}

    def __iter__(self) -> Iterator[Item]:
        """Yield the items in conversation order."""
        return (self._items[item_id] for item_id in self._order)

    def __contains__(self, item_id: object) -> bool:
        """Say whether there is such an item."""
        return item_id in self._items

    def __getitem__(self, item_id: str) -> Item:
        """Return an item that exists."""
        return self._items[item_id]

    @property
    def retold(self) -> Sequence[Item | McpReturned]:
        """Return what an engine that knows nothing is told of the conversation: the latest."""
        told: list[Item | McpReturned] = []
        for item_id in self._order[-_MAX_RETOLD_ITEMS:]:
            told.append(self._items[item_id])
            told += self._returned.get(item_id, ())
        return told

    def returned(self, returned: McpReturned) -> None:
        """Note what a call returned, after everything that is there now."""
        if self._order:
            self._returned.setdefault(self._order[-1], []).append(returned)

    @property
    def last_id(self) -> str | None:
        """Return the id of the last item, None if there is none."""
        return self._order[-1] if self._order else None

    def previous_id(self, item_id: str) -> str | None:
        """Return the id before an item, None for the first."""
        index = self._order.index(item_id)
        return self._order[index - 1] if index else None

    def append(self, item: Item) -> str | None:
        """Add an item at the end and return the id of the one before it."""
        previous = self.last_id
        self._put(len(self._order), item)
        return previous

    def check_id(self, item_id: str, *, taken: str | None = None) -> None:
        """Refuse an id that is taken.

        Args:
            item_id: of the item that is to be added.
            taken: the id of an item that will be added later, if there is one.
        """
        # Source: Realtime API reference, client events, conversation.item.create: ids are unique.
        # An item that is announced and not there yet has its id already.
        if item_id in self._items or item_id == taken:
            raise ClientError(
                "Error adding item: an item with this ID already exists.",
                code="item_create_duplicate_item_id",
                param="item.id",
            )

    def check_pictures(self, item: Item) -> None:
        """Refuse an item whose pictures alone are more than may be kept."""
        if item.image_bytes > self._max_image_bytes:
            raise ClientError(
                f"Error adding item: its images take {item.image_bytes} bytes as the model is "
                f"given them, and a conversation keeps at most {self._max_image_bytes}. Send fewer "
                "or with a lower detail.",
                code="invalid_value",
                param="item.content",
            )

    def insert(self, item: Item, previous_item_id: str | None) -> str | None:
        """Add an item at the end (None), the front ("root") or after another.

        Returns:
            The id of the item before it.
        """
        if previous_item_id is None:
            return self.append(item)
        index = 0
        if previous_item_id != "root":
            if previous_item_id not in self._items:
                raise ClientError(
                    f"Error adding item: the previous item with id '{previous_item_id}' "
                    "does not exist.",
                    code="item_create_invalid_previous_item_id",
                    param="previous_item_id",
                )
            index = self._order.index(previous_item_id) + 1
        previous = self._order[index - 1] if index else None
        self._put(index, item)
        return previous

    def _put(self, index: int, item: Item) -> None:
        self._order.insert(index, item.id)
        self._items[item.id] = item
        self._newest_id = item.id
        self._num_chars += item.num_chars
        self._image_bytes += item.image_bytes
        self._forget_pictures()

    # What is too much.

    @property
    def is_full(self) -> bool:
        """Say whether there is no room for another item."""
        return len(self._order) >= self._max_items or self._num_chars >= self._max_chars

    def surplus(self, num_coming: int = 0) -> Item | None:
        """Return the item that is to be dropped next, because there are too many; else None.

        The oldest goes first, and what goes on last of all. What is still being made or listed is
        never dropped, nor the item that has just come: a client that has seen it added may ask for
        it.

        Args:
            num_coming: items for which there is to be room.
        """
        is_in_bounds = len(self._order) + num_coming <= self._max_items
        if is_in_bounds and self._num_chars <= self._max_chars:
            return None
        movable = [item for item in self if item.id != self._newest_id and not _is_being_made(item)]
        going_on = self.going_on
        ended = (item for item in movable if item.id not in going_on)
        return next(ended, movable[0] if movable else None)

    @property
    def going_on(self) -> set[str]:
        """Return the items that go on: that are made, listed or called, or wait for an answer."""
        ended = {item.call_id for item in self if isinstance(item, FunctionCallOutput)}
        ended |= {
            item.approval_request_id for item in self if isinstance(item, McpApprovalResponse)
        }
        return {item.id for item in self if _goes_on(item, ended)}

    def is_told(self, item_id: str) -> bool:
        """Say whether an item is among what an engine that knows nothing would be told."""
        return item_id in self._order[-_MAX_RETOLD_ITEMS:]

    def _forget_pictures(self) -> None:
        """Forget the oldest pictures, as many as are too many."""
        if self._image_bytes <= self._max_image_bytes:
            return
        for item in [*self]:
            if self._image_bytes <= self._max_image_bytes:
                return
            if isinstance(item, Message) and item.image_bytes:
                self.replace(without_pictures(item))

    def replace(self, item: Item) -> None:
        """Put a newer version of an item in its place."""
        assert item.id in self._items, f"no item {item.id} to replace"
        before = self._items[item.id]
        self._num_chars += item.num_chars - before.num_chars
        self._image_bytes += item.image_bytes - before.image_bytes
        self._items[item.id] = item

    def remove(self, item_id: str) -> None:
        """Take an item out; a call takes its own result along, other results stay."""
        index = self._order.index(item_id)
        moved = self._returned.pop(item_id, [])
        if index:
            self._returned.setdefault(self._order[index - 1], []).extend(moved)
        for place, returned in [*self._returned.items()]:
            self._returned[place] = [each for each in returned if each.id != item_id]
        self._order.remove(item_id)
        item = self._items.pop(item_id)
        self._num_chars -= item.num_chars
        self._image_bytes -= item.image_bytes

    def demand(self, item_id: str, doing: str, verb: str) -> Item:
        """Return an item, or refuse in the API's words: "Error deleting item: …"."""
        if item_id not in self._items:
            raise ClientError(
                f"Error {doing} item: the item with id '{item_id}' does not exist.",
                code=f"item_{verb}_invalid_item_id",
                param="item_id",
            )
        return self._items[item_id]

    def called_name(self, call_id: str) -> str | None:
        """Return the name of the function that a call called, None if there is no such call."""
        for item in self._items.values():
            if isinstance(item, FunctionCall) and item.call_id == call_id:
                return item.name
        return None


def _is_being_made(item: Item) -> bool:
    if isinstance(item, McpListTools):
        return item.is_open
    return isinstance(item, Message | FunctionCall) and item.status == "in_progress"


def _goes_on(item: Item, ended: set[str]) -> bool:
    """Say whether an item goes on.

    Args:
        item: of the conversation.
        ended: calls that have returned something and requests that were answered.
    """
    match item:
        case FunctionCall(status="completed"):
            return item.call_id not in ended
        case McpApprovalRequest():
            return item.id not in ended
        case McpCall():
            return item.is_open
        case _:
            return _is_being_made(item)
