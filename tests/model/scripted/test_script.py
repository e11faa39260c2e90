"""Scripts are checked as a whole, and every error names its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.errors import ScriptError
from model.scripted.script import load_script, parse_script
from server.names import ROOT

SHIPPED = sorted((ROOT / "configs" / "scripts").glob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_scripts_are_whole(path: Path) -> None:
    """What comes with the checkout loads."""
    assert load_script(path).reply


def test_short_forms() -> None:
    """An entry may be its text alone, and a single call needs no list."""
    script = parse_script("hear: [hello]\nreply: [{call: {name: f}}]", "s")
    assert script.hear[0].text == "hello"
    assert not script.hear[0].repeat
    assert [call.name for call in script.reply[0].call] == ["f"]


@pytest.mark.parametrize(
    ("text", "place", "reason"),
    [
        ("{", "test.yaml", "not valid YAML"),
        ("hear: []", "reply", "required"),
        ("reply: []", "reply", "at least 1"),
        ("- say: x", "the script", "dictionary"),
        ("reply: [{sya: x}]", "reply[0].sya", "no such key"),
        ("reply: [{say: x}, {say: 3}]", "reply[1].say", "string"),
        ("reply: [{when: {user: '('}}]", "reply[0].when.user", "not a regular expression"),
        ("reply: [{when: {user: 3}}]", "reply[0].when.user", "regular expression as text"),
        ("reply: [{when: {turn: 0}}]", "reply[0].when.turn", "greater than or equal to 1"),
        ("reply: [{say: 'a {nobody}'}]", "reply[0]", "unknown placeholder {nobody}"),
        ("reply: [{say: 'a {turn:3}'}]", "reply[0]", "a placeholder is a name"),
        ("reply: [{say: 'a {'}]", "reply[0]", "write {{ and }}"),
        ("reply: [{call: {name: f, arguments: {a: ['{x}']}}}]", "reply[0]", "{x}"),
        ("reply: [{call: {name: ''}}]", "reply[0].call[0].name", "at least 1"),
        ("reply: [{when: {user: '(?P<turn>x)'}}]", "reply[0]", "'turn' has the name"),
        ("reply: [{fail: a, lose_session: b}]", "reply[0]", "not both"),
        ("reply: [{at_most: 0}]", "reply[0].at_most", "greater than or equal to 1"),
        ("reply: [{pace: {words_per_minute: 1}}]", "words_per_minute", "greater than"),
        ("pace: {real_time_factor: -1}\nreply: [{}]", "pace.real_time_factor", "greater than"),
        ("hear: [{text: a, min_ms: 9, max_ms: 8}]\nreply: [{}]", "hear[0]", "less than min_ms"),
        ("hear: [3]\nreply: [{}]", "hear[0]", "dictionary"),
    ],
)
def test_errors_name_the_place(text: str, place: str, reason: str) -> None:
    """One line says where and what."""
    with pytest.raises(ScriptError) as caught:
        parse_script(text, "test.yaml")
    message = str(caught.value)
    assert message.startswith("test.yaml: ")
    assert place in message
    assert reason in message
    assert "\n" not in message


def test_named_groups_are_placeholders() -> None:
    """What a pattern finds can be said; a reply knows its own patterns' groups only."""
    parse_script("reply: [{when: {user: '(?P<city>.*)'}, say: 'in {city}'}]", "s")
    with pytest.raises(ScriptError, match="reply\\[1\\]: unknown placeholder"):
        parse_script("reply: [{when: {user: '(?P<city>.*)'}}, {say: 'in {city}'}]", "s")


def test_missing_file_is_named(tmp_path: Path) -> None:
    """The message says which file."""
    with pytest.raises(ScriptError, match=r"nowhere\.yaml: cannot be read"):
        load_script(tmp_path / "nowhere.yaml")
