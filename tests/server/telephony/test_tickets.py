"""A stream is let in once, soon, and by the provider that was told."""

import pytest

from server.telephony.tickets import LIFE_S, MAX_TICKET_CHARS, Tickets


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
