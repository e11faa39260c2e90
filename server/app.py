"""Wire the gateway together, and run it."""

import contextlib
import errno
import logging
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles

from model.messages import Engine
from server.audio.silero import SileroModel
from server.capacity.admission import session_bound, with_max_sessions
from server.capacity.record import this_machine
from server.config import Settings
from server.engine import make_engine
from server.errors import ClientError, ConfigError
from server.metrics import Metrics
from server.protocol.settings.config import VoiceMap
from server.session.counts import Counts
from server.session.link import EngineLink
from server.transport.client_secrets import ClientSecrets, Sessions, TranscriptionSessions
from server.transport.envelope import on_client_error, on_http_error, on_server_error
from server.transport.ephemeral import EphemeralKeys
from server.transport.gateway import Gateway
from server.transport.http import healthz, metrics, model, models, readyz
from server.transport.websocket import PATHS, serve_realtime

if TYPE_CHECKING:
    from server.webrtc.calls import Calls
    from server.webrtc.network import Network

_WEB = Path(__file__).parent / "web"
# Clients built on the `websockets` library ping every 20 s and expect the same of servers.
_PING_S = 20.0
_STOP_TIMEOUT_S = 5
# Pages of this machine, whatever their port.
_LOOPBACK_ORIGIN = r"https?://(localhost|127(\.\d+){3}|\[::1\])(:\d+)?"


def create_app(settings: Settings, engine: Engine, network: "Network | None" = None) -> Starlette:
    """Return the ASGI application that serves an engine.

    Args:
        settings: of the whole server.
        engine: not started; the application starts and stops it.
        network: bound, for calls by WebRTC; the application opens and closes it. None for a server
            that takes none.

    Raises:
        ConfigError: a voice maps onto one that the engine does not have.
    """
    vad_model = SileroModel()  # first: the engine may still be loading, elsewhere
    voices = voice_map(settings.voices, engine.info.voices)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        gateway: Gateway = app.state.gateway
        await gateway.link.start()
        try:
            async with _taking_calls(app):
                yield
        finally:
            await gateway.link.stop()

    app = Starlette(
        routes=_routes(has_calls=network is not None),
        middleware=[_cors(settings)],
        exception_handlers={
            ClientError: on_client_error,
            HTTPException: on_http_error,
            Exception: on_server_error,
        },
        lifespan=lifespan,
    )
    keys = EphemeralKeys(settings.server.max_ephemeral_keys)
    link, counts = EngineLink(engine), Counts()
    app.state.gateway = Gateway(
        settings, link, voices, vad_model, keys, counts, Metrics(counts, link)
    )
    app.state.calls = None
    if network is not None:
        from server.webrtc.calls import Calls  # noqa: PLC0415 - see `_routes`

        app.state.calls = Calls(settings.webrtc, network, link, counts)
    return app


@contextlib.asynccontextmanager
async def _taking_calls(app: Starlette) -> AsyncIterator[None]:
    """Take calls by WebRTC, where there is a network for them."""
    calls: Calls | None = app.state.calls
    if calls is None:
        yield
        return
    await calls.start()
    try:
        yield
    finally:
        await calls.stop()


def _routes(*, has_calls: bool) -> list[BaseRoute]:
    """Return every path that is served."""
    realtime: list[BaseRoute] = []
    for path in PATHS:
        if has_calls:
            # Loaded only where it is used: aiortc and what it needs take 60 MB.
            from server.webrtc.routes import call_routes  # noqa: PLC0415

            realtime += call_routes(path)
        realtime += [
            WebSocketRoute(path, serve_realtime),
            Route(f"{path}/client_secrets", ClientSecrets),
            Route(f"{path}/sessions", Sessions),
            Route(f"{path}/transcription_sessions", TranscriptionSessions),
        ]
        base = path.removesuffix("/realtime")
        realtime += [Route(f"{base}/models", models), Route(f"{base}/models/{{name:path}}", model)]
    return [
        *realtime,
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/metrics", metrics),
        # The playground page; last, since it takes every path.
        Mount("/", StaticFiles(directory=_WEB, html=True)),
    ]


