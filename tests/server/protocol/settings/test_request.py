"""A response is made with the session's settings, and with what a client asks of this one."""

from typing import Any

import pytest

from server.errors import ClientError
from server.protocol.items.conversation import Conversation
from server.protocol.items.items import FunctionCall, FunctionCallOutput, Message, TextPart
from server.protocol.settings.config import AudioFormat
from server.protocol.settings.request import ResponseRequest, parse_request, session_request
from server.protocol.settings.tools import FunctionTool, NamedFunction
from tests.server.fakes import CountingIds
from tests.server.protocol.harness import CONFIG, VOICES

HELLO = Message("a", "user", "completed", (TextPart("input_text", "hello"),))
TOOL = {"type": "function", "name": "get_time"}


def _parse(*, is_voice_locked: bool = False, **raw: Any) -> ResponseRequest:
    conversation = Conversation(10)
    conversation.append(HELLO)
    conversation.append(FunctionCall("f", "completed", "call_1", "get_time", "{}"))
    return parse_request(
        raw,
        CONFIG,
        VOICES,
        conversation,
        CountingIds(),
        is_voice_locked=is_voice_locked,
        max_tools=2,
    )


def _refused(**raw: Any) -> ClientError:
    with pytest.raises(ClientError) as caught:
        _parse(**raw)
    return caught.value


def test_nothing_asked_is_what_the_session_has() -> None:
    """Absent and null are the same here, and unknown keys are let through."""
    assert _parse() == session_request(CONFIG)
    names = ("conversation", "input", "tools", "audio", "metadata", "instructions")
    nothing: dict[str, Any] = dict.fromkeys(names)
    assert _parse(**nothing, commentary="x", prompt=None) == session_request(CONFIG)
    assert not _parse().is_aside


def test_each_setting_can_be_another() -> None:
    """All of the request's overrides at once."""
    request = _parse(
        output_modalities=["text"],
        instructions="Be brief.",
        audio={"output": {"voice": "echo", "format": {"type": "audio/pcmu"}}},
        tools=[TOOL],
        tool_choice={"type": "function", "name": "get_time"},
        max_output_tokens=7,
        conversation="none",
        metadata={"topic": "x"},
        input=[],
    )
    assert request == ResponseRequest(
        "text",
        "echo",
        AudioFormat("audio/pcmu"),
        7,
        tools=(FunctionTool("get_time"),),
        tool_choice=NamedFunction("get_time"),
        instructions="Be brief.",
        destination="none",
        input=(),
        metadata={"topic": "x"},
    )
    assert request.is_aside
    assert _parse(input=[]).is_aside


def test_its_input_is_items_and_references() -> None:
    """A reference stands for the item; what a call returned names a call of either place."""
    request = _parse(
        input=[
            {"type": "item_reference", "id": "a"},
            {"type": "function_call", "call_id": "mine", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "mine", "output": "x"},
            {"type": "function_call_output", "call_id": "call_1", "output": "y"},
        ]
    )
    assert request.input == (
        HELLO,
        FunctionCall("item_1", "completed", "mine", "f", "{}"),
        FunctionCallOutput("item_2", "mine", "f", "x"),
        FunctionCallOutput("item_3", "call_1", "get_time", "y"),
    )


@pytest.mark.parametrize(
    ("raw", "code", "param"),
    [
        ({"conversation": "bogus"}, "invalid_value", "response.conversation"),
        ({"output_modalities": ["text", "audio"]}, "invalid_value", "response.output_modalities"),
        ({"max_output_tokens": 0}, "integer_below_min_value", "response.max_output_tokens"),
        ({"input": "x"}, "invalid_type", "response.input"),
        ({"input": [7]}, "invalid_type", "response.input[0]"),
        ({"input": [{}]}, "missing_required_parameter", "response.input[0].type"),
        (
            {"input": [{"type": "item_reference", "id": "b"}]},
            "invalid_value",
            "response.input[0].id",
        ),
        (
            {"input": [{"type": "item_reference"}]},
            "missing_required_parameter",
            "response.input[0].id",
        ),
        (
            {
                "input": [
                    {
                        "type": "message",
                        "role": "user",
                        "content": [{"type": "input_audio", "audio": "AAAA"}],
                    }
                ]
            },
            "unsupported_parameter",
            "response.input[0].content[0].audio",
        ),
        ({"tools": {}}, "invalid_type", "response.tools"),
        (
            {"tool_choice": {"type": "function", "name": "f"}},
            "invalid_value",
            "response.tool_choice",
        ),
        ({"audio": {"output": {"voice": "x"}}}, "invalid_value", "response.audio.output.voice"),
        ({"metadata": {"a": 1}}, "invalid_type", "response.metadata.a"),
        ({"metadata": {"a": "x" * 513}}, "string_above_max_length", "response.metadata.a"),
        ({"metadata": {"a" * 65: "x"}}, "string_above_max_length", "response.metadata"),
        (
            {"metadata": {str(n): "x" for n in range(17)}},
            "object_above_max_properties",
            "response.metadata",
        ),
    ],
)
def test_what_is_wrong_is_named(raw: dict[str, Any], code: str, param: str) -> None:
    """With the path of the parameter, as the client wrote it."""
    error = _refused(**raw)
    assert (error.code, error.param) == (code, param)


def test_the_voice_stays_once_it_was_heard() -> None:
    """The same voice is no change."""
    assert _parse(is_voice_locked=True, audio={"output": {"voice": "alloy"}}).voice == "alloy"
    with pytest.raises(ClientError) as caught:
        _parse(is_voice_locked=True, audio={"output": {"voice": "echo"}})
    assert caught.value.code == "cannot_update_voice"
