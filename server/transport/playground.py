"""Serve the playground: the page in `server/web` and its files, for browsers."""

from pathlib import Path

from fastapi import APIRouter, Request, Response
from starlette.staticfiles import StaticFiles

_WEB = Path(__file__).parent.parent / "web"

# Nothing but the page's own files, and no other page around it: neither a script that found its way
# in nor a frame over the button can use the microphone or the key that is typed here.
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; "
        "connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "microphone=(self), camera=(self), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",  # the files of one version belong together
}
# Pages of other sites may use the client; which of them may reach the server, CORS and keys say.
_CLIENT = ("parley-client.js", "client/")


def playground_routes() -> APIRouter:
    """Return a route for each file, and `/` for the page."""
    router = APIRouter(include_in_schema=False)
    files = StaticFiles(directory=_WEB)

    async def serve(request: Request) -> Response:
        name = request.url.path.lstrip("/") or "index.html"
        response = await files.get_response(name, request.scope)
        response.headers.update(_HEADERS)
        if name.startswith(_CLIENT):
            response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
        return response

    # One route for each file. So the path of a request is never joined to a folder.
    names = (
        file.relative_to(_WEB).as_posix() for file in sorted(_WEB.rglob("*")) if file.is_file()
    )
    for name in ("", *names):
        router.add_api_route(f"/{name}", serve, methods=["GET", "HEAD"])
    return router
