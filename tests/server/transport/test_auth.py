"""Which keys open the door, and which origins may knock."""

import pytest

from server.transport.auth import chosen_subprotocol, is_allowed, is_own_origin, offered_key


@pytest.mark.parametrize(
    ("headers", "subprotocols", "key"),
    [
        ({"authorization": "Bearer sk-1"}, (), "sk-1"),
        ({"authorization": "bearer  sk-1 "}, (), "sk-1"),
        ({"authorization": "Basic sk-1"}, (), None),
        ({"authorization": "Bearer "}, (), None),
        ({}, ("realtime", "openai-insecure-api-key.ek_1.2"), "ek_1.2"),
        ({"api-key": "azure"}, (), "azure"),
        ({}, ("realtime",), None),
    ],
)
def test_where_a_key_is_found(
    headers: dict[str, str], subprotocols: tuple[str, ...], key: str | None
) -> None:
    """By header, by subprotocol (all after the first dot), or in Azure's header."""
    assert offered_key(headers, subprotocols) == key


def test_which_keys_are_allowed() -> None:
    """Any of the configured keys; anyone where there are none."""
    assert is_allowed("b", ("a", "b"))
    assert not is_allowed("c", ("a", "b"))
    assert not is_allowed(None, ("a",))
    assert not is_allowed("", ("a",))
    assert is_allowed(None, ())


@pytest.mark.parametrize(
    ("origin", "is_own"),
    [
        (None, True),
        ("http://localhost:3000", True),
        ("http://127.0.0.1:8000", True),
        ("http://[::1]:8000", True),
        ("https://example.org", False),
        ("http://localhost.example.org", False),
        ("null", False),
        ("", False),
    ],
)
def test_whose_pages_may_connect(origin: str | None, is_own: bool) -> None:
    """Only this machine's, where nothing but the address protects the server."""
    assert is_own_origin(origin) is is_own


def test_a_subprotocol_is_chosen_only_if_offered() -> None:
    """A browser refuses one that it did not offer."""
    assert chosen_subprotocol(["realtime", "x"]) == "realtime"
    assert chosen_subprotocol(["x"]) is None
    assert chosen_subprotocol([]) is None
