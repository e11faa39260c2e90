"""Say what ends a session: one session's fault is that session's end, whatever the exception."""

from __future__ import annotations

import logging

from model.errors import ParleyError

_log = logging.getLogger(__name__)

BROKEN = "the engine failed on this session"


def told(session_id: str, error: Exception) -> str:
    """Return what a session is told of what ended it, in an `except`.

    What we raise ourselves says why. What nobody has foreseen is logged with its traceback.
    """
    if isinstance(error, ParleyError):
        return str(error)
    _log.exception("session %s failed", session_id)
    return BROKEN
