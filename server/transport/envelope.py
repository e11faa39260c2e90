"""Answer failed HTTP requests as the API does: a status and `{"error": {…}}`."""

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from server.errors import ClientError


class RefusedError(ClientError):
    """Refuse a request with another status than 400.

    Attributes:
        status: of HTTP.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        kind: str = "invalid_request_error",
    ) -> None:
        super().__init__(message, code=code, kind=kind)
        self.status = status


def bad_key(message: str) -> RefusedError:
    """Make the error for credentials that are missing or wrong."""
    return RefusedError(401, message, code="invalid_api_key")


def error_response(error: ClientError) -> JSONResponse:
    """Return the answer to a request that is refused."""
    details = {
        "message": error.message,
        "type": error.kind,
        "param": error.param,
        "code": error.code,
    }
    status = error.status if isinstance(error, RefusedError) else 400
    return JSONResponse({"error": details}, status)


async def on_client_error(request: Request, error: Exception) -> JSONResponse:
    """Answer a request that an endpoint refused."""
    del request
    assert isinstance(error, ClientError), "registered for it"
    return error_response(error)


async def on_http_error(request: Request, error: Exception) -> JSONResponse:
    """Answer a request for what does not exist."""
    assert isinstance(error, HTTPException), "registered for it"
    place = f"{request.method} {request.url.path}"
    match error.status_code:
        case 404:
            refused = RefusedError(404, f"Invalid URL ({place})")
        case 405:
            message = f"Not allowed to {request.method} on {request.url.path}."
            refused = RefusedError(405, message, code="method_not_supported")
        case status:
            refused = RefusedError(status, error.detail)
    response = error_response(refused)
    response.headers.update(error.headers or {})
    return response


async def on_server_error(request: Request, error: Exception) -> JSONResponse:
    """Answer a request that failed through our own fault; the error itself goes to the log."""
    del request, error
    message = "The server had an error while processing your request."
    return error_response(RefusedError(500, message, code="server_error", kind="server_error"))
