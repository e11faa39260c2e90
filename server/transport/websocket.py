"""Serve `WS /v1/realtime`: the handshake, and frames to and from a session."""

import asyncio
import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace

from fastapi import WebSocket, WebSocketDisconnect

from server.errors import ClientError, DisconnectedError, OverloadedError
from server.protocol.dialects.beta import BetaDialect, GuessingDialect
from server.protocol.dialects.ga import Dialect, GaDialect, error_json
from server.protocol.events import EndReason, Hangup
from server.protocol.ids import RandomIds
from server.protocol.server_events import ErrorEvent
from server.protocol.settings.config import SessionConfig, SessionKind
from server.session.counts import count_in
from server.session.session import Session
from server.transport.auth import Admitted, chosen_subprotocol, is_browser
from server.transport.close_codes import (
    CLOSE_BAD_KEY,
    CLOSE_BAD_REQUEST,
    CLOSE_CODES,
    CLOSE_TRY_AGAIN_LATER,
)
from server.transport.door import (
    check_draining,
    check_origin,
    check_readiness,
    check_room,
    counted,
    let_back_in,
    let_backend_in,
    let_session_in,
    not_ready,
)
from server.transport.envelope import (
    RefusedError,
    at_capacity,
    bad_key,
    error_response,
    no_such_url,
)
from server.transport.ephemeral import EphemeralKey
from server.transport.gateway import CallBook, Gateway
from server.transport.models import ServedModel, key_config
from server.transport.places import Place
from server.transport.safety import safety_identifier, with_safety_identifier
from server.transport.wire import PIECES_KEY, PLACE_KEY, ROUND_TRIP_KEY

# Real clients produce all of them: the API's own path, base addresses without /v1, and Azure's.
PATHS = ("/v1/realtime", "/realtime", "/openai/v1/realtime", "/openai/realtime")

# Refusals that a page should be able to tell its user about: a browser hides an HTTP answer from
# it, so its connection is accepted and closed with these.
_UNREADABLE = {
    "call_not_found": CLOSE_BAD_REQUEST,
    "events_lost": CLOSE_BAD_REQUEST,
    "session_not_found": CLOSE_BAD_REQUEST,
    "invalid_api_key": CLOSE_BAD_KEY,
    "rate_limit_exceeded": CLOSE_TRY_AGAIN_LATER,
}

# The older of Azure's addresses says by date which shape it means.
_AZURE_DATED, _PREVIEW = "/openai/realtime", "-preview"
_TRANSCRIPT_DELTAS_SINCE = "2025"
_BETA_HEADER = "realtime=v1"
_BETA_SUBPROTOCOL = "openai-beta.realtime-v1"

_CLOSE_NOT_UTF8 = 1007

_KINDS: dict[str | None, SessionKind] = {
    "transcription": "transcription",
    "conversation": "realtime",
}


class WebSocketTransport:
    """Carry a session's frames over a WebSocket."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket

    async def receive(self) -> str:
        """Return the next frame; a binary one, which the API does not have, as an empty text."""
        # ASGI: `websocket.receive` has either "text" or "bytes".
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            # A close frame has a reason, if an empty one; a connection that broke has none. 1000 is
            # "normal", 1005 a frame without a code (RFC 6455, section 7.4.1); 1001 is sent by pages
            # that are left, also for being loaded again.
            has_left = "reason" in message and message["code"] in (1000, 1005)
            raise DisconnectedError(message.get("cause", "client"), has_left=has_left)
        pieces = message.get(PIECES_KEY)
        if pieces is None:
            return message.get("text") or ""
        try:
            return await asyncio.to_thread(lambda: b"".join(pieces).decode())
        except UnicodeDecodeError:
            # RFC 6455, section 8.1: such a message fails the connection, as 1007.
            await self.close_with(_CLOSE_NOT_UTF8, "not UTF-8")
            raise DisconnectedError("client", has_left=True) from None

    async def send(self, text: str) -> None:
        """Send a frame, waiting while the connection's buffer is full."""
        try:
            await self._socket.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            # RuntimeError is what the framework raises when the connection is closing already.
            raise DisconnectedError from None

    async def close(self, hangup: Hangup) -> None:
        """Close the connection."""
        await self.close_with(self.close_code(hangup.reason), hangup.text)

    @property
    def round_trip_s(self) -> float | None:
        """Return how long the last ping and its answer took."""
        measured: Callable[[], float | None] | None = self._socket.scope.get("state", {}).get(
            ROUND_TRIP_KEY
        )
        return None if measured is None else measured()

    def close_code(self, reason: EndReason) -> int:
        """Return the code that says so."""
        return CLOSE_CODES[reason]

    async def close_with(self, code: int, reason: str) -> None:
        """Close the connection with a code of RFC 6455, section 7.4."""
        try:
            await self._socket.close(code, reason)
        except (WebSocketDisconnect, RuntimeError):
            # RuntimeError is what the framework raises when the peer closed first.
            return


