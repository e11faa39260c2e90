"""Whole sessions in which a conversation grows too long, with the scripted engine."""

from typing import Any

import pytest

from server.audio.silero import SileroModel
from server.config.sound import VadSettings
from tests.server.session.test_features import question
from tests.server.session.virtual import scripted, virtually

DONE, DELETED = "response.done", "conversation.item.deleted"


@pytest.fixture(scope="module")
def vad_model() -> SileroModel:
    """Load the model once."""
    return SileroModel()


def _ratio(most: int) -> dict[str, Any]:
    limits = {"post_instructions": most}
    return {"type": "retention_ratio", "retention_ratio": 0.5, "token_limits": limits}


async def test_what_is_dropped_is_forgotten_by_the_model(vad_model: SileroModel) -> None:
    """And paid for no more: what is told anew is new, and cached from then on."""
    script = "reply: [{when: {user: what}, say: '{history}'}, {say: ok}]"
    changes: dict[str, Any] = {"output_modality": "text", "truncation": _ratio(12)}
    async with virtually(vad_model, lambda t: scripted(script, t), **changes) as live:
        for text in ("one two three four five", "six seven", "and eight and nine", "what"):
            await live.type(text)
            await live.send("response.create")
            await live.wait(1.0)
        usages = [event["response"]["usage"] for event in live.all(DONE)]
        inputs = [each["input_tokens"] for each in usages]
        cached = [each["input_token_details"]["cached_tokens"] for each in usages]
        assert inputs == [5, 8, 5, 7]
        assert cached == [0, 6, 0, 6], "the third was told anew"
        assert len(live.all(DELETED)) == 3
        said = live.all(DONE)[-1]["response"]["output"][0]["content"][0]["text"]
        assert said == "assistant: ok; user: and eight and nine; assistant: ok; user: what"


@pytest.mark.parametrize("is_early", [True, False])
@pytest.mark.parametrize("is_played", [True, False])
async def test_a_talk_goes_on_as_its_beginning_is_dropped(
    vad_model: SileroModel, *, is_early: bool, is_played: bool
) -> None:
    """Turn after turn, early replies or not; no turn has more than the limit for long."""
    vad = VadSettings() if is_early else VadSettings(speculate_after_ms=0)
    script = "hear: [{text: and one, repeat: true}]\nreply: [{say: ok}]"
    changes: dict[str, Any] = {"vad": vad, "truncation": _ratio(60)}
    async with virtually(
        vad_model, lambda t: scripted(script, t), is_played=is_played, **changes
    ) as live:
        for _ in range(5):
            await live.say(question(1.0))
            await live.wait(2.0)
        responses = [event["response"] for event in live.all(DONE)]
        assert [each["status"] for each in responses] == ["completed"] * 5
        assert live.all(DELETED)
        assert all(each["usage"]["input_tokens"] <= 60 for each in responses)
        assert not live.all("error")
