"""Answer offers of WebRTC calls where none are taken: say so, and name what is."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from server.transport.door import check_origin, let_session_in
from server.transport.envelope import RefusedError


def no_call_routes(path: str) -> APIRouter:
    """Return routes where calls would be, below one of the API's paths, such as `/v1/realtime`."""
    router = APIRouter(include_in_schema=False)
    for place in (path, f"{path}/calls", f"{path}/calls/{{rest:path}}"):
        router.add_api_route(place, refuse_call, methods=["POST"])
    return router


async def refuse_call(request: Request) -> Response:
    """Refuse an offer.

    Raises:
        RefusedError: always.
    """
    check_origin(request, request.app.state.gateway)
    await let_session_in(request)
    # The same checks as where calls are taken come first: who has no key learns nothing.
    scheme = "wss" if request.url.scheme == "https" else "ws"
    raise RefusedError(
        404,
        "This server takes no WebRTC calls. Connect by WebSocket: "
        f"{scheme}://{request.url.netloc}/v1/realtime",
        code="webrtc_not_supported",
    )
