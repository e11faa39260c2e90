"""The gateway's branches of the exception tree whose root is `model.errors.ParleyError`.

ParleyError
├── ConfigError          a setting is missing, unknown or out of range (start-up)
├── OverloadedError      no capacity for another session (refuse at admission)
├── EngineGoneError      the engine died too often and the gateway ends, for a supervisor to see
├── McpFailure           an MCP server did not do what it was asked; the call ends, nothing else
├── EngineError          ours: close the session, one traceback
├── ImageError           a picture that cannot be read; whoever brings it says to whom it came
├── ClientError          the peer's fault: answered by one `error` event, the session goes on
└── TransportError       the connection, not what was said on it
    └── DisconnectedError    the peer is gone
"""

from typing import Any

from model.errors import ConfigError, EngineError, OverloadedError, ParleyError

__all__ = [
    "ClientError",
    "ConfigError",
    "DisconnectedError",
    "EngineError",
    "EngineGoneError",
    "ImageError",
    "OverloadedError",
    "ParleyError",
    "TransportError",
]


class ClientError(ParleyError):
    """Refuse something that the client sent; nothing of it has been applied.

    Attributes:
        message: for a person, in the wording of the Realtime API where one is known.
        code: machine-readable and documented, or None where the API has none.
        param: path of the offending field, such as "session.audio.output.voice", or None.
        kind: `error.type` on the wire.
        event: what is refused, if it could be read as JSON but not be taken in; else None.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        kind: str = "invalid_request_error",
    ) -> None:
        """Keep what an `error` event needs."""
        super().__init__(message)
        self.message = message
        self.code = code
        self.param = param
        self.kind = kind
        self.event: dict[str, Any] | None = None


class EngineGoneError(ParleyError):
    """Report that the engine died too often, and that the gateway ended because of it."""


class ImageError(ParleyError):
    """Report that a picture cannot be read; the message says why, within a sentence."""


class TransportError(ParleyError):
    """Report that a connection cannot carry what it should."""


class DisconnectedError(TransportError):
    """Report that the peer is gone; nothing can be sent any more.

    Attributes:
        cause: "client" left, or its connection broke; "ping_timeout": it did not answer a ping;
            "stopping": the server is being stopped.
        has_left: whether it said goodbye, and will not come back.
    """

    def __init__(self, cause: str = "client", *, has_left: bool = False) -> None:
        super().__init__(cause)
        self.cause = cause
        self.has_left = has_left
