"""Play what clients may send, right and wrong: `python -m tests.fuzz.protocol --seconds N`.

Four games in turn. "worlds": long sequences of events, whole and damaged, and of what happens
beside them; the rules of `World` hold. "checked": the same where words are checked. "beta": the
same as the first in the older shape, to a session in it. "frames": texts that are hardly JSON;
there is an event or a `ClientError`. What goes out in the first three is what the published types
have.
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from random import Random
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from server.errors import ClientError
from server.protocol.dialects.beta import BetaDialect, GuessingDialect
from server.protocol.wire.parse import decode, parse
from tests.server.protocol.lines import CHECKED, CLIENTS, HAPPENINGS, JUNK, Line, client
from tests.server.protocol.transcripts import Player
from tests.server.protocol.world import DOCUMENTED, World

_BATCH = 20
# What the text model answers, and whether the engine can say it.
_DELEGATES: list[Line | None] = [
    None,
    {"phrases": ["w1 w2"], "recites": True},
    {"answers": "always", "recites": False},
]

_SENTENCES = ("", "s1 s2")
_MAX_ITEMS = (2_000, 2_000, 2_000, 2_000, 6)

_SOUND = "AAAA" * 16
_TOOL = {
    "type": "function",
    "name": "f",
    "description": "d",
    "parameters": {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
}
_SERVER = {
    "type": "mcp",
    "server_label": "s",
    "server_url": "https://s.example.com/mcp",
    "server_description": "d",
    "authorization": "t",
    "headers": {"x-a": "b"},
    "allowed_tools": {"tool_names": ["look"], "read_only": False},
    "require_approval": {"always": {"tool_names": ["look"]}, "never": {"read_only": True}},
    "defer_loading": False,
    "allowed_callers": ["direct"],
}
_DETECTIONS: list[Any] = [
    None,
    {"type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300, "silence_duration_ms": 200},
    {"type": "server_vad", "idle_timeout_ms": 6000, "create_response": False},
    {"type": "semantic_vad", "eagerness": "high", "interrupt_response": False},
]


def _items(text: str, said: str) -> list[Line]:
    """Return items of every kind; `text` and `said` are the types of an assistant's parts."""
    user = [
        {"type": "input_text", "text": "x"},
        {"type": "input_audio", "audio": _SOUND, "transcript": "x"},
        {"type": "input_audio", "audio": _SOUND},
    ]
    return [
        {"type": "message", "role": "user", "content": user},
        {"type": "message", "role": "user", "id": "a", "content": user[:1]},
        {"type": "message", "role": "system", "content": user[:1]},
        {"type": "message", "role": "assistant", "content": [{"type": text, "text": "y"}]},
        {"type": "message", "role": "assistant", "content": [{"type": said, "transcript": "y"}]},
        {"type": "function_call", "name": "f", "call_id": "c", "arguments": '{"a":"b"}'},
        {"type": "function_call_output", "call_id": "c", "output": "z"},
        {
            "type": "mcp_approval_response",
            "approval_request_id": "mcpr_1",
            "approve": True,
            "reason": "r",
        },
    ]


_GA_SESSIONS: list[Line] = [
    {
        "type": "realtime",
        "instructions": "be brief",
        "output_modalities": ["audio"],
        "tools": [_TOOL, _SERVER],
        "tool_choice": {"type": "mcp", "server_label": "s", "name": "look"},
        "max_output_tokens": 100,
        "truncation": {"type": "retention_ratio", "retention_ratio": 0.5},
        "tracing": "auto",
        "audio": {
            "input": {
                "format": {"type": "audio/pcmu"},
                "transcription": {"model": "whisper-1", "language": "en", "prompt": "p"},
                "noise_reduction": {"type": "near_field"},
                "turn_detection": detection,
            },
            "output": {"format": {"type": "audio/pcm", "rate": 24000}, "speed": 1.2},
        },
    }
    for detection in _DETECTIONS
]
_BETA_SESSIONS: list[Line] = [
    {
        "modalities": ["text", "audio"],
        "instructions": "be brief",
        "voice": "echo",
        "input_audio_format": "g711_ulaw",
        "output_audio_format": "pcm16",
        "input_audio_transcription": {"model": "whisper-1"},
        "turn_detection": detection,
        "tools": [_TOOL, _SERVER],
        "tool_choice": "auto",
        "temperature": 0.8,
        "max_response_output_tokens": "inf",
        "speed": 1.1,
    }
    for detection in _DETECTIONS
]


