"""Whole sessions whose words are checked, in virtual time with the scripted engine."""

import base64
import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model.messages import AppendText, Cancel, Truncate
from server.audio.silero import SileroModel
from server.config.filters import FilterSettings
from server.config.sound import VadSettings
from server.protocol.settings.config import ServerVad
from server.protocol.settings.tools import FunctionTool
from tests.server.session.pairs import covering
from tests.server.session.test_features import question
from tests.server.session.virtual import WIRE_HZ, Virtual, scripted, virtually

SCRIPT = """
hear: [what is two plus two, "my card is 4111 1111 1111 1111", what now]
reply:
  - when: {user: two plus two}
    say: That is four. Now build a bomb. And more of it.
  - when: {user: later}
    say: A harmless answer.
  - say: Something else.
"""
CHECKS = FilterSettings.model_validate(
    {
        "checks": [
            {"kind": "words", "of": ["output"], "words": ["bomb"]},
            {"kind": "personal", "of": ["input"], "action": "refuse"},
        ]
    }
)
TRANSCRIPT = "conversation.item.input_audio_transcription.completed"
AUDIO, DONE, CREATED = "response.output_audio.delta", "response.done", "response.created"
FILTERED = {"type": "incomplete", "reason": "content_filter"}
FEATURES = {
    "is_early": (True, False),
    "is_played": (True, False),
    "is_slow": (True, False),
    "interrupts": (True, False),
}


@pytest.fixture(scope="module")
def vad_model() -> SileroModel:
    """Load the model once."""
    return SileroModel()


def _said(live: Virtual) -> str:
    kinds = ("response.output_audio_transcript.delta", "response.output_text.delta")
    return "".join(event["delta"] for _, event in live.events if event["type"] in kinds)


@pytest.mark.parametrize(tuple(FEATURES), list(covering(FEATURES)))
async def test_a_refused_sentence_ends_the_response(
    vad_model: SileroModel, *, is_early: bool, is_played: bool, is_slow: bool, interrupts: bool
) -> None:
    """It is never told or heard, however the turn was found and the reply is played."""
    vad = VadSettings() if is_early else VadSettings(speculate_after_ms=0)
    detection = ServerVad(interrupt_response=interrupts)
    session: dict[str, Any] = {"vad": vad, "turn_detection": detection, "filters": CHECKS}
    async with virtually(
        vad_model, lambda t: scripted(SCRIPT, t), is_played=is_played, is_slow=is_slow, **session
    ) as live:
        await live.say(question(1.0))
        await live.wait(4.0)
        done = live.one(DONE)["response"]
        assert (done["status"], done["status_details"]) == ("incomplete", FILTERED)
        assert "bomb" not in "".join(map(str, live.events))
        assert _said(live).strip() in ("", "That is four.")
        # The session lives, and the next reply is whole.
        await live.type("later")
        await live.send("response.create")
        await live.wait(4.0)
        assert [each["response"]["status"] for each in live.all(DONE)] == [
            "incomplete",
            "completed",
        ]


@pytest.mark.parametrize("modality", ["audio", "text"])
@pytest.mark.parametrize("is_heard", [False, True])
async def test_a_sentence_is_said_in_its_place(
    vad_model: SileroModel, modality: Any, *, is_heard: bool
) -> None:
    """By the served model, in a response of its own, which stays in its memory."""
    sentence = "I cannot talk about that."
    checks = CHECKS.model_copy(update={"sentence": sentence})
    script = SCRIPT.replace("what is two plus two, ", "") if is_heard else SCRIPT
    script = script.replace("A harmless answer.", "'{history}'")
    changes: dict[str, Any] = {"output_modality": modality, "filters": checks}
    async with virtually(vad_model, lambda t: scripted(script, t), **changes) as live:
        await live.say(question(1.0))
        await live.wait(6.0)
        blocked, said = [event["response"] for event in live.all(DONE)]
        assert (blocked["status"], blocked["status_details"]) == ("incomplete", FILTERED)
        assert said["status"] == "completed"
        (item,) = said["output"]
        assert item["content"][0]["transcript" if modality == "audio" else "text"] == sentence
        assert len(live.all(CREATED)) == 2
        if modality == "audio":
            assert live.all(AUDIO)[-1]["item_id"] == item["id"]
        await live.type("later")
        await live.send("response.create")
        await live.wait(9.0)
        remembered = live.all(DONE)[-1]["response"]["output"][0]["content"][0]
        text = remembered["transcript" if modality == "audio" else "text"]
        assert text.endswith(f"assistant: {sentence}; user: later")
        assert "build" not in text
        assert "4111" not in text


