"""Every way in which a session ends has its close code."""

from server.protocol.events import EndReason
from server.transport.close_codes import CLOSE_CODES


def test_every_reason_has_a_code_that_may_be_sent() -> None:
    """RFC 6455, section 7.4: 1004 to 1006 and 1015 never go over the wire."""
    assert set(CLOSE_CODES) == set(EndReason)
    assert not {1004, 1005, 1006, 1015} & set(CLOSE_CODES.values())
