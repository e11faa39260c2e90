"""Keys that carry what they stand for are known wherever their secret is, and cannot be made up."""

import base64
import contextlib
import zlib
from dataclasses import replace
from typing import Any

import pytest

from server.errors import ClientError, OverloadedError
from server.protocol.settings.config import SessionConfig
from server.protocol.settings.update import requested
from server.protocol.wire.checks import JsonObject
from server.transport.envelope import RefusedError
from server.transport.signed import MAX_KEY_CHARS, KeyFacts, SignedKeys, Signer
from tests.server.protocol.harness import CONFIG, VOICES

OLD, NEW = "an-old-secret-of-some-length-1234", "a-new-secret-of-some-length-56789"
SESSION = {"type": "realtime", "instructions": "Be kind.", "audio": {"output": {"voice": "echo"}}}
FACTS = KeyFacts("k1", 3, 2_000, 5, True, False, "m", "shop", SESSION)


class _Clock:
    now_s = 1_000.5

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s


def _read(session: JsonObject, model: str = "") -> SessionConfig:
    config = requested(CONFIG, session, VOICES)
    return replace(config, model=model or config.model)


def _server(*secrets: str, epoch: int = 0, max_keys: int = 8, clock: Any = None) -> SignedKeys:
    return SignedKeys(max_keys, Signer(secrets or (NEW,)), epoch, _read, clock or _Clock())


def _issued(keys: SignedKeys, **options: Any) -> Any:
    options = {"has_model": True, "session": SESSION, **options}
    return keys.issue(replace(_read(SESSION), model="asked"), 60, **options)


def test_a_key_says_what_it_stands_for() -> None:
    """To whoever has the secret, in characters that a header and a subprotocol take."""
    value = Signer([NEW]).signed(FACTS)
    assert Signer([NEW]).facts(value) == FACTS
    assert value.startswith("ek_")
    assert set(value) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")


def test_a_key_shows_nothing_of_its_session() -> None:
    """It is in the hands of a user, and a session may have tokens for servers of tools."""
    tool = {"type": "mcp", "server_label": "shop", "authorization": "token-of-the-shop"}
    value = Signer([NEW]).signed(replace(FACTS, session={"type": "realtime", "tools": [tool]}))
    data = base64.urlsafe_b64decode(value[3:] + "=" * (-len(value[3:]) % 4))
    for start in range(len(data)):
        with contextlib.suppress(zlib.error):
            assert b"token" not in zlib.decompressobj().decompress(data[start:])
    assert b"token" not in data


def test_a_key_that_was_changed_is_none() -> None:
    """Whichever character it is: a signature is of all of it."""
    signer = Signer([NEW])
    value = signer.signed(FACTS)
    for index in range(3, len(value) - 1):
        other = "A" if value[index] != "A" else "B"
        assert signer.facts(value[:index] + other + value[index + 1 :]) is None
    data = base64.urlsafe_b64encode(b"x" * 100).decode()
    for made_up in (
        "",
        "ek_",
        "ek_é",
        "ek_!",
        f"ek_{data}",
        value[3:],
        value[:-4],
        "ek_" + "A" * 5,
    ):
        assert signer.facts(made_up) is None
    assert Signer([OLD]).facts(value) is None
    assert signer.facts(value + "A" * MAX_KEY_CHARS) is None


def test_a_key_of_one_server_is_a_key_of_another() -> None:
    """With all that it is bound to."""
    key = _issued(_server(), max_sessions=5, is_bound=True, issuer="shop")
    found = _server().find(key.value)
    assert found is not None
    assert found.config == key.config
    assert found.config.model == "asked"
    assert (found.expires_at, found.max_sessions, found.is_bound) == (1_061, 5, True)
    assert (found.has_model, found.issuer, found.value) == (True, "shop", key.value)
    assert _server(OLD).find(key.value) is None


def test_secrets_are_changed_without_a_break() -> None:
    """First all believe the new one, then all sign with it, then the old one goes."""
    before, between, after = _server(OLD, NEW), _server(NEW, OLD), _server(NEW)
    old, new = _issued(before).value, _issued(between).value
    assert before.find(new) is not None
    assert between.find(old) is not None
    assert after.find(new) is not None
    assert after.find(old) is None


def test_keys_of_an_earlier_epoch_are_none() -> None:
    """While servers change one after the other, those of the new epoch are good on all."""
    old, new = _server(epoch=1), _server(epoch=2)
    was = _issued(old).value
    assert new.find(was) is None
    assert not new.revoke(was)
    assert old.find(_issued(new).value) is not None


def test_a_key_expires() -> None:
    """On every server."""
    clock = _Clock()
    keys = _server(clock=clock)
    value = _issued(keys).value
    clock.now_s = 1_060.9
    assert keys.find(value) is keys.find(value) is not None
    clock.now_s = 1_061
    assert keys.find(value) is None
    assert not keys.revoke(value)


def test_a_key_is_the_same_however_it_is_written() -> None:
    """Else the bound of its sessions, and its end, would hold for one spelling."""
    keys = _server()
    key = _issued(keys)
    found = keys.find(key.value)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = key.value[-1]
    for char in alphabet:
        spelled = keys.find(key.value[:-1] + char)
        assert spelled in (None, found), (last, char)


def test_a_key_that_is_revoked_ends_its_sessions_here() -> None:
    """And is none here any more; another server has not heard of it."""
    keys, other = _server(), _server()
    key = _issued(keys)
    found, ended = keys.find(key.value), list[str]()
    assert found is not None
    with found.opened(lambda: ended.append("a")):
        assert keys.revoke(key.value)
        assert ended == ["a"]
    assert keys.find(key.value) is None
    assert not keys.revoke(key.value)
    assert other.find(key.value) is not None
    with pytest.raises(RefusedError, match="revoked"), found.opened(lambda: None):
        pass


def test_what_is_remembered_is_bounded() -> None:
    """Revoked keys until they would have expired, and keys in use."""
    clock = _Clock()
    keys = _server(max_keys=2, clock=clock)
    for _ in range(2):
        assert keys.revoke(_issued(keys).value)
    with pytest.raises(OverloadedError, match="2 revoked keys"):
        keys.revoke(_issued(keys).value)
    clock.now_s = 2_000
    assert keys.revoke(_issued(keys).value)
    used = keys.find(_issued(keys).value)
    assert used is not None
    with used.opened(lambda: None):
        for _ in range(5):
            assert keys.find(_issued(keys).value) is not None
        assert keys.find(used.value) is used
    assert len(keys._keys) <= 3


def test_a_session_that_is_too_long_for_a_key() -> None:
    """Is refused when the key is made, with the bound; text that repeats itself is short."""
    keys = _server()
    _issued(keys, session={"type": "realtime", "instructions": "again and " * 5_000})
    noise = "".join(chr(0x4E00 + 7_919 * index % 20_000) for index in range(3_000))
    with pytest.raises(ClientError, match="4096 are taken") as refused:
        _issued(keys, session={"type": "realtime", "instructions": noise})
    assert (refused.value.code, refused.value.param) == ("session_too_long", "session")


def test_a_session_that_another_server_cannot_have() -> None:
    """It is set up differently, and says so."""
    voice = {"type": "realtime", "audio": {"output": {"voice": "unheard"}}}
    value = _issued(_server(), session=voice).value
    with pytest.raises(RefusedError, match=r"cannot be had here.*unheard"):
        _server().find(value)
