"""Many conversations at once with an engine."""

from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest

from model.errors import EngineError
from model.messages import (
    AppendCallOutput,
    AppendText,
    CallArguments,
    CallStarted,
    CommitAudio,
    EndOfTurn,
    Open,
    Output,
    Respond,
    ResponseDone,
    ResponseText,
    Tool,
    Usage,
)
from model.training.evaluation.conversation import (
    MOST_CALLS,
    Answer,
    Conversation,
    Script,
    UserTurn,
    Wave,
    converse,
)

TABLE = {("a",): "reply a", ("a", "b"): "reply a then b", ("b",): "reply b"}


def hold(engine: Any, *scripts: Script, max_parallel: int = 4) -> dict[str, list[Answer]]:
    """Hold the scripts' conversations and give the answers by session."""
    outputs: SimpleQueue[Output] = SimpleQueue()
    engine.start(outputs.put)
    held = converse(engine, outputs, scripts, max_parallel=max_parallel)
    return {script.session_id: answers for script, answers in held}


def spoken(users: Any, text: str) -> UserTurn:
    """Make a spoken user turn."""
    return UserTurn(text, users.speak("ann", text).pcm)


def test_typed_turns_follow_each_other(make_engine: Any) -> None:
    """The second reply depends on both turns; typed text has neither transcript nor audio."""
    script = Script("s", "one", (UserTurn("a"), UserTurn("b")))
    first, second = hold(make_engine(TABLE), script)["s"]
    assert (first.text, second.text) == ("reply a", "reply a then b")
    assert first.transcript is None
    assert not first.audio


def test_spoken_turn_comes_back_whole(
    make_engine: Any, users: Any, read_wave: Callable[[Wave], str]
) -> None:
    """Audio reaches the engine in order and complete, though it is cut into pieces."""
    (answer,) = hold(make_engine(TABLE), Script("s", "one", (spoken(users, "a"),)))["s"]
    assert answer.transcript == "a"
    assert answer.text == "reply a"
    assert read_wave(np.concatenate(answer.audio)) == "reply a"
    assert answer.ends_ms == [210 + 300]


def test_refused_commands_are_offered_again(make_engine: Any, users: Any) -> None:
    """An engine under pressure delays a conversation and never changes it."""
    engine = make_engine(TABLE, refuse_every=3)
    script = Script("s", "one", (spoken(users, "a"), spoken(users, "b")))
    assert [a.text for a in hold(engine, script)["s"]] == ["reply a", "reply a then b"]


@pytest.mark.parametrize("max_parallel", [1, 3])
def test_parallel_sessions_are_bounded(make_engine: Any, max_parallel: int) -> None:
    """No more sessions are open at once than asked for, and every script is held."""
    engine = make_engine(TABLE, max_sessions=8)
    scripts = [Script(f"s{i}", "one", (UserTurn("a"), UserTurn("b"))) for i in range(7)]
    held = hold(engine, *scripts, max_parallel=max_parallel)
    assert set(held) == {f"s{i}" for i in range(7)}
    assert engine.most_open <= max_parallel
    assert not engine.said


def test_lost_session_fails_all_its_remaining_turns(make_engine: Any) -> None:
    """What could not be answered is marked; other conversations go on."""
    engine = make_engine(TABLE, fails="bad")
    two = (UserTurn("a"), UserTurn("b"))
    held = hold(engine, Script("bad", "one", two), Script("good", "one", two))
    assert [a.failure for a in held["bad"]] == ["lost", "lost"]
    assert [a.failure for a in held["good"]] == ["", ""]


def test_silent_engine_is_reported(make_engine: Any) -> None:
    """An engine that never answers ends the evaluation instead of hanging it."""
    outputs: SimpleQueue[Output] = SimpleQueue()
    engine = make_engine(TABLE)
    engine.start(lambda output: isinstance(output, EndOfTurn))
    script = Script("s", "one", (UserTurn("a"),))
    with pytest.raises(EngineError, match=r"said nothing for 0\.05 s while 1 conversation"):
        list(converse(engine, outputs, [script], max_parallel=1, patience_s=0.05))


