"""Ephemeral keys expire, are bounded, and cannot be guessed."""

import pytest

from server.errors import OverloadedError
from server.transport.envelope import RefusedError
from server.transport.ephemeral import EphemeralKeys
from tests.server.protocol.harness import CONFIG


class _Clock:
    """Unix time that stands still."""

    now_s = 1_000.5

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s


def test_a_key_starts_sessions_until_it_expires() -> None:
    """Any number of times; at its last second it is gone."""
    clock = _Clock()
    keys = EphemeralKeys(2, clock)
    key = keys.issue(CONFIG, 60, has_model=True)
    assert key.value.startswith("ek_")
    assert key.expires_at == 1_061
    assert keys.find(key.value) is keys.find(key.value) is key
    assert keys.find(key.value + "x") is None
    clock.now_s = 1_060.9
    assert keys.find(key.value) is key
    clock.now_s = 1_061
    assert keys.find(key.value) is None


def test_keys_are_bounded_and_expired_ones_make_room() -> None:
    """Too many are refused: none that was given out is taken away before its time."""
    clock = _Clock()
    keys = EphemeralKeys(2, clock)
    short, long = (keys.issue(CONFIG, ttl_s, has_model=False) for ttl_s in (10, 100))
    with pytest.raises(OverloadedError, match="2 ephemeral keys"):
        keys.issue(CONFIG, 10, has_model=False)
    clock.now_s += 20
    another = keys.issue(CONFIG, 10, has_model=False)
    assert len(keys) == 2
    assert keys.find(short.value) is None
    assert keys.find(long.value) is long
    assert another.value not in (short.value, long.value)


def test_a_key_is_not_shown() -> None:
    """Logs print objects."""
    key = EphemeralKeys(1).issue(CONFIG, 60, has_model=False)
    assert key.value not in repr(key)


def test_a_key_that_was_revoked_opens_nothing() -> None:
    """Also for whoever has found it before."""
    keys = EphemeralKeys(2)
    key = keys.issue(CONFIG, 60, has_model=False)
    assert keys.revoke(key.value)
    with pytest.raises(RefusedError, match="revoked"), key.opened(lambda: None):
        pass
