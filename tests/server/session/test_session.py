"""A session lives as long as its client, and leaves nothing behind however it ends."""

import asyncio
import base64
import json
import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from model.errors import OverloadedError
from model.messages import (
    AppendAudio,
    AppendText,
    Cancel,
    Close,
    Command,
    CommitAudio,
    EngineLost,
    Open,
    Reopen,
    Taken,
)
from server.audio.silero import SileroModel
from server.config.sound import VadSettings
from server.protocol.dialects.ga import GaDialect
from server.protocol.events import EndReason, Hangup
from server.protocol.settings.config import ServerVad, Transcription
from server.session.counts import Counts
from server.session.link import EngineLink
from server.session.outbox import TOO_SLOW
from server.session.session import SessionLimits
from server.session.work_thread import WorkThread
from tests.server.fakes import INFO, MemoryTransport
from tests.server.session.live import LIMITS, TIMEOUT_S, living
from tests.server.sounds import base64_pcm, silence, voice

pytestmark = pytest.mark.usefixtures("no_tasks_left")


@pytest.fixture(scope="module")
def vad_model() -> SileroModel:
    """Load the voice detector once."""
    return SileroModel()


async def test_a_client_that_leaves(vad_model: SileroModel) -> None:
    """A disconnect in the middle of a reply stops everything."""
    async with living(vad_model) as live:
        live.say("endless")
        await live.until("response.output_audio.delta")
        live.transport.disconnect()


async def test_events_may_come_before_the_first_is_read(vad_model: SileroModel) -> None:
    """`session.created` is the first event all the same."""
    async with living(vad_model) as live:
        live.send(type="session.update", session={"type": "realtime"})
        first = json.loads(await live.transport.sent.get())
        second = json.loads(await live.transport.sent.get())
        assert [first["type"], second["type"]] == ["session.created", "session.updated"]
        live.transport.disconnect()


async def test_a_session_outlives_the_engines(vad_model: SileroModel) -> None:
    """The response fails and an error says why; what was said before is known afterwards."""
    async with living(vad_model, instructions="fail") as live:
        live.say("hello")
        done = await live.until("response.done")
        assert done["response"]["status"] == "failed"
        error = await live.until("error")
        assert (error["error"]["type"], error["error"]["code"]) == ("server_error", "engine_failed")
        live.send(type="session.update", session={"type": "realtime", "instructions": ""})
        live.say("again")
        done = await live.until("response.output_audio_transcript.done")
        assert done["transcript"] == "you said hello, again"
        live.transport.disconnect()


async def test_an_engine_that_fails_again_and_again(vad_model: SileroModel) -> None:
    """A few failures in a row are put up with, then the connection closes as a server fault."""
    async with living(vad_model, instructions="fail") as live:
        for _ in range(4):
            live.send(type="response.create")
            await live.until("error")
        assert await live.transport.closed == Hangup(
            EndReason.ENGINE_FAILED, "server_error.engine_failed"
        )


