"""Serve an engine on a free port of the loopback interface, in the test's own event loop."""

import asyncio
import contextlib
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.server import ServerState

from model.messages import Engine
from server.app import create_app
from server.config.settings import Settings
from server.serve import listening_socket, uvicorn_config
from server.session.pool import EnginePool
from server.webrtc.network import Network

TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Served:
    """A running server and how to reach it.

    Attributes:
        port: of the loopback interface.
        app: what is served.
        state: of the HTTP server.
        is_secure: whether it speaks TLS.
    """

    port: int
    app: FastAPI
    state: ServerState
    is_secure: bool = False

    @property
    def url(self) -> str:
        """Return the address for WebSockets."""
        return f"ws://127.0.0.1:{self.port}"

    @property
    def pool(self) -> EnginePool:
        """Return the engines of the default model."""
        pool: EnginePool = self.app.state.gateway.models.default.pool
        return pool

    async def get(self, path: str, **headers: str) -> tuple[int, Any]:
        """Ask over HTTP; returns the status and the JSON or text."""

        def ask() -> tuple[int, Any]:
            scheme = "https" if self.is_secure else "http"
            url = f"{scheme}://127.0.0.1:{self.port}{path}"
            request = urllib.request.Request(url, headers=headers)  # noqa: S310
            # Whoever wants the certificate checked brings a client of their own.
            trust = ssl._create_unverified_context() if self.is_secure else None  # noqa: S323
            try:
                with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=trust) as response:  # noqa: S310
                    body = response.read().decode()
                    is_json = response.headers["content-type"] == "application/json"
                    return response.status, json.loads(body) if is_json else body
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, json.load(error)

        return await asyncio.to_thread(ask)


@asynccontextmanager
async def serving(
    engine: Engine | Mapping[str, Sequence[Engine]],
    settings: Settings,
    network: Network | None = None,
) -> AsyncIterator[Served]:
    """Serve models until left, then stop and close everything.

    Args:
        engine: not started; of the only model, or the engines of each model by its name.
        settings: of the server; its address is another, free one.
        network: for WebRTC; None for a server without.
    """
    engines = engine if isinstance(engine, Mapping) else {settings.model.name: [engine]}
    app = create_app(settings, engines, network)
    runner = uvicorn.Server(uvicorn_config(app, settings))
    with contextlib.closing(listening_socket("127.0.0.1", 0)) as listener:
        is_secure = settings.server.tls_certificate is not None
        served = Served(listener.getsockname()[1], app, runner.server_state, is_secure)
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(runner.serve(sockets=[listener]), name="uvicorn")
            async with asyncio.timeout(TIMEOUT_S):
                while (await served.get("/readyz"))[0] != 200:
                    assert not task.done(), "the server stopped"
            try:
                yield served
            finally:
                runner.should_exit = True
