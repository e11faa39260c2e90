"""Wire the gateway together, and run it."""

import asyncio
import contextlib
import errno
import functools
import gc
import itertools
import signal
import socket
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING

import structlog
import uvicorn
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from model.messages import Engine
from model.schemas.service import SchemaService
from server.audio.cleaning import check_library
from server.audio.silero import SileroModel
from server.capacity.admission import session_bound, with_bounds
from server.capacity.record import this_machine
from server.config import ServerSettings, Settings
from server.delegate.counts import DelegateCounts
from server.delegate.desk import DelegateDesk
from server.descriptors import raise_descriptor_limit
from server.engine import make_engines
from server.errors import ClientError, ConfigError, EngineGoneError
from server.filters.desk import FilterDesk
from server.images.service import ImageService
from server.logs import log_loop_error, set_up_logging
from server.mcp.audit import AuditLog
from server.mcp.desk import ToolDesk
from server.memory import give_memory_back
from server.metrics import Metrics
from server.names import parley_version
from server.protocol.settings.config import VoiceMap
from server.recording.identity import identities
from server.recording.recorder import Recorder
from server.session.accounts import watch
from server.session.comeback import Comebacks
from server.session.counts import Counts
from server.session.drain import Drain
from server.session.gallery import Gallery
from server.session.ledger import Ledger
from server.session.link import LinkState
from server.session.pool import EnginePool
from server.session.schemas import SchemaGate
from server.session.today import take_up
from server.session.usage import UsageBook
from server.telephony.calls import PhoneCalls
from server.telephony.routes import check_session, phone_routes
from server.transport.api_keys import ApiKeys
from server.transport.certificate import check_certificate
from server.transport.door import KnownHosts
from server.transport.envelope import on_client_error, on_server_error
from server.transport.ephemeral import EphemeralKeys, KeyBook
from server.transport.gateway import Gateway
from server.transport.headers import SafeHeaders
from server.transport.models import Models, ServedModel
from server.transport.places import Places
from server.transport.routes import add_routes, on_wrong_request
from server.transport.signed import SignedKeys, Signer
from server.transport.tries import FailedTries
from server.transport.wire import WireConfig

if TYPE_CHECKING:
    from server.telemetry.tracing import Tracing
    from server.webrtc.calls import Calls
    from server.webrtc.network import Network

# Clients built on the `websockets` library ping every 20 s and expect the same of servers.
_PING_S = 20.0
_STOP_TIMEOUT_S = 5
# asyncio accepts so many connections at a time, and where there are no descriptors left it fails
# so many times.
_BACKLOG = 128
_GIVEN_UP_TICKS = 10  # a second
# Pages of this machine, whatever their port.
_LOOPBACK_ORIGIN = r"https?://(localhost|127(\.\d+){3}|\[::1\])(:\d+)?"


