"""Instructions, functions and calls in the pieces of a model that speaks."""

import json

import pytest

from model.messages import Tool
from model.prompts import (
    MAX_INSTRUCTION_PIECES,
    call_pieces,
    plain_words,
    prompt_pieces,
    result_text,
    tool_pieces,
)
from model.text import Special

_WORDS: dict[str, int] = {}


def encode(text: str) -> list[int]:
    """Give every new word the next number."""
    return [_WORDS.setdefault(word, 100 + len(_WORDS)) for word in text.split()]


def decode(pieces: list[int]) -> str:
    """Read pieces: a special one by its name, a word as it is."""
    words = {number: word for word, number in _WORDS.items()}
    return " ".join(
        f"<{Special(piece).name.lower()}>" if piece < 100 else words[piece] for piece in pieces
    )


TIMER = Tool(
    "setTimer",
    "sets a timer",
    json.dumps(
        {
            "type": "object",
            "properties": {
                "minutes": {"type": "integer"},
                "room_name": {"type": "string"},
                "state": {"enum": ["on", "off"]},
                "loud": {"type": "boolean"},
                "note": {"type": "string"},
            },
            "required": ["minutes", "room_name", "state", "loud"],
        }
    ),
)


@pytest.mark.parametrize(
    ("name", "words"),
    [("get_weather", "get weather"), ("getWeather", "get weather"), ("a-b.C2", "a b c two")],
)
def test_names_become_words(name: str, words: str) -> None:
    """Whatever way programmers join them."""
    assert plain_words(name) == words


def test_function_in_words() -> None:
    """Name, what a call has to give and of what type, what it is for."""
    assert decode(tool_pieces(TIMER, encode)) == (
        "<tool> set timer <speak> minutes number <speak> room name <speak> state on off <speak> "
        "loud yes no <speak> sets a timer"
    )


def test_call_in_words() -> None:
    """Digits one by one; an end where the schema leaves it open where a value ends."""
    arguments = '{"minutes": 15, "room_name": "big hall", "state": "on", "loud": true}'
    assert decode(call_pieces("setTimer", arguments, encode, TIMER.parameters)) == (
        "<call> set timer <speak> minutes one five <speak> room name big hall <speak> "
        "state on loud yes"
    )


def test_a_number_is_no_truth() -> None:
    """One and zero are numbers in JSON, and end like numbers."""
    assert decode(call_pieces("f", '{"n": 1, "m": 0}', encode)) == (
        "<call> f <speak> n one <speak> m zero <speak>"
    )


@pytest.mark.parametrize("arguments", ["not json", "[1]", '"x"', "7"])
def test_broken_arguments_are_read_as_text(arguments: str) -> None:
    """A client may replay anything as a call."""
    assert call_pieces("f", arguments, encode)[0] == Special.CALL


@pytest.mark.parametrize("parameters", ["{}", "[]", '{"properties": 3, "required": ["a"]}'])
def test_odd_schemas_have_no_parameters(parameters: str) -> None:
    """Nothing is demanded where nothing is said."""
    assert decode(tool_pieces(Tool("f", "", parameters), encode)) == "<tool> f <speak>"


def test_prompt_keeps_within_its_room() -> None:
    """Long instructions are cut; functions without room are left out, and said to be."""
    words = " ".join(["be kind"] * 100)
    pieces, tools = prompt_pieces(words, (TIMER, TIMER), encode, 100)
    assert pieces[0] == Special.SYSTEM
    assert pieces.index(Special.TOOL) == 1 + MAX_INSTRUCTION_PIECES
    assert tools == (TIMER,)
    assert len(pieces) <= 100
    assert prompt_pieces("", (), encode, 100) == ([], ())


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("It is 20 degrees.", "it is twenty degrees"),
        ('{"price": 3}', "three"),
        ('{"sky": "dry", "degrees": 9}', "sky dry degrees nine"),
        ('{"error": "not found"}', "error not found"),
        ('{"ok": true}', "true"),
        ('{"list": ["a", {"b": null}]}', "a b"),
        ("", ""),
        ("[" * 100_000, ""),
    ],
)
def test_results_in_words(output: str, words: str) -> None:
    """What a function returned is said as words, whatever it is."""
    assert result_text(output) == words
