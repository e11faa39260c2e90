"""Settings that their author may not have meant, one finding each."""

import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from server.config.settings import Settings
from server.doctor.configuration import check_exposure, check_keys
from server.doctor.finding import Finding
from server.doctor.host import Host

# Such as `parley key` and `openssl rand -hex 32` make.
KEY = "sk-parley-x4cVq9TzLw2NfG7bKd1YpRm8"
SECRET = "9f1c07d2ab5e83446a0de7f15bc89230d41e67fa8c25b390e6417fd80a5c3b92"  # noqa: S105 - nobody's
HASH = "5b0fd2c19a7e4483" * 4
USER = Host(1 << 34, 20_000, 1_000, dt.datetime(2026, 11, 30, tzinfo=dt.UTC), True)

DELEGATE = {"url": "http://a.example/v1", "headers": {"a": "t", "b": "u"}}
REMOTE = {"kind": "moderations", "url": "http://a.example/v1", "model": "m", "api_key": "t"}

# A server for strangers as it should be.
GOOD: dict[str, Any] = {
    "host": "0.0.0.0",  # noqa: S104
    "keys": [{"name": "shop", "sha256": HASH, "limits": {"max_sessions": 4}}],
    "trusted_proxies": ["10.1.2.0/24"],
}


def _exposure(
    settings: dict[str, Any],
    *,
    host: Host = USER,
    config: Path = Path(),
    guessed: Mapping[str, int] | None = None,
) -> dict[str, Finding]:
    found = check_exposure(
        Settings.model_validate(settings), host, config=config, guessed=guessed or {}
    )
    return {finding.check: finding for finding in found if finding.status != "skipped"}


def _keys(**server: Any) -> list[tuple[str, str]]:
    settings = Settings.model_validate({"server": server})
    return [(finding.check, finding.status) for finding in check_keys(settings.server)]


def test_a_server_for_strangers_as_it_should_be() -> None:
    """Nothing is found; and nothing on one for this machine."""
    assert list(_exposure({"server": GOOD})) == ["config.public"]
    assert _exposure({}) == {}


@pytest.mark.parametrize(
    ("server", "check"),
    [
        ({"trusted_proxies": ["127.0.0.1"]}, "config.plain"),
        ({"api_keys": [KEY]}, "config.plain_keys"),
        ({"keys": [{"name": "shop", "sha256": HASH}]}, "config.key_limits"),
        ({"max_session_s": 0}, "config.session_limit"),
        ({"idle_session_s": 0}, "config.session_limit"),
        ({"openapi": True}, "config.openapi"),
        ({"drain_s": 0}, "config.drain"),
    ],
)
def test_what_strangers_may_do(server: dict[str, Any], check: str) -> None:
    """A warning that says how to mend it, and no other."""
    (found,) = _exposure({"server": {**GOOD, **server}}).values()
    assert (found.check, found.status) == (check, "warning")
    assert found.mend


def test_minutes_of_a_day_need_a_ledger() -> None:
    """Or every restart gives them anew."""
    key = {"name": "shop", "sha256": HASH, "limits": {"minutes_a_day": 60}}
    server = {"server": {**GOOD, "keys": [key]}}
    assert _exposure(server)["config.key_minutes"].status == "warning"
    assert list(_exposure({**server, "usage": {"ledger": "usage.jsonl"}})) == ["config.public"]


@pytest.mark.parametrize(
    ("hosts", "bad"),
    [
        ([], False),
        (["voice.example.com"], False),
        (["*.Example.com"], False),
        (["example.com"], True),
    ],
)
def test_a_telephone_provider_that_would_be_refused(hosts: list[str], *, bad: bool) -> None:
    """Its address has a name that the server does not answer to."""
    phone = {"public_url": "https://voice.example.com/p", "twilio": {"auth_tokens": ["t" * 32]}}
    found = _exposure({"server": {**GOOD, "allowed_hosts": hosts}, "telephony": phone})
    assert ("config.hosts" in found) is bad


