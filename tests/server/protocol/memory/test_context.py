"""A conversation within a number of tokens: what is dropped, and what is said of it."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.protocol.machine import Limits
from server.protocol.mcp.policy import ToolPolicy
from tests.server.protocol.lines import client
from tests.server.protocol.transcripts import Player, new_machine

Line = dict[str, Any]
ASK = client("response.create")


def _typed(item_id: str, text: str = "x", role: str = "user") -> Line:
    kind = "output_text" if role == "assistant" else "input_text"
    content = [{"type": kind, "text": text}]
    item = {"type": "message", "role": role, "id": item_id, "content": content}
    return client("conversation.item.create", item=item)


def _call_item(call_id: str) -> Line:
    item = {"type": "function_call", "name": "f", "call_id": call_id, "arguments": "{}"}
    return client("conversation.item.create", item=item)


def _truncation(value: Any) -> Line:
    return client("session.update", session={"type": "realtime", "truncation": value})


def _ratio(ratio: float, most: int | None) -> Line:
    limits = None if most is None else {"post_instructions": most}
    value = {"type": "retention_ratio", "retention_ratio": ratio, "token_limits": limits}
    return _truncation(value)


class _Talk:
    """A session in text, whose engine counts what the test says."""

    def __init__(self, truncation: Line | None = None, **limits: Any) -> None:
        self.player = Player()
        self.player.machine = new_machine(limits=Limits(**limits), output_modality="text")
        self.player.start()
        self.turn = 0
        self.told: list[Line] = []
        if truncation is not None:
            self.play(truncation)

    def play(self, line: Line) -> list[Line]:
        """Play a line, and return what comes out."""
        out = self.player.play(line)
        self.told += out
        for each in out:
            if each.get("command", {}).get("type") == "Respond":
                self.turn = each["command"]["turn"]
        return out

    def engine(self, kind: str, **values: Any) -> list[Line]:
        """Let the engine put something out of the newest response."""
        return self.play({"engine": {"type": kind, "turn": self.turn, **values}})

    def answer(self, num_tokens: int, text: str = "y", **started: Any) -> list[Line]:
        """Ask for a response that is based on so many tokens."""
        out = self.play(ASK)
        self.engine("ResponseStarted", usage={"input_text_tokens": num_tokens}, **started)
        self.engine("ResponseText", text=text)
        self.engine("ResponseDone", reason="completed", usage={})
        return out

    @property
    def items(self) -> list[str]:
        """Return the conversation's items."""
        return [item.id for item in self.player.machine._state.conversation]


def _deleted(lines: list[Line]) -> list[str]:
    events = [line["server"] for line in lines if "server" in line]
    return [e["item_id"] for e in events if e["type"] == "conversation.item.deleted"]


def _commands(lines: list[Line]) -> list[str]:
    return [line["command"]["type"] for line in lines if "command" in line]


def test_the_oldest_are_dropped_down_to_what_is_retained() -> None:
    """At the borders of items; the engine is told the rest anew, before the response."""
    talk = _Talk(_ratio(0.4, 100))
    talk.play(_typed("a"))
    assert not _deleted(talk.answer(58))
    talk.play(_typed("b"))
    assert not _deleted(talk.answer(90))
    talk.play(_typed("c", "x" * 60))
    first, second = talk.items[1], talk.items[3]
    out = talk.answer(40)
    assert _deleted(out) == ["a", first], "90 and 16 are too many; 58 and 16 go"
    assert _commands(out) == ["Close", "Open", "AppendText", "AppendText", "AppendText", "Respond"]
    kinds = [line["server"]["type"] for line in out if "server" in line]
    assert kinds[2:] == ["response.created"]
    assert talk.items[:3] == ["b", second, "c"]
    talk.play(client("conversation.item.retrieve", item_id="a"))
    assert talk.told[-1]["server"]["error"]["code"] == "item_retrieve_invalid_item_id"


