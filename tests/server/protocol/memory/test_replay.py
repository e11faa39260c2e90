"""An engine is told what was said, heard, called and returned, and nothing that was cut short."""

import numpy as np

from model.messages import (
    AppendAudio,
    AppendCall,
    AppendCallOutput,
    AppendText,
    CommitAudio,
    Pcm,
)
from server.protocol.items.items import (
    AudioPart,
    FunctionCall,
    FunctionCallOutput,
    Message,
    Status,
    TextPart,
)
from server.protocol.memory.replay import replayed


def _call(status: Status) -> FunctionCall:
    return FunctionCall("f", status, "call_1", "get_time", "{}")


def test_each_kind_of_item_has_its_command() -> None:
    """Words, calls and what calls returned."""
    said = Message("a", "user", "completed", (TextPart("input_text", "hi \ud800"),))
    assert replayed("s", said) == [AppendText("s", "a", "user", "hi ?")]
    assert replayed("s", _call("completed")) == [AppendCall("s", "f", "get_time", "{}")]
    returned = FunctionCallOutput("o", "call_1", "get_time", "noon")
    assert replayed("s", returned) == [AppendCallOutput("s", "o", "get_time", "noon")]


def test_what_is_not_complete_is_left_out() -> None:
    """A call that was cut short was no call, and a message without words says nothing."""
    assert replayed("s", _call("incomplete")) == []
    assert replayed("s", _call("in_progress")) == []
    assert replayed("s", Message("a", "assistant", "in_progress", ())) == []


def test_what_is_not_transcribed_yet_is_heard_again() -> None:
    """Words are used where they are known, the user's sound where they are not."""
    asked: list[str] = []
    pcm = np.zeros(160, dtype=np.float32)

    def sound_of(item_id: str) -> Pcm | None:
        asked.append(item_id)
        return pcm

    new = Message("a", "user", "completed", (AudioPart("input_audio", None, 10),))
    assert replayed("s", new) == []
    heard, committed = replayed("s", new, sound_of)
    assert isinstance(heard, AppendAudio)
    assert heard.pcm is pcm
    assert committed == CommitAudio("s", "a")
    known = Message("b", "user", "completed", (AudioPart("input_audio", "hello", 10),))
    assert replayed("s", known, sound_of) == [AppendText("s", "b", "user", "hello")]
    assert replayed("s", Message("c", "assistant", "incomplete", ()), sound_of) == []
    assert asked == ["a"]
