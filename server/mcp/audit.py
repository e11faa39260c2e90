"""Write down who called what, who allowed it, and what came of it: one JSON object a line."""

import datetime as dt
import json
import logging
from logging.handlers import RotatingFileHandler
from pathlib import Path

from server.errors import ConfigError
from server.protocol.mcp.outcomes import Decision

_MAX_ARGUMENTS = 4_096  # characters that are written of a call's


class AuditLog:
    """Append to a file that is put aside when it is full.

    Args:
        path: of the file; None to write nothing.
        max_bytes: size at which the file becomes `PATH.1`; older ones move to the next number.
        num_old: how many of these are kept.

    Raises:
        ConfigError: the file cannot be written.
    """

    def __init__(self, path: Path | None, max_bytes: int = 16 << 20, num_old: int = 4) -> None:
        self._handler: RotatingFileHandler | None = None
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._handler = RotatingFileHandler(
                path, maxBytes=max_bytes, backupCount=num_old, encoding="utf-8"
            )
        except OSError as error:
            reason = error.strerror or error
            raise ConfigError(f"approvals.audit_file: {path} cannot be written: {reason}") from None

    def write(self, session_id: str, decision: Decision, user: str = "") -> None:
        """Write one line; it is on its way to the disk when this returns.

        Args:
            session_id: of the session in which it happened.
            decision: what happened.
            user: whose session it is, by its safety identifier; empty if nobody has said.
        """
        if self._handler is None:
            return
        line = {
            "time": dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"),
            "session_id": session_id,
            "safety_identifier": user or None,
            "what": decision.what,
            "item_id": decision.item_id,
            "server_label": decision.server_label,
            "name": decision.name,
            "arguments": decision.arguments[:_MAX_ARGUMENTS],
            "reason": decision.reason,
        }
        # JSON escapes line breaks, so no argument can pretend to be another line of the log.
        text = json.dumps(line, ensure_ascii=False)
        self._handler.emit(logging.LogRecord("audit", logging.INFO, "", 0, text, None, None))

    def close(self) -> None:
        """Close the file."""
        if self._handler is not None:
            self._handler.close()
