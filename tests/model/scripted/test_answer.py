"""Which reply fits, and what is filled in."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from model.errors import ScriptError
from model.messages import Respond, Tool
from model.schemas.desk import Desk
from model.scripted.answer import Answer, choose
from model.scripted.memory import Called, Item, Memory, Returned, Said, Shown, UserTurn
from model.scripted.script import Script, parse_script
from model.scripted.sight import Seen

PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 6}, "days": {"type": "integer"}},
    "required": ["city"],
}
WEATHER = Tool("weather", "", json.dumps(PARAMETERS))
CALLS = """
reply:
  - when: {user: 'weather in (?P<city>\\w+)'}
    call: {name: weather, arguments: {city: '{city}', days: 2}}
  - say: no calls
"""


def answer(script: str | Script, *items: Item, instructions: str = "", **request: Any) -> Answer:
    """Answer after a conversation."""
    memory = Memory()
    memory.items += items
    parsed = parse_script(script, "s") if isinstance(script, str) else script
    return choose(parsed, memory, Respond("s", 1, "a", **request), instructions, Counter())


def test_first_fitting_reply_is_given() -> None:
    """Patterns are found anywhere, in any case; a reply without conditions always fits."""
    script = "reply: [{when: {user: hello}, say: hi}, {say: what}]"
    assert answer(script, UserTurn("Oh HELLO there")).words == ("hi",)
    assert answer(script, UserTurn("bye")).words == ("what",)
    assert answer(script).words == ("what",)


def test_conditions_hold_together() -> None:
    """One that does not hold is enough against it."""
    script = """
    reply:
      - {when: {user: a, turn: 2, instructions: kind, history: 'user: (?P<x>\\w+)'}, say: 'all {x}'}
      - {say: other}
    """
    turns = UserTurn("b"), UserTurn("a")
    assert answer(script, *turns, instructions="be kind").words == ("all", "b")
    assert answer(script, *turns).words == ("other",)
    assert answer(script, *turns, UserTurn("a"), instructions="be kind").words == ("other",)


def test_placeholders_quote_the_conversation() -> None:
    """Everything that is remembered can be said."""
    script = "reply: [{say: '{turn} {last_user} / {last_reply} / {instructions} / {history}'}]"
    words = answer(script, UserTurn("hi"), Said("a", ["yo"]), UserTurn("bye"), instructions="i")
    assert " ".join(words.words) == "2 bye / yo / i / user: hi; assistant: yo; user: bye"


def test_output_is_answered_before_the_user() -> None:
    """Once a function has returned something, patterns for the user's words do not fit."""
    script = """
    reply:
      - {when: {user: hi}, say: user}
      - {when: {function: g}, say: 'g said {output}'}
      - {when: {output: '(?P<n>\\d+)'}, say: 'number {n}'}
      - {say: other}
    """
    hi = UserTurn("hi"), Called("f", "{}")
    assert answer(script, *hi).words == ("user",)
    assert answer(script, *hi, Returned("f", "12")).words == ("number", "12")
    assert answer(script, *hi, Returned("f", "x")).words == ("other",)
    both = answer(script, *hi, Returned("f", "12"), Returned("g", "y"))
    assert " ".join(both.words) == "g said 12; y"


def test_calls_are_filled_in_and_compact() -> None:
    """Values that are no text stay as they are."""
    made = answer(CALLS, UserTurn("the weather in rome"), tools=(WEATHER,))
    assert made.calls == (("weather", '{"city":"rome","days":2}'),)


@pytest.mark.parametrize("request_", [{}, {"tools": (WEATHER,), "tool_choice": "none"}])
def test_calls_that_may_not_be_made_do_not_fit(request_: dict[str, Any]) -> None:
    """Without the function, or with tool_choice none, the next reply is tried."""
    assert answer(CALLS, UserTurn("the weather in rome"), **request_).words == ("no", "calls")


def test_required_calls_are_made_or_missed_loudly() -> None:
    """Replies without calls do not fit; if none is left, that is an error and not a guess."""
    required: dict[str, Any] = {"tools": (WEATHER,), "tool_choice": "required"}
    assert answer(CALLS, UserTurn("weather in rome"), **required).calls
    with pytest.raises(ScriptError, match="no reply of the script fits 'hi' with tool_choice"):
        answer(CALLS, UserTurn("hi"), **required)


def test_arguments_that_the_function_refuses_name_their_place() -> None:
    """The script, the call, the argument and the reason."""
    (check,) = answer(CALLS, UserTurn("weather in amsterdam"), tools=(WEATHER,)).checks
    misfit = Desk().misfit(check.parameters, check.arguments)
    assert misfit is not None
    assert check.refused(misfit) == (
        "reply[0].call[0]: the function 'weather' does not take arguments['city']: "
        "'amsterdam' is too long"
    )
    assert check.refused("it is late").endswith("does not take arguments: it is late")


def test_replies_can_be_limited() -> None:
    """After so many times the next one fits."""
    script = parse_script("reply: [{at_most: 1, fail: once}, {say: fine}]", "s")
    memory, uses = Memory(), Counter[int]()
    given = [choose(script, memory, Respond("s", 1, "a"), "", uses) for _ in range(3)]
    assert [one.fail for one in given] == ["once", None, None]


def test_pace_of_one_reply() -> None:
    """What it does not give is the script's."""
    script = "{pace: {write_ms: 9}, reply: [{pace: {first_output_ms: 7}}]}"
    pace = answer(script).pace
    assert (pace.first_output_ms, pace.write_ms, pace.words_per_minute) == (7, 9, 150)


RED, BLUE = Shown(0, Seen(640, 480, (220, 30, 30))), Shown(4, Seen(32, 16, (30, 60, 220)))


def test_pictures_can_be_asked_about() -> None:
    """The last one is described; conditions are about those of the last turn."""
    script = """
    reply:
      - when: {image: '(?P<colour>blue|green)'}
        say: '{colour} {image.colour} {image.width} {image.height} {image.rgb}, {images}'
      - {say: 'no {image.colour} {images}'}
    """
    shown = UserTurn("look", shown=(RED, BLUE))
    words = "blue blue 32 16 #1e3cdc, red 640x480; blue 32x16"
    assert " ".join(answer(script, shown).words) == words
    assert answer(script, UserTurn("look", shown=(RED,))).words == ("no", "red", "red", "640x480")
    assert answer(script, shown, UserTurn("and now")).words == ("no", "blue")
    assert answer(script, UserTurn("look")).words == ("no",)
