"""The official client, and a server whose settings ask for checks."""

from openai import AsyncOpenAI

from model.scripted.script import parse_script
from server.config.settings import Settings
from tests.fakes.scripted import scripted_engine
from tests.server.serving import serving

_SCRIPT = """
reply:
  - when: {user: number}
    say: Sure. Call 650 253 0000 now. That is all.
  - say: Hello there.
"""
_PERSONAL = {"kind": "personal", "action": "mask"}


async def test_from_the_settings_to_the_client() -> None:
    """A spoken number ends the response, a written one is masked, and the session goes on."""
    settings = Settings.model_validate({"filters": {"checks": [_PERSONAL]}})
    engine = scripted_engine(parse_script(_SCRIPT, "test"), max_sessions=2, ahead_ms=60_000)
    async with serving(engine, settings) as served:
        client = AsyncOpenAI(api_key="any", base_url=served.url.replace("ws://", "http://") + "/v1")
        async with client, client.realtime.connect(model="scripted") as connection:

            async def ask(text: str, modality: str) -> tuple[str | None, str | None, str]:
                content = [{"type": "input_text", "text": text}]
                item = {"type": "message", "role": "user", "content": content}
                await connection.conversation.item.create(item=item)  # type: ignore[arg-type]
                await connection.response.create(response={"output_modalities": [modality]})  # type: ignore[arg-type]
                words = ""
                async for event in connection:
                    if event.type in (
                        "response.output_text.delta",
                        "response.output_audio_transcript.delta",
                    ):
                        words += event.delta
                    if event.type == "response.done":
                        details = event.response.status_details
                        reason = details.reason if details is not None else None
                        return event.response.status, reason, words
                raise AssertionError("the connection ended")

            assert await ask("a number", "audio") == ("incomplete", "content_filter", "Sure.")
            said = "Sure. Call *** *** **** now. That is all."
            assert await ask("a number", "text") == ("completed", None, said)
            assert await ask("hello", "audio") == ("completed", None, "Hello there.")
