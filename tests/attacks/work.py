"""Sessions that give as much work, and as many bytes, as they can."""

import asyncio
import base64
import json
from typing import Any

from websockets.asyncio.client import ClientConnection

from tests.attacks.harness import Attack, Target, send, session, until
from tests.server.images.files import data_url, huge_png, image_file

_MIB = 1 << 20
_TEXT_CHARS = 65_536
_MANY_ITEMS, _HISTORY_ITEMS, _NUM_EDITS = 20_000, 500, 14


def _message(text: str, role: str = "user") -> dict[str, Any]:
    kind = "output_text" if role == "assistant" else "input_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}


async def _create(client: ClientConnection, item: dict[str, Any], **fields: Any) -> str:
    """Add an item, and return what came of it."""
    await send(client, "conversation.item.create", item=item, **fields)
    event = await until(client, "conversation.item.added", "error")
    return event["error"]["code"] if event["type"] == "error" else "taken"


async def digits(target: Target) -> None:
    """Write numbers of as many digits as fit, and of more."""
    async with session(target) as client:
        assert await _create(client, _message("1" * 150_000)) == "string_above_max_length"
        while True:
            assert await _create(client, _message("1" * _TEXT_CHARS)) == "taken"
            await send(client, "response.create", response={"output_modalities": ["text"]})
            await until(client, "response.done")


async def texts(target: Target) -> None:
    """Write as much as fits into everything that takes text."""
    text = "ab, " * (_TEXT_CHARS // 4)
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": json.dumps([text])}
    async with session(target) as client:
        assert await _create(client, call) == "string_above_max_length"
        call["arguments"] = json.dumps([text[:-10]])
        while True:
            for role in ("user", "system", "assistant"):
                assert await _create(client, _message(text, role)) == "taken"
            assert await _create(client, call) == "taken"
            output = {"type": "function_call_output", "call_id": "c", "output": text}
            assert await _create(client, output) == "taken"
            told = {"type": "realtime", "instructions": text}
            await send(client, "session.update", session=told)
            await send(client, "response.create", response={"output_modalities": ["text"]})
            await until(client, "response.done")


async def items(target: Target) -> None:
    """Add small items as fast as they go."""
    frame = json.dumps({"type": "conversation.item.create", "item": _message("word", "system")})
    await _flood(target, [frame] * _MANY_ITEMS)


async def edits(target: Target) -> None:
    """Have a history told anew, again and again."""
    flood = [
        json.dumps({"type": "conversation.item.create", "item": _message(f"word {n}", "system")})
        for n in range(_HISTORY_ITEMS)
    ]
    sound = json.dumps({"type": "input_audio_buffer.append", "audio": "AAAA" * 400})
    for number in range(_NUM_EDITS):
        edit = {"item": _message(f"edit {number}", "system"), "previous_item_id": "root"}
        flood += [json.dumps({"type": "conversation.item.create", **edit}), sound]
    await _flood(target, flood)


async def _flood(target: Target, frames: list[str]) -> None:
    """Send all of this, reading what is answered; nobody may be closed for it."""
    async with session(target) as client:

        async def read() -> None:
            async for _ in client:
                pass

        reading = asyncio.create_task(read())
        try:
            for frame in frames:
                await client.send(frame)
            await asyncio.sleep(0.5)
            assert not reading.done(), "the flood was closed"
        finally:
            reading.cancel()


async def huge_frames(target: Target) -> None:
    """Send frames that are nothing, as long as frames may be."""
    prefix = '{"type": "conversation.item.create", "item": ['
    frames = [prefix + junk * (24 * _MIB // len(junk) - 100) for junk in ("[],", '"",', '{"a":')]
    async with session(target) as client:
        while True:
            for frame in frames:
                await client.send(frame)
                error = await until(client, "error")
                assert error["error"]["code"] == "invalid_event", error


async def long_appends(target: Target) -> None:
    """Append half an hour of sound at once, which is refused, and then as much as is taken."""
    pcmu = {"input": {"format": {"type": "audio/pcmu"}, "turn_detection": None}}
    half_an_hour = base64.b64encode(b"\xff" * (15 * _MIB)).decode()
    nine_minutes = base64.b64encode(b"\xff" * (8_000 * 540)).decode()
    async with session(target) as client:
        await send(client, "session.update", session={"type": "realtime", "audio": pcmu})
        await until(client, "session.updated")
        await send(client, "input_audio_buffer.append", audio=half_an_hour)
        error = await until(client, "error")
        assert error["error"]["code"] == "input_audio_buffer_full", error
        while True:
            await send(client, "input_audio_buffer.append", audio=nine_minutes)
            await send(client, "input_audio_buffer.clear")
            await until(client, "input_audio_buffer.cleared", "error")


async def unread_events(target: Target) -> None:
    """Ask for much, and read nothing of it."""
    async with session(target) as client:
        assert await _create(client, _message("x" * _TEXT_CHARS)) == "taken"
        await send(client, "conversation.item.create", item={**_message("y"), "id": "mine"})
        await until(client, "conversation.item.added")
        client.transport.pause_reading()
        ask = json.dumps({"type": "conversation.item.retrieve", "item_id": "mine"})
        while True:
            await send(client, "response.create")
            for _ in range(500):
                await client.send(ask)


async def pictures(target: Target) -> None:
    """Show pictures that are none, that take more than a picture may, and as many as fit."""
    small = image_file()
    shown = [
        ("invalid_value", [b"\xff\xd8" + b"\0" * 100_000]),
        ("invalid_value", [huge_png(4_097, 4_096)]),
        ("array_above_max_length", [small] * 100),
        ("taken", [huge_png(4_096, 4_096)]),
        ("taken", [small] * 8),
    ]
    async with session(target) as client:
        while True:
            for outcome, files in shown:
                content = [{"type": "input_image", "image_url": data_url(each)} for each in files]
                item = {"type": "message", "role": "user", "content": content}
                came = await _create(client, item)
                assert came == outcome, (came, outcome)


ATTACKS = [
    Attack("150,000 digits", digits),
    Attack("texts of 64 KiB", texts),
    Attack("20,000 small items", items),
    Attack("edits of a long history", edits),
    Attack("24 MiB of nothing", huge_frames),
    Attack("15 MiB of sound at once", long_appends),
    Attack("events that are not read", unread_events),
    Attack("pictures that are too much", pictures, configs=("scripted",)),
]