def create_app(
    settings: Settings,
    engines: Mapping[str, Sequence[Engine]],
    network: "Network | None" = None,
) -> FastAPI:
    """Return the ASGI application that serves models.

    Args:
        settings: of the whole server.
        engines: of each model by its name, not started; the application starts and stops them.
        network: bound, for calls by WebRTC; the application opens and closes it. None for a server
            that takes none.

    Raises:
        ConfigError: a voice maps onto one that a model does not have, or the ledger of use cannot
            be written.
    """
    check_library()
    vad_model = SileroModel()  # first: the engines may still be loading, elsewhere
    images = ImageService(
        max_bytes=settings.images.max_bytes, max_pixels=settings.images.max_pixels
    )
    models = Models([_served(each, engines, images) for each in settings.each_model])
    _check_delegate(settings, models)
    written = settings.usage
    ledger = Ledger(written.ledger, written.ledger_bytes) if written.ledger is not None else None
    usage = UsageBook(ledger, written.flush_s)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        gateway: Gateway = app.state.gateway
        asyncio.get_running_loop().set_exception_handler(log_loop_error)
        pools = [model.pool for model in gateway.models]
        try:
            # All at once: each may take minutes to get warm.
            await _all(pool.start() for pool in pools)
            usage.start()
            if app.state.phone is not None:
                await check_session(gateway, app.state.phone)
            async with _watching(gateway), _taking_calls(app):
                yield
        finally:
            await _all(pool.stop() for pool in pools)
            await usage.close()
            await gateway.schemas.close()
            gateway.tools.close()
            await gateway.filters.close()
            await images.close()
            if gateway.recorder is not None:
                await asyncio.to_thread(gateway.recorder.close)
            if gateway.tracing is not None:
                await asyncio.to_thread(gateway.tracing.close)

    app = FastAPI(
        title="Parley",
        version=parley_version(),
        description="A voice model behind a Realtime API. Sessions are WebSockets at "
        "`/v1/realtime`, whose events docs/api.md describes; this is the HTTP side.",
        # No page of theirs: it would load its scripts from another site.
        # What the environment says of it would send requests to others.
        telemetry={"auto_configure": False, "tracing": False, "metrics": False, "logs": False},
        openapi_url="/openapi.json" if settings.server.has_openapi else None,
        docs_url=None,
        redoc_url=None,
        middleware=_middleware(settings),
        exception_handlers={
            ClientError: on_client_error,
            HTTPException: on_wrong_request,
            Exception: on_server_error,
        },
        lifespan=lifespan,
    )
    if network is None:
        add_routes(app)
    else:
        # Loaded only where it is used: aiortc and what it needs take 60 MB.
        from server.webrtc.routes import call_routes  # noqa: PLC0415

        add_routes(app, call_routes)
    keys = _key_book(settings, models)
    counts, schemas = Counts(), SchemaService()
    drain, delegated = Drain(settings.server.drain_s), DelegateCounts()
    api_keys = ApiKeys(settings.server.api_keys, settings.server.keys)
    take_up(api_keys.accounts, written.ledger)
    approvals = settings.approvals
    audit = AuditLog(approvals.audit_file, approvals.audit_bytes, approvals.audit_files)
    filters = FilterDesk(settings.filters)
    pools = {model.name: model.pool for model in models}
    accounts = api_keys.accounts
    app.state.gateway = Gateway(
        settings,
        models,
        vad_model,
        api_keys,
        keys,
        counts,
        Metrics(counts, pools, drain, accounts, usage, filters.counts, delegated, images.counts),
        FailedTries(counts),
        SchemaGate(schemas, settings.server.max_tools),
        ToolDesk(settings.mcp, schemas, audit),
        filters,
        DelegateDesk(settings.delegate, schemas, delegated),
        drain,
        usage,
        Comebacks(),
        _tracing(settings, counts),
        _recorder(settings, counts),
    )
    app.state.phone = None
    if settings.telephony.is_on:
        app.state.phone = phone = PhoneCalls(settings, models)
        app.include_router(phone_routes(phone))
    app.state.calls = None
    if network is not None:
        from server.webrtc.calls import Calls  # noqa: PLC0415 - see above

        app.state.calls = Calls(settings.webrtc, network, counts)
    return app


def _tracing(settings: Settings, counts: Counts) -> "Tracing | None":
    """Return what traces sessions, where that is wanted.

    Raises:
        ConfigError: its packages are not installed.
    """
    if not settings.telemetry.traces:
        return None
    try:
        # Loaded only where it is used.
        from server.telemetry.tracing import Tracing  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            f"telemetry.traces: {error.name} is not installed; "
            "`pip install .[telemetry]` in Parley's folder does it"
        ) from None
    return Tracing(settings.telemetry, counts, parley_version())


def _recorder(settings: Settings, counts: Counts) -> Recorder | None:
    """Return what records sessions, where that is offered.

    Raises:
        ConfigError: the folder cannot be written, or a package is missing.
    """
    if not settings.recordings.enabled:
        return None
    try:
        return Recorder(settings.recordings, counts, functools.partial(identities, settings))
    except OSError as error:
        raise ConfigError(f"recordings.dir: cannot be written: {error}") from None


def _served(
    settings: Settings, engines: Mapping[str, Sequence[Engine]], images: ImageService
) -> ServedModel:
    """Return one model of the server."""
    model = settings.model
    pool = EnginePool(engines[model.name])
    voices = voice_map(settings.voices, pool.info.voices, model.name)
    return ServedModel(
        settings, pool, voices, Gallery(images, settings.images, pool.info.image_side)
    )


async def _all(works: Iterable[Coroutine[None, None, None]]) -> None:
    """Do several things at once, and wait for all of them, also where one fails."""
    for failure in await asyncio.gather(*works, return_exceptions=True):
        if failure is not None:
            raise failure


def _check_delegate(settings: Settings, models: Models) -> None:
    """Refuse to ask a text model about conversations that nobody writes down.

    Raises:
        ConfigError: there is such a model, and one is to be asked.
    """
    if settings.delegate.url is not None and all(model.pool.info.is_duplex for model in models):
        raise ConfigError(
            f"delegate.url: {models.default.name!r} listens and speaks at once and writes no "
            "transcripts, so there is nothing to ask a text model; leave it out"
        )


def _key_book(settings: Settings, models: Models) -> KeyBook:
    """Return what makes and knows ephemeral keys."""
    server = settings.server
    if not server.key_secrets:
        return EphemeralKeys(server.max_ephemeral_keys)
    signer = Signer(server.key_secrets)
    return SignedKeys(server.max_ephemeral_keys, signer, server.key_epoch, models.config)


