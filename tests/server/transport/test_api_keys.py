"""API keys are known by their hashes."""

import json
from typing import Any

import pytest
import yaml
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from server.cli import main
from server.config.server import KeyLimits, NamedKey, ServerSettings
from server.config.settings import Settings
from server.transport.api_keys import ApiKeys, hashed, made_key
from tests.server.fakes import EchoEngine
from tests.server.serving import Served, serving
from tests.server.transport.asking import asking

SECRET = "a-secret-that-servers-share-among-them"  # noqa: S105 - of a test
SHOP, READER = made_key(), made_key()
KEYS = (
    NamedKey(name="shop", sha256=hashed(SHOP), limits=KeyLimits(max_sessions=1)),
    NamedKey(name="reader", sha256=hashed(READER), scopes=("metrics",)),
)


def _settings(**server: Any) -> Settings:
    voices = {"alloy": "amber"}
    return Settings(server=ServerSettings(keys=KEYS, **server), voices=voices)


def _headers(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def _refused(served: Served, key: str) -> tuple[int, str]:
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"{served.url}/v1/realtime", additional_headers=_headers(key))
    answer = refused.value.response
    return answer.status_code, json.loads(answer.body or b"")["error"]["code"]


def test_keys_are_found_by_their_hashes() -> None:
    """Plain ones have numbers for names; without any, everyone is welcome."""
    keys = ApiKeys(("plain-key",), KEYS)
    names = [found.account.name for key in ("plain-key", SHOP, READER) if (found := keys.find(key))]
    assert names == ["key-1", "shop", "reader"]
    assert keys.find(hashed(SHOP)) is keys.find(None) is keys.find("") is None
    assert keys
    assert not ApiKeys()


def test_the_command_makes_what_the_configuration_takes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The key itself is in a comment."""
    assert main(["key", "shop"]) == 0
    printed = capsys.readouterr().out
    key = next(word for word in printed.split() if word.startswith("sk-parley-"))
    settings = ServerSettings(**yaml.safe_load(printed)["server"])
    found = ApiKeys((), settings.keys).find(key)
    assert found is not None
    assert found.account.name == "shop"
    assert main(["key", "two words"]) == 2


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ([{"name": "a", "sha256": "0" * 64}] * 2, "two keys are called 'a'"),
        ([{"name": "key-1", "sha256": "0" * 64}], "server.api_keys"),
        ([{"name": "a b", "sha256": "0" * 64}], "pattern"),
        ([{"name": "a", "sha256": "0" * 63}], "pattern"),
        ([{"name": "a", "sha256": "0" * 64, "scopes": []}], "at least 1"),
    ],
)
def test_what_is_no_key(keys: Any, message: str) -> None:
    """It is said when the configuration is read."""
    with pytest.raises(ValueError, match=message):
        ServerSettings(keys=keys)


async def test_what_keys_may_do_over_http() -> None:
    """A right key that may not is 403, and no wrong try."""
    async with asking(key=READER, api_keys=(), keys=KEYS) as client:
        assert (await client.get("/metrics")).status_code == 200
        assert (await client.get("/v1/models")).status_code == 200
        for _ in range(8):
            answer = await client.post("/v1/realtime/client_secrets", json={})
            assert answer.status_code == 403
            assert answer.json()["error"]["code"] == "insufficient_permissions"
        text = (await client.get("/metrics")).text
    assert "parley_failed_keys_total 0.0" in text
    assert 'parley_key_sessions{key="shop"} 0.0' in text


async def test_limits_hold_for_ephemeral_keys_as_well() -> None:
    """Their sessions are those of the key that made them."""
    async with serving(EchoEngine(), _settings()) as served:
        url = f"{served.url}/v1/realtime"
        assert await _refused(served, READER) == (403, "insufficient_permissions")
        gateway = served.app.state.gateway
        key = gateway.keys.issue(
            gateway.models.default.default_config(),
            60,
            has_model=False,
            max_sessions=9,
            issuer="shop",
        )
        async with connect(url, additional_headers=_headers(key.value)) as client:
            assert json.loads(await client.recv())["type"] == "session.created"
            assert await _refused(served, SHOP) == (429, "rate_limit_exceeded")
            text = (await served.get("/metrics", **_headers(READER)))[1]
            assert 'parley_key_sessions{key="shop"} 1.0' in text
            assert 'parley_key_refused_total{key="shop"} 1.0' in text


async def test_a_key_made_on_one_server_opens_a_session_on_another() -> None:
    """With what it is bound to, and not on a server of a later epoch."""
    shared = {"key_secrets": (SECRET,)}
    async with asking(key=SHOP, api_keys=(), keys=KEYS, **shared) as client:
        session = {"type": "realtime", "instructions": "Be brief."}
        body = {"session": session, "bound": True}
        made = (await client.post("/v1/realtime/client_secrets", json=body)).json()["value"]
    async with serving(EchoEngine(), _settings(**shared)) as served:
        url = f"{served.url}/v1/realtime"
        # As browsers send it.
        async with connect(
            url,
            subprotocols=[Subprotocol("realtime"), Subprotocol(f"openai-insecure-api-key.{made}")],
        ) as client:
            created = json.loads(await client.recv())
            assert created["session"]["instructions"] == "Be brief."
            update = {"type": "session.update", "session": {**session, "instructions": "Talk."}}
            await client.send(json.dumps(update))
            assert json.loads(await client.recv())["type"] == "error"
            assert served.app.state.gateway.api_keys.account("shop").num_open == 1
    async with serving(EchoEngine(), _settings(**shared, key_epoch=1)) as served:
        assert await _refused(served, made) == (401, "invalid_api_key")
