"""Take a caller's safety identifier: who the user is, by a name of the application's own."""

from collections.abc import Mapping
from dataclasses import replace

from server.protocol.settings.config import SessionConfig
from server.transport.envelope import RefusedError

_HEADER = "openai-safety-identifier"
# Source: Realtime guide, "Safety identifiers": a stable, hashed identifier of the end user, in a
# header of the request that makes the client secret, or of the connection. API reference,
# `safety_identifier`: at most 64 characters.
_MAX_CHARS = 64


def safety_identifier(headers: Mapping[str, str]) -> str:
    """Return what a request calls its user, empty for nothing.

    Raises:
        RefusedError: it is too long, or has characters that no header should.
    """
    given = headers.get(_HEADER, "").strip()
    if len(given) > _MAX_CHARS or not (given.isascii() and (given.isprintable() or not given)):
        raise RefusedError(
            400,
            f"Invalid 'OpenAI-Safety-Identifier': expected at most {_MAX_CHARS} printable ASCII "
            f"characters, but got {len(given)} characters.",
            code="invalid_value",
        )
    return given


def with_safety_identifier(config: SessionConfig, headers: Mapping[str, str]) -> SessionConfig:
    """Bind a session to the user whom a request names; one that is bound already stays so.

    Args:
        config: that the session begins with, by a key or by default.
        headers: of the request.

    Raises:
        RefusedError: as of `safety_identifier`.
    """
    given = safety_identifier(headers)
    return replace(config, safety_identifier=config.safety_identifier or given)
