"""Speak to a machine over one dialect's wire, without a socket."""

import json
from dataclasses import replace
from typing import Any

from server.errors import ClientError
from server.protocol.dialects.ga import Dialect
from server.protocol.server_events import ErrorEvent, SessionCreated, SessionUpdated
from server.protocol.settings.config import SessionConfig, VoiceMap
from server.protocol.settings.update import updated
from server.protocol.wire.client_events import SessionUpdate
from server.protocol.wire.parse import decode, parse
from tests.server import oracle

Event = dict[str, Any]

VOICES = VoiceMap({"alloy": "amber", "echo": "birch"}, "alloy")
CONFIG = SessionConfig(id="sess_1", model="m", voice="alloy", expires_at=1)


class ConfigWire:
    """Hold a session's configuration as a connection does: updates in, echoes or errors out."""

    def __init__(self, dialect: Dialect, *, is_beta: bool = False, **changes: Any) -> None:
        self.config = replace(CONFIG, **changes)
        self._dialect = dialect
        self._is_beta = is_beta

    def created(self) -> Event:
        """Return the first event."""
        return self._written(SessionCreated(self.config))

    def send(self, event: Event) -> Event:
        """Send a client's event, and return the event that answers it."""
        try:
            parsed = parse(self._dialect.read(decode(json.dumps(event))))
            assert isinstance(parsed, SessionUpdate)
            self.config = updated(self.config, parsed.session, VOICES, is_voice_locked=False)
        except ClientError as error:
            return self._written(
                ErrorEvent(error.kind, error.code, error.message, error.param, None)
            )
        return self._written(SessionUpdated(self.config))

    def update(self, session: Event, kind: str = "session.update") -> Event:
        """Send an update of the session."""
        return self.send({"type": kind, "session": session})

    def _written(self, event: ErrorEvent | SessionCreated | SessionUpdated) -> Event:
        written: Event = json.loads(json.dumps(self._dialect.write(event, "event_1")))
        oracle.check(written, is_beta=self._is_beta)
        return written
