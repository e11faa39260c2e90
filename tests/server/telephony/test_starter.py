"""The starter on the telephone: what is asked in µ-law is understood, remembered and answered."""

import pytest

from server.config.load import load_settings
from server.engine import make_engine
from tests.server.telephony.phone import answering, beside, on_the_phone, played_to_the_end
from tests.test_readme import CONFIG, needs_starter


@needs_starter
@pytest.mark.slow
async def test_two_turns_with_memory() -> None:
    """Over the telephone's band and its law, in Twilio's protocol, with an interruption."""
    overrides = ["engine.placement=thread", "engine.max_sessions=2"]
    settings = load_settings(CONFIG, overrides, {})
    engine = make_engine(settings)
    async with (
        answering(engine) as served,
        on_the_phone(served) as phone,
        beside(served) as backend,
    ):
        heard = []
        for name in ("my_name_is_peter", "what_is_my_name"):
            await phone.speak(name)
            done = await backend.until("response.done")
            heard.append(done["response"]["output"][0]["content"][0]["transcript"])
            await played_to_the_end(phone, backend)
        assert "peter" in heard[0]
        assert "peter" in heard[1]
        assert len(phone.heard) > 8_000, "more than a second of it was played"
        await phone.speak("capital_of_france")
        await phone.queued(20)
        await phone.play(10)
        await phone.speak("two_plus_two")
        truncated = await backend.until("conversation.item.truncated")
        assert truncated["audio_end_ms"] == 400, "ten marks came back"
        done = await backend.until("response.done")
        assert "four" in done["response"]["output"][0]["content"][0]["transcript"]
