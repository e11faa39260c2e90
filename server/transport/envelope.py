"""Answer failed HTTP requests as the API does: a status and `{"error": {…}}`."""

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from server.errors import ClientError
from server.session.link import at_capacity_text

# Calls last minutes, and with several of them one ends every few seconds.
RETRY_AFTER_S = 5


class RefusedError(ClientError):
    """Refuse a request with another status than 400.

    Attributes:
        status: of HTTP.
        retry_after_s: when it is worth trying again; None if it is not.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        kind: str = "invalid_request_error",
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message, code=code, kind=kind)
        self.status = status
        self.retry_after_s = retry_after_s


def bad_key(message: str) -> RefusedError:
    """Make the error for credentials that are missing or wrong."""
    return RefusedError(401, message, code="invalid_api_key")


def at_capacity(max_sessions: int) -> RefusedError:
    """Make the error for one session too many, whether the connection is accepted or not."""
    return RefusedError(
        503,
        at_capacity_text(max_sessions),
        code="rate_limit_exceeded",
        kind="rate_limit_error",
        retry_after_s=RETRY_AFTER_S,
    )


def error_response(error: ClientError) -> JSONResponse:
    """Return the answer to a request that is refused."""
    # Source: Realtime reference, "error"; the same four fields as in an `error` event.
    details = {
        "message": error.message,
        "type": error.kind,
        "param": error.param,
        "code": error.code,
    }
    status = error.status if isinstance(error, RefusedError) else 400
    headers = {}
    if isinstance(error, RefusedError) and error.retry_after_s is not None:
        # In seconds (RFC 9110, section 10.2.3). Official clients of the API wait that long and try
        # again.
        headers["Retry-After"] = str(error.retry_after_s)
    return JSONResponse({"error": details}, status, headers)


async def on_client_error(request: Request, error: Exception) -> JSONResponse:
    """Answer a request that an endpoint refused."""
    del request
    assert isinstance(error, ClientError), "registered for it"
    return error_response(error)


def no_such_url(method: str, path: str) -> RefusedError:
    """Make the error for an address that there is not."""
    return RefusedError(404, f"Invalid URL ({method} {path})")


async def on_http_error(request: Request, error: Exception) -> JSONResponse:
    """Answer a request for what does not exist."""
    assert isinstance(error, HTTPException), "registered for it"
    match error.status_code:
        case 404:
            refused = no_such_url(request.method, request.url.path)
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
    # The wording of the API. What went wrong is nobody's business but ours.
    message = "The server had an error while processing your request."
    return error_response(RefusedError(500, message, code="server_error", kind="server_error"))
