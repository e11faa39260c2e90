"""A session is bound to the user whom its key or its connection names."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI
from structlog.testing import capture_logs
from websockets.exceptions import InvalidStatus

from model.scripted.script import parse_script
from server.config.settings import Settings
from server.protocol.settings.config import SessionConfig
from server.transport.envelope import RefusedError
from server.transport.safety import safety_identifier, with_safety_identifier
from tests.fakes.scripted import scripted_engine
from tests.server.serving import Served, serving
from tests.test_mcp import Talk

_SCRIPT = """
pace: {real_time_factor: 0, first_output_ms: 0}
reply: [{call: {name: pay, arguments: {}}}]
"""
_HEADER = "OpenAI-Safety-Identifier"
_PAY: Any = {"type": "function", "name": "pay"}


@pytest.mark.parametrize("given", ["x" * 65, "é", "a\x7fb"])
def test_what_is_no_identifier_is_refused(given: str) -> None:
    """With a status, before there is a session."""
    with pytest.raises(RefusedError, match="OpenAI-Safety-Identifier") as refused:
        safety_identifier({"openai-safety-identifier": given})
    assert refused.value.status == 400


def test_who_is_bound_already_stays_so() -> None:
    """The holder of a key cannot say that it is somebody else."""
    config = SessionConfig("s", "m", "v", 0)
    bound = with_safety_identifier(config, {"openai-safety-identifier": "a"})
    assert bound.safety_identifier == "a"
    assert with_safety_identifier(bound, {"openai-safety-identifier": "b"}) == bound
    assert with_safety_identifier(config, {}) == config
    assert "safety_identifier" not in bound.to_json()


@asynccontextmanager
async def paying(audit: Path, **server: Any) -> AsyncIterator[tuple[Served, AsyncOpenAI]]:
    """Serve a script that pays, which is written down."""
    engine = scripted_engine(parse_script(_SCRIPT, "test"), max_sessions=2, ahead_ms=1_000)
    approvals = {"rules": [{"tool": "pay"}], "audit_file": str(audit)}
    settings = Settings.model_validate({"approvals": approvals, "server": server})
    async with serving(engine, settings) as served:
        base_url = served.url.replace("ws://", "http://") + "/v1"
        async with AsyncOpenAI(api_key="any", base_url=base_url) as client:
            yield served, client


@pytest.mark.parametrize("secrets", [(), ("s" * 32,)])
async def test_log_and_audit_name_the_user(tmp_path: Path, secrets: tuple[str, ...]) -> None:
    """Of a connection, and of a key whose holder says nothing; and also of a signed one."""
    audit = tmp_path / "audit.jsonl"
    with capture_logs() as logs:
        async with paying(audit, key_secrets=secrets) as (_, client):
            secret = await client.realtime.client_secrets.create(extra_headers={_HEADER: "user-1"})
            holder = client.with_options(api_key=secret.value)
            for each, headers in ((holder, {_HEADER: "liar"}), (client, {_HEADER: "user-2"})):
                async with each.realtime.connect(model="m", extra_headers=headers) as connection:
                    talk = Talk(connection)
                    await talk.offer(_PAY)
                    await talk.say("pay")
                    await talk.until("response.done")
    ended = [log["safety_identifier"] for log in logs if log["event"] == "session ended"]
    assert sorted(ended) == ["user-1", "user-2"]
    lines = [json.loads(line) for line in audit.read_text().splitlines()]
    # The first session may end after the second has begun.
    assert sorted((line["safety_identifier"], line["what"]) for line in lines) == [
        ("user-1", "approval requested"),
        ("user-1", "dropped"),
        ("user-2", "approval requested"),
        ("user-2", "dropped"),
    ]


async def test_a_wrong_one_is_refused_before_the_upgrade(tmp_path: Path) -> None:
    """By a status, as any refusal."""
    async with paying(tmp_path / "audit.jsonl") as (_, client):
        headers = {_HEADER: "x" * 65}
        with pytest.raises(InvalidStatus) as refused:
            async with client.realtime.connect(model="m", extra_headers=headers):
                pass
        assert refused.value.response.status_code == 400
