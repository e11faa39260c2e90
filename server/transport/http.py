"""Serve the plain HTTP side: health, readiness, metrics and the list of models."""

import asyncio

from fastapi import Request
from starlette.responses import JSONResponse, Response

from server.metrics import CONTENT_TYPE
from server.names import parley_version
from server.transport.door import let_backend_in
from server.transport.gateway import Gateway, no_model


async def livez(request: Request) -> Response:
    """Say that the process answers, also while it drains, and which version it is."""
    del request
    return JSONResponse({"status": "ok", "version": parley_version()})


async def readyz(request: Request) -> Response:
    """Say whether sessions can be served: with an engine that is warm, until the server drains."""
    gateway: Gateway = request.app.state.gateway
    is_draining = gateway.drain.is_begun
    # A load balancer reads this, and sends nobody here while it is 503. `/livez` stays 200
    # meanwhile, or a supervisor would kill a server that is loading its model or letting its calls
    # end.
    is_ready = gateway.link.is_running and not is_draining
    body = {
        "status": "draining" if is_draining else gateway.link.state.value,
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
    await let_backend_in(request, "metrics")
    # It takes longer than the event loop has for anything.
    text = await asyncio.to_thread(gateway.metrics.text)
    return Response(text, media_type=CONTENT_TYPE)


async def models(request: Request) -> Response:
    """List the one model that is served."""
    return JSONResponse({"object": "list", "data": [await _served_model(request)]})


async def model(request: Request) -> Response:
    """Describe a model by its name, or by one of its aliases."""
    served, name = await _served_model(request), request.path_params["name"]
    settings = request.app.state.gateway.settings.model
    if name != settings.name and name not in settings.aliases:
        raise no_model(name)
    return JSONResponse({**served, "id": name})


async def _served_model(request: Request) -> dict[str, object]:
    gateway: Gateway = request.app.state.gateway
    await let_backend_in(request)
    served: dict[str, object] = {
        "id": gateway.settings.model.name,
        "object": "model",
        # The API has the field, and nothing of ours tells when a model was made.
        "created": 0,
        "owned_by": "parley",
    }
    # Not part of the API: whom it can speak as, and what those who use it should know.
    served["voices"] = list(gateway.voices.names)
    return {**served, "description": note} if (note := gateway.link.info.note) else served
