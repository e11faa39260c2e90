"""Serve the plain HTTP side: health, readiness and the list of models."""

from starlette.requests import Request
from starlette.responses import JSONResponse

from server.transport.auth import is_allowed, offered_key
from server.transport.websocket import Gateway, error_envelope


async def healthz(request: Request) -> JSONResponse:
    """Say that the process answers."""
    del request
    return JSONResponse({"status": "ok"})


async def readyz(request: Request) -> JSONResponse:
    """Say whether sessions can be served: only once the engine is warm."""
    gateway: Gateway = request.app.state.gateway
    is_ready = gateway.link.is_running
    body = {
        "status": "ready" if is_ready else "starting",
        "sessions": gateway.link.num_sessions,
        "max_sessions": gateway.link.info.max_sessions,
    }
    return JSONResponse(body, 200 if is_ready else 503)


async def models(request: Request) -> JSONResponse:
    """List the one model that is served."""
    gateway: Gateway = request.app.state.gateway
    if not is_allowed(offered_key(request.headers), gateway.settings.server.api_keys):
        message = "Incorrect API key provided."
        return JSONResponse(error_envelope("invalid_api_key", message), 401)
    model = {
        "id": gateway.settings.model.name,
        "object": "model",
        "created": 0,
        "owned_by": "parley",
    }
    return JSONResponse({"object": "list", "data": [model]})
