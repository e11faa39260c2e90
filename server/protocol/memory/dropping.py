"""Take items out of a conversation."""

from server.protocol.server_events import ItemDeleted
from server.protocol.state import SessionState


def dropped(state: SessionState, item_id: str) -> ItemDeleted:
    """Take an item and its sound out of the conversation, and return what clients are told.

    Args:
        state: of the session.
        item_id: of an item that is there.
    """
    # Source: Realtime API reference, server events, conversation.item.deleted. The API has no event
    # for what a server drops by itself; this one says what is true of it, and clients know it.
    state.conversation.remove(item_id)
    state.recordings.forget(item_id)
    return ItemDeleted(item_id)
