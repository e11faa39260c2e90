"""Which keys open the door, and which origins may knock."""

import pytest

from server.config.server import NamedKey
from server.transport.api_keys import ApiKeys, hashed
from server.transport.auth import (
    admitted,
    check_api_key,
    chosen_subprotocol,
    is_browser,
    is_welcome_origin,
    offered_key,
)
from server.transport.envelope import RefusedError
from server.transport.ephemeral import EphemeralKeys
from tests.server.protocol.harness import CONFIG


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


@pytest.mark.parametrize(
    ("key", "message"),
    [(None, "Missing API key"), ("sk-bad", "Incorrect API key"), ("ek_1", "Ephemeral keys start")],
)
def test_what_backends_are_told(key: str | None, message: str) -> None:
    """All of it is 401 `invalid_api_key`; the words say what to do."""
    check_api_key("sk-1", ApiKeys(("sk-1",)), None)
    with pytest.raises(RefusedError, match=message) as caught:
        check_api_key(key, ApiKeys(("sk-1",)), None)
    assert (caught.value.status, caught.value.code) == (401, "invalid_api_key")


@pytest.mark.parametrize("api_keys", [(), ("sk-1",)])
def test_ephemeral_keys_let_sessions_in(api_keys: tuple[str, ...]) -> None:
    """Also where no keys are needed they must be known: what they are bound to would not apply."""
    keys, known = EphemeralKeys(1), ApiKeys(api_keys)
    key = keys.issue(CONFIG, 60, has_model=False)
    assert admitted(key.value, known, keys).key is key
    with pytest.raises(RefusedError, match="unknown or has expired"):
        admitted("ek_other", known, keys)
    assert admitted("sk-1", known, keys).key is None
    # An operator may have chosen such a name for an ordinary key.
    assert admitted("ek_mine", ApiKeys(("ek_mine",)), keys).key is None


def test_a_key_does_what_its_scopes_allow() -> None:
    """Anything else is 403: the key is right."""
    reads = NamedKey(name="prometheus", sha256=hashed("sk-reads"), scopes=("metrics",))
    known = ApiKeys((), (reads,))
    found = check_api_key("sk-reads", known, "metrics")
    assert found is not None
    assert found.account.name == "prometheus"
    assert check_api_key("sk-reads", known, None) is found
    for refused in (
        lambda: check_api_key("sk-reads", known, "client_secrets"),
        lambda: admitted("sk-reads", known, EphemeralKeys(1)),
    ):
        with pytest.raises(RefusedError, match="needs the scope") as caught:
            refused()
        assert (caught.value.status, caught.value.code) == (403, "insufficient_permissions")


def test_an_ephemeral_key_counts_for_the_key_that_made_it() -> None:
    """As its own sessions do; a key made elsewhere, by a name that is not known here, for none."""
    keys, known = EphemeralKeys(2), ApiKeys(("sk-1",))
    by_own = admitted("sk-1", known, keys).account
    made = keys.issue(CONFIG, 60, has_model=False, issuer="key-1").value
    assert admitted(made, known, keys).account is by_own is not None
    other = keys.issue(CONFIG, 60, has_model=False, issuer="elsewhere").value
    assert admitted(other, known, keys).account is None


@pytest.mark.parametrize(
    ("headers", "subprotocols", "is_page"),
    [
        ({"authorization": "Bearer x"}, (), False),
        ({"authorization": "Bearer x"}, ("realtime",), False),
        ({"origin": "https://example.org"}, (), True),
        ({}, ("realtime", "openai-insecure-api-key.x"), True),
    ],
)
def test_who_can_read_a_refused_upgrade(
    headers: dict[str, str], subprotocols: tuple[str, ...], is_page: bool
) -> None:
    """A page cannot."""
    assert is_browser(headers, subprotocols) is is_page


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
    assert is_welcome_origin(origin, "localhost:8000", (), has_keys=False) is is_own


def test_a_subprotocol_is_chosen_only_if_offered() -> None:
    """A browser refuses one that it did not offer."""
    assert chosen_subprotocol(["realtime", "x"]) == "realtime"
    assert chosen_subprotocol(["x"]) is None
    assert chosen_subprotocol([]) is None
