"""Answer what is asked about calls over HTTP: offers, hang-ups, and servers for clients' ICE.

POST /v1/realtime/calls              an offer in the GA shape → 201, the answer
POST /v1/realtime?model=…            an offer in the beta shape
POST /v1/realtime/calls/{id}         a new offer of a call's client: ICE restart, camera → 200
POST /v1/realtime/calls/{id}/hangup  the end of a call
GET  /v1/realtime/ice_servers        STUN and TURN servers for clients
"""

import base64
import hashlib
import hmac
import time
from collections.abc import AsyncGenerator
from dataclasses import replace

from fastapi import APIRouter, Request
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.responses import JSONResponse, Response

from server.config.webrtc import IceServer
from server.errors import ClientError, OverloadedError
from server.protocol.dialects.beta import BetaDialect, GuessingDialect
from server.protocol.dialects.beta_session import refuse_beta_keys
from server.protocol.dialects.ga import Dialect
from server.protocol.settings.bound import refuse_changes
from server.protocol.settings.config import SessionConfig
from server.protocol.wire.checks import JsonObject, refuse_oversized
from server.protocol.wire.client_events import SessionUpdate
from server.protocol.wire.parse import json_object, refuse_half_characters
from server.session.counts import count_in
from server.session.session import Session
from server.session.transport import Player, Transport
from server.transport.auth import Admitted
from server.transport.body import read_body
from server.transport.door import (
    check_draining,
    check_origin,
    check_readiness,
    check_room,
    let_session_in,
)
from server.transport.envelope import RefusedError, at_capacity
from server.transport.ephemeral import EphemeralKey
from server.transport.gateway import Gateway
from server.transport.models import ServedModel, asked_model, key_config
from server.transport.safety import with_safety_identifier
from server.transport.websocket import PATHS
from server.webrtc.calls import Calls
from server.webrtc.offer import parse_offer

_SDP = "application/sdp"
# What clients give as the type of a bare offer; some give none.
_BARE_TYPES = ("", _SDP, "text/plain", "application/x-www-form-urlencoded")
_CREDENTIAL_TTL_S = 24 * 3600
# All offers together take one place in the queue for schemas; each session has one of its own.
_OWNER = "calls"


def call_routes(path: str) -> APIRouter:
    """Return the routes of calls below one of the API's paths, such as `/v1/realtime`."""
    router = APIRouter(include_in_schema=path == PATHS[0], tags=["calls"])
    for place, method, endpoint, summary, status in (
        (path, "POST", begin_beta, "Call by WebRTC, in beta's shape", 201),
        (f"{path}/calls", "POST", begin, "Call by WebRTC", 201),
        (f"{path}/calls/{{call_id}}", "POST", renew, "Answer a new offer of a call", 200),
        (f"{path}/calls/{{call_id}}/hangup", "POST", hang_up, "End a call", 200),
        (f"{path}/ice_servers", "GET", ice_servers, "List STUN and TURN servers for clients", 200),
    ):
        router.add_api_route(place, endpoint, methods=[method], summary=summary, status_code=status)
        router.add_api_route(place, options, methods=["OPTIONS"], include_in_schema=False)
    return router


async def options(request: Request) -> Response:
    """Say what these endpoints answer to; a page's preflight never comes this far."""
    method = "GET" if request.url.path.endswith("/ice_servers") else "POST"
    return Response(status_code=204, headers={"Allow": f"OPTIONS, {method}"})


async def begin(request: Request) -> Response:
    """Answer an offer in the GA shape."""
    return await _begun(request, GuessingDialect())


async def begin_beta(request: Request) -> Response:
    """Answer an offer in the beta shape; its session is of that shape as well."""
    return await _begun(request, BetaDialect())


async def renew(request: Request) -> Response:
    """Answer a new offer of a client that has changed its network, or adds a camera."""
    # Its key may have expired since. It knows the call's id, which nobody guesses, and must have
    # the certificate of the first offer, with which the call goes on.
    check_origin(request, request.app.state.gateway)
    sdp, _ = await _offered(request)
    answer = _calls(request).renew(request.path_params["call_id"], sdp)
    return Response(answer, 200, media_type=_SDP)


async def hang_up(request: Request) -> Response:
    """End a call."""
    await _admit(request)
    _calls(request).find(request.path_params["call_id"]).hang_up()
    return Response(status_code=200)


async def ice_servers(request: Request) -> Response:
    """Tell a client which servers its ICE may use; credentials that are made end after a day."""
    await _admit(request)
    known = _calls(request).settings.ice_servers
    return JSONResponse({"ice_servers": [_ice_server(each, time.time()) for each in known]})


def _calls(request: Request) -> Calls:
    calls: Calls = request.app.state.calls
    return calls


async def _admit(request: Request) -> Admitted:
    """Let a request in; returns by what it comes.

    Raises:
        RefusedError: it comes from another site's page, or without a key that will do.
    """
    check_origin(request, request.app.state.gateway)
    return await let_session_in(request)


async def _begun(request: Request, dialect: Dialect) -> Response:
    gateway: Gateway = request.app.state.gateway
    gateway.counts.connections += 1
    try:
        return await _answered(request, gateway, dialect)
    except ClientError as error:
        count_in(gateway.counts.refused, str(error.code))
        raise