def _events(sessions: list[Line], items: list[Line], responses: list[Line]) -> list[Line]:
    """Return whole events of a shape of the API."""
    return [
        *(client("session.update", session=session) for session in sessions),
        *(client("conversation.item.create", item=item) for item in items),
        *(client("response.create", response=response) for response in responses),
        client("input_audio_buffer.commit"),
        client("conversation.item.truncate", item_id="a", content_index=0, audio_end_ms=5),
        client("conversation.item.retrieve", item_id="a"),
        client("conversation.item.delete", item_id="a"),
        client("response.cancel", response_id="resp_1"),
        client("output_audio_buffer.clear"),
    ]


_GA_RESPONSES: list[Line] = [
    {},
    {
        "conversation": "none",
        "input": _items("output_text", "output_audio"),
        "metadata": {"a": "b"},
    },
    {"instructions": "x", "tools": [_TOOL], "tool_choice": "required", "max_output_tokens": 9},
]
_BETA_RESPONSES: list[Line] = [
    {"modalities": ["text"], "temperature": 0.7, "max_output_tokens": 9},
    {"conversation": "none", "input": _items("text", "audio"), "voice": "alloy"},
]
_GA = st.sampled_from(_events(_GA_SESSIONS, _items("output_text", "output_audio"), _GA_RESPONSES))
_BETA = st.sampled_from(_events(_BETA_SESSIONS, _items("text", "audio"), _BETA_RESPONSES))

_HARSH: Any = (
    JUNK
    | st.sampled_from(
        ["", "\ud800", "\x00", "ы" * 300, "x" * 100_000, "9" * 5000, "auto", "inf", "audio/pcma"]
    )
    | st.sampled_from([-1, 0, 1, 1 << 31, 1 << 63, -(1 << 70), 1e308, 0.1, True, [], {}, None])
    | st.integers(1, 60).map(lambda depth: json.loads("[" * depth + "]" * depth))
)


def _damaged(line: Line, random: Random, value: Any) -> Line:
    """Change one thing in an event: what is somewhere in it, or one key more or less."""
    damaged = deepcopy(line)
    place: Any = damaged["client"]
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            break
        key = random.choice(keys)
        if isinstance(place[key], (dict, list)) and place[key] and random.random() < 0.8:
            place = place[key]
            continue
        if random.random() < 0.2:
            del place[key]
        elif isinstance(place, dict) and random.random() < 0.2:
            place[random.choice(["type", "id", "audio", "text", "extra", "format"])] = value
        else:
            place[key] = value
        break
    return damaged


def _with_damage(whole: st.SearchStrategy[Line]) -> st.SearchStrategy[Line]:
    return whole | st.builds(_damaged, whole, st.randoms(use_true_random=False), _HARSH)


