"""Function schemas that cost their compiler minutes, gigabytes or its life."""

from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from tests.attacks.harness import Attack, send, until

_BIG_MULTIPLE = {"type": "integer", "multipleOf": 100_000_007}
# Under the bound each, but the compiler has to follow both at once.
_PRODUCT = {"type": "integer", "allOf": [{"multipleOf": 499}, {"multipleOf": 503}]}
_PANIC = {"type": "object", "required": "ы" * 60}
_LONG_CONST = {"const": "a" * 8000}


def tool(schema: Any) -> dict[str, Any]:
    """Return a function with one parameter, which it needs."""
    parameters = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return {"type": "function", "name": "f", "parameters": parameters}


async def _offer(client: ClientConnection, schema: Any) -> str:
    """Offer a function, and return what came of it."""
    session = {"type": "realtime", "tools": [tool(schema)]}
    await send(client, "session.update", event_id="mine", session=session)
    event = await until(client, "session.updated", "error")
    return event["error"]["code"] if event["type"] == "error" else "taken"


async def compile_for_ever(url: str) -> None:
    """Offer schemas that cannot be compiled, each another, one after the other."""
    async with connect(f"{url}/v1/realtime") as client:
        for number in range(10):
            for schema in (_BIG_MULTIPLE, _PRODUCT, _PANIC):
                assert isinstance(schema, dict)
                code = await _offer(client, {**schema, "title": str(number)})
                assert code == "invalid_function_parameters", code


async def long_const(url: str) -> None:
    """Demand calls whose arguments are longer than what the model remembers."""
    async with connect(f"{url}/v1/realtime", max_queue=None) as client:
        assert await _offer(client, _LONG_CONST) == "taken"
        for _ in range(5):
            await send(client, "response.create", response={"tool_choice": "required"})
            await until(client, "response.done", "error")


ATTACKS = [
    Attack("schemas that never compile", compile_for_ever),
    Attack("a constant of 8,000 letters", long_const),
]