async def _answered(request: Request, gateway: Gateway, dialect: Dialect) -> Response:
    by = await _admit(request)
    key = by.key
    # Before the body is read: what cannot be served is not parsed.
    check_draining(gateway)
    sdp, session = await _offered(request)
    if key is not None and key.has_model:
        asked: str | None = key.config.model
    else:
        asked = asked_model(session or {}) or request.query_params.get("model")
    model, said = gateway.models.called(asked)
    check_readiness(model)
    offer = parse_offer(sdp, sees=_calls(request).takes_video(model))
    config = await _config(gateway, model, said, key, session)
    config = with_safety_identifier(config, request.headers)
    check_room(key)
    is_bound = key is not None and key.is_bound

    headers_of_offer = request.headers

    def new_session(transport: Transport, player: Player) -> Session:
        return gateway.new_session(
            model,
            transport,
            dialect,
            config,
            player,
            payer=by.payer,
            is_bound=is_bound,
            carrier="webrtc",
            headers=headers_of_offer,
        )

    try:
        call = _calls(request).begin(model, offer, request.url.hostname or "", new_session, by)
    except OverloadedError:
        raise at_capacity(model.pool.max_sessions) from None
    headers = {"Location": f"/v1/realtime/calls/{call.id}"}
    return Response(call.answer(), 201, headers, _SDP)


async def _config(
    gateway: Gateway,
    model: ServedModel,
    said: str,
    key: EphemeralKey | None,
    session: JsonObject | None,
) -> SessionConfig:
    """Return what the session begins with.

    Args:
        gateway: that it came to.
        model: that it has.
        said: name of the model, as the session tells it.
        key: by which it comes, if by one.
        session: that is asked for, if one is.

    Raises:
        ClientError: the request asks for what there is not, or for what its key does not allow.
    """
    config = model.default_config() if key is None else key_config(key, model, said)
    given = {"type": config.kind, **(session or {})}
    if session is not None:
        refuse_beta_keys(given, "session")
        if key is not None and key.is_bound:
            refuse_changes(SessionUpdate(None, given), config)
        await gateway.schemas.check(_OWNER, given, "session")
        config = model.config(given, config)
    if config.kind == "transcription" and model.pool.info.is_duplex:
        raise ClientError(
            f"The model '{model.name}' does not write down what it hears.",
            code="invalid_value",
            param="session.type",
        )
    return replace(config, model=said)


async def _offered(request: Request) -> tuple[str, JsonObject | None]:
    """Return a request's offer, and the session that it asks for, if it does.

    Raises:
        ClientError: the body is too large, or not of a kind that is known.
    """
    data = await read_body(request)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _form(request, data)
    if kind not in _BARE_TYPES:
        raise RefusedError(
            415,
            f"Unsupported content type '{kind}': send the offer as {_SDP}, or as "
            "multipart/form-data with the parts 'sdp' and 'session'.",
            code="unsupported_media_type",
        )
    return _text(data), None


async def _form(request: Request, data: bytes) -> tuple[str, JsonObject | None]:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield data

    try:
        parser = MultiPartParser(
            request.headers, stream(), max_files=2, max_fields=8, max_part_size=len(data)
        )
        form = await parser.parse()
    except (MultiPartException, KeyError) as error:
        reason = getattr(error, "message", None) or "it has no boundary"
        raise ClientError(f"Could not parse the multipart body: {reason}") from None
    try:
        sdp, session = await _part(form, "sdp"), await _part(form, "session")
    finally:
        await form.close()
    if sdp is None:
        raise ClientError(
            "Missing required parameter: 'sdp'.", code="missing_required_parameter", param="sdp"
        )
    if session is None:
        return sdp, None
    given = json_object(session)
    if given is None:
        raise ClientError(
            "Could not parse 'session': expected one JSON object.",
            code="invalid_value",
            param="session",
        )
    refuse_half_characters(given, session)
    max_text_chars = request.app.state.gateway.settings.server.max_text_chars
    refuse_oversized(given, max_text_chars=max_text_chars)
    return sdp, given


async def _part(form: FormData, name: str) -> str | None:
    """Return a part as text, whether it came with the name of a file or not."""
    part = form.get(name)
    if isinstance(part, UploadFile):
        return _text(await part.read())
    return part


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ClientError("The offer is not UTF-8 text.", code="invalid_offer") from None


def _ice_server(server: IceServer, now_s: float) -> JsonObject:
    """Write a server as `RTCIceServer` has it."""
    written: JsonObject = {"urls": [*server.urls]}
    username, credential = server.username, server.credential
    if server.secret is not None:
        # As coturn and others share it ("TURN REST API").
        expires = f"{int(now_s) + _CREDENTIAL_TTL_S}"
        # draft-uberti-behave-turn-rest-00, section 2.2: the name says until when it is good, and
        # the password is its HMAC-SHA1 under the secret that the TURN server has too. Nothing needs
        # to be kept.
        username = f"{expires}:{username}" if username else expires
        digest = hmac.digest(server.secret.encode(), username.encode(), hashlib.sha1)
        credential = base64.b64encode(digest).decode()
    if credential is not None:
        written |= {"username": username, "credential": credential}
    return written
