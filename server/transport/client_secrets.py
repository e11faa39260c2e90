"""Make ephemeral keys over HTTP: `client_secrets` in the GA shape, two endpoints in beta's.

A backend asks with its API key and says what the sessions begin with. That is checked exactly as a
`session.update` is.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
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
from server.protocol.settings.tools import compile_ahead
from server.protocol.settings.update import requested
from server.protocol.wire.checks import (
    JsonObject,
    choice_at,
    integer_at,
    object_at,
    refuse_oversized,
    refuse_unknown_keys,
)
from server.protocol.wire.parse import json_object
from server.transport.auth import check_api_key, is_own_origin, offered_key
from server.transport.envelope import RefusedError
from server.transport.ephemeral import (
    BETA_TTL_S,
    DEFAULT_TTL_S,
    MAX_TTL_S,
    MIN_TTL_S,
    EphemeralKey,
)
from server.transport.gateway import Gateway


class _KeyEndpoint(HTTPEndpoint):
    """Serve one POST endpoint that makes keys."""

    async def options(self, request: Request) -> Response:
        """Say what the endpoint answers to; a page's preflight never comes this far."""
        del request
        return Response(status_code=204, headers={"Allow": "OPTIONS, POST"})


class ClientSecrets(_KeyEndpoint):
    """`POST /v1/realtime/client_secrets`: GA's, for both kinds of session."""

    async def post(self, request: Request) -> JSONResponse:
        """Make a key and answer with it and its session."""
        body = await _body(request)
        refuse_unknown_keys(body, "", ("expires_after", "session"))
        ttl_s = _ttl_s(body.get("expires_after"), "expires_after", DEFAULT_TTL_S)
        given = body.get("session")
        session = {"type": "realtime"} if given is None else object_at(given, "session")
        if "type" in session:
            refuse_beta_keys(session, "session")
        key = await _issued(request.app.state.gateway, session, ttl_s)
        answer = {
            "value": key.value,
            "expires_at": key.expires_at,
            "session": key.config.to_json(),
        }
        return JSONResponse(answer)


class Sessions(_KeyEndpoint):
    """`POST /v1/realtime/sessions`: beta's, for conversations."""

    async def post(self, request: Request) -> JSONResponse:
        """Make a key and answer with a session that carries it."""
        return await _beta_answer(request, read_session)


class TranscriptionSessions(_KeyEndpoint):
    """`POST /v1/realtime/transcription_sessions`: beta's, for transcription alone."""

    async def post(self, request: Request) -> JSONResponse:
        """Make a key and answer with a session that carries it."""
        return await _beta_answer(request, read_transcription_session)


async def _beta_answer(request: Request, read: Callable[[JsonObject], JsonObject]) -> JSONResponse:
    body = await _body(request)
    given = body.get("client_secret")
    secret = {} if given is None else object_at(given, "client_secret")
    refuse_unknown_keys(secret, "client_secret", ("expires_after",))
    ttl_s = _ttl_s(secret.get("expires_after"), "client_secret.expires_after", BETA_TTL_S)
    try:
        key = await _issued(request.app.state.gateway, read(body), ttl_s)
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


async def _body(request: Request) -> JsonObject:
    """Return the body of a request that may be made.

    Raises:
        ClientError: it may not, or the body is too large or not a JSON object.
    """
    settings = request.app.state.gateway.settings.server
    if not settings.api_keys and not is_own_origin(request.headers.get("origin")):
        # A simple request of another site's page comes without a preflight.
        raise RefusedError(403, "Pages of other sites may not use this server.", code="forbidden")
    check_api_key(offered_key(request.headers), settings.api_keys)
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > settings.max_body_bytes:
            raise RefusedError(
                413, f"The body is too large: at most {settings.max_body_bytes} bytes are read."
            )
    body = json_object(bytes(data)) if data.strip() else {}
    if body is None:
        raise ClientError("Could not parse the JSON body of the request: expected one object.")
    refuse_oversized(body, max_text_chars=settings.max_text_chars)
    return body


def _ttl_s(value: Any, path: str, default_s: int) -> int:
    """Return for how long a key is wanted; `Any`, as all JSON."""
    if value is None:
        return default_s
    given = object_at(value, path)
    refuse_unknown_keys(given, path, ("anchor", "seconds"))
    choice_at(given.get("anchor", "created_at"), f"{path}.anchor", ("created_at",))
    seconds = given.get("seconds", default_s)
    return integer_at(seconds, f"{path}.seconds", low=MIN_TTL_S, high=MAX_TTL_S)


async def _issued(gateway: Gateway, session: JsonObject, ttl_s: int) -> EphemeralKey:
    """Check what the sessions are to begin with, and make a key for them."""
    if session.get("tools"):
        await asyncio.to_thread(compile_ahead, session["tools"])
    config = requested(
        gateway.default_config(),
        session,
        gateway.voices,
        max_tools=gateway.settings.server.max_tools,
    )
    try:
        return gateway.keys.issue(config, ttl_s, has_model=bool(session.get("model")))
    except OverloadedError as error:
        raise RefusedError(
            429,
            f"Too many keys: {error}. Try again later.",
            code="rate_limit_exceeded",
            kind="rate_limit_error",
        ) from None