async def serve_realtime(socket: WebSocket) -> None:
    """Answer a WebSocket request."""
    gateway: Gateway = socket.app.state.gateway
    gateway.counts.connections += 1
    transport = WebSocketTransport(socket)
    with contextlib.ExitStack() as opened:
        session = await _let_in(socket, gateway, transport, opened)
        if session is not None:
            # Sessions are counted by the engine's places. Kept, both bounds would count the same
            # connection.
            leave_place(socket)
            with gateway.comebacks.knowing(session):
                await session.run()


async def _let_in(
    socket: WebSocket,
    gateway: Gateway,
    transport: WebSocketTransport,
    opened: contextlib.ExitStack,
) -> Session | None:
    """Return the session of a WebSocket request, not begun; None if it has been answered.

    Args:
        socket: of the request, not accepted.
        gateway: that it came to.
        transport: of the socket.
        opened: counts the session with the ephemeral key that it comes by, until it is closed.
    """
    offered = socket.scope["subprotocols"]
    holder = _Holder()
    try:
        # From the cheapest check to the dearest: where it comes from, its key, whether there is an
        # engine, and only then a place. What is refused before the upgrade is answered by an HTTP
        # status.
        check_origin(socket, gateway)
        if "call_id" in socket.query_params:
            await _serve_beside(socket, transport)
            return None
        if "session_id" in socket.query_params:
            await _serve_comeback(socket, transport)
            return None
        by = await let_session_in(socket)
        key = by.key
        check_draining(gateway)
        # Refused before the upgrade, if at all: there is none, or it has no engine just now.
        asked = key.config.model if key is not None and key.has_model else _asked_model(socket)
        model, said = gateway.models.called(asked)
        check_readiness(model)
        check_room(key)
        safety_identifier(socket.headers)  # likewise
        opened.enter_context(counted(by.account, holder.use_up))
        if key is not None:
            opened.enter_context(key.opened(holder.revoke))
        chosen = _Chosen(model, said, by)
        holder.session = await _accepted(socket, gateway, transport, chosen)
        if holder.is_revoked:
            await _hang_up(transport, CLOSE_BAD_KEY, bad_key("The ephemeral key was revoked."))
    except RefusedError as error:
        count_in(gateway.counts.refused, str(error.code))
        # A browser's script sees a failed handshake as "error", without status or body (WebSocket
        # API, "feedback from the protocol": so that no page can scan a network). A close code it
        # can read.
        close_code = _UNREADABLE.get(str(error.code))
        if close_code is not None and is_browser(socket.headers, offered):
            await socket.accept(chosen_subprotocol(offered))
            await _hang_up(transport, close_code, error)
        else:
            await socket.send_denial_response(error_response(error))
        return None
    except ClientError as error:
        count_in(gateway.counts.refused, str(error.code))
        await _hang_up(transport, CLOSE_BAD_REQUEST, error)
        return None
    return None if holder.is_revoked else holder.session


@dataclass(frozen=True, slots=True)
class _Chosen:
    """Say what a session is to have.

    Attributes:
        model: that it talks to.
        said: name of the model, as the session tells it.
        by: what it comes by.
    """

    model: ServedModel
    said: str
    by: Admitted

    @property
    def key(self) -> EphemeralKey | None:
        """Return the ephemeral key by which it comes, if by one."""
        return self.by.key


@dataclass(slots=True)
class _Holder:
    """Stand for the session of an ephemeral key before there is one.

    Attributes:
        session: once it is there.
        is_revoked: whether the key was revoked.
    """

    session: Session | None = None
    is_revoked: bool = False

    def use_up(self, message: str) -> None:
        """End the session, if it has begun; whoever calls comes again."""
        if self.session is not None:
            self.session.use_up(message)

    def revoke(self) -> None:
        """End the session, also one that has not begun."""
        self.is_revoked = True
        if self.session is not None:
            self.session.revoke()


def leave_place(socket: WebSocket) -> None:
    """Give back the place of a connection that has a session."""
    place: Place | None = socket.scope.get("state", {}).get(PLACE_KEY)
    if place is not None:
        place.leave()


async def refuse_path(socket: WebSocket) -> None:
    """Answer a WebSocket request for an address that there is not."""
    gateway: Gateway = socket.app.state.gateway
    gateway.counts.connections += 1
    try:
        check_origin(socket, gateway)
        await let_session_in(socket)
        raise no_such_url("GET", socket.url.path)
    except RefusedError as error:
        count_in(gateway.counts.refused, str(error.code))
        await socket.send_denial_response(error_response(error))


async def _serve_beside(socket: WebSocket, transport: WebSocketTransport) -> None:
    """Join a call that came by WebRTC or by telephone, to see and send what its client does.

    Raises:
        RefusedError: there is no such call, or the key is wrong.
    """
    await let_backend_in(socket, "sessions")
    call_id = socket.query_params["call_id"]
    # Telephone calls have the ids that their providers gave them.
    phone: CallBook | None = getattr(socket.app.state, "phone", None)
    calls: CallBook | None = getattr(socket.app.state, "calls", None)
    if phone is not None and phone.has(call_id):
        calls = phone
    if calls is None:
        raise RefusedError(404, "This server takes no WebRTC calls.", code="call_not_found")
    calls.check(call_id)
    # A backend comes as soon as it has the call's id, which may be before the call's client does.
    await socket.accept(chosen_subprotocol(socket.scope["subprotocols"]))
    try:
        session = await calls.session(call_id)
    except ClientError as error:
        await _hang_up(transport, CLOSE_BAD_REQUEST, error)
        return
    leave_place(socket)
    await session.attach(transport, asked_dialect(socket))