def _cors(settings: Settings) -> Middleware:
    """Return which pages' scripts may read answers.

    Where keys are needed, any page that has one may: credentials are never sent by themselves.
    Where none are, only pages of this machine.
    """
    any_page, own_pages = (["*"], None) if settings.server.api_keys else ([], _LOOPBACK_ORIGIN)
    return Middleware(
        CORSMiddleware,
        allow_origins=any_page,
        allow_origin_regex=own_pages,
        allow_methods=["GET", "POST"],
        allow_headers=["*"],
        expose_headers=["Location"],
    )


def voice_map(names: Mapping[str, str], engine_voices: tuple[str, ...]) -> VoiceMap:
    """Return which voices clients may ask for: the configured names and the engine's own."""
    for name, voice in names.items():
        if voice not in engine_voices:
            known = ", ".join(repr(known) for known in engine_voices)
            raise ConfigError(f"voices.{name}: the model has no voice {voice!r}, only {known}")
    every = {**names, **{voice: voice for voice in engine_voices if voice not in names}}
    return VoiceMap(every, next(iter(every)))


def listening_socket(host: str, port: int) -> socket.socket:
    """Take the address to serve on, before anything slow is done.

    Raises:
        ConfigError: the address is taken, or not one of this machine.
    """
    family, kind, protocol, _, address = _resolved(host, port)
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        # Bound sockets may share an address until one of them listens.
        listener.listen()
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"server.port: {port} on {host} is in use already; stop what uses it, or choose "
                f"another with --set server.port={port + 1}"
            ) from None
        reason = error.strerror or error
        raise ConfigError(f"server.host: cannot listen on {host}:{port}: {reason}") from None
    return listener


def _resolved(host: str, port: int) -> tuple[int, int, int, str, tuple[str, int]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"server.host: {host!r} is not an address: {error}") from None
    family, kind, protocol, name, address = found
    return family, kind, protocol, name, (str(address[0]), int(address[1]))


def serve(settings: Settings) -> None:
    """Serve until interrupted.

    Raises:
        ConfigError: the address cannot be used, a voice does not exist, or a script is broken.
        WeightsError: the model cannot be loaded.
    """
    set_up_logging()
    log = structlog.get_logger("server")
    listener = listening_socket(settings.server.host, settings.server.port)
    with contextlib.closing(listener):
        bound = session_bound(settings, this_machine())
        settings = with_max_sessions(settings, bound.sessions)
        network = _network(settings, listener.getsockname()[1])
        log.info("admission", max_sessions=bound.sessions, reason=bound.reason)
        twin = settings.model.twin
        source = f"a random twin of {twin}" if twin else settings.model.script or settings.model.dir
        log.info("loading", model=settings.model.name, source=str(source))
        engine = make_engine(settings)
        try:
            app = create_app(settings, engine, network)
            if engine.info.note:
                log.warning("note", model=settings.model.name, note=engine.info.note)
            host, port = listener.getsockname()[:2]
            log.info(
                "serving",
                url=f"ws://{host}:{port}/v1/realtime?model={settings.model.name}",
                playground=f"http://{host}:{port}/",
                webrtc_udp_port=network and network.udp_port,
            )
            uvicorn.Server(uvicorn_config(app, settings)).run(sockets=[listener])
        finally:
            engine.stop()  # where the application did not come so far as to do it


def _network(settings: Settings, port: int) -> "Network | None":
    """Take the ports of calls by WebRTC, before anything slow is done.

    Raises:
        ConfigError: one cannot be had.
    """
    if not settings.webrtc.enabled:
        return None
    from server.webrtc.network import Network  # noqa: PLC0415 - as in `_routes`

    return Network(settings.webrtc, settings.server.host, port)


def uvicorn_config(app: Starlette, settings: Settings) -> uvicorn.Config:
    """Return how the application is run."""
    return uvicorn.Config(
        app,
        ws="websockets-sansio",
        ws_max_size=settings.server.max_message_bytes,
        ws_ping_interval=_PING_S,
        ws_ping_timeout=_PING_S,
        # Audio in base64 hardly shrinks, and deflating it costs more than a frame's budget.
        ws_per_message_deflate=False,
        lifespan="on",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=_STOP_TIMEOUT_S,
    )


def set_up_logging() -> None:
    """Write one line an event to standard error."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(key_order=["timestamp", "level", "event"]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
