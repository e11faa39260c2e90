"""Hold one short typed conversation over a real connection."""

import json
from typing import Any

from websockets.asyncio.client import connect


async def talked(
    url: str, session: dict[str, Any] | None = None, model: str = "echo", **headers: str
) -> str:
    """Ask one typed question; returns how the response ended.

    Args:
        url: of the server, for WebSockets.
        session: what the session is to be like; None for an update less.
        model: that is asked for.
        headers: of the request.
    """
    async with connect(f"{url}/v1/realtime?model={model}", additional_headers=headers) as socket:
        item = {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": "hi"}],
        }
        if session is not None:
            update = {"type": "session.update", "session": {"type": "realtime", **session}}
            await socket.send(json.dumps(update))
        await socket.send(json.dumps({"type": "conversation.item.create", "item": item}))
        await socket.send(json.dumps({"type": "response.create"}))
        async for text in socket:
            event = json.loads(text)
            if event["type"] == "response.done":
                return str(event["response"]["status"])
    return "nothing came"