async def _serve_comeback(socket: WebSocket, transport: WebSocketTransport) -> None:
    """Let a client back into its session.

    Raises:
        RefusedError: there is no such session, the secret is wrong, no slot is free, or the events
            that the client has missed are not kept any more.
    """
    # The secret is enough: an ephemeral key may have expired since, or have its one session.
    session_id = socket.query_params["session_id"]
    session = await let_back_in(socket, session_id)
    if not session.has_kept(socket.query_params.get("last_event_id", "")):
        message = "More was missed than is kept. Begin a new session."
        raise RefusedError(409, message, code="events_lost")
    # The engines of its own model, however many others there are.
    if not session.pool.is_running:
        raise not_ready()
    try:
        session.unpark()
    except OverloadedError:
        raise at_capacity(session.pool.max_sessions) from None
    await socket.accept(chosen_subprotocol(socket.scope["subprotocols"]))
    leave_place(socket)
    await session.come_back(transport, socket.query_params["last_event_id"])


async def _accepted(
    socket: WebSocket, gateway: Gateway, transport: WebSocketTransport, chosen: _Chosen
) -> Session:
    """Accept a connection for which there is a place, and return its session, not begun.

    Raises:
        RefusedError: there is no place; the connection is not accepted.
        ClientError: the address asks for what there is not; the connection is accepted.
    """
    model, key = chosen.model, chosen.key
    try:
        # Between the handshake and the session's start other connections run. The place is kept
        # meanwhile.
        with model.pool.place():
            await socket.accept(chosen_subprotocol(socket.scope["subprotocols"]))
            config = with_safety_identifier(_initial_config(socket, chosen), socket.headers)
            _check_kind(config, model)
            # It joins the engine as soon as it runs, so nobody else can take its slot before.
            is_bound = key is not None and key.is_bound
            return gateway.new_session(
                model,
                transport,
                asked_dialect(socket),
                config,
                payer=chosen.by.payer,
                is_bound=is_bound,
                is_resumable=socket.query_params.get("resume") == "true",
                headers=socket.headers,
            )
    except OverloadedError:
        raise at_capacity(model.pool.max_sessions) from None


def _initial_config(socket: WebSocket, chosen: _Chosen) -> SessionConfig:
    """Return what the session begins with: the key's configuration, or the address's wishes.

    Raises:
        ClientError: the address asks for what there is not.
    """
    key = chosen.key
    intent = socket.query_params.get("intent")
    if intent is not None and intent not in _KINDS:
        raise ClientError(f"Invalid intent {intent}", code="invalid_intent")
    if key is None:
        kind = _KINDS.get(intent, "realtime")
        return replace(chosen.model.default_config(), kind=kind, model=chosen.said)
    if _KINDS.get(intent, key.config.kind) != key.config.kind:
        raise ClientError(
            f"Invalid intent {intent}: the key is for a {key.config.kind} session.",
            code="invalid_intent",
        )
    return key_config(key, chosen.model, chosen.said)


def _asked_model(socket: WebSocket) -> str | None:
    """Return the model that an address names, in the API's form or in Azure's."""
    return socket.query_params.get("model") or socket.query_params.get("deployment")


def _check_kind(config: SessionConfig, model: ServedModel) -> None:
    """Refuse what the model cannot do.

    Raises:
        ClientError: it was asked to write down what it hears, and listens in order to talk.
    """
    if config.kind == "transcription" and model.pool.info.is_duplex:
        raise ClientError(
            f"The model '{model.name}' does not write down what it hears.",
            code="invalid_intent",
        )


def asked_dialect(socket: WebSocket) -> Dialect:
    """Return the shape of the API that a client asks for, by header, subprotocol or address."""
    version = socket.query_params.get("api-version", "")
    if socket.url.path == _AZURE_DATED and version:
        if not version.endswith(_PREVIEW):
            return GaDialect()
        return BetaDialect(has_transcript_deltas=version >= _TRANSCRIPT_DELTAS_SINCE)
    # Beta's clients say so, in a header or, from a browser, by a subprotocol. All others are taken
    # for GA until their first event has beta's shape.
    header = socket.headers.get("openai-beta", "")
    is_beta = _BETA_HEADER in header or _BETA_SUBPROTOCOL in socket.scope["subprotocols"]
    return BetaDialect() if is_beta else GuessingDialect()


async def _hang_up(transport: WebSocketTransport, close_code: int, error: ClientError) -> None:
    """Send one error, which a browser can read, and close."""
    event = ErrorEvent(error.kind, error.code, error.message, error.param, None)
    try:
        await transport.send(json.dumps(error_json(event, RandomIds().new("event"))))
    except DisconnectedError:
        return
    await transport.close_with(close_code, f"{error.kind}.{error.code}")