async def test_who_talks_over_the_sentence_is_heard(vad_model: SileroModel) -> None:
    """It is cut like any other reply."""
    checks = CHECKS.model_copy(update={"sentence": "I cannot talk about that and never will."})
    async with virtually(vad_model, lambda t: scripted(SCRIPT, t), filters=checks) as live:
        await live.type("two plus two")
        await live.send("response.create")
        await live.wait(0.3)
        await live.say(question(0.0))
        statuses = [event["response"]["status"] for event in live.all(DONE)]
        assert statuses == ["incomplete", "cancelled"]


async def test_in_text_as_well(vad_model: SileroModel) -> None:
    """What was written before stays, in the conversation and for the model."""
    changes: dict[str, Any] = {"output_modality": "text", "filters": CHECKS}
    async with virtually(vad_model, lambda t: scripted(SCRIPT, t), **changes) as live:
        await live.type("two plus two")
        await live.send("response.create")
        await live.wait(1.0)
        done = live.one(DONE)["response"]
        assert done["status_details"] == FILTERED
        assert [part["text"] for item in done["output"] for part in item["content"]] == [
            "That is four."
        ]
        await live.type("later")
        await live.send("response.create")
        await live.wait(1.0)
        told = [c.text for c in live.engine.commands if isinstance(c, AppendText)]
        assert "That is four." in told
        assert not any("bomb" in text for text in told)


async def test_a_refused_question_is_not_answered(vad_model: SileroModel) -> None:
    """Neither its words nor an answer come out, and the model forgets it before the next turn."""
    script = SCRIPT.replace("what is two plus two, ", "")
    async with virtually(vad_model, lambda t: scripted(script, t), filters=CHECKS) as live:
        await live.say(question(1.0))
        await live.wait(2.0)
        assert live.one(DONE)["response"]["status_details"] == FILTERED
        assert live.all(AUDIO) == []
        assert "4111" not in "".join(map(str, live.events))
        await live.say(question(1.0))
        await live.wait(2.0)
        assert live.all(DONE)[1]["response"]["status"] == "completed"
        told = [c.text for c in live.engine.commands if isinstance(c, AppendText)]
        assert not any("4111" in text for text in told)


def _typed(text: str) -> dict[str, Any]:
    content = [{"type": "input_text", "text": text}]
    return {"type": "message", "role": "user", "content": content}


async def test_refused_typing_is_not_taken(vad_model: SileroModel) -> None:
    """Neither into the conversation nor into a response of its own, and nothing answers it."""
    async with virtually(vad_model, lambda t: scripted(SCRIPT, t), filters=CHECKS) as live:
        await live.type("later")
        await live.type("it is 4111 1111 1111 1111")
        await live.send("response.create")
        given = [_typed("hello"), _typed("4111111111111111")]
        await live.send("response.create", response={"conversation": "none", "input": given})
        errors = [event["error"] for event in live.all("error")]
        assert [(each["code"], each["param"]) for each in errors] == [
            ("content_filter", "item.content[0].text"),
            ("content_filter", None),
            ("content_filter", "response.input[1].content[0].text"),
        ]
        assert "4111" not in "".join(map(str, [*live.events, *live.engine.commands]))
        assert not live.all(CREATED)
        # Asked again, the model answers what was there before.
        await live.send("response.create")
        await live.wait(3.0)
        assert _said(live).strip() == "A harmless answer."


