"""Words of the user in what clients send."""

from typing import Any

import pytest

from server.protocol.wire.client_events import ItemCreate, ResponseCreate
from server.protocol.wire.words import CarriedWords, carried_words, with_words

_USER = {
    "type": "message",
    "role": "user",
    "content": [
        {"type": "input_audio", "audio": "AAAA", "transcript": "said"},
        {"type": "input_text", "text": "typed"},
        {"type": "input_audio", "audio": "AAAA"},
        {"type": "input_image", "image_url": "data:"},
    ],
}
_OTHERS: list[dict[str, Any]] = [
    {**_USER, "role": "system"},
    {"role": "assistant", "content": [{"type": "output_text", "text": "x"}]},
    {"type": "function_call_output", "call_id": "c", "output": "x"},
]


def test_only_the_users_words_are_found_and_changed() -> None:
    """In an item, and in those that a response is given."""
    event = ItemCreate(None, _USER, None)
    assert carried_words(event) == [
        CarriedWords("item.content[0].transcript", "said"),
        CarriedWords("item.content[1].text", "typed"),
    ]
    changed = with_words(event, {"item.content[1].text": "t***d"})
    assert [each.text for each in carried_words(changed)] == ["said", "t***d"]
    assert [each.text for each in carried_words(event)] == ["said", "typed"]
    asked = ResponseCreate(None, {"input": [*_OTHERS, {"type": "item_reference"}, _USER]})
    paths = [each.path for each in carried_words(asked)]
    assert paths == ["response.input[4].content[0].transcript", "response.input[4].content[1].text"]
    again = with_words(asked, {paths[0]: "****"})
    assert [each.text for each in carried_words(again)] == ["****", "typed"]


@pytest.mark.parametrize(
    "item",
    [
        {},
        {"role": "user"},
        {"role": "user", "content": "text"},
        {"role": ["user"], "content": [{"type": "input_text", "text": "x"}]},
        {"role": "user", "content": [None, "x", {"type": ["input_text"]}, {"type": "input_text"}]},
        {"role": "user", "content": [{"type": "input_text", "text": 7}]},
    ],
)
def test_whatever_is_sent_is_read_without_trouble(item: dict[str, Any]) -> None:
    """What is wrong with it is said by whoever takes it."""
    assert carried_words(ItemCreate(None, item, None)) == []
    for given in (item, [item], [[item]], None):
        assert carried_words(ResponseCreate(None, {"input": given})) == []
