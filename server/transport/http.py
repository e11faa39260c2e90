"""Serve the plain HTTP side: health, readiness, metrics and the list of models."""

import asyncio

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from server.metrics import CONTENT_TYPE
from server.transport.auth import check_api_key, offered_key
from server.transport.envelope import RefusedError
from server.transport.gateway import Gateway


async def healthz(request: Request) -> JSONResponse:
    """Say that the process answers."""
    del request
    return JSONResponse({"status": "ok"})


async def readyz(request: Request) -> JSONResponse:
    """Say whether sessions can be served: only while there is an engine, and once it is warm."""
    gateway: Gateway = request.app.state.gateway
    is_ready = gateway.link.is_running
    body = {
        "status": gateway.link.state.value,
        "sessions": gateway.link.num_sessions,
        "max_sessions": gateway.link.info.max_sessions,
    }
    return JSONResponse(body, 200 if is_ready else 503)


async def metrics(request: Request) -> Response:
    """Write what gateway and engine have counted, for Prometheus.

    Raises:
        RefusedError: the key is missing or wrong, where keys are needed.
    """
    gateway: Gateway = request.app.state.gateway
    check_api_key(offered_key(request.headers), gateway.api_keys)
    # It takes longer than the event loop has for anything.
    text = await asyncio.to_thread(gateway.metrics.text)
    return Response(text, media_type=CONTENT_TYPE)


async def models(request: Request) -> JSONResponse:
    """List the one model that is served."""
    return JSONResponse({"object": "list", "data": [_served_model(request)]})


async def model(request: Request) -> JSONResponse:
    """Describe a model by its name."""
    served, name = _served_model(request), request.path_params["name"]
    if name != served["id"]:
        raise RefusedError(404, f"The model '{name}' does not exist.", code="model_not_found")
    return JSONResponse(served)


def _served_model(request: Request) -> dict[str, object]:
    gateway: Gateway = request.app.state.gateway
    check_api_key(offered_key(request.headers), gateway.api_keys)
    served: dict[str, object] = {
        "id": gateway.settings.model.name,
        "object": "model",
        "created": 0,
        "owned_by": "parley",
    }
    # Not part of the API: what those who use the model should know.
    return {**served, "description": note} if (note := gateway.link.info.note) else served
