"""Whole calls: Twilio's protocol from the webhook to the end, against a script."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from model.messages import AppendText, Respond
from server.config.records import RecordingSettings
from server.recording import witness
from server.recording.tracks import Tracks
from tests.server.fakes import EchoEngine
from tests.server.recording.test_served import recordings
from tests.server.telephony.phone import (
    CALL_ID,
    KEY,
    STORY,
    answering,
    beside,
    on_the_phone,
    played_to_the_end,
    post,
    script_engine,
)


async def test_a_whole_call() -> None:
    """A turn is heard and answered; what was played is said as it was played, to the end."""
    async with answering() as served, on_the_phone(served) as phone, beside(served) as backend:
        await phone.speak()
        done = await backend.until("response.done")
        assert done["response"]["status"] == "completed"
        assert not any(each["type"] == "output_audio_buffer.started" for each in backend.seen)
        await phone.queued(1)
        assert np.abs(phone.queued_pcm).max() > 0.01, "there is sound"
        await phone.play(1)
        await backend.until("output_audio_buffer.started")
        stopped = await played_to_the_end(phone, backend)
        assert stopped["response_id"] == done["response"]["id"]
        assert phone.cleared == 0
        item = await backend.item(done["response"]["output"][0]["id"])
        assert item["content"][0]["transcript"] == "hello there"


async def test_speech_interrupts_and_history_ends_at_the_last_mark() -> None:
    """The provider is told to clear, and what no mark came back for was not said."""
    async with (
        answering(script_engine(hears=STORY)) as served,
        on_the_phone(served) as phone,
        beside(served) as backend,
    ):
        await phone.speak()
        await phone.queued(25)
        await phone.play(20)
        await backend.until("output_audio_buffer.started")
        await phone.speak()
        truncated = await backend.until("conversation.item.truncated")
        assert truncated["audio_end_ms"] == 20 * 40, "of 40 ms each"
        assert phone.cleared
        item = await backend.item(truncated["item_id"])
        words = item["content"][0]["transcript"].split()
        assert words, "the words that had begun are kept"
        assert len(words) < 10, "and no others"
        # Marks that came back for the clear said nothing; the next reply is played as ever.
        done = await backend.until("response.done")
        assert done["response"]["status"] == "completed"
        await played_to_the_end(phone, backend)


async def test_a_cough_does_not_end_a_reply() -> None:
    """It falls silent, and goes on at the last mark that came back."""
    async with (
        answering(script_engine(hears=STORY)) as served,
        on_the_phone(served) as phone,
        beside(served) as backend,
    ):
        await phone.speak()
        await phone.queued(25)
        await phone.play(5)
        await phone.speak(seconds=0.15)
        await phone.until(lambda: phone.cleared == 1)
        await phone.queued(25)
        await played_to_the_end(phone, backend)
        assert not any(each["type"] == "conversation.item.truncated" for each in backend.seen)


async def test_keys_are_a_user_turn_and_interrupt() -> None:
    """# ends them; what plays falls silent at the first one."""
    async with answering() as served, on_the_phone(served) as phone, beside(served) as backend:
        await phone.press("42#")
        done = await backend.until("response.done")
        assert done["response"]["output"][0]["content"][0]["transcript"] == "you pressed forty two"
        added = [each["item"] for each in backend.seen if each["type"] == "conversation.item.added"]
        assert added[0]["content"] == [{"type": "input_text", "text": "42"}]
        await phone.queued(1)
        await phone.press("4")
        await phone.until(lambda: phone.cleared)
        await phone.press("2#")
        assert (await backend.until("response.done"))["response"]["status"] == "completed"
        await played_to_the_end(phone, backend)


async def test_a_pause_ends_keys() -> None:
    """Without #."""
    async with (
        answering(dtmf_pause_s=0.01) as served,
        on_the_phone(served) as phone,
        beside(served) as backend,
    ):
        await phone.press("42")
        done = await backend.until("response.done")
        assert done["response"]["output"][0]["content"][0]["transcript"] == "you pressed forty two"


async def test_the_model_is_told_what_is_asked_for() -> None:
    """By name, and nothing else of the call; the assistant may speak first."""
    engine = EchoEngine()
    settings: dict[str, Any] = {"parameters": ("customer", "from", "nothing"), "greeting": True}
    async with (
        answering(engine, **settings) as served,
        on_the_phone(served, "?customer=7&secret=x") as phone,
    ):
        await phone.queued(1)
    told = [each for each in engine.commands if isinstance(each, AppendText | Respond)]
    assert isinstance(told[0], AppendText)
    assert (told[0].role, told[0].text) == (
        "system",
        "About this call:\ncustomer: 7\nfrom: +15550100",
    )
    assert isinstance(told[1], Respond)


async def test_the_session_is_the_configured_one() -> None:
    """Its instructions, voice and tools are those of the settings."""
    tool = {"type": "function", "name": "f", "parameters": {"type": "object"}}
    session = {"instructions": "Be brief.", "tools": [tool]}
    async with (
        answering(session=session) as served,
        on_the_phone(served),
        beside(served) as backend,
    ):
        (created,) = backend.seen
        assert created["session"]["instructions"] == "Be brief."
        assert created["session"]["tools"][0]["name"] == "f"


async def test_a_backend_hangs_up() -> None:
    """By the provider's id; the stream is closed, and the provider hangs up."""
    async with answering() as served, on_the_phone(served) as phone, beside(served):
        place = f"/v1/telephony/calls/{CALL_ID}/hangup"
        assert (await post(served, place, b""))[0] == 401
        assert (await post(served, place, b"", Authorization=f"Bearer {KEY}"))[0] == 200
        assert await phone.ended() == 1000


async def test_a_call_is_recorded_where_its_session_consents(tmp_path: Path) -> None:
    """What the provider was told to forget is not on the right track."""
    hushed: list[float] = []

    class Watched(Tracks):
        def hush(self, now_s: float) -> None:
            hushed.append(now_s)
            super().hush(now_s)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(witness, "Tracks", Watched)
        async with (
            answering(
                script_engine(hears=STORY),
                recordings=RecordingSettings(enabled=True, dir=tmp_path),
                session={"recording": {"consent": True}},
            ) as served,
            on_the_phone(served) as phone,
            beside(served) as backend,
        ):
            await phone.speak()
            await phone.queued(25)
            await phone.play(20)
            await phone.speak()
            await backend.until("conversation.item.truncated")
            await backend.until("response.done")
    (folder,) = recordings(tmp_path)
    about = json.loads((folder / "recording.json").read_text())
    assert (about["transport"], about["is_complete"]) == ("telephony", True)
    assert hushed
    assert soundfile.info(folder / "audio.flac").channels == 2
