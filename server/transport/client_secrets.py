"""Make and revoke ephemeral keys over HTTP, in the GA shape and in beta's.

A backend asks with its API key and says what the sessions begin with. That is checked exactly as a
`session.update` is.
"""

from collections.abc import Callable
from typing import Any

from fastapi import Request
from starlette.responses import JSONResponse, Response

from server.errors import ClientError, OverloadedError
from server.protocol.dialects.beta_session import (
    SESSION_PLACES,
    read_session,
    read_transcription_session,
    refuse_beta_keys,
    renamed,
    session_json,
)
from server.protocol.wire.checks import (
    JsonObject,
    boolean_at,
    choice_at,
    integer_at,
    object_at,
    refuse_oversized,
    refuse_unknown_keys,
    required,
    string_at,
)
from server.protocol.wire.parse import json_object, refuse_half_characters
from server.transport.body import read_body
from server.transport.door import check_draining, check_origin, let_backend_in
from server.transport.envelope import RefusedError
from server.transport.ephemeral import (
    BETA_TTL_S,
    DEFAULT_TTL_S,
    MAX_SESSIONS,
    MAX_TTL_S,
    MIN_TTL_S,
    EphemeralKey,
)
from server.transport.gateway import Gateway
from server.transport.models import asked_model
from server.transport.safety import with_safety_identifier

# All requests together take one place in the queue for schemas; each session has one of its own.
_OWNER = "http"


async def options(request: Request) -> Response:
    """Say what these endpoints answer to; a page's preflight never comes this far."""
    del request
    return Response(status_code=204, headers={"Allow": "OPTIONS, POST"})


async def make(request: Request) -> Response:
    """Make a key in the GA shape, and answer with it and its session."""
    body, issuer = await _body(request)
    refuse_unknown_keys(body, "", ("expires_after", "session", "max_sessions", "bound"))
    ttl_s = _ttl_s(body.get("expires_after"), "expires_after", DEFAULT_TTL_S)
    max_sessions = integer_at(body.get("max_sessions", 1), "max_sessions", low=1, high=MAX_SESSIONS)
    is_bound = boolean_at(body.get("bound", False), "bound")
    given = body.get("session")
    session = {"type": "realtime"} if given is None else object_at(given, "session")
    if "type" in session:
        refuse_beta_keys(session, "session")
    key = await _issued(
        request,
        session,
        ttl_s,
        issuer,
        max_sessions=max_sessions,
        is_bound=is_bound,
    )
    answer = {
        "value": key.value,
        "expires_at": key.expires_at,
        "session": key.config.to_json(),
    }
    return JSONResponse(answer)


async def revoke(request: Request) -> Response:
    """Take a key back and end its sessions.

    The key is in the body, as in RFC 7009: addresses end up in logs.
    """
    body, _ = await _body(request)
    refuse_unknown_keys(body, "", ("value",))
    value = string_at(required(body, "value", ""), "value")
    try:
        is_known = request.app.state.gateway.keys.revoke(value)
    except OverloadedError as error:
        raise _too_many(error) from None
    if not is_known:
        raise RefusedError(404, "There is no such ephemeral key.", code="key_not_found")
    return JSONResponse({"revoked": True})


async def make_beta(request: Request) -> Response:
    """Make a key in beta's shape, for conversations: the answer is a session that carries it."""
    return await _beta_answer(request, read_session)


async def make_beta_transcription(request: Request) -> Response:
    """Make a key in beta's shape, for transcription alone."""
    return await _beta_answer(request, read_transcription_session)


async def _beta_answer(request: Request, read: Callable[[JsonObject], JsonObject]) -> JSONResponse:
    body, issuer = await _body(request)
    given = body.get("client_secret")
    secret = {} if given is None else object_at(given, "client_secret")
    refuse_unknown_keys(secret, "client_secret", ("expires_after",))
    ttl_s = _ttl_s(secret.get("expires_after"), "client_secret.expires_after", BETA_TTL_S)
    try:
        key = await _issued(request, read(body), ttl_s, issuer)
    except RefusedError:
        raise
    except ClientError as error:
        raise _at_the_root(error) from None
    secret = {"value": key.value, "expires_at": key.expires_at}
    return JSONResponse(session_json(key.config, secret))


def _at_the_root(error: ClientError) -> ClientError:
    """Name a refused parameter as it is in a body that is the session itself."""
    error = renamed(error, SESSION_PLACES, "session")
    param = error.param and error.param.removeprefix("session.")
    return ClientError(error.message.replace("'session.", "'"), code=error.code, param=param)


async def _body(request: Request) -> tuple[JsonObject, str]:
    """Return the body of a request that may be made, and the name of its API key, if any.

    Raises:
        ClientError: it may not, or the body is too large or not a JSON object.
    """
    # A simple request of another site's page comes without a preflight.
    check_origin(request, request.app.state.gateway)
    api_key = await let_backend_in(request, "client_secrets")
    name = api_key.account.name if api_key else ""
    data = await read_body(request)
    if not data.strip():
        return {}, name
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise ClientError("Could not parse the body of the request: it is no UTF-8.") from None
    body = json_object(text)
    if body is None:
        raise ClientError("Could not parse the JSON body of the request: expected one object.")
    refuse_half_characters(body, text)
    settings = request.app.state.gateway.settings.server
    refuse_oversized(body, max_text_chars=settings.max_text_chars)
    return body, name


def _ttl_s(value: Any, path: str, default_s: int) -> int:
    """Return for how long a key is wanted; `Any`, as all JSON."""
    if value is None:
        return default_s
    given = object_at(value, path)
    refuse_unknown_keys(given, path, ("anchor", "seconds"))
    choice_at(given.get("anchor", "created_at"), f"{path}.anchor", ("created_at",))
    seconds = given.get("seconds", default_s)
    return integer_at(seconds, f"{path}.seconds", low=MIN_TTL_S, high=MAX_TTL_S)


async def _issued(
    request: Request,
    session: JsonObject,
    ttl_s: int,
    issuer: str,
    *,
    max_sessions: int = 1,
    is_bound: bool = False,
) -> EphemeralKey:
    """Check what the sessions are to begin with, and make a key for them."""
    gateway: Gateway = request.app.state.gateway
    # A key outlives the server that is about to stop, and its sessions would all be refused.
    check_draining(gateway)
    await gateway.schemas.check(_OWNER, session, "session")
    config = gateway.models.config(session, asked_model(session) or "")
    config = with_safety_identifier(config, request.headers)
    try:
        return gateway.keys.issue(
            config,
            ttl_s,
            has_model=bool(session.get("model")),
            max_sessions=max_sessions,
            is_bound=is_bound,
            session=session,
            issuer=issuer,
        )
    except OverloadedError as error:
        raise _too_many(error) from None


def _too_many(error: OverloadedError) -> RefusedError:
    return RefusedError(
        429,
        f"Too many keys: {error}. Try again later.",
        code="rate_limit_exceeded",
        kind="rate_limit_error",
    )
