"""Read what HTTP requests bring."""

from fastapi import Request

from server.transport.envelope import RefusedError


async def read_body(request: Request) -> bytes:
    """Return the body of a request.

    Raises:
        RefusedError: it is larger than `server.max_body_bytes`; the rest of it is not read.
    """
    limit: int = request.app.state.gateway.settings.server.max_body_bytes
    # Counted while it comes: the header with the length may be wrong or missing.
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > limit:
            raise RefusedError(413, f"The body is too large: at most {limit} bytes are read.")
    return bytes(data)
