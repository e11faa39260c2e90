"""Items lie where clients put them."""

import pytest

from server.errors import ClientError
from server.protocol.items.conversation import Conversation
from server.protocol.items.items import FunctionCall, FunctionCallOutput, Message
from server.protocol.items.mcp import McpApprovalRequest, McpCall, McpListTools


def _item(item_id: str) -> Message:
    return Message(item_id, "user", "completed", ())


def _conversation(*item_ids: str, max_items: int = 10) -> Conversation:
    conversation = Conversation(max_items)
    for item_id in item_ids:
        conversation.append(_item(item_id))
    return conversation


def _order(conversation: Conversation) -> list[str]:
    return [item.id for item in conversation]


def _drop(conversation: Conversation) -> list[str]:
    """Drop what is too much, and return what is left."""
    while (item := conversation.surplus()) is not None:
        conversation.remove(item.id)
    return _order(conversation)


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
    """Ids are taken once, and neighbours must exist."""
    conversation = _conversation("a", "b")
    with pytest.raises(ClientError) as caught:
        conversation.insert(_item("c"), "nobody")
    assert caught.value.code == "item_create_invalid_previous_item_id"
    with pytest.raises(ClientError) as caught:
        conversation.check_id("a")
    assert caught.value.code == "item_create_duplicate_item_id"
    with pytest.raises(ClientError) as caught:
        conversation.check_id("c", taken="c")
    assert caught.value.code == "item_create_duplicate_item_id"
    assert _order(conversation) == ["a", "b"]


def test_the_oldest_item_makes_room() -> None:
    """A session goes on for ever; what is being said is never forgotten."""
    conversation = _conversation("a", "b", max_items=2)
    assert conversation.append(_item("c")) == "b"
    assert _drop(conversation) == ["b", "c"]
    assert conversation.insert(_item("d"), "root") is None
    assert _drop(conversation) == ["d", "c"]
    conversation.replace(Message("d", "assistant", "in_progress", ()))
    conversation.append(_item("e"))
    assert _drop(conversation) == ["d", "e"]
    assert "c" not in conversation


def test_what_goes_on_is_dropped_last() -> None:
    """Calls and questions that nobody has answered; never what is being made or listed."""
    conversation = Conversation(4)
    conversation.append(McpListTools("list", "s"))
    conversation.append(McpApprovalRequest("ask", "s", "f", "f", "{}"))
    conversation.append(FunctionCall("call", "completed", "call_1", "f", "{}"))
    conversation.append(FunctionCall("half", "incomplete", "call_2", "f", "{"))
    conversation.append(McpCall("run", "s", "f", "f", "{}"))
    assert _drop(conversation) == ["list", "ask", "call", "run"], "nobody answers half a call"
    conversation.append(FunctionCallOutput("out", "call_1", "f", "7"))
    assert _drop(conversation) == ["list", "ask", "run", "out"]
    assert conversation.going_on == {"list", "ask", "run"}
    conversation.append(_item("a"))
    conversation.append(_item("b"))
    assert _drop(conversation) == ["list", "ask", "run", "b"]
    conversation.append(McpListTools("again", "s"))
    assert _drop(conversation) == ["list", "ask", "run", "again"]
    conversation.append(McpListTools("more", "s"))
    assert _drop(conversation) == ["list", "run", "again", "more"], "the oldest that goes on"


def test_the_latest_items_are_told_again() -> None:
    """What lies further back than any model remembers is not."""
    conversation = _conversation(*(f"item_{i}" for i in range(700)), max_items=1_000)
    assert [item.id for item in conversation.retold] == [f"item_{i}" for i in range(200, 700)]


def test_calls_are_known_by_their_ids() -> None:
    """What a call returned belongs to a function, whose name is the call's."""
    conversation = _conversation("a")
    conversation.append(FunctionCall("b", "in_progress", "call_1", "get_time", ""))
    assert conversation.called_name("call_1") == "get_time"
    assert conversation.called_name("b") is None


def test_texts_are_bounded_together() -> None:
    """The oldest items go until the rest fits; what is deleted or replaced makes room."""
    conversation = Conversation(100, max_chars=100)
    for item_id in "abc":
        conversation.append(FunctionCall(item_id, "completed", item_id, "f", "w" * 39))
    assert _drop(conversation) == ["b", "c"]
    conversation.replace(FunctionCall("c", "completed", "c", "f", "w"))
    conversation.append(FunctionCall("d", "completed", "d", "f", "w" * 39))
    assert _drop(conversation) == ["b", "c", "d"]
    conversation.remove("b")
    conversation.append(FunctionCall("e", "completed", "e", "f", "w" * 39))
    assert _drop(conversation) == ["c", "d", "e"]
    conversation.append(FunctionCall("f", "completed", "f", "f", "w" * 500))
    assert _drop(conversation) == ["f"]