@contextlib.asynccontextmanager
async def _watching(gateway: Gateway) -> AsyncIterator[None]:
    """End the sessions of keys that have used their time, where a key has so much only."""
    if not any(account.is_timed for account in gateway.api_keys.accounts):
        yield
        return
    watching = asyncio.create_task(watch(gateway.api_keys.accounts), name="limits of keys")
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


@contextlib.asynccontextmanager
async def _taking_calls(app: FastAPI) -> AsyncIterator[None]:
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


def _middleware(settings: Settings) -> list[Middleware]:
    """Return what every request passes."""
    server = settings.server
    # With keys the name does not matter, unless it is said which: a page that rebinds its name has
    # no key.
    is_any_host = server.has_keys and not server.allowed_hosts
    known = Middleware(KnownHosts, names=server.allowed_hosts, has_keys=server.has_keys)
    hosts = [] if is_any_host else [known]
    return [Middleware(SafeHeaders, hsts_s=server.hsts_s), *hosts, _cors(server)]


def _cors(server: ServerSettings) -> Middleware:
    """Return which pages' scripts may read answers.

    Where keys are needed, any page that has one may, or those that are listed: credentials are
    never sent by themselves. Where none are, only pages of this machine and those.
    """
    is_any_page = server.has_keys and not server.allowed_origins
    return Middleware(
        CORSMiddleware,
        allow_origins=["*"] if is_any_page else server.allowed_origins,
        allow_origin_regex=None if server.has_keys else _LOOPBACK_ORIGIN,
        allow_methods=["GET", "POST"],
        allow_headers=["*"],
        expose_headers=["Location"],
    )


def voice_map(names: Mapping[str, str], engine_voices: tuple[str, ...], model: str) -> VoiceMap:
    """Return which voices clients may ask for: the configured names and the engine's own."""
    for name, voice in names.items():
        if voice not in engine_voices:
            known = ", ".join(repr(known) for known in engine_voices)
            raise ConfigError(
                f"voices.{name}: the model {model!r} has no voice {voice!r}, only {known}"
            )
    every = {**names, **{voice: voice for voice in engine_voices if voice not in names}}
    return VoiceMap(every, next(iter(every)))


