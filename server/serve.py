"""Run the gateway: take its address, load its models, serve, and stop in order."""

import contextlib
import errno
import itertools
import signal
import socket
from types import FrameType
from typing import TYPE_CHECKING

import structlog
import uvicorn
from fastapi import FastAPI

from model.heap import give_memory_back, share_arenas
from server.app import create_app
from server.capacity.admission import session_bound, with_bounds
from server.capacity.record import this_machine
from server.config.settings import Settings
from server.engine import make_engines
from server.errors import ConfigError, EngineGoneError
from server.logs import set_up_logging
from server.names import parley_version
from server.process import keep_loaded, raise_descriptor_limit
from server.session.link import LinkState
from server.telephony.calls import PhoneCalls
from server.transport.certificate import check_certificate
from server.transport.gateway import Gateway
from server.transport.places import Places
from server.transport.wire import WireConfig

if TYPE_CHECKING:
    from server.webrtc.calls import Calls
    from server.webrtc.network import Network

# Clients built on the `websockets` library ping every 20 s and expect the same of servers.
_PING_S = 20.0
_STOP_TIMEOUT_S = 5
# asyncio accepts so many connections at a time, and where there are no descriptors left it fails
# so many times.
_BACKLOG = 128
_GIVEN_UP_TICKS = 10  # a second


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
    share_arenas()
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
            keep_loaded()
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