async def test_an_engine_that_takes_no_session_any_more(
    vad_model: SileroModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the conversation cannot go on, it ends."""
    async with living(vad_model, instructions="fail") as live:
        submit = live.engine.submit

        def refuse(command: Command) -> None:
            if isinstance(command, Open):
                raise OverloadedError("another was quicker")
            submit(command)

        await live.until("session.created")
        monkeypatch.setattr(live.engine, "submit", refuse)
        live.send(type="response.create")
        assert (await live.transport.closed).reason is EndReason.INTERNAL_ERROR


async def test_an_engine_that_is_lost_during_the_handshake(
    vad_model: SileroModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is open already: the client is told, and asked to come again."""
    monkeypatch.setattr(EngineLink, "is_running", False)
    async with living(vad_model) as live:
        error = await live.until("error")
        assert (error["error"]["type"], error["error"]["code"]) == ("server_error", "not_ready")
        assert await live.transport.closed == Hangup(EndReason.NO_ROOM, "server_error.not_ready")


async def test_a_reader_that_falls_too_far_behind(vad_model: SileroModel) -> None:
    """Its backlog is bounded: it is disconnected, not served events that are minutes old."""
    limits = SessionLimits(max_backlog_events=8, send_timeout_s=TIMEOUT_S)
    async with living(vad_model, limits) as live:
        await live.until("session.created")
        live.transport.stall()
        live.say("one two three four")
        assert await live.transport.closed is TOO_SLOW


async def test_a_reader_that_takes_nothing(vad_model: SileroModel) -> None:
    """A frame that cannot be sent in time ends the session."""
    limits = SessionLimits(max_backlog_events=64, send_timeout_s=0.05)
    async with living(vad_model, limits) as live:
        live.transport.stall()
        assert await live.transport.closed is TOO_SLOW


async def test_an_unforeseen_fault_is_ours_and_stays_here(
    vad_model: SileroModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever raises inside a session ends that session, with one error that says little."""
    async with living(vad_model) as live:
        await live.until("session.created")

        def broken(audio: str) -> None:
            raise ZeroDivisionError(audio)

        monkeypatch.setattr(live.session._sound._ears, "hear", broken)
        live.send(type="input_audio_buffer.append", audio="AAAA")
        error = await live.until("error")
        assert error["error"]["code"] == "server_error"
        assert "ZeroDivision" not in json.dumps(error)
        assert (await live.transport.closed).reason is EndReason.INTERNAL_ERROR


async def test_a_session_that_is_too_long(vad_model: SileroModel) -> None:
    """A configured length ends with the documented error."""
    limits = SessionLimits(max_backlog_events=64, send_timeout_s=1, max_session_s=0.05)
    async with living(vad_model, limits) as live:
        error = await live.until("error")
        assert error["error"]["code"] == "session_expired"
        assert (await live.transport.closed).reason is EndReason.EXPIRED


async def test_big_appends_and_items_with_audio(vad_model: SileroModel) -> None:
    """What takes long to decode is decoded off the loop, and stays in order."""
    async with living(vad_model) as live:
        audio = {"input": {"turn_detection": None}}
        live.send(type="session.update", session={"type": "realtime", "audio": audio})
        long = base64_pcm(voice(4.5, 24_000))
        live.send(type="input_audio_buffer.append", audio=long)
        live.send(type="input_audio_buffer.commit")
        content = [{"type": "input_audio", "audio": base64_pcm(voice(0.5, 24_000))}]
        item = {"type": "message", "role": "user", "content": content}
        live.send(type="conversation.item.create", item=item)
        live.send(type="response.create")
        done = await live.until("response.output_audio_transcript.done")
        assert done["transcript"] == "you said one two three four five, one"
        live.send(
            type="conversation.item.create",
            item={**item, "content": [{"type": "input_audio", "audio": "*"}]},
        )
        error = await live.until("error")
        assert error["error"]["param"] == "item.content[0].audio"
        live.transport.disconnect()


async def test_cancel_reaches_the_engine_at_once(vad_model: SileroModel) -> None:
    """A cancelled response says nothing any more, and the next one is heard."""
    async with living(vad_model) as live:
        live.say("endless")
        await live.until("response.output_audio.delta")
        live.send(type="response.cancel")
        done = await live.until("response.done")
        assert done["response"]["status_details"]["reason"] == "client_cancelled"
        live.send(type="response.create")
        # The engine takes its commands in order: by its next words it has taken the cancellation.
        await live.until("response.output_audio.delta")
        assert Cancel("sess_1", 1) in live.engine.commands
        live.transport.disconnect()


def _talk() -> str:
    """Say something, pause, go on, and be silent."""
    spoken = [silence(0.5, 24_000), voice(1.0, 24_000), silence(0.2, 24_000), voice(0.8, 24_000)]
    return base64_pcm(np.concatenate((*spoken, silence(0.9, 24_000))))


async def _answered(vad_model: SileroModel, speculate_after_ms: int) -> tuple[list[str], list[Any]]:
    """Talk once; return the kinds of all events and what the engine was told of it."""
    vad = VadSettings(speculate_after_ms=speculate_after_ms)
    detection = ServerVad(threshold=0.2, silence_duration_ms=500)
    kinds: list[str] = []
    async with living(
        vad_model, vad=vad, turn_detection=detection, transcription=Transcription()
    ) as live:
        live.send(type="input_audio_buffer.append", audio=_talk())
        async with asyncio.timeout(TIMEOUT_S):
            while not kinds or kinds[-1] != "response.done":
                event = json.loads(await live.transport.sent.get())
                kinds.append(event["type"])
                if event["type"] == "response.output_audio_transcript.done":
                    assert event["transcript"] == "you said one two three"
        live.transport.disconnect()
    return kinds, [type(command) for command in live.engine.commands]


async def test_a_reply_before_its_time_leaves_no_trace(vad_model: SileroModel) -> None:
    """With a user who goes on after a pause, the client sees what it sees without guesses."""
    plain, patient = await _answered(vad_model, 0)
    guessed, told = await _answered(vad_model, 96)
    assert Reopen not in patient
    assert told.count(Reopen) == told.count(CommitAudio) - 1 > 0
    transcripts = "conversation.item.input_audio_transcription."
    for kinds in (plain, guessed):
        assert kinds.count(f"{transcripts}completed") == 1
        assert kinds.index("input_audio_buffer.committed") < kinds.index("response.created")
    # Transcripts come when they come; everything else has its order.
    ordered = [
        [kind for kind in kinds if not kind.startswith(transcripts)] for kinds in (plain, guessed)
    ]
    assert ordered[0] == ordered[1]


async def test_a_user_who_says_nothing_is_spoken_to(vad_model: SileroModel) -> None:
    """The session keeps the time of the idle timeout."""
    detection = ServerVad(idle_timeout_ms=50)
    async with living(vad_model, turn_detection=detection) as live:
        live.send(
            type="response.create", response={"conversation": "auto", "output_modalities": ["text"]}
        )
        await live.until("response.done")
        triggered = await live.until("input_audio_buffer.timeout_triggered")
        committed = await live.until("input_audio_buffer.committed")
        assert triggered["item_id"] == committed["item_id"]
        await live.until("response.done")
        live.transport.disconnect()


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"required": "ы" * 60}, "invalid_function_parameters"),
        ({"properties": {"a": {"multipleOf": 100_000_007}}}, "invalid_function_parameters"),
        ({"properties": {"a": {"const": 1 << 70}}}, "invalid_function_parameters"),
        ({"properties": {"a": {"default": "\ud800"}}}, "invalid_value"),
    ],
)
async def test_no_schema_ends_a_call(
    vad_model: SileroModel, parameters: dict[str, Any], code: str
) -> None:
    """It is refused with the id of its event, and the session goes on."""
    tool = {"type": "function", "name": "f", "parameters": parameters}
    session = {"type": "realtime", "tools": [tool]}
    async with living(vad_model) as live:
        live.send(type="session.update", event_id="mine", session=session)
        error = (await live.until("error"))["error"]
        assert (error["code"], error["event_id"]) == (code, "mine")
        live.say("hello")
        await live.until("response.done")
        live.transport.disconnect()


async def test_events_wait_for_the_sound_before_them(vad_model: SileroModel) -> None:
    """A typed turn comes after what was appended before it, however late that is heard."""
    thread, may_hear = WorkThread("hearing"), threading.Event()

    def hear_others() -> None:
        assert may_hear.wait(TIMEOUT_S)

    thread.start()
    thread.put(hear_others, lambda _: None)
    async with living(vad_model, hearing=thread, turn_detection=None) as live:
        sound = base64.b64encode(bytes(4_800)).decode()
        live.send(type="input_audio_buffer.append", audio=sound)
        live.send(type="input_audio_buffer.append", audio=sound)
        live.say("hello")
        for _ in range(20):
            await asyncio.to_thread(lambda: None)  # the typed turn would be taken by now
        may_hear.set()
        await live.until("response.done")
        live.transport.disconnect()
    kinds = [type(command) for command in live.engine.commands]
    assert kinds.index(AppendAudio) < kinds.index(AppendText)
    audio = [c.pcm for c in live.engine.commands if isinstance(c, AppendAudio)]
    assert sum(map(len, audio)) > INFO.sample_rate_hz * 0.19
    await thread.stop()


async def test_what_an_engine_died_of_is_not_told_again(vad_model: SileroModel) -> None:
    """The session to blame is ended, and the next engine is given nothing of it."""
    async with living(vad_model) as live:
        live.say("hello")
        await live.until("response.done")
        num_commands = len(live.engine.commands)
        live.session._link.links[0]._hand_over(EngineLost("it died", culprit="sess_1"))
        error = await live.until("error")
        assert error["error"]["code"] == "engine_failed"
        assert await live.transport.closed == Hangup(
            EndReason.ENGINE_FAILED, "server_error.engine_failed"
        )
    assert live.engine.commands[num_commands:] == [Close("sess_1")]


async def test_a_refused_item_is_not_passed_over(vad_model: SileroModel) -> None:
    """A client that sends an image and asks for an answer gets none to what was said before."""
    image = {"type": "input_image", "image_url": "data:image/png;base64,AA"}
    bad_audio = {"type": "input_audio", "audio": "*"}
    too_long = {"type": "input_text", "text": "w" * 70_000}
    async with living(vad_model) as live:
        live.say("first")
        await live.until("response.done")
        for part in (image, bad_audio, too_long):
            item = {"type": "message", "role": "user", "content": [part]}
            live.send(type="conversation.item.create", event_id="its own", item=item)
            live.send(type="response.create", event_id="mine")
            refused = await live.until("error")
            assert refused["error"]["event_id"] == "its own"
            unanswered = await live.until("error")
            assert unanswered["error"]["code"] == refused["error"]["code"]
            assert unanswered["error"]["event_id"] == "mine"
            assert "was refused" in unanswered["error"]["message"]
        live.send(type="response.create")
        done = await live.until("response.output_audio_transcript.done")
        assert done["transcript"] == "you said first"
        live.send(type="conversation.item.create", item=item)
        await live.until("error")
        live.say("second")
        done = await live.until("response.output_audio_transcript.done")
        assert done["transcript"] == "you said first, second"
        live.transport.disconnect()


async def test_each_part_has_its_own_sound(vad_model: SileroModel) -> None:
    """Of an item with two sounds both come back, as long and as loud as they were sent."""
    sounds = [np.full(24 * 500, 0.25, np.float32), np.full(24 * 200, 0.5, np.float32)]
    parts = [{"type": "input_audio", "audio": base64_pcm(sound)} for sound in sounds]
    item = {"id": "two", "type": "message", "role": "user", "content": parts}
    async with living(vad_model) as live:
        live.send(type="conversation.item.create", item=item)
        live.send(type="conversation.item.retrieve", item_id="two")
        retrieved = (await live.until("conversation.item.retrieved"))["item"]["content"]
        for sound, part in zip(sounds, retrieved, strict=True):
            pcm = np.frombuffer(base64.b64decode(part["audio"]), "<i2") / 32_768
            assert len(pcm) == len(sound)
            assert pcm[500:-500] == pytest.approx(sound[500:-500], abs=0.02)
        live.transport.disconnect()


async def test_who_joins_is_not_bound_and_ends_with_the_session() -> None:
    """Who has a bound key changes no instructions; a backend beside the session may."""
    limits = SessionLimits(64, TIMEOUT_S, is_bound=True)
    update = {
        "type": "session.update",
        "session": {"type": "realtime", "instructions": "Be brief."},
    }
    async with living(SileroModel(), limits) as live:
        await live.until("session.created")
        live.send(**update)
        assert (await live.until("error"))["error"]["code"] == "session_bound"
        beside = MemoryTransport()
        joined = asyncio.create_task(live.session.attach(beside, GaDialect()))
        beside.incoming.put_nowait(json.dumps(update))
        updated = await live.until("session.updated")
        assert updated["session"]["instructions"] == "Be brief."
        live.transport.disconnect()
        async with asyncio.timeout(TIMEOUT_S):
            await joined
        assert await beside.closed == Hangup(EndReason.SESSION_ENDED, "The session has ended.")


async def test_sound_of_the_transport_is_heard() -> None:
    """As if it had been appended, before or after what is."""
    async with living(SileroModel(), turn_detection=None) as live:
        await live.until("session.created")
        audio = base64_pcm(silence(3.0, 24_000))
        live.send(type="input_audio_buffer.append", audio=audio)
        live.session.hear(np.zeros(INFO.sample_rate_hz, dtype=np.float32))
        live.send(type="input_audio_buffer.commit")
        await live.until("input_audio_buffer.committed")
        live.transport.disconnect()
    # The engine's thread has ended by now, and has taken everything.
    heard = [command for command in live.engine.commands if isinstance(command, AppendAudio)]
    num_samples = sum(len(command.pcm) for command in heard)
    assert num_samples == pytest.approx(4 * INFO.sample_rate_hz, abs=2)


async def test_a_report_that_cannot_be_taken_ends_its_session_alone(
    vad_model: SileroModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What hands outputs over serves all sessions, and hears nothing of one's fault."""

    def broken(report: Taken) -> None:
        raise OverloadedError(f"{report.session_id}: no room")

    async with living(vad_model) as live:
        await live.until("session.created")
        monkeypatch.setattr(live.session._intake, "taken", broken)
        live.session._on_output(Taken("sess_1", 1))
        assert await live.transport.closed == Hangup(
            EndReason.INTERNAL_ERROR, "server_error.server_error"
        )


async def test_a_session_that_is_idle_ends(vad_model: SileroModel) -> None:
    """Its client is told why, and it is counted as what it was."""
    counts = Counts()
    limits = replace(LIMITS, idle_session_s=0.05)
    async with living(vad_model, limits, counts=counts) as live:
        error = (await live.until("error"))["error"]
        assert error["code"] == "session_expired"
        assert "idle" in error["message"]
        async with asyncio.timeout(TIMEOUT_S):
            hangup = await live.transport.closed
        assert hangup is not None
        assert hangup.reason is EndReason.EXPIRED
    assert sum(counts.sessions_ended.values()) == 1
    assert "client" not in counts.sessions_ended
