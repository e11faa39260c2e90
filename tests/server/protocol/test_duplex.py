"""A model that takes no turns, and clients that do anything at any time."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.server.protocol.transcripts import Player

Line = dict[str, Any]
_USAGE = {"output_text_tokens": 1, "output_audio_tokens": 1}


def _client(kind: str, **fields: Any) -> Line:
    return {"client": {"type": kind, **fields}}


def _update(**audio_input: Any) -> Line:
    session = {"type": "realtime", "audio": {"input": audio_input}}
    return _client("session.update", session=session)


CLIENT: dict[str, Line] = {
    "create": _client("response.create"),
    "create text": _client("response.create", response={"output_modalities": ["text"]}),
    "cancel": _client("response.cancel"),
    "commit": _client("input_audio_buffer.commit"),
    "clear": _client("input_audio_buffer.clear"),
    "by hand": _update(turn_detection=None),
    "detected": _update(turn_detection={"type": "server_vad"}),
    "prompt": _client("session.update", session={"type": "realtime", "instructions": "Be kind."}),
    "write": _client(
        "conversation.item.create",
        item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}]},
    ),
}
HEARD: dict[str, Line] = {
    "audio": {"heard": {"audio_ms": 300}},
    "began": {"heard": {"began_ms": 0}},
    "paused": {"heard": {"paused": True}},
}
ACTIONS = [*CLIENT, *HEARD, "ended", "word", "sound", "done", "truncate", "delete", "lost"]


@dataclass
class World:
    """Plays an engine that speaks when it wants to, and watches what the client is told."""

    player: Player = field(default_factory=lambda: Player(is_duplex=True))
    turn: int | None = None  # that the engine was asked for and has not ended
    is_standing: bool = False
    is_talking: bool = False
    is_speech: bool = False
    num_losses: int = 0
    open_responses: list[str] = field(default_factory=list)
    order: list[str] = field(default_factory=list)
    last_said: str | None = None

    def start(self) -> None:
        """Open the session."""
        self._see(self.player.start())

    def act(self, action: str) -> None:
        """Do one thing, as far as it is possible now."""
        engine = {"began": not self.is_speech, "ended": self.is_speech}
        if not engine.get(action, True):
            return
        match action:
            case "began":
                self.is_speech = True
            case "ended":
                self.is_speech = False
                self._play({"heard": {"ended_ms": 600}})
                return
            case "clear" | "commit" | "by hand":
                self.is_speech = False
            case "word" | "sound" | "done":
                self._talk(action)
                return
            case "truncate" | "delete":
                if self.last_said is None:
                    return
                extra = {"content_index": 0, "audio_end_ms": 0} if action == "truncate" else {}
                kind = f"conversation.item.{action}"
                self._play(_client(kind, item_id=self.last_said, **extra))
                return
            case "lost":
                self.num_losses += 1
                if self.num_losses <= 3:
                    self.is_talking = False
                    self._play({"engine": {"type": "SessionFailed", "message": "gone"}})
                return
        self._play({**CLIENT, **HEARD}[action])

    def end(self) -> None:
        """Let the model fall silent; whatever was begun must have ended then."""
        self._talk("done")
        if not self.is_standing:  # nothing to say to what was asked for
            self._play(self._output("ResponseDone", reason="completed", usage={}))
        assert not self.open_responses
        assert self.is_standing, "the model's next words are asked for"

    def _talk(self, action: str) -> None:
        assert self.turn is not None, "the model's words are asked for at any time"
        if action == "done":
            if self.is_talking:
                self.is_talking = False
                self._play(self._output("ResponseDone", reason="completed", usage=_USAGE))
            return
        self.is_talking = True
        if action == "word":
            self._play(self._output("ResponseText", text=" word"))
        else:
            self._play(self._output("ResponseAudio", audio_ms=80))

    def _output(self, kind: str, **fields: Any) -> Line:
        return {"engine": {"type": kind, "turn": self.turn, **fields}}

    def _play(self, line: Line) -> None:
        self._see(self.player.play(line))

    def _see(self, results: list[Line]) -> None:
        for result in results:
            assert "hangup" not in result
            if "command" in result:
                self._command(result["command"])
            else:
                self._event(result["server"])

    def _command(self, command: Line) -> None:
        match command["type"]:
            case "Respond":
                is_standing = bool(command.get("is_standing"))
                if command["turn"] != self.turn:
                    assert not self.is_talking, "nothing new while a response is made"
                    assert self.turn is None or command["turn"] == self.turn + 1
                assert is_standing or command["turn"] == self.turn, "the standing one is asked for"
                self.turn, self.is_standing = command["turn"], is_standing
            case "Cancel":
                assert command["turn"] == self.turn
                self.is_talking = False
            case "AppendText" | "Reopen":
                raise AssertionError(command)
            case _:
                pass

    def _event(self, event: Line) -> None:
        match event["type"]:
            case "response.created":
                self.open_responses.append(event["response"]["id"])
                assert len(self.open_responses) == 1
            case "response.done":
                self.open_responses.remove(event["response"]["id"])
            case "conversation.item.added":
                after = event["previous_item_id"]
                self.order.insert(self.order.index(after) + 1 if after else 0, event["item"]["id"])
                if event["item"]["role"] == "assistant":
                    self.last_said = event["item"]["id"]
            case "conversation.item.deleted":
                self.order.remove(event["item_id"])
                self.last_said = None
            case kind if kind.startswith("response.output"):
                assert event["response_id"] in self.open_responses
            case _:
                pass


@settings(max_examples=60, deadline=None)
@given(actions=st.lists(st.sampled_from(ACTIONS), max_size=25))
def test_whatever_happens(actions: list[str]) -> None:
    """One response at a time, each with an end, and always one that stands; items in order."""
    world = World()
    world.start()
    for action in actions:
        world.act(action)
    world.end()
    items = [item.id for item in world.player.machine._state.conversation]
    assert world.order == items


@pytest.mark.parametrize("action", ["word", "sound"])
def test_a_response_begins_with_the_first_output(action: str) -> None:
    """Whatever it is, and not before."""
    world = World()
    world.start()
    world.act("audio")
    assert not world.open_responses
    world.act(action)
    assert world.open_responses
    world.act("done")
    assert not world.open_responses
