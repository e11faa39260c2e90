"""Ask an application over HTTP, without a socket."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from starlette.applications import Starlette

from server.app import create_app
from server.config.server import ServerSettings
from server.config.settings import Settings
from tests.server.fakes import EchoEngine

KEY = "sk-sixteen-or-more-1"


def new_app(**server: Any) -> Starlette:
    """Make an application whose engine never starts."""
    settings = Settings(server=ServerSettings(**server), voices={"alloy": "amber", "echo": "birch"})
    return create_app(settings, {"starter": [EchoEngine()]})


@asynccontextmanager
async def asking(*, key: str | None = KEY, **server: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Ask a fresh application that wants `KEY`."""
    app = new_app(**{"api_keys": (KEY,), **server})
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://localhost", headers=headers
    ) as client:
        yield client
    await app.state.gateway.schemas.close()
