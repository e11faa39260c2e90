"""What docs/api.md promises is true: its names are the code's, and its session really happens."""

import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import websockets

from model.scripted.script import load_script
from server.config.load import load_settings
from server.config.settings import Settings
from server.protocol.dialects import beta_session
from server.protocol.dialects.beta import BetaDialect
from server.protocol.dialects.ga import SENT_FIELDS, GaDialect
from server.protocol.server_events import ErrorEvent, ServerEvent
from server.protocol.settings.config import SemanticVad, ServerVad, SessionConfig
from server.protocol.wire.client_events import ClientEvent
from tests.fakes.scripted import scripted_engine
from tests.server.serving import TIMEOUT_S, serving
from tests.server.sounds import base64_pcm, voice

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "api.md").read_text()
SOURCES = "".join(
    path.read_text()
    for part in ("protocol", "session", "transport", "webrtc", "telephony")
    for path in sorted((ROOT / "server" / part).rglob("*.py"))
)
_PLACE = ["response_id", "item_id", "output_index", "content_index"]
_UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20}


def _section(heading: str) -> str:
    """Return the text under a heading, up to the next one of its level or above."""
    level = heading.split(" ", 1)[0]
    _, _, rest = f"\n{TEXT}".partition(f"\n{heading}\n")
    assert rest, f"no {heading!r}"
    return re.split(rf"^#{{2,{len(level)}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def _rows(text: str) -> Iterator[list[str]]:
    """Yield the cells of a section's table rows."""
    for line in text.splitlines():
        if line.startswith("|") and not set(line) <= set("|-: "):
            yield [cell.strip() for cell in line.removeprefix("|").split("|")]


def _spans(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def _named(heading: str, column: int = 0) -> set[str]:
    """Return the code spans in one column of a section's tables."""
    return {name for row in _rows(_section(heading)) for name in _spans(row[column])}


def _server_events() -> dict[str, list[str]]:
    """Return each server event that the page lists, with its row."""
    rows = [row for row in _rows(_section("## Server events")) if _spans(row[0])]
    assert len({row[0] for row in rows}) == len(rows), "an event is listed twice"
    return {_spans(row[0])[0]: row for row in rows}


def test_every_client_event_is_listed_with_its_fields() -> None:
    """The table has what can be parsed and nothing else."""
    listed = {
        _spans(row[0])[0]: {name.rstrip("?") for name in _spans(row[1])}
        for row in _rows(_section("## Client events"))
        if _spans(row[0])
    }
    known = {
        kind.type: {field.name for field in fields(kind)} - {"event_id"}
        for kind in get_args(ClientEvent)
    }
    renamed = {"transcription_session.update": {"session"}, "output_audio_buffer.clear": set()}
    assert listed == known | renamed


def test_every_server_event_is_listed_with_its_fields() -> None:
    """So are the server's."""
    kinds = {kind.type: kind for kind in get_args(ServerEvent)}
    rows = _server_events()
    assert set(rows) == set(kinds)
    for name, row in rows.items():
        listed = (_PLACE if "*place*" in row[2] else []) + _spans(row[2])
        written = SENT_FIELDS[kinds[name]]
        assert set(listed) == ({"error"} if kinds[name] is ErrorEvent else set(written)), name


def test_betas_names_are_betas() -> None:
    """The second column says what beta clients are sent."""
    rows = _server_events()
    for kind in get_args(ServerEvent):
        if kind is ErrorEvent:
            continue
        event = kind(*[_ANYTHING.get(field.name, "x") for field in fields(kind)])
        written = BetaDialect().write(event, "event_1")
        listed = rows[kind.type][1]
        if written is None:
            assert listed == "**none**", kind.type
        else:
            assert written["type"] == (_spans(listed) or [kind.type])[0]
        assert (GaDialect().write(event, "event_1") or {})["type"] == kind.type


_CONFIG = SessionConfig(
    "sess_1",
    "m",
    "alloy",
    0,
    parallel_tool_calls=True,
    reasoning={"effort": "low"},
    delegate="always",
)
_ANYTHING: dict[str, Any] = {"session": _CONFIG, "rate_limits": ()}


def _leaves(session: dict[str, Any]) -> Iterator[str]:
    for key, value in session.items():
        if key != "audio":
            yield key
        else:
            yield from (f"audio.{side}.{leaf}" for side in value for leaf in value[side])


def test_every_setting_of_a_session_is_listed() -> None:
    """Both shapes, and the kinds of turn detection."""
    assert set(_leaves(_CONFIG.to_json())) == _named("## The session")
    both = _named("## The session") | _named("## The session", 1)
    assert set(beta_session.session_json(_CONFIG)) <= both
    detection = _named("## Turns")
    assert set(ServerVad().to_json()) | set(SemanticVad().to_json()) <= detection | {"type"}
    assert detection - {"server_vad", "semantic_vad"} <= {
        *ServerVad().to_json(),
        *SemanticVad().to_json(),
    }


def test_every_error_code_is_listed() -> None:
    """Codes are what applications match on: none is missing, none is invented."""
    listed = {name for name in _named("## Errors") if not name.startswith("server.")} - {"code"}
    composed = {f"item_{verb}_invalid_item_id" for verb in ("retrieve", "truncate", "delete")} | {
        f"{noun}_{side}_value"
        for noun in ("integer", "decimal")
        for side in ("below_min", "above_max")
    }
    given = set(re.findall(r'\bcode="(\w+)"', SOURCES))
    given |= set(re.findall(r'ErrorEvent\(\s*"\w+",\s*"(\w+)"', SOURCES))
    assert given
    assert given | composed <= listed
    assert all(f'"{code}"' in SOURCES for code in listed - composed)


def test_every_close_code_is_listed() -> None:
    """A connection is not closed for a reason that the page does not know."""
    codes = set(re.findall(r"CLOSE_[A-Z_]+ = (\d{4})", SOURCES))
    assert codes
    assert codes <= {row[0] for row in _rows(_section("## Connecting"))}


def test_settings_exist_and_have_the_defaults_that_are_said() -> None:
    """Of settings that concern applications none is missing."""
    defaults = {
        f"{section}.{key}": value
        for section, given in Settings().model_dump().items()
        for key, value in (given.items() if section != "voices" else ())
    }
    named = set(re.findall(r"`((?:server|model|engine|vad)\.[a-z_]+)`", TEXT))
    assert named <= set(defaults)
    assert {key for key in defaults if key.startswith(("server.", "vad."))} <= named
    checked = 0
    for row in _rows(_section("## Limits")):
        stated = re.match(r"(\d+)(?: (KiB|MiB))?(?=$|:)", row[1])
        keys = _spans(row[0])
        if stated and len(keys) == 1:
            checked += 1
            number = int(stated[1]) * _UNITS[stated[2] or ""]
            assert defaults[keys[0]] == number, keys[0]
    assert checked > 5


def test_links_within_the_page_lead_somewhere() -> None:
    """Each names a heading."""
    headings = re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)
    anchors = {heading.lower().replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) <= anchors


# The worked session.


def _matches(expected: object, actual: object, names: dict[str, str]) -> bool:
    """Say whether the server sent what is written, as far as it is written.

    Args:
        expected: of the page; ids such as "item_2" are its own.
        actual: of the server.
        names: the page's ids → the server's, added to.
    """
    if expected == "…":
        return bool(actual)
    if isinstance(expected, dict):
        return isinstance(actual, dict) and all(
            key in actual and _matches(value, actual[key], names) for key, value in expected.items()
        )
    if isinstance(expected, list):
        return isinstance(actual, list) and [
            _matches(*pair, names) for pair in zip(expected, actual, strict=False)
        ] == [True] * max(len(expected), len(actual))
    if isinstance(expected, str) and re.fullmatch(r"[a-z]+_\d+", expected):
        return names.setdefault(expected, str(actual)) == actual
    return expected == actual


def _said(value: Any, names: dict[str, str]) -> Any:
    """Return what the client sends: the server's ids, and a second of speech for audio."""
    if isinstance(value, dict):
        return {key: _said(inner, names) for key, inner in value.items()}
    if isinstance(value, list):
        return [_said(inner, names) for inner in value]
    return base64_pcm(voice(1.0, 24_000)) if value == "…" else names.get(value, value)


async def test_the_worked_session_happens() -> None:
    """A server with the scripted engine sends what the page says, in its order."""
    lines = [
        (line[0], json.loads(line[2:]))
        for block in re.findall(r"```text\n(.*?)```", _section("## A worked session"), re.DOTALL)
        for line in block.splitlines()
    ]
    assert {side for side, _ in lines} == {"→", "←"}
    settings = load_settings(ROOT / "configs" / "scripted.yaml", env={})
    assert settings.model.script is not None
    engine = scripted_engine(
        load_script(ROOT / settings.model.script), max_sessions=4, ahead_ms=60_000
    )
    names: dict[str, str] = {}
    repeated = ""
    async with (
        serving(engine, settings) as served,
        websockets.connect(f"{served.url}/v1/realtime?model=scripted") as socket,
        asyncio.timeout(TIMEOUT_S),
    ):
        for side, written in lines:
            if side == "→":
                await socket.send(json.dumps(_said(written, names)))
                continue
            event = json.loads(await socket.recv())
            while event["type"] == repeated:
                event = json.loads(await socket.recv())
            assert _matches(written, event, names), f"{written} is not {str(event)[:400]}"
            repeated = written["type"] if written["type"].endswith(".delta") else ""
