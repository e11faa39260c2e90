"""Serve `WS /v1/realtime`: the handshake, and frames to and from a session."""

import json
import time
from dataclasses import dataclass

from starlette.responses import JSONResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from server.audio.silero import SileroModel
from server.config import Settings
from server.errors import DisconnectedError
from server.protocol.beta import BetaDialect
from server.protocol.dialect import Dialect, GaDialect, error_json
from server.protocol.events import ErrorEvent
from server.protocol.ids import RandomIds
from server.protocol.machine import Limits, SessionMachine
from server.protocol.profile import EngineProfile
from server.protocol.session_config import SessionConfig, VoiceMap
from server.session.ears import Ears
from server.session.link import EngineLink
from server.session.session import Session, SessionLimits
from server.transport.auth import (
    chosen_subprotocol,
    is_allowed,
    is_own_origin,
    offered_key,
)

# Real clients produce all of them: the API's own path, base addresses without /v1, and Azure's.
PATHS = ("/v1/realtime", "/realtime", "/openai/v1/realtime", "/openai/realtime")

# Close codes of fatal handshakes, as the hosted service uses them.
_CLOSE_BAD_KEY = 3000
_CLOSE_BAD_REQUEST = 4000

# Sessions do not expire unless configured to; clients want a number all the same.
_FAR_FUTURE_S = 10 * 365 * 24 * 3600

_BETA_HEADER = "realtime=v1"
_BETA_SUBPROTOCOL = "openai-beta.realtime-v1"


@dataclass(frozen=True, slots=True)
class Gateway:
    """Hold what all sessions of a server share."""

    settings: Settings
    link: EngineLink
    voices: VoiceMap
    vad_model: SileroModel

    def new_session(self, transport: "WebSocketTransport", dialect: Dialect, model: str) -> Session:
        """Make the session of a connection.

        Args:
            transport: the accepted connection.
            dialect: that the client speaks.
            model: the model's name as the client wrote it; it is echoed.
        """
        settings, info, ids = self.settings.server, self.link.info, RandomIds()
        config = SessionConfig(
            id=ids.new("sess"),
            model=model,
            voice=self.voices.default,
            expires_at=int(time.time()) + (settings.max_session_s or _FAR_FUTURE_S),
        )
        return Session(
            transport,
            SessionMachine(
                config,
                EngineProfile(info.sample_rate_hz, info.frame_ms),
                self.voices,
                ids,
                Limits(settings.max_items, settings.max_kept_audio_s),
            ),
            dialect,
            ids,
            Ears(self.vad_model, info.sample_rate_hz, self.settings.vad, config),
            self.link,
            SessionLimits(
                settings.max_backlog_events,
                settings.send_timeout_s,
                settings.max_waiting_audio_s,
                settings.max_session_s,
            ),
        )


class WebSocketTransport:
    """Carry a session's frames over a WebSocket."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket

    async def receive(self) -> str:
        """Return the next frame; a binary one, which the API does not have, as an empty text."""
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            raise DisconnectedError
        return message.get("text") or ""

    async def send(self, text: str) -> None:
        """Send a frame, waiting while the connection's buffer is full."""
        try:
            await self._socket.send_text(text)
        except WebSocketDisconnect:
            raise DisconnectedError from None

    async def close(self, code: int, reason: str) -> None:
        """Close the connection."""
        try:
            await self._socket.close(code, reason)
        except (WebSocketDisconnect, RuntimeError):
            # RuntimeError is what the framework raises when the peer closed first.
            return


async def serve_realtime(socket: WebSocket) -> None:
    """Answer a WebSocket request."""
    gateway: Gateway = socket.app.state.gateway
    api_keys = gateway.settings.server.api_keys
    offered = socket.scope["subprotocols"]
    key = offered_key(socket.headers, offered)
    if not api_keys and not is_own_origin(socket.headers.get("origin")):
        await _deny(socket, 403, "forbidden", "Pages of other sites may not use this server.")
        return
    if key is None and api_keys:
        message = "Missing API key: send it as 'Authorization: Bearer KEY'."
        await _deny(socket, 401, "invalid_api_key", message)
        return
    await socket.accept(chosen_subprotocol(offered))
    transport = WebSocketTransport(socket)
    refusal = None if is_allowed(key, api_keys) else _BAD_KEY
    refusal = refusal or _refused_request(socket)
    if refusal is not None:
        await _hang_up(transport, *refusal)
        return
    model = socket.query_params.get("model") or gateway.settings.model.name
    dialect = BetaDialect() if _speaks_beta(socket) else GaDialect()
    await gateway.new_session(transport, dialect, model).run()


def _speaks_beta(socket: WebSocket) -> bool:
    """Say which shape of the API a client asks for, by header or subprotocol."""
    header = socket.headers.get("openai-beta", "")
    return _BETA_HEADER in header or _BETA_SUBPROTOCOL in socket.scope["subprotocols"]


_Refusal = tuple[int, ErrorEvent]

_BAD_KEY: _Refusal = (
    _CLOSE_BAD_KEY,
    ErrorEvent(
        "invalid_request_error", "invalid_api_key", "Incorrect API key provided.", None, None
    ),
)


def _refused_request(socket: WebSocket) -> _Refusal | None:
    """Say what is wrong with a request, beside its key."""
    intent = socket.query_params.get("intent")
    if intent == "transcription":
        return _bad_request(
            "unsupported_intent", "Transcription sessions are not available on this server yet."
        )
    if intent is not None and intent != "conversation":
        return _bad_request("invalid_intent", f"Invalid intent {intent}")
    if "call_id" in socket.query_params:
        return _bad_request("unsupported_parameter", "This server has no calls to connect to.")
    return None


def _bad_request(code: str, message: str) -> _Refusal:
    return (
        _CLOSE_BAD_REQUEST,
        ErrorEvent("invalid_request_error", code, message, None, None),
    )


async def _hang_up(transport: WebSocketTransport, close_code: int, event: ErrorEvent) -> None:
    """Send one error, which a browser can read, and close."""
    text = json.dumps(error_json(event, RandomIds().new("event")))
    try:
        await transport.send(text)
    except DisconnectedError:
        return
    await transport.close(close_code, f"{event.kind}.{event.code}")


async def _deny(socket: WebSocket, status: int, code: str, message: str) -> None:
    """Refuse the upgrade with the API's JSON envelope."""
    await socket.send_denial_response(JSONResponse(error_envelope(code, message), status))


def error_envelope(code: str, message: str) -> dict[str, object]:
    """Return the API's JSON body of a failed HTTP request."""
    error = {
        "message": message,
        "type": "invalid_request_error",
        "code": code,
        "param": None,
    }
    return {"error": error}
