"""Items lie where clients put them."""

import pytest

from server.errors import ClientError
from server.protocol.conversation import Conversation
from server.protocol.items import FunctionCall, Message


def _item(item_id: str) -> Message:
    return Message(item_id, "user", "completed", ())


def _conversation(*item_ids: str, max_items: int = 10) -> Conversation:
    conversation = Conversation(max_items)
    for item_id in item_ids:
        conversation.append(_item(item_id))
    return conversation


def _order(conversation: Conversation) -> list[str]:
    return [item.id for item in conversation]


def test_items_are_put_at_the_end_the_front_or_between() -> None:
    """`previous_item_id` absent, "root" and another id."""
    conversation = _conversation("a")
    assert conversation.insert(_item("b"), None) == "a"
    assert conversation.insert(_item("c"), "root") is None
    assert conversation.insert(_item("d"), "a") == "a"
    assert _order(conversation) == ["c", "a", "d", "b"]
    assert conversation.previous_id("c") is None
    assert conversation.previous_id("b") == "d"
    assert conversation.last_id == "b"
    conversation.remove("b")
    assert conversation.last_id == "d"
    assert "b" not in conversation


def test_what_cannot_be_put_changes_nothing() -> None:
    """Ids are taken once, neighbours must exist, and there is a limit."""
    conversation = _conversation("a", "b", max_items=2)
    with pytest.raises(ClientError) as caught:
        conversation.insert(_item("c"), "nobody")
    assert caught.value.code == "item_create_invalid_previous_item_id"
    with pytest.raises(ClientError) as caught:
        conversation.check_room("a")
    assert caught.value.code == "item_create_duplicate_item_id"
    with pytest.raises(ClientError) as caught:
        conversation.check_room("c", taken="c")
    assert caught.value.code == "item_create_duplicate_item_id"
    with pytest.raises(ClientError) as caught:
        conversation.check_room("c")
    assert caught.value.code == "conversation_item_limit_reached"
    assert _order(conversation) == ["a", "b"]


def test_calls_are_known_by_their_ids() -> None:
    """What a call returned belongs to a function, whose name is the call's."""
    conversation = _conversation("a")
    conversation.append(FunctionCall("b", "in_progress", "call_1", "get_time", ""))
    assert conversation.called_name("call_1") == "get_time"
    assert conversation.called_name("b") is None
