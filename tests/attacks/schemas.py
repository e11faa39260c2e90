"""Function schemas that cost their compiler minutes, gigabytes or its life."""

from collections.abc import Sequence
from typing import Any

from websockets.asyncio.client import ClientConnection

from tests.attacks.harness import Attack, Target, send, session, until

_MULTIPLES = [
    {"type": "integer", "multipleOf": 100_000_007},  # took 40 GB
    {"type": "integer", "multipleOf": 300_007},  # held everybody up for 2 s
    {"type": "integer", "multipleOf": 600_011},
    # Under the bound each, but the compiler has to follow both at once.
    {"type": "integer", "allOf": [{"multipleOf": 499}, {"multipleOf": 503}]},
]
_PANICS = [{"type": "object", "required": "ы" * 60}]
_LONG_CONST = {"const": "a" * 8000}


def tool(schema: Any) -> dict[str, Any]:
    """Return a function with one parameter, which it needs."""
    parameters = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return {"type": "function", "name": "f", "parameters": parameters}


async def _offer(client: ClientConnection, schema: Any) -> str:
    """Offer a function, and return what came of it."""
    offered = {"type": "realtime", "tools": [tool(schema)]}
    await send(client, "session.update", event_id="mine", session=offered)
    event = await until(client, "session.updated", "error")
    return event["error"]["code"] if event["type"] == "error" else "taken"


async def _refused(target: Target, schemas: Sequence[Any]) -> None:
    async with session(target) as client:
        for number in range(100):
            for schema in schemas:
                code = await _offer(client, {**schema, "title": str(number)})
                assert code == "invalid_function_parameters", code


async def compile_for_ever(target: Target) -> None:
    """Offer schemas that cannot be compiled, each another, one after the other."""
    await _refused(target, _MULTIPLES)


async def panic(target: Target) -> None:
    """Offer schemas that the compiler cannot cope with."""
    await _refused(target, _PANICS)


async def long_const(target: Target) -> None:
    """Demand calls whose arguments are longer than what the model remembers."""
    async with session(target) as client:
        assert await _offer(client, _LONG_CONST) == "taken"
        while True:
            await send(client, "response.create", response={"tool_choice": "required"})
            await until(client, "response.done", "error")


async def late_check(target: Target) -> None:
    """Demand calls whose arguments a pattern checks for ever, where they are checked."""
    pattern = {"type": "string", "minLength": 40, "maxLength": 40, "not": {"pattern": "(a+)+$"}}
    async with session(target) as client:
        code = await _offer(client, pattern)
        assert code in ("taken", "invalid_function_parameters"), code
        while True:
            await send(client, "response.create", response={"tool_choice": "required"})
            await until(client, "response.done", "error")


ATTACKS = [
    Attack("schemas that never compile", compile_for_ever),
    Attack("schemas that end the compiler", panic),
    Attack("a constant of 8,000 letters", long_const),
    Attack("arguments checked for ever", late_check),
]
