"""Ways of finding turns, of answering, interrupting and sending audio: any two work together.

All in virtual time, with the scripted engine: what comes when is exact.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.files.sound import read_sound
from model.messages import CheckTurn, CommitAudio, Reopen
from server.audio.silero import SileroModel
from server.config.sound import VadSettings
from server.protocol.settings.config import (
    AudioFormat,
    Eagerness,
    Encoding,
    SemanticVad,
    ServerVad,
    TurnDetection,
)
from tests.server.session.pairs import covering
from tests.server.session.virtual import WIRE_HZ, Samples, Time, Virtual, scripted, virtually

ASSETS = Path(__file__).resolve().parents[2] / "assets"
SCRIPT = """
hear: [what is two plus two, and three plus three]
reply:
  - when: {user: three}
    say: that is six
  - say: two plus two is four and this goes on for long enough that one can talk over it
"""
SPEECH_MS = 1_400
STOPPED, CREATED = "input_audio_buffer.speech_stopped", "response.created"
AUDIO, DONE = "response.output_audio.delta", "response.done"

# How a turn is found, and where it then ends: after so much silence, and not before the scripted
# engine finds it finished, which is after three frames of silence.
DETECTIONS: Mapping[str, tuple[TurnDetection, int]] = {
    "server_vad": (ServerVad(silence_duration_ms=500), 1_952),
    "low": (SemanticVad("low"), 2_048),
    "auto": (SemanticVad("auto"), 1_696),
    "high": (SemanticVad("high"), 1_696),
}
PACES = {"live": (0.02, 1.0), "large pieces": (0.2, 1.0), "fast": (0.1, 8.0), "at once": (0.0, 0.0)}
FEATURES: Mapping[str, tuple[Any, ...]] = {
    "detection": tuple(DETECTIONS),
    "is_early": (True, False),
    "interrupts": (True, False),
    "encoding": ("audio/pcm", "audio/pcmu", "audio/pcma"),
    "pace": tuple(PACES),
    "by_hand": (False, True),
    "is_slow": (False, True),
}


@pytest.fixture(scope="module")
def vad_model() -> SileroModel:
    """Load the model once."""
    return SileroModel()


def question(tail_s: float) -> Samples:
    """Ask for 1,400 ms, then be silent."""
    spoken = read_sound(ASSETS / "two_plus_two.wav", WIRE_HZ)[: SPEECH_MS * WIRE_HZ // 1000]
    return np.concatenate((spoken, np.zeros(int(tail_s * WIRE_HZ)))).astype(np.float32)


def _silence(seconds: float) -> Samples:
    return np.zeros(int(seconds * WIRE_HZ), dtype=np.float32)


def _ends_ms(live: Virtual) -> list[int]:
    return [event["audio_end_ms"] for event in live.all(STOPPED)]


@pytest.mark.parametrize(tuple(FEATURES), list(covering(FEATURES)))
async def test_any_two_features_work_together(
    vad_model: SileroModel,
    *,
    detection: str,
    is_early: bool,
    interrupts: bool,
    encoding: Encoding,
    pace: str,
    by_hand: bool,
    is_slow: bool,
) -> None:
    """A question is answered in time; then the user talks over the answer."""
    kind, end_ms = DETECTIONS[detection]
    changed = {**kind.to_json(), "interrupt_response": interrupts}
    vad = VadSettings() if is_early else VadSettings(speculate_after_ms=0)
    async with virtually(
        vad_model, _core, vad=vad, is_slow=is_slow, input_format=AudioFormat(encoding)
    ) as live:
        audio = {"input": {"turn_detection": changed, "transcription": {"model": "m"}}}
        await live.send("session.update", session={"type": "realtime", "audio": audio})
        piece_s, speed = PACES[pace]
        if by_hand:
            await live.say(question(0.06), piece_s=piece_s, pace=speed)
            await live.send("input_audio_buffer.commit")
            assert not live.all(CREATED), "who commits by hand asks for the response"
            await live.send("response.create")
        else:
            await live.say(question(1.0), piece_s=piece_s, pace=speed)
            # A window and what resampling a telephone's audio holds back.
            assert _ends_ms(live) == pytest.approx([end_ms], abs=34)
            if speed == 1.0:
                late_s = live.when(STOPPED) - end_ms / 1000
                assert 0 <= round(late_s + 0.034, 3) <= 0.034 * 2 + piece_s
        assert live.one("input_audio_buffer.speech_started")["audio_start_ms"] == 0
        assert len(live.all("input_audio_buffer.committed")) == 1
        assert len(live.all(CREATED)) == 1
        await live.wait(0.3)
        heard = live.one("conversation.item.input_audio_transcription.completed")
        assert heard["transcript"] == "what is two plus two"
        assert live.all(AUDIO), "the answer has begun"
        assert not live.all(DONE)

        await live.say(question(2.2))
        await live.wait(8.0)
        first, *rest = [event["response"] for event in live.all(DONE)]
        assert first["status"] == ("cancelled" if interrupts else "completed")
        assert [response["status"] for response in rest] == ["completed"]
        said = rest[0]["output"][0]["content"][0]["transcript"]
        assert said == "that is six"
        assert len(_ends_ms(live)) == 2
        assert not live.all("error")


def _core(time: Time) -> Any:  # Any: a core of the engine
    return scripted(SCRIPT, time)


@pytest.mark.parametrize("eagerness", ["low", "medium", "auto", "high"])
@pytest.mark.parametrize("is_early", [True, False])
async def test_a_turn_has_the_same_end_at_any_pace(
    vad_model: SileroModel, eagerness: Any, *, is_early: bool
) -> None:
    """Two questions with silence between them are two turns, however fast they come."""
    vad = VadSettings() if is_early else VadSettings(speculate_after_ms=0)
    ends = []
    for piece_s, pace in PACES.values():
        detection = SemanticVad(eagerness, interrupt_response=False)
        async with virtually(vad_model, _core, vad=vad, turn_detection=detection) as live:
            await live.say(
                np.concatenate((question(1.0), question(1.0))), piece_s=piece_s, pace=pace
            )
            await live.wait(10)
            ends.append(_ends_ms(live))
            assert [r["response"]["status"] for r in live.all(DONE)] == ["completed"] * 2
            starts = [e["audio_start_ms"] for e in live.all("input_audio_buffer.speech_started")]
            assert starts == pytest.approx([0, 2_324], abs=100)
    assert len(ends[0]) == 2
    assert ends == [ends[0]] * len(PACES)


async def test_an_early_reply_begins_when_the_turn_sounds_finished(vad_model: SileroModel) -> None:
    """Not before: a model that replies does not listen. It is ready when the turn is over."""
    async with virtually(vad_model, _core, turn_detection=SemanticVad("low")) as live:
        await live.say(question(0.7))
        asked = [c for c in live.engine.commands if isinstance(c, CheckTurn | CommitAudio)]
        assert isinstance(asked[-1], CommitAudio)
        assert asked[-1].is_tentative
        assert live.when(STOPPED) == live.when(AUDIO) == pytest.approx(2.048, abs=0.02)


@pytest.mark.parametrize("eagerness", ["low", "medium", "auto", "high"])
async def test_the_model_is_asked_as_eagerly_as_the_client_wants(
    vad_model: SileroModel, eagerness: Eagerness
) -> None:
    """A model that says how sure it is has a threshold for each; "auto" is "medium"."""
    async with virtually(vad_model, _core, turn_detection=SemanticVad(eagerness)) as live:
        await live.say(question(0.7))
        asked = {c.eagerness for c in live.engine.commands if isinstance(c, CheckTurn)}
    assert asked == {"medium" if eagerness == "auto" else eagerness}


async def test_who_goes_on_in_an_early_reply_is_heard_out(vad_model: SileroModel) -> None:
    """The reply is taken back, and the turn ends where it sounds finished again."""
    async with virtually(vad_model, _core, turn_detection=SemanticVad("low")) as live:
        await live.say(np.concatenate((question(0.2), question(1.0))))
        assert any(isinstance(command, Reopen) for command in live.engine.commands)
        assert _ends_ms(live) == pytest.approx([1_600 + 2_048], abs=34)
        assert len(live.all(CREATED)) == 1


async def test_unfinished_turns_wait_for_the_longest(vad_model: SileroModel) -> None:
    """A pause in the middle of a sentence is not its end."""

    def core(time: Time) -> Any:
        return scripted("hear: [{text: my name is, unfinished: true}]\nreply: [{say: ok}]", time)

    async with virtually(vad_model, core, turn_detection=SemanticVad("high")) as live:
        await live.say(question(3.0))
        assert _ends_ms(live) == pytest.approx([SPEECH_MS + 2_000], abs=100)


async def test_the_question_is_asked_again_of_a_new_memory(vad_model: SileroModel) -> None:
    """An engine that loses the session in a silence is told of the turn, and asked."""
    script = SCRIPT.replace("say: that is six", "lose_session: gone")
    async with virtually(
        vad_model, lambda time: scripted(script, time), turn_detection=SemanticVad("low")
    ) as live:
        await live.say(question(1.0))
        await live.wait(10)
        await live.say(question(2.0))
        assert [event["error"]["code"] for event in live.all("error")] == ["engine_failed"]
        await live.say(question(2.0))
        assert len(_ends_ms(live)) == 3


async def test_a_change_of_detection_in_doubt(vad_model: SileroModel) -> None:
    """What the engine is still asked does not hold up a session that stops asking."""
    async with virtually(vad_model, _core, turn_detection=SemanticVad("low"), is_slow=True) as live:
        await live.say(question(0.2))
        await live.send(
            "session.update",
            session={
                "type": "realtime",
                "audio": {"input": {"turn_detection": {"type": "server_vad"}}},
            },
        )
        await live.say(_silence(1.0))
        assert _ends_ms(live) == pytest.approx([1_952], abs=34)


async def test_a_turn_begun_by_hand_starts_where_it_began(vad_model: SileroModel) -> None:
    """Voice detection that is switched on in it does not move its start."""
    async with virtually(vad_model, _core, turn_detection=None) as live:
        await live.say(_silence(0.5))
        detection = {"type": "server_vad"}
        audio = {"input": {"turn_detection": detection}}
        await live.send("session.update", session={"type": "realtime", "audio": audio})
        await live.say(question(1.0))
        assert live.one("input_audio_buffer.speech_started")["audio_start_ms"] == 0


@pytest.mark.parametrize("way", ["cancel", "speech", "truncate", "delete", "failure", "loss"])
async def test_a_reply_that_is_stopped_was_said_as_far_as_it_was_played(
    vad_model: SileroModel, way: str
) -> None:
    """One rule for every way: of a reply with a word each 0.4 s, those that had begun."""
    script = """