def test_nothing_to_hold(make_engine: Any) -> None:
    """No scripts, no conversations."""
    assert hold(make_engine(TABLE)) == {}


def test_calls_are_answered_with_the_scripts_results() -> None:
    """Each call gets the next result and a new reply is asked for; the last words are the reply."""
    tool = Tool("set_light", "", "{}")
    turns = (UserTurn("light", None, ('{"error": "try again"}', "ok")),)
    talk = Conversation(Script("s", "one", turns, "be kind", (tool,)), 1)
    opening, *_, asked = talk._waiting
    assert isinstance(opening, Open)
    assert opening.instructions == "be kind"
    assert isinstance(asked, Respond)
    assert asked.tools == (tool,)
    talk._waiting.clear()
    for response, text in enumerate(("wait", "")):
        talk.receive(ResponseText("s", response, text))
        talk.receive(CallStarted("s", response, 0, "set_light"))
        talk.receive(CallArguments("s", response, 0, '{"on":'))
        talk.receive(CallArguments("s", response, 0, "true}"))
        talk.receive(ResponseDone("s", response, "completed", Usage()))
        result, again = talk._waiting
        talk._waiting.clear()
        assert isinstance(result, AppendCallOutput)
        assert result.output == turns[0].results[response]
        assert isinstance(again, Respond)
        assert again.turn == response + 1
    talk.receive(ResponseText("s", 2, "done"))
    talk.receive(ResponseDone("s", 2, "completed", Usage()))
    (answer,) = talk.answers
    assert talk.is_over
    assert (answer.text, answer.firsts) == ("done", ["wait", ""])
    assert answer.calls == [("set_light", '{"on":true}')] * 2


def test_calls_without_end_are_stopped() -> None:
    """A model that calls and calls loses the turn."""
    talk = Conversation(Script("s", "one", (UserTurn("a"),), tools=(Tool("f", "", "{}"),)), 1)
    for response in range(MOST_CALLS + 1):
        assert not talk.is_over
        talk.receive(CallStarted("s", response, 0, "f"))
        talk.receive(ResponseDone("s", response, "completed", Usage()))
    assert talk.is_over
    assert "without end" in talk.answers[0].failure


def test_the_assistant_may_begin() -> None:
    """Nothing is said before the reply is asked for."""
    talk = Conversation(Script("s", "one", (UserTurn(""),)), 1)
    assert [type(command) for command in talk._waiting] == [Open, Respond]


def test_pictures_are_shown_before_a_question_or_with_its_end() -> None:
    """Before it as an item of its own; a camera's with the commit, or within the typed item."""
    picture = (np.zeros((2, 2, 3), np.uint8),)
    pcm = np.zeros(10, np.float32)
    for turn, shown in (
        (UserTurn("a", None, (), picture), [("shown-0", ""), ("user-0", "a")]),
        (UserTurn("a", None, (), picture, is_shown_last=True), [("user-0", "a")]),
        (UserTurn("a", pcm, (), picture), [("shown-0", "")]),
        (UserTurn("a", pcm, (), picture, is_shown_last=True), []),
    ):
        sent = list(Conversation(Script("s", "one", (turn,)), 10)._waiting)
        items = [command for command in sent if isinstance(command, AppendText)]
        assert [(item.item_id, item.text) for item in items] == shown
        assert [c.images for c in sent if isinstance(c, AppendText | CommitAudio) and c.images] == [
            picture
        ]


def test_a_typed_turn_may_be_answered_aloud() -> None:
    """Voices are compared without anybody speaking to them."""
    for turn, audio in ((UserTurn("a"), False), (UserTurn("a", is_answered_aloud=True), True)):
        sent = Conversation(Script("s", "one", (turn,)), 10)._waiting
        assert [command.audio for command in sent if isinstance(command, Respond)] == [audio]
