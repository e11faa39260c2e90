"""A session begins with a prompt of the operator's, by the stock client and by a key."""

from typing import Any

from openai import AsyncOpenAI

from model.scripted.script import parse_script
from server.config.settings import Settings
from tests.fakes.scripted import scripted_engine
from tests.server.serving import serving
from tests.test_mcp import Talk

_SCRIPT = """
pace: {real_time_factor: 0, first_output_ms: 0}
reply: [{say: 'told {instructions}'}]
"""
_PROMPTS = {
    "guide": {"versions": {"1": "old {{name}}", "2": "be {{name}}"}},
    "shop": {"versions": {"1": "sell", "2": "buy"}, "default": "1"},
}


async def test_a_prompt_is_what_the_model_is_told() -> None:
    """By its version, variables and default; a session's own instructions stand above it."""
    engine = scripted_engine(parse_script(_SCRIPT, "test"), max_sessions=2, ahead_ms=1_000)
    async with serving(engine, Settings.model_validate({"prompts": _PROMPTS})) as served:
        base_url = served.url.replace("ws://", "http://") + "/v1"
        async with AsyncOpenAI(api_key="any", base_url=base_url) as client:
            prompt: Any = {"id": "guide", "variables": {"name": "kind"}}
            session: Any = {"type": "realtime", "output_modalities": ["text"], "prompt": prompt}
            secret = await client.realtime.client_secrets.create(session=session)
            holder = client.with_options(api_key=secret.value)
            async with holder.realtime.connect(model="scripted") as connection:
                talk = Talk(connection)
                created = await talk.until("session.created")
                assert created.session.prompt.id == "guide"
                assert created.session.instructions == ""  # whoever has the key is not shown it
                await talk.say("hi")
                assert await talk.words() == "told be kind"
                change: Any = {"type": "realtime", "prompt": {"id": "shop"}}
                await connection.session.update(session=change)
                await talk.ask()
                assert await talk.words() == "told sell"
                response: Any = {"prompt": {"id": "shop", "version": "2"}}
                await connection.response.create(response=response)
                assert await talk.words() == "told buy"
                change = {"type": "realtime", "instructions": "own"}
                await connection.session.update(session=change)
                await talk.ask()
                assert await talk.words() == "told own"
                await connection.session.update(
                    session={"type": "realtime", "prompt": {"id": "none"}}
                )
                while (event := await connection.recv()).type != "error":
                    pass
                assert event.error.param == "session.prompt.id"