reply:
  - {when: {user: again}, say: 'before: {history}'}
  - {say: one two three four, pace: {first_output_ms: 0, write_ms: 0}ENDING}
"""
    endings = {"failure": ", fail: it broke", "loss": ", lose_session: it is gone"}
    parsed = script.replace("ENDING", endings.get(way, ""))
    async with virtually(
        vad_model, lambda time: scripted(parsed, time), turn_detection=ServerVad()
    ) as live:
        await live.type("hello")
        await live.send("response.create")
        item_id = live.one("response.output_item.added")["item"]["id"]
        if way == "speech":
            await live.say(question(0)[WIRE_HZ // 5 : WIRE_HZ * 65 // 100])
        elif way in endings:
            # It is made a second ahead, so that its end comes when 0.54 s of it were played.
            await live.wait(1.0)
        else:
            await live.wait(0.45)
        if way == "cancel":
            await live.send("response.cancel")
        if way == "truncate":
            await live.send(
                "conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=450
            )
        if way == "delete":
            await live.send("conversation.item.delete", item_id=item_id)
        done = live.one(DONE)["response"]
        assert done["status"] == ("failed" if way in endings else "cancelled")
        if way == "speech":
            await live.send("input_audio_buffer.clear")
        heard = {"delete": "", "speech": "one"}
        words = heard.get(way, "one two")
        if way != "delete":
            await live.send("conversation.item.retrieve", item_id=item_id)
            (part,) = live.one("conversation.item.retrieved")["item"]["content"]
            assert part["transcript"] == words
        await live.type("again")
        await live.send("response.create")
        await live.wait(9.0, step_s=0.1)
        said = live.all("response.output_audio_transcript.done")[-1]["transcript"]
        remembered = f"assistant: {words}; " if words else ""
        assert said == f"before: user: hello; {remembered}user: again"


async def test_a_cancel_before_anything_was_heard_leaves_nothing(vad_model: SileroModel) -> None:
    """After 0.05 s of audio one word has begun; before the first audio, none."""
    script = "reply: [{say: one two three four, pace: {first_output_ms: 0, write_ms: 0}}]"
    async with virtually(vad_model, lambda time: scripted(script, time)) as live:
        for waited_s, words in ((0.06, "one"), (0.0, "")):
            await live.type("hello")
            await live.send("response.create")
            await live.wait(waited_s)
            await live.send("response.cancel")
            item_id = live.all("response.output_item.done")[-1]["item"]["id"]
            await live.send("conversation.item.retrieve", item_id=item_id)
            (part,) = live.all("conversation.item.retrieved")[-1]["item"]["content"]
            assert part["transcript"] == words
