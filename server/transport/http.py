"""Serve the plain HTTP side: health, readiness, metrics and the list of models."""

import asyncio

from fastapi import Request
from starlette.responses import JSONResponse, Response

from server.metrics import CONTENT_TYPE
from server.names import parley_version
from server.protocol.wire.checks import JsonObject
from server.session.link import LinkState
from server.transport.door import let_backend_in
from server.transport.gateway import Gateway
from server.transport.models import ServedModel

_DRAINING, _DEGRADED = "draining", "degraded"


async def livez(request: Request) -> Response:
    """Say that the process answers, also while it drains, and which version it is."""
    del request
    return JSONResponse({"status": "ok", "version": parley_version()})


async def readyz(request: Request) -> Response:
    """Say whether sessions can be served: with an engine that is warm, until the server drains.

    With `?model=NAME` it speaks of that model alone; otherwise it is ready as long as any model is.

    Raises:
        RefusedError: there is no model of that name.
    """
    gateway: Gateway = request.app.state.gateway
    name = request.query_params.get("model")
    models = [*gateway.models] if name is None else [gateway.models.named(name)]
    is_draining = gateway.drain.is_begun
    # A load balancer reads this, and sends nobody here while it is 503. `/livez` stays 200
    # meanwhile, or a supervisor would kill a server that is loading its model or letting its calls
    # end. With several models, one that is away is no reason to send the others' callers elsewhere.
    is_ready = any(each.pool.is_running for each in models) and not is_draining
    body = {
        "status": _DRAINING if is_draining else _state(models),
        "sessions": sum(each.pool.num_sessions for each in models),
        "max_sessions": sum(each.pool.max_sessions for each in models),
        "models": {each.name: _readiness(each) for each in models},
    }
    return JSONResponse(body, 200 if is_ready else 503)


def _state(models: list[ServedModel]) -> str:
    """Return one word for the state of all models: theirs if it is the same, else a mixed one."""
    states = {link.state for each in models for link in each.pool.links}
    if len(states) == 1:
        return states.pop().value
    return _DEGRADED if LinkState.READY in states else models[0].pool.state.value


def _readiness(model: ServedModel) -> JsonObject:
    pool = model.pool
    return {
        "status": pool.state.value,
        "sessions": pool.num_sessions,
        "max_sessions": pool.max_sessions,
        "engines": [
            {
                "status": link.state.value,
                "sessions": link.num_sessions,
                "max_sessions": link.info.max_sessions,
            }
            for link in pool.links
        ],
    }


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
    """List the models that are served, the default first."""
    gateway: Gateway = request.app.state.gateway
    await let_backend_in(request)
    listed = [_described(each, each.name) for each in gateway.models]
    return JSONResponse({"object": "list", "data": listed})


async def model(request: Request) -> Response:
    """Describe a model by its name, or by one of its aliases.

    Raises:
        RefusedError: there is none of that name, or the key is missing or wrong.
    """
    gateway: Gateway = request.app.state.gateway
    await let_backend_in(request)
    name = request.path_params["name"]
    return JSONResponse(_described(gateway.models.named(name), name))


def _described(model: ServedModel, name: str) -> JsonObject:
    served: JsonObject = {
        "id": name,
        "object": "model",
        # The API has the field, and nothing of ours tells when a model was made.
        "created": 0,
        "owned_by": "parley",
    }
    # Not part of the API: other names of the model, its voices, and a note for its users.
    served["aliases"] = [*model.settings.model.aliases]
    served["voices"] = [*model.voices.names]
    return {**served, "description": note} if (note := model.pool.info.note) else served
