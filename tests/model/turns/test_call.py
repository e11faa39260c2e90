"""Which function is called, and what the model reads while it calls."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from model.messages import (
    AppendCall,
    AppendCallOutput,
    AppendText,
    CallArguments,
    CallDone,
    CallStarted,
    Cancel,
    Respond,
    ResponseDone,
    ResponseFailed,
    Tool,
    Truncate,
    Usage,
)
from model.turns.steps import Mask
from tests.fakes.writer import WriterHere
from tests.model.turns.conftest import VOCABULARY

MakeStage = Callable[..., Any]  # a test names what its model says
PREFIX = ["<bos>", "<voice0>"]
NAMING = '{"properties": {"name": {"type": "string"}}, "required": ["name"]}'
HI, WHAT_IS, WHAT_NAME, PLAIN = (
    Tool("hi", "", NAMING),
    Tool("what_is", "", "{}"),
    Tool("what_name", "", NAMING),
    Tool("what", "", "{}"),
)


def respond(*tools: Tool, **settings: Any) -> Respond:
    """Return a request for a call of one of these."""
    settings = {"tool_choice": "required", **settings}
    return Respond("s", 1, "a", tools=tools, **settings)


def call(name: str, *arguments: str) -> list[object]:
    """Return the outputs of a complete call."""
    return [
        CallStarted("s", 1, 0, name),
        *(CallArguments("s", 1, 0, text) for text in arguments),
        CallDone("s", 1, 0),
    ]


def test_call_is_written_within_its_schema(stage: MakeStage) -> None:
    """The model says the words; the rest is written for it, and streamed as it comes."""
    s = stage(calls=["hi parley <speak>"])
    s.run(AppendText("s", "u", "user", "what"), respond(HI))
    assert s.made == [
        *call("hi", '{"name":"', "hi", " par", "ley", '"}'),
        ResponseDone("s", 1, "completed", Usage(4, 0, 0, 0, 7, 0)),
    ]
    assert set(s.masks[1:-1]) == {Mask.CALL}


def test_call_without_arguments_needs_no_model(stage: MakeStage) -> None:
    """One function that wants nothing is called at once."""
    s = stage()
    s.send(respond(WHAT_IS))
    assert s.made[:-1] == call("what_is", "{}")
    assert s.outputs[-1].reason == "completed"
    s.run()
    assert s.words() == [*PREFIX, "<reply>", "▁what", "▁is", "<eos>"]
    assert set(s.masks) == {Mask.NOTHING}


@pytest.mark.parametrize(
    ("words", "outputs"),
    [
        ("hi hi <speak>", call("hi", '{"name":"', "hi", '"}')),
        ("what is", call("what_is", "{}")),
        ("what <speak>", call("what", "{}")),
        ("what name i <speak>", call("what_name", '{"name":"', "i", '"}')),
    ],
)
def test_model_chooses_the_function(stage: MakeStage, words: str, outputs: list[object]) -> None:
    """It spells the name as far as names differ, one name beginning like another or not."""
    s = stage(calls=[words])
    s.run(respond(HI, WHAT_IS, WHAT_NAME, PLAIN))
    assert s.made[:-1] == outputs


@pytest.mark.parametrize("choice", ["auto", "none"])
def test_starter_calls_only_if_it_must(stage: MakeStage, choice: str) -> None:
    """It was not taught to call: where words will do, words are what it says."""
    s = stage(replies=["hi"], spoken=["hi"])
    s.run(respond(HI, tool_choice=choice))
    assert "▁hi" in s.words()
    assert not [o for o in s.outputs if isinstance(o, CallStarted)]


def test_call_is_remembered_as_one_replayed(stage: MakeStage) -> None:
    """What the model knows of a call does not depend on who made it."""
    made = stage(calls=["parley <speak>"])
    made.run(AppendText("s", "u", "user", "what"), respond(HI))
    replayed = stage()
    replayed.run(
        AppendText("s", "u", "user", "what"), AppendCall("s", "c", "hi", '{"name":"parley"}')
    )
    assert made.fed == replayed.fed
    assert made.words()[2:] == [
        *["<user>", "▁what"],
        *["<reply>", "▁hi", "▁name", "▁par", "ley", "<eos>"],
    ]


def test_output_of_a_call_is_read_like_a_turn(stage: MakeStage) -> None:
    """What a function returned is there for the next reply, its punctuation left out."""
    s = stage(replies=["hi"])
    s.run(
        AppendCall("s", "c", "what_is", "{}"),
        AppendCallOutput("s", "o", "what_is", '{"name": "parley"}'),
        Respond("s", 1, "a", audio=False),
    )
    assert s.words()[2:] == [
        *["<reply>", "▁what", "▁is", "<eos>"],
        *["<user>", "▁name", "▁par", "ley"],
        *["<reply>", "▁hi", "<eos>"],
    ]


@pytest.mark.parametrize("num_steps", range(5))
def test_cancelled_call_was_never_made(stage: MakeStage, num_steps: int) -> None:
    """Half a call leaves nothing behind, and the conversation goes on."""
    s = stage(calls=["name hi hi hi hi <speak>"], replies=["hi"])
    s.run()
    s.send(respond(WHAT_NAME, WHAT_IS))
    for _ in range(num_steps):
        s.step()
    s.send(Cancel("s", 1))
    assert s.outputs[-1].reason == "cancelled"
    s.run()
    assert s.words() == PREFIX
    s.run(Respond("s", 2, "b", audio=False))
    assert s.words()[2:] == ["<reply>", "▁hi", "<eos>"]


@pytest.mark.parametrize("made_here", [True, False])
def test_call_can_be_taken_back(stage: MakeStage, made_here: bool) -> None:
    """Truncated to nothing, a call was never made."""
    s = stage(calls=["hi <speak>"])
    s.run(respond(HI) if made_here else AppendCall("s", "a", "hi", "{}"), Truncate("s", "a", 0))
    assert s.words() == PREFIX


@pytest.mark.parametrize("tokens", [1, 4, 6])
def test_tokens_run_out(stage: MakeStage, tokens: int) -> None:
    """With its tokens used up, a call is completed in the shortest way."""
    s = stage(calls=["hi hi hi hi hi hi hi"])
    s.run(respond(HI, max_output_tokens=tokens))
    text = "".join(o.text for o in s.outputs if isinstance(o, CallArguments))
    assert text == '{"name":"' + " ".join(["hi"] * max(tokens - 3, 0)) + '"}'
    assert s.outputs[-2:] == [
        CallDone("s", 1, 0),
        ResponseDone("s", 1, "completed", s.outputs[-1].usage),
    ]


def test_endless_call_is_completed(stage: MakeStage) -> None:
    """A call has a longest length without anybody's asking."""
    s = stage(calls=["hi " * 50], max_call_pieces=9)
    s.run(respond(HI))
    assert isinstance(s.outputs[-2], CallDone)
    assert s.outputs[-1].usage.output_text_tokens == 9


