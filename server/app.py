"""Wire the gateway together, and run it."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from model.messages import Engine
from model.schemas.service import SchemaService
from server.audio.cleaning import check_library
from server.audio.silero import SileroModel
from server.config.server import ServerSettings
from server.config.settings import Settings
from server.delegate.counts import DelegateCounts
from server.delegate.desk import DelegateDesk
from server.errors import ClientError, ConfigError
from server.filters.desk import FilterDesk
from server.images.service import ImageService
from server.logs import log_loop_error
from server.mcp.audit import AuditLog
from server.mcp.desk import ToolDesk
from server.metrics import Metrics
from server.names import parley_version
from server.protocol.settings.config import VoiceMap
from server.recording.identity import identities
from server.recording.recorder import Recorder
from server.session.accounts import watch
from server.session.comeback import Comebacks
from server.session.counts import Counts
from server.session.desks import Desks
from server.session.drain import Drain
from server.session.gallery import Gallery
from server.session.ledger import Ledger
from server.session.pool import EnginePool
from server.session.schemas import SchemaGate
from server.session.today import take_up
from server.session.usage import UsageBook
from server.telephony.calls import PhoneCalls
from server.telephony.routes import check_session, phone_routes
from server.transport.api_keys import ApiKeys
from server.transport.door import KnownHosts
from server.transport.envelope import on_client_error, on_server_error
from server.transport.ephemeral import EphemeralKeys, KeyBook
from server.transport.gateway import Gateway
from server.transport.headers import SafeHeaders
from server.transport.models import Models, ServedModel
from server.transport.routes import add_routes, on_wrong_request
from server.transport.signed import SignedKeys, Signer
from server.transport.tries import FailedTries

if TYPE_CHECKING:
    from server.telemetry.tracing import Tracing
    from server.webrtc.calls import Calls
    from server.webrtc.network import Network

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
    check_library(*{each.info.sample_rate_hz for model in engines.values() for each in model})
    gateway = _gateway(settings, engines)
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
        lifespan=_running,
    )
    app.state.gateway = gateway
    if network is None:
        app.state.calls = None
        add_routes(app)
    else:
        # Loaded only where it is used: aiortc and what it needs take 60 MB.
        from server.webrtc.calls import Calls  # noqa: PLC0415
        from server.webrtc.routes import call_routes  # noqa: PLC0415

        app.state.calls = Calls(settings.webrtc, network, gateway.counts)
        add_routes(app, call_routes)
    app.state.phone = phone = _phone(gateway)
    if phone is not None:
        app.include_router(phone_routes(phone))
    return app


def _gateway(settings: Settings, engines: Mapping[str, Sequence[Engine]]) -> Gateway:
    """Return what all sessions share."""
    vad_model = SileroModel()  # first: the engines may still be loading, elsewhere
    images = ImageService(
        max_bytes=settings.images.max_bytes, max_pixels=settings.images.max_pixels
    )
    models = Models([_served(each, engines, images) for each in settings.each_model])
    _check_delegate(settings, models)
    api_keys = ApiKeys(settings.server.api_keys, settings.server.keys)
    counts, delegated, schemas = Counts(), DelegateCounts(), SchemaService()
    usage, drain = _usage(settings), Drain(settings.server.drain_s)
    take_up(api_keys.accounts, settings.usage.ledger)
    filters = FilterDesk(settings.filters)
    approvals = settings.approvals
    audit = AuditLog(approvals.audit_file, approvals.audit_bytes, approvals.audit_files)
    metrics = Metrics(
        counts,
        {model.name: model.pool for model in models},
        drain,
        api_keys.accounts,
        usage,
        filters.counts,
        delegated,
        images.counts,
    )
    return Gateway(
        settings=settings,
        models=models,
        vad_model=vad_model,
        api_keys=api_keys,
        keys=_key_book(settings, models),
        counts=counts,
        metrics=metrics,
        tries=FailedTries(counts),
        schemas=SchemaGate(schemas, settings.server.max_tools),
        desks=Desks(
            ToolDesk(settings.mcp, schemas, audit),
            filters,
            DelegateDesk(settings.delegate, schemas, delegated),
        ),
        images=images,
        drain=drain,
        usage=usage,
        comebacks=Comebacks(),
        tracing=_tracing(settings, counts),
        recorder=_recorder(settings, counts),
    )


@contextlib.asynccontextmanager
async def _running(app: FastAPI) -> AsyncIterator[None]:
    """Start what serves sessions, and stop it at the end."""
    gateway: Gateway = app.state.gateway
    asyncio.get_running_loop().set_exception_handler(log_loop_error)
    pools = [model.pool for model in gateway.models]
    try:
        # All at once: each may take minutes to get warm.
        await _all(pool.start() for pool in pools)
        gateway.hearing.start()
        gateway.usage.start()
        if app.state.phone is not None:
            await check_session(gateway, app.state.phone)
        async with _watching(gateway), _taking_calls(app):
            yield
    finally:
        await _all(pool.stop() for pool in pools)
        await gateway.close()


def _phone(gateway: Gateway) -> PhoneCalls | None:
    """Return what takes telephone calls, where they are wanted."""
    settings = gateway.settings
    return PhoneCalls(settings, gateway.models) if settings.telephony.is_on else None


def _usage(settings: Settings) -> UsageBook:
    """Return what counts use, and writes it down where that is wanted.

    Raises:
        ConfigError: the ledger cannot be written.
    """
    written = settings.usage
    ledger = Ledger(written.ledger, written.ledger_bytes) if written.ledger is not None else None
    return UsageBook(ledger, written.flush_s)


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

    If keys are needed, any page may, or only the listed ones: a browser never sends a key by
    itself. If none are needed, only pages of this machine may, and the listed ones.
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
