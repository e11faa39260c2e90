"""What an API key has used is counted, and bounded."""

import contextlib

import pytest

from server.config.server import KeyLimits
from server.session.accounts import Account, watch

DAY_S = 86_400.0


def _nobody(message: str) -> None:
    pytest.fail(f"a session was ended: {message}")


class _Clock:
    now_s = 10 * DAY_S + 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s


def test_sessions_at_once() -> None:
    """One that ends makes room."""
    account = Account("shop", KeyLimits(max_sessions=2), _Clock())
    with account.opened(_nobody):
        with account.opened(_nobody):
            reached = account.reached()
            assert reached is not None
            assert "2 sessions open" in reached.text
        assert account.reached() is None
    assert (account.num_open, account.num_begun, account.num_refused) == (0, 2, 1)


def test_minutes_of_a_day() -> None:
    """Of all sessions together, also of those that are open; a new day begins at nothing."""
    clock = _Clock()
    account = Account("shop", KeyLimits(minutes_a_day=10), clock)
    with account.opened(_nobody), account.opened(_nobody):
        clock.now_s += 299
        assert account.reached() is None
        clock.now_s += 1
        reached = account.reached()
        assert reached is not None
        assert "10 minutes" in reached.text
        assert reached.retry_after_s == DAY_S - 400
        clock.now_s = 11 * DAY_S + 60
        assert account.reached() is None
        clock.now_s += 240
        assert account.reached() is not None
    assert account.seconds == 2 * (DAY_S - 100 + 300)


def test_a_clock_that_is_set_back_takes_nothing_away() -> None:
    """And adds nothing until it is where it was."""
    clock = _Clock()
    account = Account("shop", KeyLimits(), clock)
    with account.opened(_nobody):
        clock.now_s += 50
        assert account.seconds == 50
        assert account.reached() is None
        clock.now_s -= 40
        assert account.seconds == 50
        clock.now_s += 50
        assert account.seconds == 60


def test_sessions_a_minute() -> None:
    """In any minute, and not by the clock's."""
    clock = _Clock()
    account = Account("shop", KeyLimits(sessions_a_minute=2), clock)
    for _ in range(2):
        assert account.reached() is None
        with account.opened(_nobody):
            clock.now_s += 20
    reached = account.reached()
    assert reached is not None
    assert reached.retry_after_s == 20
    clock.now_s += 20
    assert account.reached() is None


def test_a_session_that_fails_is_closed() -> None:
    """It is not open for ever."""
    account = Account("shop", KeyLimits(), _Clock())
    with contextlib.suppress(ValueError), account.opened(_nobody):
        raise ValueError
    assert account.num_open == 0


def test_open_sessions_end_when_the_minutes_of_their_key_are_used_up() -> None:
    """All of them, as time goes; each is told again for as long as it is there."""
    clock, first, second = _Clock(), list[str](), list[str]()
    account = Account("shop", KeyLimits(minutes_a_day=10), clock)
    with account.opened(first.append):
        with account.opened(second.append):
            clock.now_s += 299
            account.end_if_used_up()
            assert first == second == []
            clock.now_s += 1
            account.end_if_used_up()
            assert first == second
            assert "used its 10 minutes" in first[0]
        account.end_if_used_up()
        assert (len(first), len(second)) == (2, 1)
        clock.now_s = 11 * DAY_S + 1
        account.end_if_used_up()
        assert len(first) == 2, "it is another day"


async def test_keys_without_minutes_are_not_watched() -> None:
    """There is nothing to watch, and the task is over at once."""
    await watch([Account("shop", KeyLimits(max_sessions=1), _Clock())])