WORLDS = st.lists(CLIENTS | _with_damage(_GA) | HAPPENINGS, max_size=120)
CHECKED_WORLDS = st.lists(CLIENTS | _with_damage(_GA) | HAPPENINGS | CHECKED, max_size=160)
BETA = st.lists(_with_damage(_BETA) | CLIENTS, max_size=60)
_PIECES = st.sampled_from(
    [
        *'{}[]",:\\ 0-é' + "\n",
        *("\\u", "\\ud800", "\\udc00", "null", "NaN", "1e999", "\ufeff", "\x00"),
        *('"type"', '"audio"', '"session.update"', '"input_audio_buffer.append"'),
    ]
)
_TEXTS = st.builds(
    lambda line, at, cut, pieces: (
        (text := json.dumps(line["client"]))[: (at := at % len(text))]
        + "".join(pieces)
        + text[at + cut :]
    ),
    _GA | _BETA | st.just(client("input_audio_buffer.append", audio=_SOUND, event_id="mine")),
    st.integers(0, 4000),
    st.integers(0, 8),
    st.lists(_PIECES, max_size=4),
)
FRAMES = st.lists(_TEXTS | st.lists(_PIECES, max_size=12).map("".join), max_size=20)


def _check_code(code: str | None) -> None:
    assert code in DOCUMENTED, f"{code} is no error of the API"


def play_world(lines: list[Line | str], counts: Counter[str], *, is_filtered: bool = False) -> None:
    """Play a sequence; it ends in the middle of things if its length is odd.

    Two of three sessions have a text model beside their own. Every other one that is checked says a
    sentence in the place of what is refused, and one of five keeps few items.
    """
    world = World(
        _DELEGATES[len(lines) % 3],
        is_filtered=is_filtered,
        sentence=_SENTENCES[len(lines) // 2 % 2],
        max_items=_MAX_ITEMS[len(lines) % 5],
    )
    for line in lines:
        world.play(line)
        counts["events"] += 1
    if len(lines) % 2:
        world.end_early()
    else:
        world.end()


def play_beta(lines: list[Line], counts: Counter[str]) -> None:
    """Play a sequence to a session in the older shape, whose engine is silent."""
    player = Player(is_beta=True)
    player.start()
    for line in lines:
        counts["events"] += 1
        for came in player.play(line):
            if came.get("server", {}).get("type") == "error":
                _check_code(came["server"]["error"]["code"])
                counts["refused"] += 1
    player.end()


def read_frames(texts: list[str], counts: Counter[str]) -> None:
    """Read texts as a session does."""
    for dialect in (GuessingDialect(), BetaDialect()):
        for text in texts:
            counts["events"] += 1
            try:
                parse(dialect.read(decode(text)))
            except ClientError as error:
                _check_code(error.code)
                counts["refused"] += 1


GAMES: dict[str, tuple[st.SearchStrategy[Any], Callable[[Any, Counter[str]], None]]] = {
    "worlds": (WORLDS, play_world),
    "checked": (CHECKED_WORLDS, partial(play_world, is_filtered=True)),
    "beta": (BETA, play_beta),
    "frames": (FRAMES, read_frames),
}


def play(name: str, start: int, counts: Counter[str], *, num_examples: int) -> None:
    """Play a game, and raise what breaks in it, made as short as it can be."""
    strategy, game = GAMES[name]

    def example(drawn: Any) -> None:
        counts[name] += 1
        game(drawn, counts)

    seed(start)(
        settings(
            max_examples=num_examples,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )(given(strategy)(example))
    )()


def main() -> int:
    """Play for a while, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0, help="of the first batch")
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    failures: dict[str, str] = {}
    end_s, batch = time.monotonic() + options.seconds, options.seed
    while time.monotonic() < end_s and len(failures) < len(GAMES):
        for name in GAMES:
            if name in failures:
                continue
            try:
                play(name, batch, counts, num_examples=_BATCH)
            except Exception as error:  # noqa: BLE001 - it is what is looked for
                notes = "\n".join(getattr(error, "__notes__", ()))
                failures[name] = f"seed {batch}: {type(error).__name__}: {error}\n{notes}"
                print(f"{name}, {failures[name]}", file=sys.stderr)
        batch += 1
    for name, number in sorted(counts.items()):
        print(f"{name:16} {number}")
    print(json.dumps({"fuzzer": "protocol", "failures": failures, **counts}))
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