def test_root_and_a_guess() -> None:
    """Who runs it, and whether the number of sessions was measured."""
    root = Host(1 << 34, 20_000, 0, USER.now, True)
    assert list(_exposure({"server": GOOD}, host=root)) == ["config.root"]
    assert list(_exposure({"server": GOOD}, guessed={"starter": 4})) == ["config.capacity"]


@pytest.mark.parametrize("proxy", ["*", "0.0.0.0/0", "128.0.0.0/1", "::/0"])
def test_proxies_that_are_everybody(proxy: str) -> None:
    """Whoever may say who they are is slowed down by nothing."""
    found = _exposure({"server": {"trusted_proxies": [proxy]}})
    assert found["config.proxies"].status == "error"


@pytest.mark.parametrize(
    ("settings", "check"),
    [
        ({"mcp": {"allowed": ["*"]}}, "config.mcp"),
        (
            {"mcp": {"servers": {"a": {"url": "http://a.example", "authorization": "t"}}}},
            "config.tokens",
        ),
        ({"delegate": DELEGATE}, "config.tokens"),
        ({"filters": {"checks": [REMOTE]}}, "config.tokens"),
        ({"approvals": {"rules": [{"tool": "*"}]}}, "config.audit"),
        (
            {"webrtc": {"ice_servers": [{"urls": ["turn:a.example"], "credential": "x"}]}},
            "config.turn",
        ),
    ],
)  # fmt: skip
def test_what_lies_elsewhere(settings: dict[str, Any], check: str) -> None:
    """Other servers, and who said yes; also on a server for this machine."""
    (found,) = _exposure(settings).values()
    assert (found.check, found.status) == (check, "warning")


def test_a_file_with_secrets(tmp_path: Path) -> None:
    """That everybody can read."""
    config = tmp_path / "config.yaml"
    config.write_text(f"server:\n  api_keys: [{KEY}]\n")
    settings = {"server": {"api_keys": [KEY]}}
    for mode, found in ((0o644, ["config.file"]), (0o640, [])):
        config.chmod(mode)
        assert list(_exposure(settings, config=config)) == found
    config.chmod(0o644)
    config.write_text("server:\n  port: 8000\n")
    assert not _exposure(settings, config=config), "they came by the environment"


def test_a_file_with_tokens_for_others(tmp_path: Path) -> None:
    """Of the text model, of filters and of MCP servers, like keys of our own; https is fine."""
    config = tmp_path / "config.yaml"
    config.write_text("authorization: a-token-for-others")
    config.chmod(0o644)
    token, url = "a-token-for-others", "https://a.example/v1"
    settings: tuple[dict[str, Any], ...] = (
        {"delegate": {"url": url, "authorization": token}},
        {"delegate": {"url": url, "headers": {"api-key": token}}},
        {"filters": {"checks": [{**REMOTE, "url": url, "api_key": token}]}},
        {"mcp": {"servers": {"a": {"url": url, "authorization": token}}}},
    )
    for each in settings:
        assert list(_exposure(each, config=config)) == ["config.file"]


def test_keys_that_can_be_guessed() -> None:
    """By their number, never by themselves."""
    assert _keys() == [("keys.strength", "skipped")]
    assert _keys(api_keys=[KEY], key_secrets=[SECRET]) == [
        ("keys.strength", "ok"),
        ("keys.secrets", "ok"),
    ]
    weak = "change-me-change-me"
    settings = Settings.model_validate({"server": {"api_keys": [KEY, weak]}})
    found = next(iter(check_keys(settings.server)))
    assert (found.check, found.status) == ("keys.strength", "error")
    assert "key 2" in found.found
    assert weak not in f"{found.found}{found.mend}"
    assert ("keys.secrets", "error") in _keys(api_keys=[KEY], key_secrets=["secret" * 8])
    assert ("keys.secrets", "error") in _keys(api_keys=[SECRET], key_secrets=[SECRET])
