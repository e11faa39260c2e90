"""A stream is let in once, soon, and by the provider that was told."""

import pytest

from server.telephony.tickets import EXPECTED_S, LIFE_S, MAX_TICKET_CHARS, Tickets


def test_a_ticket_is_good_once() -> None:
    """For the call it was made for."""
    tickets = Tickets((), lambda: 1_000.0)
    ticket, other = tickets.make("twilio", "CA1"), tickets.make("twilio", "CA1")
    assert tickets.take(ticket, "telnyx") is None
    assert tickets.take(ticket, "twilio") == "CA1"
    assert tickets.take(ticket, "twilio") is None
    assert tickets.take(f"{ticket}=", "twilio") is None, "however it is written"
    assert tickets.take(other, "twilio") == "CA1"


def test_a_ticket_is_good_for_a_minute() -> None:
    """And what was taken is forgotten after that."""
    now = [1_000.0]
    tickets = Tickets((), lambda: now[0])
    early, late = tickets.make("twilio", "CA1"), tickets.make("twilio", "CA2")
    now[0] += LIFE_S
    assert tickets.take(early, "twilio") == "CA1"
    now[0] += 1
    assert tickets.take(late, "twilio") is None
    assert tickets.take(early, "twilio") is None


def test_a_stream_is_expected_for_a_moment() -> None:
    """Where its ticket was made, until it comes or should have."""
    now, secret = [1_000.0], "a" * 32
    tickets, others = (Tickets((secret,), lambda: now[0]) for _ in range(2))
    first, second = tickets.make("twilio", "CA1"), tickets.make("twilio", "CA2")
    assert (tickets.num_expected, others.num_expected) == (2, 0)
    assert tickets.is_expected(first)
    assert not others.is_expected(first)
    assert tickets.take(first, "twilio") == "CA1"
    assert not tickets.is_expected(first)
    assert tickets.num_expected == 1
    now[0] += EXPECTED_S
    assert not tickets.is_expected(second)
    assert tickets.num_expected == 0
    assert tickets.take(second, "twilio") == "CA2", "it is good for longer than that"


@pytest.mark.parametrize("ticket", ["", "x", "\u00fc", "A" * MAX_TICKET_CHARS, "A" * 5_000])
def test_what_is_none(ticket: str) -> None:
    """Nobody makes one up."""
    assert Tickets((), lambda: 0.0).take(ticket, "twilio") is None


def test_servers_with_a_secret_know_one_anothers() -> None:
    """By any of the secrets; without one, nobody else's."""
    one, two = "a" * 32, "b" * 32
    ticket = Tickets((one,), lambda: 5.0).make("telnyx", "v3:1")
    assert Tickets((two, one), lambda: 5.0).take(ticket, "telnyx") == "v3:1"
    assert Tickets((two,), lambda: 5.0).take(ticket, "telnyx") is None
    assert Tickets((), lambda: 5.0).take(ticket, "telnyx") is None
