"""Say what is served where, and describe it in OpenAPI."""

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, FastAPI, Request, WebSocket
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from server.transport import client_secrets, http
from server.transport.door import let_session_in
from server.transport.envelope import RefusedError, error_response, no_such_url, on_http_error
from server.transport.no_calls import no_call_routes
from server.transport.playground import playground_routes
from server.transport.websocket import PATHS, refuse_path, serve_realtime

_SECRET_EXAMPLE = {
    "expires_after": {"anchor": "created_at", "seconds": 600},
    "session": {"type": "realtime", "audio": {"output": {"voice": "marin"}}},
    "max_sessions": 1,
    "bound": False,
}


def _takes(example: dict[str, Any], **properties: dict[str, Any]) -> dict[str, Any]:
    """Describe a JSON body; docs/api.md tells what is in it."""
    schema = {"type": "object", "properties": properties, "example": example}
    return {"requestBody": {"content": {"application/json": {"schema": schema}}}}


_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"description": "The request is wrong; `error` says what and where."},
    401: {"description": "The key is missing or wrong."},
}


def add_routes(app: FastAPI, call_routes: Callable[[str], APIRouter] = no_call_routes) -> None:
    """Give an application every path that is served.

    Args:
        app: the application.
        call_routes: makes what is served of calls by WebRTC below one of the API's paths.
    """
    for number, path in enumerate(PATHS):
        # The same four times; one description is enough.
        app.include_router(_api(path, is_described=number == 0))
        app.include_router(call_routes(path))
    app.include_router(_watching())
    app.include_router(playground_routes())
    # An unknown address is answered as a known one without a key is, so nobody can map the server.
    app.router.default = _nowhere


def _api(path: str, *, is_described: bool) -> APIRouter:
    """Return what is served at one of the API's base addresses."""
    router = APIRouter(include_in_schema=is_described, tags=["realtime"], responses=_REFUSALS)
    router.add_api_websocket_route(path, serve_realtime)
    router.add_api_route(
        path,
        needs_websocket,
        methods=["GET"],
        summary="Connect by WebSocket",
        status_code=426,
        response_description="The request was no WebSocket handshake.",
    )
    _add_secrets(router, path)
    base = path.removesuffix("/realtime")
    router.add_api_route(f"{base}/models", http.models, methods=["GET"], summary="List the model")
    router.add_api_route(
        f"{base}/models/{{name:path}}",
        http.model,
        methods=["GET"],
        summary="Describe the model by a name of its own",
    )
    return router


def _add_secrets(router: APIRouter, path: str) -> None:
    """Add where ephemeral keys are made and revoked."""
    # GA's address first, ours for revoking, then the two of beta.
    secrets = f"{path}/client_secrets"
    for place, endpoint, summary, extra in (
        (
            secrets,
            client_secrets.make,
            "Make an ephemeral key",
            _takes(
                _SECRET_EXAMPLE,
                session={"type": "object"},
                expires_after={"type": "object"},
                max_sessions={"type": "integer", "minimum": 1},
                bound={"type": "boolean"},
            ),
        ),
        (
            f"{secrets}/revoke",
            client_secrets.revoke,
            "Revoke an ephemeral key, and end its sessions",
            _takes({"value": "ek_…"}, value={"type": "string"}),
        ),
        (
            f"{path}/sessions",
            client_secrets.make_beta,
            "Make an ephemeral key, in beta's shape",
            _takes({"voice": "marin"}),
        ),
        (
            f"{path}/transcription_sessions",
            client_secrets.make_beta_transcription,
            "Make an ephemeral key for transcription, in beta's shape",
            _takes({"input_audio_format": "pcm16"}),
        ),
    ):
        router.add_api_route(
            place, endpoint, methods=["POST"], summary=summary, openapi_extra=extra
        )
        router.add_api_route(
            place, client_secrets.options, methods=["OPTIONS"], include_in_schema=False
        )


def _watching() -> APIRouter:
    """Return what is served to whoever runs the server."""
    router = APIRouter(tags=["operation"])
    for path, endpoint, summary in (
        ("/livez", http.livez, "Whether the process answers"),
        ("/healthz", http.livez, "The same, by its older name"),
        ("/readyz", http.readyz, "Whether sessions can be served"),
        ("/metrics", http.metrics, "Counters for Prometheus"),
    ):
        router.add_api_route(path, endpoint, methods=["GET"], summary=summary)
        router.add_api_route(path, endpoint, methods=["HEAD"], include_in_schema=False)
    return router


async def needs_websocket(request: Request) -> Response:
    """Sessions are WebSockets of text frames: `ws://HOST/v1/realtime?model=NAME`."""
    await let_session_in(request)
    message = (
        "This address is for WebSockets: connect to "
        f"{'wss' if request.url.scheme == 'https' else 'ws'}://{request.url.netloc}"
        f"{request.url.path}"
    )
    response = error_response(RefusedError(426, message, code="websocket_required"))
    # RFC 9110, section 15.5.22: 426 must say to what the client should upgrade.
    response.headers.update({"Upgrade": "websocket", "Connection": "Upgrade"})
    return response


async def _nowhere(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request for an address that there is not, but first one without a right key."""
    if scope["type"] == "websocket":
        await refuse_path(WebSocket(scope, receive, send))
        return
    request = Request(scope, receive)
    await let_session_in(request)
    raise no_such_url(request.method, request.url.path)


async def on_wrong_request(request: Request, error: Exception) -> Response:
    """Answer a request that no route takes, but first one without a right key."""
    try:
        await let_session_in(request)
    except RefusedError as refused:
        return error_response(refused)
    return await on_http_error(request, error)