def listening_socket(host: str, port: int) -> socket.socket:
    """Take the address to serve on, before anything slow is done.

    Raises:
        ConfigError: the address is taken, or not one of this machine.
    """
    # Before the model is read, which may take minutes: a port that is taken is told at once.
    family, kind, protocol, _, address = _resolved(host, port)
    listener = socket.socket(family, kind, protocol)
    try:
        # Connections of a server that has just ended stay for a while (TIME_WAIT; RFC 9293, section
        # 3.6). Its successor may listen all the same.
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
        ConfigError: the address or the certificate cannot be used, a voice does not exist, or a
            script is broken.
        WeightsError: the model cannot be loaded.
        EngineGoneError: the engine died too often.
    """
    set_up_logging()
    log = structlog.get_logger("server")
    give_memory_back()
    check_certificate(settings.server)
    listener = listening_socket(settings.server.host, settings.server.port)
    with contextlib.closing(listener):
        log.info("descriptors", soft_limit=raise_descriptor_limit())
        # The descriptors were raised first: each call may need one, and many systems begin with
        # 1,024.
        settings = _with_bounds(settings)
        network = _network(settings, listener.getsockname()[1])
        for each in settings.each_model:
            twin = each.model.twin
            source = f"a random twin of {twin}" if twin else each.model.script or each.model.dir
            devices = [*each.engine.places]
            log.info("loading", model=each.model.name, source=str(source), devices=devices)
        # The order of what follows is that of what can go wrong soonest: certificate, ports, the
        # file of measurements, then the model.
        engines = make_engines(settings)
        try:
            app = create_app(settings, engines, network)
            for name, (engine, *_) in engines.items():
                if engine.info.note:
                    log.warning("note", model=name, note=engine.info.note)
            host, port = listener.getsockname()[:2]
            secure = "s" if settings.server.tls_certificate else ""
            log.info(
                "serving",
                version=parley_version(),
                url=f"ws{secure}://{host}:{port}/v1/realtime?model={next(iter(engines))}",
                models=[*engines],
                playground=f"http{secure}://{host}:{port}/",
                webrtc_udp_port=network and network.udp_port,
            )
            # What was loaded stays: to look through it again and again, whenever an event has many
            # parts, would hold the event loop for a tenth of a second.
            gc.collect()
            gc.freeze()
            Server(uvicorn_config(app, settings), app).run(sockets=[listener])
        finally:
            for engine in itertools.chain.from_iterable(engines.values()):
                engine.stop()  # where the application did not come so far as to do it


def _with_bounds(settings: Settings) -> Settings:
    """Return the settings with the sessions that each engine holds, and say where these are from.

    Raises:
        ConfigError: the file of measurements is broken.
    """
    log, machine = structlog.get_logger("server"), this_machine()
    bounds = {each.model.name: session_bound(each, machine) for each in settings.each_model}
    for name, bound in bounds.items():
        log.info("admission", model=name, max_sessions=bound.sessions, reason=bound.reason)
    return with_bounds(settings, {name: bound.sessions for name, bound in bounds.items()})


def _network(settings: Settings, port: int) -> "Network | None":
    """Take the ports of calls by WebRTC, before anything slow is done.

    Raises:
        ConfigError: one cannot be had.
    """
    if not settings.webrtc.enabled:
        return None
    from server.webrtc.network import Network  # noqa: PLC0415 - see `create_app`

    return Network(settings.webrtc, settings.server.host, port)


class Server(uvicorn.Server):
    """Run the application until it is interrupted, or the last of its engines is given up.

    SIGTERM lets the sessions that are open come to their end first, and a second one does not.
    SIGINT, which somebody at a terminal sends, stops at once.

    Args:
        config: of uvicorn.
        app: that `create_app` made.
    """

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        gateway: Gateway = app.state.gateway
        self._pools = [model.pool for model in gateway.models]
        self._drain = gateway.drain
        self._comebacks = gateway.comebacks
        self._calls: Calls | None = app.state.calls
        self._phone: PhoneCalls | None = app.state.phone
        self._is_drain_wanted = False
        self._given_up_ticks = 0
        self._log = structlog.get_logger("server")

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve.

        Raises:
            EngineGoneError: every engine died too often. Nothing can be served without one, and
                whoever supervises this process can start it anew.
        """
        super().run(sockets)
        if self._given_up_ticks:
            raise EngineGoneError("every engine died too often, and the server ended with them")

    async def on_tick(self, counter: int) -> bool:
        """Say ten times a second whether to stop."""
        # One second between the last word to the sessions and the end: ten ticks of 0.1 s. While
        # one model is served, its callers are not cut off because another one is given up.
        if all(pool.state is LinkState.FAILED for pool in self._pools):
            # Its sessions are told first, and `/readyz` says it meanwhile.
            self._given_up_ticks += 1
            if self._given_up_ticks == 1:
                self._log.error("no engine is left: stopping")
        is_over = self._given_up_ticks > _GIVEN_UP_TICKS
        if self._is_drain_wanted and not self.should_exit:
            self._go_on_draining()
        return await super().on_tick(counter) or is_over

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Note a signal to stop. It may come between any two lines: the next tick acts on it."""
        # The orchestrator's way: SIGTERM, then SIGKILL after its own time. Only a flag is set here,
        # since Python runs handlers between any two instructions of the main thread.
        if sig == signal.SIGTERM and not self._is_drain_wanted:
            self._is_drain_wanted = True
            return
        self._stop(sig, frame)

    def _go_on_draining(self) -> None:
        if not self._drain.is_begun:
            self._drain.begin()
            self._log.info("draining", sessions=self._num_open, ends_at=self._drain.ends_at)
        # For example, SIGTERM at 12:00:00 with two calls, and 25 s for them. One ends at 12:00:04,
        # the other at 12:00:11, and the server ends then. If one goes on, it is ended at 12:00:25.
        if self._drain.is_due or self._num_open == 0:
            self._stop(signal.SIGTERM, None)

    def _stop(self, sig: int, frame: FrameType | None) -> None:
        self._log.info("stopping", signal=signal.Signals(sig).name, sessions=self._num_open)
        # They have no connection that would tell them.
        self._comebacks.end_those_away()
        super().handle_exit(sig, frame)

    @property
    def _num_open(self) -> int:
        """Count sessions, those that are on their way, and calls that are being closed."""
        # A parked session has no slot, and its client may still come back.
        num_coming = sum(pool.num_coming for pool in self._pools) + self._comebacks.num_parked
        num_coming += self._phone.num_expected if self._phone else 0
        return max(num_coming, self._calls.num_calls if self._calls else 0)


def uvicorn_config(app: FastAPI, settings: Settings) -> WireConfig:
    """Return how the application is run."""
    server = settings.server
    return WireConfig(
        app,
        places=Places(server.max_connections, server.max_connections_per_address),
        ws_max_size=server.max_message_bytes,
        h11_max_incomplete_event_size=server.max_head_bytes,
        ws_ping_interval=_PING_S,
        # A peer that is gone without a word is noticed after 20 to 40 s.
        ws_ping_timeout=_PING_S,
        # Audio in base64 hardly shrinks, and deflating it costs more than a frame's budget.
        ws_per_message_deflate=False,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=_BACKLOG,
        # From others the header is not believed: it would choose the address under which tries are
        # counted.
        forwarded_allow_ips=[*server.trusted_proxies],
        ssl_certfile=server.tls_certificate,
        ssl_keyfile=server.tls_key,
        timeout_graceful_shutdown=_STOP_TIMEOUT_S,
    )
