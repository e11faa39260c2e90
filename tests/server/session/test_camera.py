"""What a camera shows is part of the turn that ends next, in virtual time."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.files.sound import read_sound
from model.messages import Close, CommitAudio, Open, Reopen
from server.audio.silero import SileroModel
from server.protocol.settings.config import ServerVad
from tests.server.images.files import BLUE, GREEN, RED
from tests.server.session.virtual import WIRE_HZ, Samples, Virtual, scripted, virtually

ASSETS = Path(__file__).resolve().parents[2] / "assets"
SCRIPT = """
hear: [{ text: what is it, repeat: true }]
reply: [{ say: '{images}' }]
"""
VAD = ServerVad(silence_duration_ms=500)


@pytest.fixture(scope="module")
def vad_model() -> SileroModel:
    """Load the model once."""
    return SileroModel()


@pytest.fixture(scope="module")
def speech() -> Samples:
    """Return a spoken question without a pause after it."""
    return read_sound(ASSETS / "two_plus_two.wav", WIRE_HZ)[: int(1.4 * WIRE_HZ)]


def pause(seconds: float) -> Samples:
    """Return silence."""
    return np.zeros(int(seconds * WIRE_HZ), dtype=np.float32)


def said(virtual: Virtual) -> list[str]:
    """Return the words of all replies."""
    done = virtual.all("response.output_audio_transcript.done")
    return [event["transcript"] for event in done]


def kinds(virtual: Virtual) -> list[list[str]]:
    """Return the parts of the user's items."""
    items: list[dict[str, Any]] = [e["item"] for e in virtual.all("conversation.item.added")]
    users = [item for item in items if item["role"] == "user"]
    return [[part["type"] for part in item["content"]] for item in users]


async def test_the_newest_become_part_of_the_turn(vad_model: SileroModel, speech: Samples) -> None:
    """Three at most, after the sound; the next turn has none of them."""
    async with virtually(vad_model, lambda time: scripted(SCRIPT, time), turn_detection=VAD) as v:
        for colour in (GREEN, RED, BLUE, GREEN):
            await v.see(colour)
        await v.say(np.concatenate([speech, pause(0.6)]))
        await v.wait(2.0)
        assert kinds(v) == [["input_audio", "input_image", "input_image", "input_image"]]
        assert said(v) == ["red 64x32; blue 64x32; green 64x32"]
        usage = v.one("response.done")["response"]["usage"]["input_token_details"]
        assert usage["image_tokens"] == 3 * 2
        await v.say(np.concatenate([speech, pause(0.6)]))
        await v.wait(2.0)
        assert kinds(v)[1:] == [["input_audio"]]


async def test_a_reply_begun_early_keeps_its_pictures(
    vad_model: SileroModel, speech: Samples
) -> None:
    """What comes between the reply's beginning and the turn's end is the next turn's."""
    async with virtually(vad_model, lambda time: scripted(SCRIPT, time), turn_detection=VAD) as v:
        await v.see(RED)
        await v.say(np.concatenate([speech, pause(0.3)]))
        tentative = [c for c in v.engine.commands if isinstance(c, CommitAudio)]
        assert [c.is_tentative for c in tentative] == [True]
        await v.see(BLUE)
        await v.say(pause(0.4))
        await v.wait(2.0)
        assert said(v) == ["red 64x32"]
        assert len(tentative[0].images) == 1
        await v.say(np.concatenate([speech, pause(0.6)]))
        await v.wait(2.0)
        assert said(v) == ["red 64x32", "blue 64x32"]


async def test_a_turn_that_goes_on(vad_model: SileroModel, speech: Samples) -> None:
    """A reply that was begun in a pause is gone, and its pictures are the turn's again."""
    async with virtually(vad_model, lambda time: scripted(SCRIPT, time), turn_detection=VAD) as v:
        await v.see(RED)
        await v.say(np.concatenate([speech, pause(0.3)]))
        await v.see(BLUE)
        await v.say(np.concatenate([speech, pause(0.6)]))
        await v.wait(2.0)
        assert any(isinstance(command, Reopen) for command in v.engine.commands)
        assert said(v) == ["red 64x32; blue 64x32"]
        assert kinds(v) == [["input_audio", "input_image", "input_image"]]


async def test_a_turn_by_hand(vad_model: SileroModel, speech: Samples) -> None:
    """Push to talk has the pictures as well, also where nobody spoke."""
    async with virtually(vad_model, lambda time: scripted(SCRIPT, time), turn_detection=None) as v:
        await v.see(RED)
        await v.say(speech)
        await v.send("input_audio_buffer.commit")
        await v.send("response.create")
        await v.wait(2.0)
        await v.see(BLUE)
        await v.say(pause(0.5))
        await v.send("input_audio_buffer.commit")
        await v.send("response.create")
        await v.wait(2.0)
        assert said(v) == ["red 64x32", "blue 64x32"]


async def test_an_engine_that_is_told_anew(vad_model: SileroModel, speech: Samples) -> None:
    """Pictures are told again where they stood."""
    async with virtually(vad_model, lambda time: scripted(SCRIPT, time), turn_detection=None) as v:
        await v.type("before")
        (typed,) = (event["item"]["id"] for event in v.all("conversation.item.added"))
        await v.see(RED)
        await v.say(speech)
        await v.send("input_audio_buffer.commit")
        await v.send("conversation.item.delete", item_id=typed)
        await v.send("response.create")
        await v.wait(2.0)
        told = [type(command) for command in v.engine.commands]
        assert told.count(Open) == 2
        assert told.count(Close) == 1
        assert said(v) == ["red 64x32"]