def test_auto_drops_no_more_than_it_must() -> None:
    """The server's own limit holds; instructions and functions are no part of it."""
    talk = _Talk(max_context_tokens=20)
    talk.play(_typed("a"))
    talk.answer(1_009, prefix_tokens=1_000)
    talk.play(_typed("b"))
    talk.answer(1_020, prefix_tokens=1_000)
    talk.play(_typed("c"))
    assert _deleted(talk.answer(13)) == ["a"]


def test_disabled_fails_the_response() -> None:
    """Nothing is dropped, the engine is not asked, and a client that deletes items goes on."""
    talk = _Talk(_truncation("disabled"), max_context_tokens=20)
    talk.play(_typed("a"))
    talk.answer(20)
    talk.play(_typed("b"))
    created, done, *_ = (line["server"] for line in talk.play(ASK) if "server" in line)
    assert created["type"] == "response.created"
    response = done["response"]
    assert response["status"] == "failed"
    error = response["status_details"]["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "context_length_exceeded")
    assert response["usage"]["total_tokens"] == 0
    assert _commands(talk.told)[-1] != "Respond"
    talk.play(client("conversation.item.delete", item_id="a"))
    assert "Respond" in _commands(talk.answer(4))


def test_a_longer_limit_than_the_servers_is_the_servers() -> None:
    """And a ratio without a limit goes by it as well."""
    for truncation in (_ratio(0.5, 1_000), _ratio(0.5, None)):
        talk = _Talk(truncation, max_context_tokens=20)
        talk.play(_typed("a"))
        talk.answer(20)
        talk.play(_typed("b"))
        assert _deleted(talk.answer(3)) == ["a"]


def test_what_goes_on_and_what_is_to_be_answered_stays() -> None:
    """A call that has not returned anything, and the user's last words, however long they are."""
    tool = {"type": "function", "name": "f"}
    talk = _Talk(_ratio(0.0, 1))
    talk.play(client("session.update", session={"type": "realtime", "tools": [tool]}))
    talk.play(_typed("a"))
    talk.play(ASK)
    talk.engine("CallStarted", call=0, name="f")
    talk.engine("CallDone", call=0)
    talk.engine("ResponseDone", reason="completed", usage={})
    call_id = talk.player.machine._state.conversation[talk.items[1]]
    talk.play(_typed("b", "long " * 40))
    assert _deleted(talk.answer(50)) == ["a"]
    assert talk.items[:2] == [call_id.id, "b"]
    output = {"type": "function_call_output", "call_id": "call_1", "output": "7"}
    talk.play(client("conversation.item.create", item=output))
    talk.play(_typed("c"))
    told = _deleted(talk.answer(9))
    assert call_id.id in told
    assert "b" in told
    assert talk.items[0] == "c"


def test_room_is_made_before_a_spoken_turn_is_committed() -> None:
    """The model must not answer from what is dropped; an early reply no more than another."""
    for ending in ({"heard": {"paused": True}}, {"heard": {"ended_ms": 900}}):
        talk = _Talk(_ratio(0.5, 30))
        talk.play(_typed("a"))
        talk.answer(29)
        talk.play({"heard": {"began_ms": 0}})
        talk.play({"heard": {"audio_ms": 1_000}})
        out = talk.play(ending)
        assert _deleted(out)[0] == "a"
        commands = _commands(out)
        assert (
            commands.index("Open") < commands.index("AppendAudio") < commands.index("CommitAudio")
        )
        assert commands[-1] == "Respond"


def test_no_early_reply_where_none_may_be_made() -> None:
    """It would be taken back in any case."""
    talk = _Talk(_truncation("disabled"), max_context_tokens=30)
    talk.play(_typed("a"))
    talk.answer(29)
    talk.play({"heard": {"began_ms": 0}})
    talk.play({"heard": {"audio_ms": 1_000}})
    assert talk.play({"heard": {"paused": True}}) == []
    out = talk.play({"heard": {"ended_ms": 900}})
    done = [line["server"] for line in out if line.get("server", {}).get("type") == "response.done"]
    assert done[0]["response"]["status_details"]["error"]["code"] == "context_length_exceeded"


def _aside(given: list[Line] | None, conversation: str = "none") -> Line:
    return client("response.create", response={"conversation": conversation, "input": given})


def _texts(lines: list[Line]) -> list[str]:
    """Return what a memory of a response's own is told."""
    commands = [line["command"] for line in lines if "command" in line]
    own = [command for command in commands if "session_id" in command]
    return [command["text"] for command in own if command["type"] == "AppendText"]


def _words(text: str, role: str = "user") -> Line:
    kind = "output_text" if role == "assistant" else "input_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}


@pytest.mark.parametrize("conversation", ["none", "auto"])
def test_of_an_input_of_its_own_the_oldest_is_left_out(conversation: str) -> None:
    """At the borders of items, and not what is asked; the conversation keeps all it has."""
    talk = _Talk(_ratio(0.5, 10))
    talk.play(_typed("a"))
    talk.answer(7)
    reference = {"type": "item_reference", "id": "a"}
    given = [reference, _words("one" * 4, "assistant"), _words("two"), _words("more", "assistant")]
    out = talk.play(_aside(given, conversation))
    assert not _deleted(out)
    assert _texts(out) == ["one" * 4, "two", "more"], "7, 3, 1 and 1 are 12; 5 may be left"
    assert "a" in talk.items
    assert _texts(talk.play(_aside(given[1:]))) == ["one" * 4, "two", "more"], "these fit"
    assert _texts(talk.play(_aside([_words("long " * 40)]))) == ["long " * 40], "it is asked"


@pytest.mark.parametrize("conversation", ["none", "auto"])
def test_disabled_fails_a_response_of_its_own_input(conversation: str) -> None:
    """Before anything is made of it; in the conversation the next one can be asked for."""
    talk = _Talk(_truncation("disabled"), max_context_tokens=10)
    out = talk.play(_aside([_words("long " * 40), _words("two")], conversation))
    done = next(line["server"] for line in out if line["server"]["type"] == "response.done")
    assert done["response"]["status_details"]["error"]["code"] == "context_length_exceeded"
    assert not _commands(out)
    assert _commands(talk.play(_aside([_words("two")], conversation)))[-1] == "Respond"


def test_out_of_band_on_the_conversation_the_same_holds() -> None:
    """What is dropped is the conversation's, and the model is told both anew."""
    talk = _Talk(_ratio(0.5, 10))
    talk.play(_typed("a"))
    talk.answer(10)
    talk.play(_typed("b"))
    out = talk.play(_aside(None))
    assert "a" in _deleted(out)
    assert _texts(out) == ["y", "x"]
    assert _commands(out)[:3] == ["Close", "Open", "AppendText"]


def test_what_is_more_than_the_server_keeps_is_told() -> None:
    """One after the other, as it comes; the model is told the rest before it hears more of it."""
    talk = _Talk(max_items=4)
    for item_id in "abcd":
        assert not _deleted(talk.play(_typed(item_id)))
    assert _deleted(talk.play(_typed("e"))) == ["a"]
    out = talk.answer(3)
    assert _deleted(out) == ["b", "c"], "there is room for a turn"
    assert _commands(out) == ["Close", "Open", "AppendText", "AppendText", "Respond"]
    assert talk.items[:2] == ["d", "e"]
    kinds = [line["server"]["type"] for line in out if "server" in line]
    assert kinds[2:] == ["response.created"]


def test_what_no_model_remembers_is_dropped_without_a_word_to_it() -> None:
    """An engine that knows nothing would be told the latest 500 items, and no others."""
    talk = _Talk(max_items=600)
    for number in range(600):
        talk.play(_typed(f"i{number}"))
    out = talk.play(_typed("last"))
    assert _deleted(out) == ["i0"]
    assert _commands(out) == ["AppendText"]
    assert _commands(talk.answer(3)) == ["Respond"]


def test_disabled_drops_nothing_for_a_response() -> None:
    """Where there is no room for its reply it fails; what the user adds is kept all the same."""
    talk = _Talk(_truncation("disabled"), max_items=3)
    for item_id in "ab":
        talk.play(_typed(item_id))
    assert not _deleted(talk.answer(2))
    out = talk.play(ASK)
    done = next(line["server"] for line in out if line["server"]["type"] == "response.done")
    assert done["response"]["status_details"]["error"]["code"] == "context_length_exceeded"
    assert not _deleted(out)
    assert _deleted(talk.play(_typed("c"))) == ["a"], "of what the server cannot hold it says so"


def test_a_call_that_is_dropped_is_given_up() -> None:
    """When nothing else is left to go: its server is not waited for, and the log has its end."""
    talk = _Talk(max_items=2, policy=ToolPolicy(wait_for_calls=True))
    server = {"type": "mcp", "server_label": "s", "require_approval": "never"}
    talk.play(client("session.update", session={"type": "realtime", "tools": [server]}))
    tools = [{"name": "look", "input_schema": {"type": "object"}}]
    talk.play({"tool": {"type": "ToolsListed", "item_id": "mcpl_1", "tools": tools}})
    talk.play(ASK)
    for number in range(2):
        talk.engine("CallStarted", call=number, name="look")
        talk.engine("CallDone", call=number)
    out = talk.engine("ResponseDone", reason="completed", usage={})
    assert not _deleted(out)
    assert talk.items == ["mcp_1", "mcp_2"], "the list of tools has gone"
    outcome = {"type": "ToolReturned", "item_id": "mcp_2", "output": "soon"}
    talk.play({"tool": outcome})
    assert not talk.play(ASK), "it waits for the other call"
    out = talk.play(_typed("a"))
    assert _deleted(out) == ["mcp_2"], "it has ended"
    out = talk.play(_typed("b"))
    assert _deleted(out) == ["a"]
    talk.play(_call_item("c"))
    out = talk.play(_call_item("d"))
    assert _deleted(out)[0] == "mcp_1"
    assert _commands(out)[-1] == "Respond", "nothing is waited for any more"
    asked = [line["asked"] for line in out if "asked" in line]
    assert [each["type"] for each in asked] == ["DropTool", "Decision"]
    assert asked[1]["what"] == "dropped"
    outcome = {"type": "ToolReturned", "item_id": "mcp_1", "output": "late"}
    assert not talk.play({"tool": outcome})


def test_a_duplex_model_drops_by_itself() -> None:
    """Its memory is a window; what a client asks for instead is shown as it is."""
    player = Player(is_duplex=True, max_items=2)
    player.start()
    (updated,) = [
        line["server"] for line in player.play(_truncation("disabled")) if "server" in line
    ]
    assert updated["session"]["truncation"] == "auto"
    for number in range(3):
        player.play({"heard": {"began_ms": 1_000 * number}})
        player.play({"heard": {"audio_ms": 1_000}})
        out = player.play({"heard": {"ended_ms": 1_000 * number + 900}})
    assert _deleted(out) == ["item_2"]
    assert [item.id for item in player.machine._state.conversation] == ["item_3", "item_4"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 60), max_size=12), st.floats(0, 1), st.integers(1, 60))
def test_shares_add_up_to_what_was_counted(counts: list[int], ratio: float, most: int) -> None:
    """Whatever the engine counts: no token is lost, and no more is dropped than is there."""
    talk = _Talk(_ratio(ratio, most))
    for number, count in enumerate(counts):
        talk.play(_typed(f"user_{number}"))
        talk.play(ASK)
        assert f"user_{number}" in talk.items
        talk.engine("ResponseStarted", usage={"input_text_tokens": count})
        context = talk.player.machine._responses._context  # type: ignore[attr-defined]
        assert sum(context._tokens.values()) == count
        assert set(context._tokens) <= set(talk.items)
        talk.engine("ResponseDone", reason="completed", usage={})