async def test_masked_typing_is_taken_masked(vad_model: SileroModel) -> None:
    """By clients, the conversation and the model; an application's own items are not checked."""
    checks = [{"kind": "personal", "action": "mask"}]
    filters = FilterSettings.model_validate({"checks": checks})
    script = "reply: [{say: '{last_user}', at_most: 1}, {say: ok}]"
    changes: dict[str, Any] = {"output_modality": "text", "filters": filters}
    async with virtually(vad_model, lambda t: scripted(script, t), **changes) as live:
        await live.type("mail jane@example.com please")
        (part,) = live.one("conversation.item.added")["item"]["content"]
        assert part["text"] == "mail **************** please"
        await live.send("response.create")
        await live.wait(1.0)
        assert _said(live) == "mail **************** please"
        note = {**_typed("mail joe@example.com"), "role": "system"}
        await live.send("conversation.item.create", item=note)
        (part,) = live.all("conversation.item.added")[-1]["item"]["content"]
        assert part["text"] == "mail joe@example.com"


async def test_what_is_shown_with_masked_words_is_seen(vad_model: SileroModel) -> None:
    """A picture of the same item is not touched, and the words in a call for it are judged."""
    checks = [{"kind": "personal", "action": "mask"}]
    filters = FilterSettings.model_validate({"checks": checks})
    script = "reply: [{say: 'i see {image.colour} {last_user}'}]"
    changes: dict[str, Any] = {"output_modality": "text", "filters": filters}
    async with virtually(vad_model, lambda t: scripted(script, t), **changes) as live:
        file = io.BytesIO()
        Image.new("RGB", (64, 32), (220, 30, 30)).save(file, "PNG")
        url = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
        item = _typed("of jane@example.com")
        item["content"].append({"type": "input_image", "image_url": url})
        await live.send("conversation.item.create", item=item)
        await live.send("response.create")
        await live.wait(1.0)
        assert _said(live) == "i see red of ****************"


async def test_a_refused_call_is_never_made(vad_model: SileroModel) -> None:
    """What was said before it stays; the model is told the conversation without it."""
    script = """
reply:
  - {when: {user: order}, say: One moment., call: {name: order, arguments: {what: "a {last_user}"}}}
  - say: '{history}'
"""
    checks = FilterSettings.model_validate({"checks": [{"kind": "words", "words": ["b\u00f3mb"]}]})
    only_calls = checks.model_copy(
        update={"checks": (checks.checks[0].model_copy(update={"of": ("calls",)}),)}
    )
    changes: dict[str, Any] = {"tools": (FunctionTool("order", None, {"type": "object"}),)}
    async with virtually(
        vad_model, lambda t: scripted(script, t), filters=only_calls, **changes
    ) as live:
        for text, status in (("order b\u00f3mb", "incomplete"), ("order tea", "completed")):
            await live.type(text)
            await live.send("response.create")
            await live.wait(3.0)
            done = live.all(DONE)[-1]["response"]
            assert done["status"] == status
            kinds = [item["type"] for item in done["output"]]
            assert kinds == ["message", "function_call"][: 1 + (status == "completed")]
        assert live.all(DONE)[0]["response"]["status_details"] == FILTERED
        (call,) = live.all("response.function_call_arguments.done")
        assert json.loads(call["arguments"]) == {"what": "a order tea"}
        await live.type("what now")
        await live.send("response.create")
        await live.wait(9.0)
        assert _said(live).count("order {") == 1, "the model remembers one call"


async def test_barge_in_drops_what_waits(vad_model: SileroModel) -> None:
    """A reply that is cut while it is checked ends once, as a cut one."""
    script = "reply: [{say: One sentence that is spoken for a good while and then some more.}]"
    async with virtually(vad_model, lambda t: scripted(script, t), filters=CHECKS) as live:
        await live.type("hello")
        await live.send("response.create")
        await live.wait(0.3)
        await live.say(question(0.0))
        cut = live.all(DONE)[0]["response"]
        assert cut["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
        assert any(isinstance(each, Cancel) for each in live.engine.commands)
        assert any(isinstance(each, Truncate) for each in live.engine.commands)


async def test_checks_add_no_virtual_time(vad_model: SileroModel) -> None:
    """The first sound comes at the same moment with and without them."""
    first: list[float] = []
    script = SCRIPT.replace("Now build a bomb. ", "")
    for filters in (FilterSettings(), CHECKS):
        async with virtually(vad_model, lambda t: scripted(script, t), filters=filters) as live:
            await live.say(np.concatenate((question(1.0), np.zeros(WIRE_HZ, np.float32))))
            await live.wait(1.0)
            first.append(live.when(AUDIO))
    assert first[0] == first[1]
