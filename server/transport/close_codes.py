"""Say with which code a WebSocket closes, and why.

RFC 6455, section 7.4: 1000 to 1015 are the protocol's, 3000 to 3999 registered ones, 4000 to 4999
free. Which of them the API uses is what the hosted service was seen to do.
"""

from collections.abc import Mapping

from server.protocol.events import EndReason

# 1000, 1001 and 1011 are in section 7.4.1; 1013 is in IANA's registry of close codes.
_CLOSE_NORMAL = 1000
_CLOSE_GOING_AWAY = 1001
_CLOSE_INTERNAL_ERROR = 1011
CLOSE_TRY_AGAIN_LATER = 1013
CLOSE_BAD_KEY = 3000
CLOSE_BAD_REQUEST = 4000

CLOSE_CODES: Mapping[EndReason, int] = {
    EndReason.HUNG_UP: _CLOSE_NORMAL,
    EndReason.SESSION_ENDED: _CLOSE_NORMAL,
    EndReason.EXPIRED: _CLOSE_GOING_AWAY,
    EndReason.KEY_REVOKED: CLOSE_BAD_KEY,
    EndReason.NO_ROOM: CLOSE_TRY_AGAIN_LATER,
    EndReason.SLOW_READER: _CLOSE_INTERNAL_ERROR,
    EndReason.ENGINE_FAILED: _CLOSE_INTERNAL_ERROR,
    EndReason.INTERNAL_ERROR: _CLOSE_INTERNAL_ERROR,
}
"""Why a session's connection ends → the code that it closes with."""