def test_call_that_cannot_be_completed_is_left_out(stage: MakeStage) -> None:
    """Where the schema demands more than there is room for, the response says that it ran out."""
    s = stage(calls=["hi " * 9], max_call_pieces=9)
    s.run(respond(Tool("hi", "", NAMING.replace('"string"', '"string", "minLength": 99999'))))
    assert s.outputs[-1].reason == "max_output_tokens"
    assert not [o for o in s.outputs if isinstance(o, CallDone)]
    assert s.words() == PREFIX


def test_schema_that_cannot_be_followed_fails_the_response_alone(stage: MakeStage) -> None:
    """The session goes on after a schema that no gateway has checked."""
    s = stage(replies=["hi"])
    s.run(respond(Tool("hi", "", '{"type": "string"}')))
    (failed,) = s.made
    assert isinstance(failed, ResponseFailed)
    assert "its type must be 'object'" in failed.message
    s.run(Respond("s", 2, "b", audio=False))
    assert s.words()[2:] == ["<reply>", "▁hi", "<eos>"]


def test_session_waits_for_its_arguments_and_goes_on(stage: MakeStage) -> None:
    """They are written elsewhere; meanwhile there is nothing to do, and then it goes on."""
    writer = WriterHere(VOCABULARY, holds=True)
    s = stage(calls=["hi parley <speak>"], writer=writer)
    s.run(AppendText("s", "u", "user", "what"), respond(HI))
    assert s.made == []
    assert not s.program.has_work
    while writer.held:
        writer.release()
        assert s.program.has_work
        s.run()
    assert s.made[:-1] == call("hi", '{"name":"', "hi", " par", "ley", '"}')


def test_call_that_waits_can_be_cancelled(stage: MakeStage) -> None:
    """What comes for it afterwards is nobody's."""
    writer = WriterHere(VOCABULARY, holds=True)
    s = stage(calls=["hi <speak>"], writer=writer)
    s.run(AppendText("s", "u", "user", "what"), respond(HI), Cancel("s", 1))
    writer.release()
    s.run()
    assert s.made == [ResponseDone("s", 1, "cancelled", Usage(4, 0, 0, 0, 0, 0))]
    assert s.words() == [*PREFIX, "<user>", "▁what"]


@pytest.mark.parametrize("forbidden", ["hi", "hi parley"])
def test_what_the_grammar_does_not_hold_is_chosen_anew(stage: MakeStage, forbidden: str) -> None:
    """The last choice is taken back; nothing was told before the whole schema had accepted it."""
    schema = json.dumps(
        {
            "properties": {"name": {"type": "string", "not": {"const": forbidden}}},
            "required": ["name"],
        }
    )
    words = forbidden.replace("parley", "parley ").split()
    s = stage(calls=[f"{forbidden} <speak> {words[0]} <speak>"])
    s.run(AppendText("s", "u", "user", "what"), respond(Tool("hi", "", schema)))
    assert s.made[0] == CallStarted("s", 1, 0, "hi")
    (arguments,) = (o.text for o in s.outputs if isinstance(o, CallArguments))
    assert json.loads(arguments)["name"] != forbidden
    assert s.outputs[-1].reason == "completed"


def test_call_that_never_fits_fails(stage: MakeStage) -> None:
    """With the reason; and the conversation goes on without it."""
    schema = '{"properties": {"name": {"const": "hi", "not": {}}}, "required": ["name"]}'
    s = stage()
    s.run(AppendText("s", "u", "user", "what"), respond(Tool("hi", "", schema)))
    (failed,) = s.made
    assert isinstance(failed, ResponseFailed)
    assert "does not fit the whole schema" in failed.message
    assert s.words() == [*PREFIX, "<user>", "▁what"]


def test_long_constant_is_written_and_not_read(stage: MakeStage) -> None:
    """What the model reads of a call is bounded, far under the steps that are remembered."""
    schema = json.dumps({"properties": {"a": {"const": "what " * 1600}}, "required": ["a"]})
    s = stage(max_history_steps=600, max_item_pieces=100)
    s.run(AppendText("s", "u", "user", "what"), respond(Tool("hi", "", schema)))
    (arguments,) = (o.text for o in s.outputs if isinstance(o, CallArguments))
    assert json.loads(arguments)["a"] == "what " * 1600
    assert s.outputs[-1].reason == "completed"
    assert len(s.words()) < 150
